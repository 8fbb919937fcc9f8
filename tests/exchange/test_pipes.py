"""The client that started us: lines in, lines out, one session for as long as the process runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from holdfast.downstream.pipes import QUEUE_LENGTH
from holdfast.testing.clock import ManualClock, settle
from holdfast.testing.server_tools import NOTE_URI
from pipe_rig import pipe_client
from requirements import requirement
from rig import REVISIONS, TRANSPORTS, Transport, rig

ABLE: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": True}}


@requirement("stdio:session:one-for-the-process")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_has_one_session_for_as_long_as_its_process_runs(transport: Transport, revision: str) -> None:
    async with rig(transport) as running:
        async with pipe_client(running.gateway) as ada, pipe_client(running.gateway) as ben:
            introduction = await ada.initialize(revision)
            assert introduction["protocolVersion"] == revision
            assert introduction["serverInfo"]["name"] == "holdfast-test-server"
            assert "logging" in introduction["capabilities"]
            await ben.initialize(revision)
            assert [await ada.call("count"), await ben.call("count"), await ada.call("count")] == ["1", "1", "2"]
        await running.until(lambda: not any(each.is_open for each in running.server.pool.sessions))


@requirement("stdio:session:chats-can-be-named")
async def test_a_chat_that_is_named_has_a_session_of_its_own() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize()
        for chat, count in (("a", "1"), ("b", "1"), ("a", "2"), (None, "1")):
            meta = {} if chat is None else {"_meta": {"dev.holdfast/chat": chat}}
            answer = await client.answer(client.request("tools/call", name="count", arguments={}, **meta))
            assert answer["result"]["content"][0]["text"] == count


@requirement("stdio:session:scripts-need-no-initialize")
async def test_a_script_that_does_not_initialize_gets_its_answers_and_nothing_else() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        assert await client.answer(client.request("ping")) == {"jsonrpc": "2.0", "id": 101, "result": {}}
        assert [await client.call("count"), await client.call("count")] == ["1", "2"]
        assert await client.call("log", level="error", message="x") == "logged"
        assert json.loads(await client.call("ask", message="?")) == {"action": "cancel"}
        assert await client.call("change_tools") == "added"
        assert client.heard == []
        asked = client.request("tools/call", name="progress", arguments={"steps": 2}, _meta={"progressToken": "p"})
        await client.answer(asked)
        assert [(m["method"], m["params"]["progressToken"]) for m in client.heard] == [
            ("notifications/progress", "p"),
            ("notifications/progress", "p"),
        ]


@requirement("stdio:relay:every-feature")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_client_is_asked_what_it_can_answer(transport: Transport) -> None:
    async with rig(transport) as running, pipe_client(running.gateway) as client:
        await client.initialize(**ABLE)
        asked = client.tool("ask", message="sure?")
        question = await client.until("elicitation/create")
        assert question["params"]["message"] == "sure?"
        client.reply(question, action="accept", content={"answer": "yes"})
        text = (await client.answer(asked))["result"]["content"][0]["text"]
        assert json.loads(text) == {"action": "accept", "content": {"answer": "yes"}}
        asked = client.tool("sample", prompt="hi")
        question = await client.until("sampling/createMessage")
        client.send({"jsonrpc": "2.0", "id": question["id"], "error": {"code": -1, "message": "no"}})
        assert json.loads((await client.answer(asked))["result"]["content"][0]["text"])["code"] == -1
        asked = client.tool("roots")
        client.reply(await client.until("roots/list"), roots=[{"uri": "file:///a"}])
        assert "file:///a" in (await client.answer(asked))["result"]["content"][0]["text"]


@requirement("stdio:relay:every-feature")
async def test_what_a_client_did_not_declare_is_answered_for_it() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize()
        assert json.loads(await client.call("ask", message="?")) == {"action": "cancel"}
        assert json.loads(await client.call("roots")) == {"roots": []}
        assert client.heard == []


@requirement("stdio:relay:every-feature")
async def test_a_cancelled_call_is_cancelled_at_the_server_and_gets_no_answer() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize()
        asked = client.tool("slow", gate="never")
        await running.upstream.entered("never")
        client.notify("notifications/cancelled", requestId=asked, reason="changed my mind")
        await running.upstream.until(lambda: running.upstream.calls("slow")[0].outcome == "cancelled")
        await client.answer(client.request("ping"))
        assert client.heard == []
        assert client.stdio.client.calls == {}


@requirement("stdio:relay:every-feature")
async def test_logs_list_changes_and_updates_reach_the_client() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize()
        await client.answer(client.request("logging/setLevel", level="warning"))
        await client.call("log", level="info", message="unheard")
        await client.call("log", level="error", message="heard")
        assert [m["params"]["data"] for m in client.heard] == ["heard"]
        await client.answer(client.request("resources/subscribe", uri=NOTE_URI))
        await running.upstream.pushing()
        client.tool("change_resource", text="new")
        assert (await client.until("notifications/resources/updated"))["params"] == {"uri": NOTE_URI}
        client.tool("change_tools")
        await client.until("notifications/tools/list_changed")
        refused = await client.answer(client.request("logging/setLevel", level="loud"))
        assert refused["error"]["code"] == -32602


@requirement("stdio:wire:arrays-by-revision")
async def test_an_array_is_answered_with_an_array_where_the_revision_has_them() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize("2025-03-26")
        count: dict[str, Any] = {"method": "tools/call", "params": {"name": "count", "arguments": {}}}
        client.send([{"jsonrpc": "2.0", "id": n, **count} for n in (1, 2)] + [{"jsonrpc": "2.0", "method": "x/y"}])
        answers = await client.next()
        assert sorted(answer["id"] for answer in answers) == [1, 2]
        assert sorted(answer["result"]["content"][0]["text"] for answer in answers) == ["1", "2"]
        client.send([{"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {}}])
        assert [answer["error"]["code"] for answer in await client.next()] == [-32600]


@requirement("stdio:wire:arrays-by-revision")
async def test_each_request_of_an_array_is_told_that_the_revision_has_none() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize("2025-11-25")
        client.send([{"jsonrpc": "2.0", "id": n, "method": "ping"} for n in ("a", "b")])
        refused = await client.next()
        assert [(answer["id"], answer["error"]["code"]) for answer in refused] == [("a", -32600), ("b", -32600)]


@requirement("stdio:wire:bad-lines-are-answered-and-skipped")
@pytest.mark.parametrize(
    ("line", "code", "answered"),
    [
        (b"hello\n", -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"\n', -32700, None),
        (b'"\xff\xfe"\n', -32700, None),
        (b"[]\n", -32600, None),
        (b'{"id":7,"method":"ping"}\n', -32600, 7),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n', -32600, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"server/discover"}\n', -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}\n', -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"' + b"x" * 2000 + b'"}}\n', -32600, None),
    ],
)
async def test_a_bad_line_is_answered_and_the_next_is_read(line: bytes, code: int, answered: Any) -> None:
    async with rig() as running, pipe_client(running.gateway, request_bytes=1000) as client:
        for cut in (len(line), 5):
            client.stdio.feed(line[:cut])
            client.stdio.feed(line[cut:])
            refused = await client.next()
            assert (refused["error"]["code"], refused["id"]) == (code, answered)
        client.stdio.feed(b"\r\n \n")
        await client.answer(client.request("ping"))
        assert client.heard == []


@requirement("stdio:wire:bad-lines-are-answered-and-skipped")
async def test_nothing_that_is_refused_ends_a_call_of_the_same_id() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize()
        asked = client.tool("slow", gate="open")
        client.send({"jsonrpc": "2.0", "id": asked, "method": "ping"}, {"jsonrpc": "2.0", "id": asked})
        client.send({"jsonrpc": "2.0", "id": asked, "method": "initialize", "params": {"protocolVersion": "x"}})
        for _ in range(3):
            refused = await client.next()
            assert (refused["id"], refused["error"]["code"]) == (None, -32600)
        running.upstream.open_gate("open")
        assert (await client.answer(asked))["result"]["content"][0]["text"] == "done"


@requirement("stdio:end:what-was-asked-is-answered")
async def test_after_the_end_of_input_what_was_asked_is_answered() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        last = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow","arguments":{"gate":"g"}}}'
        client.stdio.feed(last)  # no line end
        client.stdio.end_of_input()
        await running.upstream.entered("g")
        assert not client.stdio.ended.is_set()
        running.upstream.open_gate("g")
        assert (await client.answer(1))["result"]["content"][0]["text"] == "done"
        await client.stdio.ended.wait()


@requirement("stdio:end:what-was-asked-is-answered")
async def test_after_the_end_of_input_questions_are_answered_for_the_client() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize(**ABLE)
        asked = client.tool("ask", message="still there?")
        await client.until("elicitation/create")
        client.stdio.end_of_input()
        assert json.loads((await client.answer(asked))["result"]["content"][0]["text"]) == {"action": "cancel"}
        await client.stdio.ended.wait()


async def test_a_client_that_leaves_before_its_introduction_still_gets_it() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        asked = client.request("initialize", protocolVersion="2025-11-25", capabilities=ABLE)
        client.stdio.end_of_input()
        assert "result" in await client.answer(asked)
        await client.stdio.ended.wait()
        client.stdio.end_of_input()


async def test_a_client_initializes_once_and_again_only_where_it_failed() -> None:
    async with rig(is_learnt=False, restarts=True, open_timeout=5) as running, pipe_client(running.gateway) as client:
        await running.upstream.stop()
        for _ in range(2):
            asked = client.request("initialize", protocolVersion="2025-11-25", capabilities={})
            assert (await client.answer(asked))["error"]["code"] == -31001
        await running.upstream.start()
        while "error" in await client.answer(client.request("initialize", protocolVersion="1", capabilities={})):
            await settle()
        again = await client.answer(client.request("initialize", protocolVersion="1", capabilities={}))
        assert "already" in again["error"]["message"]


@requirement("stdio:flow:slow-readers-lose-no-answer")
async def test_a_slow_reader_loses_progress_and_no_answer() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize()
        reading = [True]
        client.writer.on_slow = lambda: reading.append(False)
        client.writer.on_drained = lambda: reading.append(True)
        await running.upstream.pushing()
        client.writer.pause_writing()
        steps = 2 * QUEUE_LENGTH
        asked = client.request(
            "tools/call", name="progress", arguments={"steps": steps, "gate": "g"}, _meta={"progressToken": 1}
        )
        running.upstream.open_gate("g")
        await running.until(lambda: client.stdio.client.calls == {})
        others = [client.tool("change_tools") for _ in range(20)]
        await running.until(lambda: client.stdio.client.calls == {})
        await settle()
        assert client.is_quiet
        assert reading[-1] is False
        client.writer.resume_writing()
        assert reading[-1] is True
        await client.answer(asked)
        assert 0 < len(client.heard) <= QUEUE_LENGTH + 1
        assert client.writer.dropped >= steps - QUEUE_LENGTH - 1
        client.heard.clear()
        for each in others:
            await client.answer(each)
        changes = [m for m in client.heard if m.get("method") == "notifications/tools/list_changed"]
        assert len(changes) <= 1, "one that waits says as much as many"
        await client.writer.flush()


async def test_nothing_waits_for_a_reader_who_is_gone() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        gone: list[bool] = []
        client.writer.on_gone = lambda: gone.append(True)
        client.writer.pause_writing()
        client.request("ping")
        client.request("ping")
        client.writer.connection_lost(None)
        client.writer.connection_lost(None)
        client.request("ping")
        await client.writer.flush()
        assert gone == [True]
        assert client.is_quiet


@requirement("stdio:relay:every-feature")
async def test_a_call_that_waits_long_says_what_for() -> None:
    clock = ManualClock()
    slow = {"open_delay": 3.0}
    async with (
        rig(clock=clock, server_clock=clock, options=slow, is_learnt=False) as running,
        pipe_client(running.gateway, clock=clock) as client,
    ):
        begun = asyncio.Event()

        async def begin() -> None:
            await client.initialize()
            begun.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(begin())
            while not begun.is_set():
                await running.passing(1.0)
        assert await client.call("count") == "1"  # in the session that was opened to learn from
        meta = {"dev.holdfast/chat": "new", "progressToken": "p"}
        asked = client.request("tools/call", name="count", arguments={}, _meta=meta)
        assert client.is_quiet
        await running.passing(0.3)
        said, step = await client.next(), await client.next()
        assert said["params"]["logger"] == "holdfast"
        assert said["params"]["data"]["status"] == "connecting"
        assert step["params"] == {
            "progressToken": "p",
            "progress": 1e-6,
            "message": said["params"]["data"]["message"],
        }
        await running.passing(3.0)
        await client.answer(asked)
        assert [m["params"]["data"]["status"] for m in client.heard if "data" in m["params"]] == ["ready"]
