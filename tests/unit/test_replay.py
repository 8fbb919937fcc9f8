"""Streams that survive a lost connection."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.downstream.callers import stand_in
from holdfast.downstream.replay import (
    MAX_BYTES,
    MAX_EVENTS,
    PUSH,
    EventStream,
    ReplayBudget,
    event_id,
    read_event_id,
)
from holdfast.wire.sse import SseParser
from requirements import requirement
from rows import row
from unit.recorded import RecordedResponder

SECRET = b"s" * 32


def stream(budget: ReplayBudget | None = None, name: int = 3) -> EventStream:
    return EventStream(name, SECRET, budget or ReplayBudget(), partial(stand_in, server="memory"))


def data_of(responder: RecordedResponder) -> list[bytes]:
    return [event.data for event in SseParser(10_000_000).feed(responder.body) if event.data]


def last_id(responder: RecordedResponder) -> int:
    found = read_event_id(SECRET, SseParser(10_000_000).feed(responder.body)[-1].id or "")
    assert found is not None
    assert found[0] == 3
    return found[1]


def reading(to: EventStream, after: int | None = None, *, primes: bool = False) -> RecordedResponder:
    responder = RecordedResponder()
    to.attach(responder, after=after, primes=primes)
    return responder


@row(40)
@requirement("exchange:sessions:resumption")
@given(st.lists(st.sampled_from(["event", "leave", "resume", "fresh", "primed"]), max_size=40))
def test_every_event_is_read_once_and_in_order_whatever_connections_come_and_go(steps: list[str]) -> None:
    events = stream()
    seen: list[bytes] = []
    reader: RecordedResponder | None = None
    written = 0

    def take_in() -> int:
        """What the client has read of its connection so far, and the last id it saw."""
        assert reader is not None
        seen.extend(data_of(reader))
        last = last_id(reader) if reader.body else 0
        reader.chunks.clear()
        return last

    last = 0
    for step in [*steps, "fresh"]:
        if step == "event":
            written += 1
            events.emit(b"%d" % written, droppable=True)
            continue
        if reader is not None:
            last = take_in() or last
            reader.leave()
        if step != "leave":
            reader = reading(events, last if step == "resume" else None, primes=step == "primed")
    assert reader is not None
    take_in()
    assert seen == [b"%d" % number for number in range(1, written + 1)]


@requirement("exchange:sessions:resumption")
def test_resuming_after_a_priming_event_skips_nothing() -> None:
    events = stream()
    events.emit(b"early", droppable=True)
    first = reading(events, primes=True)
    primed = SseParser(1000).feed(first.chunks[0])[0]
    place = read_event_id(SECRET, primed.id or "")
    assert place is not None
    events.emit(b"late", droppable=True)
    assert data_of(reading(events, place[1])) == [b"early", b"late"]


def test_a_new_reader_sends_the_old_one_away_without_a_word_to_its_owner() -> None:
    events = stream()
    gone: list[str] = []
    old = RecordedResponder()
    events.attach(old, gone=lambda: gone.append("old"))
    new = reading(events)
    assert old.has_ended
    assert gone == []
    events.emit(b"x", droppable=True)
    assert (data_of(old), data_of(new)) == ([], [b"x"])


@requirement("http:direct:drops-are-counted")
def test_a_slow_reader_loses_what_may_be_dropped_and_nothing_else() -> None:
    budget = ReplayBudget()
    events = stream(budget)
    reader = reading(events)
    reader.is_slow = True
    events.emit(b"progress", droppable=True)
    events.emit(b"answer", droppable=False)
    assert data_of(reader) == [b"answer"]
    assert (events.dropped, budget.drops.counted) == (1, {"slow": 1, "away": 0})


@requirement("http:direct:drops-are-counted")
def test_what_was_read_is_not_missed_when_it_is_kept_no_longer() -> None:
    budget = ReplayBudget()
    events = stream(budget)
    reader = reading(events)
    for number in range(2 * MAX_EVENTS):
        events.emit(b"%d" % number, droppable=True)
    assert len(data_of(reader)) == 2 * MAX_EVENTS
    assert budget.drops.counted == {"slow": 0, "away": 0}
    events.send_away()
    for number in range(MAX_EVENTS + 7):
        events.emit(b"%d" % number, droppable=True)
    assert budget.drops.counted == {"slow": 0, "away": 7}


def test_a_finished_stream_can_be_read_and_then_ends() -> None:
    events = stream()
    events.emit(b"answer", droppable=False)
    events.finish(1.0)
    events.emit(b"late", droppable=False)
    for _ in range(2):
        reader = reading(events, 0)
        assert data_of(reader) == [b"answer"]
        assert reader.has_ended


@requirement("exchange:sessions:bounded")
def test_what_is_kept_is_bounded_and_answers_outlive_notifications() -> None:
    budget = ReplayBudget()
    events = stream(budget)
    events.emit(b"answer", droppable=False)
    for number in range(2 * MAX_EVENTS):
        events.emit(b"%d" % number, droppable=True)
    kept = data_of(reading(events, 0))
    assert len(kept) == MAX_EVENTS
    assert kept[0] == b"answer"
    assert kept[-1] == b"%d" % (2 * MAX_EVENTS - 1)
    for _ in range(5):
        events.emit(b"x" * (MAX_BYTES // 2), droppable=True)
    assert budget.used <= MAX_BYTES
    events.emit(b"y" * 2 * MAX_BYTES, droppable=False)
    assert [len(data) for data in data_of(reading(events, 0))] == [6, 2 * MAX_BYTES]
    events.forget()
    assert budget.used == 0


@requirement("exchange:sessions:bounded")
def test_questions_of_long_ago_are_forgotten_too() -> None:
    budget = ReplayBudget()
    events = stream(budget, PUSH)
    for number in range(3 * MAX_EVENTS):
        events.emit(b"%04d" % number, droppable=False)
    assert budget.used == 4 * MAX_EVENTS
    assert events.dropped == 2 * MAX_EVENTS
    assert data_of(reading(events, 0))[-1] == b"%04d" % (3 * MAX_EVENTS - 1)


def test_every_answer_of_one_stream_is_kept_however_many() -> None:
    events = stream()
    for number in range(3 * MAX_EVENTS):
        events.emit(b"%04d" % number, droppable=False)
    assert len(data_of(reading(events, 0))) == 3 * MAX_EVENTS


def test_beyond_the_budget_of_the_process_nothing_is_kept_but_readers_still_read() -> None:
    budget = ReplayBudget(limit=20)
    events = stream(budget)
    reader = reading(events)
    events.emit(b"12345678", droppable=True)
    events.emit(b"12345678", droppable=True)
    assert len(data_of(reader)) == 2
    assert data_of(reading(events, 0)) == [b"12345678"]
    assert (budget.used, events.dropped) == (8, 0)


def answer(size: int, request_id: str = "7") -> bytes:
    head = b'{"jsonrpc":"2.0","id":%b,"result":{"text":"' % request_id.encode()
    return head + b"x" * (size - len(head) - 3) + b'"}}'


@requirement("exchange:sessions:bounded")
def test_what_may_be_dropped_takes_half_the_budget_at_most() -> None:
    budget = ReplayBudget(limit=10_000)
    events = stream(budget)
    for _ in range(100):
        events.emit(b"x" * 400, droppable=True)
    assert (budget.used, events.dropped) == (4800, 88)


@requirement("exchange:sessions:bounded")
def test_what_may_be_dropped_of_others_makes_room_for_an_answer() -> None:
    budget = ReplayBudget(limit=10_000)
    others = [stream(budget) for _ in range(3)]
    for other in others:
        other.emit(b'{"id":1,"method":"ask"}', droppable=False)
        for _ in range(3):
            other.emit(b"x" * 500, droppable=True)
    own = stream(budget)
    whole = answer(8500)
    own.emit(whole, droppable=False)
    own.finish(1.0)
    assert data_of(reading(own, 0)) == [whole]
    assert sum(other.dropped for other in others) > 0
    for other in others:
        assert data_of(reading(other, 0))[0] == b'{"id":1,"method":"ask"}'
        other.forget()
    own.forget()
    assert budget.used == 0


@requirement("exchange:sessions:bounded")
@pytest.mark.parametrize("request_id", ["7", '"7"', "7.0"])
def test_for_an_answer_that_cannot_be_kept_an_error_with_its_id_is_kept(request_id: str) -> None:
    budget = ReplayBudget(limit=20_000)
    events = stream(budget)
    reader = reading(events)
    whole = answer(20_000, request_id)
    events.emit(whole, droppable=False)
    assert data_of(reader) == [whole]
    (kept,) = data_of(reading(events, 0))
    assert kept.startswith(b'{"jsonrpc":"2.0","id":%b,' % request_id.encode())
    error = json.loads(kept)["error"]
    assert error["code"] == -31005
    assert error["data"]["holdfast"] == {"delivery": "delivered", "retryable": False, "upstream": "memory"}
    events.emit(b'{"jsonrpc":"2.0","id":8,"error":{"code":1,"message":"' + b"x" * 20_000 + b'"}}', droppable=False)
    refused = json.loads(data_of(reading(events, 0))[-1])
    assert (refused["id"], refused["error"]["data"]["holdfast"]["delivery"]) == (8, "unknown")
    events.emit(b'{"jsonrpc":"2.0","id":9,"method":"' + b"x" * 20_000 + b'"}', droppable=False)
    assert len(data_of(reading(events, 0))) == 2
    assert events.dropped == 0
    events.forget()
    assert budget.used == 0


@row(6)
@requirement("exchange:sessions:event-ids-are-proofs")
@given(st.text(max_size=60))
def test_texts_that_are_no_event_ids_are_told_from_those_that_are(text: str) -> None:
    assert read_event_id(SECRET, text) is None
    genuine = event_id(SECRET, 3, 7)
    assert read_event_id(SECRET, genuine) == (3, 7)
    assert read_event_id(b"t" * 32, genuine) is None
    assert read_event_id(SECRET, genuine.replace("3.7.", "3.8.")) is None


@row(6)
@requirement("exchange:sessions:event-ids-are-proofs")
def test_each_event_has_a_proof_of_its_own_that_serves_no_other() -> None:
    """The proofs of several events are made at once."""
    events = stream()
    reader = reading(events, primes=True)
    for number in range(1, 24):
        events.emit(b"%d" % number, droppable=True)
    ids = [event.id or "" for event in SseParser(10_000_000).feed(reader.body)]
    places = [(3, number) for number in range(24)]
    assert [read_event_id(SECRET, text) for text in ids] == places
    assert ids == [event_id(SECRET, *place) for place in places]
    proofs = [text.split(".")[2] for text in ids]
    assert len(set(proofs)) == 24
    for number in range(24):
        for proof in proofs[:number] + proofs[number + 1 :]:
            assert read_event_id(SECRET, f"3.{number}.{proof}") is None
        assert read_event_id(SECRET, f"4.{number}.{proofs[number]}") is None
