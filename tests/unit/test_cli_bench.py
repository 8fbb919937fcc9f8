"""What `holdfast bench` takes, counts and says."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from holdfast.cli import bench_gateway
from holdfast.cli.bench import parse_wanted
from holdfast.cli.bench_calls import Connections, Request, Tally, call_for, send_message
from holdfast.cli.bench_view import Calls, Message, Report, Way, as_json, conclusion, draw, duration
from holdfast.cli.main import app
from holdfast.clock import LoopClock
from holdfast.config import ServerSettings
from holdfast.errors import ConfigError
from holdfast.testing.server import ScriptedServer
from holdfast.testing.server_core import ServerOptions
from processes import ROOT
from requirements import requirement

LIMIT: Final = 60.0
COUNT: Final = Request("count")


def settings(server: ScriptedServer) -> ServerSettings:
    return ServerSettings(name="counted", url=server.url)


def tally(*milliseconds: float, errors: int = 0, cpu: float | None = None, initializes: int = 0) -> Tally:
    return Tally(
        latencies=[each / 1000 for each in milliseconds],
        errors=errors,
        first_error="it is out of order" if errors else "",
        seconds=2.0,
        cpu=cpu,
        initializes=initializes,
    )


def report(direct: Tally, later: Tally, request: Request = COUNT, **more: Any) -> Report:
    calls = [
        Calls(Way.DIRECT, 1, tally(0.2, 0.3, 0.4)),
        Calls(Way.HOLDFAST, 1, tally(0.4, 0.5, 0.6, cpu=300e-6)),
        Calls(Way.DIRECT, 8, Tally(), problem="no sessions could be opened at once: it is full"),
        Calls(Way.HOLDFAST, 8, tally(12345)),
    ]
    messages = {Message.DIRECT: direct, Message.FIRST: tally(900), Message.LATER: later}
    return Report("Notes 1.0", request, calls, messages, **more)


# Options.


@pytest.mark.parametrize(
    ("tool", "arguments", "connections", "seconds", "what"),
    [
        (None, "{}", "1", 1.0, "--tool names none"),
        ("t", "[1]", "1", 1.0, "no JSON object"),
        ("t", "nothing", "1", 1.0, "neither a JSON object nor KEY=VALUE"),
        (None, None, "", 1.0, "--connections takes numbers with commas"),
        (None, None, "1,,2", 1.0, "--connections takes numbers with commas"),
        (None, None, "-1", 1.0, "--connections takes numbers with commas"),
        (None, None, "0,1", 1.0, "from 1 to 256"),
        (None, None, "257", 1.0, "from 1 to 256"),
        (None, None, "1", 0.0, "--seconds takes more than 0"),
        (None, None, "1", float("nan"), "--seconds takes more than 0"),
        (None, None, "1", 601.0, "at most 600"),
    ],
)
def test_mistakes_are_told(
    tool: str | None, arguments: str | None, connections: str, seconds: float, what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        parse_wanted(tool, arguments, connections, seconds, is_json=False)


def test_options_are_taken_as_they_are_meant() -> None:
    wanted = parse_wanted("echo", '{"text": "x"}', "8,1,8", 2.5, is_json=True)
    assert wanted.request == Request("echo", {"text": "x"})
    assert wanted.connections == (1, 8)
    assert wanted.seconds == 2.5
    assert parse_wanted("echo", "text=x", "1", 1.0, is_json=False).request.arguments == {"text": "x"}
    assert parse_wanted(None, None, "1", 1.0, is_json=False).request == Request()


def test_every_option_is_documented_and_no_other() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    options = {name for each in group.commands["bench"].params for name in each.opts if name.startswith("--")}
    page = (ROOT / "docs" / "commands.md").read_text()
    section = page.partition("## `holdfast bench`")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE)) == options | {"--help"}


def test_the_gateway_gets_all_settings_with_their_secrets() -> None:
    secret = b"\xff-secret".decode(errors="surrogateescape")
    server = ServerSettings.model_validate(
        {
            "name": "notes",
            "url": "http://127.0.0.1:1/mcp",
            "headers": {"Authorization": secret},
            "scope": "user",
            "tools": {"deny": ["drop_*"], "aliases": {"a": "b"}},
            "pass_headers": ["x-tenant"],
        }
    )
    line = bench_gateway.encode(server)
    assert b"\n" not in line
    assert bench_gateway.decode(line) == server
    command = ServerSettings.model_validate({"name": "c", "command": ["sh"], "env": {"TOKEN": secret}})
    assert bench_gateway.decode(bench_gateway.encode(command)) == command


# Counting.


@requirement("bench:counts:what-was-answered")
async def test_calls_are_made_on_every_connection_and_all_are_counted() -> None:
    async with asyncio.timeout(LIMIT), ScriptedServer() as server:
        async with Connections(settings(server), 3) as connections:
            assert len(connections.peers) == 3
            assert server.initializes == 3
            tally = await call_for(connections.peers, COUNT, 0.0, LoopClock())
        assert len(server.calls("count")) == len(tally.latencies) == 3
        assert tally.errors == 0
        assert server.deletes == 3, "the sessions were ended"


async def test_only_as_many_sessions_as_the_server_takes_are_opened() -> None:
    options = ServerOptions(one_connection=True)
    async with asyncio.timeout(LIMIT), ScriptedServer(options) as server, Connections(settings(server), 3) as opened:
        assert len(opened.peers) == 1
        assert "Already connected" in str(opened.problem)


async def test_an_answer_that_is_a_failure_counts_as_an_answer_and_as_an_error() -> None:
    async with asyncio.timeout(LIMIT), ScriptedServer() as server, Connections(settings(server), 1) as connections:
        tally = await call_for(connections.peers, Request("no-such-tool"), 0.0, LoopClock())
    assert len(tally.latencies) == tally.errors == 1
    assert "no-such-tool" in tally.first_error


async def test_a_connection_that_is_gone_is_not_called_again() -> None:
    async with asyncio.timeout(LIMIT), ScriptedServer() as server, Connections(settings(server), 1) as connections:
        await server.stop()
        tally = await call_for(connections.peers, COUNT, 600.0, LoopClock())
        assert tally.latencies == []
        assert tally.errors == 1
        assert tally.first_error


async def test_a_message_opens_a_session_lists_calls_and_ends_it() -> None:
    async with asyncio.timeout(LIMIT), ScriptedServer() as server:
        tally = await send_message(settings(server), COUNT, None, LoopClock())
        assert (server.initializes, len(server.calls("count")), server.deletes) == (1, 1, 1)
        assert (len(tally.latencies), tally.errors) == (1, 0)
        await server.stop()
        tally = await send_message(settings(server), COUNT, None, LoopClock())
        assert (len(tally.latencies), tally.errors) == (0, 1)
        assert "refused" in tally.first_error


def test_stretches_add_up() -> None:
    whole = Tally()
    assert whole.percentile(0.5) is None
    assert whole.calls_per_second == 0
    whole.add(tally(1, 2, cpu=0.002, initializes=1))
    whole.add(tally(3, 4, errors=1, cpu=0.002))
    assert whole.percentile(0.5) == pytest.approx(0.003)
    assert whole.percentile(0.99) == pytest.approx(0.004)
    assert whole.calls_per_second == pytest.approx(1.0)
    assert whole.cpu_per_call == pytest.approx(0.001)
    assert (whole.errors, whole.first_error, whole.initializes) == (1, "it is out of order", 1)


# What is said.


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0000784, "0.078 ms"),
        (0.00021, "0.21 ms"),
        (0.0021, "2.1 ms"),
        (0.82, "820 ms"),
        (1.2, "1,200 ms"),
        (75, "75 s"),
    ],
)
def test_durations_are_told_with_the_digits_that_count(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_host_that_gains_is_told_how_much() -> None:
    assert conclusion(report(tally(820), tally(2.1))) == (
        "A host that connects for every message waits 820 ms for an answer without Holdfast and 2.1 ms with it."
        " On a kept connection a call takes 0.2 ms more."
    )


def test_a_host_that_gains_no_time_is_told_so() -> None:
    assert "opens a session at once" in conclusion(report(tally(2.0), tally(1.9)))
    assert "opens a session at once" in conclusion(report(tally(2.0), tally(2.9)))


def test_errors_are_the_last_word() -> None:
    found = report(tally(820, errors=1), tally(2.1))
    assert found.has_failed
    assert conclusion(found).endswith("Some answers were errors, and the figures are worth little.")
    assert "an error said: it is out of order" in [line.plain for line in draw(found, 80)]


def test_pings_are_not_compared_but_explained() -> None:
    found = report(tally(820), tally(2.1), Request(), read_only=["look", "list", "find", "more"])
    assert "more." not in conclusion(found)
    lines = [line.plain for line in draw(found, 80)]
    assert lines[0] == "Notes 1.0: ping, which Holdfast answers itself"
    assert any("--tool, as look, list, find," in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_figures_fit_into_the_terminal(width: int) -> None:
    lines = [line.plain for line in draw(report(tally(820), tally(2.1)), width)]
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= width
    assert width < 80 or any(line.startswith("  Holdfast, later") for line in table)
    assert "8 connections, directly: no sessions could be opened at once: it is full" in lines


def test_at_eighty_columns_nothing_is_left_out() -> None:
    head = draw(report(tally(820), tally(2.1)), 80)[1].plain
    assert head.split() == ["calls/s", "p50", "ms", "p90", "ms", "p99", "ms", "CPU", "µs", "errors", "initializes"]


def test_programs_get_every_figure() -> None:
    found = as_json(report(tally(820, initializes=1), tally(2.1, cpu=0.0015)))
    assert json.loads(json.dumps(found)) == found
    assert found["server"] == "Notes 1.0"
    assert found["called"] == {"tool": "count"}
    direct, through, full, _ = found["calls"]
    assert direct == {
        "way": "direct",
        "connections": 1,
        "calls_per_second": 1.5,
        "answers": 3,
        "errors": 0,
        "p50_ms": 0.3,
        "p90_ms": 0.4,
        "p99_ms": 0.4,
        "gateway_cpu_us": None,
        "initializes": 0,
    }
    assert through["gateway_cpu_us"] == 100.0
    assert (full["answers"], full["p50_ms"], full["problem"]) == (
        0,
        None,
        "no sessions could be opened at once: it is full",
    )
    assert [message["message"] for message in found["messages"]] == ["direct", "first", "later"]
    assert found["conclusion"] == conclusion(report(tally(820), tally(2.1)))
