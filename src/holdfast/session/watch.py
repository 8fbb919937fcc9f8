"""Who hears what belongs to no call: the client sessions attached to a key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol, TypeVar

from msgspec import Raw

from holdfast.call import LOG_LEVELS, Abilities, Ask, AskId, Reply
from holdfast.session.key import Principal, SessionKey
from holdfast.wire import jsonrpc

CANCELLED = Reply(result=Raw(b'{"action":"cancel"}'))
NO_ROOTS = Reply(result=Raw(b'{"roots":[]}'))
NOT_HERE = Reply(error=Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, "There is nobody here who can answer this.")))


class Watcher(Protocol):
    """A client session as the sessions that it uses see it."""

    @property
    def log_level(self) -> str | None:
        """The level it set; None where it set none."""
        ...

    @log_level.setter
    def log_level(self, level: str | None) -> None: ...

    @property
    def listens(self) -> bool:
        """It is there for changes and nothing else: what announces them is kept for it."""
        ...

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        """The resource URIs it subscribed to in the sessions of `key`; the server's face keeps the set."""
        ...

    @property
    def principal(self) -> Principal:
        """Whose session it is."""
        ...

    @property
    def abilities(self) -> Abilities:
        """What it can be asked while none of its calls runs; nothing without a push stream."""
        ...

    def push(self, method: str, params: Raw | None) -> None:
        """Deliver a notification that belongs to no call."""

    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        """Put a question that belongs to no call."""

    def withdraw(self, ask_id: AskId) -> None:
        """Take a question back."""


def answer_for_nobody(ask: Ask) -> Reply:
    """The answer where nobody can be asked: always the same, so that servers can rely on it."""
    match ask.method:
        case "elicitation/create":
            return CANCELLED
        case "roots/list":
            return NO_ROOTS
        case _:
            return NOT_HERE


R = TypeVar("R")


def only(items: Collection[R]) -> R | None:
    """The one item, or None where there are none or several."""
    return next(iter(items)) if len(items) == 1 else None


def lowest_level(watchers: Collection[Watcher]) -> str | None:
    """The most talkative log level that any of `watchers` set."""
    return lowest(w.log_level for w in watchers)


def lowest(levels: Iterable[str | None]) -> str | None:
    """The most talkative of these log levels; None where there is none."""
    known = [LOG_LEVELS.index(level) for level in levels if level in LOG_LEVELS]
    return LOG_LEVELS[min(known)] if known else None


def subscribers(watchers: Collection[Watcher], key: SessionKey | None, uri: str) -> list[Watcher]:
    """Those to tell that `uri` changed in the session of `key`: it may lie below what they subscribed to."""
    return [
        w for w in watchers if any(uri == s or uri.startswith(s.rstrip("/") + "/") for s in w.subscriptions_of(key))
    ]
