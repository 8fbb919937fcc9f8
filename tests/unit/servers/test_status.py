"""Status lines as progress: whatever the server says before and after, progress only grows."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.call import NOBODY, Abilities, Ask, AskId, Result, Status, StatusWord
from holdfast.downstream.answer import REMARK_AFTER, Answer, PlainStream
from holdfast.downstream.callers import AnswerCaller, beyond
from holdfast.downstream.replay import Drops
from holdfast.testing.clock import ManualClock
from holdfast.wire.headers import BOTH, JSON_ONLY, Accepts
from requirements import requirement
from unit.recorded import RecordedResponder

STATUS = Status(StatusWord.CONNECTING, "Connecting.")
READY = Status(StatusWord.READY, "Ready.")
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1e-5),
)


class Told(AnswerCaller[Answer]):
    @property
    def abilities(self) -> Abilities:
        return NOBODY

    def ask(self, ask: Ask) -> None: ...

    def withdraw(self, ask_id: AskId) -> None: ...

    def suspend(self) -> None: ...


class Case:
    def __init__(self, accepts: Accepts = BOTH, expected: int = 1) -> None:
        self.responder, self.clock = RecordedResponder(), ManualClock()
        self.answer = Answer(
            self.responder,
            accepts,
            self.clock,
            lambda: PlainStream(self.responder, Drops()),
            expected=expected,
            is_array=expected > 1,
        )
        self.caller = Told(self.answer, b"1", Raw(b'"t"'))

    @property
    def progress(self) -> list[float]:
        lines = b"".join(self.responder.chunks).decode().splitlines()
        messages = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        return [m["params"]["progress"] for m in messages if m.get("method") == "notifications/progress"]


@requirement("exchange:status:when-it-lasts")
@given(st.lists(st.one_of(st.just(None), VALUES), max_size=30))
def test_progress_grows_strictly_wherever_our_lines_stand_between_the_servers(steps: list[float | None]) -> None:
    """None is a line of ours; the server's own values grow, as they must."""
    case = Case()
    case.caller.status(STATUS)
    case.clock.advance(REMARK_AFTER)
    highest: float | None = None
    sent = 1
    for step in steps:
        if step is None:
            case.caller.status(STATUS)
        elif highest is None or step > highest:
            highest = step
            case.caller.progress({"progress": Raw(json.dumps(step).encode())})
            sent += 1
    seen = case.progress
    assert all(before < after for before, after in pairwise(seen)), seen
    assert len(seen) >= sent or (highest is not None and abs(highest) > 2**52)


@requirement("exchange:status:when-it-lasts")
def test_what_the_server_says_is_not_touched_where_nothing_of_ours_came_before() -> None:
    case = Case()
    for value in (b"0", b"1.50", b"1e3"):
        case.caller.progress({"progress": Raw(value)})
    assert b'"progress":1.50' in b"".join(case.responder.chunks)
    assert case.progress == [0, 1.5, 1000]


def test_beyond_the_largest_number_there_is_nothing() -> None:
    assert beyond(2**63 - 1) is None
    assert beyond(1.7e308) is None
    assert beyond(2**60) == 2**60 + 1
    assert beyond(0.0) == 1e-6


@requirement("exchange:status:when-it-lasts")
def test_a_wait_that_is_over_in_a_moment_is_not_told_of() -> None:
    case = Case()
    case.caller.status(STATUS)
    case.clock.advance(REMARK_AFTER / 2)
    case.caller.status(READY)
    case.clock.advance(REMARK_AFTER)
    case.caller.answer(Result(Raw(b"{}")))
    assert case.responder.headers[b"content-type"] == b"application/json"
    assert case.clock.pending == 0


@requirement("exchange:status:when-it-lasts")
def test_who_takes_json_only_gets_plain_json_however_long_it_takes() -> None:
    case = Case(JSON_ONLY)
    case.caller.status(STATUS)
    case.clock.advance(60)
    case.caller.status(READY)
    case.caller.answer(Result(Raw(b"{}")))
    assert case.responder.headers[b"content-type"] == b"application/json"
    assert json.loads(case.responder.body) == {"jsonrpc": "2.0", "id": 1, "result": {}}


@requirement("exchange:status:when-it-lasts")
def test_of_a_request_of_an_array_that_is_answered_nothing_more_is_told() -> None:
    case = Case(expected=2)
    case.caller.status(STATUS)
    case.caller.answer(Result(Raw(b"{}")))
    case.clock.advance(REMARK_AFTER)
    assert case.responder.chunks == []
