"""The scripted server, as the official SDK's client and a bare HTTP client see it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters, types

import holdfast
from holdfast.testing.server import ScriptedServer, ServerOptions

PROGRAM = (sys.executable, "-m", "holdfast.testing.server")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(holdfast.__file__).parents[1])}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with asyncio.timeout(60), ScriptedServer() as server:
        yield server


def connected(server: ScriptedServer, **callbacks: Any) -> Client:
    return Client(server.url, mode="legacy", **callbacks)


def text_of(result: types.CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, types.TextContent)
    return content.text


# With the official client


async def test_a_session_remembers_and_another_does_not(server: ScriptedServer) -> None:
    async with connected(server) as first, connected(server) as second:
        await first.call_tool("remember", {"key": "k", "value": "v"})
        assert text_of(await first.call_tool("recall", {"key": "k"})) == "v"
        assert (await second.call_tool("recall", {"key": "k"})).is_error
        assert [text_of(await first.call_tool("count")) for _ in range(2)] == ["1", "2"]
        assert text_of(await second.call_tool("count")) == "1"
        assert server.initializes == 2
    assert server.deletes == 2
    assert server.sessions == {}


async def test_lists_declare_schemas_and_read_only_tools(server: ScriptedServer) -> None:
    async with connected(server) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert {"remember", "recall", "slow", "ask", "crash", "emit"} <= tools.keys()
    assert "extra" not in tools
    annotations = tools["recall"].annotations
    assert annotations is not None
    assert annotations.read_only_hint is True
    assert tools["remember"].input_schema["required"] == ["key", "value"]


async def test_progress_arrives_while_the_call_still_waits(server: ScriptedServer) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))
        server.open_gate("g")

    async with connected(server) as client:
        result = await client.call_tool("progress", {"steps": 3, "gate": "g"}, progress_callback=on_progress)
    assert text_of(result) == "done"
    assert seen == [(1, 3, "step 1 of 3"), (2, 3, "step 2 of 3"), (3, 3, "step 3 of 3")]


async def test_a_person_can_be_asked(server: ScriptedServer) -> None:
    async def on_elicit(_context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert params.message == "sure?"
        return types.ElicitResult(action="accept", content={"answer": "yes"})

    async with connected(server, elicitation_callback=on_elicit) as client:
        answer = json.loads(text_of(await client.call_tool("ask", {"message": "sure?"})))
        assert (answer["action"], answer["content"]) == ("accept", {"answer": "yes"})
    async with connected(server) as client:
        assert (await client.call_tool("ask", {"message": "sure?"})).is_error


async def test_an_unknown_tool_and_resource_are_errors(server: ScriptedServer) -> None:
    async with connected(server) as client:
        with pytest.raises(MCPError) as unknown_tool:
            await client.call_tool("nonsense")
        with pytest.raises(MCPError) as unknown_resource:
            await client.read_resource("memo://nothing")
        assert (await client.call_tool("fail")).is_error
    assert unknown_tool.value.error.code == -32602
    assert unknown_resource.value.error.code == -32002


async def test_prompts_resources_and_completions_answer(server: ScriptedServer) -> None:
    async with connected(server) as client:
        prompt = await client.get_prompt("greet", {"name": "Ada"})
        assert isinstance(prompt.messages[0].content, types.TextContent)
        assert prompt.messages[0].content.text == "Greet Ada."
        item = (await client.read_resource("memo://item/7")).contents[0]
        assert isinstance(item, types.TextResourceContents)
        assert item.text == "item 7"
        ref = types.PromptReference(type="ref/prompt", name="greet")
        names = await client.complete(ref, {"name": "name", "value": "Al"})
        assert names.completion.values == ["Alan", "Alonzo"]
        template = types.ResourceTemplateReference(type="ref/resource", uri="memo://item/{id}")
        ids = await client.complete(template, {"name": "id", "value": "2"})
        assert ids.completion.values == ["2", "20"]


async def test_a_changed_list_reaches_every_push_stream(server: ScriptedServer) -> None:
    changed: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]

    def told(event: asyncio.Event) -> Callable[[object], Any]:
        async def on_message(message: object) -> None:
            if isinstance(message, types.ToolListChangedNotification):
                event.set()

        return on_message

    first, second = (connected(server, message_handler=told(event)) for event in changed)
    async with first, second:
        await server.until(lambda: len(server.sessions) == 2)
        await server.pushing()
        assert text_of(await first.call_tool("change_tools")) == "added"
        for event in changed:
            await event.wait()
        assert "extra" in [tool.name for tool in (await second.list_tools()).tools]


async def test_the_client_resumes_a_primed_stream_that_the_server_hung_up() -> None:
    async with asyncio.timeout(60), ScriptedServer(ServerOptions(prime=True)) as server:
        async with connected(server) as client, asyncio.TaskGroup() as group:
            call = group.create_task(client.call_tool("slow", {"gate": "g", "hang_up": True}))
            await server.entered("g")
            await server.until(lambda: any("last-event-id" in headers for headers in server.received_headers))
            server.open_gate("g")
            assert text_of(await call) == "done"
        assert len(server.calls("slow")) == 1


async def test_a_program_on_stdio_serves_one_session_and_writes_its_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    parameters = StdioServerParameters(
        command=PROGRAM[0], args=[*PROGRAM[1:], "--stdio", "--ledger", str(ledger)], env=ENVIRONMENT
    )
    async with asyncio.timeout(60), Client(parameters, mode="legacy") as client:
        await client.call_tool("remember", {"key": "k", "value": "v", "canary": "c1"})
        assert text_of(await client.call_tool("recall", {"key": "k"})) == "v"
        assert json.loads(text_of(await client.call_tool("whoami")))["session"] == "stdio"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [line["tool"] for line in lines] == ["remember", "recall", "whoami"]
    assert (lines[0]["canary"], lines[0]["arguments"]["key"]) == ("c1", "k")


# As a program


@asynccontextmanager
async def program(*flags: str) -> AsyncGenerator[asyncio.subprocess.Process, None]:
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *flags, env=ENVIRONMENT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_program_prints_its_url_and_ends_on_sigterm() -> None:
    async with program("--json") as process:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with Client(url, mode="legacy") as client:
            assert text_of(await client.call_tool("count")) == "1"
        process.terminate()
        assert await process.wait() == 0


async def test_a_crash_ends_the_program_with_its_call_in_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with program("--stdio", "--ledger", str(ledger)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n')
        await process.stdout.readline()
        params = b'{"name":"crash","arguments":{"before_answer":true}}'
        process.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":%b}\n' % params)
        assert await process.wait() == 1
        assert await process.stdout.read() == b""
    assert json.loads(ledger.read_text())["tool"] == "crash"


async def test_a_stubborn_program_outlives_its_stdin_and_sigterm() -> None:
    async with program("--stdio", "--stubborn") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n')
        await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"ping"}\n')
        assert b'"id":2' in await process.stdout.readline()


async def test_on_stdio_a_call_can_be_cancelled_while_another_runs() -> None:
    async with program("--stdio") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(
            b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n'
            b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"slow","arguments":{"gate":"g"}}}\n'
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}\n'
            b"this is no JSON\n"
            b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"change_tools"}}\n'
        )
        received = [json.loads(await process.stdout.readline()) for _ in range(4)]
        assert [(message.get("id"), message.get("method")) for message in received] == [
            (1, None),
            (None, None),
            (None, "notifications/tools/list_changed"),
            (2, None),
        ]
        process.stdin.close()
        assert await process.wait() == 0
        assert await process.stdout.read() == b""
