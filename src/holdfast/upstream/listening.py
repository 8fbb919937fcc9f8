"""What a session hears from a server of 2026-07-28 between its calls: one `subscriptions/listen` at a time.

A stream is never changed, only followed by another that asks for more or less: the old one ends
when the new one is acknowledged, so that nothing is missed between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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

_NOTHING: Final = (frozenset[str](), frozenset[str]())

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


@dataclass(slots=True)
class _Wish:
    """A resource that somebody wants to hear of."""

    waiting: list[Settled] = field(default_factory=list[Settled])
    """Who waits to hear that it is subscribed to."""
    stands: bool = False
    """The server agreed to it once, so somebody relies on it."""


class Listening:
    """The changes that one conversation wants to hear of, and the stream that they come on.

    `kinds` are the lists, by their names in the request. Reports to `listener`. What the server agreed to once,
    and does not any more, is asked for again for as long as it is wanted.
    """

    def __init__(self, wire: Wire, listener: Listener, kinds: Iterable[str]) -> None:
        self._wire = wire
        self._listener = listener
        self._kinds = frozenset(kinds)
        self._wishes: dict[str, _Wish] = {}
        """By URI."""
        self._current: _Stream | None = None
        self._next: _Stream | None = None
        """Sent and not acknowledged."""
        self._heard: tuple[frozenset[str], frozenset[str]] | None = None
        """The kinds and the resources that have been heard of without a gap; None before anything was."""
        self._timer: Timer | None = None
        self._failures = 0
        self._is_promised = False
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
        self._is_promised = True
        self._tell()

    def subscribe(self, uri: str, settled: Settled) -> None:
        """Hear of changes of `uri` as well; `settled` may be called before this returns."""
        wish = self._wishes.setdefault(uri, _Wish())
        is_heard = self._current is not None and uri in self._current.uris
        if is_heard and (self._next is None or uri in self._next.wanted):  # else the next stream is without it
            wish.stands = True
            settled(None)
            return
        wish.waiting.append(settled)
        self._renew()

    def withdraw(self, uri: str, settled: Settled) -> None:
        """Who subscribed does not wait for the answer any more, which may have come."""
        wish = self._wishes.get(uri)
        if wish is not None and settled in wish.waiting:
            wish.waiting.remove(settled)
            if not wish.waiting and not wish.stands:
                del self._wishes[uri]
                self._renew()

    def unsubscribe(self, uri: str) -> None:
        """Hear of it no more, but for those who wait to."""
        wish = self._wishes.get(uri)
        if wish is None:
            return
        wish.stands = False
        if not wish.waiting:
            del self._wishes[uri]
            self._renew()

    def stop(self) -> None:
        """End at once, without a word to the listener."""
        self._is_over = True
        self._stop_timer()
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
        missed = self._missed(stream)
        self._heard = (stream.kinds, stream.uris)
        for uri in stream.wanted:
            self._settle(uri, None if uri in stream.uris else _refusal(uri))
        self._known()
        self._tell()
        self._catch_up(*missed)
        if stream.uris - self._wishes.keys():
            self._renew()
        self._go_on()

    def pushed(self, stream: _Stream, method: str, params: Raw | None) -> None:
        """A change was announced."""
        if stream is self._current:
            self._listener.pushed(method, params)

    def ended(self, stream: _Stream, outcome: RpcError | Fault | None) -> None:
        """`stream` is over: refused, lost, or ended by the server (None)."""
        if stream is self._current:
            self._current = None
            self._heard = _NOTHING
            if self._wire.clock.now() - stream.opened_at >= STABLE_AFTER:
                self._failures = 0
        elif stream is self._next:
            self._next = None
            for uri in stream.wanted:
                self._settle(uri, outcome or Fault(FaultKind.INVALID, "the server ended the subscription at once"))
        else:
            return
        self._known()
        self._tell()
        self._go_on()

    # Inside.

    def _renew(self) -> None:
        """Open the stream that is wanted now, unless one is being opened: it is looked at again then."""
        if self._next is not None or self._is_over:
            return
        self._stop_timer()
        if self._kinds or self._wishes:
            self._next = _Stream(self, self._wire.clock, self._kinds, frozenset(self._wishes))
            self._next.open(self._wire)
        elif self._current is not None:
            stream, self._current = self._current, None
            stream.drop()
            self._tell()

    def _go_on(self) -> None:
        """Ask for what is wanted and not asked for, now where somebody waits, else after a while."""
        if self._next is not None or self._is_over:
            return
        uris = frozenset[str]() if self._current is None else self._current.uris
        for uri in uris & self._wishes.keys():  # subscribed to again while a stream without it was tried
            self._settle(uri, None)
        if any(wish.waiting for wish in self._wishes.values()):
            self._renew()
        elif self._timer is None and self._lacks_any(uris):
            delay = min(BACKOFF * 2**self._failures, BACKOFF_MAX) * (0.5 + 0.5 * self._wire.jitter())
            self._failures = min(self._failures + 1, 16)
            self._timer = self._wire.clock.call_later(delay, self._renew)

    def _lacks_any(self, uris: frozenset[str]) -> bool:
        """Whether anything that the server agreed to once is not announced now."""
        return (self._is_promised and not self._kinds <= self.announced) or not self._wishes.keys() <= uris

    def _settle(self, uri: str, refusal: RpcError | Fault | None) -> None:
        """Tell those who wait for `uri`; None: it is heard. Refused it stays wanted where somebody relies on it."""
        wish = self._wishes.get(uri)
        if wish is None:
            return
        told, wish.waiting = wish.waiting, []
        wish.stands = wish.stands or refusal is None
        if not wish.stands:
            del self._wishes[uri]
        for settled in told:
            settled(refusal)

    def _missed(self, stream: _Stream) -> tuple[frozenset[str], frozenset[str]]:
        """What is heard again on `stream` after a gap: its kinds and resources."""
        if self._heard is None:
            return _NOTHING
        kinds, uris = self._heard
        stands = frozenset(uri for uri, wish in self._wishes.items() if wish.stands)
        return stream.kinds - kinds, (stream.uris - uris) & stands

    def _catch_up(self, kinds: frozenset[str], uris: frozenset[str]) -> None:
        """Nothing is sent again after a gap: whoever listens must look for himself."""
        for kind in sorted(kinds):
            self._listener.pushed(f"notifications/{LIST_KINDS[kind]}/list_changed", None)
        for uri in sorted(uris):
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

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
