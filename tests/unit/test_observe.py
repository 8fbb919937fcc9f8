"""Events as lines for people."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Generator

import pytest
from rich.console import Console

from holdfast import events
from holdfast.observe.log import EventLog
from holdfast.observe.terminal import StatusBoard, set_up_logging
from holdfast.testing.clock import ManualClock


class Screen:
    """A console, and what has been printed on it."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=is_terminal, width=70, highlight=False, color_system=None, _environ={}
        )

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.file.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def kept_logging() -> Generator[None]:
    """Logging is the process's own: leave it as it was."""
    root, ours = logging.getLogger(), logging.getLogger("holdfast")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def failed(reason: str) -> events.SessionFailed:
    return events.SessionFailed("notes", "s1", reason)


READY = events.SessionReady("notes", "s2", 0.25, is_reopened=False)


def test_a_server_becomes_ready() -> None:
    clock, screen = ManualClock(), Screen()
    board = StatusBoard(screen.console, ["notes"], clock.now)
    board.start()
    clock.advance(0.25)
    board.take(events.ListsLearned("notes", 1))
    assert screen.lines == ["  notes  connecting…", "  notes  ready in 250 ms, 1 tool"]


def test_a_failure_is_said_once_until_its_reason_changes() -> None:
    clock, screen = ManualClock(), Screen()
    board = StatusBoard(screen.console, ["notes"], clock.now)
    board.start()
    for reason in ("refused", "refused", "no such host"):
        board.take(failed(reason))
    clock.advance(90)
    board.take(READY)
    board.take(events.ListsLearned("notes", 3))
    assert screen.lines == [
        "  notes  connecting…",
        "  notes  failed: refused; it is tried again until it answers",
        "  notes  failed: no such host; it is tried again until it answers",
        "  notes  ready after 90.0 s, 3 tools",
    ]


def test_after_the_start_a_failure_is_logged_once_until_it_is_over() -> None:
    screen = Screen()
    set_up_logging(screen.console, "info")
    log = EventLog()
    for event in (failed("refused"), failed("refused"), READY, READY, failed("refused")):
        log.take(event)
    assert [line.partition(" WARNING ")[2] or line.partition(" INFO ")[2] for line in screen.lines] == [
        "notes: session s1 could not be opened: refused",
        "notes: session s2 ready in 250 ms",
        "notes: session s1 could not be opened: refused",
    ]


@pytest.mark.parametrize("is_terminal", [False, True], ids=["pipe", "terminal"])
def test_a_server_cannot_forge_a_line_or_move_the_cursor(is_terminal: bool) -> None:
    screen = Screen(is_terminal=is_terminal)
    set_up_logging(screen.console, "info")
    board = StatusBoard(screen.console, ["notes"], ManualClock().now)
    forged = "bad\n2026-01-01 ERROR all is lost\x1b[2J\x07\x9b2J\u2028end"
    board.take(failed(forged))
    board.take(events.ListsLearned("notes", 1))
    board.take(events.SessionLost("notes", "s1", forged, was_dirty=False))
    said = screen.file.getvalue()
    assert "all is lost" in said
    assert not set("\x1b\x07\x9b\u2028") & set(said)
    assert not any(line.startswith("2026-01-01") for line in screen.lines)


def test_on_a_terminal_long_lines_wrap_between_words_in_their_column() -> None:
    screen = Screen(is_terminal=True)
    set_up_logging(screen.console, "info")
    EventLog().take(events.SessionLost("notes", "s1", "the server closed the connection twice", was_dirty=True))
    first, *others = screen.lines
    assert first[8:19] == "  warning  "
    assert others
    assert all(line.startswith(" " * 19) and line[19] != " " for line in others)


def test_what_was_cut_off_at_the_end_is_no_failure() -> None:
    screen = Screen()
    set_up_logging(screen.console, "info")
    logger = logging.getLogger("uvicorn.error")
    logger.error("Exception in ASGI application", exc_info=asyncio.CancelledError())
    logger.error("Exception in ASGI application", exc_info=ValueError("broken"))
    said = screen.file.getvalue()
    assert "broken" in said
    assert "CancelledError" not in said
