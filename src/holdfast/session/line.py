"""The line of keys that wait for a session, and how each gets one."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.session.breaker import Breaker
from holdfast.session.key import SessionKey
from holdfast.session.place import Place, Places
from holdfast.session.plan import Adopt, Evict, Wait, plan
from holdfast.session.quota import Holder, Quota
from holdfast.session.roster import Roster
from holdfast.session.session import Session


class Opener(Holder, Protocol):
    """What the line asks of the pool."""

    @property
    def parting(self) -> str | None:
        """Why no session is opened any more; None while the pool serves."""
        ...

    def refusal_for(self, key: SessionKey | None) -> OpenFailed | None:
        """Why no session for `key` can be opened soon; None where one can."""
        ...

    def adopt(self, place: Place, spare: Session) -> None:
        """Give a spare to a key."""

    def open(self, place: Place) -> Session:
        """Begin to open a session for a key."""
        ...

    def refuse_all(self, place: Place, refusal: OpenFailed) -> None:
        """Tell the calls of a key that no session can be opened."""

    def overload_all(self, place: Place, limit: str) -> None:
        """Tell the calls of a key that a limit of ours is reached."""


class Line:
    """Serves keys first come first, as far as the server's limit, its users' and the gateway's allow."""

    def __init__(
        self,
        opener: Opener,
        settings: ServerSettings,
        *,
        roster: Roster,
        places: Places,
        quota: Quota,
        breaker: Breaker,
    ) -> None:
        self._breaker = breaker
        self._opener = opener
        self.settings = settings
        self._roster = roster
        self._places = places
        self._quota = quota

    def join(self, place: Place) -> None:
        """Let `place` wait for a session, unless it does; serve whom there is room for."""
        if self._quota.reason(place) is None:
            self._places.queue(place)
            self.move()

    def move(self) -> None:
        """Serve the line as far as there is room."""
        while self._places.line and self._opener.parting is None:
            line = list(self._places.line)
            step = plan(
                self._roster,
                self.settings.session_limit,
                [place.key.principal for place in line],
                unfit=self._unfit(line),
            )
            if isinstance(step, Wait):
                return
            place = line[step.turn]
            if isinstance(step, Adopt):
                self._give(place, step)
            elif (refusal := self._opener.refusal_for(place.key)) is not None:
                del self._places.line[place]
                self._opener.refuse_all(place, refusal)  # the next attempt is not near, so they are told at once
            elif not self._breaker.passes:
                return  # another shows whether the server is back
            elif isinstance(step, Evict) and not self._quota.bars(place.key):
                victim = self._quota.own_victim(place.key, self._opener) or step.victim
                self._opener.evict(victim, "evicted to make room")
            else:
                self._give(place, None)

    def _unfit(self, line: Sequence[Place]) -> Container[int]:
        """Who can take no spare: it bears no caller's headers, declares all, and has shaken hands where it could."""
        if self.settings.pass_headers:
            return range(len(line))
        is_other = any(place.key.prefers_modern for place in line) and any(map(_is_of_the_other_era, self._roster))
        return [n for n, place in enumerate(line) if not place.key.may_adopt or (is_other and place.key.prefers_modern)]

    def _give(self, place: Place, adopt: Adopt[Session] | None) -> None:
        """Give `place` a spare or a session of its own, if the quota lets it; else it waits there."""
        del self._places.line[place]
        if not self._quota.admits(place, self._opener, adopts=adopt is not None):
            if self._quota.is_crowded(place):
                self._opener.overload_all(place, self._quota.reason(place) or "")
        elif adopt is not None:
            self._opener.adopt(place, adopt.spare)
        else:
            self._opener.open(place)


def _is_of_the_other_era(session: Session) -> bool:
    """Whether it is a spare that has shaken hands with a server that speaks 2026-07-28 as well."""
    return session.is_spare and session.hello is not None and session.hello.speaks_both and not session.hello.is_modern
