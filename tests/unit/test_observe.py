"""Events as lines for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator

import pytest

from holdfast import events
from holdfast.observe.log import FLOOD, EventLog
from holdfast.observe.terminal import StatusBoard, set_up_logging
from holdfast.testing.clock import ManualClock
from unit.screens import Screen, kept_logging


@pytest.fixture(autouse=True)
def logging_is_kept() -> Generator[None]:
    with kept_logging():
        yield


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
    assert screen.logged == [
        "WARNING notes: session s1 could not be opened: refused",
        "INFO notes: session s2 ready in 250 ms",
        "WARNING notes: session s1 could not be opened: refused",
    ]


# Servers that come and go.


def test_a_server_that_comes_later_gets_its_line_and_its_own_time() -> None:
    clock, screen = ManualClock(), Screen()
    set_up_logging(screen.console, "info")
    board = StatusBoard(screen.console, ["notes"], clock.now)
    board.start()
    board.take(events.ServerAdded("notes"))
    board.take(events.ListsLearned("notes", 1))
    clock.advance(3600)
    board.take(events.ServerAdded("search"))
    clock.advance(0.5)
    board.take(events.ListsLearned("search", 2))
    assert screen.lines == [
        "  notes  connecting…",
        "  notes  ready in 0 ms, 1 tool",
        "  search  connecting…",
        "  search  ready in 500 ms, 2 tools",
    ]


def test_what_a_removed_server_still_does_is_logged() -> None:
    screen = Screen()
    set_up_logging(screen.console, "info")
    board = StatusBoard(screen.console, ["notes"], ManualClock().now)
    board.take(events.ServerRemoved("notes"))
    board.take(failed("refused"))
    board.take(events.ListsLearned("notes", 1))
    board.take(events.ServerRemoved("notes"))
    assert screen.logged == [
        "INFO notes: removed",
        "WARNING notes: session s1 could not be opened: refused",
        "INFO notes: ready, 1 tool",
        "INFO notes: removed",
    ]


def test_a_server_that_comes_back_is_connected_anew() -> None:
    screen = Screen()
    set_up_logging(screen.console, "warning")
    board = StatusBoard(screen.console, ["notes"], ManualClock().now)
    for event in (events.ListsLearned("notes", 1), events.ServerRemoved("notes"), events.ServerAdded("notes")):
        board.take(event)
    board.take(failed("refused"))
    assert screen.lines == [
        "  notes  ready in 0 ms, 1 tool",
        "  notes  connecting…",
        "  notes  failed: refused; it is tried again until it answers",
    ]


def test_on_a_terminal_the_live_lines_end_when_the_last_unsettled_server_is_removed() -> None:
    screen = Screen(is_terminal=True)
    board = StatusBoard(screen.console, ["notes", "search"], ManualClock().now)
    board.start()
    try:
        board.take(events.ListsLearned("notes", 1))
        board.take(events.ServerRemoved("search"))
        board.take(events.ServerAdded("mail"))
        board.take(events.ListsLearned("mail", 2))
    finally:
        board.stop()
    connecting, ready = screen.lines[-2:]
    assert connecting.endswith("  mail   connecting…")
    assert ready == "  mail   ready in 0 ms, 2 tools", "the live lines, which move the cursor, are over"


def test_the_tools_are_said_when_they_change_and_not_when_they_are_learnt_again() -> None:
    screen = Screen()
    set_up_logging(screen.console, "info")
    board = StatusBoard(screen.console, ["notes"], ManualClock().now)
    for tools in (1, 1, 2, 2):
        board.take(events.ListsLearned("notes", tools))
    assert screen.lines[0] == "  notes  ready in 0 ms, 1 tool"
    assert [line[24:] for line in screen.lines[1:]] == ["INFO notes: now 2 tools"]


# Lines of the log.


def logged(*happened: events.Event, level: str = "info", clock: ManualClock | None = None) -> list[str]:
    screen = Screen()
    set_up_logging(screen.console, level)
    log = EventLog((clock or ManualClock()).now)
    for event in happened:
        log.take(event)
    return screen.logged


def call_ended(outcome: str, request: str = "r1") -> events.CallEnded:
    return events.CallEnded("notes", "tools/call", outcome, 2.0, request)


def test_only_calls_that_got_no_answer_of_the_server_are_news() -> None:
    outcomes = ("result", "error", "cancelled", "overloaded", "timeout", "outcome_unknown", "session_lost")
    assert logged(*map(call_ended, outcomes), events.RequestEnded("mcp", "POST", 500)) == [
        "INFO notes: tools/call ended with timeout after 2000 ms (request r1)",
        "INFO notes: tools/call ended with outcome_unknown after 2000 ms (request r1)",
        "INFO notes: tools/call ended with session_lost after 2000 ms (request r1)",
    ]
    assert len(logged(*map(call_ended, outcomes), events.RequestEnded("mcp", "POST", 500), level="debug")) == 8


def test_a_flood_is_one_line_and_then_how_many_there_were() -> None:
    clock, screen = ManualClock(), Screen()
    set_up_logging(screen.console, "info")
    log = EventLog(clock.now)
    for number in range(100):
        log.take(call_ended("timeout", f"r{number}"))
    clock.advance(FLOOD)
    log.take(call_ended("timeout", "last"))
    assert screen.logged == [
        "INFO notes: tools/call ended with timeout after 2000 ms (request r0)",
        "INFO notes: tools/call ended with timeout after 2000 ms (and 99 more since the last such line) (request last)",
    ]


def test_methods_that_clients_make_up_are_one_flood() -> None:
    made_up = (events.CallFailed("notes", f"made/up-{number}", "refused") for number in range(100))
    assert logged(*made_up) == ["WARNING notes: made/up-0 failed: refused"]


def test_a_line_about_a_call_that_no_request_brought_names_none() -> None:
    assert logged(events.CallRefused("notes", "full"), events.CallRepeated("notes", "ping", "it closed")) == [
        "WARNING notes: calls are refused: full",
        "INFO notes: ping is sent again: it closed",
    ]


def test_settings_that_change_no_server_say_so() -> None:
    assert logged(events.SettingsReloaded((), (), ())) == ["INFO new settings are in force: no server differs"]
    assert logged(events.SettingsReloaded((), (), (), clients=("agent",))) == [
        "INFO new settings are in force: no server differs; clients that differ: agent"
    ]


def test_what_was_said_of_a_server_is_forgotten_with_it() -> None:
    lost = events.SessionLost("notes", "s1", "it exited", was_dirty=False)
    again = (failed("refused"), lost, events.ListsLearned("notes", 1))
    lines = logged(*again, events.ServerRemoved("notes"), *again)
    assert lines[:3] == lines[4:]


# What servers write.


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


def test_that_a_server_is_left_alone_is_said_once_until_it_is_back() -> None:
    screen = Screen()
    set_up_logging(screen.console, "info")
    log = EventLog()
    for _ in range(3):
        log.take(events.CircuitOpened("notes", "refused", 5.0))
    log.take(events.CircuitClosed("notes"))
    log.take(events.CircuitOpened("notes", "refused", 5.0))
    assert ["left alone" in line for line in screen.logged] == [True, False, True]
