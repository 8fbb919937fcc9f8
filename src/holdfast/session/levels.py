"""The log level that calls want of their session's server; only requests of 2026-07-28 say one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from holdfast.call import Result, RpcError
from holdfast.clock import Clock
from holdfast.session.running import Phase, RunningCall
from holdfast.session.session import Session
from holdfast.session.watch import lowest
from holdfast.upstream.transport import Fault, FaultKind

logger = logging.getLogger("holdfast.session")

LEVEL_TIMEOUT: Final = 5.0
"""Seconds for which a call waits for the server to take its level; then it goes on without."""


class Levels:
    """Sets sessions to the lowest level that a call in them wants, and holds the call until that is done.

    A level is only ever lowered here, and where nobody set one it counts as `info`: what is too much for one call is
    kept from its client.
    """

    def __init__(self, go_on: Callable[[RunningCall, Session], None], clock: Clock) -> None:
        self._go_on = go_on
        self._clock = clock
        self._held: dict[Session, list[RunningCall]] = {}

    def holds(self, run: RunningCall, session: Session) -> bool:
        """Whether `run` must wait for its level; it goes on by itself."""
        level = run.call.log_level
        if level is None or not session.lacks_level(level):
            return False
        run.wait(None)
        if session in self._held:
            self._held[session].append(run)
        else:
            self._held[session] = [run]
            self._set(session, level)
        return True

    def waiting_in(self, session: Session) -> list[RunningCall]:
        """The calls that wait for a level of `session`."""
        return list(self._held.get(session, ()))

    @property
    def waiting(self) -> list[RunningCall]:
        """All that wait."""
        return [run for runs in self._held.values() for run in runs]

    def leave(self, run: RunningCall) -> None:
        """`run` waits no longer."""
        held = self._held.get(run.session) if run.session is not None else None
        if held is not None and run in held:
            held.remove(run)

    def _set(self, session: Session, level: str) -> None:
        session.called_level = lowest((session.called_level, level))
        wanted = session.wanted_level or level
        inquiry, sent = session.inquire("logging/setLevel", {"level": wanted})

        def give_up() -> None:
            sent.cancel("no answer")
            inquiry.failed(Fault(FaultKind.TIMEOUT, "no answer to logging/setLevel"))

        timer = self._clock.call_later(LEVEL_TIMEOUT, give_up)
        inquiry.outcome.add_done_callback(lambda _: timer.cancel())
        inquiry.outcome.add_done_callback(partial(self._done, session, wanted))

    def _done(self, session: Session, level: str, done: asyncio.Future[Result | RpcError | Fault]) -> None:
        held, outcome = self._held.pop(session, []), done.result()
        if not isinstance(outcome, Result):
            logger.warning("%s: its log level could not be set", session.id)
        if not isinstance(outcome, Fault):
            session.level = level  # a server that refuses is not asked again for each call
        for run in held:
            if run.phase is not Phase.WAITING or run.session is not session or not session.is_open:
                continue
            if isinstance(outcome, Fault) or not self.holds(run, session):  # it may want a lower one than the first
                self._go_on(run, session)
