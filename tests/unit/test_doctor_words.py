"""What `holdfast doctor` says: findings in, rows, sentences, pages and JSON out."""

from __future__ import annotations

import io
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Raw
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command

from holdfast.cli.doctor import draw, headers_as_written, parse_wanted, readable_time, title_of
from holdfast.cli.main import app
from holdfast.config import ServerSettings
from holdfast.doctor.advice import advise
from holdfast.doctor.findings import (
    Allowance,
    Answer,
    Ending,
    Findings,
    Handshake,
    Lists,
    Modern,
    Parallel,
    Ping,
    PushStream,
    Reconnect,
    Refusal,
    Resumption,
    SecondConnection,
    State,
    ToolCall,
    UnknownId,
)
from holdfast.doctor.named import Named, Wanted, pair_of
from holdfast.doctor.pasted import paste
from holdfast.doctor.probes import call, pace
from holdfast.doctor.problem import describe, problem_of
from holdfast.doctor.reply import Reply
from holdfast.doctor.report import report
from holdfast.doctor.words import Mark, rows
from holdfast.errors import ConfigError
from requirements import requirement

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SERVED: Final = Answer(kind="result", status=200)
LOST: Final = Answer(kind="error", status=404, code=-32001, words="Session not found")
PAGE: Final = Answer(kind="html", status=500, words="Error: Already connected to a transport.")
SERVER: Final = ServerSettings(name="notes", url="http://127.0.0.1:3000/mcp?key=sesame")

WHOLE: Final = Findings(
    transport="http",
    handshake=Handshake(
        seconds=0.234, answer=SERVED, revision="2025-11-25", server="notes 1.0", has_id=True, announces=("tools",)
    ),
    modern=Modern(seconds=0.0004, answer=LOST, is_spoken=False),
    missing_id=Refusal(seconds=0.002, answer=LOST, is_refused=True),
    unknown_id=UnknownId(seconds=0.002, answer=LOST, ping=SERVED, is_refused=False),
    second=SecondConnection(seconds=0.002, answer=PAGE, is_accepted=False, does_first_survive=True),
    reconnect=Reconnect(seconds=0.002, answer=SERVED, is_kept=True),
    state=State(seconds=1.5, write="remember", read="recall", same=True, reconnected=True, later=False),
    end=Ending(seconds=0.002, answer=Answer(kind="empty", status=204, words="No Content"), is_gone=True),
    ping=Ping(seconds=0.002, answer=SERVED),
    lists=Lists(seconds=0.002, answer=SERVED, tools=("remember", "recall"), read_only=("recall",), resources=1),
    parallel=Parallel(seconds=3.0, request="slow", sent=3, answered=3, alone_seconds=1.0, pace="one after the other"),
    call=ToolCall(seconds=1.0, tool="slow", answer=SERVED, has_failed=False, progress=4, strayed=2),
    push_stream=PushStream(seconds=0.002, answer=Answer(kind="stream", status=200), is_open=True),
    resumption=Resumption(seconds=0.002, has_event_ids=True, is_resumed=False, answer=LOST),
    foreign_origin=Refusal(seconds=0.002, answer=SERVED, is_refused=False),
    foreign_host=Refusal(seconds=0.002, answer=LOST, is_refused=True),
    allowance=Allowance(limit=20, left=12),
)


def said(findings: Findings) -> dict[str, tuple[Mark, str]]:
    return {row.subject: (row.mark, row.says) for row in rows(findings)}


@requirement("doctor:shown")
def test_every_finding_is_a_row_with_a_mark() -> None:
    assert said(WHOLE) == {
        "handshake": (Mark.GOOD, "revision 2025-11-25"),
        "2026-07-28": (Mark.NEUTRAL, "no: 404 -32001 “Session not found”"),
        "list changes": (Mark.GOOD, "announces changes of tools"),
        "session id": (Mark.GOOD, "given"),
        "without an id": (Mark.GOOD, "refused: 404 -32001 “Session not found”"),
        "unknown id": (Mark.BAD, "refused: 404 -32001 “Session not found”; but a ping is answered"),
        "second at once": (Mark.BAD, "refused: 500 an HTML page “Error: Already connected to a transport.”"),
        "reconnecting": (Mark.GOOD, "outlives its connection"),
        "memory": (Mark.GOOD, "there for the next call and a new connection; not for a later session"),
        "DELETE": (Mark.GOOD, "204 No Content; the session is gone"),
        "ping": (Mark.GOOD, "answered"),
        "lists": (Mark.GOOD, "2 tools (1 read-only), 1 resource"),
        "at once": (Mark.NEUTRAL, "3 of slow: one after the other; one alone takes 1.0 s"),
        "call": (Mark.GOOD, "slow succeeds"),
        "progress": (Mark.BAD, "4 came; of calls at once, 2 on another's stream"),
        "limit": (Mark.BAD, "20 requests in a while, 12 left"),
        "GET": (Mark.GOOD, "open for what belongs to no call"),
        "resumption": (Mark.BAD, "events have ids, and are not resumed: 404 -32001 “Session not found”"),
        "foreign Origin": (Mark.BAD, "served all the same"),
        "foreign Host": (Mark.GOOD, "refused: 404 -32001 “Session not found”"),
    }


