"""Which keys must still be told that their session's memory is gone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from holdfast.clock import Clock
from holdfast.session.key import SessionKey, is_of

MARKER_TTL: Final = 24 * 3600.0
"""Seconds: who comes back later than a day expects a fresh start."""
MAX_MARKERS: Final = 10_000


class Markers:
    """Keys whose next call is answered with `session_lost`, once; oldest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.until: dict[SessionKey, float] = {}
        """When each is forgotten."""

    def __len__(self) -> int:
        return len(self.until)

    def add(self, key: SessionKey) -> None:
        """Mark `key`."""
        self.until.pop(key, None)
        self.until[key] = self._clock.now() + MARKER_TTL
        while len(self.until) > MAX_MARKERS:
            del self.until[next(iter(self.until))]

    def __contains__(self, key: SessionKey) -> bool:
        return self.until.get(key, -math.inf) > self._clock.now()

    def pop(self, key: SessionKey) -> bool:
        """Whether `key` was marked; it no longer is."""
        until = self.until.pop(key, None)
        return until is not None and until > self._clock.now()

    def discard(self, key: SessionKey) -> None:
        """Forget `key`: nobody can come back for it."""
        self.until.pop(key, None)

    def __iter__(self) -> Iterator[SessionKey]:
        now = self._clock.now()
        return iter([key for key, until in self.until.items() if until > now])

    def discard_all_of(self, client: str, user: str | None = None) -> None:
        """Forget every key of a configured client, or of one of its users."""
        for key in [key for key in self.until if is_of(key.principal, client, user)]:
            del self.until[key]
