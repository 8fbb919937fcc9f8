"""What a run found, and what follows from it: medians over rounds, and ratios within them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from bench.gateways import NGINX
from bench.load import Stretch
from bench.sessions import Idle, Times

Rounds: TypeAlias = Sequence[Sequence[Stretch]]


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


def summarize(rounds: Rounds) -> list[Row]:
    """A row for each workload and gateway, in the order in which they first ran."""
    keys = dict.fromkeys((stretch.workload, stretch.gateway) for stretches in rounds for stretch in stretches)
    return [_row(rounds, workload, gateway) for workload, gateway in keys]


def _row(rounds: Rounds, workload: str, gateway: str) -> Row:
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


def cpu_ratio(rounds: Rounds, workload: str, gateway: str, other: str) -> float | None:
    """The median of what a call costs through `gateway`, in what it costs through `other` in the same round."""
    return _median(
        [
            ours.cpu_us_per_call / theirs.cpu_us_per_call
            for ours, theirs in _pairs(rounds, workload, gateway, other)
            if ours.cpu_us_per_call is not None and theirs.cpu_us_per_call
        ]
    )


def throughput_ratio(rounds: Rounds, workload: str, gateway: str, other: str) -> float | None:
    """The median of the calls per second through `gateway`, in those through `other` in the same round."""
    pairs = _pairs(rounds, workload, gateway, other)
    return _median([ours.calls_per_second / theirs.calls_per_second for ours, theirs in pairs])


def added_p50(rounds: Rounds, workload: str, gateway: str, other: str) -> float | None:
    """The median of the microseconds by which the p50 through `gateway` exceeds that through `other`."""
    return _median([ours.p50_us - theirs.p50_us for ours, theirs in _pairs(rounds, workload, gateway, other)])


def _pairs(rounds: Rounds, workload: str, gateway: str, other: str) -> Iterator[tuple[Stretch, Stretch]]:
    for stretches in rounds:
        found = {stretch.gateway: stretch for stretch in stretches if stretch.workload == workload}
        if gateway in found and other in found:
            yield found[gateway], found[other]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
