"""How many calls a server runs at once, and which waits for whom."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final

from holdfast.session.running import RunningCall
from holdfast.session.session import Session

MAX_PARKED: Final = 1000
"""Calls of one server that wait for a person and take no slot meanwhile."""


class Admission(Enum):
    """What becomes of a call that wants to be sent."""

    SEND = auto()
    QUEUED = auto()
    FULL = auto()


_SEND: Final = Admission.SEND


class Slots:
    """The slots of one server: `limit` calls sent, `queue` more waiting, in order.

    With `serial`, each session also runs one call at a time.
    """

    def __init__(self, limit: int, queue: int, *, serial: bool) -> None:
        self._limit = limit
        self._queue_limit = queue
        self._serial = serial
        self.sent = 0
        """Calls that hold a slot."""
        self.queue: deque[RunningCall] = deque()
        """The calls that wait for one, first come first."""
        self._busy: dict[Session, RunningCall] = {}
        self._parked: set[RunningCall] = set()

    @property
    def queued(self) -> int:
        """Calls that wait for one."""
        return len(self.queue)

    def resize(self, limit: int, queue: int) -> None:
        """Let other limits hold; what exceeds them ends by itself."""
        self._limit, self._queue_limit = limit, queue

    def admit(self, run: RunningCall) -> Admission:
        """Take a slot for `run`, or a place in the queue."""
        queue = self.queue
        if not queue and not self._serial and self.sent < self._limit:  # the usual way, without a step more
            run.has_slot = True
            self.sent += 1
            return _SEND
        if self._may_send(run) and not (queue and any(self._may_send(other) for other in queue)):
            self._take(run)
            return _SEND
        if len(self.queue) >= self._queue_limit:
            return Admission.FULL
        self.queue.append(run)
        return Admission.QUEUED

    def release(self, run: RunningCall) -> None:
        """Give back what `run` holds, slot or place."""
        if self._parked:
            self._parked.discard(run)
        if self._busy and run.session is not None and self._busy.get(run.session) is run:
            del self._busy[run.session]
        if run.has_slot:
            run.has_slot = False
            self.sent -= 1
        elif run in self.queue:
            self.queue.remove(run)

    def queued_for(self, session: Session) -> list[RunningCall]:
        """The calls of `session` that wait for a slot, first come first."""
        return [run for run in self.queue if run.session is session]

    def park(self, run: RunningCall, *, is_parked: bool) -> None:
        """A call that waits for a person takes no slot; back from it, it may exceed the limit.

        More than `MAX_PARKED` do take one, so that there is an end to them.
        """
        if is_parked and run.has_slot and len(self._parked) < MAX_PARKED:
            run.has_slot = False
            self.sent -= 1
            self._parked.add(run)
        elif not is_parked and run in self._parked:
            self._parked.discard(run)
            self._take(run)

    def next(self) -> RunningCall | None:
        """The next waiting call that may be sent now, with its slot taken; None if there is none."""
        if self.sent >= self._limit:
            return None
        for run in self.queue:
            if self._may_send(run):
                self.queue.remove(run)
                self._take(run)
                return run
        return None

    def _take(self, run: RunningCall) -> None:
        if self._serial and run.session is not None:
            self._busy[run.session] = run
        run.has_slot = True
        self.sent += 1

    def _may_send(self, run: RunningCall) -> bool:
        if self.sent >= self._limit:
            return False
        if not self._serial or run.session is None:
            return True
        return self._busy.get(run.session, run) is run
