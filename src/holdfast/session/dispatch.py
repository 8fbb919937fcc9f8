"""When a call that has a session is sent: the slots of its server, and its circuit."""

from __future__ import annotations

from typing import Final, Protocol

from holdfast.call import StatusWord
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.errors import CallFailed, OpenFailed
from holdfast.events import Limit
from holdfast.session import retry
from holdfast.session.breaker import Breaker
from holdfast.session.levels import Levels
from holdfast.session.lifecycle import State
from holdfast.session.running import RunningCall
from holdfast.session.session import Session
from holdfast.session.slots import Admission, Slots
from holdfast.session.tasks import METHODS, TaskBook

_SEND: Final = Admission.SEND


class Calls(Protocol):
    """What sending asks of the pool."""

    def refuse(self, run: RunningCall, limit: Limit, reason: str) -> None:
        """End a call because a limit of ours is reached."""

    def restart(self, run: RunningCall, session: Session) -> None:
        """Send a call of a dead session in the one that follows it."""


class Dispatch:
    """The calls of one server that have a session: sent, waiting for a slot, or for the server to be back."""

    def __init__(self, calls: Calls, settings: ServerSettings, breaker: Breaker, clock: Clock) -> None:
        self.slots = Slots(settings.max_concurrency, settings.max_queue, serial=settings.serial)
        self._calls = calls
        self.settings = settings
        self._breaker = breaker
        self._held: dict[RunningCall, None] = {}
        """They wait until it is known whether the server is back."""
        self._levels = Levels(self._take, clock)
        self._is_sending = False
        self.tasks = TaskBook()
        """Of a server whose tasks belong to no session."""

    @property
    def queued(self) -> int:
        """Calls that wait for a slot, or for the server to be back."""
        return self.slots.queued + len(self._held)

    def admit(self, run: RunningCall, session: Session) -> None:
        """Send `run` in `session`, which it holds, now or in its turn, unless the answer is known here."""
        call = run.call
        if call.method in METHODS and (refusal := session.tasks.refusal(call, run.owner, run.watcher)) is not None:
            run.end(refusal)
            return
        if self._breaker.circuit != "closed" and self._breaker.bars_calls and not self._passes(run):
            return
        if call.log_level is not None and self._levels.holds(run, session):
            return
        admission = self.slots.admit(run)
        if admission is _SEND:
            run.send(session)
        else:
            self._wait(run, admission)

    def _take(self, run: RunningCall, session: Session) -> None:
        admission = self.slots.admit(run)
        if admission is Admission.SEND:
            run.send(session)
        else:
            self._wait(run, admission)

    def _wait(self, run: RunningCall, admission: Admission) -> None:
        if admission is Admission.QUEUED:
            run.wait(self.settings.acquire_timeout)
            run.tell(StatusWord.WAITING, f"{self.settings.name} is busy; the call waits for its turn.")
        else:
            self._refuse_queue(run)

    def release(self, run: RunningCall) -> None:
        """Take back what `run` holds: slot, place in the queue, or probe."""
        if self._held:
            self._held.pop(run, None)
        if run.call.log_level is not None:
            self._levels.leave(run)
        self.slots.release(run)
        if self._breaker.probe is run:
            self._breaker.withdrawn(run)

    def park(self, run: RunningCall, *, is_parked: bool) -> None:
        """A person is being asked, or has answered."""
        self.slots.park(run, is_parked=is_parked)
        if is_parked:
            self.send_next()

    def waiting_in(self, session: Session) -> list[RunningCall]:
        """The calls of `session` that are not sent yet."""
        held = (run for run in self._held if run.session is session)
        return [*self.slots.queued_for(session), *held, *self._levels.waiting_in(session)]

    def fail_waiting(self, failure: CallFailed) -> None:
        """End every call that is not sent yet."""
        for run in [*self._held, *self.slots.queue, *self._levels.waiting]:
            run.end(failure)

    def send_next(self) -> None:
        """Send what may be sent; a call that fails while it is sent comes back here, and the loop goes on."""
        if self._is_sending:
            return
        self._is_sending = True
        try:
            while (run := self.slots.next()) is not None:
                session = run.session
                if session is not None and session.is_open:
                    run.send(session)
                elif session is not None and session.state is State.LOST:
                    self._calls.restart(run, session)  # else its session is being closed, which ends it
        finally:
            self._is_sending = False

    def circuit_changed(self) -> None:
        """Let go of the calls that wait for the server to be back, or of one to see whether it is, or tell them."""
        breaker = self._breaker
        if breaker.bars_calls and (refusal := breaker.refusal) is not None:
            self.fail_waiting(self._unavailable(refusal))
        while self._held and (breaker.passes or not breaker.bars_calls):
            run = next(iter(self._held))
            del self._held[run]
            session = run.session
            if session is not None and session.is_open:
                self.admit(run, session)
            elif session is not None and session.state is State.LOST:
                self._calls.restart(run, session)
        self.send_next()

    def _passes(self, run: RunningCall) -> bool:
        """Whether `run` may be sent although calls have failed; if not, it is told so or waits."""
        breaker = self._breaker
        if breaker.probe is run:
            return True
        if (refusal := breaker.refusal) is not None:
            run.end(self._unavailable(refusal))
            return False
        if breaker.passes:
            breaker.began(run)
            return True
        if len(self._held) >= self.settings.max_queue:
            self._refuse_queue(run)
            return False
        self._held[run] = None
        run.wait(self.settings.acquire_timeout)
        run.tell(StatusWord.WAITING, f"{self.settings.name} has failed; the call waits until it is back.")
        return False

    def _refuse_queue(self, run: RunningCall) -> None:
        self._calls.refuse(run, Limit.QUEUE, f"{self.settings.max_queue} calls wait already")

    def _unavailable(self, refusal: OpenFailed) -> CallFailed:
        return retry.unavailable(self.settings.name, str(refusal), is_unauthorized=refusal.is_unauthorized)
