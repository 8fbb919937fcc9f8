"""Requests that were not let in: told so that whoever sends many of them cannot drown what else is told."""

from __future__ import annotations

from typing import Final

from holdfast import events
from holdfast.clock import Clock

INTERVAL: Final = 60.0
"""Seconds in which the same kind of denial to the same address is told once."""
MAX_KEPT: Final = 1000
"""Addresses and kinds that are told apart; those beyond are told as if of one address."""


class Denials:
    """Tells of denied requests, one event for each address, kind and `INTERVAL`."""

    def __init__(self, clock: Clock, emit: events.Emit) -> None:
        self._clock = clock
        self._emit = emit
        self._told: dict[tuple[str, events.Denial], tuple[float, int]] = {}
        """When each was told the last time, and how many came since; the longest ago first."""

    def take(self, event: events.RequestDenied) -> None:
        """Tell of `event`, with how many like it were not told since the last one that was, or count it."""
        now = self._clock.now()
        which = (event.address, event.kind)
        if which not in self._told and len(self._told) >= MAX_KEPT and not self._forget_one(now):
            which = ("", event.kind)
        since, more = self._told.get(which, (now - INTERVAL, 0))
        if now - since < INTERVAL:
            self._told[which] = (since, more + 1)
            return
        self._told.pop(which, None)
        self._told[which] = (now, 0)
        address, kind = which
        self._emit(events.RequestDenied(event.route, address, kind, event.status, event.reason, more, event.request))

    def _forget_one(self, now: float) -> bool:
        which = next(iter(self._told))
        since, _ = self._told[which]
        if now - since < INTERVAL:
            return False
        del self._told[which]
        return True
