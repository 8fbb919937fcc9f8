"""What a stdio server writes, without a process: lines of stdout, the end of stderr, what was skipped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STDERR_BYTES: Final = 64 * 1024
"""How much of the latest stderr is kept for error sentences."""

_EDGE_BYTES: Final = 4096
_TAIL_LINES: Final = 20
_TELLING: Final = re.compile(r"\berror\b|Error\b|Exception\b|\bfatal\b", re.IGNORECASE)
_SENTENCE_CHARS: Final = 300
_MIN_SECRET_CHARS: Final = 8

_VERSION: Final = rb'"jsonrpc"\s*:\s*"2\.0"'
_ANSWER_START: Final = re.compile(
    rb'\s*\{\s*(?:%b\s*,\s*)?(?:"id"\s*:\s*(\d{1,16})\s*,\s*)?(?:%b\s*,\s*)?"(?:result|error)"\s*:'
    % (_VERSION, _VERSION)
)
_ANSWER_END: Final = re.compile(rb',\s*"id"\s*:\s*(\d{1,16})\s*(?:,\s*%b\s*)?\}\s*\Z' % _VERSION)
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True, slots=True)
class Oversized:
    """What is left of a line that was over the limit: its edges."""

    head: bytes
    tail: bytes

    @classmethod
    def of(cls, line: bytes) -> Oversized:
        """The edges of a line that is skipped for another reason."""
        return cls(line[:_EDGE_BYTES], line[-_EDGE_BYTES:])

    @property
    def answered_id(self) -> int | None:
        """The id of ours that the line answers, where it stands next to either end of the object.

        Only then it is sure to be the envelope's own id, and not one inside a result, and the
        line an answer, and not a request of the server with the same number.
        """
        start = _ANSWER_START.match(self.head)
        if start is None:
            return None
        found = start if start.group(1) is not None else _ANSWER_END.search(self.tail)
        return None if found is None else int(found.group(1))


class LineSplitter:
    """Splits a byte stream at LF, in time linear in its length and memory bounded by `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._head: bytes | None = None  # of the line that is being dropped
        self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes | Oversized]:
        """The lines that `chunk` completes, without their LF."""
        lines: list[bytes | Oversized] = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            lines.append(self._complete(chunk[start:end]))
            start = end + 1
        if start < len(chunk):
            self._hold(chunk[start:])
        return lines

    def _complete(self, piece: bytes) -> bytes | Oversized:
        if not self._held and self._head is None and len(piece) <= self._max_bytes:
            return piece
        self._hold(piece)
        if self._head is not None:
            dropped = Oversized(self._head, self._tail)
            self._head, self._tail = None, b""
            return dropped
        line = bytes(self._held)
        self._held = bytearray()  # clear() would keep the memory of the largest line
        return line

    def _hold(self, piece: bytes) -> None:
        if self._head is not None:
            self._tail = (self._tail + piece[-_EDGE_BYTES:])[-_EDGE_BYTES:]
            return
        self._held += piece
        if len(self._held) > self._max_bytes:
            self._head, self._tail = bytes(self._held[:_EDGE_BYTES]), bytes(self._held[-_EDGE_BYTES:])
            self._held = bytearray()


class StderrRing:
    """The latest 64 KiB of stderr as text for people: no control characters, none of `secrets`."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = sorted((value for value in secrets if len(value) >= _MIN_SECRET_CHARS), key=len, reverse=True)
        self._kept = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take in what was written, and forget what is older than the ring is long."""
        self._kept += chunk[-STDERR_BYTES:]
        if len(self._kept) > STDERR_BYTES:
            del self._kept[:-STDERR_BYTES]

    @property
    def tail(self) -> str:
        """The last lines that are not blank, the newest last."""
        lines = [line for line in self._kept.splitlines() if line.strip()]
        return "\n".join(self.readable(line) for line in lines[-_TAIL_LINES:])

    @property
    def telling_line(self) -> str:
        """The first of the last lines that speaks of an error, else the last, at a length that fits a sentence."""
        lines = self.tail.split("\n")
        telling = (line for line in lines if _TELLING.search(line))
        return next(telling, lines[-1])[:_SENTENCE_CHARS]

    def readable(self, line: bytes | bytearray) -> str:
        """`line` as it may be shown and logged."""
        text = _ESCAPES.sub("", line.decode(errors="replace"))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(char if char.isprintable() else " " for char in text).strip()


@dataclass(slots=True)
class SkippedLines:
    """Lines of stdout that were no messages, counted. What was in them is not logged: it may be anybody's."""

    junk: int = 0
    """Banners and logs: no JSON object or array."""
    undecodable: int = 0
    """No UTF-8."""
    oversized: int = 0

    def __str__(self) -> str:
        counts = {"no JSON": self.junk, "no UTF-8": self.undecodable, "too large": self.oversized}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    @property
    def has_repeats(self) -> bool:
        """Whether there were more than the first of a kind."""
        return max(self.junk, self.undecodable, self.oversized) > 1
