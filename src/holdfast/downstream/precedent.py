"""Requests of 2026-07-28 that say of themselves what the one before them said.

Such a request has no session: its envelope says again who asks, for which chat, and what can be asked meanwhile.
Read and checked anew each time, that costs more than the call. Mostly it is the same, byte for byte, behind a head
that is the same.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from msgspec import Raw, Struct

from holdfast.call import Call, Declared, Json
from holdfast.downstream.envelope import ASKING, NOT_ASKED_FOR, TASKS, Envelope
from holdfast.downstream.parked import Binding
from holdfast.downstream.post import Terms
from holdfast.identity.asker import Asker, next_nonce
from holdfast.servers.service import Conversation, Service
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ClientRequest

MAX_BYTES: Final = 4096
"""Of an envelope that is remembered: a connection holds one for as long as it lives."""
_PROGRESS: Final = "progressToken"
_TOKEN_TYPES: Final = frozenset({str, int, float})
_NO_ARGUMENTS: Final[dict[str, Json]] = {}


class Precedent(Struct, frozen=True):
    """What was found out of a request by its head and its `_meta`, of which all but the progress token is compared."""

    method: str
    named_by: str
    """The parameter that the head mirrors as well; empty where there is none."""
    name: str
    """What it said."""
    said: bytes
    """The `_meta`, encoded anew."""
    rest: dict[str, Json]
    """What of it goes on."""
    envelope: Envelope
    declared: Declared
    service: Service
    footing: Hashable | None
    """That of the service."""
    asker: Asker
    conversation: Conversation | None
    """None where the request had one of its own."""

    def call(self, request: ClientRequest, request_id: str) -> tuple[Call, Raw | None] | None:
        """As `read_call`, what `request` asks for, and the client's progress token.

        None, with nothing done, where anything of it needs a closer look. Else its `_meta` is what goes on.
        """
        params = request.params
        said = params.get("_meta")
        meta = said if isinstance(said, dict) else {}
        if (
            not meta
            or request.method != self.method
            or (self.named_by and params.get(self.named_by) != self.name)
            or not NOT_ASKED_FOR.isdisjoint(params)
            or type(params.get("arguments", _NO_ARGUMENTS)) is not dict
            or type(params.get("cursor", "")) is not str
            or self.service.footing != self.footing
        ):
            return None
        token = meta.pop(_PROGRESS) if type(meta.get(_PROGRESS)) in _TOKEN_TYPES else None
        if jsonrpc.encode(meta) != self.said:
            if token is not None:
                meta[_PROGRESS] = token
            return None
        if token is not None:
            params["_meta"] = {**self.rest, _PROGRESS: token}
        elif self.rest:
            params["_meta"] = self.rest
        else:
            del params["_meta"]
        call = Call(self.method, params, token is not None, request_id, self.declared, self.envelope.level)
        return call, None if token is None else Raw(jsonrpc.encode(token))

    def another(self) -> Asker:
        """Who asks in a request with a conversation of its own."""
        asker = self.asker
        named, path, passed = asker.named, asker.path, asker.passed
        return Asker(asker.identity, next_nonce(), named, path, None, passed, asker.declares, is_modern=True)


def remember(terms: Terms, binding: Binding, call: Call, envelope: Envelope, conversation: Conversation) -> None:
    """Let the request of `binding`, which is about to run as `call`, be the precedent of the next with its head."""
    target, asker, request = binding.target, binding.asker, binding.request
    method, params, declared = request.method, request.params, call.declared
    said, rest = params.get("_meta"), call.params.get("_meta")
    meta = said if isinstance(said, dict) else {}
    kept: dict[str, Json] = rest if isinstance(rest, dict) else {}
    if not terms.lessons or method in TASKS or not NOT_ASKED_FOR.isdisjoint(params):
        return
    if declared is None:
        return
    terms.lessons -= 1
    envelope_bytes = jsonrpc.encode(_without_progress(meta))
    if len(envelope_bytes) > MAX_BYTES:
        return
    named_by = ASKING.get(method, "")
    footing = target.service.footing
    # Unnamed users count as different people wherever they share a session: so each has a conversation of its own.
    has_own = footing is None or conversation.is_private or asker.identity.lacks_user
    terms.precedent = Precedent(
        method,
        named_by,
        str(params.get(named_by)),
        envelope_bytes,
        _without_progress(kept),
        envelope,
        declared,
        target.service,
        footing,
        asker,
        None if has_own else conversation,
    )


def _without_progress(meta: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in meta.items() if name != _PROGRESS}
