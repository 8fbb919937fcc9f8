"""What the answer to `server/discover` says of a server: that it is modern, or not, or cannot be used."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from holdfast.call import Result, RpcError
from holdfast.errors import OpenFailed
from holdfast.upstream.handshake import ADVICE
from holdfast.upstream.modern_answer import versions_of
from holdfast.upstream.modern_call import HEADER_MISMATCH
from holdfast.upstream.transport import Fault, FaultKind
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import HANDSHAKE_REVISIONS, MODERN

_MISSING_CAPABILITY: Final = -32021
_UNSUPPORTED_VERSION: Final = -32022


class NotModern(OpenFailed):
    """The server does not speak 2026-07-28, or not to us: it may speak an older revision."""


class AskAgain(NotModern):
    """The server refused 2026-07-28 and named it among what it speaks: asked again, it may not."""


def read_discovery(outcome: Result | RpcError | Fault) -> Raw:
    """The answer to `server/discover`. Raises `NotModern`, and `OpenFailed` where no other revision would help."""
    if isinstance(outcome, Fault):
        kind = OpenFailed if outcome.kind in {FaultKind.NOT_SENT, FaultKind.UNAUTHORIZED} else NotModern
        raise kind(
            outcome.detail,
            is_unauthorized=outcome.kind is FaultKind.UNAUTHORIZED,
            is_unsent=outcome.kind is FaultKind.NOT_SENT,
            advice=ADVICE.get(outcome.kind, ""),
        )
    if isinstance(outcome, RpcError):
        raise _refusal(outcome)
    versions = versions_of(outcome.raw)
    if versions is None:
        raise NotModern("the server answered server/discover with something else")
    if MODERN not in versions:
        raise _unsupported(versions)
    return outcome.raw.copy()


def _refusal(outcome: RpcError) -> OpenFailed:
    """What the refusal of a discovery says of the server."""
    fields = jsonrpc.decode_fields(outcome.raw)
    code = jsonrpc.decode_value(fields.get("code", b"null"))
    message = f"the server refused to be discovered: {jsonrpc.error_message(outcome.raw)}"
    if code == _UNSUPPORTED_VERSION:
        about = jsonrpc.decode_value(fields.get("data", b"null"))
        supported = about.get("supported") if isinstance(about, dict) else None
        return _unsupported([str(version) for version in supported] if isinstance(supported, list) else [])
    if code in {HEADER_MISMATCH, _MISSING_CAPABILITY}:
        return OpenFailed(message)
    return NotModern(message)


def _unsupported(versions: list[str]) -> OpenFailed:
    if MODERN in versions:
        return AskAgain(f"the server refuses {MODERN} and says that it speaks it")
    named = ", ".join(version[:20] for version in versions[:5]) or "none that it names"
    kind = NotModern if any(version in HANDSHAKE_REVISIONS for version in versions) else OpenFailed
    return kind(f"the server speaks protocol versions that are not supported: {named}")
