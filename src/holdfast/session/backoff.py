"""When a server that could not be reached, or that died, is tried again."""

from __future__ import annotations

from random import Random
from typing import Final

from holdfast.clock import Clock
from holdfast.errors import OpenFailed
from holdfast.session.key import SessionKey

FAIL_FAST_AFTER: Final = 1.0
"""Seconds: callers wait for an attempt that is nearer than this, and are told at once otherwise."""

STEADY_AFTER: Final = 60.0
"""Seconds: a session that lived longer did not die of being started."""
MAX_LOOPS: Final = 10_000
_FIRST: Final = 0.25
_CAP: Final = 30.0


class Backoff:
    """Exponential, with full jitter, from `first` to `cap` seconds; a success starts anew.

    The first failure costs no delay: whoever comes next tries again at once.
    """

    def __init__(self, first: float, cap: float, rng: Random) -> None:
        self._first = first
        self._cap = cap
        self._rng = rng
        self._failures = 0
        self._failed_at = float("-inf")
        self._next_at = 0.0
        self.reason = ""
        """Why the last attempt failed."""

    def failed(self, now: float, reason: str, started_at: float | None = None) -> None:
        """Note a failure at `now` of an attempt that began at `started_at`.

        Attempts that were under way together fail together, and count once.
        """
        self.reason = reason
        if started_at is not None and started_at < self._failed_at:
            return
        self._failed_at = now
        self._failures += 1
        if self._failures > 1:
            ceiling = min(self._cap, self._first * 2 ** (self._failures - 2))
            self._next_at = now + self._rng.uniform(ceiling / 2, ceiling)

    def succeeded(self) -> None:
        """Note a success."""
        self._failures = 0
        self._next_at = 0.0

    def delay(self, now: float) -> float:
        """Seconds until the next attempt may be made."""
        return max(0.0, self._next_at - now)


class CrashLoops:
    """The keys whose sessions die soon after they have opened, and when each is tried again.

    Per key, so that a person whose calls bring a server down keeps nobody else from it.
    """

    def __init__(self, clock: Clock, rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self._loops: dict[SessionKey, Backoff] = {}

    def died(self, key: SessionKey, opened_at: float, reason: str) -> None:
        """The session of `key`, open since `opened_at`, died of `reason`."""
        now = self._clock.now()
        loop = self._loops.pop(key, None)
        if now - opened_at >= STEADY_AFTER or key.is_private:
            return
        self._loops[key] = loop = loop if loop is not None else Backoff(_FIRST, _CAP, self._rng)
        loop.failed(now, reason)
        while len(self._loops) > MAX_LOOPS:
            del self._loops[next(iter(self._loops))]

    def delay(self, key: SessionKey) -> float:
        """Seconds until `key` may have another session."""
        loop = self._loops.get(key)
        return 0.0 if loop is None else loop.delay(self._clock.now())

    def refusal(self, key: SessionKey) -> OpenFailed | None:
        """Why `key` gets no session soon; None where it does."""
        delay = self.delay(key)
        if delay <= FAIL_FAST_AFTER:
            return None
        last = self._loops[key].reason
        return OpenFailed(f"it died again and again, last of this: {last}; the next attempt is in {delay:.0f} s")
