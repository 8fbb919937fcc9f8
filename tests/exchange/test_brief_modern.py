"""Requests of 2026-07-28 that repeat on one connection what the one before said of itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import pytest

from bare_client import BOTH, Response
from holdfast.call import Call, Caller, Running
from holdfast.config import ClientSettings, ToolRules, Trust
from holdfast.downstream.answer import SILENCE
from holdfast.downstream.brief_modern import ModernLane
from holdfast.downstream.http import HttpResponder
from holdfast.servers.server import ServerConversation
from holdfast.session.key import Principal
from holdfast.session.watch import Watcher
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_core import RpcFailure
from holdfast.testing.server_tools import NOTE_URI, TOOLS, Tool, ToolCall, text_result
from holdfast.wire.familiar import LESSONS
from modern_client import KEY, YES, ModernClient, mirrored, reply_in, text_in
from requirements import requirement
from rig import TRANSPORTS, Rig, Transport, next_message, read_all, read_head, rig
from rows import row
from several import behind, several


class Left(Exception):
    """The client closed its connection."""


class Staying(ModernClient):
    """Its requests follow each other on one connection, one at a time."""

    _wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @asynccontextmanager
    async def post(self, body: Any, **headers: str | None) -> AsyncGenerator[Response]:
        """Leaving before the answer was read ends the connection."""
        if self._wire is None:
            self._wire = await asyncio.open_connection("127.0.0.1", self.http.port)
        reader, writer = self._wire
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields: dict[str, str | None] = {"host": "localhost", "accept": BOTH, "content-type": "application/json"}
        said = {} if isinstance(body, bytes) else mirrored(body)
        fields |= self.http.headers | {name.replace("_", "-"): value for name, value in (said | headers).items()}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
        writer.write("\r\n".join([*lines, f"content-length: {len(sent)}", "", ""]).encode() + sent)
        self._wire = None
        try:
            yield await read_head(reader)
            self._wire = (reader, writer)
        finally:
            if self._wire is None:
                writer.close()

    async def answer(self, body: Any, **headers: str | None) -> tuple[int, str | None, Any]:
        """Whatever comes: the status, the type and all messages."""
        async with self.post(body, **headers) as response:
            kind = response.headers.get("content-type")
            if kind == "text/event-stream":
                return response.status, kind, await read_all(response)
            return response.status, kind, [json.loads(await response.body() or b"null")]

    def leave(self) -> None:
        """End the connection."""
        if self._wire is not None:
            self._wire[1].close()
            self._wire = None


@asynccontextmanager
async def staying(running: Rig, **named: Any) -> AsyncGenerator[Staying]:
    client = Staying(running, **named)
    try:
        yield client
    finally:
        client.leave()


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Generator[list[bool]]:
    """Of each request whose head led to a call before, whether it was one like that."""
    taken: list[bool] = []
    genuine = ModernLane.take

    def take(self: ModernLane, responder: HttpResponder, body: bytes) -> bool:
        taken.append(genuine(self, responder, body))
        return taken[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ModernLane, "take", take)
        yield taken


async def led(client: Staying, body: dict[str, Any], **headers: str | None) -> None:
    """Let the head of `body` lead to calls like it."""
    for _ in range(3):
        await client.answer(body, **headers)


@requirement("modern:calls:as-before")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_request_like_the_one_before_belongs_to_the_same_conversation(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(transport) as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            texts = [text_in(await client.result(client.tool("count"))) for _ in range(6)]
        assert texts == ["1", "2", "3", "4", "5", "6"]
        assert taken == [True] * 4
        assert text_in(await ModernClient(running, chat="c").result(client.tool("count"))) == "7"


@requirement("modern:calls:as-before")
async def test_another_chat_behind_the_same_head_is_another_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as running, staying(running) as client:
        with counted(monkeypatch) as taken:
            for chat in ("a", "b"):
                meta = {"dev.holdfast/chat": chat}
                for expected in ("1", "2", "3"):
                    assert text_in(await client.result(client.tool("count", meta))) == expected
            mixed = ["a", "b", "b", "a", "a", "b"]
            texts = [text_in(await client.result(client.tool("count", {"dev.holdfast/chat": each}))) for each in mixed]
        assert texts == ["4", "4", "5", "5", "6", "6"]
        assert True in taken
        assert False in taken


@requirement("modern:calls:as-before")
async def test_a_request_that_names_no_chat_is_alone_however_often_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as running, staying(running) as client:
        with counted(monkeypatch) as taken:
            texts = [text_in(await client.result(client.tool("count"))) for _ in range(5)]
        assert texts == ["1"] * 5
        assert taken == [True] * 3


@row(7)
@requirement("exchange:chats:unnamed-are-strangers")
@requirement("modern:calls:as-before")
async def test_unnamed_users_behind_the_same_head_stay_different_people(monkeypatch: pytest.MonkeyPatch) -> None:
    host = ClientSettings(name="host", trust=Trust(user="X-User"))
    served: list[Principal | None] = []
    genuine = ServerConversation.start

    def start(self: ServerConversation, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running | None:
        served.append(self.key.caller)
        return genuine(self, call, caller, watcher)

    monkeypatch.setattr(ServerConversation, "start", start)
    async with rig(clients=(host,), scope="shared") as running, staying(running) as client:
        with counted(monkeypatch) as taken:
            texts = [text_in(await client.result(client.tool("count"))) for _ in range(5)]
    assert texts == ["1", "2", "3", "4", "5"], "they share a session"
    assert taken == [True] * 3
    assert len(set(served)) == 5, "and what one of them leaves behind is told to no other"


@requirement("modern:calls:as-before")
async def test_the_same_holds_for_all_servers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(behind("one"), behind("two")) as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            listed = [await client.result(client.message("tools/list")) for _ in range(4)]
            name = next(tool["name"] for tool in listed[0]["tools"] if tool["name"].endswith("count"))
            texts = [text_in(await client.result(client.tool(name))) for _ in range(4)]
        assert listed == [listed[0]] * 4
        assert texts == ["1", "2", "3", "4"]
        assert taken == [True] * 2 + [True] * 2


@requirement("modern:calls:as-before")
@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/read", "prompts/get"])
async def test_lists_and_reads_are_the_same_each_time(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params: dict[str, dict[str, Any]] = {
        "resources/read": {"uri": NOTE_URI},
        "prompts/get": {"name": "greet", "arguments": {"name": "Ann"}},
    }
    async with rig() as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            results = [await client.result(client.message(method, **params.get(method, {}))) for _ in range(4)]
        assert results == [results[0]] * 4
        assert taken == [True] * 2


OTHERS: Final[list[dict[str, Any]]] = [
    {KEY + "protocolVersion": "2027-01-01"},
    {KEY + "protocolVersion": None},
    {KEY + "protocolVersion": 1},
    {KEY + "clientCapabilities": None},
    {KEY + "clientCapabilities": {}},
    {KEY + "clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}},
    {KEY + "logLevel": "debug"},
    {KEY + "logLevel": "loud"},
    {"dev.holdfast/chat": 1},
    {"dev.holdfast/chat": "x" * 2000},
    {"other": 1},
    {"other": True},
    {"other": 1.0},
    {"progressToken": True},
    {"progressToken": None},
    {"progressToken": {"a": 1}},
]


@requirement("modern:calls:as-before")
@pytest.mark.parametrize("first", [{}, {"other": 1}, {"other": True}, {"progressToken": "p"}])
async def test_an_envelope_that_differs_in_anything_is_read_anew(
    first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server sees, and what the client gets, is as on a connection of its own."""
    async with rig() as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            for other in OTHERS:
                await led(client, client.tool("echo", first, text="a"))
                body = client.tool("echo", other, text="b")
                async with staying(running) as fresh:
                    assert await client.answer(body) == await fresh.answer(body), other
        assert True in taken


