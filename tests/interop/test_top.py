"""`holdfast top` as a person, a pipe and a gateway meet it, and the API as curl does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from interop.programs import HOLDFAST, PATIENCE, holdfast, shipped_server
from interop.terminal import at_terminal
from processes import Process, free_port, start
from requirements import requirement

TESTS: Final = Path(__file__).resolve().parent.parent
PROGRAM: Final = TESTS / "interop" / "made_up_gateway.py"


@contextlib.contextmanager
def gateway(port: int, *key: str) -> Generator[Process]:
    with start(sys.executable, PROGRAM, str(port), *key, environment={"PYTHONPATH": str(TESTS)}) as process:
        process.wait_for_port(port)
        yield process


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOLDFAST), "top", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    port = free_port()
    with gateway(port):
        yield f"http://127.0.0.1:{port}"


@requirement("operator:top:once-for-programs")
def test_a_pipe_gets_the_picture_once_and_whole(url: str) -> None:
    done = run(url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Holdfast ")
    assert "2 servers, 30 sessions, 3 clients" in lines[0]
    assert "  connection refused" in lines
    assert lines[-1] == "and 10 more"
    assert "\x1b" not in done.stdout


@requirement("operator:top:once-for-programs")
def test_as_json_it_is_one_object_with_every_session(url: str) -> None:
    told = json.loads(run(f"{url}/mcp", "--json").stdout)
    assert (told["status"], told["client_sessions"], told["total"]) == ("ready", 3, 30)
    assert [view["name"] for view in told["servers"]] == ["browser", "search"]
    assert len(told["sessions"]) == 30


@requirement("operator:top:once-for-programs")
def test_once_prints_to_the_terminal_and_leaves_it_as_it_was(url: str) -> None:
    with at_terminal(HOLDFAST, "top", url, "--once", columns=60) as terminal:
        assert terminal.wait() == 0
        assert "browser" in terminal.text
        assert "\x1b[?1049h" not in terminal.raw
        assert max(map(len, terminal.text.splitlines())) <= 60


@requirement("operator:top:live-until-q")
@pytest.mark.parametrize("keys", ["q", "\x03"])
def test_on_a_terminal_it_is_live_until_q_or_ctrl_c(url: str, keys: str) -> None:
    with at_terminal(HOLDFAST, "top", url) as terminal:
        terminal.wait_for("q ends")
        terminal.wait_for("(?s)q ends.*q ends")  # drawn anew
        terminal.type("x")
        terminal.type(keys)
        assert terminal.wait() == 0
        assert terminal.raw.count("\x1b[?1049h") == terminal.raw.count("\x1b[?1049l") == 1
        assert terminal.raw.endswith("\x1b[?25h\x1b[?1049l")  # the cursor is back


@requirement("operator:top:live-until-q")
def test_sigterm_gives_the_terminal_back(url: str) -> None:
    with at_terminal(HOLDFAST, "top", url) as terminal:
        terminal.wait_for("q ends")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 143
        assert "\x1b[?1049l" in terminal.raw


@requirement("operator:top:survives-the-gateway")
def test_it_survives_a_gateway_that_goes_away_and_comes_back() -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        with gateway(port):
            terminal = stack.enter_context(at_terminal(HOLDFAST, "top", f"http://127.0.0.1:{port}"))
            terminal.wait_for("q ends")
        terminal.wait_for("no answer for [0-9]+ s, trying again")
        before = len(terminal.text)
        with gateway(port):
            terminal.wait_for(rf"(?s)\A.{{{before}}}.*ready .*q ends *\s+server +state")
            terminal.type("q")
            assert terminal.wait() == 0


@requirement("operator:top:mistakes-are-one-line")
def test_mistakes_are_one_line_with_status_2(url: str) -> None:
    port = free_port()
    with gateway(port, "sesame"):
        locked = f"http://127.0.0.1:{port}"
        assert run(locked, "--key", "${OPERATOR_KEY}", OPERATOR_KEY="sesame").returncode == 0
        mistakes = {
            "wants the operator's key": run(locked),
            "not the operator's key": run(locked, "--key", "open"),
            "operator_key": run(locked, "--key", "open", "--json"),
            "write http://": run(f"127.0.0.1:{port}"),
            "refused; is a gateway running there?": run(f"http://127.0.0.1:{free_port()}"),
            "no Holdfast gateway": run(f"{url}/elsewhere"),
            "NOT_SET is not set": run(url, "--key", "${NOT_SET}"),
            "see holdfast top --help": run("--no-such-option"),
        }
    for words, done in mistakes.items():
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert words in done.stderr


# A whole gateway.


@requirement("operator:top:once-for-programs")
def test_top_and_the_api_show_and_end_the_session_of_a_chat() -> None:
    with shipped_server() as server, holdfast("--name", "notes", server) as (mcp, _):
        root = mcp.removesuffix("/mcp")
        assert curl(f"{root}/healthz") == "ok"
        assert json.loads(curl(f"{root}/readyz")) == {"status": "ready"}
        call = ["call", mcp, "remember", "key=colour", "value=blue", "--chat", "mine"]
        assert subprocess.run([HOLDFAST, *call], timeout=PATIENCE, check=False, capture_output=True).returncode == 0
        told = json.loads(run(mcp, "--json").stdout)
        assert [(view["name"], view["state"]) for view in told["servers"]] == [("notes", "ready")]
        (session,) = [view for view in told["sessions"] if view["is_dirty"]]
        assert (session["server"], session["scope"], session["client"]) == ("notes", "chat", "local")
        assert f"{session['id']} " in run(mcp, "--once").stdout
        assert 'holdfast_server_state{server="notes",state="ready"} 1.0' in curl(f"{root}/metrics")
        ended = f"{root}/api/sessions/{session['id']}"
        assert curl("-X", "DELETE", "-w", "%{http_code}", ended) == "204"
        assert "no session of this id" in curl("-X", "DELETE", ended)
        with start("curl", "--silent", "--no-buffer", "--noproxy", "*", f"{root}/api/events?recent=99") as events:
            closed = events.wait_for_line(rf'(?=.*"session_closed").*"session":"{session["id"]}"').string
        assert '"was_dirty":true' in closed


# The API over a real HTTP server.


@requirement("operator:api:head-is-get-without-a-body")
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/servers", "/api/sessions", "/api/events"])
def test_head_has_the_headers_of_get_and_no_body(url: str, path: str) -> None:
    head = curl("--head", f"{url}{path}")
    assert head.startswith("HTTP/1.1 200")
    fields, _, body = head.partition("\r\n\r\n")
    assert body == ""
    if path == "/api/servers":
        got = curl(f"{url}{path}")
        assert f"content-length: {len(got.encode())}" in fields


@requirement("operator:api:a-session-can-be-ended")
def test_curl_ends_a_session() -> None:
    port = free_port()
    with gateway(port):
        address = f"http://127.0.0.1:{port}/api/sessions"
        assert curl("-X", "DELETE", "-w", "%{http_code}", f"{address}/s3") == "204"
        assert json.loads(curl(f"{address}?limit=0")) == {"total": 29, "sessions": []}


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", *arguments],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()
