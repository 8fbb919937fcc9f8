"""What `holdfast doctor` advises: from findings to settings, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from holdfast.config import ServerSettings
from holdfast.config.file import load
from holdfast.doctor.advice import Advice, advise, remarks
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
    Refusal,
    SecondConnection,
    State,
    ToolCall,
    UnknownId,
)
from holdfast.doctor.pasted import paste, variables
from requirements import requirement

SERVED: Final = Answer(kind="result", status=200)
REFUSED: Final = Answer(kind="error", status=404, code=-32001, words="Session not found")
PAGE: Final = Answer(kind="html", status=500, words="Error: Already connected to a transport.")
SILENCE: Final = Answer(kind="nothing", words="no answer within 10 s")
NO_METHOD: Final = Answer(kind="error", status=400, code=-32601, words="Method not found")


def shaking(seconds: float = 0.1, *, has_id: bool = True) -> Handshake:
    return Handshake(seconds=seconds, answer=SERVED, revision="2025-11-25", server="notes 1", has_id=has_id)


def found(**changes: Any) -> Findings:
    """Those of a server as it should be: sessions with ids, as many as one likes, what is unknown refused."""
    usual: dict[str, Any] = {
        "transport": "http",
        "handshake": shaking(),
        "modern": Modern(seconds=0.1, answer=NO_METHOD, is_spoken=False),
        "ping": Ping(seconds=0.1, answer=SERVED),
        "missing_id": Refusal(seconds=0.1, answer=REFUSED, is_refused=True),
        "unknown_id": UnknownId(seconds=0.1, answer=REFUSED, ping=REFUSED, is_refused=True),
        "second": SecondConnection(seconds=0.1, answer=SERVED, is_accepted=True, does_first_survive=True),
        "parallel": parallel(3),
        "lists": Lists(seconds=0.1, answer=SERVED, tools=("a", "b"), is_same_in_second=True),
        "end": Ending(seconds=0.1, answer=Answer(kind="empty", status=204), is_gone=True),
    }
    usual |= changes
    return Findings(**usual)


def parallel(answered: int) -> Parallel:
    return Parallel(
        seconds=0.3, request="tools/list", sent=3, answered=answered, alone_seconds=0.1, pace="one after the other"
    )


def state(**there: Any) -> State:
    given: dict[str, Any] = {"same": True} | there
    return State(seconds=0.1, write="remember", read="recall", **given)


def settings(findings: Findings) -> dict[str, str | int]:
    return {one.setting: one.value for one in advise(findings)}


def reason(findings: Findings, setting: str) -> str:
    return next(one.reason for one in advise(findings) if one.setting == setting)


# The scope.


@requirement("doctor:advice:from-findings")
def test_a_server_with_sessions_of_which_no_more_is_known_gets_one_for_each_chat_and_nothing_else() -> None:
    assert settings(found()) == {"scope": "chat"}


@requirement("doctor:advice:from-findings")
def test_memory_that_stays_in_its_session_is_a_reason_for_one_for_each_chat() -> None:
    findings = found(state=state(second=False, later=False))
    assert settings(findings) == {"scope": "chat"}
    assert "remember" in reason(findings, "scope")


@requirement("doctor:advice:from-findings")
@pytest.mark.parametrize(
    "changes",
    [
        {"state": state(second=True)},
        {"handshake": shaking(has_id=False), "missing_id": None, "unknown_id": None},
        {
            "missing_id": Refusal(seconds=0.1, answer=SERVED, is_refused=False),
            "unknown_id": UnknownId(seconds=0.1, answer=SERVED, ping=SERVED, is_refused=False),
        },
        {
            "handshake": Handshake(seconds=0.1, answer=NO_METHOD),
            "modern": Modern(seconds=0.1, answer=SERVED, is_spoken=True, revisions=("2026-07-28",)),
            "second": None,
        },
    ],
    ids=["sessions share their memory", "no session id", "ids mean nothing", "2026-07-28 alone"],
)
def test_a_server_that_tells_no_chat_from_another_gets_one_session_for_all(changes: dict[str, Any]) -> None:
    assert settings(found(**changes)) == {"scope": "shared"}


def test_one_session_id_that_is_not_asked_for_does_not_make_a_server_shared() -> None:
    served = Refusal(seconds=0.1, answer=SERVED, is_refused=False)
    assert settings(found(missing_id=served)) == {"scope": "chat"}


@requirement("doctor:advice:from-findings")
@pytest.mark.parametrize(
    "second",
    [
        SecondConnection(seconds=0.1, answer=PAGE, is_accepted=False, does_first_survive=True),
        SecondConnection(seconds=9.0, answer=SILENCE, is_accepted=False, does_first_survive=True),
        SecondConnection(seconds=0.1, answer=SERVED, is_accepted=True, does_first_survive=False),
    ],
    ids=["refused", "left waiting", "the first dies"],
)
def test_a_server_that_takes_one_connection_gets_one_session_for_all(second: SecondConnection) -> None:
    findings = found(second=second, state=state(second=None))
    assert settings(findings) == {"scope": "shared", "max_sessions": 1}


def test_a_second_session_that_is_refused_for_its_rate_says_nothing_of_how_many_there_may_be() -> None:
    answer = Answer(kind="text", status=429, words="Too many requests")
    second = SecondConnection(seconds=0.1, answer=answer, is_accepted=False, does_first_survive=True)
    assert "max_sessions" not in settings(found(second=second))


def test_a_first_session_that_never_answered_a_ping_was_not_killed_by_the_second() -> None:
    second = SecondConnection(seconds=0.1, answer=SERVED, is_accepted=True, does_first_survive=False)
    findings = found(second=second, ping=Ping(seconds=10, answer=SILENCE))
    assert settings(findings) == {"scope": "chat"}


# The other settings.


@requirement("doctor:advice:from-findings")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parallel": parallel(1)}, {"serial": "true"}),
        (
            {"call": ToolCall(seconds=1, tool="t", answer=SERVED, has_failed=False, progress=3, strayed=2)},
            {"serial": "true"},
        ),
        ({"lists": Lists(seconds=0.1, answer=SERVED, tools=("a",), is_same_in_second=False)}, {"lists": "session"}),
        (
            {
                "modern": Modern(seconds=0.1, answer=SERVED, is_spoken=True),
                "state": state(second=False, modern=False),
            },
            {"era": "handshake"},
        ),
        (
            {
                "modern": Modern(seconds=0.1, answer=SERVED, is_spoken=True, counts_requests=True),
                "allowance": Allowance(limit=20, left=3),
            },
            {"era": "handshake", "start": "lazy"},
        ),
        ({"modern": Modern(seconds=10, answer=SILENCE, is_spoken=False)}, {"era": "handshake"}),
        (
            {"modern": Modern(seconds=0.1, answer=NO_METHOD, is_spoken=False, opens_session=True)},
            {"era": "handshake"},
        ),
        ({"allowance": Allowance(limit=5000, left=4000)}, {}),
        ({"transport": "sse", "handshake": None, "legacy_sse": shaking()}, {"transport": "sse"}),
        ({"handshake": shaking(8)}, {}),
        ({"handshake": shaking(14)}, {"open_timeout": 50}),
        (
            {"end": Ending(seconds=0.1, answer=Answer(kind="empty", status=405), is_gone=False)},
            {"idle_timeout": 7200},
        ),
    ],
    ids=[
        "requests at once get lost",
        "progress goes astray",
        "lists differ",
        "memory in sessions alone",
        "few requests",
        "discovery hangs",
        "discovery opens a session",
        "many requests",
        "HTTP+SSE",
        "slow",
        "very slow",
        "no DELETE",
    ],
)
def test_what_differs_from_the_defaults_is_said_with_its_reason(
    changes: dict[str, Any], expected: dict[str, str | int]
) -> None:
    findings = found(**changes)
    assert settings(findings) == {"scope": "chat", **expected}
    assert all(one.reason.endswith(".") for one in advise(findings))


def test_nothing_is_advised_for_a_server_that_cannot_be_talked_to() -> None:
    assert advise(found(problem="connection refused")) == []


def test_of_a_server_that_cannot_be_talked_to_nothing_is_remarked_that_supposes_sessions() -> None:
    assert remarks(found(problem="connection refused")) == []
    assert len(remarks(found(problem="the time was over", is_cut=True, left_behind=1))) == 2


# What else to know.


def test_a_server_whose_memory_was_not_tried_is_said_to_be_so_and_how_to_try_it() -> None:
    assert any("--write" in remark for remark in remarks(found()))
    assert not any("--write" in remark for remark in remarks(found(state=state(second=False))))


def test_a_pair_that_shows_nothing_is_said_to_show_nothing() -> None:
    told = remarks(found(state=state(same=False)))
    assert any("the same before and after" in remark for remark in told)
    assert settings(found(state=state(same=False))) == {"scope": "chat"}


def test_a_server_of_both_eras_whose_memory_was_not_tried_is_said_to_have_one_without_sessions() -> None:
    modern = Modern(seconds=0.1, answer=SERVED, is_spoken=True)
    assert any("era: handshake" in remark for remark in remarks(found(modern=modern)))
    assert not any("era: handshake" in remark for remark in remarks(found(modern=modern, state=state(modern=True))))


def test_ids_that_are_answered_whoever_made_them_up_are_said_to_hide_a_loss() -> None:
    unknown = UnknownId(seconds=0.1, answer=REFUSED, ping=SERVED, is_refused=False)
    assert any("lost" in remark for remark in remarks(found(unknown_id=unknown)))


def test_a_server_that_any_page_can_reach_is_said_to_be_open() -> None:
    served = Refusal(seconds=0.1, answer=SERVED, is_refused=False)
    refused = Refusal(seconds=0.1, answer=REFUSED, is_refused=True)
    assert any("any origin" in remark for remark in remarks(found(foreign_origin=served, foreign_host=served)))
    for origin, host, said in ((served, refused, "of any origin, and"), (refused, served, "under any name, and")):
        assert any(said in remark for remark in remarks(found(foreign_origin=origin, foreign_host=host)))
    closed = remarks(found(foreign_origin=refused, foreign_host=refused))
    assert not any("guarded" in remark or "any origin" in remark for remark in closed)


# The settings to paste.


EVERYTHING: Final = [
    Advice("scope", "shared", ""),
    Advice("max_sessions", 1, ""),
    Advice("serial", "true", ""),
    Advice("lists", "session", ""),
    Advice("era", "handshake", ""),
    Advice("start", "lazy", ""),
    Advice("open_timeout", 50, ""),
    Advice("idle_timeout", 7200, ""),
]


@requirement("doctor:advice:can-be-pasted")
def test_every_setting_that_is_advised_is_one_of_the_settings_file(tmp_path: Path) -> None:
    server = ServerSettings(name="notes", url="http://127.0.0.1:3000/mcp")
    file = tmp_path / "holdfast.yaml"
    file.write_text(
        paste(server, [*EVERYTHING, Advice("transport", "sse", "")], {}).replace("    era: handshake\n", "")
    )
    (read,) = load(file).settings.servers
    assert (read.name, read.url, read.transport) == ("notes", "http://127.0.0.1:3000/mcp", "sse")
    file.write_text(paste(server, EVERYTHING, {}))
    (read,) = load(file).settings.servers
    assert (read.scope, read.max_sessions, read.serial, read.lists) == ("shared", 1, True, "session")
    assert (read.era, read.start, read.open_timeout, read.idle_timeout) == ("handshake", "lazy", 50, 7200)


@requirement("doctor:advice:can-be-pasted")
@pytest.mark.parametrize(
    "word",
    [
        "--isolated",
        "@playwright/mcp",
        "yes",
        "No",
        "1",
        "1.0",
        "~",
        "-",
        "- x",
        "a: b",
        "#x",
        "'",
        '"',
        "\\",
        "{",
        "[x]",
        "*",
        "&a",
        "!x",
        "%x",
        "a,b",
        "é",
        "😀",
        "\x7f",
        "\x85",
        " x ",
        "",
        "a\nb",
        "${HOME}",
        "$${HOME}",
        "$x",
        "?",
        "|",
    ],
)
def test_a_command_is_read_back_word_for_word(word: str, tmp_path: Path) -> None:
    server = ServerSettings(name="true", command=("npx", word, "--last"))
    file = tmp_path / "holdfast.yaml"
    file.write_text(paste(server, [Advice("scope", "chat", "")], {}))
    (read,) = load(file, {"HOME": "elsewhere"}).settings.servers
    assert (read.name, read.command) == ("true", server.command)


@requirement("doctor:advice:can-be-pasted")
def test_no_secret_is_pasted_and_the_variables_that_stand_for_it_are_named(tmp_path: Path) -> None:
    headers: Any = {"Authorization": "Bearer sesame-1", "X-Key": "sesame-2", "X-Both": "sesame-3 and more"}
    url = "https://example.org/mcp?key=sesame-4"
    server = ServerSettings(name="7-notes", url=url, headers=headers)
    written = {"Authorization": "Bearer ${TOKEN}", "X-Key": "sesame-2", "X-Both": "sesame-3 ${MORE}"}
    text = paste(server, [Advice("scope", "chat", "")], written)
    assert "sesame" not in text
    assert variables(server, written) == ["_7_NOTES_X_KEY", "_7_NOTES_X_BOTH", "_7_NOTES_QUERY"]
    environment = {
        "TOKEN": "sesame-1",
        "_7_NOTES_X_KEY": "sesame-2",
        "_7_NOTES_X_BOTH": "sesame-3 and more",
        "_7_NOTES_QUERY": "key=sesame-4",
    }
    file = tmp_path / "holdfast.yaml"
    file.write_text(text)
    (read,) = load(file, environment).settings.servers
    assert (read.url, {name: value.get_secret_value() for name, value in read.headers.items()}) == (url, headers)


def test_the_variables_of_a_process_stay_variables(tmp_path: Path) -> None:
    environment: Any = {"NOTION_TOKEN": "sesame"}
    server = ServerSettings(name="notion", command=("notion",), env=environment, cwd=str(tmp_path))
    text = paste(server, [], {})
    assert "sesame" not in text
    file = tmp_path / "holdfast.yaml"
    file.write_text(text)
    (read,) = load(file, environment).settings.servers
    assert (read.env["NOTION_TOKEN"].get_secret_value(), read.cwd) == ("sesame", str(tmp_path))
