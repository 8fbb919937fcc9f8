"""The official SDK's client against our own server through the gateway: every feature of the handshake era."""

# pyright: reportDeprecated=false
# The handshake era is what is tested.

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, Protocol

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from pydantic import FileUrl

from interop.programs import (
    PATIENCE,
    TEST_SERVER_STDIO,
    Heard,
    Steps,
    holdfast,
    sdk_client,
    sdk_client_of,
    shipped_server,
    text_of,
)
from requirements import requirement

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # of the handshake era

NOTE = "memo://note"


class Connect(Protocol):
    """Makes a connected client with these callbacks, as an async context manager."""

    def __call__(self, **callbacks: Any) -> Any: ...


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    with shipped_server() as url:
        yield url


@pytest.fixture(scope="module")
def over_http(server: str) -> Generator[str]:
    with holdfast(server) as (url, _):
        yield url


@pytest.fixture(scope="module")
def over_stdio() -> Generator[str]:
    with holdfast("--", *TEST_SERVER_STDIO) as (url, _):
        yield url


@pytest.fixture(
    params=[
        *("legacy-http", "legacy-stdio"),
        *("legacy-http-started", "legacy-stdio-started", "auto-http-started", "auto-stdio-started"),
    ]
)
def connect(request: pytest.FixtureRequest) -> Connect:
    """A client with a handshake, through gateways before a server of each transport, reached over HTTP or started.

    Over HTTP a client that may choose speaks 2026-07-28 instead: see test_sdk_modern.py.
    """
    mode, transport, *started = request.param.split("-")
    if started:
        chosen: Literal["legacy", "auto"] = "auto" if mode == "auto" else "legacy"
        target = (request.getfixturevalue("server"),) if transport == "http" else ("--", *TEST_SERVER_STDIO)
        return partial(piped, target, chosen)
    return partial(connected, request.getfixturevalue(f"over_{transport}"))


@asynccontextmanager
async def connected(url: str, **callbacks: Any) -> AsyncGenerator[Client]:
    async with asyncio.timeout(PATIENCE), sdk_client(url, **callbacks) as client:
        yield client


@asynccontextmanager
async def piped(target: Sequence[str], mode: Literal["legacy", "auto"], **callbacks: Any) -> AsyncGenerator[Client]:
    """A client that starts `holdfast stdio`."""
    async with asyncio.timeout(PATIENCE), sdk_client_of("stdio", *target, mode=mode, **callbacks) as client:
        yield client


@requirement("interop:stdio:sdk")
@requirement("interop:sdk:every-handshake-feature")
async def test_it_is_introduced_to_the_server_behind_the_gateway(connect: Connect) -> None:
    async with connect() as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info.name == "holdfast-test-server"
        assert client.instructions is not None
        assert client.server_capabilities.completions is not None
        await client.send_ping()


async def test_a_session_remembers_and_another_does_not_know(connect: Connect) -> None:
    async with connect() as alice, connect() as bob:
        text_of(await alice.call_tool("remember", {"key": "pet", "value": "cat"}))
        text_of(await bob.call_tool("remember", {"key": "pet", "value": "dog"}))
        assert text_of(await alice.call_tool("recall", {"key": "pet"})) == "cat"
        assert text_of(await bob.call_tool("recall", {"key": "pet"})) == "dog"
        text_of(await alice.call_tool("remember", {"key": "secret", "value": "x"}))
        assert (await bob.call_tool("recall", {"key": "secret"})).is_error


async def test_the_person_the_model_and_the_roots_are_asked(connect: Connect) -> None:
    async def elicited(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"answer": f"re: {params.message}"})

    async def sampled(_context: ClientRequestContext, params: types.CreateMessageRequestParams) -> Any:
        content = types.TextContent(type="text", text="forty-two")
        return types.CreateMessageResult(role="assistant", content=content, model="deep")

    async def rooted(_context: ClientRequestContext) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///attic"))])

    async with connect(elicitation_callback=elicited, sampling_callback=sampled, list_roots_callback=rooted) as client:
        asked = json.loads(text_of(await client.call_tool("ask", {"message": "where?"})))
        assert asked == {"action": "accept", "content": {"answer": "re: where?"}}
        assert "forty-two" in text_of(await client.call_tool("sample", {"prompt": "why?"}))
        assert "file:///attic" in text_of(await client.call_tool("roots", {}))


