"""The answer to a request that came as a line: more lines, on the pipe that all share."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.clock import Clock, Timer
from holdfast.downstream.answer import REMARK_AFTER
from holdfast.downstream.pipes import LineWriter
from holdfast.wire import jsonrpc


class Array:
    """The answers to an array of requests, which are an array too."""

    def __init__(self, writer: LineWriter, expected: int) -> None:
        self._writer = writer
        self._missing = expected
        self._results: list[bytes] = []

    def add(self, message: bytes | None) -> None:
        """One of the expected answers; None where a cancelled request gets none."""
        self._missing -= 1
        if message is not None:
            self._results.append(message)
        if self._missing == 0 and self._results:
            self._writer.emit(jsonrpc.array(self._results), droppable=False)


class Reply:
    """The `Outlet` of one request: the pipe that all share."""

    def __init__(self, writer: LineWriter, clock: Clock, array: Array | None, over: Callable[[], None]) -> None:
        self._writer = writer
        self._clock = clock
        self._add = array.add if array is not None else self._write
        self._over = over
        self._has_spoken = False
        self._is_over = False
        self._remark: Callable[[], None] | None = None
        self._timer: Timer | None = None

    def event(self, message: bytes, *, droppable: bool) -> bool:
        if self._is_over:
            return False
        self._has_spoken = True
        self._writer.emit(message, droppable=droppable)
        return True

    def remark(self, whose: bytes, say: Callable[[], None]) -> None:
        del whose  # there is one request
        if self._is_over:
            return
        if self._has_spoken:
            say()
            return
        self._remark = say
        if self._timer is None:
            self._timer = self._clock.call_later(REMARK_AFTER, self._make_remark)

    def hush(self, whose: bytes) -> None:
        del whose
        self._remark = None

    def result(self, message: bytes | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._remark = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._add(message)
        self._over()

    def _make_remark(self) -> None:
        self._timer = None
        say, self._remark = self._remark, None
        if say is not None:
            say()

    def _write(self, message: bytes | None) -> None:
        if message is not None:
            self._writer.emit(message, droppable=False)


class LineExchange(Reply):
    """The `Exchange` of a request of 2026-07-28, and what its client can cancel: an `OpenCall`."""

    def __init__(self, writer: LineWriter, clock: Clock, over: Callable[[], None]) -> None:
        super().__init__(writer, clock, None, over)
        self.status = 200
        self._gone: Callable[[], None] | None = None

    def event(self, message: bytes, *, droppable: bool) -> bool:
        """What may not be dropped tells of a change, and that says nothing new while it waits to be read."""
        if droppable:
            return super().event(message, droppable=True)
        if not self._is_over:
            self._has_spoken = True
            self._writer.signal(message)
        return True

    @property
    def is_slow(self) -> bool:
        return self._writer.is_slow

    def watch(self) -> None:
        """Who leaves says so."""

    def when_gone(self, then: Callable[[], None]) -> None:
        self._gone = then

    def when_drained(self, then: Callable[[], None]) -> None:
        self._writer.owing[self] = then

    def cancel(self, reason: str) -> None:
        """Write nothing more for the request, and give up what it began."""
        del reason
        gone = self._gone
        self.result(None)
        if gone is not None:
            gone()

    def result(self, message: bytes | None) -> None:
        self._gone = None  # it holds us
        self._writer.owing.pop(self, None)
        super().result(message)

    def send_away(self) -> None:
        self.cancel("the client left")
