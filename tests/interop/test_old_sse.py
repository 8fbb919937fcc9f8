"""Programs that speak the HTTP+SSE of 2024-11-05, on either side of the gateway."""

# pyright: reportDeprecated=false
# The handshake era is what is tested.

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client

from interop.programs import (
    EVERYTHING,
    EVERYTHING_STDIO,
    NODE,
    PACKAGES,
    PATIENCE,
    TEST_SERVER_STDIO,
    Heard,
    Steps,
    holdfast,
    node,
    sdk_client,
    text_of,
)
from processes import ROOT, free_port, start
from requirements import requirement

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # of the handshake era
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


# Clients.


@contextlib.asynccontextmanager
async def sse_client_of(url: str, **callbacks: Any) -> AsyncGenerator[Client]:
    """The official SDK's client over its SSE transport; the environment's proxies are left aside."""

    def client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(headers=headers, timeout=timeout, auth=auth, trust_env=False)

    transport = sse_client(url, timeout=PATIENCE, httpx_client_factory=client)
    async with Client(transport, mode="legacy", cache=None, **callbacks) as connected:
        yield connected


@requirement("interop:old-sse:clients")
async def test_the_official_clients_sse_transport_is_served() -> None:
    async def elicited(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"answer": f"re: {params.message}"})

    steps = Steps()
    heard = Heard()
    with holdfast("--", *TEST_SERVER_STDIO) as (url, _):
        old = url.replace("/mcp", "/sse")
        async with (
            asyncio.timeout(PATIENCE),
            sse_client_of(old, elicitation_callback=elicited, message_handler=heard.take) as alice,
            sse_client_of(old) as bob,
        ):
            text_of(await alice.call_tool("remember", {"key": "pet", "value": "cat"}))
            assert text_of(await alice.call_tool("recall", {"key": "pet"})) == "cat"
            assert (await bob.call_tool("recall", {"key": "pet"})).is_error
            assert "re: sure?" in text_of(await alice.call_tool("ask", {"message": "sure?"}))
            assert text_of(await alice.call_tool("progress", {"steps": 3}, progress_callback=steps)) == "done"
            text_of(await alice.call_tool("change_tools", {}))
            await heard.until(types.ToolListChangedNotification)
    assert steps.seen == [(1, 3), (2, 3), (3, 3)]


@requirement("interop:old-sse:clients")
async def test_old_client_and_old_server_meet() -> None:
    with sdk_server() as old, holdfast(old) as (url, _):
        async with asyncio.timeout(PATIENCE), sse_client_of(url.replace("/mcp", "/sse")) as client:
            assert [text_of(await client.call_tool("count", {})) for _ in range(2)] == ["1", "2"]


@requirement("interop:old-sse:clients")
async def test_supergateway_as_a_client_brings_it_to_stdio() -> None:
    with holdfast("--", *TEST_SERVER_STDIO) as (url, _):
        arguments = [str(PACKAGES / "supergateway" / "dist" / "index.js"), "--sse", url.replace("/mcp", "/sse")]
        server = StdioServerParameters(command=str(NODE), args=arguments)
        async with asyncio.timeout(PATIENCE), Client(stdio_client(server), mode="legacy", cache=None) as client:
            text_of(await client.call_tool("remember", {"key": "pet", "value": "cat"}))
            assert text_of(await client.call_tool("recall", {"key": "pet"})) == "cat"
