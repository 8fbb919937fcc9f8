"""The reference server `server-everything`, over stdio and over HTTP, with the official SDK's client."""

# pyright: reportDeprecated=false
# The handshake era is what is tested.

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import mcp_types as types
import pytest
from mcp.client import ClientRequestContext
from pydantic import FileUrl

from interop.programs import EVERYTHING_STDIO, PATIENCE, Heard, Steps, everything, holdfast, sdk_client, text_of
from requirements import requirement

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # of the handshake era


@pytest.fixture(scope="module", params=["stdio", "http"])
def url(request: pytest.FixtureRequest) -> Generator[str]:
    """A gateway before server-everything."""
    if request.param == "stdio":
        with holdfast("--", *EVERYTHING_STDIO) as (gateway, _):
            yield gateway
    else:
        with everything() as server, holdfast(server) as (gateway, _):
            yield gateway


async def sampled(_context: ClientRequestContext, params: types.CreateMessageRequestParams) -> Any:
    asked = params.messages[0].content
    assert isinstance(asked, types.TextContent)
    content = types.TextContent(type="text", text=f"the model heard: {asked.text}")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def elicited(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    assert "inputs" in params.message
    return types.ElicitResult(action="accept", content={"name": "Ada Lovelace", "check": True})


async def rooted(_context: ClientRequestContext) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///tmp/attic"), name="attic")])


@requirement("interop:everything:works-as-directly")
async def test_tools_are_listed_and_called(url: str) -> None:
    async with asyncio.timeout(PATIENCE), sdk_client(url) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"echo", "trigger-long-running-operation", "trigger-sampling-request"} <= names
        assert text_of(await client.call_tool("echo", {"message": "grüß dich"})) == "Echo: grüß dich"
        structured = await client.call_tool("get-structured-content", {"location": "New York"})
        assert structured.structured_content is not None
        assert (await client.call_tool("no-such-tool", {})).is_error


async def test_a_long_operation_reports_its_progress(url: str) -> None:
    steps = Steps()
    async with asyncio.timeout(PATIENCE), sdk_client(url) as client:
        arguments = {"duration": 0.5, "steps": 5}
        result = await client.call_tool("trigger-long-running-operation", arguments, progress_callback=steps)
    assert "completed" in text_of(result)
    assert steps.seen == [(step, 5) for step in range(1, 6)]


async def test_the_server_asks_the_model_and_the_person(url: str) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        sdk_client(url, sampling_callback=sampled, elicitation_callback=elicited) as c,
    ):
        answer = text_of(await c.call_tool("trigger-sampling-request", {"prompt": "why?", "maxTokens": 10}))
        assert "the model heard" in answer
        assert "why?" in answer
        assert "Ada Lovelace" in text_of(await c.call_tool("trigger-elicitation-request", {}))


async def clarified(_context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    assert "Please clarify" in params.message
    return types.ElicitResult(action="accept", content={"interpretation": "snake"})


@requirement("interop:everything:tasks")
async def test_a_tool_that_must_be_a_task_is_called_by_a_client_that_knows_none(url: str) -> None:
    """The official SDK for Python has no tasks."""
    research = {"topic": "python", "ambiguous": True}
    async with asyncio.timeout(PATIENCE), sdk_client(url, elicitation_callback=clarified) as client:
        result = await client.call_tool("simulate-research-query", research)
        assert not result.is_error
        assert "python (snake)" in text_of(result)
        assert not result.meta or "io.modelcontextprotocol/related-task" not in result.meta


async def test_a_client_that_cannot_be_asked_is_answered_for(url: str) -> None:
    async with asyncio.timeout(PATIENCE), sdk_client(url) as client:
        result = await client.call_tool("trigger-sampling-request", {"prompt": "why?", "maxTokens": 10})
        assert result.is_error
        assert "cancel" in text_of(await client.call_tool("trigger-elicitation-request", {}))


async def test_the_server_sees_the_roots(url: str) -> None:
    async with asyncio.timeout(PATIENCE), sdk_client(url, list_roots_callback=rooted) as client:
        assert "attic" in text_of(await client.call_tool("get-roots-list", {}))


async def test_resources_are_read_and_their_changes_heard(url: str) -> None:
    heard = Heard()
    async with asyncio.timeout(PATIENCE), sdk_client(url, message_handler=heard.take) as client:
        uri = (await client.list_resources()).resources[0].uri
        assert (await client.read_resource(uri)).contents
        assert (await client.list_resource_templates()).resource_templates
        dynamic = "demo://resource/dynamic/text/3"
        content = (await client.read_resource(dynamic)).contents[0]
        assert isinstance(content, types.TextResourceContents)
        assert "3" in content.text
        await client.subscribe_resource(dynamic)
        text_of(await client.call_tool("toggle-subscriber-updates", {}))
        updated = await heard.until(types.ResourceUpdatedNotification)
        assert updated.params.uri == dynamic
        await client.unsubscribe_resource(dynamic)


async def test_prompts_are_filled_in_and_their_arguments_completed(url: str) -> None:
    async with asyncio.timeout(PATIENCE), sdk_client(url) as client:
        assert "completable-prompt" in {prompt.name for prompt in (await client.list_prompts()).prompts}
        ref = types.PromptReference(type="ref/prompt", name="completable-prompt")
        departments = await client.complete(ref, {"name": "department", "value": "S"})
        assert departments.completion.values == ["Sales", "Support"]
        people = await client.complete(ref, {"name": "name", "value": ""}, {"department": "Sales"})
        assert people.completion.values == ["David", "Eve", "Frank"]
        prompt = await client.get_prompt("completable-prompt", {"department": "Sales", "name": "Eve"})
        content = prompt.messages[0].content
        assert isinstance(content, types.TextContent)
        assert content.text == "Please promote Eve to the head of the Sales team."


async def test_the_log_level_is_obeyed(url: str) -> None:
    said: asyncio.Queue[types.LoggingMessageNotificationParams] = asyncio.Queue()
    async with asyncio.timeout(PATIENCE), sdk_client(url, logging_callback=said.put) as client:
        await client.set_logging_level("emergency")
        await client.subscribe_resource("demo://resource/dynamic/text/1")  # the server logs it, as info
        assert said.empty()
        await client.set_logging_level("info")
        await client.subscribe_resource("demo://resource/dynamic/text/2")
        assert "dynamic/text/2" in str((await said.get()).data)
