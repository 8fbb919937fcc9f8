"""One call on its way: between the caller downstream and an exchange upstream."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol

from msgspec import Raw
from msgspec.structs import replace

from holdfast import events
from holdfast.call import (
    Abilities,
    Answered,
    Ask,
    AskId,
    Call,
    Caller,
    Fields,
    InputRequired,
    Outcome,
    Reply,
    Result,
    RpcError,
    Status,
    StatusWord,
)
from holdfast.clock import Clock, Deadlines, Timer
from holdfast.config import ServerSettings
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.session import retry
from holdfast.session.key import SessionKey, TaskOwner, is_of
from holdfast.session.pushed import MAX_ASKS
from holdfast.session.retry import Safety
from holdfast.session.session import Session
from holdfast.session.tasks import METHODS
from holdfast.session.watch import Watcher, answer_for_nobody
from holdfast.upstream.transport import Fault, FaultKind, Sent
from holdfast.wire import jsonrpc

logger = logging.getLogger("holdfast.session")

UNDELIVERABLE: Final = RpcError(
    Raw(jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, "The gateway failed to pass the answer on; its log says why."))
)
_NOT_RELAYED: Final = "the caller of %s failed"
_CANNOT_RELAY: Final = "the gateway failed to relay what belongs to it"


class Phase(Enum):
    """Where a call stands."""

    WAITING = auto()
    """For its session to open, or for a slot."""
    SENT = auto()
    SUSPENDED = auto()
    """Refused or cut off; whether it is sent again is being found out."""
    ENDED = auto()


# To look a member up costs as much as a call of a function, and every call asks for these several times.
_WAITING: Final[Phase] = Phase.WAITING
_SENT: Final = Phase.SENT
_ENDED: Final = Phase.ENDED
_UNSAFE: Final[Safety] = Safety.UNSAFE


class Desk(Protocol):
    """What a call asks of the pool."""

    def returned(self, run: RunningCall, outcome: Outcome | None, now: float) -> None:
        """The call has ended: free what it held. `outcome` is None where it was not sent."""

    def faulted(self, run: RunningCall, fault: Fault) -> None:
        """The call got no answer: end it or send it again."""

    def waited_too_long(self, run: RunningCall) -> None:
        """The call got no session or slot in time."""

    def heard(self, run: RunningCall) -> None:
        """The first sign of life that the call relays."""

    def parked(self, run: RunningCall, is_parked: bool) -> None:
        """A person is being asked, or has answered: a parked call takes no slot."""


class Terms:
    """What is the same for all calls of a pool that begin under the same settings."""

    __slots__ = ("clock", "deadlines", "desk", "emit", "is_timed_alone", "now", "server", "settings")

    def __init__(self, desk: Desk, settings: ServerSettings, clock: Clock, emit: events.Emit) -> None:
        self.desk = desk
        self.settings = settings
        self.server = settings.name
        self.clock = clock
        self.now = clock.now
        self.emit = emit
        self.deadlines = Deadlines[RunningCall](clock, settings.call_timeout, RunningCall.look_at_clock)
        """When to see whether the calls that were sent have waited for `call_timeout`."""
        self.is_timed_alone = settings.call_deadline is not None
        """Each call has a timer of its own, since not all wait equally long."""

    def close(self) -> None:
        """Leave no timer behind that is shared: calls under way, and those that follow, have timers of their own."""
        self.is_timed_alone = True
        for run in list(self.deadlines):
            run.wait_alone()
        self.deadlines.close()


class RunningCall:
    """A `Running` towards the caller and an `Exchange` towards the server.

    It ends exactly once, whichever of answer, failure, timeout and cancellation comes first.
    """

    has_relayed = False
    is_ahead = False
    """It opens a session ahead of a call: that is to be told what was lost, not this."""
    was_sent_before = False
    sent_at = 0.0
    _heard_at = 0.0
    _overtime = 0.0
    _parked_at = 0.0

    def __init__(
        self,
        terms: Terms,
        key: SessionKey,
        call: Call,
        caller: Caller,
        watcher: Watcher | None,
    ) -> None:
        self._terms = terms
        self.key = key
        self.call = call
        self.caller = caller
        self.watcher = watcher
        """The client session that the call came from, if it has one."""
        self.safety = _UNSAFE
        """What repeating it could do."""
        self.session: Session | None = None
        self.phase = _WAITING
        self.has_slot = False
        self.may_have_run = False
        """An attempt before the last one may have been executed."""
        self._started_at = terms.now()
        self._timer: Timer | None = None
        self._sent: Sent | None = None
        self._is_paused = False
        self._was_cancelled = False
        self._asks: dict[AskId, tuple[Ask, Timer]] = {}

    @property
    def is_on_its_way(self) -> bool:
        """The server has it, or may have it."""
        return self.phase in {Phase.SENT, Phase.SUSPENDED}

    @property
    def is_asking(self) -> bool:
        """A question of the server was put to its caller, and is not answered yet."""
        return bool(self._asks)

    @property
    def leaves_traces(self) -> bool:
        """Whether what it does is remembered, so that a person would miss it."""
        return retry.leaves_traces(self.call, self.safety)

    @property
    def owner(self) -> TaskOwner | None:
        """Whose the tasks are that it begins."""
        return self.key.owner

    @property
    def fetches(self) -> str | None:
        """The task whose result it waits for."""
        task = self.call.params.get("taskId") if self.call.method == "tasks/result" else None
        return task if isinstance(task, str) else None

    def is_of(self, client: str, user: str | None = None) -> bool:
        """Whether a configured client sent it, for that user where one is given."""
        return is_of(self.key.caller, client, user)

    # What the pool does with it.

    def wait(self, limit: float | None) -> None:
        """Start to wait, `limit` seconds at most; None where something else bounds the wait."""
        if self.phase is _ENDED:
            return
        self.phase = Phase.WAITING
        self._stop_timer()
        if self._asks:  # of a session that is gone: what a person says to them now would be heard by nobody
            self._overtime += self._terms.now() - self._parked_at
            self._close_asks()
        if limit is not None:
            self._timer = self._terms.clock.call_later(limit, self._waited_too_long)

    def send(self, session: Session) -> None:
        """Send the call in `session`, which holds it in `session.calls`."""
        terms = self._terms
        self.phase = _SENT
        if self._timer is not None:
            self._stop_timer()
        self.sent_at = self._heard_at = now = terms.now()
        if terms.is_timed_alone:
            self.wait_alone()
        else:
            terms.deadlines.add(self, now)
        sent = session.upstream.send(self.call, self)
        if self.phase is _SENT and self.session is session:  # not so if it failed at once and went elsewhere
            self._sent = sent
            if self._is_paused:
                sent.pause()

    def suspend_sending(self) -> None:
        """The exchange has failed; hold the call while it is decided what follows."""
        self.phase = Phase.SUSPENDED
        self._sent = None
        self._stop_timer()

    def tell(self, word: StatusWord, sentence: str) -> None:
        """Pass a status line on."""
        self._guard(lambda: self.caller.status(Status(word, sentence)))

    def end(self, outcome: Outcome) -> None:
        """End the call; a second end is ignored. Bookkeeping first, the caller last."""
        phase, terms = self.phase, self._terms
        if phase is _ENDED:
            return
        if self.may_have_run:
            outcome = retry.in_doubt(outcome, self.call)
        self.phase = _ENDED
        self._sent = None
        terms.deadlines.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asks:
            self._close_asks()
        now = terms.now()
        try:
            terms.desk.returned(self, outcome if phase is _SENT else None, now)
        finally:
            try:
                self.caller.answer(outcome)
            except Exception:
                logger.exception("the answer to %s could not be delivered", self.call.method)
                answer_anyway(self.caller)
            call = self.call
            word = "cancelled" if self._was_cancelled else "result" if type(outcome) is Result else _word(outcome)
            terms.emit(events.CallEnded(terms.server, call.method, word, now - self._started_at, call.request))

    def abort(self, reason: str) -> None:
        """End the call because its session ends, or the gateway cannot go on with it."""
        sent = self._sent
        delivery = Delivery.NOT_SENT if self.phase is Phase.WAITING else Delivery.UNKNOWN
        if sent is not None:
            sent.cancel(reason)
        if self.phase is Phase.SUSPENDED and self.session is not None:
            self.session.abandon()
        server = self._terms.server
        if self.is_ahead:  # nothing was asked for that could have been executed
            self.end(retry.unavailable(server, reason))
            return
        self.end(
            CallFailed(
                Code.OUTCOME_UNKNOWN,
                f"The call was cancelled: {reason}.",
                server=server,
                delivery=delivery,
                retryable=False,
            )
        )

    # Running: what the caller does.

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        asked = self._asks.pop(ask_id, None)
        if asked is None or self.session is None:
            return
        asked[1].cancel()
        self._unpark()
        self.session.upstream.reply(ask_id, reply)

    def cancel(self, reason: str) -> None:
        self._was_cancelled = True
        self.abort(reason)

    def pause(self) -> None:
        self._is_paused = True
        if self._sent is not None:
            self._sent.pause()

    def resume(self) -> None:
        self._is_paused = False
        if self._sent is not None:
            self._sent.resume()

    # Exchange: what the server does.

    @property
    def abilities(self) -> Abilities:
        return self.caller.abilities

    def alive(self) -> None:
        self._heard_at = self._terms.now()

    def progress(self, update: Fields) -> None:
        """As `_relay`, which is for what comes less often."""
        self._heard_at = self._terms.now()
        if not self.has_relayed:
            self._relays()
        if self.phase is not _ENDED:
            try:
                self.caller.progress(update)
            except Exception:
                logger.exception(_NOT_RELAYED, self.call.method)
                self.abort(_CANNOT_RELAY)

    def log(self, params: Raw) -> None:
        if self.session is not None and self.session.notices("notifications/message", params, self):
            self._heard_at = self._terms.now()
            return
        self._relay(lambda: self.caller.log(params))

    def notify(self, method: str, params: Raw | None) -> None:
        if self.session is not None and self.session.notices(method, params, self):
            self._heard_at = self._terms.now()
            return
        self.relay(method, params)

    def relay(self, method: str, params: Raw | None) -> None:
        """Pass on a notification that is known to belong to this call."""
        if method == "notifications/message" and params is not None:
            self._relay(lambda: self.caller.log(params))
        else:
            self._relay(lambda: self.caller.notify(method, params))

    def ask(self, ask: Ask) -> None:
        if self.session is None:
            return
        if self.session.is_of_another(ask, self):
            self.session.asked(ask)
            return
        if self.phase is not Phase.SENT or len(self._asks) >= MAX_ASKS or not self.caller.abilities.can_answer(ask):
            self._heard_at = self._terms.now()
            self.session.decline(ask)
            return
        self._park()
        timer = self._terms.clock.call_later(self._terms.settings.ask_timeout, lambda: self._give_up(ask))
        self._asks[ask.id] = (ask, timer)
        self.session.pages.add(ask.elicitation_id, self.watcher)
        self._relay(lambda: self.caller.ask(replace(ask, timeout=self._terms.settings.ask_timeout)))

    def withdraw(self, ask_id: AskId) -> None:
        asked = self._asks.pop(ask_id, None)
        if asked is not None:
            asked[1].cancel()
            self._unpark()
            self._relay(lambda: self.caller.withdraw(ask_id))

    def suspend(self) -> None:
        self._guard(self.caller.suspend)

    def answered(self, outcome: Answered) -> None:
        if type(outcome) is Result:
            call, session = self.call, self.session
            may_begin_task = "task" in call.params and call.method == "tools/call"
            if (may_begin_task or outcome.is_task or call.method in METHODS) and session is not None:
                outcome = session.tasks.answered(call, outcome, self.owner, self.watcher)
        elif isinstance(outcome, RpcError) and self.session is not None:
            self.session.pages.add_all_of(outcome, self.watcher)
        elif isinstance(outcome, InputRequired):
            outcome = InputRequired(outcome.raw, self.key.origin)
        self.end(outcome)

    def failed(self, fault: Fault) -> None:
        if self.phase is Phase.SENT:
            self.suspend_sending()
            self._terms.desk.faulted(self, fault)

    # Inside.

    def _relays(self) -> None:
        """This is the first that it relays."""
        self.has_relayed = True
        self._terms.desk.heard(self)

    def _relay(self, deliver: Callable[[], None]) -> None:
        self._heard_at = self._terms.now()
        if not self.has_relayed:
            self._relays()
        self._guard(deliver)

    def _guard(self, deliver: Callable[[], None]) -> None:
        """Run a callback of the caller: an exception in it ends this call and no other."""
        if self.phase is Phase.ENDED:
            return
        try:
            deliver()
        except Exception:
            logger.exception(_NOT_RELAYED, self.call.method)
            self.abort(_CANNOT_RELAY)

    def _park(self) -> None:
        if not self._asks:
            self._parked_at = self._terms.now()
            self._terms.desk.parked(self, True)

    def _unpark(self) -> None:
        """The clocks of the call stood still while the last of its questions was open."""
        if not self._asks and self.is_on_its_way:
            now = self._terms.now()
            self._overtime += now - self._parked_at
            self._heard_at = now
            if self.phase is _SENT:  # else it is about to be sent again, and waits from then on
                self.wait_alone()
            self._terms.desk.parked(self, False)

    def _give_up(self, ask: Ask) -> None:
        if self._asks.pop(ask.id, None) is not None and self.session is not None:
            self._unpark()
            self._guard(lambda: self.caller.withdraw(ask.id))
            self.session.upstream.reply(ask.id, answer_for_nobody(ask))

    def _close_asks(self) -> None:
        asks, self._asks = self._asks, {}
        for ask, timer in asks.values():
            timer.cancel()
            if self.session is not None:
                self.session.upstream.reply(ask.id, answer_for_nobody(ask))
            try:
                self.caller.withdraw(ask.id)
            except Exception:
                logger.exception("a question of %s could not be withdrawn", self.call.method)

    def _stop_timer(self) -> None:
        self._terms.deadlines.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _waited_too_long(self) -> None:
        self._timer = None
        if self.phase is Phase.WAITING:
            self._terms.desk.waited_too_long(self)

    def wait_alone(self) -> None:
        """See with a timer of its own whether the call's time is over, when it may be."""
        self._stop_timer()
        self._timer = self._terms.clock.call_later(self._next_check(), self.look_at_clock)

    def _next_check(self) -> float:
        settings, now = self._terms.settings, self._terms.now()
        wait = self._heard_at + settings.call_timeout - now
        if settings.call_deadline is not None:
            wait = min(wait, self._started_at + self._overtime + settings.call_deadline - now)
        return wait

    def look_at_clock(self) -> None:
        """The call's time may be over; if not, look again when it may be."""
        self._timer = None
        if self.phase is not _SENT:
            return
        settings, clock = self._terms.settings, self._terms.clock
        if self._asks:
            self._timer = clock.call_later(settings.call_timeout, self.look_at_clock)
            return
        wait = self._next_check()
        if wait > 0:
            self._timer = clock.call_later(wait, self.look_at_clock)
            return
        heard, deadline = clock.now() - self._heard_at, settings.call_deadline
        detail = (
            f"no message for {settings.call_timeout:g} s"
            if deadline is None or heard >= settings.call_timeout  # the sum may be due before the difference is
            else f"not done within {deadline:g} s"
        )
        if self._sent is not None:
            self._sent.cancel(detail)
        self.suspend_sending()
        self._terms.desk.faulted(self, Fault(FaultKind.TIMEOUT, detail))


def deliver(caller: Caller, outcome: Outcome, method: str) -> None:
    """End a call, with an error of ours where `outcome` fails on its way: else its client would wait for good."""
    try:
        caller.answer(outcome)
    except Exception:
        logger.exception("the answer to %s could not be delivered", method)
        answer_anyway(caller)


def answer_anyway(caller: Caller) -> None:
    """End a call whose answer could not be delivered."""
    try:
        caller.answer(UNDELIVERABLE)
    except Exception:
        logger.exception("nor that it could not be")


def _word(outcome: Outcome) -> str:
    """How a call ended, as events say it."""
    match outcome:
        case CallFailed(code=code):
            return code.name.lower()
        case RpcError():
            return "error"
        case _:
            return "result"
