"""The form that the answer to a POST takes."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from msgspec import Raw

from holdfast.call import Outcome, Result
from holdfast.downstream.answer import KEEP_ALIVE, SILENCE, Answer, PlainStream
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.http import Headers
from holdfast.downstream.replay import Drops
from holdfast.testing.clock import ManualClock
from holdfast.wire.headers import BOTH, JSON_ONLY, Accepts
from holdfast.wire.sse import COMMENT, format_event
from requirements import requirement
from unit.recorded import RecordedResponder

STREAM_ONLY = Accepts(json=False, stream=True)
STREAM_FIRST = Accepts(json=True, stream=True, prefers_stream=True)


class Case:
    def __init__(
        self,
        accepts: Accepts = BOTH,
        expected: int = 1,
        *,
        is_array: bool = False,
        responder: RecordedResponder | None = None,
    ) -> None:
        self.responder = responder or RecordedResponder()
        self.clock = ManualClock()
        self.drops = Drops()
        self.ended = 0
        self.answer = Answer(
            self.responder,
            accepts,
            self.clock,
            lambda: PlainStream(self.responder, self.drops, ((b"x", b"y"),)),
            expected=expected,
            is_array=is_array,
            headers=((b"x", b"y"),),
            ended=self.end,
        )

    def end(self) -> None:
        self.ended += 1

    @property
    def kind(self) -> bytes | None:
        return self.responder.headers.get(b"content-type")

    def check_over(self) -> None:
        """It has ended once, and no timer is left."""
        assert self.responder.has_ended
        assert self.ended == 1
        assert self.clock.pending == 0


@requirement("exchange:answers:form")
def test_a_result_first_is_json() -> None:
    case = Case()
    assert case.responder.headers == {}
    case.answer.result(b"{}")
    assert (case.responder.status, case.kind, case.responder.body) == (200, b"application/json", b"{}")
    case.check_over()


@requirement("exchange:answers:form")
@pytest.mark.parametrize("accepts", [STREAM_ONLY, STREAM_FIRST])
def test_who_would_rather_have_a_stream_gets_one_at_once(accepts: Accepts) -> None:
    case = Case(accepts)
    assert case.kind == b"text/event-stream"
    case.answer.result(b"{}")
    assert case.responder.body == format_event(b"{}")
    case.check_over()


@requirement("exchange:answers:form")
def test_an_event_first_opens_a_stream_with_the_same_headers() -> None:
    case = Case()
    assert case.answer.event(b"1", droppable=True)
    assert case.responder.headers[b"x"] == b"y"
    case.answer.result(b"2")
    assert case.responder.body == format_event(b"1") + format_event(b"2")
    case.check_over()
    assert not case.answer.event(b"3", droppable=False)
    case.answer.result(b"4")
    assert case.ended == 1


@requirement("exchange:answers:form")
def test_who_takes_no_stream_gets_no_events() -> None:
    case = Case(JSON_ONLY)
    assert not case.answer.event(b"1", droppable=False)
    case.clock.advance(1000)
    assert case.responder.status is None
    case.answer.result(b"{}")
    assert case.responder.body == b"{}"
    case.check_over()


@requirement("exchange:answers:silence")
def test_silence_opens_a_stream_and_comments_keep_it() -> None:
    case = Case()
    case.clock.advance(SILENCE - 0.01)
    assert case.responder.status is None
    case.clock.advance(0.01)
    assert case.responder.status == 200
    case.clock.advance(2 * KEEP_ALIVE)
    assert case.responder.chunks == [COMMENT, COMMENT]
    case.answer.result(b"{}")
    case.check_over()


def test_a_stream_that_an_event_began_shows_that_it_lives_as_long_after_that_as_any() -> None:
    case = Case()
    case.clock.advance(2.0)
    case.answer.event(b"{}", droppable=True)
    case.clock.advance(KEEP_ALIVE - 0.01)
    assert case.responder.chunks == [format_event(b"{}")]
    case.clock.advance(0.01)
    assert case.responder.chunks == [format_event(b"{}"), COMMENT]
    case.clock.advance(KEEP_ALIVE)
    assert case.responder.chunks[2:] == [COMMENT]
    case.answer.result(b"{}")
    case.check_over()


def test_a_silence_that_somebody_else_measured_begins_the_stream_once() -> None:
    case = Case()
    case.clock.advance(2.0)
    case.answer.break_silence()
    assert case.responder.status == 200
    case.clock.advance(2 * KEEP_ALIVE)
    assert case.responder.chunks == [COMMENT, COMMENT]
    case.answer.result(b"{}")
    case.check_over()


@requirement("exchange:arrays:accepted")
def test_an_array_waits_for_all_its_results() -> None:
    case = Case(expected=3, is_array=True)
    case.answer.result(b"1")
    case.answer.result(None)
    assert case.responder.status is None
    case.answer.result(b"3")
    assert case.responder.body == b"[1,3]"
    case.check_over()


@requirement("exchange:arrays:accepted")
def test_results_that_came_before_the_stream_are_not_lost() -> None:
    case = Case(expected=2, is_array=True)
    case.answer.result(b"1")
    case.clock.advance(SILENCE)
    case.answer.result(b"2")
    assert case.responder.body == format_event(b"1") + format_event(b"2")
    case.check_over()


@requirement("exchange:relay:cancel")
@pytest.mark.parametrize(("accepts", "status"), [(BOTH, 202), (STREAM_ONLY, 200)])
def test_what_was_cancelled_is_answered_with_nothing(accepts: Accepts, status: int) -> None:
    case = Case(accepts)
    case.answer.result(None)
    assert (case.responder.status, case.responder.body) == (status, b"")
    case.check_over()


@requirement("http:direct:drops-are-counted")
def test_what_a_slow_reader_of_a_stream_misses_is_counted_and_its_result_is_not_missed() -> None:
    case = Case(STREAM_ONLY)
    case.responder.is_slow = True
    for _ in range(3):
        assert case.answer.event(b"progress", droppable=True)
    assert case.answer.event(b"question", droppable=False)
    case.answer.result(b"result")
    assert case.responder.body == format_event(b"question") + format_event(b"result")
    assert case.drops.counted == {"slow": 3, "away": 0}


class Broken(RecordedResponder):
    """Fails at whatever bears the result."""

    def answer(self, status: int, headers: Headers, parts: Iterable[bytes] = ()) -> None:
        pieces = list(parts)
        if b"result" in pieces:
            raise RuntimeError("broken")
        super().answer(status, headers, pieces)

    def write(self, chunk: bytes) -> None:
        if b"result" in chunk:
            raise RuntimeError("broken")
        super().write(chunk)


@requirement("pool:call:nobody-waits-for-an-answer-that-failed")
@pytest.mark.parametrize("accepts", [BOTH, STREAM_ONLY])
def test_an_answer_that_cannot_be_written_is_broken_off(accepts: Accepts) -> None:
    case = Case(accepts, responder=Broken())
    with pytest.raises(RuntimeError, match="broken"):
        case.answer.result(b"result")
    assert (case.responder.status, b"result" in case.responder.body) == (500 if accepts is BOTH else 200, False)
    case.check_over()


class Wordless(AnswerCaller[Answer]):
    """Finds no words for what servers say."""

    def worded(self, outcome: Outcome) -> bytes:
        raise RuntimeError("wordless")


@requirement("pool:call:nobody-waits-for-an-answer-that-failed")
def test_an_answer_for_which_there_are_no_words_is_an_error_under_its_id(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    Wordless(case.answer, b"7", None).answer(Result(Raw(b"{}")))
    told = json.loads(case.responder.body)
    assert (case.responder.status, told["id"], told["error"]["code"]) == (200, 7, -32603)
    assert [record.message for record in caplog.records] == ["an answer could not be put in words"]
    case.check_over()
