"""Section F of threats-and-faults as a table: evidence of delivery by what the call could do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.call import Call, InputRequired, Result, RpcError
from holdfast.errors import Code, Delivery
from holdfast.session.retry import (
    Attempt,
    Safety,
    Verdict,
    failure,
    in_doubt,
    is_read,
    is_refusal,
    judge,
    judge_lost,
    leaves_traces,
    overloaded,
    session_lost,
    unavailable,
)
from holdfast.upstream.transport import Fault, FaultKind
from requirements import requirement

READ, LOOK, PUT, UNSAFE = Safety.READ, Safety.READ_ONLY_TOOL, Safety.IDEMPOTENT_TOOL, Safety.UNSAFE
R, S, N, F = Verdict.RESEND, Verdict.SUSPECT, Verdict.RESTART, Verdict.FAIL

# evidence                 read  look  put  unsafe
TABLE = {
    FaultKind.NOT_SENT: (R, R, R, R),
    FaultKind.REFUSED: (S, S, S, S),
    FaultKind.CUT: (R, R, R, F),
    FaultKind.GONE: (N, N, N, F),
    FaultKind.UNAVAILABLE: (R, R, R, F),
    FaultKind.FAILED: (F, R, R, F),
    FaultKind.INVALID: (F, R, R, F),
    FaultKind.TIMEOUT: (F, F, F, F),
    FaultKind.UNAUTHORIZED: (F, F, F, F),
}
CELLS = [
    pytest.param(kind, safety, verdict, id=f"{kind.name}-{safety.name}".lower())
    for kind, row in TABLE.items()
    for safety, verdict in zip((READ, LOOK, PUT, UNSAFE), row, strict=True)
]


def attempt(safety: Safety = UNSAFE) -> Attempt:
    return Attempt(safety=safety, was_sent_before=False, has_relayed=False, is_dirty=False)


def fault(kind: FaultKind) -> Fault:
    return Fault(kind, "it happened")


attempts = st.builds(
    Attempt,
    safety=st.sampled_from(list(Safety)),
    was_sent_before=st.booleans(),
    has_relayed=st.booleans(),
    is_dirty=st.booleans(),
    resumes=st.booleans(),
    has_budget=st.booleans(),
)


def test_the_table_has_a_row_for_every_evidence() -> None:
    assert set(TABLE) == set(FaultKind)


@requirement("retry:the-table")
@pytest.mark.parametrize(("kind", "safety", "verdict"), CELLS)
def test_a_first_failure_is_judged_by_the_table(kind: FaultKind, safety: Safety, verdict: Verdict) -> None:
    assert judge(fault(kind), attempt(safety)) is verdict


@pytest.mark.parametrize(("kind", "safety", "verdict"), CELLS)
def test_what_was_sent_again_already_is_not_sent_a_third_time(
    kind: FaultKind, safety: Safety, verdict: Verdict
) -> None:
    second = judge(fault(kind), replace(attempt(safety), was_sent_before=True))
    assert second is (S if kind is FaultKind.REFUSED else F)


@pytest.mark.parametrize(("kind", "safety", "verdict"), CELLS)
def test_without_budget_nothing_is_sent_again(kind: FaultKind, safety: Safety, verdict: Verdict) -> None:
    assert judge(fault(kind), replace(attempt(safety), has_budget=False)) is (S if kind is FaultKind.REFUSED else F)


@requirement("retry:nothing-after-relaying")
@given(st.sampled_from(sorted(set(FaultKind) - {FaultKind.NOT_SENT, FaultKind.REFUSED}, key=str)), attempts)
def test_nothing_of_which_something_was_relayed_is_sent_again(kind: FaultKind, made: Attempt) -> None:
    assert judge(fault(kind), replace(made, has_relayed=True)) is F
    assert judge_lost(replace(made, has_relayed=True)) is F


@requirement("retry:unsafe-at-most-once")
@given(st.sampled_from(sorted(FaultKind, key=str)), attempts)
def test_what_is_not_safe_is_sent_again_only_where_it_was_not_executed(kind: FaultKind, made: Attempt) -> None:
    verdict = judge(fault(kind), replace(made, safety=UNSAFE))
    if verdict in {R, N}:
        assert kind is FaultKind.NOT_SENT
    assert (verdict is S) == (kind is FaultKind.REFUSED)


@pytest.mark.parametrize(("is_dirty", "resumes", "was_sent_before"), list(itertools.product([False, True], repeat=3)))
def test_what_a_lost_session_refused_is_sent_again_if_nothing_is_missed(
    is_dirty: bool, resumes: bool, was_sent_before: bool
) -> None:
    made = replace(attempt(), is_dirty=is_dirty, resumes=resumes, was_sent_before=was_sent_before)
    resent = F if was_sent_before else N
    assert judge_lost(made) is (Verdict.TELL_LOST if is_dirty and not resumes else resent)


def test_a_safe_call_cut_off_in_a_dirty_session_is_told_of_the_loss() -> None:
    assert judge(fault(FaultKind.GONE), replace(attempt(READ), is_dirty=True)) is Verdict.TELL_LOST


@pytest.mark.parametrize(
    ("kind", "code", "delivery", "retryable"),
    [
        (FaultKind.NOT_SENT, Code.UPSTREAM_UNAVAILABLE, Delivery.NOT_SENT, True),
        (FaultKind.CUT, Code.OUTCOME_UNKNOWN, Delivery.UNKNOWN, False),
        (FaultKind.GONE, Code.OUTCOME_UNKNOWN, Delivery.UNKNOWN, False),
        (FaultKind.REFUSED, Code.UPSTREAM_INVALID, Delivery.REFUSED, False),
        (FaultKind.UNAUTHORIZED, Code.UPSTREAM_UNAUTHORIZED, Delivery.REFUSED, False),
        (FaultKind.UNAVAILABLE, Code.OUTCOME_UNKNOWN, Delivery.UNKNOWN, False),
        (FaultKind.FAILED, Code.OUTCOME_UNKNOWN, Delivery.UNKNOWN, False),
        (FaultKind.INVALID, Code.UPSTREAM_INVALID, Delivery.UNKNOWN, False),
        (FaultKind.TIMEOUT, Code.TIMEOUT, Delivery.UNKNOWN, False),
    ],
)
def test_every_fault_has_its_code_and_says_what_is_known(
    kind: FaultKind, code: Code, delivery: Delivery, retryable: bool
) -> None:
    told = failure(fault(kind), Call("tools/call", {"name": "navigate"}), "browser")
    assert (told.code, told.delivery, told.retryable, told.server) == (code, delivery, retryable, "browser")
    assert "browser" in told.message
    assert "it happened" in told.message


def test_our_own_refusals_say_that_nothing_was_executed() -> None:
    for told in (session_lost("s"), overloaded("s", "full"), unavailable("s", "down")):
        assert told.retryable
        assert told.delivery in {Delivery.NOT_SENT, Delivery.REFUSED}
    assert unavailable("s", "401", is_unauthorized=True).code is Code.UPSTREAM_UNAUTHORIZED


@pytest.mark.parametrize("method", ["ping", "tools/list", "resources/read", "prompts/get", "completion/complete"])
def test_reads_are_reads_and_leave_no_traces(method: str) -> None:
    assert is_read(method)
    assert not leaves_traces(Call(method), READ)


@pytest.mark.parametrize(("safety", "expected"), [(LOOK, False), (PUT, True), (UNSAFE, True)])
def test_a_tool_leaves_traces_unless_it_only_reads(safety: Safety, expected: bool) -> None:
    assert not is_read("tools/call")
    assert leaves_traces(Call("tools/call"), safety) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [(b'{"code":-32602,"message":"x"}', True), (b'{"code":-32000}', False), (b"{}", False), (b"[]", False)],
)
def test_only_an_error_that_says_so_means_that_a_tool_did_not_run(error: bytes, expected: bool) -> None:
    assert is_refusal(RpcError(Raw(error))) is expected
    assert not is_refusal(Result(Raw(error)))


def test_a_call_that_ends_with_a_question_has_ended_well() -> None:
    asked = InputRequired(Raw(b'{"code":-32602,"requestState":"s"}'))
    assert not is_refusal(asked), "it has run, as far as it could"
    assert in_doubt(asked, Call("tools/call")) is asked
