"""What becomes of a session that is lost: its last calls, who must be told, and whether it is opened again."""

from __future__ import annotations

from random import Random
from typing import Final, Protocol

from holdfast import events
from holdfast.clock import Clock, Timer
from holdfast.config import ServerSettings
from holdfast.session.backoff import CrashLoops
from holdfast.session.breaker import Breaker
from holdfast.session.dispatch import Dispatch
from holdfast.session.key import SessionKey
from holdfast.session.lifecycle import State
from holdfast.session.markers import Markers
from holdfast.session.place import Place, Places
from holdfast.session.roster import Roster
from holdfast.session.running import RunningCall
from holdfast.session.session import Session
from holdfast.upstream.transport import Fault, FaultKind

SETTLE_TIMEOUT: Final = 2.0
"""Seconds for the calls of a session that its server forgot to be refused, each by itself."""


class Survivors(Protocol):
    """What settling asks of the pool."""

    def mark_lost(self, session: Session) -> None:
        """Take a dead session from its key, so that whatever comes next gets another."""

    def restart(self, run: RunningCall, session: Session) -> None:
        """Send a call of a dead session in the one that follows it."""

    def reopen(self, place: Place) -> None:
        """Open the next session of a key for which no call waits, if that may be."""


class Settling:
    """Lost sessions whose calls may still be answered or refused."""

    def __init__(
        self,
        survivors: Survivors,
        settings: ServerSettings,
        *,
        roster: Roster,
        places: Places,
        dispatch: Dispatch,
        crashes: CrashLoops,
        breaker: Breaker,
        clock: Clock,
        emit: events.Emit,
        rng: Random,
    ) -> None:
        self.markers = Markers(clock)
        self.are_markers_heeded = True
        """Whoever comes back is told here, or by the pool that inherits them."""
        self._survivors = survivors
        self.settings = settings
        self._roster = roster
        self._places = places
        self._dispatch = dispatch
        self._crashes = crashes
        self._breaker = breaker
        self._reopenings = CrashLoops(clock, rng)
        """Of sessions that were reopened for who waits for updates, and lost again."""
        self._clock = clock
        self._emit = emit
        self._lost: dict[Session, tuple[Timer, bool]] = {}
        """With the end of their time, and whether they were dirty when lost."""

    def __contains__(self, session: Session) -> bool:
        return session in self._lost

    def __len__(self) -> int:
        return len(self._lost)

    def lose(self, session: Session, reason: str) -> None:
        """`session` is gone: leave a marker where somebody must be told, and let its calls end."""
        if session not in self._roster or session.state in {State.CLOSED, State.OPENING, State.NEW}:
            return
        if session in self._lost:
            return
        self._survivors.mark_lost(session)
        is_missed = self.leave_marker(session)
        if session.died_of is not None and session.key is not None:
            self._crashes.died(session.key, session.opened_at, session.died_of)
            self._breaker.crashed(session, session.died_of)
        self._emit(events.SessionLost(self.settings.name, session.id, reason, is_missed, session.key_digest))
        for run in self._dispatch.waiting_in(session):
            self._survivors.restart(run, session)
        timer = self._clock.call_later(SETTLE_TIMEOUT, lambda: self.leave(session))
        self._lost[session] = (timer, session.is_dirty)
        if session.leases == 0 or session.died_of is not None:
            self.leave(session)

    def told(self, session: Session) -> None:
        """Somebody hears that `session` was lost: the next call of its key need not."""
        session.has_told = True
        if session.key is not None:
            self.markers.discard(session.key)

    def leave(self, session: Session) -> None:
        """Let go of a lost session, and give up what it has not settled."""
        lost = self._lost.pop(session, None)
        if lost is not None:
            timer, was_dirty = lost
            timer.cancel()
            session.give_up(Fault(FaultKind.GONE, session.died_of or "its server has forgotten the session"))
            if not was_dirty:
                self.leave_marker(session)  # a call may have run in it all the same
            self._roster.drop(session)
            self._reopen_for_subscribers(session)

    def leave_all(self) -> None:
        """Let go of every lost session."""
        for session in list(self._lost):
            self.leave(session)

    def leave_marker(self, session: Session) -> bool:
        """What `session` remembered is gone; whether whoever comes back for it will be told, and has not been yet."""
        key = session.key
        if key is None or not session.is_dirty or not self._may_miss(session):
            return False
        self.markers.add(key)
        return self.are_markers_heeded

    def remembered(self) -> list[SessionKey]:
        """The keys that have a marker, and those whose sessions would leave one, by a call under way perhaps."""
        keys = dict.fromkeys(self.markers)
        for session in self._roster:
            is_dirty = session.is_dirty or any(run.is_on_its_way and run.leaves_traces for run in session.calls)
            if session.key is not None and session.state is not State.CLOSED and is_dirty and self._may_miss(session):
                keys[session.key] = None
        return list(keys)

    def _may_miss(self, session: Session) -> bool:
        """Whether somebody can come back for `session` who has not been told that it is gone."""
        has_heard = session.has_told or session.is_doubted
        can_return = session.key is not None and not session.key.is_private
        return can_return and not has_heard and self.settings.on_loss == "tell"

    def _reopen_for_subscribers(self, lost: Session) -> None:
        """Whoever waits for updates makes no call that would open the next session."""
        place = self._places.get(lost.key)
        if place is None or place.session is not None or not any(w.subscriptions_of(place.key) for w in place.watchers):
            return
        self._reopenings.died(place.key, lost.opened_at, "it was lost")
        if self._reopenings.delay(place.key) == 0:
            self._survivors.reopen(place)
