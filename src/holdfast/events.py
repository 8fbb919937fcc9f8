"""What happened, as values: the pool emits them; the log, the terminal and the metrics show them.

`request` is the id of the HTTP request that brought a call, `key` the digest of a session's key.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct


class Ending(StrEnum):
    """Why we ended a session, for programs; `SessionClosed.reason` says it in a sentence."""

    IDLE = "idle"
    UNUSED_SPARE = "unused_spare"
    EVICTED = "evicted"
    """Another needed the room."""
    CLIENT_ENDED = "client_ended"
    """Its client's own session ended."""
    HANDLE_ENDED = "handle_ended"
    """The handle that named it was closed, expired, or made way for others of its owner."""
    CALL_ENDED = "call_ended"
    """It was private to a call."""
    OPERATOR = "operator"
    CLIENT_REMOVED = "client_removed"
    INVALIDATED = "invalidated"
    """The application said that its principal's sessions are worth nothing any more."""
    SERVER_REMOVED = "server_removed"
    """Removed, or replaced by another of its name."""
    SHUTDOWN = "shutdown"


class Limit(StrEnum):
    """Which limit a call was refused for, for programs; `CallRefused.reason` says it in a sentence."""

    QUEUE = "queue_full"
    WAIT = "acquire_timeout"
    SESSIONS = "sessions"
    """Of a user, or of the gateway."""


class Denial(StrEnum):
    """Why a request was not let in, for programs; `RequestDenied.reason` says it in a sentence."""

    NO_KEY = "no_key"
    UNKNOWN_KEY = "unknown_key"
    NO_OPERATOR_KEY = "no_operator_key"
    """The operator has set none, and the request may come from another machine."""
    UNSIGNED_USER = "unsigned_user"
    """It names a user without the token that proves it."""
    BAD_SIGNATURE = "bad_signature"
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 (a word for it)
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    BAD_TOKEN = "bad_token"  # noqa: S105 (a word for it)
    """It cannot be read, or lacks a claim."""
    FOREIGN_HOST = "foreign_host"
    FOREIGN_ORIGIN = "foreign_origin"


class SessionOpening(Struct, frozen=True):
    """A connection to a server is being made; `key` is the digest of whom it is for, empty for a spare."""

    server: str
    session: str
    key: str = ""


class SessionReady(Struct, frozen=True):
    """A session is open; `seconds` from the first attempt."""

    server: str
    session: str
    seconds: float
    is_reopened: bool
    key: str = ""


class SessionFailed(Struct, frozen=True):
    """A session could not be opened; `reason` says why, and `advice` what the operator can do, if that is known."""

    server: str
    session: str
    reason: str
    advice: str = ""


class SessionLost(Struct, frozen=True):
    """An open session turned out to be gone; `was_dirty` if it remembered something."""

    server: str
    session: str
    reason: str
    was_dirty: bool
    key: str = ""


class SessionClosed(Struct, frozen=True):
    """We ended a session; `was_dirty` if its next caller is told that what it remembered is gone."""

    server: str
    session: str
    reason: str
    was_dirty: bool = False
    key: str = ""
    kind: Ending = Ending.IDLE


class ListsLearned(Struct, frozen=True):
    """The lists of a server are known; `tools` counts its tools."""

    server: str
    tools: int


class CallUnnamed(Struct, frozen=True):
    """A call did not name its chat or its user (`lacks`), so it runs in a private session that ends with it."""

    server: str
    method: str
    lacks: str
    request: str = ""


class CallRepeated(Struct, frozen=True):
    """A call was sent a second time; `why` is the evidence that it may be."""

    server: str
    method: str
    why: str
    request: str = ""


class CallFailed(Struct, frozen=True):
    """A server gave a call no answer, and said something about it that is for the operator alone."""

    server: str
    method: str
    reason: str
    request: str = ""


class CallRefused(Struct, frozen=True):
    """A call was not sent, because a limit of ours is reached."""

    server: str
    reason: str
    request: str = ""
    kind: Limit = Limit.QUEUE


class CallEnded(Struct, frozen=True):
    """A call was answered, `seconds` after it came, whether or not it was sent to the server.

    `outcome` is `result`, `error` for an error of the server's own, `cancelled`, or the name of our own
    `Code` in lower case.
    """

    server: str
    method: str
    outcome: str
    seconds: float
    request: str = ""


class SessionIdMisused(Struct, frozen=True):
    """`client` named a session with us that is another's; it was answered as if there were none.

    `owner` is the client whose session it is: the same one, where it is another user's.
    """

    server: str
    client: str
    owner: str
    request: str = ""


class RequestStateMisused(Struct, frozen=True):
    """`client` came with the `requestState` of a call that is another's; it was answered as if there were none.

    `owner` is the client whose call it is: the same one, where it is another user's.
    """

    server: str
    client: str
    owner: str
    request: str = ""


class RequestDenied(Struct, frozen=True):
    """An HTTP request was not let in, for its key, its token, or the address that it named or came from.

    Told once a minute for each `kind` and `address`, which is the client's, or its proxy's; empty where
    it is not known, or where there are too many to tell them apart. `more` were denied since the last
    one that was told. `reason` is what the client was told.
    """

    route: str
    address: str
    kind: Denial
    status: int
    reason: str
    more: int = 0
    request: str = ""


class CircuitOpened(Struct, frozen=True):
    """A server failed so often that it is left alone for `seconds`; then one attempt shows whether it is back."""

    server: str
    reason: str
    seconds: float


class CircuitClosed(Struct, frozen=True):
    """The attempt after `CircuitOpened` went well: calls flow again."""

    server: str


class ServerAdded(Struct, frozen=True):
    """A server is served from now on; `is_lazy` where nobody connects to it before the first call."""

    server: str
    is_lazy: bool = False


class ServerRemoved(Struct, frozen=True):
    """A server is not served any more; calls under way may still end."""

    server: str


class SettingsReloaded(Struct, frozen=True):
    """New settings are in force; the names of the servers that came, differ, and went."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What the operator may want to know, as that a change of `listen` waits for a restart."""
    clients: tuple[str, ...] = ()
    """The clients that came, differ, by a key perhaps, and went."""


class SettingsRefused(Struct, frozen=True):
    """New settings had mistakes, so those before stay in force; `reason` has a line for each."""

    reason: str


class RequestEnded(Struct, frozen=True):
    """An HTTP request was answered or refused; `route` is `mcp`, `api`, `metrics`, `health` or `other`."""

    route: str
    method: str
    status: int


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
    | CallEnded
    | SessionIdMisused
    | RequestStateMisused
    | RequestDenied
    | CircuitOpened
    | CircuitClosed
    | ServerAdded
    | ServerRemoved
    | SettingsReloaded
    | SettingsRefused
    | RequestEnded
)

Emit: TypeAlias = Callable[[Event], None]


def unheard(_: Event) -> None:
    """An `Emit` where nobody wants to know."""
