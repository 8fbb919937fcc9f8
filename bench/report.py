"""What a run found, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench.findings import Results, Row, cpu_ratio, summarize
from bench.gateways import HOLDFAST, MODERN
from bench.targets import judge
from bench.workloads import WORKLOADS, Workload

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


def as_json(results: Results) -> dict[str, Any]:
    """The results with their summary first."""
    return {"summary": [asdict(row) for row in summarize(results.rounds)], **asdict(results)}


def as_markdown(results: Results) -> str:
    """The results as a page: targets and CPU first, then everything else."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    lines = [f"Machine: {machine}. Medians of {len(results.rounds)} interleaved rounds.", ""]
    for name, reason in results.missing.items():
        lines += [f"Not measured: {name} ({reason}).", ""]
    rows = summarize(results.rounds)
    lines += _table(
        ("target for Holdfast", "at", "found", ""),
        [
            (each.figure, each.target, each.found, "reached" if each.is_reached else "**missed**")
            for each in judge(results)
        ],
    )
    workloads = [WORKLOADS[name] for name in dict.fromkeys(row.workload for row in rows)]
    lines += ["", "CPU µs per call, and in brackets in those of nginx:", ""]
    lines += _table(("", *(workload.title for workload in workloads)), _cpu_of_all(rows, workloads))
    for workload in workloads:
        lines += ["", f"**{workload.title[:1].upper()}{workload.title[1:]}**", ""]
        lines += _table(_COLUMNS, [_cells(row) for row in rows if row.workload == workload.name])
    lines += ["", "**Holdfast besides calls**", "", *_table(("", ""), list(_besides_calls(results)))]
    return "\n".join([*lines, ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _cpu_of_all(rows: Sequence[Row], workloads: Sequence[Workload]) -> list[tuple[str, ...]]:
    found = {(row.gateway, row.workload): row for row in rows if row.cpu_us_per_call is not None}
    gateways = dict.fromkeys(gateway for gateway, _ in found)
    return [(gateway, *(_cpu(found.get((gateway, workload.name))) for workload in workloads)) for gateway in gateways]


def _cpu(row: Row | None) -> str:
    if row is None:
        return ""
    cpu = _number(row.cpu_us_per_call, 0)
    ratio = "" if row.cpu_ratio_to_nginx is None else f" ({row.cpu_ratio_to_nginx:,.1f})"
    return cpu + ratio + (" wrong answers" if row.errors else "")


def _cells(row: Row) -> tuple[str, ...]:
    return (
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
    return "" if value is None else f"{value:,.{digits}f}"
