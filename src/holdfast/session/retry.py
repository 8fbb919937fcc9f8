"""Whether a call that got no answer is sent again: at most once is executed, by default.

The table is section "When a call is repeated" of docs/sessions.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from holdfast.call import Call, Outcome, RpcError
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.upstream.transport import Fault, FaultKind
from holdfast.wire import jsonrpc

_READS: Final = frozenset(
    {
        "ping",
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "logging/setLevel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
    }
)
"""Requests that change nothing, or come to the same when repeated."""

_REFUSALS: Final = frozenset(
    {jsonrpc.PARSE_ERROR, jsonrpc.INVALID_REQUEST, jsonrpc.METHOD_NOT_FOUND, jsonrpc.INVALID_PARAMS}
)
"""A server that answers a tool call with one of these did not run the tool."""


class Safety(Enum):
    """What repeating a call could do."""

    READ = auto()
    """The method itself changes nothing, or comes to the same when repeated."""
    READ_ONLY_TOOL = auto()
    """A tool that a trusted server marks with `readOnlyHint`."""
    IDEMPOTENT_TOOL = auto()
    """A tool that a trusted server marks with `idempotentHint`."""
    UNSAFE = auto()


def is_read(method: str) -> bool:
    """Whether repeating a request of this method comes to the same."""
    return method in _READS


def leaves_traces(call: Call, safety: Safety) -> bool:
    """Whether the session, once it ran `call`, remembers something that a person would miss."""
    return call.method == "tools/call" and safety is not Safety.READ_ONLY_TOOL


def is_refusal(outcome: Outcome) -> bool:
    """Whether the server says that it did not run the tool."""
    if not isinstance(outcome, RpcError):
        return False
    return jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("code", b"null")) in _REFUSALS


def has_left_traces(call: Call, safety: Safety, outcome: Outcome) -> bool:
    """Whether the session remembers something now that a person would miss."""
    return leaves_traces(call, safety) and not is_refusal(outcome)


class Verdict(Enum):
    """What to do with a call that got no answer."""

    RESEND = auto()
    SUSPECT = auto()
    """Ask the server whether the session lives; decide then."""
    RESTART = auto()
    """Send it in the session that follows the lost one."""
    TELL_LOST = auto()
    """Refused unexecuted, but what the session remembered is gone: say so, once."""
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of the call when it failed."""

    safety: Safety
    was_sent_before: bool
    """It was already sent again once."""
    has_relayed: bool
    """Some of its progress, logs or asks reached the caller."""
    is_dirty: bool
    """The session remembered something."""
    resumes: bool = False
    """`on_loss: resume`."""
    has_budget: bool = True


def judge(fault: Fault, attempt: Attempt) -> Verdict:
    """Decide by the evidence of delivery."""
    if fault.kind is FaultKind.REFUSED:
        return Verdict.SUSPECT
    if fault.kind is FaultKind.NOT_SENT:
        may = not attempt.was_sent_before and attempt.has_budget
        return Verdict.RESEND if may else Verdict.FAIL
    if attempt.was_sent_before or attempt.has_relayed or not attempt.has_budget:
        return Verdict.FAIL
    if attempt.safety is Safety.UNSAFE:
        return Verdict.FAIL
    match fault.kind:
        case FaultKind.GONE:
            return judge_lost(attempt)
        case FaultKind.CUT | FaultKind.UNAVAILABLE:
            return Verdict.RESEND
        case FaultKind.FAILED | FaultKind.INVALID if attempt.safety is not Safety.READ:
            return Verdict.RESEND
        case _:
            return Verdict.FAIL


def judge_lost(attempt: Attempt) -> Verdict:
    """Decide for a call that the server refused unexecuted, or that is safe, once its session is known lost."""
    if attempt.has_relayed:
        return Verdict.FAIL
    if attempt.is_dirty and not attempt.resumes:
        return Verdict.TELL_LOST
    return Verdict.FAIL if attempt.was_sent_before else Verdict.RESTART


