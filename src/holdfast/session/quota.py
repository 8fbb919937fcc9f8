"""How many sessions a user may have with all servers together, and the gateway in all."""

from __future__ import annotations

from typing import Protocol

from holdfast.config import Limits
from holdfast.session.key import Principal, SessionKey
from holdfast.session.lifecycle import State
from holdfast.session.place import Place
from holdfast.session.session import Session


class Holder(Protocol):
    """A pool, as the quota sees it."""

    def evict(self, session: Session, reason: str) -> None:
        """End an idle session of this pool to make room."""

    def resume(self, place: Place) -> None:
        """A key that waited for the quota may ask again."""


class Quota:
    """The open sessions of all pools, by whose they are; without `limits` there is no limit.

    Sessions that are lost or closing do not count. Who is over its own limit loses its own sessions,
    never somebody else's; where the whole gateway is full, spares make way, and nobody else does.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self._holders: dict[Session, Holder] = {}
        self._spares: dict[Session, None] = {}
        self._users: dict[Principal, dict[Session, None]] = {}
        self.waiting: dict[Principal | None, dict[Place, Holder]] = {}
        """By the user whose limit keys wait for, first come first; None for the limit of all."""
        self._is_making_room = False

    def __len__(self) -> int:
        return len(self._holders)

    def reconfigure(self, limits: Limits) -> None:
        """Let other limits hold from now on; what exceeds them stays until its user opens more."""
        self._limits = limits
        for user in list(self.waiting):
            self._serve(user)

    @property
    def has_room(self) -> bool:
        """Whether the gateway may have one more session."""
        return self._limits is None or len(self._holders) < self._limits.sessions

    def fits(self, key: SessionKey) -> bool:
        """Whether `key` may have one more session without another making way."""
        return self.has_room and not self._is_over(_user(key))

    # Sessions come and go.

    def enter(self, session: Session, holder: Holder) -> None:
        """`session` begins to open, for its key or as a spare."""
        self._holders[session] = holder
        self.adopted(session)
        if session.key is None:
            self._spares[session] = None

    def adopted(self, session: Session) -> None:
        """A spare has become the session of a key."""
        self._spares.pop(session, None)
        user = _user(session.key)
        if user is not None:
            self._users.setdefault(user, {})[session] = None

    def leave(self, session: Session) -> None:
        """`session` ends or is lost; whoever waited for that is served. Idempotent."""
        if self._holders.pop(session, None) is None:
            return
        self._spares.pop(session, None)
        user = _user(session.key)
        if user is not None:
            del self._users[user][session]
            if not self._users[user]:
                del self._users[user]
        self.stirred(session)

    def stirred(self, session: Session) -> None:
        """`session` has left or fallen idle: whoever waited for that is served."""
        if self.waiting and not self._is_making_room:
            user = _user(session.key)
            if user is not None:
                self._serve(user)
            self._serve(None)

    # Keys that want one.

    def admits(self, place: Place, holder: Holder, *, adopts: bool) -> bool:
        """Whether `place` may be given a session at once; what must make way for it has been ended then.

        If not, it waits here until `Holder.resume`. `adopts`: it is given a spare, which counts already.
        """
        user = _user(place.key)
        if self._is_over(user):
            victim, waits_for = self._longest_idle(user), user
        elif adopts or self.has_room:
            return True
        else:
            victim, waits_for = next((s for s in self._spares if s.state is State.IDLE), None), None
        if victim is None:
            self.waiting.setdefault(waits_for, {})[place] = holder
            return False
        self._is_making_room = True
        try:
            self._holders[victim].evict(victim, self._why(waits_for))
        finally:
            self._is_making_room = False
        return True

    def own_victim(self, key: SessionKey, holder: Holder) -> Session | None:
        """The session with this server that `key`'s user must lose before anybody else loses one."""
        user = _user(key)
        return self._longest_idle(user, holder) if self._is_over(user) else None

    def bars(self, key: SessionKey) -> bool:
        """Whether the user of `key` is at its limit and has nothing that could make way."""
        user = _user(key)
        return self._is_over(user) and self._longest_idle(user) is None

    def withdraw(self, place: Place) -> None:
        """`place` waits no longer."""
        if self.waiting:
            for user in (_user(place.key), None):
                waiting = self.waiting.get(user)
                if waiting is not None and waiting.pop(place, None) is not None and not waiting:
                    del self.waiting[user]

    def reason(self, place: Place) -> str | None:
        """What `place` waits for, if it is a limit of the quota."""
        for user in (_user(place.key), None):
            if place in self.waiting.get(user, ()):
                return self._why(user)
        return None

    def is_crowded(self, place: Place) -> bool:
        """Whether the user of `place` has more keys waiting for its limit than it may have sessions."""
        user = _user(place.key)
        return (
            user is not None
            and self._limits is not None
            and len(self.waiting.get(user, ())) > self._limits.sessions_per_user
        )

    # Inside.

    def _is_over(self, user: Principal | None) -> bool:
        """Whether `user` has as many sessions as it may have."""
        if user is None or self._limits is None:
            return False
        return len(self._users.get(user, ())) >= self._limits.sessions_per_user

    def _longest_idle(self, user: Principal | None, holder: Holder | None = None) -> Session | None:
        """Of the sessions of `user`, with one server or with all."""
        own = self._users.get(user, ()) if user is not None else ()
        idle = [s for s in own if s.state is State.IDLE and (holder is None or self._holders[s] is holder)]
        return min(idle, key=lambda s: s.last_used_at, default=None)

    def _why(self, user: Principal | None) -> str:
        if self._limits is None:
            return ""
        if user is None:
            return f"the gateway has {self._limits.sessions} sessions"
        return f"the user has {self._limits.sessions_per_user} sessions"

    def _serve(self, user: Principal | None) -> None:
        """Let those ask again who wait for `user`, for as long as there is something to have."""
        while (waiting := self.waiting.get(user)) and self._has_way(user):
            place = next(iter(waiting))
            holder = waiting[place]
            self.withdraw(place)
            holder.resume(place)

    def _has_way(self, user: Principal | None) -> bool:
        if user is None:
            return self.has_room or any(s.state is State.IDLE for s in self._spares)
        return not self._is_over(user) or self._longest_idle(user) is not None


def _user(key: SessionKey | None) -> Principal | None:
    """Whose limit a session of `key` counts for: that of a named user."""
    principal = None if key is None else key.principal
    return principal if principal is not None and principal.user is not None else None
