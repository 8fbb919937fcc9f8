"""What a stdio server writes beside its messages: the end of stderr, and lines of stdout that were skipped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STDERR_BYTES: Final = 64 * 1024
"""How much of the latest stderr is kept for error sentences."""

_TAIL_LINES: Final = 20
_TELLING: Final = re.compile(r"\berror\b|Error\b|Exception\b|\bfatal\b", re.IGNORECASE)
_SENTENCE_CHARS: Final = 300
_MIN_SECRET_CHARS: Final = 8

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


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
