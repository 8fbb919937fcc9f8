"""Servers of the official SDK that speak 2026-07-28, alone and with older revisions, before clients of the SDK."""

# pyright: reportDeprecated=false
# The handshake era of the client is what is tested.

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import mcp_types as types
import pytest
from mcp.client import ClientRequestContext
from mcp.client.client import ConnectMode
from pydantic import FileUrl

from interop.programs import HOLDFAST, PATIENCE, Heard, Steps, holdfast, sdk_client, text_of
from processes import ROOT, free_port, start
from requirements import requirement

TRUST: Final = ("--trust", "chat=x-chat")
SERVER: Final = ROOT / "tests" / "conformance" / "reference_server.py"

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # of the handshake era


@contextmanager
def gateway_to(transport: str, era: str) -> Generator[str]:
    """A gateway before the server; over stdio that always speaks both eras."""
    if transport == "stdio" and era == "both":
        with holdfast(*TRUST, "--", sys.executable, SERVER, "--stdio") as (gateway, _):
            yield gateway
        return
    port, own = free_port(), free_port()
    if transport == "stdio":
        server = {"command": [sys.executable, str(SERVER), "--stdio"], "era": era}
        with TemporaryDirectory() as directory:
            settings = Path(directory) / "holdfast.yaml"
            settings.write_text(json.dumps({"listen": f"127.0.0.1:{own}", "servers": {"reference": server}}))
            with start(HOLDFAST, "serve", settings) as process:
                process.wait_for_line("reference +ready in")
                yield f"http://127.0.0.1:{own}/mcp"
        return
    with start(sys.executable, SERVER, "--era", era, "--port", str(port)) as started:
        started.wait_for_port(port)
        with holdfast(*TRUST, f"http://127.0.0.1:{port}/mcp") as (gateway, _):
            yield gateway


@pytest.fixture(scope="module", params=["http", "stdio"])
def url(request: pytest.FixtureRequest) -> Generator[str]:
    """A gateway before a server that is spoken to in 2026-07-28 alone."""
    with gateway_to(request.param, "modern") as gateway:
        yield gateway


@pytest.fixture(scope="module", params=["http", "stdio"])
def url_of_both(request: pytest.FixtureRequest) -> Generator[str]:
    """A gateway before a server that speaks both eras, as the SDK's servers do unless they are told otherwise."""
    with gateway_to(request.param, "both") as gateway:
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


@requirement("both-eras:sdk")
async def test_who_shakes_hands_with_a_server_of_both_has_its_session(url_of_both: str) -> None:
    async with asyncio.timeout(PATIENCE), sdk_client(url_of_both) as one, sdk_client(url_of_both) as other:
        told = [json.loads(text_of(await each.call_tool("session_counter", {}))) for each in (one, one, other)]
        assert [each["version"] for each in told] == ["2025-11-25"] * 3
        assert [each["count"] for each in told] == [1, 2, 1]


@requirement("both-eras:sdk")
async def test_who_may_choose_has_a_session_with_a_server_of_both(url_of_both: str) -> None:
    async with asyncio.timeout(PATIENCE), sdk_client(url_of_both, mode="auto") as client:
        assert client.protocol_version == "2025-11-25"
        told = [json.loads(text_of(await client.call_tool("session_counter", {}))) for _ in range(2)]
        assert [each["count"] for each in told] == [1, 2]


@requirement("both-eras:sdk")
async def test_a_modern_client_of_a_server_of_both_that_names_nothing_is_asked_in_rounds(url_of_both: str) -> None:
    callbacks: dict[str, Any] = {
        "elicitation_callback": elicited,
        "sampling_callback": sampled,
        "list_roots_callback": rooted,
    }
    async with asyncio.timeout(PATIENCE), sdk_client(url_of_both, mode="2026-07-28", **callbacks) as client:
        assert json.loads(text_of(await client.call_tool("session_counter", {})))["version"] == "2026-07-28"
        for tool, expected in (
            ("test_input_required_result_multiple_inputs", "Paris Ada (1 roots)"),
            ("test_input_required_result_multi_round", "Ada likes red"),
        ):
            assert text_of(await client.call_tool(tool, {})) == expected


async def counted(url: str, chat: str, mode: ConnectMode) -> dict[str, Any]:
    """What the counter of its session says, to a client that comes for one message and leaves."""
    async with sdk_client(url, mode=mode, headers={"x-chat": chat}) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        told: dict[str, Any] = json.loads(text_of(await client.call_tool("session_counter", {})))
        return told


@requirement("both-eras:kept")
async def test_a_server_of_both_remembers_from_message_to_message_for_a_modern_client_that_names_its_chat(
    url_of_both: str,
) -> None:
    async with asyncio.timeout(PATIENCE):
        messages: tuple[ConnectMode, ...] = ("2026-07-28", "auto", "legacy", "2026-07-28")
        told = [await counted(url_of_both, "one", mode) for mode in messages]
        assert [each["count"] for each in told] == [1, 2, 3, 4]
        other = await counted(url_of_both, "two", "2026-07-28")
        assert other["count"] == 1
        assert {each["version"] for each in (*told, other)} == {"2025-11-25"}
        assert len({each["session"] for each in told}) == 1


@requirement("both-eras:kept")
async def test_in_such_a_chat_a_modern_client_is_asked_and_told_of_progress(url_of_both: str) -> None:
    callbacks: dict[str, Any] = {
        "elicitation_callback": elicited,
        "sampling_callback": sampled,
        "list_roots_callback": rooted,
    }
    headers = {"x-chat": "asked"}
    async with (
        asyncio.timeout(PATIENCE),
        sdk_client(url_of_both, mode="2026-07-28", headers=headers, **callbacks) as client,
    ):
        for tool, expected in (
            ("test_input_required_result_multiple_inputs", "Paris Ada (1 roots)"),
            ("test_input_required_result_multi_round", "Ada likes red"),
        ):
            assert text_of(await client.call_tool(tool, {})) == expected
        steps = Steps()
        await client.call_tool("test_tool_with_progress", {}, progress_callback=steps)
        assert steps.seen[-1] == (100.0, 100.0)