@requirement("modern:calls:as-before")
@pytest.mark.parametrize(
    "changes",
    [
        {"method": "tools/list"},
        {"method": "echo"},
        {"method": 1},
        {"id": None},
        {"id": "7"},
        {"id": 7.5},
        {"jsonrpc": "1.0"},
        {"params": {"name": "count"}},
        {"params": {"name": 1}},
        {"params": {"name": None}},
        {"params": {"arguments": []}},
        {"params": {"arguments": None}},
        {"params": {"arguments": {"deep": [[1], {"n": 2**60}]}}},
        {"params": {"task": {}}},
        {"params": {"requestState": "made up"}},
        {"params": {"requestState": 1}},
        {"params": {"inputResponses": {}}},
        {"params": {"inputResponses": {"1": 1}}},
        {"params": {"cursor": 1}},
        {"params": {"_meta": {}}},
        {"params": {"_meta": None}},
        {"params": {"_meta": 1}},
    ],
)
async def test_a_request_that_differs_in_anything_is_looked_at(changes: dict[str, Any]) -> None:
    async with rig() as running, staying(running, chat="c") as client:
        usual = client.tool("echo", text="a")
        await led(client, usual)
        inner = changes.get("params")
        body = usual | changes | ({"params": usual["params"] | inner} if isinstance(inner, dict) else {})
        headers = mirrored(usual)
        async with staying(running) as fresh:
            assert await client.answer(body, **headers) == await fresh.answer(body, **headers)
            for raw in (b"[]", b"{", b'{"jsonrpc":"2.0","method":"notifications/x"}', json.dumps([usual]).encode()):
                assert await client.answer(raw, **headers) == await fresh.answer(raw, **headers)


