"""When a server that could not be reached is tried again."""

from __future__ import annotations

from random import Random
from typing import Final

FAIL_FAST_AFTER: Final = 1.0
"""Seconds: callers wait for an attempt that is nearer than this, and are told at once otherwise."""


class Backoff:
    """Exponential, with full jitter, from `first` to `cap` seconds; a success starts anew.

    The first failure costs no delay: whoever comes next tries again at once.
    """

    def __init__(self, first: float, cap: float, rng: Random) -> None:
        self._first = first
        self._cap = cap
        self._rng = rng
        self._failures = 0
        self._next_at = 0.0
        self.reason = ""
        """Why the last attempt failed."""

    def failed(self, now: float, reason: str) -> None:
        """Note a failure at `now`."""
        self.reason = reason
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