def failure(fault: Fault, call: Call, server: str, *, is_missed: bool = False) -> CallFailed:
    """What the caller is told of `fault` when the call is not sent again.

    `is_missed`: its session is gone with it, and remembered something; nobody will be told of that once more.
    """
    what = call.method if call.target is None else f"{call.method} {call.target}"
    match fault.kind:
        case FaultKind.NOT_SENT:
            code, delivery, retryable = Code.UPSTREAM_UNAVAILABLE, Delivery.NOT_SENT, True
            text = f"{server} could not be reached: {fault.detail}. Nothing was executed; try again."
        case FaultKind.UNAUTHORIZED:
            code, delivery, retryable = Code.UPSTREAM_UNAUTHORIZED, Delivery.REFUSED, False
            text = f"{server} refused the gateway's credential: {fault.detail}. The operator must set its headers."
        case FaultKind.TIMEOUT:
            code, delivery, retryable = Code.TIMEOUT, Delivery.UNKNOWN, False
            text = f"{what} on {server} timed out: {fault.detail}. It was cancelled, and may have been executed."
        case FaultKind.INVALID:
            code, delivery, retryable = Code.UPSTREAM_INVALID, Delivery.UNKNOWN, False
            text = f"{server} did not answer {what} with MCP: {fault.detail}."
        case FaultKind.REFUSED:
            code, delivery, retryable = Code.UPSTREAM_INVALID, Delivery.REFUSED, False
            text = f"{server} refused {what}: {fault.detail}."
        case FaultKind.CUT | FaultKind.GONE | FaultKind.UNAVAILABLE | FaultKind.FAILED:
            code, delivery, retryable = Code.OUTCOME_UNKNOWN, Delivery.UNKNOWN, False
            text = f"{what} was sent to {server} and its outcome is unknown: {fault.detail}. Check before repeating it."
    if is_missed:
        text += " The session is gone, and what it remembered with it; the next call runs in a new one."
    return CallFailed(code, text, server=server, delivery=delivery, retryable=retryable)


def in_doubt(outcome: Outcome, call: Call) -> Outcome:
    """What a call is told of which an attempt before the last may have been executed, even if the last was not."""
    if not isinstance(outcome, CallFailed) or outcome.delivery not in {Delivery.NOT_SENT, Delivery.REFUSED}:
        return outcome
    doubt = Fault(FaultKind.CUT, "an answer was cut off, and the second attempt was not executed")
    return failure(doubt, call, outcome.server)


def unavailable(server: str, reason: str, *, is_unauthorized: bool = False) -> CallFailed:
    """No session could be had."""
    return CallFailed(
        Code.UPSTREAM_UNAUTHORIZED if is_unauthorized else Code.UPSTREAM_UNAVAILABLE,
        f"{server} is not available: {reason}. Nothing was executed.",
        server=server,
        delivery=Delivery.REFUSED if is_unauthorized else Delivery.NOT_SENT,
        retryable=not is_unauthorized,
    )


def parted(server: str, sentence: str) -> CallFailed:
    """The server is not served any more."""
    return CallFailed(
        Code.UPSTREAM_UNAVAILABLE,
        f"{sentence}. Nothing was executed.",
        server=server,
        delivery=Delivery.NOT_SENT,
        retryable=True,
    )


def refused_again(server: str, fault: Fault) -> CallFailed:
    """Two sessions in a row were lost before they ran the call."""
    return CallFailed(
        Code.UPSTREAM_UNAVAILABLE,
        f"{server} lost two sessions in a row: {fault.detail}. Nothing was executed; try again.",
        server=server,
        delivery=Delivery.REFUSED,
        retryable=True,
    )


def session_lost(server: str) -> CallFailed:
    """Told once to the next call of a session whose memory is gone."""
    return CallFailed(
        Code.SESSION_LOST,
        f"The session with {server} has ended, and what it remembered is gone: the server lost it, or it was closed"
        " after long idleness, to make room, or by the operator. This call was not executed; the next one runs in a"
        " new session.",
        server=server,
        delivery=Delivery.REFUSED,
        retryable=True,
    )


def overloaded(server: str, detail: str) -> CallFailed:
    """No room within the time that a call may wait."""
    return CallFailed(
        Code.OVERLOADED,
        f"{server} is at its limit: {detail}. Nothing was executed; try again later.",
        server=server,
        delivery=Delivery.NOT_SENT,
        retryable=True,
    )
