"""One stream of events for many takers."""

from __future__ import annotations

import re

import pytest

from holdfast import events
from holdfast.observe.feed import KEPT, KINDS, PASSING, Entry, EventFeed, Taker, encode, fan_out
from requirements import requirement

ADDED = events.ServerAdded("notes")
ENDED = events.CallEnded("notes", "tools/call", "result", 0.1, "r1")


def broken(_: object) -> None:
    raise ValueError("broken")


@requirement("observe:feed:one-failure-harms-nobody")
def test_a_taker_that_fails_is_logged_once_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    first: list[events.Event] = []
    last: list[events.Event] = []
    emit = fan_out(Taker(first.append), Taker(broken), Taker(last.append))
    for _ in range(3):
        emit(ADDED)
    assert first == last == [ADDED] * 3
    assert len(caplog.records) == 1
    assert "ServerAdded" in caplog.text
    assert "ValueError: broken" in caplog.text


def test_each_taker_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    emit = fan_out(Taker(broken), Taker(broken))
    emit(ADDED)
    emit(ADDED)
    assert len(caplog.records) == 2


def test_a_taker_of_some_kinds_is_told_of_no_others() -> None:
    heard: list[events.Event] = []
    emit = fan_out(Taker(heard.append, frozenset({events.CallEnded})))
    emit(ADDED)
    emit(ENDED)
    assert heard == [ENDED]


def test_what_a_taker_wants_may_change_and_holds_from_the_next_event_on() -> None:
    heard: list[events.Event] = []
    taker = Taker(heard.append, frozenset({events.ServerAdded}))
    emit = fan_out(taker)
    emit(events.ServerAdded("one"))
    emit(events.ServerRemoved("one"))
    taker.want(frozenset({events.ServerRemoved}))
    emit(events.ServerAdded("two"))
    emit(events.ServerRemoved("two"))
    assert heard == [events.ServerAdded("one"), events.ServerRemoved("two")]


def test_the_feed_wants_what_passes_only_while_somebody_listens() -> None:
    feed = EventFeed()
    wanted = [feed.taker.kinds]
    first, second = feed.subscribe(lambda _: None), feed.subscribe(broken)
    wanted.append(feed.taker.kinds)
    fan_out(feed.taker)(ENDED)
    first()
    wanted.append(feed.taker.kinds)
    second()
    assert wanted == [KINDS - PASSING, KINDS, KINDS - PASSING], "the one that failed listens no more"


def test_what_happens_to_calls_reaches_subscribers_but_is_not_remembered() -> None:
    feed = EventFeed(now=lambda: 1.5)
    heard: list[Entry] = []
    feed.take(ADDED)
    feed.subscribe(heard.append)
    feed.take(ENDED)
    feed.take(events.RequestEnded("mcp", "POST", 200))
    feed.take(events.ServerRemoved("notes"))
    assert [entry.event for entry in heard] == [
        ENDED,
        events.RequestEnded("mcp", "POST", 200),
        events.ServerRemoved("notes"),
    ]
    assert [entry.event for entry in feed.recent] == [ADDED, events.ServerRemoved("notes")]
    assert {entry.at for entry in heard} == {1.5}


def test_numbers_grow_so_that_a_reader_can_go_on_where_it_was() -> None:
    feed = EventFeed()
    heard: list[Entry] = []
    feed.subscribe(heard.append)
    for event in (ADDED, ENDED, ADDED, ENDED, ADDED):
        feed.take(event)
    numbers = [entry.number for entry in heard]
    assert numbers == sorted(set(numbers))
    seen = heard[2].number
    assert [entry for entry in feed.recent if entry.number > seen] == [heard[4]]


def test_only_the_last_thousand_are_remembered() -> None:
    feed = EventFeed()
    for number in range(KEPT + 5):
        feed.take(events.ServerAdded(f"server-{number}"))
    assert len(feed.recent) == KEPT
    assert feed.recent[0].event == events.ServerAdded("server-5")
    assert feed.recent[-1].event == events.ServerAdded(f"server-{KEPT + 4}")


def test_who_unsubscribed_hears_nothing_more_and_may_do_so_twice() -> None:
    feed = EventFeed()
    heard: list[Entry] = []
    kept: list[Entry] = []
    unsubscribe = feed.subscribe(heard.append)
    feed.subscribe(kept.append)
    feed.take(ADDED)
    unsubscribe()
    unsubscribe()
    feed.take(ADDED)
    assert len(heard) == 1
    assert len(kept) == 2


def test_subscribers_may_come_and_go_while_an_event_is_told() -> None:
    feed = EventFeed()
    heard: list[str] = []

    def first(_: Entry) -> None:
        heard.append("first")
        leave_second()
        feed.subscribe(lambda _: heard.append("newcomer"))

    leave_first = feed.subscribe(first)
    leave_second = feed.subscribe(lambda _: heard.append("second"))
    feed.take(ADDED)
    leave_first()
    assert heard == ["first"]
    feed.take(ADDED)
    assert heard == ["first", "newcomer"]


@requirement("observe:feed:one-failure-harms-nobody")
def test_a_subscriber_that_fails_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    feed = EventFeed()
    heard: list[Entry] = []
    feed.subscribe(broken)
    feed.subscribe(heard.append)
    feed.take(ADDED)
    feed.take(ADDED)
    assert len(heard) == 2
    assert len(caplog.records) == 1


def test_an_entry_in_the_terms_of_json() -> None:
    assert encode(Entry(7, 1_000_000.25, ENDED)) == {
        "number": 7,
        "time": "1970-01-12T13:46:40.250Z",
        "event": "call_ended",
        "server": "notes",
        "method": "tools/call",
        "outcome": "result",
        "seconds": 0.1,
        "request": "r1",
    }
    feed = EventFeed()
    feed.take(ADDED)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(encode(feed.recent[0])["time"]))
