"""The stream of events that an operator's program reads."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from holdfast.dashboard.api import MAX_STREAMS, Api
from holdfast.dashboard.stream import KEEP_ALIVE
from holdfast.downstream.http import Request
from holdfast.events import CircuitClosed, RequestEnded, ServerAdded, SessionLost
from holdfast.observe.feed import KEPT
from holdfast.testing.clock import ManualClock
from holdfast.wire.sse import SseEvent, SseParser
from requirements import requirement
from unit.made_up import MadeUpGateway
from unit.recorded import RecordedResponder
from unit.test_dashboard_api import LOCAL


class Case:
    def __init__(self) -> None:
        self.gateway = MadeUpGateway()
        self.feed = self.gateway.feed
        self.clock = ManualClock()
        self.api = Api(self.gateway, LOCAL, self.clock)

    def read(self, query: str = "", last_id: str | None = None) -> RecordedResponder:
        responder = RecordedResponder()
        headers = {"host": "localhost"} if last_id is None else {"host": "localhost", "last-event-id": last_id}
        self.api.dispatch(Request("GET", "/api/events", headers, query=query), responder)
        return responder

    def happen(self, *names: str) -> None:
        for name in names:
            self.feed.take(ServerAdded(name))

    def pass_by(self, count: int) -> None:
        """Events that the feed does not remember."""
        for _ in range(count):
            self.feed.take(RequestEnded("mcp", "POST", 200))


def events(responder: RecordedResponder) -> list[SseEvent]:
    return SseParser(65536).feed(responder.body)


def told(responder: RecordedResponder) -> list[Any]:
    """The names of the servers that were added, and how many events were missed."""
    data = [msgspec.json.decode(event.data) for event in events(responder)]
    return [fields["count"] if "count" in fields else fields.get("server", "-") for fields in data]


def test_an_event_has_an_id_a_name_and_its_fields() -> None:
    case = Case()
    reader = case.read()
    assert (reader.status, reader.headers[b"content-type"]) == (200, b"text/event-stream")
    case.feed.take(SessionLost("browser", "s1", "gone", was_dirty=True))
    (event,) = events(reader)
    assert event.event == "session_lost"
    assert re.fullmatch(r"[0-9a-f]{8}-1", event.id or "")
    assert msgspec.json.decode(event.data) == {
        "number": 1,
        "time": "2023-11-14T22:13:20.000Z",
        "event": "session_lost",
        "server": "browser",
        "session": "s1",
        "reason": "gone",
        "was_dirty": True,
    }


def test_a_reader_begins_with_now_or_with_the_latest_events() -> None:
    case = Case()
    case.happen("a", "b")
    case.pass_by(3)
    case.happen("c")
    case.pass_by(3)
    now, latest, many = case.read(), case.read("recent=2"), case.read("recent=99")
    case.happen("d")
    assert told(now) == ["d"]
    assert told(latest) == ["b", "c", "d"]
    assert told(many) == ["a", "b", "c", "d"]


def test_a_reader_hears_what_the_feed_does_not_remember() -> None:
    case = Case()
    reader = case.read()
    case.happen("a")
    case.pass_by(2)
    case.happen("b")
    assert told(reader) == ["a", "-", "-", "b"]


@requirement("operator:events:resumed-where-they-broke-off")
def test_a_reader_who_comes_back_gets_what_it_missed_and_how_many_are_gone() -> None:
    case = Case()
    case.happen("a", "b")
    first_id = events(case.read("recent=99"))[0].id
    assert told(case.read(last_id=first_id)) == ["b"]
    case.pass_by(5)
    case.happen("c")
    resumed = case.read(last_id=first_id)
    assert told(resumed) == ["b", "c", 5]
    case.happen("d")
    assert told(resumed) == ["b", "c", 5, "d"]
    case.happen(*(["more"] * KEPT))
    late = told(case.read(last_id=first_id))
    assert (late[0], len(late), late[-1]) == ("more", KEPT + 1, 8)


@requirement("operator:events:resumed-where-they-broke-off")
@pytest.mark.parametrize("last_id", ["00000000-7", "7", "", "x", "0" * 8 + "-" + "9" * 30])
def test_an_id_of_another_gateway_resumes_with_all_there_is(last_id: str) -> None:
    case = Case()
    case.happen("a", "b")
    assert told(case.read(last_id=last_id)) == ["a", "b"]


def test_an_id_from_the_future_waits_for_what_comes() -> None:
    case = Case()
    case.happen("a")
    run = (events(case.read("recent=1"))[0].id or "").partition("-")[0]
    reader = case.read(last_id=f"{run}-99")
    case.happen("b", "c")
    assert told(reader) == ["b", "c"]


@requirement("operator:events:a-slow-reader-is-told-what-it-missed")
def test_a_slow_reader_catches_up_and_is_told_how_many_it_never_gets() -> None:
    case = Case()
    reader = case.read()
    case.happen("a")
    reader.is_slow = True
    case.happen("b", "c")
    assert told(reader) == ["a"]
    reader.is_slow = False
    assert reader.on_drained is not None
    reader.on_drained()
    assert told(reader) == ["a", "b", "c"]
    reader.is_slow = True
    case.happen("lost", "lost")
    case.pass_by(4)
    case.happen(*(["kept"] * KEPT))
    reader.is_slow = False
    reader.on_drained()
    case.happen("d")
    assert told(reader) == ["a", "b", "c", *(["kept"] * KEPT), 6, "d"]


@requirement("operator:events:a-slow-reader-is-told-what-it-missed")
def test_a_reader_who_is_slow_from_the_start_gets_its_backlog_later() -> None:
    case = Case()
    case.happen("a")
    case.pass_by(3)
    case.happen("b")
    reader = RecordedResponder()
    reader.is_slow = True
    case.api.dispatch(Request("GET", "/api/events", {"host": "localhost"}, query="recent=5"), reader)
    case.pass_by(2)
    case.happen("c")
    assert told(reader) == []
    reader.is_slow = False
    assert reader.on_drained is not None
    reader.on_drained()
    assert told(reader) == ["a", "b", "c", 2]


def test_a_silent_stream_is_kept_alive() -> None:
    case = Case()
    reader = case.read()
    before = len(reader.body)
    case.clock.advance(KEEP_ALIVE)
    case.clock.advance(KEEP_ALIVE)
    assert reader.body[before:] == b": keep-alive\n\n" * 2
    reader.is_slow = True
    case.clock.advance(KEEP_ALIVE)
    assert reader.body[before:] == b": keep-alive\n\n" * 2


def test_a_reader_who_leaves_leaves_nothing_behind() -> None:
    case = Case()
    reader = case.read()
    reader.leave()
    assert case.feed.subscribers == 0
    case.clock.advance(KEEP_ALIVE * 2)
    case.happen("a")
    assert told(reader) == []


@requirement("operator:events:end-with-the-gateway")
def test_draining_ends_the_streams_and_the_number_of_readers_is_bounded() -> None:
    case = Case()
    readers = [case.read() for _ in range(MAX_STREAMS)]
    assert case.read().status == 503
    readers.pop().leave()
    readers.append(case.read())
    assert readers[-1].status == 200
    case.api.drain()
    assert all(reader.has_ended for reader in readers)
    assert case.feed.subscribers == 0
    case.feed.take(CircuitClosed("browser"))
    assert case.read().status == 200
