"""What the rounds found, as medians, ratios and a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.gateways import HOLDFAST, MODERN
from bench.load import Stretch
from bench.sessions import IdleMemory, Times

_COLUMNS: Final = (
    "gateway",
    "connections",
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
    """One gateway at one number of connections: medians over the rounds."""

    gateway: str
    connections: int
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
    upstream_requests_per_call: float
    initializes_per_session: float


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that a run found."""

    machine: dict[str, str | int]
    rounds: Sequence[Sequence[Stretch]]
    idle_memory: IdleMemory
    reconnecting_host: dict[str, Times]
    start_to_first_answer: Times


def summarize(rounds: Sequence[Sequence[Stretch]]) -> list[Row]:
    """A row for each gateway and number of connections, in the order in which they first ran."""
    keys = dict.fromkeys((stretch.connections, stretch.gateway) for stretches in rounds for stretch in stretches)
    return [_row(rounds, connections, gateway) for connections, gateway in keys]


def _row(rounds: Sequence[Sequence[Stretch]], connections: int, gateway: str) -> Row:
    mine = [s for stretches in rounds for s in stretches if (s.connections, s.gateway) == (connections, gateway)]
    return Row(
        gateway=gateway,
        connections=connections,
        cpu_us_per_call=_median([s.cpu_us_per_call for s in mine]),
        cpu_ratio_to_nginx=cpu_ratio(rounds, connections, gateway, "nginx"),
        calls_per_second=statistics.median(s.calls_per_second for s in mine),
        p50_us=statistics.median(s.p50_us for s in mine),
        p90_us=statistics.median(s.p90_us for s in mine),
        p99_us=statistics.median(s.p99_us for s in mine),
        rss_mib=_median([s.rss_mib for s in mine]),
        calls=sum(s.calls for s in mine),
        errors=sum(s.errors for s in mine),
        upstream_requests_per_call=statistics.median(s.upstream_requests_per_call for s in mine),
        initializes_per_session=statistics.median(s.initializes_per_session for s in mine),
    )


def cpu_ratio(rounds: Sequence[Sequence[Stretch]], connections: int, gateway: str, other: str) -> float | None:
    """The median of what a call costs through `gateway`, in what it costs through `other` in the same round."""
    ratios: list[float] = []
    for stretches in rounds:
        cpu = {s.gateway: s.cpu_us_per_call for s in stretches if s.connections == connections}
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
    lines = [
        f"Machine: {machine}. Medians of {len(results.rounds)} interleaved rounds.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|" + " --- |" * len(_COLUMNS),
        *(_markdown_row(row) for row in summarize(results.rounds)),
        "",
        "| Holdfast besides calls | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in _besides_calls(results)),
        "",
    ]
    return "\n".join(lines)


def _markdown_row(row: Row) -> str:
    cells = (
        row.gateway,
        row.connections,
        _number(row.cpu_us_per_call, 1),
        _number(row.cpu_ratio_to_nginx, 2),
        f"{row.calls_per_second:,.0f}",
        f"{row.p50_us:,.0f}",
        f"{row.p90_us:,.0f}",
        f"{row.p99_us:,.0f}",
        _number(row.rss_mib, 1),
        f"{row.errors}/{row.calls:,}",
        f"{row.upstream_requests_per_call:.3f}",
        f"{row.initializes_per_session:.2f}",
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _besides_calls(results: Results) -> list[tuple[str, str]]:
    memory, host = results.idle_memory, results.reconnecting_host
    modern = [
        (f"CPU per call of 2026-07-28, in calls of a session, {connections} connections", f"{ratio:.2f}")
        for connections in sorted({stretch.connections for stretches in results.rounds for stretch in stretches})
        if (ratio := cpu_ratio(results.rounds, connections, MODERN, HOLDFAST)) is not None
    ]
    of = f"of {memory.sessions:,}, {memory.streams:,} with a push stream"
    return [
        *modern,
        (f"memory per idle session ({of})", f"{memory.initialized_kib:.1f} KiB"),
        (
            f"the same once each has called, {memory.opened_by_calls:,} upstream sessions opened",
            f"{memory.called_kib:.1f} KiB",
        ),
        *(
            (f"message of a host that reconnects, {name}", f"{found.median_ms:.2f} ms (p90 {found.p90_ms:.2f})")
            for name, found in host.items()
        ),
        ("start to first answered call", f"{results.start_to_first_answer.median_ms:.0f} ms"),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
