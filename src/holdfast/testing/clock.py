"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True, slots=True)
class _ManualTimer:
    """A callback of a `ManualClock`; of two that are due at once, the one made first runs first."""

    due_at: float
    number: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A `holdfast.clock.Clock` whose time passes only in `advance`, so that tests wait for nothing."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._timers: list[_ManualTimer] = []
        self._numbers = count()
        self._watchers: list[asyncio.Future[None]] = []

    def now(self) -> float:
        return self._now

    @property
    def next_due_at(self) -> float | None:
        """The instant of the earliest callback that is neither run nor cancelled."""
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0].due_at if self._timers else None

    @property
    def pending(self) -> int:
        """How many callbacks and sleepers wait: a test's check that nothing was left behind."""
        return sum(timer.callback is not None for timer in self._timers)

    def call_later(self, delay: float, callback: Callable[[], None]) -> _ManualTimer:
        timer = _ManualTimer(self._now + max(delay, 0.0), next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._watchers.clear()
        return timer

    async def waited_on(self, count: int = 1) -> None:
        """Return once `count` callbacks and sleepers wait: the moment to `advance`, where I/O comes before."""
        while self.pending < count:
            watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    async def sleep(self, delay: float) -> None:
        if delay <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass: run what falls due, in order of time, also what callbacks add meanwhile.

        Sleepers are woken but run only when the loop does: `await settle()` lets them. An
        exception of a callback reaches the caller; the clock then stands at that callback's time.
        """
        self._advance_to(self._now + seconds)

    async def advance_settled(self, seconds: float) -> None:
        """As `advance`, and let the loop run at each instant at which something falls due.

        For code that sleeps again and again: each sleep starts when the one before it ended.
        """
        end = self._now + seconds
        await settle()
        while (due_at := self.next_due_at) is not None and due_at <= end:
            self._advance_to(due_at)
            await settle()
        self._advance_to(end)
        await settle()

    def _advance_to(self, instant: float) -> None:
        while (due_at := self.next_due_at) is not None and due_at <= instant:
            timer = heapq.heappop(self._timers)
            self._now = max(self._now, due_at)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self._now = max(self._now, instant)


async def settle(turns: int = 20) -> None:
    """Let the event loop take `turns` turns, so that whatever can run without I/O has run."""
    for _ in range(turns):
        await asyncio.sleep(0)
