"""The states of a session and every way between them. The table is the specification."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from holdfast.errors import InvalidTransition


class State(StrEnum):
    """Where a session stands."""

    NEW = "new"
    OPENING = "opening"
    IDLE = "idle"
    """Open, nothing in flight."""
    ACTIVE = "active"
    DRAINING = "draining"
    """Takes no new calls; closed when the last one ends."""
    LOST = "lost"
    CLOSED = "closed"


class Event(StrEnum):
    """What happens to a session."""

    OPEN = "open"
    READY = "ready"
    LEASED = "leased"
    LAST_RETURNED = "last_returned"
    DRAIN = "drain"
    LOSE = "lose"
    CLOSE = "close"


NEXT: Final[Mapping[tuple[State, Event], State]] = {
    (State.NEW, Event.OPEN): State.OPENING,
    (State.NEW, Event.CLOSE): State.CLOSED,
    (State.OPENING, Event.READY): State.IDLE,
    (State.OPENING, Event.LOSE): State.LOST,
    (State.OPENING, Event.CLOSE): State.CLOSED,
    (State.IDLE, Event.LEASED): State.ACTIVE,
    (State.IDLE, Event.DRAIN): State.DRAINING,
    (State.IDLE, Event.LOSE): State.LOST,
    (State.IDLE, Event.CLOSE): State.CLOSED,
    (State.ACTIVE, Event.LAST_RETURNED): State.IDLE,
    (State.ACTIVE, Event.DRAIN): State.DRAINING,
    (State.ACTIVE, Event.LOSE): State.LOST,
    (State.ACTIVE, Event.CLOSE): State.CLOSED,
    (State.DRAINING, Event.LAST_RETURNED): State.DRAINING,
    (State.DRAINING, Event.LOSE): State.LOST,
    (State.DRAINING, Event.CLOSE): State.CLOSED,
    (State.LOST, Event.LAST_RETURNED): State.LOST,
    (State.LOST, Event.CLOSE): State.CLOSED,
    (State.CLOSED, Event.LAST_RETURNED): State.CLOSED,
}

OPEN: Final = frozenset({State.IDLE, State.ACTIVE})
"""States in which a session takes calls."""


def advance(state: State, event: Event) -> State:
    """The state after `event`. Raises `InvalidTransition` where the table has no such edge."""
    try:
        return NEXT[state, event]
    except KeyError:
        raise InvalidTransition(f"{event} does not happen to a session that is {state}") from None
