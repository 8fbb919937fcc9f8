"""Handles: names by which callers come back to sessions that they have opened themselves.

A handle is a name within its principal, as a chat is, and no right: it is worth nothing without the
key that it was opened under, which is compared whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from holdfast.call import ANYBODY
from holdfast.clock import Clock
from holdfast.config import Limits
from holdfast.session.key import KeyScope, Principal, SessionKey, is_of

PREFIX: Final = "hs_"
_BYTES: Final = 16
"""SEP-2567 asks for 128 bits where nothing but the handle tells callers apart: a gateway without keys."""


class Keeper(Protocol):
    """What keeps the sessions behind handles: a server."""

    @property
    def idle_timeout(self) -> float:
        """Seconds without a call after which a handle ends."""
        ...

    def end(self, key: SessionKey) -> None:
        """End the session behind a handle that is no more; nobody can come back for it."""


@dataclass(eq=False, slots=True)
class Handle:
    """One name."""

    name: str
    key: SessionKey
    keeper: Keeper
    used_at: float
    """When its last call began or ended."""
    calls: int = 0
    """Those that run in its session, or wait for it."""

    def key_for(self, key: SessionKey) -> SessionKey:
        """Its key, for whoever calls with `key`: equal, and the tasks that a call begins are that caller's."""
        return _behind(key, self.key.scope, self.name)


class Handles:
    """Every handle of the gateway, by whose it is.

    They are bounded as sessions are: who has too many loses its own that has been idle longest.
    Expired ones are dropped when somebody looks, so no task and no timer belongs to them.
    """

    def __init__(self, clock: Clock, limits: Limits | None = None) -> None:
        """Without `limits` there is no limit."""
        self._clock = clock
        self._limits = limits
        self._by_name: dict[str, Handle] = {}
        self._of: dict[Principal | None, dict[Handle, None]] = {}
        self._kept: dict[Keeper, dict[Handle, None]] = {}
        """These two with the longest unused first."""

    def __len__(self) -> int:
        return len(self._by_name)

    def reconfigure(self, limits: Limits) -> None:
        """Go by other limits from now on; handles beyond them stay until their owner opens more."""
        self._limits = limits

    def open(self, key: SessionKey, scope: KeyScope, keeper: Keeper) -> Handle | None:
        """A new handle for whoever calls with `key`; None where there are too many, and none that may make way."""
        for kept in list(self._kept):
            self._expire(kept)
        while self._is_full(key.principal):
            victim = next((each for each in self._of.get(key.principal, ()) if not each.calls), None)
            if victim is None:
                return None
            self.close(victim)
        name = PREFIX + secrets.token_hex(_BYTES)
        handle = Handle(name, _behind(key, scope, name), keeper, self._clock.now())
        self._by_name[name] = handle
        self._stamp(handle)
        return handle

    def find(self, name: str, key: SessionKey, scope: KeyScope, keeper: Keeper) -> Handle | None:
        """The handle of that name, if it is of whoever calls with `key`: another's is as unknown as none."""
        self._expire(keeper)
        handle = self._by_name.get(name)
        if handle is None or handle.keeper is not keeper or handle.key != _behind(key, scope, name):
            return None
        return handle

    def owner_of(self, name: str) -> Principal | None:
        """Whose handle has that name."""
        handle = self._by_name.get(name)
        return None if handle is None else handle.key.principal

    def enter(self, handle: Handle) -> None:
        """A call begins in its session; it does not end before `leave`."""
        handle.calls += 1
        self._stamp(handle)

    def leave(self, handle: Handle) -> None:
        """A call of its session has ended."""
        handle.calls -= 1
        if self._by_name.get(handle.name) is handle:
            self._stamp(handle)

    def close(self, handle: Handle) -> None:
        """Forget a handle, and end its session."""
        self._forget(handle)
        handle.keeper.end(handle.key)

    def drop(self, keeper: Keeper, client: str | None = None, user: str | None = None) -> None:
        """Forget the handles of `keeper`, or those of one configured client there, or of one user of that client.

        Sessions without calls end at once, the others in time.
        """
        for handle in list(self._kept.get(keeper, ())):
            if client is None or is_of(handle.key.principal, client, user):
                self._forget(handle)
                if not handle.calls:
                    keeper.end(handle.key)

    def move(self, old: Keeper, new: Keeper, renew: Callable[[SessionKey], SessionKey]) -> None:
        """Let the handles of `old` lead to `new`, which takes its place, each to the key that `renew` gives."""
        for handle in list(self._kept.pop(old, ())):
            handle.keeper, handle.key = new, renew(handle.key)
            self._kept.setdefault(new, {})[handle] = None

    # Inside.

    def _is_full(self, principal: Principal | None) -> bool:
        limits = self._limits
        if limits is None:
            return False
        is_named = principal is not None and principal.user is not None
        return len(self) >= limits.sessions or (
            is_named and len(self._of.get(principal, ())) >= limits.sessions_per_user
        )

    def _expire(self, keeper: Keeper) -> None:
        """Drop what nobody used in time; the order makes it cheap to ask again and again."""
        now, idle_timeout = self._clock.now(), keeper.idle_timeout
        expired: list[Handle] = []
        for handle in self._kept.get(keeper, ()):
            if handle.calls:
                continue
            if now - handle.used_at < idle_timeout:
                break
            expired.append(handle)
        for handle in expired:
            self.close(handle)

    def _stamp(self, handle: Handle) -> None:
        """It is used now."""
        handle.used_at = self._clock.now()
        for group in (self._of.setdefault(handle.key.principal, {}), self._kept.setdefault(handle.keeper, {})):
            group.pop(handle, None)
            group[handle] = None

    def _forget(self, handle: Handle) -> None:
        del self._by_name[handle.name]
        own, kept = self._of[handle.key.principal], self._kept[handle.keeper]
        del own[handle], kept[handle]
        if not own:
            del self._of[handle.key.principal]
        if not kept:
            del self._kept[handle.keeper]


def _behind(key: SessionKey, scope: KeyScope, name: str) -> SessionKey:
    """The key of the session behind a handle, for whoever calls with `key`.

    A server that speaks both eras is spoken to in the one in which its sessions remember.
    """
    return replace(
        key,
        scope=scope,
        scope_id=f"handle:{name}",
        ends_with_client=False,
        lacks="",
        declares=ANYBODY,
        prefers_modern=False,
    )
