"""One measured stretch of calls through one gateway."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import stats
from bench.compile import BUILD
from bench.gateways import Endpoint
from bench.processes import cpu_seconds, read_line, rss_bytes, start


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one run of the load generator found; times in microseconds."""

    gateway: str
    connections: int
    calls: int
    errors: int
    calls_per_second: float
    p50_us: float
    p90_us: float
    p99_us: float
    cpu_us_per_call: float | None
    """CPU time of the gateway's processes; None without a gateway."""
    rss_mib: float | None
    upstream_requests_per_call: float
    initializes_per_session: float
    """Counted from before the sessions were opened until the last call was answered."""


def measure(
    program: Path, gateway: Endpoint, upstream_port: int, *, connections: int, seconds: float, warmup: float
) -> Stretch:
    """Call through `gateway` in a closed loop. Raises `BenchError` where its sessions cannot be opened."""
    command: list[str | Path] = [program, "--wait", "--port", str(gateway.port), "--path", gateway.path]
    command += ["--connections", str(connections), "--seconds", str(seconds), "--warmup", str(warmup)]
    if gateway.is_modern:
        command.append("--modern")
    at_first = stats(upstream_port)
    with start(command, log=BUILD / "load.log", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        read_line(child.stdout, "load")
        before = stats(upstream_port)
        cpu = 0.0 if gateway.pid is None else cpu_seconds(gateway.pid)
        _go_on(child)
        found: dict[str, Any] = json.loads(read_line(child.stdout, "load"))
        cpu = 0.0 if gateway.pid is None else cpu_seconds(gateway.pid) - cpu
        after = stats(upstream_port)
        rss = None if gateway.pid is None else rss_bytes(gateway.pid) / 2**20
        _go_on(child)
        child.wait(20)
    calls = max(int(found["calls"]), 1)
    return Stretch(
        gateway=gateway.name,
        connections=connections,
        calls=found["calls"],
        errors=found["errors"] + found["warmup_errors"],
        calls_per_second=found["calls_per_second"],
        p50_us=found["p50_us"],
        p90_us=found["p90_us"],
        p99_us=found["p99_us"],
        cpu_us_per_call=None if gateway.pid is None else cpu * 1e6 / calls,
        rss_mib=rss,
        upstream_requests_per_call=(after["requests"] - before["requests"]) / calls,
        initializes_per_session=(after["initializes"] - at_first["initializes"]) / connections,
    )


def _go_on(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
