"""What a stdio server writes: its messages, lines of stdout that are none, and the end of stderr."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.upstream.transport import Fault, FaultKind, Receiver
from holdfast.wire.jsonrpc import MAX_ARRAY_BYTES, is_too_long_an_array, is_utf8
from holdfast.wire.lines import LineSplitter, Oversized

STDERR_BYTES: Final = 64 * 1024
"""How much of the latest stderr is kept for error sentences."""

_TAIL_LINES: Final = 20
_TELLING: Final = re.compile(r"\berror\b|Error\b|Exception\b|\bfatal\b", re.IGNORECASE)
_SENTENCE_CHARS: Final = 300
_MIN_SECRET_CHARS: Final = 8

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")

_LEFT_BRACE: Final = ord("{")
_RIGHT_BRACE: Final = ord("}")

logger = logging.getLogger("holdfast.stdio")


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


class Output(asyncio.Protocol):
    """The protocol of stdout: hands its messages to whom `report_to` names, and counts the lines that are none.

    `program` is what sentences call the server; `closed` is called when nothing more can come.
    """

    def __init__(self, program: str, max_message_bytes: int, closed: Callable[[], None]) -> None:
        self.skipped = SkippedLines()
        self._program = program
        self._max_message_bytes = max_message_bytes
        self._closed = closed
        self._receiver: Receiver | None = None
        self._lines = LineSplitter(max_message_bytes)

    def report_to(self, receiver: Receiver | None) -> None:
        """Hand messages to `receiver` from now on; None drops them."""
        self._receiver = receiver

    def data_received(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            receiver = self._receiver
            if receiver is None:
                return  # also where it ended us over an earlier line
            try:
                if (
                    type(line) is bytes
                    and line
                    and line[0] == _LEFT_BRACE
                    and line[-1] == _RIGHT_BRACE
                    and (line.isascii() or is_utf8(line))
                ):
                    receiver.received(line, None)
                else:
                    self._take_unusual(line, receiver)
            except Exception:  # ours; uvloop would close the pipe over it, with all that others wait for
                logger.exception("a message of %s could not be handled", self._program)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # the exit status says more
        self._closed()

    def _take_unusual(self, line: bytes | Oversized, receiver: Receiver) -> None:
        """A line that is not plainly an object in UTF-8."""
        if isinstance(line, Oversized):
            self._skip_oversized(line, self._max_message_bytes, receiver)
            return
        if is_too_long_an_array(line):
            self._skip_oversized(Oversized.of(line), MAX_ARRAY_BYTES, receiver)
            return
        line = line.strip()
        if not line:
            return
        if line[0] not in b"{[":
            self.skipped.junk += 1
            if self.skipped.junk == 1:
                what = "no JSON (a program that speaks MCP over stdio should log to stderr)"
                logger.warning("%s wrote a line to stdout that is %s: it was skipped", self._program, what)
        elif not is_utf8(line):
            self.skipped.undecodable += 1
            if self.skipped.undecodable == 1:
                logger.warning("%s wrote a line to stdout that is no UTF-8: it was skipped", self._program)
            _fail_answered(Oversized.of(line), f"{self._program} sent an answer that is no UTF-8", receiver)
        else:
            receiver.received(line, None)

    def _skip_oversized(self, line: Oversized, limit: int, receiver: Receiver) -> None:
        self.skipped.oversized += 1
        if self.skipped.oversized == 1:
            what = f"is larger than {limit} bytes"
            logger.warning("%s wrote a line to stdout that %s: it was skipped", self._program, what)
        _fail_answered(line, f"{self._program} sent an answer of more than {limit} bytes: too large", receiver)


def _fail_answered(line: Oversized, detail: str, receiver: Receiver) -> None:
    """Fail the request that a skipped line would have answered, where that is sure."""
    request_id = line.answered_id
    if request_id is not None:
        receiver.failed(request_id, Fault(FaultKind.INVALID, detail))
