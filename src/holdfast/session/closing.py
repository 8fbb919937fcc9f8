"""How the sessions of one server end other than by loss: in time, by hand, for good."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from holdfast.clock import Clock, Timer, timeout
from holdfast.config import ServerSettings
from holdfast.errors import CallFailed
from holdfast.events import Ending
from holdfast.session import retry
from holdfast.session.breaker import Breaker
from holdfast.session.dispatch import Dispatch
from holdfast.session.key import SessionKey, is_of
from holdfast.session.lifecycle import Event, State
from holdfast.session.place import Places
from holdfast.session.roster import Roster
from holdfast.session.session import Session
from holdfast.session.settling import Settling

REAP_INTERVAL: Final = 5.0
DRAIN_TIMEOUT: Final = 30.0
"""Seconds for the calls under way with a server that is no longer served."""
_SHUTTING_DOWN: Final = "the gateway is shutting down"
_SENTENCES: Final[Mapping[Ending, str]] = {
    Ending.IDLE: "idle for too long",
    Ending.UNUSED_SPARE: "a spare that nobody used",
    Ending.EVICTED: "fewer sessions are allowed now",
    Ending.CLIENT_ENDED: "its client session ended",
    Ending.HANDLE_ENDED: "its handle was closed or has expired",
    Ending.CALL_ENDED: "its call has ended",
    Ending.OPERATOR: "an operator ended its session",
    Ending.CLIENT_REMOVED: "its client may call no more",
    Ending.INVALIDATED: "the sessions of its principal were invalidated",
    Ending.SHUTDOWN: _SHUTTING_DOWN,
}
_OVER: Final = frozenset({State.CLOSED, State.LOST})


class Closing:
    """Ends sessions in order: at once for their keys, behind for the server."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        roster: Roster,
        places: Places,
        dispatch: Dispatch,
        settling: Settling,
        breaker: Breaker,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.parting: str | None = None
        """Why nothing is served any more; None while it is."""
        self.farewell: CallFailed | None = None
        """What calls are told then."""
        self._roster = roster
        self._places = places
        self._dispatch = dispatch
        self._settling = settling
        self._breaker = breaker
        self._clock = clock
        self._reaper: Timer | None = None

    # One session.

    def close(self, session: Session, kind: Ending, reason: str = "", *, leaves_marker: bool = True) -> None:
        """Take an open session from its key now and end it behind; `reason` where the usual words do not fit."""
        if session.state in _OVER:
            return
        is_missed = leaves_marker and self._settling.leave_marker(session)
        place = self._places.get(session.key)
        if place is not None and place.session is session:
            place.session = None
        self._roster.close(session, kind, reason or _SENTENCES[kind], is_missed=is_missed)
        if place is not None:
            self._places.tidy(place)

    def close_if_unused(self, session: Session) -> None:
        """A private session ends with its last call, and so does one that is lost or draining."""
        if session.state is State.IDLE:
            if session.key is not None and session.key.is_private:
                self.close(session, Ending.CALL_ENDED, leaves_marker=False)
        elif session.leases == 0 and session in self._settling:
            self._settling.leave(session)
        elif session.leases == 0 and session.state is State.DRAINING:
            self.close(session, Ending.SERVER_REMOVED, self.parting or "")

    def close_key(self, key: SessionKey, kind: Ending) -> None:
        """End all that is there for `key`: nobody will come back for it."""
        self._settling.markers.discard(key)
        place = self._places.get(key)
        if place is None:
            return
        session = place.session
        for run in list(place.waiting):
            run.abort(_SENTENCES[kind])
        if session is not None:
            self.close(session, kind, leaves_marker=False)
        self._places.tidy(place)

    def close_by_id(self, session_id: str) -> bool:
        """As `Pool.close_session`."""
        session = next((s for s in self._roster if s.id == session_id and s.state not in _OVER), None)
        if session is None:
            return False
        self._end(session, Ending.OPERATOR)
        return True

    def _end(self, session: Session, kind: Ending, *, leaves_marker: bool = True) -> None:
        """Close a session with whatever runs in it, or waits for it to open."""
        place = self._places.get(session.key)
        if place is not None and place.session is session:
            for run in list(place.waiting):
                run.abort(_SENTENCES[kind])
        self.close(session, kind, leaves_marker=leaves_marker)

    # Several.

    def close_all_of(self, client: str, user: str | None, kind: Ending) -> None:
        """As `Pool.close_sessions_of`."""
        reason = _SENTENCES[kind]
        for session in list(self._roster):
            for run in list(session.calls):
                if run.is_of(client, user):
                    run.abort(reason)
            if is_of(session.principal, client, user):
                self._end(session, kind, leaves_marker=False)
            session.tasks.forget_all_of(client, user)
        self._dispatch.tasks.forget_all_of(client, user)
        for place in self._places.values():
            for run in list(place.waiting):
                if run.is_of(client, user):
                    run.abort(reason)
        self._settling.markers.discard_all_of(client, user)

    def run(self) -> None:
        """Begin to close what has expired, and to keep spares."""
        if self.parting is not None:
            return
        self.trim()
        self.reap()
        self._roster.refill()
        interval = min(REAP_INTERVAL, self.settings.idle_timeout / 4)
        self._reaper = self._clock.call_later(interval, self.run)

    def reap(self) -> list[Session]:
        """Close the sessions that have expired and return them."""
        over = self._roster.expired(self._clock.now())
        for session in over:
            self.close(session, Ending.UNUSED_SPARE if session.is_spare else Ending.IDLE)
        return over

    def trim(self) -> None:
        """Close idle sessions that exceed the limit, the longest idle first."""
        surplus = sum(s.state not in _OVER for s in self._roster) - self.settings.session_limit
        if surplus > 0:
            idle = sorted((s for s in self._roster if s.state is State.IDLE), key=lambda s: s.last_used_at)
            for session in idle[:surplus]:
                self.close(session, Ending.EVICTED)

    # All of them.

    def retire(self, sentence: str | None = None, *, is_inherited: bool = False) -> None:
        """Serve nothing any more: see `Pool.retire`."""
        sentence = sentence or f"{self.settings.name} is no longer served"
        self._settling.are_markers_heeded = is_inherited
        self._part(sentence, retry.parted(self.settings.name, sentence))
        for session in list(self._roster):
            if session.state is State.ACTIVE:
                session.advance(Event.DRAIN)
            elif session.state in {State.OPENING, State.IDLE}:
                self.close(session, Ending.SERVER_REMOVED, sentence)
        self._roster.look_again()

    async def drain(self, sentence: str | None = None, limit: float = DRAIN_TIMEOUT) -> None:
        """Serve nothing any more, and return when all is over: see `Pool.drain`."""
        if self.parting is None:
            self.retire(sentence)
        try:
            async with timeout(self._clock, limit):
                await self._emptied()
        except TimeoutError:
            await self._close_all(Ending.SERVER_REMOVED, self.parting or "", leaves_marker=True)
        finally:
            self._roster.terminate()  # nothing is left, unless this was cancelled

    async def aclose(self) -> None:
        """End every session in order; whoever waits is told. Bounded by the caller: see `terminate`."""
        self._part(_SHUTTING_DOWN, retry.unavailable(self.settings.name, _SHUTTING_DOWN))
        await self._close_all(Ending.SHUTDOWN, leaves_marker=False)

    async def _close_all(self, kind: Ending, reason: str = "", *, leaves_marker: bool) -> None:
        self._settling.leave_all()
        for session in list(self._roster):
            self.close(session, kind, reason, leaves_marker=leaves_marker)
        await self._emptied()

    async def _emptied(self) -> None:
        while self._roster:
            await asyncio.shield(self._roster.next_room())

    def _part(self, reason: str, farewell: CallFailed) -> None:
        """Begin nothing any more, and tell whoever waits."""
        self.parting, self.farewell = reason, farewell
        self._breaker.close()
        if self._reaper is not None:
            self._reaper.cancel()
        for place in self._places.values():
            self._places.fail(place, farewell)
        self._dispatch.fail_waiting(farewell)
