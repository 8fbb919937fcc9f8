"""What the rounds found, as medians, ratios and a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.gateways import HOLDFAST, MODERN, NGINX
from bench.load import Stretch
from bench.sessions import Idle, Times
from bench.workloads import WORKLOADS

_COLUMNS: Final = (
    "gateway",
    "CPU µs/call",
    "ratio to nginx",
    "calls/s",
    "p50 µs",
    "p90 µs",
    "p99 µs",
    "RSS MiB",
    "errors/calls",
    "upstream requests/call",
    "initializes/session",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One gateway with one workload: medians over the rounds."""

    workload: str
    gateway: str
    cpu_us_per_call: float | None
    cpu_ratio_to_nginx: float | None
    """The median of the ratios within each round, so that a slow round slows both."""
    calls_per_second: float
    p50_us: float
    p90_us: float
    p99_us: float
    rss_mib: float | None
    calls: int
    errors: int
    upstream_requests_per_call: float | None
    initializes_per_session: float | None


@dataclass(slots=True)
class Results:
    """Everything that a run found, as far as it has come."""

    machine: dict[str, str | int]
    rounds: list[list[Stretch]]
    missing: dict[str, str] = field(default_factory=dict[str, str])
    """Gateways that could not be measured, and why."""
    idle: Idle | None = None
    reconnecting_host: dict[str, Times] = field(default_factory=dict[str, Times])
    start_to_first_answer: Times | None = None


def summarize(rounds: Sequence[Sequence[Stretch]]) -> list[Row]:
    """A row for each workload and gateway, in the order in which they first ran."""
    keys = dict.fromkeys((stretch.workload, stretch.gateway) for stretches in rounds for stretch in stretches)
    return [_row(rounds, workload, gateway) for workload, gateway in keys]


def _row(rounds: Sequence[Sequence[Stretch]], workload: str, gateway: str) -> Row:
    mine = [s for stretches in rounds for s in stretches if (s.workload, s.gateway) == (workload, gateway)]
    return Row(
        workload=workload,
        gateway=gateway,
        cpu_us_per_call=_median([s.cpu_us_per_call for s in mine]),
        cpu_ratio_to_nginx=cpu_ratio(rounds, workload, gateway, NGINX),
        calls_per_second=statistics.median(s.calls_per_second for s in mine),
        p50_us=statistics.median(s.p50_us for s in mine),
        p90_us=statistics.median(s.p90_us for s in mine),
        p99_us=statistics.median(s.p99_us for s in mine),
        rss_mib=_median([s.rss_mib for s in mine]),
        calls=sum(s.calls for s in mine),
        errors=sum(s.errors for s in mine),
        upstream_requests_per_call=_median([s.upstream_requests_per_call for s in mine]),
        initializes_per_session=_median([s.initializes_per_session for s in mine]),
    )


def cpu_ratio(rounds: Sequence[Sequence[Stretch]], workload: str, gateway: str, other: str) -> float | None:
    """The median of what a call costs through `gateway`, in what it costs through `other` in the same round."""
    ratios: list[float] = []
    for stretches in rounds:
        cpu = {s.gateway: s.cpu_us_per_call for s in stretches if s.workload == workload}
        ours, theirs = cpu.get(gateway), cpu.get(other)
        if ours is not None and theirs:
            ratios.append(ours / theirs)
    return _median(ratios)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def as_json(results: Results) -> dict[str, Any]:
    """The results with their summary first."""
    return {"summary": [asdict(row) for row in summarize(results.rounds)], **asdict(results)}


def as_markdown(results: Results) -> str:
    """The results as a short page."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    lines = [f"Machine: {machine}. Medians of {len(results.rounds)} interleaved rounds.", ""]
    lines += [f"Not measured: {name} ({reason})." for name, reason in results.missing.items()]
    rows = summarize(results.rounds)
    for workload in dict.fromkeys(row.workload for row in rows):
        lines += ["", f"**{WORKLOADS[workload].title}**", "", f"| {' | '.join(_COLUMNS)} |"]
        lines += ["|" + " --- |" * len(_COLUMNS)]
        lines += [_markdown_row(row) for row in rows if row.workload == workload]
    lines += ["", "| Holdfast besides calls | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in _besides_calls(results)]
    return "\n".join([*lines, ""])


def _markdown_row(row: Row) -> str:
    cells = (
        row.gateway,
        _number(row.cpu_us_per_call, 1),
        _number(row.cpu_ratio_to_nginx, 2),
        f"{row.calls_per_second:,.0f}",
        f"{row.p50_us:,.0f}",
        f"{row.p90_us:,.0f}",
        f"{row.p99_us:,.0f}",
        _number(row.rss_mib, 1),
        f"{row.errors}/{row.calls:,}",
        _number(row.upstream_requests_per_call, 3),
        _number(row.initializes_per_session, 2),
    )
    return f"| {' | '.join(cells)} |"


def _besides_calls(results: Results) -> Iterator[tuple[str, str]]:
    for workload in WORKLOADS:
        ratio = cpu_ratio(results.rounds, workload, MODERN, HOLDFAST)
        if ratio is not None:
            yield f"CPU per call of 2026-07-28, in calls of a session, {workload}", f"{ratio:.2f}"
    if (memory := results.idle) is not None:
        of = f"of {memory.sessions:,}, {memory.streams:,} with a push stream"
        yield f"memory per idle session ({of})", f"{memory.initialized_kib:.1f} KiB"
        yield "CPU while all are idle", f"{memory.cpu_share:.2%} of a core"
        opened = f"{memory.opened_by_calls:,} upstream sessions opened"
        yield f"memory per session once each has called, {opened}", f"{memory.called_kib:.1f} KiB"
    for name, found in results.reconnecting_host.items():
        yield f"message of a host that reconnects, {name}", f"{found.median_ms:.2f} ms (p90 {found.p90_ms:.2f})"
    if (starts := results.start_to_first_answer) is not None:
        yield "start to first answered call", f"{starts.median_ms:.0f} ms"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
