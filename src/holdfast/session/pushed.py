"""Questions of a session that belong to none of its calls, put to who listens to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from holdfast.call import Ask, AskId, Reply
from holdfast.clock import Clock, Timer
from holdfast.session.watch import Watcher

MAX_ASKS: Final = 100
"""Questions of one call, or of one session beside its calls, that may be open: people answer one at a time."""


class Questioned(Protocol):
    """The session that the questions came in."""

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        """Give the server an answer."""

    def decline(self, ask: Ask) -> None:
        """Answer a question for which there is nobody."""


@dataclass(frozen=True, slots=True)
class _PushedAsk:
    ask: Ask
    to: Watcher
    timer: Timer


class PushedAsks:
    """Those that are open: each is answered once, by whom it was put to or, in the end, for that one."""

    def __init__(self, session: Questioned, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._open: dict[AskId, _PushedAsk] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more may be put to somebody."""
        return len(self._open) < MAX_ASKS

    def put(self, ask: Ask, watcher: Watcher, timeout: float) -> None:
        """Ask `watcher`, who has `timeout` seconds."""
        timer = self._clock.call_later(timeout, partial(self._give_up, ask.id))
        self._open[ask.id] = _PushedAsk(ask, watcher, timer)
        watcher.ask(ask, partial(self._reply, ask.id))

    def withdraw(self, ask_id: AskId) -> bool:
        """The server takes a question back; whether it was one of these."""
        pushed = self._close(ask_id)
        if pushed is not None:
            pushed.to.withdraw(ask_id)
        return pushed is not None

    def withdraw_all(self) -> None:
        """The session is over: nobody need answer any more."""
        for ask_id in list(self._open):
            self.withdraw(ask_id)

    def leave(self, watcher: Watcher) -> None:
        """`watcher` is not there any more: what it was asked is answered for it."""
        for pushed in [pushed for pushed in self._open.values() if pushed.to is watcher]:
            self._close(pushed.ask.id)
            self._session.decline(pushed.ask)

    def _reply(self, ask_id: AskId, reply: Reply) -> None:
        if self._close(ask_id) is not None:
            self._session.reply(ask_id, reply)

    def _give_up(self, ask_id: AskId) -> None:
        pushed = self._close(ask_id)
        if pushed is not None:
            pushed.to.withdraw(ask_id)
            self._session.decline(pushed.ask)

    def _close(self, ask_id: AskId) -> _PushedAsk | None:
        pushed = self._open.pop(ask_id, None)
        if pushed is not None:
            pushed.timer.cancel()
        return pushed
