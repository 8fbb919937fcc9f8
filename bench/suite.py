"""The whole run: builds, starts, measures, writes, and ends what it started."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from bench.chart import as_svg
from bench.client import answers_a_call
from bench.compile import BUILD, compile_program
from bench.endpoint import Endpoint, Upstream
from bench.findings import Results, summarize
from bench.gateways import GATEWAYS
from bench.load import Stretch, measure
from bench.processes import BenchError, read_line, start
from bench.report import as_json, as_markdown
from bench.sessions import idle, reconnecting_host, start_to_first_answer
from bench.workloads import ALL, FEW_TOOLS, IDLE, RECONNECTING, START, WORKLOADS, Workload

DEADLINE: Final = 900
"""Seconds for the whole run: beyond, something hangs."""
WARMUP: Final = 0.5
_SETTLE_TIME: Final = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure."""

    gateways: tuple[str, ...] = tuple(GATEWAYS)
    workloads: tuple[str, ...] = ALL
    rounds: int = 3
    seconds: float = 1.5
    idle_sessions: int = 9500
    messages: int = 50
    starts: int = 5
    into: Path = BUILD / "results"


@dataclass(frozen=True, slots=True)
class Stage:
    """Workloads that share a server, and so the gateways before it."""

    tools: int
    is_stdio: bool
    workloads: tuple[Workload, ...]
    gateways: tuple[str, ...]

    def order(self, rounds: int) -> Iterator[tuple[int, Workload, str]]:
        """Round, workload and gateway of each stretch.

        Gateways take turns, so that what the machine does meanwhile meets all of them.
        """
        for number in range(rounds):
            for workload in self.workloads:
                for gateway in self.gateways:
                    if GATEWAYS[gateway].can_serve(workload) and GATEWAYS[gateway].takes_part(number):
                        yield number, workload, gateway


def stages(options: Options) -> Iterator[Stage]:
    """The stages in which all is measured that was asked for."""
    chosen = [workload for name, workload in WORKLOADS.items() if name in options.workloads]
    for (tools, is_stdio), group in itertools.groupby(chosen, lambda workload: (workload.tools, workload.is_stdio)):
        workloads = tuple(group)
        gateways = tuple(name for name in options.gateways if any(map(GATEWAYS[name].can_serve, workloads)))
        if gateways:
            yield Stage(tools, is_stdio, workloads, gateways)


def measure_all(options: Options) -> Results:
    """Measure. Raises `BenchError`."""
    program, load = compile_program("upstream"), compile_program("load")
    results = Results(machine=_machine(), rounds=[[] for _ in range(options.rounds)])
    for stage in stages(options):
        with ExitStack() as stack:
            upstream = _start_upstream(stack, program, stage.tools, is_stdio=stage.is_stdio)
            endpoints = start_gateways(stack, stage, upstream, results)
            for number, workload, name in stage.order(options.rounds):
                if name not in endpoints:
                    continue
                with _leaving_out(f"{name}, {workload.title}", results, unless=GATEWAYS[name].is_ours):
                    endpoint = endpoints[name]
                    stretch = measure(load, endpoint, upstream, workload, seconds=options.seconds, warmup=WARMUP)
                    results.rounds[number].append(stretch)
                    _say_stretch(number, stretch)
    with ExitStack() as stack:
        upstream = _start_upstream(stack, program, FEW_TOOLS, is_stdio=False)
        if IDLE in options.workloads:
            _say(f"{options.idle_sessions} idle sessions")
            results.idle = idle(upstream, options.idle_sessions)
        if RECONNECTING in options.workloads:
            _say(f"{options.messages} messages of a host that reconnects")
            results.reconnecting_host = reconnecting_host(options.messages)
        if START in options.workloads:
            _say(f"{options.starts} starts")
            results.start_to_first_answer = start_to_first_answer(upstream, options.starts)
    return results


