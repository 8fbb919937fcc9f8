"""What happened, as values: the pool emits them, the log and the terminal show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SessionOpening:
    """A connection to a server is being made."""

    server: str
    session: str


@dataclass(frozen=True, slots=True)
class SessionReady:
    """A session is open; `seconds` from the first attempt."""

    server: str
    session: str
    seconds: float
    is_reopened: bool


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """A session could not be opened; `reason` says why, and `advice` what the operator can do, if that is known."""

    server: str
    session: str
    reason: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class SessionLost:
    """An open session turned out to be gone; `was_dirty` if it remembered something."""

    server: str
    session: str
    reason: str
    was_dirty: bool


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """We ended a session; `was_dirty` if its next caller is told that what it remembered is gone."""

    server: str
    session: str
    reason: str
    was_dirty: bool = False


@dataclass(frozen=True, slots=True)
class ListsLearned:
    """The lists of a server are known; `tools` counts its tools."""

    server: str
    tools: int


@dataclass(frozen=True, slots=True)
class CallUnnamed:
    """A call did not name its chat or its user (`lacks`), so it runs in a private session that ends with it."""

    server: str
    method: str
    lacks: str


@dataclass(frozen=True, slots=True)
class CallRepeated:
    """A call was sent a second time; `why` is the evidence that it may be."""

    server: str
    method: str
    why: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A server gave a call no answer, and said something about it that is for the operator alone."""

    server: str
    method: str
    reason: str


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call was not sent, because a limit of ours is reached."""

    server: str
    reason: str


Event: TypeAlias = (
    SessionOpening
    | SessionReady
    | SessionFailed
    | SessionLost
    | SessionClosed
    | ListsLearned
    | CallUnnamed
    | CallRepeated
    | CallFailed
    | CallRefused
)

Emit: TypeAlias = Callable[[Event], None]
