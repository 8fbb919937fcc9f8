"""A server of the official SDK that is spoken to in 2026-07-28, and the SDK's client of the handshake era before us."""

# pyright: reportDeprecated=false
# The handshake era of the client is what is tested.

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Generator
from typing import Any, Final

import mcp_types as types
import pytest
from mcp.client import ClientRequestContext
from pydantic import FileUrl

from interop.programs import PATIENCE, Heard, Steps, holdfast, sdk_client, text_of
from processes import ROOT, free_port, start
from requirements import requirement

SERVER: Final = ROOT / "tests" / "conformance" / "reference_server.py"

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # of the handshake era


@pytest.fixture(scope="module", params=["http", "stdio"])
def url(request: pytest.FixtureRequest) -> Generator[str]:
    """A gateway before the server; over stdio it speaks both eras, over HTTP only the new one."""
    if request.param == "stdio":
        with holdfast("--", sys.executable, SERVER, "--stdio") as (gateway, _):
            yield gateway
        return
    port = free_port()
    with start(sys.executable, SERVER, "--era", "modern", "--port", str(port)) as server:
        server.wait_for_port(port)
        with holdfast(f"http://127.0.0.1:{port}/mcp") as (gateway, _):
            yield gateway


async def elicited(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    wanted = json.dumps(params.model_dump(mode="json", by_alias=True))
    content: dict[str, Any] = {"name": "Ada"} if '"name"' in wanted else {"color": "red"}
    return types.ElicitResult(action="accept", content=content)


async def sampled(_context: ClientRequestContext, _params: types.CreateMessageRequestParams) -> Any:
    content = types.TextContent(type="text", text="Paris")
    return types.CreateMessageResult(role="assistant", content=content, model="deep")


async def rooted(_context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///attic"))])


@requirement("modern-servers:sdk")
async def test_it_is_spoken_to_in_its_own_revision(url: str) -> None:
    async with asyncio.timeout(PATIENCE), sdk_client(url) as client:
        assert client.protocol_version == "2025-11-25"
        assert json.loads(text_of(await client.call_tool("session_counter", {})))["version"] == "2026-07-28"
        steps = Steps()
        await client.call_tool("test_tool_with_progress", {}, progress_callback=steps)
        assert steps.seen == [(0.0, 100.0), (50.0, 100.0), (100.0, 100.0)][-len(steps.seen) :]
        assert len(steps.seen) >= 2  # the first may look like one of our own status lines
        assert (await client.call_tool("test_error_handling", {})).is_error


@requirement("modern-servers:sdk")
async def test_its_questions_are_answered_in_as_many_rounds_as_it_takes(url: str) -> None:
    callbacks: dict[str, Any] = {
        "elicitation_callback": elicited,
        "sampling_callback": sampled,
        "list_roots_callback": rooted,
    }
    async with asyncio.timeout(PATIENCE), sdk_client(url, **callbacks) as client:
        for tool, expected in (
            ("test_input_required_result_elicitation", "Hello, Ada!"),
            ("test_input_required_result_sampling", "Paris"),
            ("test_input_required_result_list_roots", "Roots: file:///attic"),
            ("test_input_required_result_multiple_inputs", "Paris Ada (1 roots)"),
            ("test_input_required_result_multi_round", "Ada likes red"),
        ):
            assert text_of(await client.call_tool(tool, {})) == expected
        assert "eu" in text_of(await client.call_tool("test_mcp_param_header", {"region": "eu"}))


@requirement("modern-servers:sdk")
async def test_its_changes_are_heard(url: str) -> None:
    heard = Heard()
    async with asyncio.timeout(PATIENCE), sdk_client(url, message_handler=heard.take) as client:
        await client.subscribe_resource("test://watched-resource")
        await client.call_tool("test_trigger_resource_update", {})
        updated = await heard.until(types.ResourceUpdatedNotification)
        assert str(updated.params.uri) == "test://watched-resource"
        await client.call_tool("test_trigger_tool_change", {})
        await heard.until(types.ToolListChangedNotification)
