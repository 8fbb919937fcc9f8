"""The log for programs, and the examples of docs/observability.md."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from holdfast import events
from holdfast.observe.feed import EventFeed, encode
from holdfast.observe.fields import LONGEST, fields_of
from holdfast.observe.log import EventLog
from holdfast.observe.terminal import set_up_logging
from holdfast.testing.clock import ManualClock
from requirements import requirement
from unit.screens import EXAMPLES, Screen, kept_logging

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
RFC_3339: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def logging_is_kept() -> Generator[None]:
    with kept_logging():
        yield


def json_lines(*happened: events.Event, level: str = "debug") -> list[dict[str, Any]]:
    screen = Screen(is_terminal=True)
    set_up_logging(screen.console, level, "json")
    log = EventLog(ManualClock().now)
    for event in happened:
        log.take(event)
    return [json.loads(line) for line in screen.lines]


@requirement("observe:log:json-is-an-object-a-line")
@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_is_an_object_with_its_fields(event: events.Event) -> None:
    lines = json_lines(event)
    assert lines
    for line in lines:
        assert re.fullmatch(RFC_3339, line.pop("time"))
        assert line.pop("level") in {"debug", "info", "warning", "error"}
        assert line.pop("logger") == "holdfast"
        assert line.pop("message")
        assert line == json.loads(json.dumps(fields_of(event)))


def test_seconds_are_told_to_the_microsecond() -> None:
    assert fields_of(events.CallEnded("notes", "tools/call", "result", 0.01599999999962165))["seconds"] == 0.016


def test_fields_bear_the_names_of_the_event() -> None:
    assert fields_of(events.CallEnded("notes", "tools/call", "timeout", 300.0, "r3")) == {
        "event": "call_ended",
        "server": "notes",
        "method": "tools/call",
        "outcome": "timeout",
        "seconds": 300.0,
        "request": "r3",
    }
    assert fields_of(events.CallEnded("notes", "tools/call", "result", 0.0)).keys() == {
        "event",
        "server",
        "method",
        "outcome",
        "seconds",
    }


def test_a_server_cannot_forge_a_line_or_move_the_cursor() -> None:
    screen = Screen()
    set_up_logging(screen.console, "info", "json")
    forged = 'bad\n{"level": "error"}\x1b[2J\x07\x9b2J\u2028\ud800end'
    EventLog().take(events.SessionLost("notes", "s1", forged, was_dirty=False))
    assert len(screen.lines) == 1
    assert screen.text.rstrip("\n").isascii()
    assert screen.text.rstrip("\n").isprintable()
    assert json.loads(screen.text)["reason"] == forged


def test_an_exception_is_a_field() -> None:
    screen = Screen()
    set_up_logging(screen.console, "info", "json")
    logging.getLogger("uvicorn.error").error("Exception in %s", "the application", exc_info=ValueError("broken"))
    (line,) = (json.loads(line) for line in screen.lines)
    assert line["logger"] == "uvicorn.error"
    assert line["message"] == "Exception in the application"
    assert line["exception"] == "ValueError: broken"


def test_each_line_of_refused_settings_is_a_line() -> None:
    first, *mistakes = json_lines(events.SettingsRefused("a.yaml:1: one\na.yaml:2: two"))
    assert "stay in force" in first["message"]
    assert [line["message"] for line in mistakes] == ["a.yaml:1: one", "a.yaml:2: two"]
    assert [line["reason"] for line in mistakes] == ["a.yaml:1: one", "a.yaml:2: two"]


def test_megabytes_of_a_server_or_a_client_are_cut() -> None:
    method, reason = "m" * 1_000_000, "r" * 1_000_000
    (line,) = json_lines(events.CallFailed("notes", method, reason, "r1"))
    assert len(line["method"]) == len(line["reason"]) == LONGEST
    assert len(line["message"]) < 3 * LONGEST
    assert line["message"].endswith("(request r1)")
    feed = EventFeed()
    feed.take(events.CallFailed("notes", method, reason))
    assert len(json.dumps(encode(feed.recent[0]))) < 3 * LONGEST


# The documentation.


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [body for name, body in fences if name == language]


def test_the_examples_are_of_every_kind() -> None:
    assert {type(event) for event in EXAMPLES} == set(get_args(events.Event))


def test_the_documented_text_is_what_is_logged() -> None:
    screen = Screen()
    set_up_logging(screen.console, "debug")
    log = EventLog(ManualClock().now)
    for event in EXAMPLES:
        log.take(event)
    (block,) = blocks("")
    assert [line[24:] for line in block.splitlines()] == screen.logged


def test_the_documented_objects_are_what_is_logged() -> None:
    (block,) = blocks("json")
    documented = [json.loads(line) for line in block.splitlines()]
    logged = json_lines(*EXAMPLES)
    for line in (*documented, *logged):
        del line["time"]
    assert documented
    assert [line for line in documented if line not in logged] == []


def test_every_event_and_field_is_documented_and_no_other() -> None:
    documented = {
        name: set(re.findall(r"`(\w+)`", names))
        for name, names in re.findall(r"^\| `(\w+)` \| (`.*?`) \|$", PAGE.read_text(), re.MULTILINE)
    }
    kinds = {fields_of(event)["event"]: set[str]() for event in EXAMPLES}
    for event in EXAMPLES:
        kinds[fields_of(event)["event"]] |= fields_of(event).keys() - {"event"}
    assert {name: fields for name, fields in documented.items() if name in kinds} == kinds
