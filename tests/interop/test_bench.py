"""`holdfast bench` with a server behind it: over HTTP, as a process, and when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from interop.programs import (
    HOLDFAST,
    PATIENCE,
    TEST_SERVER_STDIO,
    descendants,
    shipped_server,
    start_on_terminal,
    wait_for_the_end_of,
    without_colours,
)
from processes import start, wait_until
from requirements import requirement

SHORT: Final = ("--seconds", "0.3", "--connections", "1,2")
DELAY: Final = 0.4
STDIO: Final = ("--", *TEST_SERVER_STDIO)


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(HOLDFAST), "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def figures(*arguments: str | Path) -> dict[str, Any]:
    done = bench(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@requirement("bench:shows:direct-and-through-holdfast")
def test_a_server_over_http_is_measured_both_ways() -> None:
    with shipped_server("--open-delay", str(DELAY)) as url:
        found = figures(url, "--tool", "echo", "--arguments", '{"text": "x"}', *SHORT)
    ways = [(row["way"], row["connections"]) for row in found["calls"]]
    assert ways == [("direct", 1), ("holdfast", 1), ("direct", 2), ("holdfast", 2)]
    for row in found["calls"]:
        assert row["answers"] > 0
        assert (row["errors"], row["initializes"]) == (0, 0)
        assert (row["gateway_cpu_us"] is None) == (row["way"] == "direct")
    direct, first, later = found["messages"]
    assert direct["p50_ms"] >= DELAY * 1000
    assert direct["initializes"] == direct["answers"] >= 3
    assert first["answers"] == 3
    assert (later["answers"], later["errors"], later["initializes"]) == (direct["answers"], 0, 0)
    assert "waits" in found["conclusion"]


def test_a_server_that_is_a_process_is_measured_without_calling_a_tool(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    done = bench(*SHORT, *STDIO, "--ledger", ledger)
    assert done.returncode == 0, done.stderr
    assert "ping, which Holdfast answers itself" in done.stdout
    assert "No tool was called" in done.stdout
    assert "A host that connects for every message waits" in done.stdout
    assert "round 3 of 3: 2 at once, Holdfast" in done.stderr, "progress"
    assert not ledger.exists(), "no tool was called"


def test_a_terminal_shows_a_bar_and_then_the_figures() -> None:
    with start_on_terminal(HOLDFAST, "bench", *SHORT, "--tool", "count", *STDIO) as process:
        assert process.wait() == 0
        said = without_colours(process.output)
    bar, _, table = said.partition("the tool count")
    assert "messages of a host that connects for each" in bar, "the last step is always drawn"
    assert "Holdfast, later" in table


@requirement("bench:shows:direct-and-through-holdfast")
@pytest.mark.parametrize("flags", [("--era", "modern"), ("--sse",)], ids=["2026-07-28", "HTTP+SSE"])
def test_servers_of_every_kind_are_measured_both_ways(flags: tuple[str, ...]) -> None:
    with start(sys.executable, "-m", "holdfast.testing.server", *flags) as server:
        url = server.wait_for_line(r"http://\S+")[0]
        found = figures(url, "--tool", "echo", "--arguments", '{"text": "x"}', *SHORT)
    assert all(row["answers"] > 0 and row["errors"] == 0 for row in found["calls"])
    assert all(message["errors"] == 0 for message in found["messages"])


@requirement("bench:mistakes:one-line")
@pytest.mark.parametrize(
    ("arguments", "status", "what"),
    [
        (["http://127.0.0.1:1/mcp"], 3, "refused"),
        ([], 2, "name a server"),
        (["http://127.0.0.1:1/mcp", "extra"], 2, "one word too many"),
        (["http://127.0.0.1:1/mcp", "--connections", "none"], 2, "--connections takes numbers"),
        ([*STDIO, "--era", "modern"], 2, "speaks 2026-07-28, which has no ping: name a tool with --tool, such as "),
        (["--tool", "recal", *STDIO], 2, "has no tool 'recal'; it has recall"),
        (["--tool", "remember", *STDIO], 1, "there is nothing to measure"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(arguments: list[str], status: int, what: str) -> None:
    done = bench(*arguments)
    assert done.returncode == status
    *_, last = done.stderr.splitlines()
    assert last.startswith("holdfast: ")
    assert what in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@requirement("bench:end:leaves-no-process")
@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(signal.SIGINT, "opening", id="Ctrl-C-while-sessions-open"),
        pytest.param(signal.SIGINT, "round 1", id="Ctrl-C"),
        pytest.param(signal.SIGTERM, "round 1", id="SIGTERM"),
        pytest.param(signal.SIGKILL, "round 1", id="SIGKILL"),
    ],
)
def test_nothing_is_left_when_it_is_stopped(number: signal.Signals, moment: str) -> None:
    with start(HOLDFAST, "bench", "--seconds", "300", "--connections", "1,2", *STDIO) as process:
        process.wait_for_line(moment)
        started = descendants(process.pid)
        assert started
        os.kill(process.pid, number)
        expected = -number if number is signal.SIGKILL else 128 + number
        assert process.wait() == expected
        wait_for_the_end_of(started)
        wait_until(process.has_closed_output, "whoever it started has ended")
        assert "Traceback" not in process.output