def test_what_was_not_asked_is_no_row() -> None:
    assert rows(Findings(transport="http")) == []


@pytest.mark.parametrize(
    ("changes", "subject", "expected"),
    [
        ({"state": State(seconds=1, write="w", read="r", same=False)}, "memory", "r gives the same before and after w"),
        (
            {"state": State(seconds=1, write="w", read="r", same=None, problem="w failed")},
            "memory",
            "not known: w failed",
        ),
        (
            {"state": State(seconds=1, write="w", read="r", same=True, second=True, later=True)},
            "memory",
            "there for the next call, a second session and a later session",
        ),
        (
            {"second": SecondConnection(seconds=1, answer=SERVED, is_accepted=True, does_first_survive=False)},
            "second at once",
            "accepted, and the first does not answer any more",
        ),
        (
            {"end": Ending(seconds=1, answer=Answer(kind="empty", status=405), is_gone=False)},
            "DELETE",
            "405; the session is still there",
        ),
        (
            {"modern": Modern(seconds=1, answer=SERVED, is_spoken=False, revisions=("2025-11-25",))},
            "2026-07-28",
            "no: it names 2025-11-25",
        ),
        (
            {"missing_id": Refusal(seconds=1, answer=SERVED, is_refused=False)},
            "without an id",
            "served all the same",
        ),
        (
            {
                "lists": Lists(
                    seconds=1,
                    answer=Answer(kind="error", code=-32601, words="Method not found"),
                    resources=2,
                    prompts=1,
                )
            },
            "lists",
            "no tools, 2 resources, 1 prompt",
        ),
        ({"allowance": Allowance(limit=0, left=0, is_exceeded=True)}, "limit", "there is one; exceeded (429)"),
    ],
)
def test_what_is_otherwise_is_said_otherwise(changes: dict[str, Any], subject: str, expected: str) -> None:
    usual: dict[str, Any] = {
        field.name: getattr(WHOLE, field.name) for field in fields(Findings) if getattr(WHOLE, field.name) is not None
    }
    assert said(Findings(**(usual | changes)))[subject][1] == expected


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SERVED, "answered"),
        (Answer(kind="empty", status=204), "204"),
        (Answer(kind="empty"), "no content"),
        (Answer(kind="nothing", words="no answer within 10 s"), "no answer within 10 s"),
        (Answer(kind="text", status=404, words="Nope"), "404 plain text “Nope”"),
        (Answer(kind="error", code=-32601, words="Method not found"), "-32601 “Method not found”"),
    ],
)
def test_an_answer_is_described_in_a_few_words(answer: Answer, words: str) -> None:
    assert describe(answer) == words


def test_a_server_that_was_never_reached_is_said_to_be_so() -> None:
    assert problem_of(Findings(transport="http")) == "the time was over before it answered"


@pytest.mark.parametrize(
    ("alone", "together", "expected"),
    [
        (0.01, 0.03, "unknown"),
        (1.0, 1.1, "side by side"),
        (1.0, 3.0, "one after the other"),
        (1.0, 2.1, "unknown"),
    ],
)
def test_the_pace_of_three_is_told_only_where_the_times_leave_no_doubt(
    alone: float, together: float, expected: str
) -> None:
    assert pace(alone, together) == expected


def test_progress_is_astray_where_its_token_is_that_of_another_call() -> None:
    result = Raw(b'{"content":[]}')
    alone, first, second = (
        Reply(kind="result", result=result, tokens=tuple(f"holdfast-doctor-{token}" for token in tokens))
        for tokens in (["alone"], ["0", "1", "1"], [])
    )
    found = call(Named("t"), [alone, first, second], has_streams=True)
    assert (found.progress, found.strayed) == (1, 2)
    assert call(Named("t"), [alone, first, second], has_streams=False).strayed is None
    assert call(Named("t"), [alone, second], has_streams=True).strayed is None


