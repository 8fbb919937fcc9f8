"""How a key gets a session, and which sessions are over: decisions that touch nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from holdfast.session.key import Principal
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
    def principal(self) -> Principal | None:
        """Whose it is; None where it is nobody's, or everybody's."""
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
    """Hand a spare to the one whose `turn` it is in line."""

    turn: int
    spare: V


@dataclass(frozen=True, slots=True)
class Open:
    """There is room: open a session for the one whose `turn` it is."""

    turn: int


@dataclass(frozen=True, slots=True)
class Evict(Generic[V]):
    """Close an idle session on behalf of the one whose `turn` it is; its room is free when it has closed."""

    turn: int
    victim: V


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done until a session ends or falls idle."""


def plan(
    sessions: Iterable[V], limit: int, line: Sequence[Principal | None], *, unfit: Container[int] = ()
) -> Adopt[V] | Open | Evict[V] | Wait:
    """Decide what is done for `line`: whose keys wait, none of which has a session, first come first.

    `sessions` are all that take up room, those that are still closing included. A user who holds more
    than its share of `limit` comes after those who do not, and loses its own sessions before theirs.
    Those at the places `unfit` of `line` can take no spare.
    """
    present = list(sessions)
    spares = [s for s in present if s.is_spare and s.state is State.IDLE]
    adopting = [turn for turn in _turns(present, limit, line) if turn not in unfit] if spares else []
    if adopting:
        return Adopt(adopting[0], max(spares, key=lambda s: s.opened_at))
    if len(present) < limit:
        return Open(_turns(present, limit, line)[0])
    leaving = sum(s.state in {State.CLOSED, State.LOST, State.DRAINING} for s in present)
    idle = [s for s in present if s.state is State.IDLE]
    if not idle or leaving >= len(line):
        return Wait()
    greedy = _greedy(present, limit)
    for turn in _turns(present, limit, line)[leaving:]:  # the room of those that leave is the first ones'
        whose = line[turn]
        victims = [s for s in idle if s.principal == whose] if whose in greedy else idle
        if victims:
            return Evict(turn, min(victims, key=lambda s: s.last_used_at))
    return Wait()


def _turns(present: list[V], limit: int, line: Sequence[Principal | None]) -> Sequence[int]:
    """The order in which `line` is served."""
    if len(line) == 1:
        return (0,)
    greedy = _greedy(present, limit)
    return sorted(range(len(line)), key=lambda turn: line[turn] in greedy)


def _greedy(present: list[V], limit: int) -> set[Principal]:
    """The users who hold more than their share: `limit` divided by all who hold any."""
    held = Counter(s.principal for s in present if s.principal is not None)
    return {who for who, count in held.items() if who.user is not None and count * len(held) > limit}


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
