"""Programs that speak the HTTP+SSE of 2024-11-05, on the far side of the gateway."""

# pyright: reportDeprecated=false
# The handshake era is what is tested.

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Generator

import mcp_types as types
import pytest
from mcp.client import ClientRequestContext

from interop.programs import EVERYTHING, EVERYTHING_STDIO, PATIENCE, Steps, holdfast, node, sdk_client, text_of
from processes import ROOT, free_port, start
from requirements import requirement

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # of the handshake era
]
SDK_SERVER = ROOT / "tests" / "interop" / "sdk_sse_server.py"


@contextlib.contextmanager
def everything() -> Generator[str]:
    port = free_port()
    with node(EVERYTHING, "sse", port=port, PORT=str(port)):
        yield f"http://127.0.0.1:{port}/sse"


@contextlib.contextmanager
def supergateway() -> Generator[str]:
    port = free_port()
    arguments = ("--stdio", " ".join(EVERYTHING_STDIO), "--outputTransport", "sse", "--port", str(port))
    with node("supergateway/dist/index.js", *arguments, port=port):
        yield f"http://127.0.0.1:{port}/sse"


@contextlib.contextmanager
def sdk_server() -> Generator[str]:
    port = free_port()
    with start(sys.executable, SDK_SERVER, str(port)) as process:
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}/sse"


@requirement("interop:old-sse:servers")
@pytest.mark.parametrize("server", [everything, supergateway])
async def test_a_server_in_node_is_found_to_be_of_the_old_kind(
    server: Callable[[], contextlib.AbstractContextManager[str]],
) -> None:
    steps = Steps()
    with server() as old, holdfast(old) as (url, _):
        async with asyncio.timeout(PATIENCE), sdk_client(url) as client:
            assert text_of(await client.call_tool("get-sum", {"a": 2, "b": 3})) == "The sum of 2 and 3 is 5."
            call = client.call_tool(
                "trigger-long-running-operation", {"duration": 1, "steps": 4}, progress_callback=steps
            )
            assert "Steps: 4" in text_of(await call)
            assert steps.seen[0] == (1, 4)


@requirement("interop:old-sse:servers")
async def test_a_server_of_the_official_sdk_keeps_each_chat_apart_and_asks_its_person() -> None:
    async def elicited(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"word": f"re: {params.message}"})

    steps = Steps()
    with sdk_server() as old, holdfast(old) as (url, _):
        async with (
            asyncio.timeout(PATIENCE),
            sdk_client(url, elicitation_callback=elicited) as alice,
            sdk_client(url) as bob,
        ):
            assert [text_of(await alice.call_tool("count", {})) for _ in range(2)] == ["1", "2"]
            assert text_of(await bob.call_tool("count", {})) == "1"
            assert text_of(await alice.call_tool("ask", {})) == "re: which word?"
            assert text_of(await bob.call_tool("ask", {})) == "cancel"
            assert text_of(await alice.call_tool("steps", {"number": 3}, progress_callback=steps)) == "done"
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]
