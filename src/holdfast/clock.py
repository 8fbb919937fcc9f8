"""Time, injected: everything that waits or expires asks a `Clock`, so that tests never sleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Protocol


class Timer(Protocol):
    """A callback that has not run yet."""

    def cancel(self) -> None:
        """Forget the callback; harmless once it has run."""


class Clock(Protocol):
    """Monotonic time in float seconds."""

    def now(self) -> float:
        """The present instant; only differences mean anything."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` from the event loop after `delay` seconds."""
        ...

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds."""


class LoopClock:
    """The running event loop's own clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)


@asynccontextmanager
async def timeout(clock: Clock, delay: float) -> AsyncGenerator[None]:
    """Bound a block to `delay` seconds of `clock`; raises `TimeoutError` as `asyncio.timeout` does."""
    async with asyncio.timeout(None) as bound:
        loop = asyncio.get_running_loop()
        timer = clock.call_later(delay, lambda: bound.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()
