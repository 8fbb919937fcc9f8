"""The demonstration: what it reads, what it shows, and that it fails where it has nothing to show."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from holdfast.testing.demo import Observation, broken_claims, show
from holdfast.testing.demo_host import STEPS, Chat, ScriptRun, chats


def played(*, keeps: bool, seconds: float) -> list[Chat]:
    conversations = chats()
    for chat in conversations:
        chat.counts = ["1", "2"] if keeps else ["1", "1"]
        chat.recalled = chat.secret if keeps else None
        chat.seconds = [seconds] * len(chat.messages)
    return conversations


@pytest.fixture
def without() -> Observation:
    return Observation(played(keeps=False, seconds=0.3), 12, 3.6, ScriptRun(400, has_result=False, progress=0))


@pytest.fixture
def through() -> Observation:
    return Observation(played(keeps=True, seconds=0.01), 3, 0.1, ScriptRun(200, has_result=True, progress=STEPS))


def shown(without: Observation, through: Observation, width: int = 80) -> tuple[int, str]:
    screen = io.StringIO()
    status = show(Console(file=screen, width=width), 0.3, without, through)
    return status, screen.getvalue()


def test_no_two_chats_have_a_name_or_a_secret_in_common() -> None:
    conversations = chats()
    assert len({chat.name for chat in conversations}) == len({chat.secret for chat in conversations}) == 3
    assert len({chat.user for chat in conversations}) == 2


def test_a_demo_that_shows_what_it_claims_succeeds(without: Observation, through: Observation) -> None:
    assert broken_claims(without, through) == []
    status, text = shown(without, through)
    assert status == 0
    assert "Did not hold" not in text


def test_the_table_holds_what_was_measured(without: Observation, through: Observation) -> None:
    _, text = shown(without, through)
    rows = {line[:28].strip(): line[28:].split("  ") for line in text.splitlines()}
    assert [cell.strip() for cell in rows["handshakes for 12 messages"] if cell] == ["12", "3"]
    assert [cell.strip() for cell in rows["time of a message, median"] if cell] == ["300 ms", "10 ms"]
    assert [cell.strip() for cell in rows["Ada, chat A1: gets back"] if cell] == ["✗ 1, 1, nothing", "✓ 1, 2, harbour"]


def test_no_line_is_wider_than_a_terminal_of_80_columns(without: Observation, through: Observation) -> None:
    _, text = shown(without, through)
    assert max(map(len, text.splitlines())) <= 80
    assert "✓ result, 3 of 3 progress" in text


def test_a_chat_that_recalls_the_secret_of_another_breaks_the_demo(without: Observation, through: Observation) -> None:
    through.chats[1].recalled = through.chats[0].secret
    assert shown(without, through)[0] == 1
    assert broken_claims(without, through) == ["with Holdfast every chat keeps its own state"]


def test_a_chat_that_counts_the_calls_of_another_breaks_the_demo(without: Observation, through: Observation) -> None:
    through.chats[2].counts = ["3", "4"]
    assert broken_claims(without, through) == ["with Holdfast every chat keeps its own state"]


def test_a_server_that_forgets_nothing_by_itself_breaks_the_demo(without: Observation, through: Observation) -> None:
    without.chats[0].counts = ["1", "2"]
    assert len(broken_claims(without, through)) == 1


def test_a_handshake_per_message_breaks_the_demo(without: Observation, through: Observation) -> None:
    assert broken_claims(without, replace(through, handshakes=12)) == [
        "with Holdfast the server opens one session per chat"
    ]


def test_slower_messages_break_the_demo(without: Observation, through: Observation) -> None:
    slow = replace(through, chats=played(keeps=True, seconds=0.4))
    status, text = shown(without, slow)
    assert status == 1
    assert "Did not hold: with Holdfast a message is faster." in text
    assert "Try it" not in text


def test_a_script_without_its_progress_breaks_the_demo(without: Observation, through: Observation) -> None:
    quiet = replace(through, script=ScriptRun(200, has_result=True, progress=0))
    assert broken_claims(without, quiet) == ["with Holdfast a client without a session gets its progress"]
