"""A console that tests can read, and events as examples of what is shown."""

from __future__ import annotations

import io
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from holdfast import events


class Screen:
    """A console, and what has been printed on it."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=is_terminal, width=70, highlight=False, color_system=None, _environ={}
        )

    @property
    def text(self) -> str:
        return self.file.getvalue()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text.splitlines()]

    @property
    def logged(self) -> list[str]:
        """The lines of the text log, from the level on."""
        return [line[24:] for line in self.lines]


@contextmanager
def kept_logging() -> Generator[None]:
    """Logging is the process's own: leave it as it was."""
    root, ours = logging.getLogger(), logging.getLogger("holdfast")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


_REFUSED: Final = "connection to 127.0.0.1:3000 refused"

EXAMPLES: Final[tuple[events.Event, ...]] = (
    events.ServerAdded("notes"),
    events.SessionOpening("notes", "s1", "5f1d0a7c93be"),
    events.SessionReady("notes", "s1", 0.25, is_reopened=False, key="5f1d0a7c93be"),
    events.ListsLearned("notes", 3),
    events.CallUnnamed("notes", "tools/call", "chat", "r1"),
    events.CallEnded("notes", "tools/call", "result", 0.012, "r2"),
    events.CallEnded("notes", "tools/call", "timeout", 300.0, "r3"),
    events.CallFailed("notes", "tools/call", "503 Service Unavailable: no space left", "r4"),
    events.CallRefused("notes", "256 calls wait already", "r5"),
    events.SessionLost("notes", "s1", "the server exited with code 1", was_dirty=True, key="5f1d0a7c93be"),
    events.CallRepeated("notes", "resources/read", "the connection closed", "r6"),
    events.SessionFailed("notes", "s2", _REFUSED, "start it, or correct the URL"),
    events.CircuitOpened("notes", _REFUSED, 30.0),
    events.CircuitClosed("notes"),
    events.SessionReady("notes", "s3", 0.3, is_reopened=True, key="5f1d0a7c93be"),
    events.SessionClosed("notes", "s3", "evicted to make room", was_dirty=True, key="5f1d0a7c93be"),
    events.SettingsReloaded(
        ("mail",),
        ("search",),
        ("notes",),
        ("another listen takes effect at the next start; the rest is in force",),
        ("agent",),
    ),
    events.ServerRemoved("notes"),
    events.SettingsRefused("holdfast.yaml:9: servers.mail: give either a url or a command"),
    events.RequestEnded("mcp", "POST", 200),
    events.SessionIdMisused("notes", "agent", "open-webui", "r8"),
    events.RequestStateMisused("notes", "agent", "open-webui", "r9"),
    events.RequestDenied(
        "mcp",
        "10.0.0.7",
        events.Denial.UNKNOWN_KEY,
        401,
        "This key is not known here: send one as Authorization: Bearer KEY.",
        12,
        "r10",
    ),
)
"""Every kind of event, in an order that could be."""
