"""Servers that cannot be reached, or say nothing (threats, rows 31 and 33)."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

from faults.odd_server import OddServer, answering, odd_server, result_of, text
from faults.rig import answer_to, call, code_of, gateway_to, in_flight, read, text_of, together, until
from holdfast.testing.clock import ManualClock, settle
from holdfast.testing.proxy import Direction, FaultProxy
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from unit.scripted_http import Peer, chunk, plain, stream_head

CALL_TIMEOUT: Final = 0.25
REFUSED_CALLS: Final = 50
BOUND: Final = 60.0
"""Seconds for a call that finds nobody: attempts are tried again for a while, not for ever."""


@requirement("faults:down:told-in-time")
async def test_a_server_that_is_down_is_told_of_at_once_and_works_when_it_is_back() -> None:
    async with ScriptedServer() as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert "result" in await read(client)
        await server.stop()
        started = time.monotonic()
        answers = [await call(client, "count", canary=number) for number in range(REFUSED_CALLS)]
        assert time.monotonic() - started < BOUND
        for answer in answers:
            assert code_of(answer) == -31001
            assert answer["error"]["data"]["holdfast"]["delivery"] == "not_sent"
            assert answer["error"]["data"]["holdfast"]["retryable"] is True
            assert "refused" in answer["error"]["message"]
            assert "Traceback" not in answer["error"]["message"]
        await server.start()
        await recovers(lambda: call(client, "count"))
        assert [entry.canary for entry in server.calls("count")] == [None]


async def test_a_server_that_was_never_up_is_reached_once_it_is() -> None:
    async with ScriptedServer() as server:
        await server.stop()
        async with gateway_to(server.url) as rig:
            client = rig.client()
            for _ in range(5):
                answer = await call(client, "count", path="/mcp/upstream/chats/c")
                assert code_of(answer) == -31001
            await server.start()
            await recovers(lambda: call(client, "count", path="/mcp/upstream/chats/c"))
            await client.open()


async def recovers(attempt: Any) -> None:
    """Repeat until the answer is a result; every other one says that nothing was sent."""
    async with asyncio.timeout(BOUND):
        while code_of(await attempt()) is not None:
            pass


@requirement("faults:stall:ends-one-call")
async def test_a_call_without_an_answer_times_out_and_is_cancelled_at_the_server() -> None:
    clock = ManualClock()
    async with ScriptedServer() as server, gateway_to(server.url, call_timeout=CALL_TIMEOUT, clock=clock) as rig:
        client = await rig.opened()
        other = await rig.opened()
        answers: list[dict[str, Any]] = []

        async def stalled() -> None:
            answers.append(await call(client, "slow", gate="never", canary="stalled"))

        async def siblings() -> None:
            await server.entered("never")
            for number in range(20):
                assert text_of(await call(client, "count")) == str(number + 1), "in the same session"
                assert text_of(await call(other, "count")) == str(number + 1), "in another"
            clock.advance(CALL_TIMEOUT)

        await together(stalled(), siblings())
        assert code_of(answers[0]) == -31003
        assert "0.25 s" in answers[0]["error"]["message"]
        await server.until(lambda: [e.outcome for e in server.calls("slow")] == ["cancelled"])
        assert text_of(await call(client, "count")) == "21"


async def test_a_frozen_server_ends_each_call_by_its_timeout_and_goes_on_when_it_thaws() -> None:
    async with ScriptedServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        clock = ManualClock()
        async with gateway_to(f"http://127.0.0.1:{proxy.port}/mcp", call_timeout=CALL_TIMEOUT, clock=clock) as rig:
            clients = [await rig.opened() for _ in range(10)]
            for client in clients:
                assert text_of(await call(client, "count")) == "1"
            proxy.stall()

            async def frozen(client: Any) -> None:
                assert code_of(await call(client, "count", canary=client.headers["mcp-session-id"])) == -31003

            async def time_passes() -> None:
                await until(lambda: sum(len(session.calls) for session in rig.pool.sessions) == len(clients))
                clock.advance(CALL_TIMEOUT)

            await together(time_passes(), *(frozen(client) for client in clients))
            proxy.flow()
            for client in clients:
                assert text_of(await call(client, "count")) in {"2", "3"}
        seen = [entry.canary for entry in server.calls("count") if entry.canary]
        assert len(seen) == len(set(seen))


async def test_a_dripping_answer_is_put_together() -> None:
    async with (
        ScriptedServer() as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp") as rig,
    ):
        client = await rig.opened()
        proxy.slice(1)
        assert text_of(await call(client, "count")) == "1"
        async with in_flight(client) as running:
            server.open_gate("gate")
            assert text_of(await running.answer) == "done"
        assert "result" in await read(client)


async def cancelled(server: OddServer) -> None:
    """Return once the server was told that nobody waits any more."""
    await until(lambda: bool(server.methods("notifications/cancelled")))


async def test_half_an_answer_and_then_silence_times_out() -> None:
    halves = [
        plain(b'{"jsonrpc":"2.0","id":4,"result":{"content":[')[:-20],
        b"HTTP/1.1 200 OK\r\ncontent-ty",
        stream_head() + chunk(b'event: message\ndata: {"jsonrpc":"2.0",'),
        stream_head(),
    ]
    for half in halves:
        clock = ManualClock()
        async with (
            odd_server(answering(half)) as server,
            gateway_to(server.url, call_timeout=CALL_TIMEOUT, clock=clock) as rig,
        ):
            client = await rig.opened()
            assert text_of(await call(client, "count")) == "1"
            async with asyncio.TaskGroup() as group:
                odd = group.create_task(call(client, "odd"))
                await until(lambda: len(server.methods("tools/call")) == 2)
                clock.advance(CALL_TIMEOUT)
            assert code_of(odd.result()) == -31003
            assert len(server.methods("tools/call")) == 2
            await cancelled(server)
            assert text_of(await call(client, "count")) == "2"


async def test_a_server_that_only_comments_still_times_out_and_one_that_talks_does_not() -> None:
    clock = ManualClock()
    log = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}'
    heard = asyncio.Semaphore(0)

    async def talking(message: dict[str, Any], peer: Peer) -> None:
        peer.write(stream_head())
        for _ in range(12):
            clock.advance(CALL_TIMEOUT / 8)
            if message["params"]["name"] == "logs":
                peer.write(chunk(b"data: %b\n\n" % log))
                await heard.acquire()
            else:
                peer.write(chunk(b": comment\n\n"))
                await settle()
        peer.write(chunk(b"data: " + result_of(message, text("done")) + b"\n\n"), b"0\r\n\r\n")

    async with odd_server(talking) as server, gateway_to(server.url, call_timeout=CALL_TIMEOUT, clock=clock) as rig:
        client = await rig.opened()
        assert code_of(await call(client, "comments")) == -31003
        async with client.request("POST", client.tool("logs")) as response:
            while (event := await response.event()) is not None and b'"result"' not in event.data:
                if b"notifications/message" in event.data:
                    heard.release()
        assert event is not None
        assert text_of(json.loads(event.data)) == "done"


async def test_a_frozen_handshake_ends_within_its_own_limit() -> None:
    async with ScriptedServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.stall(Direction.TO_CLIENT)
        async with gateway_to(f"http://127.0.0.1:{proxy.port}/mcp", open_timeout=CALL_TIMEOUT) as rig:
            client = rig.client()
            answer = await call(client, "count")
            assert code_of(answer) == -31001
            assert "initialize" in answer["error"]["message"]
            proxy.flow()
            await recovers(lambda: call(client, "count"))


async def test_nine_other_servers_sessions_answer_while_one_call_waits() -> None:
    async with ScriptedServer() as server, gateway_to(server.url) as rig:
        stuck = await rig.opened()
        others = [await rig.opened() for _ in range(9)]
        async with in_flight(stuck) as running:
            for client in others:
                assert text_of(await call(client, "count")) == "1"
            server.open_gate("gate")
            assert code_of(await running.answer) is None
        assert "result" in await answer_to(stuck, stuck.call("ping"))
