"""What Holdfast is to reach, beside what a run found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bench.findings import Results, added_p50, cpu_ratio, summarize, throughput_ratio
from bench.gateways import EMBEDDED, HOLDFAST, MODERN, NGINX
from bench.peers import ENVOY, MCP_PROXY, SUPERGATEWAY


@dataclass(frozen=True, slots=True)
class Target:
    """A figure with a bound."""

    figure: str
    bound: float
    found: Callable[[Results], float | None]
    form: str = "{:.2f}"
    sign: str = "≤"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and whether it was reached."""

    figure: str
    target: str
    found: str
    is_reached: bool


def judge(results: Results) -> Iterator[Verdict]:
    """A verdict on each target that this run has a figure for."""
    for target in TARGETS:
        found = target.found(results)
        if found is not None:
            yield Verdict(
                figure=target.figure,
                target=f"{target.sign} {target.form.format(target.bound)}",
                found=target.form.format(found),
                is_reached=_is_reached(target, found),
            )


def _is_reached(target: Target, found: float) -> bool:
    if target.sign == "=":
        return abs(found - target.bound) < 0.005
    return found >= target.bound if target.sign == "≥" else found <= target.bound


def _cpu(workload: str, gateway: str = HOLDFAST, other: str = NGINX) -> Callable[[Results], float | None]:
    return lambda results: cpu_ratio(results.rounds, workload, gateway, other)


def _idle_kib(results: Results) -> float | None:
    return None if results.idle is None else results.idle.initialized_kib


def _idle_cpu(results: Results) -> float | None:
    return None if results.idle is None else results.idle.cpu_share


def _warm_message(results: Results) -> float | None:
    found = results.reconnecting_host.get("warm")
    return None if found is None else found.median_ms


def _start(results: Results) -> float | None:
    return None if results.start_to_first_answer is None else results.start_to_first_answer.median_ms


def _requests_per_call(results: Results) -> float | None:
    rows = [row for row in summarize(results.rounds) if row.gateway == HOLDFAST and row.workload == "call-32"]
    return rows[0].upstream_requests_per_call if rows else None


def _initializes(results: Results) -> float | None:
    rows = [row for row in summarize(results.rounds) if row.gateway == HOLDFAST and row.workload == "call-32"]
    return rows[0].initializes_per_session if rows else None


TARGETS: Final = (
    Target("CPU per call, 1 connection, in nginx's", 2.0, _cpu("call-1")),
    Target("CPU per call, 32 connections, in nginx's", 2.0, _cpu("call-32")),
    Target("the same for 2026-07-28, 1 connection", 2.0, _cpu("call-1", MODERN)),
    Target("the same for 2026-07-28, 32 connections", 2.0, _cpu("call-32", MODERN)),
    Target("CPU per call, 1 connection, in that of Envoy's MCP router", 0.6, _cpu("call-1", other=ENVOY)),
    Target("CPU per call, 32 connections, in that of Envoy's MCP router", 0.6, _cpu("call-32", other=ENVOY)),
    Target("CPU per call through plain ASGI, 1 connection, in nginx's", 3.3, _cpu("call-1", EMBEDDED)),
    Target("CPU per call through plain ASGI, 32 connections, in nginx's", 3.3, _cpu("call-32", EMBEDDED)),
    Target(
        "p50 at 1 connection, more than direct",
        35,
        lambda results: added_p50(results.rounds, "call-1", HOLDFAST, "direct"),
        "{:.0f} µs",
    ),
    Target(
        "calls per second, 32 connections, in nginx's",
        0.55,
        lambda results: throughput_ratio(results.rounds, "call-32", HOLDFAST, NGINX),
        sign="≥",
    ),
    Target("CPU per 100 KB result, in nginx's", 1.7, _cpu("result")),
    Target("CPU per list of 200 tools, in nginx's", 2.0, _cpu("list")),
    Target("CPU per event stream of 5 reports, in nginx's", 2.5, _cpu("progress")),
    Target("the same with reports 1 ms apart", 2.5, _cpu("slow-progress")),
    Target("CPU per stdio call, 1 connection, in supergateway's", 1 / 8, _cpu("stdio-1", other=SUPERGATEWAY), "{:.3f}"),
    Target(
        "CPU per stdio call, 32 connections, in supergateway's", 1 / 8, _cpu("stdio-32", other=SUPERGATEWAY), "{:.3f}"
    ),
    Target("CPU per stdio call, 1 connection, in mcp-proxy's", 1 / 8, _cpu("stdio-1", other=MCP_PROXY), "{:.3f}"),
    Target("CPU per stdio call, 32 connections, in mcp-proxy's", 1 / 8, _cpu("stdio-32", other=MCP_PROXY), "{:.3f}"),
    Target("memory per idle session with an open stream", 20, _idle_kib, "{:.1f} KiB"),
    Target("CPU while all are idle, of a core", 0.01, _idle_cpu, "{:.1%}"),
    Target("upstream requests per call", 1, _requests_per_call, "{:.2f}", "="),
    Target("initializes per session", 1, _initializes, "{:.2f}", "="),
    Target("warm message of a host that reconnects each time", 3, _warm_message, "{:.1f} ms"),
    Target("start to first answered call", 400, _start, "{:.0f} ms"),
)
"""Those of the issue about speed, in its order."""