@requirement("modern:calls:as-before")
async def test_arguments_in_headers_are_compared_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deploy(call: ToolCall) -> dict[str, Any]:
        return text_result(call.text("region", "nowhere"))

    properties = {"region": {"type": "string", "x-mcp-header": "Region"}}
    declared = {"name": "deploy", "inputSchema": {"type": "object", "properties": properties}}
    monkeypatch.setitem(TOOLS, "deploy", Tool(deploy, declared))
    async with rig() as running, staying(running, chat="c") as client:
        header = {"mcp_param_region": "eu"}
        with counted(monkeypatch) as taken:
            for _ in range(3):
                assert text_in(await client.result(client.tool("deploy", region="eu"), **header)) == "eu"
            status, code, _ = await client.refused(client.tool("deploy", region="us"), **header)
            assert text_in(await client.result(client.tool("deploy", region="eu"), **header)) == "eu"
        assert (status, code) == (400, -32020)
        assert taken == [True, True]


@requirement("modern:calls:as-before")
async def test_a_tool_that_its_client_may_not_call_any_more_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            await led(client, client.tool("count"))
            settings = running.gateway.settings
            denied = ClientSettings(name="local", servers={"memory": ToolRules(deny=("count",))})
            running.gateway.reload(settings.model_copy(update={"clients": (denied,)}))
            answer = (await client.events(client.tool("count")))[-1]
        assert answer["error"]["code"] == -32602
        assert taken == [True], "what the settings before let in is read anew"


@requirement("modern:calls:as-before")
async def test_an_envelope_that_always_differs_is_soon_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            for number in range(LESSONS + 5):
                body = client.tool("echo", {"traceparent": f"00-{number}"}, text="a")
                assert f"00-{number}" in text_in(await client.result(body))
            for _ in range(3):
                await client.result(client.tool("echo", text="a"))
            assert True not in taken
        with counted(monkeypatch) as taken:
            long = {"traceparent": "x" * 5000}
            for _ in range(4):
                await client.result(client.tool("recall", long, key="k"))
        assert taken == [], "nor is one that is long"


