"""`holdfast tools` and `holdfast call` as a person, a pipe and a server meet them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast.testing.server_tools import TOOLS
from interop.programs import (
    HOLDFAST,
    PATIENCE,
    TEST_SERVER_STDIO,
    descendants,
    holdfast,
    shipped_server,
    wait_for_the_end_of,
)
from interop.terminal import at_terminal
from processes import free_port, start, wait_until
from requirements import requirement

STDIO: Final = ("--", *TEST_SERVER_STDIO)


def run(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOLDFAST), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )


def said(*arguments: str | Path, stdin: str = "", **environment: str) -> str:
    """What a command that succeeds prints, without its last line end."""
    done = run(*arguments, stdin=stdin, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with shipped_server("--page-size", "4") as url:
        yield url


@pytest.fixture(scope="module")
def gateway(url: str) -> Generator[str]:
    with holdfast("--key", "sesame", url) as (gateway_url, _):
        yield gateway_url


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "servers.yaml"
    command = json.dumps(TEST_SERVER_STDIO)
    path.write_text(
        f"servers:\n  notes: {{command: {command}}}\n  other: {{url: http://127.0.0.1:{free_port()}/mcp}}\n"
        f"  pinned: {{command: {json.dumps([*TEST_SERVER_STDIO, '--era', 'modern'])}, era: handshake}}\n"
    )
    return path


DEAF: Final = """
import json
while True:
    answer = {"jsonrpc": "2.0", "id": json.loads(input()).get("id"), "error": {"code": -32601, "message": "not here"}}
    print(json.dumps(answer), flush=True)
