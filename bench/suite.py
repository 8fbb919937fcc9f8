"""The whole run: builds, starts, measures, writes, and ends what it started."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from bench.client import answers_a_call
from bench.compile import BENCH, BUILD, compile_program
from bench.gateways import GATEWAYS, Endpoint
from bench.load import Stretch, measure
from bench.processes import BenchError, read_line, start
from bench.report import Results, as_json, as_markdown
from bench.sessions import idle_memory, reconnecting_host, start_to_first_answer

RESULTS: Final = BENCH / "results"
DEADLINE: Final = 240
"""Seconds for the whole run: beyond, something hangs."""
CONNECTIONS: Final = (1, 32)
WARMUP: Final = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure."""

    gateways: tuple[str, ...] = tuple(GATEWAYS)
    rounds: int = 3
    seconds: float = 4.0
    idle_sessions: int = 1000
    messages: int = 50
    starts: int = 5
    tools: int = 10


def order(options: Options) -> Iterator[tuple[int, int, str]]:
    """Round, connections and gateway of each stretch.

    Gateways take turns, so that what the machine does meanwhile meets all of them.
    """
    for number in range(options.rounds):
        for connections in CONNECTIONS:
            for gateway in options.gateways:
                yield number, connections, gateway


def measure_all(options: Options) -> Results:
    """Measure. Raises `BenchError`."""
    upstream, load = compile_program("upstream"), compile_program("load")
    with ExitStack() as stack:
        server_command: list[str | Path] = [upstream, "--tools", str(options.tools)]
        server = stack.enter_context(start(server_command, log=BUILD / "upstream.log", stdout=subprocess.PIPE))
        port = int(read_line(server.stdout, "upstream"))
        with ExitStack() as gateways:
            endpoints = {name: GATEWAYS[name](gateways, port) for name in options.gateways}
            for endpoint in endpoints.values():
                _wait_until_settled(endpoint)
            rounds: list[list[Stretch]] = [[] for _ in range(options.rounds)]
            for number, connections, name in order(options):
                stretch = measure(
                    load, endpoints[name], port, connections=connections, seconds=options.seconds, warmup=WARMUP
                )
                rounds[number].append(stretch)
                _say_stretch(number, stretch)
        _say(f"{options.idle_sessions} idle sessions")
        memory = idle_memory(port, options.idle_sessions)
        _say(f"{options.messages} messages of a host that reconnects")
        host = reconnecting_host(options.messages)
        _say(f"{options.starts} starts")
        starts = start_to_first_answer(port, options.starts)
    return Results(
        machine=_machine(),
        rounds=rounds,
        idle_memory=memory,
        reconnecting_host=host,
        start_to_first_answer=starts,
    )


def _wait_until_settled(endpoint: Endpoint) -> None:
    """Return once what a gateway opens at its start is open and used up, and counts for no later stretch."""
    if not answers_a_call(endpoint.port, endpoint.path):  # in a session, whoever calls later
        raise BenchError(f"{endpoint.name} answers no call")


def _machine() -> dict[str, str | int]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_stretch(number: int, stretch: Stretch) -> None:
    cpu = "" if stretch.cpu_us_per_call is None else f"{stretch.cpu_us_per_call:6.1f} µs CPU per call"
    _say(
        f"round {number + 1}, {stretch.connections:2} connections, {stretch.gateway:20}"
        f"{stretch.calls_per_second:9,.0f} calls/s, {stretch.errors} errors {cpu}"
    )


def _parse(arguments: Sequence[str] | None) -> Options:
    default = Options()
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure the gateways, and keep the results.")
    add = parser.add_argument
    add("--gateways", nargs="+", choices=tuple(GATEWAYS), default=default.gateways, metavar="NAME")
    add("--rounds", type=int, default=default.rounds)
    add("--seconds", type=float, default=default.seconds, help="per gateway, number of connections and round")
    add("--idle-sessions", type=int, default=default.idle_sessions)
    add("--messages", type=int, default=default.messages, help="of the host that reconnects for each")
    add("--starts", type=int, default=default.starts)
    add("--tools", type=int, default=default.tools, help="that the server lists")
    flags = parser.parse_args(arguments)
    return Options(
        gateways=tuple(flags.gateways),
        rounds=flags.rounds,
        seconds=flags.seconds,
        idle_sessions=flags.idle_sessions,
        messages=flags.messages,
        starts=flags.starts,
        tools=flags.tools,
    )


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    if number == signal.SIGALRM:
        raise BenchError(f"not done after {DEADLINE} s")
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write `bench/results/latest.json` and `latest.md`, and print the latter."""
    options = _parse(arguments)
    # A thousand sessions with streams need more open files than the usual 1,024.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _stop)
    signal.alarm(DEADLINE)
    BUILD.mkdir(exist_ok=True)
    for log in BUILD.glob("*.log"):
        log.unlink()
    try:
        results = measure_all(options)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    RESULTS.mkdir(exist_ok=True)
    table = as_markdown(results)
    (RESULTS / "latest.json").write_text(json.dumps(as_json(results), indent=2) + "\n")
    (RESULTS / "latest.md").write_text(table)
    print(table)
    if any(stretch.errors for stretches in results.rounds for stretch in stretches):
        sys.exit("bench: some answers were wrong")