async def test_two_sessions_are_asked_their_own_questions_at_once(connect: Connect) -> None:
    both_asked = asyncio.Barrier(2)

    async def elicited(name: str, _context: ClientRequestContext, params: types.ElicitRequestParams) -> Any:
        assert params.message == f"question for {name}"
        await both_asked.wait()
        return types.ElicitResult(action="accept", content={"answer": f"answer of {name}"})

    async def one(name: str) -> None:
        async with connect(elicitation_callback=partial(elicited, name)) as client:
            answer = text_of(await client.call_tool("ask", {"message": f"question for {name}"}))
            assert f"answer of {name}" in answer

    async with asyncio.TaskGroup() as group:
        for name in ("alice", "bob"):
            group.create_task(one(name))


async def test_progress_reaches_its_own_call(connect: Connect) -> None:
    short, long = Steps(), Steps()
    async with connect() as client, asyncio.TaskGroup() as group:
        group.create_task(client.call_tool("slow", {"seconds": 0.3, "steps": 3}, progress_callback=short))
        group.create_task(client.call_tool("slow", {"seconds": 0.3, "steps": 7}, progress_callback=long))
    assert short.seen == [(step, 3) for step in range(1, 4)]
    assert long.seen == [(step, 7) for step in range(1, 8)]


async def test_logs_come_from_the_level_on_that_was_set(connect: Connect) -> None:
    said: asyncio.Queue[types.LoggingMessageNotificationParams] = asyncio.Queue()
    async with connect(logging_callback=said.put) as client:
        await client.set_logging_level("warning")
        await client.call_tool("log", {"level": "info", "message": "unheard"})
        await client.call_tool("log", {"level": "error", "message": "heard"})
        assert (await said.get()).data == "heard"


async def test_changes_of_resources_and_tools_are_heard(connect: Connect) -> None:
    heard = Heard()
    async with connect(message_handler=heard.take) as client:
        await client.subscribe_resource(NOTE)
        text_of(await client.call_tool("change_resource", {"text": "news"}))
        assert (await heard.until(types.ResourceUpdatedNotification)).params.uri == NOTE
        content = (await client.read_resource(NOTE)).contents[0]
        assert isinstance(content, types.TextResourceContents)
        assert content.text == "news"

        change = text_of(await client.call_tool("change_tools", {}))
        await heard.until(types.ToolListChangedNotification)
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert ("extra" in names) == (change == "added")


async def test_prompts_templates_and_completion_work(connect: Connect) -> None:
    async with connect() as client:
        greeting = (await client.get_prompt("greet", {"name": "Ada"})).messages[0].content
        assert isinstance(greeting, types.TextContent)
        assert greeting.text == "Greet Ada."
        template = (await client.list_resource_templates()).resource_templates[0]
        ref = types.ResourceTemplateReference(type="ref/resource", uri=template.uri_template)
        assert "17" in (await client.complete(ref, {"name": "id", "value": "1"})).completion.values
        person = types.PromptReference(type="ref/prompt", name="greet")
        assert (await client.complete(person, {"name": "name", "value": "Al"})).completion.values == ["Alan", "Alonzo"]


async def test_a_cancelled_call_is_cancelled_at_the_server(server: str, over_http: str) -> None:
    began = Steps()
    async with (
        connected(over_http) as client,
        httpx2.AsyncClient(base_url=server.removesuffix("/mcp"), timeout=PATIENCE, trust_env=False) as http,
    ):
        arguments = {"steps": 1, "gate": "never"}
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.call_tool("slow", arguments, progress_callback=began))
            await began.first.wait()
            call.cancel()
        while await outcome(http, "never") != "cancelled":
            await client.send_ping()
        assert text_of(await client.call_tool("count", {})) == "1", "the session lives on"


async def outcome(http: httpx2.AsyncClient, gate: str) -> str:
    """How the call that waits at `gate` ended, by the server's ledger."""
    entries: list[dict[str, Any]] = (await http.get("/ledger")).json()["entries"]
    found: list[str] = [entry["outcome"] for entry in entries if entry["arguments"].get("gate") == gate]
    assert len(found) == 1, entries
    return found[0]
