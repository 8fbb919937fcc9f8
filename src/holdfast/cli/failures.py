"""How a failed request is told to a person: one line on stderr, and an exit status."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import Final

from holdfast.call import RpcError
from holdfast.errors import Code, Delivery, OpenFailed
from holdfast.observe.log import advised, one_line
from holdfast.upstream.transport import Fault, FaultKind
from holdfast.wire import jsonrpc

FAILED: Final = 1
MISUSED: Final = 2
UNREACHABLE: Final = 3

_DELIVERIES: Final = {
    Delivery.NOT_SENT: "not sent",
    Delivery.REFUSED: "not executed",
    Delivery.UNKNOWN: "it may have been executed",
    Delivery.DELIVERED: "it was executed",
}
_NOT_EXECUTED: Final = frozenset({FaultKind.NOT_SENT, FaultKind.REFUSED, FaultKind.UNAUTHORIZED})
_NAMES: Final = 10
"""Tools that are named to whom asked for one that there is not; a gateway may have hundreds."""
_CREDENTIAL_HINT: Final = "give a credential with --key or --header"


def fail(sentence: str, status: int = FAILED) -> int:
    """Print why it failed; returns `status`."""
    print(f"holdfast: {one_line(sentence)}", file=sys.stderr)
    return status


def not_opened(name: str, error: OpenFailed) -> int:
    """Tell that there is no session with the server; returns the status."""
    sentence = _named(name, str(error))
    if error.is_unauthorized:
        return fail(_hinted(sentence), UNREACHABLE)
    return fail(advised(sentence, error.advice), UNREACHABLE)


def unanswered(name: str, problem: RpcError | Fault) -> int:
    """Tell why a request has no result; returns the status."""
    if isinstance(problem, RpcError):
        return fail(refusal(problem))
    sentence = _named(name, problem.detail)
    if problem.kind in {FaultKind.NOT_SENT, FaultKind.UNAVAILABLE}:
        return fail(sentence, UNREACHABLE)
    if problem.kind is FaultKind.UNAUTHORIZED:
        return fail(_hinted(sentence), UNREACHABLE)
    known = "" if problem.kind in _NOT_EXECUTED else f"; {_DELIVERIES[Delivery.UNKNOWN]}"
    return fail(f"{sentence}{known}")


def is_of_gateway(error: RpcError) -> bool:
    """Whether a gateway of ours says what became of a call, and not its server."""
    return jsonrpc.decode_value(jsonrpc.decode_fields(error.raw).get("code", b"null")) in set(Code)


def _hinted(sentence: str) -> str:
    return f"{sentence.removesuffix('.')}; {_CREDENTIAL_HINT}"


def _named(name: str, detail: str) -> str:
    return detail if name in detail else f"{name}: {detail}"


def refusal(error: RpcError) -> str:
    """What an error says, for a person; of a gateway's own, also what is known of the call."""
    fields = jsonrpc.decode_fields(error.raw)
    code = jsonrpc.decode_value(fields.get("code", b"null"))
    message = jsonrpc.decode_value(fields.get("message", b"null"))
    sentence = message if isinstance(message, str) and message else "the server answered with an error"
    data = jsonrpc.decode_value(jsonrpc.decode_fields(fields.get("data", b"{}")).get("holdfast", b"null"))
    words = [str(code)] if isinstance(code, int) else []
    if isinstance(data, dict) and code in set(Code):
        delivery = data.get("delivery")
        words += [_DELIVERIES[Delivery(delivery)]] if delivery in set(Delivery) else []
        words.append(
            "the same call may be sent again" if data.get("retryable") is True else "find out before repeating"
        )
    return f"{sentence} ({'; '.join(words)})" if words else sentence


def unknown_tool(tool: str, server: str, known: Iterable[str]) -> str:
    """What to say of a tool that a server does not have."""

    def distance(name: str) -> float:
        return -difflib.SequenceMatcher(None, tool.lower(), name.lower()).ratio()

    names = sorted(known, key=distance)
    shown, more = names[:_NAMES], len(names) - _NAMES
    rest = f" and {more} more, which holdfast tools lists" if more > 0 else ""
    return f"{one_line(server)} has no tool {tool!r}; it has {', '.join(shown)}{rest}"
