"""Time, injected: everything that waits or expires asks a `Clock`, so that tests never sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self


class Timer(Protocol):
    """A callback that has not run yet."""

    def cancel(self) -> None:
        """Forget the callback; harmless once it has run."""


class Clock(Protocol):
    """Monotonic time in float seconds."""

    def now(self) -> float:
        """The present instant; only differences mean anything."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Run `callback` from the event loop after `delay` seconds."""
        ...

    async def sleep(self, delay: float) -> None:
        """Return after `delay` seconds."""


class LoopClock:
    """The running event loop's own clock: its methods are the loop's, with nothing between."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = loop.time
        self.call_later: Callable[[float, Callable[[], None]], Timer] = loop.call_later

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)


class Bound:
    """An async block that `end` ends from outside: the block raises `TimeoutError`, as that of `asyncio.timeout`."""

    __slots__ = ("_cancelled_before", "_is_ended", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._is_ended = False
        self._cancelled_before = 0

    @property
    def is_ended(self) -> bool:
        """`end` has ended the block, or is about to: a `TimeoutError` is not one of the block's own."""
        return self._is_ended

    def end(self) -> None:
        """End the block while it runs; before and after, and a second time, this does nothing."""
        if self._task is not None and not self._is_ended:
            self._is_ended = True
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(kind, error)

    def _enter(self) -> None:
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be bounded")
        self._cancelled_before = task.cancelling()

    def _leave(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        task, self._task = self._task, None
        if self._is_ended and task is not None:
            was_cancelled_by_others = task.uncancel() > self._cancelled_before
            if kind is asyncio.CancelledError and not was_cancelled_by_others:
                raise TimeoutError from error


class timeout(Bound):  # noqa: N801 (it is used as `asyncio.timeout` is)
    """Bound a block to `delay` seconds of `clock`; raises `TimeoutError` as `asyncio.timeout` does."""

    __slots__ = ("_clock", "_delay", "_timer")

    def __init__(self, clock: Clock, delay: float) -> None:
        super().__init__()
        self._clock = clock
        self._delay = delay

    async def __aenter__(self) -> Self:
        self._enter()
        self._timer = self._clock.call_later(self._delay, self.end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._leave(kind, error)