# Options.


def test_tools_are_named_with_or_without_their_arguments() -> None:
    wanted = parse_wanted("list", 'put={"a": "b=c"}', "get")
    assert wanted == Wanted(Named("list"), Named("put", {"a": "b=c"}), Named("get"))
    assert parse_wanted(None, None, None) == Wanted()


@pytest.mark.parametrize("words", [(None, "w", None), (None, None, "r"), ("t=1", None, None), ("", None, None)])
def test_tools_that_are_named_badly_are_refused(words: tuple[str | None, str | None, str | None]) -> None:
    with pytest.raises(ConfigError):
        parse_wanted(*words)


@requirement("doctor:calls-what-was-named")
def test_a_pair_is_known_of_our_own_server_alone() -> None:
    tools = ("remember", "recall")
    ours = pair_of(Wanted(), "holdfast-test-server 0.1.0", tools)
    assert ours is not None
    assert [named.tool for named in ours] == ["remember", "recall"]
    assert pair_of(Wanted(), "notes 1.0", tools) is None
    assert pair_of(Wanted(), "holdfast-test-server 0.1.0", ("recall",)) is None
    named = Wanted(write=Named("w"), read=Named("r"))
    assert pair_of(named, "notes 1.0", ()) == (Named("w"), Named("r"))


def test_headers_are_kept_as_they_were_typed() -> None:
    assert headers_as_written(["X-A=${A}", "X-B=b=c"], "${KEY}") == {
        "X-A": "${A}",
        "X-B": "b=c",
        "Authorization": "Bearer ${KEY}",
    }


# What is printed.


@requirement("doctor:shown")
@pytest.mark.parametrize("width", [80, 120, 60])
def test_the_page_fits_the_width_and_holds_no_secret(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, _environ={})
    advice = advise(WHOLE)
    draw(console, title_of(SERVER, WHOLE), WHOLE, advice, paste(SERVER, advice, {}), ["NOTES_QUERY"])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= min(width, 100)
    assert text.startswith("notes 1.0: Streamable HTTP, http://127.0.0.1:3000/mcp")
    assert "sesame" not in text
    assert re.search(r"✓  handshake .*234 ms$", text, re.MULTILINE)
    assert "  max_sessions: 1" in text
    assert "NOTES_QUERY" in text


@requirement("doctor:shown")
def test_what_a_server_says_cannot_forge_a_line_or_a_colour() -> None:
    evil = Answer(kind="error", status=400, words="x\x1b[31m\n✓  ping   [bold]fine[/bold]")
    findings = Findings(transport="http", missing_id=Refusal(seconds=1, answer=evil, is_refused=True))
    console = Console(file=io.StringIO(), width=100, force_terminal=True, highlight=False, markup=False, _environ={})
    draw(console, "it", findings, [], "", [])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b[31mx" not in text
    assert "x\x1b" not in text
    assert "[bold]fine[/bold]" in text


@requirement("doctor:shown")
def test_the_report_for_machines_is_the_one_that_is_documented() -> None:
    told = json.loads(report("notes", WHOLE, advise(WHOLE), ["a remark"], "servers:\n"))
    assert told.keys() == {"server", "usable", "findings", "rows", "advice", "remarks", "settings"}
    assert told["findings"].keys() == {field.name for field in fields(Findings)}
    assert told["advice"][0].keys() == {"setting", "value", "reason"}
    assert told["rows"][0] == {
        "group": "speaks",
        "subject": "handshake",
        "mark": "good",
        "says": "revision 2025-11-25",
    }
    page = (ROOT / "docs" / "doctor.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert told.keys() | told["findings"].keys() <= documented


def test_every_option_is_documented_and_no_other() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    options = {name for option in group.commands["doctor"].params for name in option.opts if name.startswith("--")}
    page = (ROOT / "docs" / "doctor.md").read_text()
    documented = {
        name for cell in re.findall(r"^\| (`--.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(--[\w-]+)", cell)
    }
    assert documented == options | {"--help"}


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, ""), (0.0004, "<1 ms"), (0.0123, "12 ms"), (0.9, "900 ms"), (1.23, "1.2 s")]
)
def test_times_are_short(seconds: float | None, words: str) -> None:
    assert readable_time(seconds) == words
