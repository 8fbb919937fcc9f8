"""Joins the calls for one server and its sessions, and hears what becomes of both.

Bookkeeping is synchronous and comes first; no lock is held across I/O. Every session belongs to
at most one key, every call to one session, and nobody else joins them.
"""

from __future__ import annotations

from random import Random
from typing import Final

from holdfast import events
from holdfast.call import Call, Caller, Outcome, Running, StatusWord
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.errors import CallFailed, OpenFailed
from holdfast.events import Ending, Limit
from holdfast.session import retry
from holdfast.session.backoff import CrashLoops
from holdfast.session.breaker import Breaker
from holdfast.session.closing import Closing
from holdfast.session.dispatch import Dispatch
from holdfast.session.key import SessionKey
from holdfast.session.lending import Lending
from holdfast.session.lifecycle import OPEN, Event, State
from holdfast.session.line import Line
from holdfast.session.observer import Observer
from holdfast.session.opening import set_up
from holdfast.session.place import Place, Places
from holdfast.session.quota import Quota
from holdfast.session.recovery import Recovery
from holdfast.session.roster import Connect, Roster
from holdfast.session.running import Phase, RunningCall, Terms
from holdfast.session.session import LIST_CHANGES, Session
from holdfast.session.settling import Settling
from holdfast.session.watch import Watcher
from holdfast.tasks import TaskScope
from holdfast.upstream.transport import Fault

_ENDED: Final = Phase.ENDED
_IDLE: Final = State.IDLE

MAX_WAITING: Final = 1000
"""Calls of one server that wait for sessions to open."""


