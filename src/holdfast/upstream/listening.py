"""What a session hears from a server of 2026-07-28 between its calls: one `subscriptions/listen` at a time.

A stream is never changed, only followed by another that asks for more or less: the old one ends
when the new one is acknowledged, so that nothing is missed between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from msgspec import Raw

from holdfast.call import Call, Fields, Result, RpcError
from holdfast.clock import Clock, Timer
from holdfast.upstream.modern_answer import LIST_KINDS
from holdfast.upstream.modern_call import Leg
from holdfast.upstream.transport import Fault, FaultKind, Listener, Sent
from holdfast.wire import jsonrpc

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"

ACK_TIMEOUT: Final = 5.0
"""How long the server may take to say what it will announce."""

STABLE_AFTER: Final = 30.0
"""A stream that lived shorter counts as a failure, however cleanly it ended."""

BACKOFF: Final = 1.0
BACKOFF_MAX: Final = 600.0
"""Doubling from the one to the other, each halved at most by jitter."""

UPDATED: Final = "notifications/resources/updated"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"

Settled = Callable[[RpcError | Fault | None], None]
"""Hears what became of a subscription; None where it stands."""


class Wire(Protocol):
    """What listening asks of its conversation."""

    clock: Clock

    def jitter(self) -> float:
        """0 to 1."""
        ...

    def ask(self, leg: Leg, call: Call) -> Sent:
        """Send a request of our own; the leg may be ended before this returns."""
        ...


class Listening:
    """The changes that one conversation wants to hear of, and the stream that they come on.

    `kinds` are the lists, by their names in the request. Reports to `listener`.
    """

    def __init__(self, wire: Wire, listener: Listener, kinds: Iterable[str]) -> None:
        self._wire = wire
        self._listener = listener
        self._kinds = frozenset(kinds)
        self._uris: dict[str, list[Settled]] = {}
        """What is subscribed to, and who waits to hear that it is."""
        self._current: _Stream | None = None
        self._next: _Stream | None = None
        """Sent and not acknowledged."""
        self._timer: Timer | None = None
        self._failures = 0
        self._has_gap = False
        self._is_up = False
        self._is_over = False
        self._when_known: Callable[[], None] | None = None

    @property
    def announced(self) -> frozenset[str]:
        """The kinds of lists whose changes the server has agreed to announce."""
        return frozenset[str]() if self._current is None else self._current.kinds

    def start(self, when_known: Callable[[], None]) -> None:
        """Begin; `when_known` is called once when the server has agreed, refused or failed."""
        self._when_known = when_known
        if self._kinds:
            self._renew()
        else:
            self._known()

    def promise(self, kinds: frozenset[str]) -> None:
        """Only these lists count from now on: the way for pushes is open while all of them are announced."""
        self._kinds = kinds
        self._tell()

    def subscribe(self, uri: str, settled: Settled) -> None:
        """Hear of changes of `uri` as well; `settled` may be called before this returns."""
        if self._current is not None and uri in self._current.uris:
            self._uris.setdefault(uri, [])
            settled(None)
            return
        self._uris.setdefault(uri, []).append(settled)
        self._renew()

    def unsubscribe(self, uri: str) -> None:
        """Hear of it no more."""
        if self._uris.pop(uri, None) is not None:
            self._renew()

    def stop(self) -> None:
        """End at once, without a word to the listener."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        for stream in (self._current, self._next):
            if stream is not None:
                stream.drop()
        self._current = self._next = None
        self._known()

    # What a stream reports.

    def acknowledged(self, stream: _Stream) -> None:
        """The server says what it will announce on `stream`."""
        old, self._current, self._next = self._current, stream, None
        if old is not None:
            old.drop()
        for uri in stream.wanted:
            waiting, settled = self._uris.get(uri), None
            if waiting is None:
                continue
            if uri not in stream.uris:
                settled = _refusal(uri)
                del self._uris[uri]
            else:
                self._uris[uri] = []
            for told in waiting:
                told(settled)
        self._known()
        self._tell()
        if self._has_gap:
            self._has_gap = False
            self._catch_up(stream)
        if self._wants_more(stream):
            self._renew()

    def pushed(self, stream: _Stream, method: str, params: Raw | None) -> None:
        """A change was announced."""
        if stream is self._current:
            self._listener.pushed(method, params)

    def ended(self, stream: _Stream, outcome: RpcError | Fault | None) -> None:
        """`stream` is over: refused, lost, or ended by the server (None)."""
        was_current = stream is self._current
        if was_current:
            self._current = None
            self._has_gap = True
            if self._wire.clock.now() - stream.opened_at >= STABLE_AFTER:
                self._failures = 0
        elif stream is self._next:
            self._next = None
            self._fail_new(stream, outcome or Fault(FaultKind.INVALID, "the server ended the subscription at once"))
        else:
            return
        self._known()
        self._tell()
        is_refused = isinstance(outcome, RpcError) or (
            isinstance(outcome, Fault) and outcome.kind is FaultKind.UNAUTHORIZED
        )
        if self._current is None and self._next is None and not is_refused and not self._is_over:
            self._retry()

    # Inside.

    def _renew(self) -> None:
        """Open the stream that is wanted now, unless one is being opened: it is looked at again then."""
        if self._next is not None or self._is_over:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._kinds or self._uris:
            self._next = _Stream(self, self._wire.clock, self._kinds, frozenset(self._uris))
            self._next.open(self._wire)
        elif self._current is not None:
            stream, self._current = self._current, None
            stream.drop()
            self._tell()

    def _retry(self) -> None:
        if not self._kinds and not self._uris:
            return
        delay = min(BACKOFF * 2**self._failures, BACKOFF_MAX) * (0.5 + 0.5 * self._wire.jitter())
        self._failures = min(self._failures + 1, 16)
        self._timer = self._wire.clock.call_later(delay, self._renew)

    def _wants_more(self, stream: _Stream) -> bool:
        return self._uris.keys() != (stream.wanted & self._uris.keys()) or bool(stream.uris - self._uris.keys())

    def _fail_new(self, stream: _Stream, outcome: RpcError | Fault) -> None:
        """Those who waited for `stream` will not hear of what they asked for."""
        for uri in stream.wanted:
            waiting = self._uris.get(uri)
            if waiting:
                del self._uris[uri]
                for told in waiting:
                    told(outcome)

    def _catch_up(self, stream: _Stream) -> None:
        """Nothing is sent again after a gap: whoever listens must look for himself."""
        for kind in sorted(stream.kinds):
            self._listener.pushed(f"notifications/{LIST_KINDS[kind]}/list_changed", None)
        for uri in sorted(stream.uris):
            self._listener.pushed(UPDATED, Raw(jsonrpc.encode({"uri": uri})))

    def _tell(self) -> None:
        is_up = self._current is not None and self._kinds <= self._current.kinds
        if is_up != self._is_up and not self._is_over:
            self._is_up = is_up
            self._listener.push_stream(is_up)

    def _known(self) -> None:
        known, self._when_known = self._when_known, None
        if known is not None:
            known()


