"""Heads of HTTP/1.1 messages that came before: known again by their bytes, without a parser."""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

LESSONS: Final = 8
"""Heads that are kept in vain before none is any more: of a peer that writes a number or a time into each."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})(?=\r\n)", re.IGNORECASE)
_MAX_DIGITS: Final = 9

M = TypeVar("M")


class FamiliarHead:
    """A head that a parser has read. The same bytes mean the same again, whatever the digits of their Content-Length.

    A peer says the same before each of its messages, but for how long this one is. Whoever makes one of these has
    seen to it that the head frames its body by that length alone, and that nothing of it concerns one message only.
    """

    __slots__ = ("_after", "_before", "_digits_at", "_digits_until")

    def __init__(self, before: bytes, after: bytes) -> None:
        """Use `of`."""
        self._before = before
        self._after = after
        self._digits_at = len(before)
        self._digits_until = len(before) + _MAX_DIGITS + 1

    @classmethod
    def of(cls, head: bytes) -> FamiliarHead | None:
        """The head as one to be known again, from its first byte to the empty line; None where it has no one length."""
        if not head.endswith(b"\r\n\r\n") or head.find(b"\r\n\r\n") != len(head) - 4:
            return None
        found = _LENGTH.findall(head)
        place = _LENGTH.search(head)
        if place is None or len(found) != 1:
            return None
        return cls(head[: place.start(1)], head[place.end(1) :])

    def body_of(self, data: bytes) -> tuple[int, int] | None:
        """Where in `data` the body begins and how long it will be; None where `data` does not begin with this head."""
        if not data.startswith(self._before):
            return None
        end = data.find(b"\r", self._digits_at, self._digits_until)
        digits = data[self._digits_at : end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._after, end):
            return None
        return end + len(self._after), int(digits)


class HeadMemory(Generic[M]):
    """The last head that a peer wrote, and what it meant: mostly that of its next message."""

    def __init__(self, lessons: int = LESSONS) -> None:
        self._lessons = self._left = lessons
        self._kept: tuple[FamiliarHead, M] | None = None
        self._last = b""
        """The kept head as it was when it came last: often the length is the same, too."""
        self._last_found: tuple[M, int, int] | None = None
        """What `recall` said of that; None where the kept head has not come again yet."""

    @property
    def learns(self) -> bool:
        """Whether another head would be kept."""
        return self._left > 0

    def recall(self, data: bytes) -> tuple[M, int, int] | None:
        """What the head of `data` meant, where the body begins and how long it will be, if it is the last one."""
        if self._last_found is not None and data.startswith(self._last):
            return self._last_found
        if self._kept is None:
            return None
        head, meaning = self._kept
        found = head.body_of(data)
        if found is None:
            return None
        self._left = self._lessons
        self._last, self._last_found = data[: found[0]], (meaning, *found)
        return self._last_found

    def keep(self, data: bytes, meaning: M) -> None:
        """Know the head again that `data` begins with, under the terms of `FamiliarHead`."""
        head = FamiliarHead.of(data[: data.find(b"\r\n\r\n") + 4]) if self.learns else None
        if head is not None:
            self._left -= 1
            self._kept = (head, meaning)
            self._last_found = None

    def forget(self) -> None:
        """Know nothing any more."""
        self._kept = self._last_found = None
        self._last = b""
