"""Calls of clients that cannot be asked while they wait: the call is parked, and the client comes back.

A question of the server ends the request that began the call, the leg, with `input_required` and a
sealed `requestState`. The call goes on upstream meanwhile; the next leg bears the answers. A server
of 2026-07-28 ends the call itself, and gives a state that is wrapped: nothing of that call is kept.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from holdfast.call import (
    NOBODY,
    Abilities,
    Ask,
    AskId,
    Fields,
    InputRequired,
    Json,
    Outcome,
    Reply,
    Result,
    RpcError,
    Running,
    Status,
)
from holdfast.clock import Clock, Timer
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.exchange import Exchange
from holdfast.downstream.post import Target
from holdfast.downstream.shaping import input_required
from holdfast.downstream.states import Kind, Seals
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.identity.asker import Asker
from holdfast.identity.caller import Identity
from holdfast.session.key import Principal
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ClientRequest

MAX_PARKED: Final = 1000
"""Calls with open questions, of all clients together; who comes then cannot be asked."""
MAX_PARKED_PER_USER: Final = 100
"""Of one user whom a trusted client names."""
GATHERING: Final = 0.02
"""Seconds after a question in which others may come, so that they are put together."""
MAX_KEPT: Final = 256 * 1024
"""Bytes of an answer that waits for its client to come back."""
WRAPPED_TTL: Final = 24 * 3600.0
"""Seconds for which a server's own state is taken back; how long it is good for is the server's to say."""
_NOT_OF_THE_CALL: Final = frozenset({"_meta", "inputResponses", "requestState"})
_NAME: Final = 16
"""Bytes that name a parked call."""
_WRAPPER: Final = struct.Struct(">d16s")
"""Until when a wrapped state is taken back, and whose it is, in front of it."""


class Wrapped(Struct, frozen=True):
    """A server's own state."""

    state: str
    origin: bytes
    """As `InputRequired.origin`."""


class Binding(Struct, frozen=True):
    """Who may go on with a call, and with which request."""

    target: Target
    asker: Asker
    request: ClientRequest

    @property
    def identity(self) -> Identity:
        """Who sent the request."""
        return self.target.identity

    def terms(self) -> bytes:
        """Principal, conversation, method and params: whatever a later leg must say as the first did."""
        asker, request = self.asker, self.request
        principal = asker.identity.principal
        who = (self.target.service.name, principal.client, principal.user, asker.chat, asker.passed)
        what = {name: value for name, value in request.params.items() if name not in _NOT_OF_THE_CALL}
        return hashlib.sha256(msgspec.json.encode((who, request.method, what), order="sorted")).digest()