class _Stream:
    """One `subscriptions/listen`: the `Leg` of its request."""

    def __init__(self, owner: Listening, clock: Clock, kinds: frozenset[str], uris: frozenset[str]) -> None:
        self.kinds = kinds
        """First what is asked for, then what the server agreed to."""
        self.wanted = uris
        self.uris = frozenset[str]()
        """Of those wanted, what the server agreed to."""
        self.opened_at = clock.now()
        self._owner = owner
        self._clock = clock
        self._sent: Sent | None = None
        self._timer: Timer | None = None
        self._is_over = False
        self._is_open = False

    def open(self, wire: Wire) -> None:
        """Send the request."""
        wanted: dict[str, Any] = dict.fromkeys(sorted(self.kinds), True)
        if self.wanted:
            wanted["resourceSubscriptions"] = sorted(self.wanted)
        self._timer = self._clock.call_later(ACK_TIMEOUT, self._gave_no_word)
        sent = wire.ask(self, Call("subscriptions/listen", {"notifications": wanted}))
        if not self._is_over:
            self._sent = sent

    def drop(self) -> None:
        """End it at the server, and say nothing of it."""
        sent = self._sent
        if not self._is_over:
            self._end()
            if sent is not None:
                sent.cancel("listening is over")

    def progress(self, update: Fields) -> None: ...

    def notify(self, method: str, params: Raw | None) -> None:
        if self._is_over:
            return
        fields = jsonrpc.decode_fields(params or b"{}")
        if method == ACKNOWLEDGED and not self._is_open:
            self._is_open = True
            self.opened_at = self._clock.now()
            self._stop_timer()
            honoured = jsonrpc.decode_fields(fields.get("notifications", b"{}"))
            self.kinds = frozenset(k for k in self.kinds if jsonrpc.decode_value(honoured.get(k, b"null")) is True)
            uris = jsonrpc.decode_value(honoured.get("resourceSubscriptions", b"[]"))
            self.uris = self.wanted & {uri for uri in (uris if isinstance(uris, list) else ()) if isinstance(uri, str)}
            self._owner.acknowledged(self)
        elif method == "notifications/cancelled":
            self._over(None)
        elif method == UPDATED or (self._is_open and method.endswith("/list_changed")):
            self._owner.pushed(self, method, _without_id(params, fields))

    def answered(self, outcome: Result | RpcError) -> None:
        self._over(outcome if isinstance(outcome, RpcError) else None)

    def failed(self, fault: Fault) -> None:
        self._over(fault)

    def _gave_no_word(self) -> None:
        self._timer = None
        sent = self._sent
        if sent is not None:
            sent.cancel("no acknowledgement")
        self._over(
            Fault(FaultKind.TIMEOUT, f"the server did not acknowledge the subscription within {ACK_TIMEOUT:g} s")
        )

    def _over(self, outcome: RpcError | Fault | None) -> None:
        if not self._is_over:
            self._end()
            self._owner.ended(self, outcome)

    def _end(self) -> None:
        self._is_over = True
        self._sent = None
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _refusal(uri: str) -> RpcError:
    message = f"The server does not announce changes of {uri}."
    return RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, message, {"uri": uri})))


def _without_id(params: Raw | None, fields: Fields) -> Raw | None:
    """The params of a change without the name of our subscription, which is nobody else's concern."""
    if params is None or "_meta" not in fields:
        return params
    meta = {name: value for name, value in jsonrpc.decode_fields(fields["_meta"]).items() if name != SUBSCRIPTION_ID}
    rest: dict[str, Raw] = {name: value for name, value in fields.items() if name != "_meta"}
    if meta:
        rest["_meta"] = Raw(jsonrpc.encode(meta))
    return Raw(jsonrpc.encode(rest)) if rest else None