def _start_upstream(stack: ExitStack, program: Path, tools: int, *, is_stdio: bool) -> Upstream:
    if is_stdio:
        return Upstream(program, tools)
    command: list[str | Path] = [program, "--tools", str(tools)]
    server = stack.enter_context(start(command, log=BUILD / "upstream.log", stdout=subprocess.PIPE))
    return Upstream(program, tools, int(read_line(server.stdout, "upstream")))


def start_gateways(stack: ExitStack, stage: Stage, upstream: Upstream, results: Results) -> dict[str, Endpoint]:
    """Those that could be started; `results` says why the others are missing."""
    _say("starting " + ", ".join(stage.gateways))
    endpoints: dict[str, Endpoint] = {}
    for name in stage.gateways:
        gateway = GATEWAYS[name]
        with _leaving_out(name, results, unless=gateway.is_ours):
            endpoint = gateway.start(stack, upstream)
            _check(endpoint)
            endpoints[name] = endpoint
    threading.Event().wait(_SETTLE_TIME)
    for endpoint in endpoints.values():
        _check(endpoint)  # uses up what a gateway opened at its start, so that it counts for no stretch
    return endpoints


@contextmanager
def _leaving_out(name: str, results: Results, *, unless: bool) -> Generator[None]:
    """Write down why it cannot be measured, and go on."""
    try:
        yield
    except BenchError as error:
        if unless:
            raise
        results.missing[name] = str(error)
        _say(f"{name} is left out: {error}")


def _check(endpoint: Endpoint) -> None:
    if not answers_a_call(endpoint.port, endpoint.path):
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
    cpu = "" if stretch.cpu_us_per_call is None else f"{stretch.cpu_us_per_call:8.1f} µs CPU per call"
    _say(
        f"round {number + 1}, {stretch.workload:13} {stretch.gateway:21}"
        f"{stretch.calls_per_second:9,.0f} calls/s, {stretch.errors} errors {cpu}"
    )


def _parse(arguments: Sequence[str] | None) -> Options:
    default = Options()
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measure the gateways, and keep the results.")
    add = parser.add_argument
    add(
        "--gateways",
        nargs="+",
        choices=tuple(GATEWAYS),
        default=default.gateways,
        metavar="NAME",
        help="; ".join(GATEWAYS),
    )
    add("--rounds", type=int, default=default.rounds)
    add("--workloads", nargs="+", choices=ALL, default=default.workloads, metavar="NAME", help=", ".join(ALL))
    add("--seconds", type=float, default=default.seconds, help="per gateway, workload and round")
    add("--idle-sessions", type=int, default=default.idle_sessions)
    add("--messages", type=int, default=default.messages, help="of the host that reconnects for each")
    add("--starts", type=int, default=default.starts)
    add("--into", type=Path, default=default.into, metavar="FOLDER", help="where the results are written")
    flags = parser.parse_args(arguments)
    return Options(
        gateways=tuple(flags.gateways),
        workloads=tuple(flags.workloads),
        rounds=flags.rounds,
        seconds=flags.seconds,
        idle_sessions=flags.idle_sessions,
        messages=flags.messages,
        starts=flags.starts,
        into=flags.into,
    )


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    if number == signal.SIGALRM:
        raise BenchError(f"not done after {DEADLINE} s")
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write `latest.json`, `latest.md` and `latest.svg`, and print the page."""
    options = _parse(arguments)
    # Thousands of sessions with streams need more open files than the usual 1,024.
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
    options.into.mkdir(parents=True, exist_ok=True)
    table = as_markdown(results)
    (options.into / "latest.json").write_text(json.dumps(as_json(results), indent=2) + "\n")
    (options.into / "latest.md").write_text(table)
    (options.into / "latest.svg").write_text(as_svg(summarize(results.rounds)))
    print(table)
    if any(s.errors and GATEWAYS[s.gateway].is_ours for stretches in results.rounds for s in stretches):
        sys.exit("bench: some answers were wrong")
