"""One measured stretch of requests through one gateway."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import stats
from bench.compile import BUILD
from bench.endpoint import Endpoint, Upstream
from bench.processes import cpu_seconds, read_line, rss_bytes, start
from bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one run of the load generator found; times in microseconds."""

    workload: str
    gateway: str
    calls: int
    errors: int
    calls_per_second: float
    p50_us: float
    p90_us: float
    p99_us: float
    cpu_us_per_call: float | None
    """CPU time of the gateway's processes, without the server; None without a gateway."""
    rss_mib: float | None
    upstream_requests_per_call: float | None
    """None where the server is a child of the gateway, which says nothing of what it gets."""
    initializes_per_session: float | None
    """Counted from before the sessions were opened until the last call was answered."""


def measure(
    program: Path, gateway: Endpoint, upstream: Upstream, workload: Workload, *, seconds: float, warmup: float
) -> Stretch:
    """Ask through `gateway` in a closed loop. Raises `BenchError` where its sessions cannot be opened."""
    at_first = _stats(upstream)
    command = _command(program, gateway, workload, seconds, warmup)
    with start(command, log=BUILD / "load.log", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        read_line(child.stdout, "load")
        before = _stats(upstream)
        cpu = _cpu_seconds(gateway)
        _go_on(child)
        found: dict[str, Any] = json.loads(read_line(child.stdout, "load"))
        cpu = _cpu_seconds(gateway) - cpu
        after = _stats(upstream)
        rss = None if gateway.pid is None else rss_bytes(gateway.pid, without=gateway.server) / 2**20
        _go_on(child)
        child.wait(20)
    calls = max(int(found["calls"]), 1)
    return Stretch(
        workload=workload.name,
        gateway=gateway.name,
        calls=found["calls"],
        errors=found["errors"] + found["warmup_errors"],
        calls_per_second=found["calls_per_second"],
        p50_us=found["p50_us"],
        p90_us=found["p90_us"],
        p99_us=found["p99_us"],
        cpu_us_per_call=None if gateway.pid is None else cpu * 1e6 / calls,
        rss_mib=rss,
        upstream_requests_per_call=_grown(before, after, "requests", calls),
        initializes_per_session=_grown(at_first, after, "initializes", workload.connections),
    )


def _command(program: Path, gateway: Endpoint, workload: Workload, seconds: float, warmup: float) -> list[str | Path]:
    path = gateway.large_path if workload.is_large and gateway.large_path is not None else gateway.path
    command: list[str | Path] = [program, "--wait", "--port", str(gateway.port), "--path", path]
    command += ["--connections", str(workload.connections), "--seconds", str(seconds), "--warmup", str(warmup)]
    return [*command, *workload.options, *(["--modern"] if gateway.is_modern else [])]


def _stats(upstream: Upstream) -> dict[str, int] | None:
    return None if upstream.port is None else stats(upstream.port)


def _grown(before: dict[str, int] | None, after: dict[str, int] | None, name: str, of: int) -> float | None:
    return None if before is None or after is None else (after[name] - before[name]) / of


def _cpu_seconds(gateway: Endpoint) -> float:
    return 0.0 if gateway.pid is None else cpu_seconds(gateway.pid, without=gateway.server)


def _go_on(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
