"""The official SDK's client in revision 2026-07-28, before a server of the handshake era."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from pydantic import FileUrl

from interop.programs import (
    PATIENCE,
    TEST_SERVER_STDIO,
    Steps,
    holdfast,
    sdk_client,
    sdk_client_of,
    shipped_server,
    text_of,
)
from requirements import requirement

NOTE = "memo://note"
A, B = (cast("types.RequestParamsMeta", {"dev.holdfast/chat": chat}) for chat in "ab")
TRUST = ("--trust", "chat=x-chat")


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    with shipped_server() as url:
        yield url


@pytest.fixture(scope="module")
def over_http(server: str) -> Generator[str]:
    with holdfast(*TRUST, server) as (url, _):
        yield url


@pytest.fixture(scope="module")
def over_stdio() -> Generator[str]:
    with holdfast(*TRUST, "--", *TEST_SERVER_STDIO) as (url, _):
        yield url


@pytest.fixture(params=["http", "stdio"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"over_{request.param}")
    return found


@asynccontextmanager
async def connected(url: str, mode: str, chat: str = "", **callbacks: Any) -> AsyncGenerator[Client]:
    headers = {"X-Chat": chat} if chat else {}
    async with asyncio.timeout(PATIENCE), sdk_client(url, mode=mode, headers=headers, **callbacks) as client:
        yield client


@requirement("interop:sdk:modern")
@pytest.mark.parametrize("mode", ["auto", "2026-07-28"])
async def test_it_talks_the_modern_revision_and_is_asked(url: str, mode: str) -> None:
    async def elicited(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"answer": f"re: {params.message}"})

    async def sampled(_context: ClientRequestContext, params: types.CreateMessageRequestParams) -> Any:
        content = types.TextContent(type="text", text="forty-two")
        return types.CreateMessageResult(role="assistant", content=content, model="deep")

    async def rooted(_context: ClientRequestContext) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///attic"))])

    callbacks = {"elicitation_callback": elicited, "sampling_callback": sampled, "list_roots_callback": rooted}
    for chat in (f"asked-{mode}", ""):  # in a session of the chat, and in one of the client's own or private ones
        async with connected(url, mode, chat, **callbacks) as client:
            assert client.protocol_version == ("2026-07-28" if chat or mode != "auto" else "2025-11-25")
            asked = json.loads(text_of(await client.call_tool("ask", {"message": "where?"})))
            assert asked == {"action": "accept", "content": {"answer": "re: where?"}}
            assert "forty-two" in text_of(await client.call_tool("sample", {"prompt": "why?"}))
            assert "file:///attic" in text_of(await client.call_tool("roots", {}))


@requirement("interop:sdk:modern")
async def test_a_chat_keeps_its_state_when_its_client_connects_anew(url: str) -> None:
    for number in (1, 2, 3):
        async with connected(url, "auto", "kept") as client:
            assert client.protocol_version == "2026-07-28"
            if client.server_capabilities.tools is not None:
                assert "count" in {tool.name for tool in (await client.list_tools()).tools}
            assert text_of(await client.call_tool("count", {})) == str(number)
    async with connected(url, "auto", "other") as client:
        assert text_of(await client.call_tool("count", {})) == "1"


@requirement("interop:sdk:modern")
async def test_a_host_that_connects_for_every_message_sends_three_requests_for_each(over_http: str) -> None:
    before = posts(over_http)
    for number in (1, 2, 3):
        async with connected(over_http, "auto", "messages") as client:
            await client.list_tools()
            assert text_of(await client.call_tool("count", {})) == str(number)
        assert posts(over_http) - before == 3 * number


def posts(url: str) -> int:
    """How many POSTs the gateway has answered at MCP paths."""
    with urllib.request.urlopen(url.replace("/mcp", "/metrics"), timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    counted = [line for line in lines if line.startswith('holdfast_http_requests_total{method="POST",route="mcp"')]
    return sum(int(float(line.split()[-1])) for line in counted)


@requirement("interop:sdk:auto-keeps-its-state")
async def test_a_client_that_may_choose_its_era_keeps_the_state_that_it_has_without_us(url: str, server: str) -> None:
    for at in (server, url):
        async with connected(at, "auto") as client:
            assert client.protocol_version == "2025-11-25"
            assert [text_of(await client.call_tool("count", {})) for _ in range(3)] == ["1", "2", "3"]
            text_of(await client.call_tool("remember", {"key": "sky", "value": "blue"}))
            assert "blue" in text_of(await client.call_tool("recall", {"key": "sky"}))
    async with connected(url, "auto") as client:
        assert text_of(await client.call_tool("count", {})) == "1", "it is nobody else's"
    async with connected(url, "2026-07-28") as client:
        assert [text_of(await client.call_tool("count", {})) for _ in range(2)] == ["1", "1"], "it chose that itself"


@requirement("interop:sdk:auto-keeps-its-state")
async def test_where_nothing_is_to_be_lost_a_client_that_may_choose_takes_the_new_revision(server: str) -> None:
    with holdfast("--scope", "user", server) as (url, _):
        for number in (1, 2):
            async with connected(url, "auto") as client:
                assert client.protocol_version == "2026-07-28"
                assert text_of(await client.call_tool("count", {})) == str(number)


@requirement("interop:sdk:modern")
async def test_progress_prompts_resources_and_completion_work(url: str) -> None:
    short, long = Steps(), Steps()
    async with connected(url, "auto", "busy") as client:
        async with asyncio.TaskGroup() as group:
            group.create_task(client.call_tool("slow", {"seconds": 0.3, "steps": 3}, progress_callback=short))
            group.create_task(client.call_tool("slow", {"seconds": 0.3, "steps": 7}, progress_callback=long))
        assert short.seen == [(step, 3) for step in range(1, 4)]
        assert long.seen == [(step, 7) for step in range(1, 8)]
        greeting = (await client.get_prompt("greet", {"name": "Ada"})).messages[0].content
        assert isinstance(greeting, types.TextContent)
        assert greeting.text == "Greet Ada."
        template = (await client.list_resource_templates()).resource_templates[0]
        ref = types.ResourceTemplateReference(type="ref/resource", uri=template.uri_template)
        assert "17" in (await client.complete(ref, {"name": "id", "value": "1"})).completion.values
        assert (await client.read_resource(NOTE)).contents


@requirement("interop:sdk:modern")
async def test_it_hears_of_changes_while_it_listens(url: str) -> None:
    async with (
        connected(url, "auto", "listening") as client,
        client.listen(tools_list_changed=True, resource_subscriptions=[NOTE]) as changes,
    ):
        assert changes.honored.tools_list_changed
        assert list(changes.honored.resource_subscriptions or ()) == [NOTE]
        text_of(await client.call_tool("change_resource", {"text": "news"}))
        text_of(await client.call_tool("change_tools", {}))
        heard: set[str] = set()
        async for change in changes:
            heard.add(type(change).__name__)
            if len(heard) == 2:
                break


@requirement("interop:sdk:modern")
async def test_a_call_that_it_gives_up_is_cancelled_at_the_server(server: str, over_http: str) -> None:
    began = Steps()
    async with (
        connected(over_http, "auto", "given-up") as client,
        httpx2.AsyncClient(base_url=server.removesuffix("/mcp"), timeout=PATIENCE, trust_env=False) as http,
    ):
        arguments = {"steps": 1, "gate": "never"}
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.call_tool("progress", arguments, progress_callback=began))
            await began.first.wait()
            call.cancel()
        outcome = ""
        while outcome != "cancelled":
            entries: list[dict[str, Any]] = (await http.get("/ledger")).json()["entries"]
            (outcome,) = [entry["outcome"] for entry in entries if entry["arguments"].get("gate") == "never"]
        assert text_of(await client.call_tool("count", {})) == "1", "the session lives on"


@requirement("interop:stdio:sdk")
async def test_it_speaks_so_with_a_gateway_that_it_starts() -> None:
    async def elicited(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"answer": f"re: {params.message}"})

    steps = Steps()
    started = sdk_client_of("stdio", "--", *TEST_SERVER_STDIO, mode="2026-07-28", elicitation_callback=elicited)
    async with asyncio.timeout(PATIENCE), started as client:
        counted = [text_of(await client.call_tool("count", {}, meta=chat)) for chat in (A, A, B)]
        assert counted == ["1", "2", "1"]
        for where in (None, A):
            asked = json.loads(text_of(await client.call_tool("ask", {"message": "where?"}, meta=where)))
            assert asked == {"action": "accept", "content": {"answer": "re: where?"}}
        await client.call_tool("progress", {"steps": 3}, progress_callback=steps)
        assert steps.seen == [(step, 3) for step in range(1, 4)]
        async with client.listen(tools_list_changed=True) as changes:
            text_of(await client.call_tool("change_tools", {}, meta=A))
            assert type(await anext(aiter(changes))).__name__ == "ToolsListChanged"
