"""Streams of the scripted server: messages on their way to one HTTP response, and to the one that resumes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from holdfast.testing.server_core import Changes


class Numbered(NamedTuple):
    """A message with its number within its stream, from 1."""

    number: int
    message: bytes
    is_answer: bool


class EventStream:
    """The `Outlet` of one POST, or of a GET.

    `expected` is how many answers end it; None, for a push stream, never ends by itself. What a
    resumable stream sent is kept for the session's life; a push stream that is not drops what nobody reads.
    """

    def __init__(self, name: str, *, expected: int | None, resumable: bool) -> None:
        self.name = name
        self.resumable = resumable
        self.is_push = expected is None
        self.has_reader = False
        self._expected = expected
        self._messages: dict[int, Numbered] = {}
        self._last = 0
        self._reader = 0
        self._changes = Changes()
        self._then: list[Callable[[], None]] = []

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will be sent."""
        return self._expected == 0

    @property
    def sent(self) -> int:
        """How many messages there were so far."""
        return self._last

    def send(self, message: bytes) -> None:
        self._put(message, is_answer=False)

    def answer(self, message: bytes | None, then: list[Callable[[], None]]) -> None:
        if message is not None:
            self._put(message, is_answer=True)
        if self._expected:
            self._expected -= 1
        self._then += then
        self._changes.touch()
        if not self.has_reader:
            self.finished()

    def hang_up(self) -> None:
        """End the response that reads this stream now."""
        self._reader += 1
        self.has_reader = False
        self._changes.touch()

    def finished(self) -> None:
        """Call what waits for the answer to be sent: it was, or nobody reads it."""
        waiting, self._then = self._then, []
        for callback in waiting:
            callback()

    def attach(self) -> int:
        """Begin to read; an earlier reader comes to its end. Returns the number for `read` and `detach`."""
        self._reader += 1
        self.has_reader = True
        self._changes.touch()
        return self._reader

    def detach(self, reader: int) -> None:
        """Stop reading. Harmless for a reader that another has followed."""
        if reader == self._reader:
            self.hang_up()
        if not self.has_reader:
            self.finished()

    async def read(self, reader: int, after: int = 0) -> AsyncGenerator[Numbered, None]:
        """The messages with a number above `after`, until the stream ends or the reader is sent away."""
        position = after + 1
        while reader == self._reader:
            if position <= self._last:
                item = self._messages.pop(position) if self.is_push and not self.resumable else self._messages[position]
                position += 1
                yield item
            elif self.is_ended:
                return
            else:
                await self._changes.next()

    def _put(self, message: bytes, *, is_answer: bool) -> None:
        if self.is_push and not self.has_reader and not self.resumable:
            return
        self._last += 1
        self._messages[self._last] = Numbered(self._last, message, is_answer)
        self._changes.touch()
