"""Time, injected: everything that waits or expires asks a `Clock`, so that tests never sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar


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


T = TypeVar("T", bound=Hashable)

TICK: Final = 0.001
"""Seconds: what is due within this is due. uvloop's timers count in milliseconds, and would otherwise ring twice."""


class Deadlines(Generic[T]):
    """Calls `due` with each item `delay` seconds after it was added, unless it was discarded before.

    For very many items of which nearly none is ever due: all of them share one timer, set for the oldest. It stays
    set when that is discarded, rings once, and is set again only while there are items.
    """

    __slots__ = ("_at", "_clock", "_delay", "_due", "_timer")

    def __init__(self, clock: Clock, delay: float, due: Callable[[T], None]) -> None:
        self._clock = clock
        self._delay = delay
        self._due = due
        self._at: dict[T, float] = {}
        """When each is due, the oldest first: all wait equally long."""
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[T]:
        return iter(self._at)

    def add(self, item: T, now: float | None = None) -> None:
        """Let `item` be due `delay` seconds from now, also if it was added before; `now` is what the clock said."""
        at = self._at
        if item in at:
            del at[item]  # its place is at the end
        at[item] = (self._clock.now() if now is None else now) + self._delay
        if self._timer is None:
            self._timer = self._clock.call_later(self._delay, self._ring)

    def discard(self, item: T) -> None:
        """Forget `item`; harmless where it is not there."""
        self._at.pop(item, None)

    def close(self) -> None:
        """Forget every item and stop the timer: for whoever goes before the clock does."""
        self._at.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        rung, now = self._timer, self._clock.now()
        try:
            for _ in range(len(self._at)):  # not what `due` adds
                if not self._at:
                    break
                item, at = next(iter(self._at.items()))
                if at > now + TICK:
                    break
                del self._at[item]
                self._due(item)
        finally:
            if self._timer is rung:  # not closed meanwhile
                self._timer = None
                if self._at:
                    oldest = next(iter(self._at.values()))
                    self._timer = self._clock.call_later(oldest - self._clock.now(), self._ring)


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