class Joining:
    """Where calls and sessions meet: the desk of every call, the owner and keeper of every session.

    Not usable before `observer` is set.
    """

    def __init__(
        self,
        settings: ServerSettings,
        connect: Connect,
        *,
        scope: TaskScope,
        clock: Clock,
        emit: events.Emit,
        rng: Random,
        quota: Quota | None = None,
        tell: events.Emit | None = None,
    ) -> None:
        """`tell` is told how each call ended, and `emit` of all else; without `tell`, of that, too."""
        self._quota = quota if quota is not None else Quota()
        self.settings = settings
        self.observer: Observer
        self._clock = clock
        self._emit = emit
        self._terms = Terms(self, settings, clock, tell or emit)
        self._places = Places(self._quota.withdraw)
        self._breaker = Breaker(settings, clock=clock, emit=emit, rng=rng, changed=self._circuit_changed)
        self._roster = Roster(
            self,
            settings,
            connect,
            scope=scope,
            clock=clock,
            emit=emit,
            rng=rng,
            quota=self._quota,
            breaker=self._breaker,
            listeners=lambda: self._places.listeners,
        )
        self._line = Line(
            self,
            settings,
            roster=self._roster,
            places=self._places,
            quota=self._quota,
            breaker=self._breaker,
        )
        self._crashes = CrashLoops(clock, rng)
        self._dispatch = Dispatch(self, settings, self._breaker, clock)
        self._lending = Lending(self, settings, self._roster, clock)
        self._recovery = Recovery(self, settings, scope=scope, clock=clock, emit=emit, rng=rng, breaker=self._breaker)
        self._settling = Settling(
            self,
            settings,
            roster=self._roster,
            places=self._places,
            dispatch=self._dispatch,
            crashes=self._crashes,
            breaker=self._breaker,
            clock=clock,
            emit=emit,
            rng=rng,
        )
        self._markers = self._settling.markers
        self._closing = Closing(
            settings,
            roster=self._roster,
            places=self._places,
            dispatch=self._dispatch,
            settling=self._settling,
            breaker=self._breaker,
            clock=clock,
        )

    # How a call gets a session.

    def start(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running:
        """Run `call` in the session of `key`, opening it if need be."""
        self._recovery.started += 1
        run = RunningCall(self._terms, key, call, caller, watcher)
        if self.settings.trusted or call.method != "tools/call":  # else nothing is known of a tool
            run.safety = self.observer.safety(call)
        self._begin(run)
        return run

    @property
    def parting(self) -> str | None:
        """Why nothing is served any more; None while it is."""
        return self._closing.parting

    def _begin(self, run: RunningCall) -> None:
        if self._closing.farewell is not None:
            run.end(self._closing.farewell)
            return
        if self._markers.until and not run.is_ahead and self._markers.pop(run.key):
            run.end(retry.session_lost(self.settings.name))
            return
        places = self._places
        place = places.of.get(run.key) or places.make(run.key)
        session = place.session
        if session is not None and session.state in OPEN:
            self._admit(run, session)
            return
        if places.waiting >= MAX_WAITING:
            self.refuse(run, Limit.QUEUE, f"{MAX_WAITING} calls wait for sessions to open")
            places.tidy(place)
            return
        places.join(place, run)
        if place.session is not None:
            run.wait(None)
            run.tell(StatusWord.CONNECTING, f"Connecting to {self.settings.name}.")
            return
        run.wait(self.settings.acquire_timeout)
        self._line.join(place)
        if place.session is None and run.phase is Phase.WAITING:
            run.tell(StatusWord.WAITING, f"Waiting for a free session with {self.settings.name}.")

    # Opener, Holder: what the line and the quota do.

    def adopt(self, place: Place, spare: Session) -> None:
        spare.key = place.key
        spare.last_used_at = self._clock.now()
        place.session = spare
        self._quota.adopted(spare)
        set_up(spare, place.watchers)
        self._settle(place, spare)
        self._roster.refill()

    def evict(self, session: Session, reason: str) -> None:
        self._closing.close(session, Ending.EVICTED, reason)

    def resume(self, place: Place) -> None:
        if place.waiting and place.session is None:
            self._line.join(place)

    def refuse_all(self, place: Place, refusal: OpenFailed) -> None:
        self._places.fail(place, self._unavailable(str(refusal), is_unauthorized=refusal.is_unauthorized))

    def overload_all(self, place: Place, limit: str) -> None:
        for run in list(place.waiting):
            self.refuse(run, Limit.SESSIONS, limit)

    def _settle(self, place: Place, session: Session) -> None:
        """Give an open session to its key: whoever watches, whoever waits."""
        for watcher in place.watchers:
            session.attach(watcher)
        is_reopened, place.is_reopening = place.is_reopening, False
        if is_reopened:
            word, sentence = StatusWord.RESTORED, f"The session with {self.settings.name} was opened again."
        else:
            word, sentence = StatusWord.READY, f"{self.settings.name} is ready."
        for run in self._places.take(place):
            run.tell(word, sentence)
            if session.is_open:
                self._admit(run, session)
            else:
                self._begin(run)
        if is_reopened:
            self.observer.restored(place.key)
            if not self.settings.has_common_lists:
                for method in LIST_CHANGES:
                    self.announce(method, to=session.watchers)

    def _admit(self, run: RunningCall, session: Session) -> None:
        if run.phase is _ENDED:
            return
        run.session = session
        session.calls.add(run)
        caller = run.key.caller
        if session.served is not caller:
            session.serve(caller)
        session.lease()
        if session.owes_roots:
            session.offer_roots(run.caller.abilities.roots)
        self._dispatch.admit(run, session)

    # Desk: what a call reports.

    def returned(self, run: RunningCall, outcome: Outcome | None, now: float) -> None:
        dispatch, session = self._dispatch, run.session
        dispatch.release(run)
        if session is None:
            self._places.leave(run)
        else:
            if outcome is not None:
                self._note(run, session, outcome)
            self._release(run, session, now)
        if dispatch.slots.queue:
            dispatch.send_next()

    def _note(self, run: RunningCall, session: Session, outcome: Outcome) -> None:
        """What it says of the session and its server that a call which was sent has ended so."""
        if not session.is_dirty and not session.is_stateless and retry.has_left_traces(run.call, run.safety, outcome):
            session.remember()
        if isinstance(outcome, CallFailed):
            session.abandon()
        else:
            session.is_doubted = False  # it lives
            if self._breaker.is_troubled:
                self._breaker.succeeded()

    def faulted(self, run: RunningCall, fault: Fault) -> None:
        if run.session is not None:
            self._recovery.faulted(run, run.session, fault)

    def waited_too_long(self, run: RunningCall) -> None:
        place = self._places.get(run.key) if run.session is None else None
        limit = None if place is None else self._quota.reason(place)
        if limit is not None:
            self.refuse(run, Limit.SESSIONS, limit)
        else:
            self.refuse(run, Limit.WAIT, f"no session or slot came free within {self.settings.acquire_timeout:g} s")

    def refuse(self, run: RunningCall, limit: Limit, reason: str) -> None:
        self._emit(events.CallRefused(self.settings.name, reason, run.call.request, limit))
        run.end(retry.overloaded(self.settings.name, reason))

    def parked(self, run: RunningCall, is_parked: bool) -> None:
        self._dispatch.park(run, is_parked=is_parked)

    def heard(self, run: RunningCall) -> None:
        self._breaker.heard(run)

    def restart(self, run: RunningCall, session: Session) -> None:
        if run.session is not session:
            return  # it is on its way there
        self._dispatch.release(run)
        run.session = None
        run.wait(None)
        self._release(run, session, self._clock.now())
        if self.parting is None:
            run.tell(StatusWord.LOST, f"{self.settings.name} lost the session; the call goes on in the next.")
        if run.phase is Phase.WAITING:
            self._begin(run)
        self._dispatch.send_next()

    # Owner: what a session reports.

    def lists_changed(self, session: Session, method: str, told: Watcher | None) -> None:
        self.observer.lists_changed(method)
        own = session.watchers if not self.settings.has_common_lists else None
        self.announce(method, told, own)

    def announce(self, method: str, told: Watcher | None = None, to: list[Watcher] | None = None) -> None:
        """Tell watchers (all by default) but `told` that a list changed."""
        for watcher in self._places.watchers() if to is None else list(to):
            if watcher is not told:
                watcher.push(method, None)

    def push_changed(self, session: Session) -> None:
        self.observer.push_changed(any(s.has_push and s.is_open for s in self._roster) or session.has_push)

    def suspect(self, session: Session, reason: str) -> None:
        self._recovery.suspect(session, reason)

    async def find_out(self, session: Session, reason: str) -> None:
        """Return once it is known whether `session` lives, as its state then says."""
        await self._recovery.find_out(session, reason)

    def lose(self, session: Session, reason: str) -> None:
        self._settling.lose(session, reason)

    def told(self, session: Session) -> None:
        self._settling.told(session)

    # Lender, Survivors: what lending and settling ask.

    def held_by(self, key: SessionKey | None) -> Session | None:
        place = self._places.get(key)
        return None if place is None else place.session

    def refusal_for(self, key: SessionKey | None) -> OpenFailed | None:
        return self._breaker.refusal or (None if key is None else self._crashes.refusal(key))

    def may_open(self, key: SessionKey | None) -> bool:
        return self._roster.may_open and (key is None or self._quota.fits(key))

    def open_for(self, key: SessionKey | None) -> Session:
        if key is None:
            return self._roster.open(None, ())
        place = self._places.make(key)
        session = self.open(place)
        self._places.tidy(place)
        return session

    def given_back(self, session: Session) -> None:
        self._rest(session)

    def reopen(self, place: Place) -> None:
        if self.may_open(place.key) and self.refusal_for(place.key) is None and self.parting is None:
            self.open(place)

    def _circuit_changed(self) -> None:
        if self.parting is None:
            self._dispatch.circuit_changed()
            self._line.move()
            self._roster.look_again()

    # Keeper: what becomes of sessions.

    def opened(self, session: Session) -> None:
        if session.hello is not None:
            self.observer.opened(session.hello)
            if session.hello.is_stateless:
                session.tasks = self._dispatch.tasks
        if session.mixes_chats:
            self.opening_failed(session, OpenFailed("it has begun to remember, and the session was for several chats"))
            self.evict(session, "it was for several chats")
        elif (place := self._places.get(session.key)) is not None:
            self._settle(place, session)
        self._rest(session)

    def opening_failed(self, session: Session, error: OpenFailed) -> None:
        place = self._places.get(session.key)
        if place is not None and place.session is session:
            place.session = None
            self.refuse_all(place, error)

    def left(self, session: Session) -> None:
        if (place := self._places.get(session.key)) is not None:
            self._places.tidy(place)
        self._line.move()

    def open(self, place: Place) -> Session:
        delay = self._crashes.delay(place.key)
        place.session = session = self._roster.open(
            place.key, place.watchers, is_reopened=place.is_reopening, level=place.level, delay=delay
        )
        word = StatusWord.RECONNECTING if place.is_reopening else StatusWord.CONNECTING
        place.opening(word, f"{word.capitalize()} to {self.settings.name}.")
        return session

    def mark_lost(self, session: Session) -> None:
        if session.state in {State.LOST, State.CLOSED}:
            return
        session.advance(Event.LOSE)
        self._quota.leave(session)
        place = self._places.get(session.key)
        if place is not None and place.session is session:
            place.session = None
            place.is_reopening = True

    # Small bookkeeping.

    def _release(self, run: RunningCall, session: Session, now: float) -> None:
        session.calls.discard(run)
        session.release(now)
        if session.state not in OPEN or run.key.is_private or self._quota.waiting or self._places.line:
            self._rest(session)

    def _rest(self, session: Session) -> None:
        """Nothing may run in `session` now: it is closed where it has served, or may make way for another."""
        if session.leases == 0:
            if session.state is not State.IDLE or session.key is None or session.key.is_private:
                self._closing.close_if_unused(session)
            if self._quota.waiting and session.state is State.IDLE:
                self._quota.stirred(session)
        if self._places.line:
            self._line.move()

    def _unavailable(self, reason: str, *, is_unauthorized: bool = False) -> CallFailed:
        return retry.unavailable(self.settings.name, reason, is_unauthorized=is_unauthorized)
