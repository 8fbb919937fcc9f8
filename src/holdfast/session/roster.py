"""The sessions that take up room at one server: how they open, how they end, how long they stay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final, Protocol

from holdfast import events
from holdfast.call import ANYBODY, NOBODY, Abilities
from holdfast.clock import Clock, timeout
from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.session.breaker import Breaker
from holdfast.session.key import SessionKey
from holdfast.session.lifecycle import Event, State
from holdfast.session.opening import JITTER, replay, shake_hands
from holdfast.session.plan import expired
from holdfast.session.quota import Holder, Quota
from holdfast.session.session import Owner, Session
from holdfast.session.watch import Watcher
from holdfast.tasks import TaskScope
from holdfast.upstream.transport import Fault, FaultKind, Listener, Upstream

logger = logging.getLogger("holdfast.session")

CLOSE_TIMEOUT: Final = 4.0
"""Seconds for one session to end in order before it is dropped."""
SPARE_TTL: Final = 60.0
"""A session opened only to learn the lists stays this long for the next new chat."""


class Connect(Protocol):
    """Makes the conversation for a new session."""

    def __call__(
        self,
        listener: Listener,
        *,
        declares: Abilities,
        passed: tuple[tuple[str, str], ...] = (),
        prefers_modern: bool = False,
    ) -> Upstream:
        """`declares`: what the server is told that can be asked.

        `passed`: headers of the caller's that go with every request. `prefers_modern`: it speaks 2026-07-28
        where the server speaks both.
        """
        ...


class Keeper(Owner, Holder, Protocol):
    """Who is told what becomes of the sessions: the pool."""

    def opened(self, session: Session) -> None:
        """The session is idle now and takes calls."""

    def opening_failed(self, session: Session, error: OpenFailed) -> None:
        """The session will never open."""

    def left(self, session: Session) -> None:
        """The session has gone, and its room is free."""


class Roster:
    """Every session with one server, those that are still opening or closing included."""

    def __init__(
        self,
        keeper: Keeper,
        settings: ServerSettings,
        connect: Connect,
        *,
        scope: TaskScope,
        clock: Clock,
        emit: events.Emit,
        rng: Random,
        quota: Quota,
        breaker: Breaker,
        listeners: Callable[[], int],
    ) -> None:
        """`listeners` says how many listen for changes without a session of their own."""
        self._breaker = breaker
        self._quota = quota
        self._listeners = listeners
        self._keeper = keeper
        self.settings = settings
        self._connect = connect
        self._scope = scope
        self._clock = clock
        self._emit = emit
        self._rng = rng
        self._sessions: dict[Session, None] = {}
        self._room: asyncio.Future[None] | None = None

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions)

    def __contains__(self, session: object) -> bool:
        return session in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def _spares_wanted(self) -> int:
        """As many as the operator asked for, and one that hears of changes where somebody listens without a session."""
        return max(self.settings.spares, min(self._listeners(), 1))

    @property
    def has_room(self) -> bool:
        """Whether one more session may be opened without another making way."""
        return len(self._sessions) < self.settings.session_limit and self._quota.has_room

    @property
    def may_open(self) -> bool:
        """Whether one more session may be opened now: there is room, and the server is not left alone."""
        return self.has_room and self._breaker.passes

    def next_room(self) -> asyncio.Future[None]:
        """Done when a session has gone, or it is worth another look."""
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        return self._room

    def open(
        self,
        key: SessionKey | None,
        watchers: Sequence[Watcher],
        *,
        is_reopened: bool = False,
        level: str | None = None,
        delay: float = 0.0,
    ) -> Session:
        """Begin to open a session for `key`, or a spare, in `delay` seconds at the earliest.

        What `watchers` had set up is set up again, and `level` is the log level that its calls want.
        """
        session = Session(self._keeper, key, self.settings, self._clock)
        session.called_level = level
        self._connect_anew(session)
        session.advance(Event.OPEN)
        self._sessions[session] = None
        self._breaker.began(session)
        self._quota.enter(session, self._keeper)
        work = self._opening(session, watchers, is_reopened=is_reopened, delay=delay)
        session.opening = self._scope.start(work, f"open {self.settings.name} {session.id}")
        return session

    def close(self, session: Session, kind: events.Ending, reason: str, *, is_missed: bool = False) -> None:
        """End a session that is opening or open: its calls at once, itself behind.

        `is_missed`: somebody will be told that what it remembered is gone.
        """
        was_opening = session.state is State.OPENING
        session.advance(Event.CLOSE)
        for call in list(session.calls):
            call.abort(reason)
        session.give_up(Fault(FaultKind.GONE, reason))
        self._emit(events.SessionClosed(self.settings.name, session.id, reason, is_missed, session.key_digest, kind))
        if was_opening:
            session.fail_opening(OpenFailed(reason))
            if session.opening is not None:
                session.opening.cancel()
        self._scope.start(self._closing(session), f"close {self.settings.name} {session.id}")
        self._quota.leave(session)
        self._breaker.withdrawn(session)

    def drop(self, session: Session) -> None:
        """Forget a session that is over, without a word to the server."""
        session.upstream.terminate()
        self._forget(session)

    def expired(self, now: float) -> list[Session]:
        """The sessions whose time is over."""
        settings = self.settings
        return expired(
            self._sessions,
            now,
            idle_timeout=settings.idle_timeout,
            spare_ttl=SPARE_TTL,
            max_age=settings.max_age,
            spares=self._spares_wanted,
        )

    def refill(self) -> None:
        """Keep as many spares as are wanted, where there is room."""
        spares = sum(session.is_spare for session in self._sessions)
        while spares < self._spares_wanted and self.may_open and self._breaker.delay == 0:
            self.open(None, ())
            spares += 1

    def terminate(self) -> None:
        """Drop every session at once. Idempotent."""
        for session in self._sessions:
            session.upstream.terminate()

    def _connect_anew(self, session: Session) -> None:
        key = session.key
        session.upstream = self._connect(
            session,
            declares=ANYBODY if key is None else key.declares or NOBODY,
            passed=() if key is None else key.passed,
            prefers_modern=key is not None and key.prefers_modern,
        )
        session.died_of = None

    async def _opening(self, session: Session, watchers: Sequence[Watcher], *, is_reopened: bool, delay: float) -> None:
        name, clock = self.settings.name, self._clock
        self._emit(events.SessionOpening(name, session.id, session.key_digest))
        delay = max(delay, self._breaker.delay, self._rng.uniform(0, JITTER) if is_reopened else 0.0)
        started = attempted = clock.now()
        try:
            if delay > 0:
                await clock.sleep(delay)
                attempted = clock.now()
            await self._shake_hands(session)
            await replay(session, watchers, clock)
        except OpenFailed as error:
            self._opening_failed(session, error, attempted)
            return
        except Exception:
            logger.exception("%s could not be opened", session.id)
            self._opening_failed(session, OpenFailed("the gateway failed; its log says why"), attempted)
            return
        session.opened_at = session.last_used_at = clock.now()
        session.advance(Event.READY)
        self._breaker.succeeded()
        seconds = clock.now() - started
        self._emit(events.SessionReady(name, session.id, seconds, is_reopened, session.key_digest))
        if not session.opened.done():
            session.opened.set_result(None)
        self._keeper.opened(session)

    async def _shake_hands(self, session: Session) -> None:
        """Once more where not a byte reached the server: it may just be coming back."""
        try:
            session.hello = await shake_hands(session, self._clock, self.settings.open_timeout)
        except OpenFailed as error:
            if not error.is_unsent:
                raise
            session.upstream.terminate()
            await self._clock.sleep(self._rng.uniform(0, JITTER))
            self._connect_anew(session)
            session.hello = await shake_hands(session, self._clock, self.settings.open_timeout)
        session.upstream = session.upstream.settled

    def _opening_failed(self, session: Session, error: OpenFailed, attempted: float) -> None:
        session.advance(Event.LOSE)
        self._breaker.opening_failed(session, error, attempted)
        self._emit(events.SessionFailed(self.settings.name, session.id, str(error), error.advice))
        session.fail_opening(error)
        self._keeper.opening_failed(session, error)
        self._scope.start(self._closing(session), f"close {self.settings.name} {session.id}")
        self._quota.leave(session)

    async def _closing(self, session: Session) -> None:
        try:
            async with timeout(self._clock, CLOSE_TIMEOUT):
                await session.upstream.close()
        except TimeoutError:
            logger.warning("%s did not close in %g s", session.id, CLOSE_TIMEOUT)
        finally:
            self.drop(session)

    def _forget(self, session: Session) -> None:
        if session not in self._sessions:
            return
        del self._sessions[session]
        self._quota.leave(session)
        if session.has_push:
            session.push_stream(False)
        self.look_again()
        self._keeper.left(session)

    def look_again(self) -> None:
        """Wake whoever waits for room."""
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)