@requirement("modern:calls:as-before-and-more")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_progress_and_logs_come_on_its_stream(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(transport) as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            for token in ("a", "b", 3, "d"):
                messages = await client.events(client.tool("progress", {"progressToken": token}, steps=3))
                told = [each["params"] for each in messages[:-1]]
                assert [(each["progressToken"], each["progress"]) for each in told] == [(token, n) for n in (1, 2, 3)]
                assert text_in(messages[-1]["result"]) == "done"
            for _ in range(4):
                body = client.tool("log", {KEY + "logLevel": "info"}, level="error", message="m")
                log, answer = await client.events(body)
                assert log["method"] == "notifications/message"
                assert answer["id"] == body["id"]
        assert taken == [True] * 4


@requirement("modern:calls:as-before-and-more")
async def test_a_question_ends_it_and_its_client_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            for _ in range(3):
                body = client.tool("ask", message="sure?")
                result, (key,) = await client.asked(body)
                assert result["inputRequests"][key]["params"]["message"] == "sure?"
                stolen = client.again(client.tool("ask", message="other"), result, **{key: YES})
                assert (await client.refused(stolen))[1] == -32602
                assert reply_in(await client.result(client.again(body, result, **{key: YES}))) == YES
        assert True in taken
        await running.until(lambda: len(running.app.modern.parked) == 0)


@requirement("modern:calls:as-before-and-more")
async def test_an_error_of_the_server_is_said_in_the_words_of_this_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = True

    async def fickle(_call: ToolCall) -> dict[str, Any]:
        if failing:
            raise RpcFailure(-32002, "gone")
        return text_result("here")

    monkeypatch.setitem(TOOLS, "fickle", Tool(fickle, {"name": "fickle", "inputSchema": {"type": "object"}}))
    async with rig() as running, staying(running, chat="c") as client:
        with counted(monkeypatch) as taken:
            for _ in range(3):
                (answer,) = await client.events(client.tool("fickle"))
                assert (answer["error"]["code"], answer["error"]["message"]) == (-32602, "gone")
            failing = False
            assert text_in(await client.result(client.tool("fickle"))) == "here"
        assert taken == [True, True]


@requirement("modern:calls:as-before-and-more")
@pytest.mark.parametrize("has_progress", [True, False])
async def test_leaving_it_cancels_the_call(has_progress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as running, staying(running, chat="c") as client:
        meta = {"progressToken": 1} if has_progress else {}
        with counted(monkeypatch) as taken:
            await led(client, client.tool("progress", meta, steps=1))
            gated = client.tool("progress", meta, steps=1, gate="shut")
            if has_progress:
                with suppress(Left):
                    async with client.post(gated) as response:
                        await next_message(response)
                        raise Left
            else:
                async with asyncio.TaskGroup() as group:
                    asking = group.create_task(client.answer(gated))
                    await running.upstream.until(lambda: len(running.upstream.calls("progress")) == 4)
                    asking.cancel()
        entry = running.upstream.calls("progress")[-1]
        await running.upstream.until(lambda: entry.outcome == "cancelled")
        await running.until_idle()
        assert taken == [True, True]
        assert len(running.app.modern.silences) == 0


@requirement("modern:calls:as-before-and-more")
async def test_a_long_silence_opens_a_stream() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running, staying(running, chat="c") as client:
        await led(client, client.tool("progress", steps=1))
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.answer(client.tool("progress", steps=1, gate="shut")))
            await running.upstream.until(lambda: len(running.upstream.calls("progress")) == 4)
            assert len(running.app.modern.silences) == 1
            clock.advance(SILENCE)
            assert len(running.app.modern.silences) == 0
            running.upstream.open_gate("shut")
        status, kind, messages = asking.result()
        assert (status, kind) == (200, "text/event-stream")
        assert text_in(messages[-1]["result"]) == "done"


@requirement("modern:calls:as-before-and-more")
async def test_who_takes_json_alone_gets_it_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running, staying(running, chat="c", accept="application/json") as client:
        with counted(monkeypatch) as taken:
            await led(client, client.tool("progress", steps=1))
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(client.answer(client.tool("progress", steps=1, gate="shut")))
                await running.upstream.until(lambda: len(running.upstream.calls("progress")) == 4)
                clock.advance(SILENCE)
                running.upstream.open_gate("shut")
            status, kind, (answer,) = asking.result()
        assert (status, kind, text_in(answer["result"])) == (200, "application/json", "done")
        assert taken == [True, True]


@requirement("modern:calls:as-before-and-more")
async def test_one_that_cannot_be_started_is_answered_and_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(Exception):
        """What nobody expects."""

    def fail(*_: object) -> None:
        raise Broken

    logged: list[object] = []

    def log(_: str, *, exc_info: object) -> None:
        logged.append(exc_info)

    monkeypatch.setattr("holdfast.downstream.app.logger.error", log)
    async with rig(clock=ManualClock()) as running, staying(running, chat="c") as client:
        await led(client, client.tool("count"))
        with monkeypatch.context() as patch:
            patch.setattr(ServerConversation, "start", fail)
            async with client.post(client.tool("count")) as response:
                assert response.status == 500
                await response.body()
            assert len(running.app.modern.silences) == 0
    assert [type(each) for each in logged] == [Broken]