class ModernCall:
    """The `Caller` of a call that goes on over several requests; most take one."""

    latest: Fields | None = None
    """The newest progress, while nobody could be told."""
    is_over = False
    _running: Running | None = None
    _leg: AnswerCaller[Exchange] | None = None
    _asked = 0
    _gathering: Timer | None = None
    _expiry: Timer | None = None
    _name = b""
    """Under which it is parked."""
    _outcome: Outcome | None = None

    def __init__(self, desk: ParkedCalls, binding: Binding, abilities: Abilities) -> None:
        self.binding = binding
        self._desk = desk
        self._own_abilities = abilities
        self._asks: dict[str, tuple[Ask, float]] = {}
        """The open questions by their keys, and until when the server waits for each."""

    # What its client does.

    def attend(self, leg: AnswerCaller[Exchange]) -> None:
        """Tell `leg` from now on."""
        self._leg = leg

    def begin(self, running: Running | None) -> None:
        """Hold the call that is under way; it may have been answered before this is known."""
        if not self.is_over:
            self._running = running

    def come_back(self, leg: AnswerCaller[Exchange], responses: Mapping[str, dict[str, Json]]) -> None:
        """Go on with answers to some of the questions; those that have none are put again."""
        self._stop_timers()
        self._name = b""
        self._leg = leg
        if self._outcome is not None:
            self._desk.release(self)
            leg.answer(self._outcome)
            return
        if self.latest is not None:
            progress, self.latest = self.latest, None
            leg.progress(progress)
        for key in [key for key in self._asks if key in responses]:
            ask, _ = self._asks.pop(key, (None, 0.0))
            if ask is not None and self._running is not None:  # not so if the answer before ended the call
                self._running.reply(ask.id, Reply(result=Raw(jsonrpc.encode(responses[key]))))
        if self._asks:
            self._park()
        elif not self.is_over:
            self._desk.release(self)

    def leave(self, leg: AnswerCaller[Exchange]) -> None:
        """The client closed the request of `leg` while it was open: that cancels the call."""
        if self._leg is leg:
            self.cancel("the client left")

    def cancel(self, reason: str) -> None:
        """End the call; what it has yielded is dropped."""
        if self._running is not None:
            self._running.cancel(reason)
        self._stop_timers()
        self._desk.release(self, self._name)

    # Caller

    @property
    def abilities(self) -> Abilities:
        own = self._own_abilities
        return own if self._desk.has_room(self) else replace(NOBODY, tasks=own.tasks, extensions=own.extensions)

    def status(self, status: Status) -> None:
        if self._leg is not None:
            self._leg.status(status)

    def progress(self, update: Fields) -> None:
        if self._leg is not None:
            self._leg.progress(update)
        else:
            self.latest = {name: raw.copy() for name, raw in update.items()}

    def log(self, params: Raw) -> None:
        if self._leg is not None:
            self._leg.log(params)

    def notify(self, method: str, params: Raw | None) -> None:
        """Only progress and logs belong on a request's stream in this revision."""

    def ask(self, ask: Ask) -> None:
        self._asked += 1
        key = str(self._asked) if ask.name is None or ask.name in self._asks else ask.name
        self._asks[key] = (ask, self._desk.clock.now() + ask.timeout)
        self._desk.hold(self)
        if self._leg is not None and self._gathering is None:
            self._leg.way.watch()  # who leaves before the question is out never comes back with an answer
            self._gathering = self._desk.clock.call_later(GATHERING, self._park)

    def withdraw(self, ask_id: AskId) -> None:
        for key, (ask, _) in list(self._asks.items()):
            if ask.id == ask_id:
                del self._asks[key]
        if not self._asks and self._leg is not None and not self.is_over:
            self._stop_timers()
            self._desk.release(self)

    def suspend(self) -> None: ...

    def answer(self, outcome: Outcome) -> None:
        if isinstance(outcome, InputRequired):
            outcome = self._desk.wrapped(outcome, self.binding.terms())
        self.is_over = True
        self._running = None  # it holds us
        leg, self._leg = self._leg, None
        if leg is not None:
            if self._asked:
                self._stop_timers()
                self._desk.release(self)
            leg.answer(outcome)
        else:
            self._outcome = _fit_to_keep(outcome, self.binding.target.service.name)

    # Inside.

    def _park(self) -> None:
        """End the leg with the questions; the call waits for the next one."""
        self._stop_timers()
        leg, self._leg = self._leg, None
        if leg is None:
            return
        now = self._desk.clock.now()
        first = min(until for _, until in self._asks.values())
        self._expiry = self._desk.clock.call_later(max(0.0, first - now), self._expire)
        self._name, state = self._desk.park(self)
        asks = {key: ask for key, (ask, _) in self._asks.items()}
        leg.answer(input_required(asks, state, self.binding.target.service.server_info))

    def _expire(self) -> None:
        self._expiry = None
        self.cancel("nobody came back with an answer")

    def _stop_timers(self) -> None:
        for timer in (self._gathering, self._expiry):
            if timer is not None:
                timer.cancel()
        self._gathering = self._expiry = None