"""
"""Refuses everything."""
KINDS: Final[dict[str, tuple[str, ...]]] = {"2026-07-28": ("--era", "modern"), "HTTP+SSE": ("--sse",)}
"""Servers that do not shake hands over Streamable HTTP."""


@pytest.fixture(scope="module", params=KINDS)
def other_url(request: pytest.FixtureRequest) -> Generator[str]:
    """The URL of a server of one of `KINDS`."""
    with start(sys.executable, "-m", "holdfast.testing.server", *KINDS[request.param]) as process:
        yield process.wait_for_line(r"http://\S+")[0]


# Tools.


@requirement("interop:call:tools-of-every-kind-of-server")
def test_the_tools_of_all_pages_are_listed_alike_for_a_url_a_command_and_a_name(url: str, settings: Path) -> None:
    lists = [said("tools", *words) for words in ([url], STDIO, ["--config", settings, "notes"])]
    rows = [line.split("\t") for line in lists[0].splitlines()]
    assert {row[0] for row in rows} == TOOLS.keys() - {"extra"}
    assert ["remember", "key* value*", "Keeps a value for this session."] in rows
    assert ["progress", "steps* gate", "Reports progress; with a gate, waits there after the first step."] in rows
    assert lists[1] == lists[2] == lists[0]


@requirement("interop:call:json-is-the-servers-own")
def test_as_json_tools_are_what_the_server_sent(url: str) -> None:
    listed = json.loads(said("tools", "--json", url))
    assert {tool["name"]: tool for tool in listed} == {
        name: tool.declaration for name, tool in TOOLS.items() if name != "extra"
    }


@requirement("interop:call:tools-of-every-kind-of-server")
def test_on_a_terminal_tools_are_a_table_with_the_server_above_it() -> None:
    with at_terminal(HOLDFAST, "tools", *STDIO) as terminal:
        assert terminal.wait() == 0
        lines = terminal.text.splitlines()
        assert lines[0].startswith("holdfast-test-server ")
        assert any(re.fullmatch(r"recall +key\* +Gives back what was remembered\. *", line) for line in lines)
        assert lines[-1] == "* must be given"


# Calls.


@requirement("interop:call:arguments")
def test_arguments_are_pairs_json_and_standard_input_in_their_order(url: str) -> None:
    words = ('{"a": 1, "b": 1}', "b=2", "text=two words", 'quoted="3"', "list=[1, null]", "-", "empty=")
    answer = json.loads(said("call", url, "echo", *words, stdin='{"c": {"d": true}, "a": 7}'))
    assert answer["arguments"] == {
        "a": 7,
        "b": 2,
        "text": "two words",
        "quoted": "3",
        "list": [1, None],
        "c": {"d": True},
        "empty": "",
    }


@requirement("interop:call:json-is-the-servers-own")
def test_as_json_a_result_stands_alone_on_stdout(url: str) -> None:
    done = run("call", url, "progress", "steps=2", "--json")
    assert json.loads(done.stdout) == {"content": [{"type": "text", "text": "done"}], "isError": False}
    assert done.stdout.count("\n") == 1


@requirement("interop:call:progress-and-logs")
def test_without_a_terminal_progress_is_a_line_per_message(url: str) -> None:
    done = run("call", url, "progress", "steps=4")
    assert done.stdout == "done\n"
    assert done.stderr.splitlines() == ["25% step 1 of 4", "50% step 2 of 4", "75% step 3 of 4", "100% step 4 of 4"]


@requirement("interop:call:progress-and-logs")
@pytest.mark.parametrize("target", ["url", "command"])
def test_log_messages_are_shown_from_the_level_on(url: str, target: str) -> None:
    def log(level: str, *options: str) -> str:
        server, after = ([url], []) if target == "url" else ([], [*STDIO])
        done = run("call", *server, "log", f"level={level}", "message=hello", *options, *after)
        assert done.returncode == 0
        return done.stderr

    assert log("warning", "--log-level", "info") == "warning test: hello\n"
    assert log("debug", "--log-level", "info") == ""
    assert log("error") == ""


@requirement("interop:call:chat-through-a-gateway")
def test_calls_through_a_gateway_meet_the_state_of_their_chat(gateway: str) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return run("call", gateway, *words, "--key", "${KEY}", KEY="sesame")

    assert call("remember", "key=colour", "value=blue", "--chat", "one").stdout == "remembered\n"
    assert call("recall", "key=colour", "--chat", "one").stdout == "blue\n"
    for other in (["--chat", "two"], []):
        done = call("recall", "key=colour", *other)
        assert (done.returncode, done.stderr) == (1, "nothing is remembered as colour\n")


@requirement("interop:call:chat-through-a-gateway")
def test_headers_reach_the_server_and_its_session_ends(url: str) -> None:
    told = json.loads(said("call", url, "whoami", "--header", "X-Team=${TEAM}", "--key", "k", TEAM="blue"))
    assert told["headers"] == {"x-team": "blue"}
    assert told["authorization"] is True
    assert told["capabilities"].keys() == {"elicitation"}


# Servers of every kind.


@requirement("interop:call:any-server")
def test_servers_of_every_kind_are_listed_and_called(other_url: str) -> None:
    assert {tool["name"] for tool in json.loads(said("tools", other_url, "--json"))} >= TOOLS.keys() - {"extra"}
    done = run("call", other_url, "progress", "steps=2")
    assert (done.stdout, done.stderr) == ("done\n", "50% step 1 of 2\n100% step 2 of 2\n")
    logged = run("call", other_url, "log", "level=warning", "message=hello", "--log-level", "info")
    assert (logged.stdout, logged.stderr) == ("logged\n", "warning test: hello\n")
    assert run("call", other_url, "fail", "message=no luck").returncode == 1
    unknown = run("call", other_url, "recal")
    assert unknown.returncode == 2
    assert "has no tool 'recal'; it has recall, " in unknown.stderr


@requirement("interop:call:any-server")
def test_a_command_of_2026_is_listed_and_called() -> None:
    assert "count\t" in said("tools", *STDIO, "--era", "modern")
    told = json.loads(said("call", "echo", "text=hello", *STDIO, "--era", "modern"))
    assert told["arguments"] == {"text": "hello"}


@requirement("interop:call:any-server")
def test_as_json_what_a_server_of_2026_sent_stands_on_stdout() -> None:
    told = json.loads(said("call", "count", "--json", *STDIO, "--era", "modern"))
    assert told["resultType"] == "complete"


@requirement("interop:call:any-server")
def test_whoever_cannot_be_talked_to_in_either_era_is_told_what_was_said_to_the_handshake() -> None:
    done = run("tools", "--", sys.executable, "-c", DEAF)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"holdfast: \S+: the server refused to initialize: not here\n", done.stderr)


# What goes wrong.


@requirement("interop:call:failures-are-one-line")
def test_each_kind_of_failure_has_its_line_and_status(url: str, gateway: str, settings: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/mcp"
    expected: list[tuple[list[str | Path], int, str]] = [
        (["call", url, "fail", "message=no luck"], 1, r"no luck"),
        (["call", url, "recall", "key=3"], 1, r"holdfast: The argument 'key' must be a string\. \(-32602\)"),
        (
            ["call", url, "recal"],
            2,
            r"holdfast: holdfast-test-server \S+ has no tool 'recal'; it has recall, .* and \d+ more, which .*",
        ),
        (["call", nowhere, "recall"], 3, r"holdfast: connection to \S+ refused \(start it, or correct the URL\)"),
        (["tools", nowhere], 3, r"holdfast: connection to \S+ refused \(start it, or correct the URL\)"),
        (
            ["tools", "--config", settings, "pinned"],
            3,
            r"holdfast: .*Unsupported protocol version \(it speaks 2026-07-28, which era: auto finds out\)",
        ),
        (
            ["tools", "--config", settings, "other"],
            3,
            r"holdfast: other: connection to \S+ refused \(start it, or correct the URL\)",
        ),
        (["tools", gateway], 3, r"holdfast: .*401.*; give a credential with --key or --header"),
        (["call", "crash", "before_answer=true", *STDIO], 1, r"holdfast: .*exited.*; it may have been executed"),
    ]
    for arguments, status, line in expected:
        done = run(*arguments)
        assert done.returncode == status, (arguments, done)
        assert done.stdout == ""
        assert re.fullmatch(line, done.stderr.removesuffix("\n")), (arguments, done.stderr)


@requirement("interop:call:failures-are-one-line")
def test_a_failure_of_the_gateway_says_what_is_known_of_the_call() -> None:
    with shipped_server() as url, holdfast(url) as (gateway, _):
        done = run("call", gateway, "crash", "before_answer=true")
    assert done.returncode == 1
    assert re.search(r"\(-31002; it may have been executed; find out before repeating\)\n$", done.stderr)


@requirement("interop:call:failures-are-one-line")
def test_a_tool_of_a_server_that_is_down_is_not_said_to_be_unknown(url: str, tmp_path: Path) -> None:
    settings = tmp_path / "holdfast.yaml"
    settings.write_text(
        f"listen: 127.0.0.1:0\nservers:\n  up: {{url: '{url}'}}\n"
        f"  down: {{url: 'http://127.0.0.1:{free_port()}/mcp'}}\n"
    )
    with start(str(HOLDFAST), "serve", str(settings)) as process:
        gateway = process.wait_for_line(r"(http://\S+/mcp)$", PATIENCE)[1]
        done = run("call", gateway, "down__count")
    assert done.returncode == 1
    assert re.search(r"holdfast: down is not available: .*\(-31001; not sent; the same call may be", done.stderr)


@requirement("interop:call:failures-are-one-line")
def test_a_failed_tool_is_still_json_where_json_is_wanted(url: str) -> None:
    done = run("call", url, "fail", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["isError"] is True


MISTAKES: Final[dict[str, tuple[list[str], str]]] = {
    "no-server": (["tools"], "name a server"),
    "no-tool": (["call", "http://127.0.0.1:1/mcp"], "name a tool"),
    "no-command": (["tools", "--"], "a command is missing"),
    "not-a-url": (["tools", "browser"], "no URL"),
    "space-in-url": (["tools", "http://127.0.0.1:1/a b"], "holds as %XX"),
    "two-credentials": (["tools", "http://127.0.0.1:1/", "--key", "k", "--header", "authorization=k"], "one of them"),
    "ftp": (["tools", "ftp://127.0.0.1/"], "no http:// or https:// URL"),
    "two-servers": (["call", "http://127.0.0.1:1/mcp", "x", "--", "server"], "two servers"),
    "too-many-words": (["tools", "http://127.0.0.1:1/mcp", "x"], "one word too many"),
    "header-for-a-command": (["tools", "--header", "A=b", "--", sys.executable], "servers at a URL"),
    "no-such-program": (["tools", "--", "no-such-command-here"], "command not found"),
    "arguments": (["call", "http://127.0.0.1:1/mcp", "x", "y"], "neither a JSON object nor KEY=VALUE"),
    "array": (["call", "http://127.0.0.1:1/mcp", "x", "[1]"], "no JSON object"),
    "level": (["call", "http://127.0.0.1:1/mcp", "x", "--log-level", "loud"], "--log-level is debug"),
    "timeout": (["tools", "http://127.0.0.1:1/mcp", "--timeout", "0"], "more than 0"),
    "option": (["call", "--nonsense"], "see holdfast call --help"),
    "command": (["nonsense"], "no such command 'nonsense' (see holdfast --help)"),
}


@requirement("interop:call:failures-are-one-line")
@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_status_2(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@requirement("interop:call:failures-are-one-line")
def test_a_name_that_the_settings_do_not_have_is_told_with_those_they_have(settings: Path) -> None:
    done = run("tools", "--config", settings, "note")
    assert (done.returncode, done.stderr) == (
        2,
        f"holdfast: {settings} has no server 'note'; it has notes, other, pinned\n",
    )


@requirement("interop:call:failures-are-one-line")
def test_mistakes_in_the_settings_are_named_with_their_lines(settings: Path) -> None:
    settings.write_text("servers:\n  notes: {url: nope}\n")
    done = run("tools", "--config", settings, "notes")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first == "holdfast: the settings cannot be used:"
    assert second.startswith(f"{settings}:2: servers.notes.url: ")


# Giving up.


@requirement("interop:call:giving-up-is-told-upstream")
@pytest.mark.parametrize(
    ("number", "through"), [(signal.SIGINT, "directly"), (signal.SIGINT, "a gateway"), (signal.SIGTERM, "directly")]
)
def test_a_signal_cancels_the_call_at_the_server(number: signal.Signals, through: str) -> None:
    with shipped_server() as server, holdfast(server) as (gateway, _):
        target = server if through == "directly" else gateway
        with start(HOLDFAST, "call", target, "progress", "steps=2", "gate=never") as process:
            process.wait_for_line("50% step 1 of 2")
            process.send(number)
            assert process.wait() == 128 + number
            assert "Traceback" not in process.output
        wait_until(lambda: cancellations(server) > 0, "the server is told")  # a gateway passes it on behind its answer
        assert cancellations(server) == 1


@requirement("interop:call:giving-up-is-told-upstream")
@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_cancels_the_call_at_servers_of_every_kind(kind: str) -> None:
    with start(sys.executable, "-m", "holdfast.testing.server", *KINDS[kind]) as server:
        url = server.wait_for_line(r"http://\S+")[0]
        with start(HOLDFAST, "call", url, "progress", "steps=2", "gate=never") as process:
            process.wait_for_line("50% step 1 of 2")
            process.send(signal.SIGINT)
            assert process.wait() == 130
            assert "Traceback" not in process.output
        wait_until(lambda: "cancelled" in outcomes(url, "progress"), "the call is cancelled")


@requirement("interop:call:giving-up-is-told-upstream")
def test_ctrl_c_leaves_no_process_of_the_server_and_no_bar() -> None:
    with at_terminal(HOLDFAST, "call", "slow", "gate=never", *STDIO) as terminal:
        terminal.wait_for("slow ━")
        started = descendants(terminal.pid)
        terminal.type("\x03")
        assert terminal.wait() == 130
        wait_for_the_end_of(started)
        assert started
        assert terminal.raw.rpartition("\x1b[2K")[2] == "", "the bar's line is erased"


@requirement("interop:call:giving-up-is-told-upstream")
def test_a_call_that_takes_too_long_is_cancelled() -> None:
    with shipped_server() as server:
        done = run("call", server, "slow", "gate=never", "--timeout", "2")
        assert done.returncode == 1
        assert done.stderr == "holdfast: 127.0.0.1: no answer within 2 s; the call was cancelled\n"
        assert cancellations(server) == 1


@requirement("interop:call:giving-up-is-told-upstream")
def test_an_answer_counts_though_the_farewell_takes_too_long() -> None:
    """This server ignores the end of its input, and SIGTERM: to end it in order takes 3 seconds."""
    done = run("call", "count", "--timeout", "2", *STDIO, "--stubborn")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def cancellations(server: str) -> int:
    """How often the server was told that a call is cancelled."""
    return sum(entry["method"] == "notifications/cancelled" for entry in entries(server))


def outcomes(server: str, tool: str) -> set[str]:
    """What became of the calls of a tool at the server."""
    return {entry["outcome"] for entry in entries(server) if entry["tool"] == tool}


def entries(server: str) -> list[dict[str, Any]]:
    """What the server was sent."""
    with urllib.request.urlopen(f"{server.rpartition('/')[0]}/ledger", timeout=PATIENCE) as answer:
        ledger: dict[str, list[dict[str, Any]]] = json.loads(answer.read())
    return ledger["entries"]


# Questions.


@requirement("interop:call:questions")
def test_without_a_terminal_questions_are_cancelled(url: str) -> None:
    assert json.loads(said("call", url, "ask", "message=Which?")) == {"action": "cancel"}


@requirement("interop:call:questions")
@pytest.mark.parametrize(
    ("keys", "answer"),
    [("blue\n", '{"action":"accept","content":{"answer":"blue"}}'), ("\n", '{"action":"decline"}')],
)
def test_at_a_terminal_the_person_is_asked(url: str, keys: str, answer: str) -> None:
    with at_terminal(HOLDFAST, "call", url, "ask", "message=Which colour?") as terminal:
        terminal.wait_for(r"holdfast-test-server \S+ asks: Which colour\?\r\n(.*\r\n)*  answer \(text\): $")
        terminal.type(keys)
        assert terminal.wait() == 0
        assert terminal.text.rstrip().endswith(answer)


@requirement("interop:call:any-server")
def test_at_a_terminal_the_person_is_asked_by_servers_of_every_kind(other_url: str) -> None:
    with at_terminal(HOLDFAST, "call", other_url, "ask", "message=Which colour?") as terminal:
        terminal.wait_for(r"answer \(text\): $")
        terminal.type("blue\n")
        assert terminal.wait() == 0
        assert terminal.text.rstrip().endswith('{"action":"accept","content":{"answer":"blue"}}')


@requirement("interop:call:questions")
def test_ctrl_d_cancels_the_question_and_ctrl_c_the_call(url: str) -> None:
    for key, status in (("\x04", 0), ("\x03", 130)):
        with at_terminal(HOLDFAST, "call", url, "ask", "message=Which colour?") as terminal:
            terminal.wait_for(r"answer \(text\): $")
            terminal.type(key)
            assert terminal.wait() == status
            assert ('{"action":"cancel"}' in terminal.text) == (status == 0)


@requirement("interop:call:questions")
def test_a_url_is_shown_and_never_opened(url: str) -> None:
    with at_terminal(HOLDFAST, "call", url, "ask", "message=Sign in", "mode=url") as terminal:
        terminal.wait_for(r"if you trust it: https://example\.test/\d+\r\n")
        terminal.wait_for(r"\[y/N\]: $")
        terminal.type("y\n")
        assert terminal.wait() == 0
        assert terminal.text.rstrip().endswith('{"action":"accept"}')


# The bar.


@requirement("interop:call:progress-and-logs")
def test_on_a_terminal_progress_is_a_bar_that_is_gone_in_the_end(url: str) -> None:
    with at_terminal(HOLDFAST, "call", url, "slow", "seconds=0.5", "steps=2") as terminal:
        terminal.wait_for(r"slow ━+.* 50% 0:00:0\d step 1 of 2")
        assert terminal.wait() == 0
        *_, erased = terminal.raw.rpartition("\x1b[2K")
        assert erased == "done\r\n", "the bar's line is erased, and the result takes its place"
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is back"


@requirement("interop:call:progress-and-logs")
def test_log_messages_stand_above_the_bar(url: str) -> None:
    with at_terminal(HOLDFAST, "call", url, "log", "level=error", "message=oh", "--log-level", "debug") as terminal:
        assert terminal.wait() == 0
        assert "error test: oh\r\n" in terminal.text
        assert terminal.text.endswith("logged\r\n")
