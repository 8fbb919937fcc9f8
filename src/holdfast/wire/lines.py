"""Messages as lines: how the two stdio dialects cut what they read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.wire.jsonrpc import one_line

_EDGE_BYTES: Final = 4096
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
        self._held = bytearray()
        self._head: bytes | None = None  # of the line that is being dropped
        self._tail = b""

    def feed(self, chunk: bytes) -> Sequence[bytes | Oversized]:
        """The lines that `chunk` completes, without their LF."""
        pieces = chunk.split(b"\n")
        rest = pieces.pop()
        lines: Sequence[bytes | Oversized] = pieces
        if self._held or self._head is not None or len(chunk) > self._max_bytes:
            lines = [self._complete(piece) for piece in pieces]
        if rest:
            self._hold(rest)
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


def whole_line(message: bytes) -> bytes:
    """`message` with its LF, on what every reader takes for one line: Node's `readline` ends one at U+2028 too."""
    if _LF in message or _CR in message:
        message = one_line(message)
    if not message.isascii() and b"\xe2\x80" in message:
        message = message.replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")
    return message + b"\n"
