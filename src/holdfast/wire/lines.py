"""Messages as lines: how the two stdio dialects cut what they read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast.wire.jsonrpc import one_line

_EDGE_BYTES: Final = 4096
_MANY: Final = 64
_LF: Final = ord("\n")
_CR: Final = ord("\r")
_VERSION: Final = rb'"jsonrpc"\s*:\s*"2\.0"'
_ANSWER_START: Final = re.compile(
    rb'\s*\{\s*(?:%b\s*,\s*)?(?:"id"\s*:\s*(\d{1,16})\s*,\s*)?(?:%b\s*,\s*)?"(?:result|error)"\s*:'
    % (_VERSION, _VERSION)
)
_ANSWER_END: Final = re.compile(rb',\s*"id"\s*:\s*(\d{1,16})\s*(?:,\s*%b\s*)?\}\s*\Z' % _VERSION)


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
        self._held: list[bytes] = []  # of the line that has begun, up to _MANY pieces
        self._held_before = bytearray()  # the pieces before those
        self._held_bytes = 0
        self._head: bytes | None = None  # of the line that is being dropped
        self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes | Oversized]:
        """The lines that `chunk` completes, without their LF."""
        are_whole = not self._held and self._head is None and len(chunk) <= self._max_bytes
        line, newline, rest = chunk.partition(b"\n")
        if are_whole and newline and not rest:
            return [line]  # as mostly
        lines: list[bytes | Oversized] = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            piece = chunk[start:end]
            lines.append(piece if are_whole else self._complete(piece))
            start = end + 1
        if start < len(chunk):
            self._hold(chunk[start:])
        return lines

    def _complete(self, piece: bytes) -> bytes | Oversized:
        self._hold(piece)
        if self._head is not None:
            dropped = Oversized(self._head, self._tail)
            self._head, self._tail = None, b""
            return dropped
        return self._release()

    def _hold(self, piece: bytes) -> None:
        if self._head is not None:
            self._tail = (self._tail + piece[-_EDGE_BYTES:])[-_EDGE_BYTES:]
            return
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > self._max_bytes:
            line = self._release()
            self._head, self._tail = line[:_EDGE_BYTES], line[-_EDGE_BYTES:]
        elif len(self._held) == _MANY:  # as many objects may take far more memory than the line
            self._held_before += b"".join(self._held)
            self._held = [b""]

    def _release(self) -> bytes:
        """What is held, which is held no longer."""
        line = b"".join((self._held_before, *self._held))
        self._held, self._held_before, self._held_bytes = [], bytearray(), 0
        return line


def whole_line(message: bytes) -> bytes:
    """`message` with its LF, on what every reader takes for one line: Node's `readline` ends one at U+2028 too."""
    if _LF in message or _CR in message:
        message = one_line(message)
    if not message.isascii() and b"\xe2\x80" in message:
        message = message.replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")
    return message + b"\n"