class ParkedCalls:
    """The calls that wait for their clients, found by states that only this process can have made."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._seals = Seals()
        self._held: dict[ModernCall, None] = {}
        """Calls with open questions, or with an answer that waits."""
        self._by_user: Counter[Principal] = Counter()
        self._parked: dict[bytes, ModernCall] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def waiting(self) -> list[ModernCall]:
        """Those calls."""
        return list(self._held)

    def has_room(self, call: ModernCall) -> bool:
        """Whether a question of `call` can be kept."""
        if call in self._held:
            return True
        principal = call.binding.identity.principal
        is_full = principal.user is not None and self._by_user[principal] >= MAX_PARKED_PER_USER
        return len(self._held) < MAX_PARKED and not is_full

    def hold(self, call: ModernCall) -> None:
        """Count a call whose server asks something."""
        if call not in self._held:
            self._held[call] = None
            self._by_user[call.binding.identity.principal] += 1

    def release(self, call: ModernCall, name: bytes = b"") -> None:
        """No question of `call` is open any more; parked under `name`, it is found no more."""
        self._parked.pop(name, None)
        if call in self._held:
            del self._held[call]
            principal = call.binding.identity.principal
            self._by_user[principal] -= 1
            if not self._by_user[principal]:
                del self._by_user[principal]

    def park(self, call: ModernCall) -> tuple[bytes, str]:
        """Keep `call` for its next leg: the name, and the state that says it once."""
        name = secrets.token_bytes(_NAME)
        self._parked[name] = call
        return name, self._seals.seal(Kind.PARKED, name, call.binding.terms())

    def wrapped(self, outcome: InputRequired, terms: bytes) -> InputRequired:
        """What a server of 2026-07-28 asks, with its own state in a wrapper that opens under `terms` alone."""
        fields = jsonrpc.decode_fields(outcome.raw)
        state = jsonrpc.decode_value(fields.get("requestState", b"null"))
        if not isinstance(state, str):
            return outcome
        content = _WRAPPER.pack(self.clock.now() + WRAPPED_TTL, outcome.origin) + state.encode()
        fields["requestState"] = Raw(jsonrpc.encode(self._seals.seal(Kind.WRAPPED, content, terms)))
        return InputRequired(Raw(jsonrpc.encode(fields)))

    def take(self, state: str, terms: bytes) -> ModernCall | Wrapped | None:
        """The parked call of that state, or the server's own state in it, if these are its terms.

        A parked call is found once. What a server gave is the server's to refuse when it comes again.
        """
        match self._seals.unseal(state, terms):
            case (Kind.PARKED, name):
                return self._parked.pop(name, None)
            case (Kind.WRAPPED, content):
                until, origin = _WRAPPER.unpack_from(content)
                return Wrapped(content[_WRAPPER.size :].decode(), origin) if self.clock.now() < until else None
            case _:
                return None

    def owner_of(self, state: str) -> Principal | None:
        """Whose parked call `state` names, whoever asks; only to be told to the operator."""
        name = self._seals.content_of(state)
        call = self._parked.get(name or b"")
        return None if call is None else call.binding.identity.principal

    def shut_out(self, admits: Callable[[Identity], bool]) -> None:
        """End the calls of clients that are not what they were."""
        for call in [call for call in self._held if not admits(call.binding.identity)]:
            call.cancel("the client may not call any more")

    def close(self) -> None:
        """End every call that waits."""
        for call in list(self._held):
            call.cancel("the gateway ends")


def _fit_to_keep(outcome: Outcome, server: str) -> Outcome:
    """`outcome`, or an error in its place where it is too large to wait for its client."""
    if isinstance(outcome, CallFailed):
        return outcome
    if isinstance(outcome, Result):
        others = b"" if outcome.modern is None or outcome.modern is outcome.raw else outcome.modern
        if len(outcome.raw) + len(others) <= MAX_KEPT:
            return outcome.copied()
    elif len(outcome.raw) <= MAX_KEPT:
        return replace(outcome, raw=outcome.raw.copy())
    return CallFailed(
        Code.OVERLOADED,
        "The answer was too large to keep for a client that was away.",
        server=server,
        delivery=Delivery.UNKNOWN if isinstance(outcome, RpcError) else Delivery.DELIVERED,
        retryable=False,
    )
