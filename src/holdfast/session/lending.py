"""Sessions for what the gateway itself asks a server: its lists, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from holdfast.clock import Clock, timeout
from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.session.key import SessionKey
from holdfast.session.lifecycle import State
from holdfast.session.roster import Roster
from holdfast.session.session import Session


class Lender(Protocol):
    """What lending asks of the pool."""

    @property
    def parting(self) -> str | None:
        """Why no session is opened any more; None while the pool serves."""
        ...

    def held_by(self, key: SessionKey | None) -> Session | None:
        """The session of `key`, be it open or opening."""
        ...

    def refusal_for(self, key: SessionKey | None) -> OpenFailed | None:
        """Why no session for `key`, or no spare, can be opened soon; None where one can."""
        ...

    def may_open(self, key: SessionKey | None) -> bool:
        """Whether a session for `key`, or a spare, may be opened now without another making way."""
        ...

    def open_for(self, key: SessionKey | None) -> Session:
        """Begin to open a session for `key`, or a spare."""
        ...

    def given_back(self, session: Session) -> None:
        """A lease of `session` that was none of a call has ended."""


class Lending:
    """Finds a session to ask the server something of our own, and holds it meanwhile."""

    def __init__(self, lender: Lender, settings: ServerSettings, roster: Roster, clock: Clock) -> None:
        self._lender = lender
        self.settings = settings
        self._roster = roster
        self._clock = clock

    @asynccontextmanager
    async def borrow(self, prefer: SessionKey | None, *, unused: bool) -> AsyncGenerator[Session]:
        """A session, held while the block runs: see `Pool.borrow`."""
        session = await self._find(prefer, unused=unused)
        session.lease()
        try:
            yield session
        finally:
            session.release()
            self._lender.given_back(session)

    @property
    def can_lend_unused(self) -> bool:
        """Whether there is a session that nobody used, or room for one."""
        return self._roster.has_room or any(session.is_spare for session in self._roster)

    async def _find(self, prefer: SessionKey | None, *, unused: bool) -> Session:
        opens_own = prefer is not None and (prefer.is_shared or (bool(prefer.passed) and not prefer.is_private))
        own = prefer if opens_own else None
        limit = self.settings.acquire_timeout
        give_up_at = self._clock.now() + limit
        while True:
            if self._lender.parting is not None:
                raise OpenFailed(self._lender.parting)
            session = self._present(prefer, unused=unused)
            if session is None:
                if (refusal := self._lender.refusal_for(own)) is not None:
                    raise refusal
                if not self._lender.may_open(own):
                    try:
                        async with timeout(self._clock, give_up_at - self._clock.now()):
                            await asyncio.shield(self._roster.next_room())
                    except TimeoutError:
                        raise OpenFailed(f"no session came free within {limit:g} s") from None
                    continue
                session = self._lender.open_for(own)
            try:
                await asyncio.shield(session.opened)
            except OpenFailed:
                was_ended = session.state is State.CLOSED  # by whoever it was for: that says nothing of the server
                if not was_ended or self._lender.parting is not None or self._clock.now() >= give_up_at:
                    raise
            if session.is_open and _may_lend(session, prefer, unused=unused):
                return session

    def _present(self, prefer: SessionKey | None, *, unused: bool) -> Session | None:
        held = self._lender.held_by(prefer)
        if held is not None and not unused:
            return held
        usable = [s for s in self._roster if _may_lend(s, prefer, unused=unused)]
        ready = [s for s in usable if s.is_open]
        if ready:
            # Lists of a server of both eras are kept as older revisions have them.
            return min(ready, key=lambda s: (s.hello is not None and s.hello.could_shake_hands, s.leases))
        return next((s for s in usable if s.state is State.OPENING), None)


def _may_lend(session: Session, prefer: SessionKey | None, *, unused: bool) -> bool:
    """A spare may have been handed to a chat while it was waited for.

    What a server says under a caller's own credential is that caller's.
    """
    key = session.key
    if unused or key is None:
        return key is None
    return key == prefer or not (key.is_private or key.has_own_credential)
