"""The application as any ASGI server would call it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest

from holdfast.config import ClientSettings, GatewaySettings, key_digest
from holdfast.downstream.app import App, Kept
from holdfast.downstream.body import BODY_TIMEOUT
from holdfast.downstream.http import WATCH_AFTER, HttpResponder, Message
from holdfast.downstream.recurring import PERIOD
from holdfast.testing.clock import ManualClock, settle
from requirements import requirement
from rig import Rig, rig, text_of
from rows import row

_TYPES: Final = ((b"accept", b"application/json, text/event-stream"), (b"content-type", b"application/json"))


class Exchange:
    """One request to the application, whose body and client do as they are told."""

    def __init__(self, app: App, fields: Sequence[tuple[bytes, bytes]] = (), *, length: int | None = None) -> None:
        framing = () if length is None else ((b"content-length", b"%d" % length),)
        headers: Any = [(b"host", b"localhost"), *framing, *_TYPES, *fields]
        self.scope: Message = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "headers": headers,
        }
        self._app = app
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self._sent: list[Message] = []
        self.listens = asyncio.Event()
        """The application has asked for what comes."""

    def piece(self, body: bytes, *, is_last: bool = False) -> None:
        """A piece of the body comes."""
        self._coming.put_nowait({"type": "http.request", "body": body, "more_body": not is_last})

    def leave(self) -> None:
        """The client leaves."""
        self._coming.put_nowait({"type": "http.disconnect"})

    async def run(self) -> None:
        await self._app(self.scope, self._receive, self._send)

    async def _receive(self) -> Message:
        self.listens.set()
        return await self._coming.get()

    async def _send(self, message: Message) -> None:
        self._sent.append(message)

    @property
    def status(self) -> int | None:
        """That of the answer, once it has begun."""
        return self._sent[0]["status"] if self._sent else None

    @property
    def body(self) -> bytes:
        """What the answer says; it must be whole."""
        first, *rest = self._sent
        assert first["type"] == "http.response.start"
        assert [message["more_body"] for message in rest] == [True] * (len(rest) - 1) + [False]
        return b"".join(message["body"] for message in rest)


async def post(running: Rig, message: Any, *fields: tuple[bytes, bytes]) -> Exchange:
    """A request whose body is there at once, and its answer."""
    body = json.dumps(message).encode()
    exchange = Exchange(running.app, fields, length=len(body))
    exchange.piece(body, is_last=True)
    await exchange.run()
    return exchange


def ping(number: int = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "ping"}


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


@contextmanager
def counted_repetitions(monkeypatch: pytest.MonkeyPatch) -> Generator[list[Kept]]:
    """The requests whose heads were known."""
    known: list[Kept] = []
    genuine = App.admit_again

    def admit_again(self: App, kept: Kept, responder: HttpResponder) -> bool:
        known.append(kept)
        return genuine(self, kept, responder)

    with monkeypatch.context() as patch:
        patch.setattr(App, "admit_again", admit_again)
        yield known


@requirement("http:asgi:familiar")
async def test_a_head_that_comes_again_is_known_and_each_request_gets_its_own_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rig() as running:
        client = await running.connected()
        session = (b"mcp-session-id", client.headers["mcp-session-id"].encode())
        with counted_repetitions(monkeypatch) as known:
            for number in (1, 20, 300, 4_000_000):
                exchange = await post(running, ping(number), session)
                assert (exchange.status, json.loads(exchange.body)) == (
                    200,
                    {"jsonrpc": "2.0", "id": number, "result": {}},
                )
            assert len(known) == 2
            counts = [json.loads((await post(running, tool("count"), session)).body) for _ in range(3)]
            assert [text_of(answer) for answer in counts] == ["1", "2", "3"]
            assert len(known) == 5
            await client.delete()
            assert (await post(running, ping(), session)).status == 404
            assert (await post(running, ping())).status == 200
            assert len(known) == 6, "a session that has ended has, whoever knows its head"


@requirement("http:asgi:familiar")
async def test_a_known_head_lets_in_nobody_whom_new_settings_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = ClientSettings(name="c", key_digests=(key_digest("k" * 20),))
    bearer = (b"authorization", b"Bearer " + b"k" * 20)
    async with rig(clients=(keyed,)) as running:
        with counted_repetitions(monkeypatch) as known:
            for _ in range(3):
                assert (await post(running, ping(), bearer)).status == 200
            assert len(known) == 1
            assert (await post(running, ping(), (b"authorization", b"Bearer " + b"j" * 20))).status == 401
            reading = Exchange(running.app, (bearer,), length=40)
            reading.piece(b"{")
            task = asyncio.get_running_loop().create_task(reading.run())
            await reading.listens.wait()
            await settle()
            assert len(known) == 2
            servers = running.gateway.settings.servers
            other = ClientSettings(name="c", key_digests=(key_digest("j" * 20),))
            running.gateway.reload(GatewaySettings(servers=servers, clients=(other,)))
            reading.piece(b"}", is_last=True)
            await task
            assert reading.status == 401
            assert (await post(running, ping(), bearer)).status == 401
            assert not running.app.open_requests


@requirement("http:asgi:familiar")
async def test_fields_may_come_as_lists_and_a_path_without_its_raw_form() -> None:
    async with rig() as running:
        for _ in range(3):
            exchange = Exchange(running.app, length=40)
            exchange.scope["headers"] = [list(field) for field in exchange.scope["headers"]]
            exchange.piece(json.dumps(ping()).encode(), is_last=True)
            await exchange.run()
            assert exchange.status == 200


@requirement("http:asgi:familiar")
@row(29)
async def test_a_known_head_of_too_long_a_body_is_refused_before_it_comes() -> None:
    async with rig() as running:
        for _ in range(3):
            await post(running, ping())
        exchange = Exchange(running.app, length=running.app.request_bytes + 1)
        await exchange.run()
        assert exchange.status == 413
        assert not exchange.listens.is_set()


@requirement("http:asgi:short-memory")
async def test_nothing_of_a_request_is_held_for_long_after_it() -> None:
    async with rig(clock=ManualClock()) as running:
        pending = running.clock.pending
        for _ in range(3):
            await post(running, ping())
        await running.passing(2 * PERIOD)
        assert running.clock.pending <= pending
        assert not running.app.open_requests


# Bodies.


class Reading:
    """A request whose head came, and of whose body the first piece."""

    def __init__(self, running: Rig, first: bytes | None) -> None:
        self.running = running
        self.exchange = Exchange(running.app)
        if first is not None:
            self.exchange.piece(first)
        self.task = asyncio.get_running_loop().create_task(self.exchange.run())

    async def begun(self) -> None:
        await self.exchange.listens.wait()
        await settle()
        assert self.running.app.open_requests

    async def over(self) -> Exchange:
        await asyncio.wait([self.task])
        assert not self.running.app.open_requests
        return self.exchange


@requirement("http:asgi:bodies")
@pytest.mark.parametrize("first", [None, b"", b" "])
async def test_a_body_may_come_in_pieces_as_long_as_it_is_whole_in_time(first: bytes | None) -> None:
    body = json.dumps(ping()).encode()
    async with rig(clock=ManualClock()) as running:
        reading = Reading(running, first)
        await reading.begun()
        for at in range(len(body)):
            await running.passing(BODY_TIMEOUT / len(body) - 0.001)
            reading.exchange.piece(body[at : at + 1])
        assert reading.exchange.status is None
        reading.exchange.piece(b"", is_last=True)
        assert (await reading.over()).status == 200
        assert json.loads(reading.exchange.body)["id"] == 1


@requirement("http:asgi:bodies")
@row(29)
@pytest.mark.parametrize("first", [None, b" "])
async def test_a_body_that_is_not_whole_in_time_is_refused(first: bytes | None) -> None:
    async with rig(clock=ManualClock()) as running:
        reading = Reading(running, first)
        await reading.begun()
        await running.passing(BODY_TIMEOUT - 0.1)
        reading.exchange.piece(b" ")
        await settle()
        assert reading.exchange.status is None
        await running.passing(0.2)
        assert (await reading.over()).status == 408
        assert (await reading.over()).body
        assert reading.task.exception() is None
        assert reading.task.cancelling() == 0


@requirement("http:asgi:bodies")
async def test_a_body_that_grows_beyond_the_limit_is_refused() -> None:
    async with rig() as running:
        reading = Reading(running, b" ")
        await reading.begun()
        for _ in range(2):
            reading.exchange.piece(b" " * (running.app.request_bytes // 2))
        assert (await reading.over()).status == 413


@requirement("http:asgi:bodies")
@row(40)
@pytest.mark.parametrize("after", [0.0, 2 * WATCH_AFTER])
@pytest.mark.parametrize("first", [None, b" "])
async def test_who_leaves_amid_a_body_is_answered_nothing(first: bytes | None, after: float) -> None:
    async with rig(clock=ManualClock()) as running:
        reading = Reading(running, first)
        await reading.begun()
        await running.passing(after)
        reading.exchange.leave()
        assert (await reading.over()).status is None
        assert reading.task.exception() is None


@requirement("http:asgi:bodies")
@pytest.mark.parametrize("after", [0.0, 2 * WATCH_AFTER, BODY_TIMEOUT], ids=["at once", "later", "at the deadline"])
async def test_a_task_that_is_cancelled_amid_a_body_is_cancelled(after: float) -> None:
    async with rig(clock=ManualClock()) as running:
        reading = Reading(running, b" ")
        await reading.begun()
        if after == BODY_TIMEOUT:
            await running.passing(after - 1)
            running.clock.advance(2)  # the deadline has passed, and nobody heard of it yet
        else:
            await running.passing(after)
        reading.task.cancel()
        assert (await reading.over()).status is None
        assert reading.task.cancelled()


# Departures.


@requirement("http:asgi:departures")
@row(40)
@pytest.mark.parametrize("is_slow", [False, True], ids=["a body at once", "a slow body"])
async def test_who_leaves_a_call_that_takes_long_has_it_cancelled(*, is_slow: bool) -> None:
    body = json.dumps(tool("slow", gate="never")).encode()
    async with rig(clock=ManualClock()) as running:
        exchange = Exchange(running.app)
        task = asyncio.get_running_loop().create_task(exchange.run())
        if is_slow:
            exchange.piece(body[:1])
            await settle()
            await running.passing(2 * WATCH_AFTER)
            body = body[1:]
        exchange.piece(body, is_last=True)
        await running.upstream.entered("never", 1)
        exchange.leave()
        if not is_slow:
            await settle()
            assert [entry.outcome for entry in running.upstream.calls()] == ["running"], "nobody looks so soon"
            await running.passing(WATCH_AFTER)
        await task
        await running.upstream.until(lambda: [entry.outcome for entry in running.upstream.calls()] == ["cancelled"])
        assert not running.app.open_requests


@requirement("http:asgi:departures")
async def test_an_answer_that_takes_long_is_the_same() -> None:
    async with rig(clock=ManualClock()) as running:
        exchange = Exchange(running.app)
        exchange.piece(json.dumps(tool("slow", gate="later")).encode(), is_last=True)
        task = asyncio.get_running_loop().create_task(exchange.run())
        await running.upstream.entered("later", 1)
        await running.passing(2 * WATCH_AFTER)
        running.upstream.open_gate("later")
        await task
        assert text_of(json.loads(exchange.body))
