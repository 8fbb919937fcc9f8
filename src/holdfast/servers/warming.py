"""Opening a session ahead of its first call, and saying how that goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from holdfast.call import Outcome, Running, Status, StatusWord
from holdfast.clock import Clock
from holdfast.errors import CallFailed
from holdfast.servers.gathering import Deaf
from holdfast.servers.server import ServerConversation

LAST: Final = frozenset({StatusWord.READY, StatusWord.RESTORED, StatusWord.FAILED})
"""Words after which nothing more is said."""

Warmed: TypeAlias = Callable[[CallFailed | None], None]


class Warming(Deaf):
    """Opens the session of `conversation`; `tell` hears each status, and `then` why it failed, or None.

    The last status is `ready`, with what the server offers and how long it took, `restored` where the
    next call will be told of a loss, or `failed`.
    """

    def __init__(
        self, conversation: ServerConversation, clock: Clock, tell: Callable[[Status], None], then: Warmed
    ) -> None:
        self._conversation = conversation
        self._clock = clock
        self._tell = tell
        self._then = then
        self._begun = clock.now()

    def start(self) -> Running | None:
        """Begin; None where a session was open, and `then` has been called."""
        return self._conversation.server.pool.warm(self._conversation.key, self)

    def status(self, status: Status) -> None:
        if status.word not in LAST:
            self._tell(status)

    def answer(self, outcome: Outcome) -> None:
        server = self._conversation.server
        if isinstance(outcome, CallFailed):
            self._tell(Status(StatusWord.FAILED, outcome.message))
            self._then(outcome)
            return
        is_lost = server.pool.is_lost(self._conversation.key)
        what = "ready" if server.catalog.tools is None else f"{server.catalog.tools} tools"
        took = (self._clock.now() - self._begun) * 1000
        self._tell(Status(StatusWord.RESTORED if is_lost else StatusWord.READY, f"{what} in {took:.0f} ms"))
        self._then(None)
