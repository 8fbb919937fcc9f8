"""Whether a server that fails is left alone for a while: a circuit breaker with a half-open probe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from random import Random
from typing import Final, Literal, TypeAlias

from holdfast import events
from holdfast.clock import Clock, Timer
from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.session.backoff import FAIL_FAST_AFTER, Backoff
from holdfast.session.key import SessionKey
from holdfast.session.running import RunningCall
from holdfast.session.session import Session
from holdfast.upstream.transport import Fault, FaultKind

FAILURES: Final = 5
"""So many failures in a row open the circuit,"""
WINDOW: Final = 60.0
"""if they came within so many seconds."""
TOGETHER: Final = 1.0
"""Seconds: calls that were under way together and failed within this failed of one thing, and count once."""
MAX_BREAK_HTTP: Final = 5.0
MAX_BREAK_STDIO: Final = 30.0
"""Seconds for which a server is left alone at most; starting a process costs more than a request."""
_FIRST_BREAK: Final = 2.0
_FIRST_SPACE: Final = 0.25

_COUNTED: Final = frozenset(
    {
        FaultKind.NOT_SENT,
        FaultKind.CUT,
        FaultKind.UNAVAILABLE,
        FaultKind.FAILED,
        FaultKind.INVALID,
        FaultKind.TIMEOUT,
    }
)
"""What a call may end with that speaks against its server."""

Circuit: TypeAlias = Literal["closed", "open", "half-open"]


class Breaker:
    """Counts the failures of a server's openings and calls, and says whether another may be tried.

    Closed, everything passes, but openings that fail follow each other more and more slowly. Open,
    nothing passes for a time. Half-open, one opening or call passes as the probe: its success, or any
    other, closes the circuit, and its failure opens it for longer.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        clock: Clock,
        emit: events.Emit,
        rng: Random,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called after each change of the circuit, and when it may have another probe."""
        is_stdio = settings.command is not None
        self.circuit: Circuit = "closed"
        self.probe: Session | RunningCall | None = None
        """The session or call that shows whether the server is back."""
        self.is_troubled = False
        """Something has failed since the last success."""
        self._server = settings.name
        self._is_stdio = is_stdio
        self._cap = MAX_BREAK_STDIO if is_stdio else MAX_BREAK_HTTP
        self._clock = clock
        self._emit = emit
        self._rng = rng
        self._changed = changed
        self._spacing = Backoff(_FIRST_SPACE, self._cap, rng)
        self._failed_at: deque[float] = deque(maxlen=FAILURES)
        self._who: dict[Hashable, float] = {}
        self._has_failed_calls = False
        self._breaks = 0
        self._until = 0.0
        self._timer: Timer | None = None
        self._reason = ""
        self._is_unauthorized = False

    # What may be tried.

    @property
    def delay(self) -> float:
        """Seconds until the next attempt may be made."""
        now = self._clock.now()
        return max(self._spacing.delay(now), self._until - now, 0.0)

    @property
    def refusal(self) -> OpenFailed | None:
        """Why nothing can be tried soon; None where something can, or is being tried."""
        delay = self.delay
        if delay <= FAIL_FAST_AFTER:
            return None
        return OpenFailed(
            f"{self._reason}; the next attempt is in {delay:.0f} s", is_unauthorized=self._is_unauthorized
        )

    @property
    def passes(self) -> bool:
        """Whether one more opening may begin now, or a call where `bars_calls`."""
        return self.circuit == "closed" or (self.circuit == "half-open" and self.probe is None)

    @property
    def bars_calls(self) -> bool:
        """Whether calls in open sessions are held up as well; while only openings fail, they are not."""
        return self.circuit != "closed" and self._has_failed_calls

    def began(self, attempt: Session | RunningCall) -> None:
        """An opening or call that `passes` begins; half-open, it is the probe."""
        if self.circuit == "half-open" and self.probe is None:
            self.probe = attempt

    # What came of it.

    def succeeded(self) -> None:
        """A session opened, or a call was answered."""
        self.is_troubled = self._has_failed_calls = False
        self._failed_at.clear()
        self._who.clear()
        self._spacing.succeeded()
        if self.circuit != "closed":
            self._breaks, self._until = 0, 0.0
            self._change("closed")
            self._emit(events.CircuitClosed(self._server))
            self._changed()

    def withdrawn(self, attempt: Session | RunningCall) -> None:
        """`attempt` ended without having shown anything: another may be the probe."""
        if self.probe is attempt:
            self.probe = None
            self._changed()

    def heard(self, run: RunningCall) -> None:
        """`run` has relayed something: as a probe it has shown enough, since it may take long to be answered."""
        if self.probe is run:
            self.succeeded()

    def opening_failed(self, session: Session, error: OpenFailed, began_at: float) -> None:
        """A session did not open. Of attempts that were under way together, one counts."""
        now = self._clock.now()
        self._spacing.failed(now, str(error), began_at)
        was_together = bool(self._failed_at) and began_at < self._failed_at[-1]
        self._failed(session, str(error), was_together=was_together, is_unauthorized=error.is_unauthorized)

    def unanswered(self, run: RunningCall, fault: Fault) -> None:
        """A call got no answer, and is not sent again."""
        if fault.kind in _COUNTED or run is self.probe:
            self._call_failed(run, run.key, fault.detail, run.sent_at)

    def crashed(self, session: Session, reason: str) -> None:
        """The process that was `session` died."""
        if self._is_stdio and session.key is not None:
            self._call_failed(session, session.key, reason, session.opened_at)

    def close(self) -> None:
        """Forget the time at which the circuit would be half-open."""
        if self._timer is not None:
            self._timer.cancel()

    # Inside.

    def _call_failed(self, attempt: Session | RunningCall, key: SessionKey, reason: str, began_at: float) -> None:
        who = _person(key) if self._is_stdio else None
        if who is None:
            self._has_failed_calls = True
            last = self._failed_at[-1] if self._failed_at else float("-inf")
            was_together = began_at < last and self._clock.now() - last < TOGETHER
        else:
            was_together = self._has_failed_before(who)
            self._has_failed_calls = self._has_failed_calls or len(self._who) >= FAILURES
        self._failed(attempt, reason, was_together=was_together)

    def _has_failed_before(self, who: Hashable) -> bool:
        """Whether `who` failed since the last success, and not too long ago; it has now."""
        now = self._clock.now()
        self._who = {other: at for other, at in self._who.items() if now - at <= WINDOW}
        has_failed = who in self._who
        self._who.setdefault(who, now)
        return has_failed

    def _failed(
        self, attempt: Session | RunningCall, reason: str, *, was_together: bool, is_unauthorized: bool = False
    ) -> None:
        self.is_troubled = True
        self._reason, self._is_unauthorized = reason, is_unauthorized
        if self.circuit != "closed":
            if attempt is self.probe:
                self._break()
        elif not was_together:
            now = self._clock.now()
            self._failed_at.append(now)
            if len(self._failed_at) == FAILURES and now - self._failed_at[0] <= WINDOW:
                self._break()

    def _break(self) -> None:
        """Open the circuit, for longer each time in a row."""
        now = self._clock.now()
        ceiling = min(self._cap, _FIRST_BREAK * 2**self._breaks)
        seconds = max(self._rng.uniform(ceiling / 2, ceiling), self._spacing.delay(now))
        self._breaks += 1
        self._until = now + seconds
        self._change("open")
        self._timer = self._clock.call_later(seconds, self._half_open)
        self._emit(events.CircuitOpened(self._server, self._reason, seconds))
        self._changed()

    def _half_open(self) -> None:
        self._until = 0.0
        self._change("half-open")
        self._changed()

    def _change(self, circuit: Circuit) -> None:
        self.circuit, self.probe = circuit, None
        self.close()
        self._timer = None


def _person(key: SessionKey) -> Hashable | None:
    """Of whose failures several say no more than one, where a session is a process of its own.

    None where the process is everybody's. A client that names no users may be many people, but nothing
    tells those apart who call in private sessions.
    """
    if key.principal is None:
        return None
    return key.principal if key.principal.user is not None or key.is_private else key
