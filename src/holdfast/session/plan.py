"""How a key gets a session, and which sessions are over: decisions that touch nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from holdfast.session.lifecycle import State


class View(Protocol):
    """What a decision may know of a session."""

    @property
    def state(self) -> State:
        """Where it stands."""
        ...

    @property
    def is_spare(self) -> bool:
        """Opened ahead, never used by anyone."""
        ...

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for what it may announce."""
        ...

    @property
    def opened_at(self) -> float:
        """When it became ready, by the injected clock."""
        ...

    @property
    def last_used_at(self) -> float:
        """When its last call ended, by the injected clock."""
        ...


V = TypeVar("V", bound=View)


@dataclass(frozen=True, slots=True)
class Adopt(Generic[V]):
    """Hand over a spare."""

    spare: V


@dataclass(frozen=True, slots=True)
class Open:
    """There is room: open a session."""


@dataclass(frozen=True, slots=True)
class Evict(Generic[V]):
    """Close an idle session; its room is free when it has closed."""

    victim: V


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done until a session ends or falls idle."""


def plan(sessions: Iterable[V], limit: int, line: int) -> Adopt[V] | Open | Evict[V] | Wait:
    """Decide how the first of `line` waiting keys, none of which has a session, is served.

    `sessions` are all that take up room, those that are still closing included.
    """
    present = list(sessions)
    spares = [s for s in present if s.is_spare and s.state is State.IDLE]
    if spares:
        return Adopt(max(spares, key=lambda s: s.opened_at))
    if len(present) < limit:
        return Open()
    leaving = sum(s.state in {State.CLOSED, State.LOST, State.DRAINING} for s in present)
    if leaving >= line:
        return Wait()
    idle = [s for s in present if s.state is State.IDLE]
    return Evict(min(idle, key=lambda s: s.last_used_at)) if idle else Wait()


def expired(
    sessions: Iterable[V], now: float, *, idle_timeout: float, spare_ttl: float, max_age: float | None, spares: int
) -> list[V]:
    """The idle sessions that are over at `now`, oldest first.

    Spares beyond the number asked for are over after `spare_ttl` seconds; a session for whose updates
    somebody waits is used, even without calls.
    """
    idle = [s for s in sessions if s.state is State.IDLE]
    kept = sorted((s for s in idle if s.is_spare), key=lambda s: s.opened_at, reverse=True)[:spares]
    over = [
        s
        for s in idle
        if (max_age is not None and now - s.opened_at >= max_age)
        or (s not in kept and not s.is_awaited and now - s.last_used_at >= (spare_ttl if s.is_spare else idle_timeout))
    ]
    return sorted(over, key=lambda s: s.last_used_at)
