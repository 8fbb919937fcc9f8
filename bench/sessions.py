"""What sessions cost besides calls: memory while idle, time to open, time to start."""

from __future__ import annotations

import itertools
import resource
import statistics
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bench.client import Client, answers_a_call, stats
from bench.compile import BUILD
from bench.endpoint import Upstream
from bench.gateways import SCRIPTED_SERVER, holdfast_command, run_holdfast
from bench.processes import BenchError, cpu_seconds, free_port, has_ended, read_line, rss_bytes, start

_WARMUP_SESSIONS: Final = 50
_OTHER_FILES: Final = 100
"""Files that a gateway has open besides its clients' connections."""
_SETTLE_TIME: Final = 2.0
_IDLE_TIME: Final = 15.0
_START_TIMEOUT: Final = 15.0
_POLL_INTERVAL: Final = 0.001


@dataclass(frozen=True, slots=True)
class Idle:
    """What client sessions cost Holdfast that nobody uses."""

    sessions: int
    streams: int
    """How many of them had a push stream open."""
    initialized_kib: float
    """Memory for each, in KiB."""
    cpu_share: float
    """Of one core, while nothing is asked."""
    called_kib: float
    """Memory after one call in each, for which each had a session with the server opened."""
    opened_by_calls: int
    """Sessions with the server that those calls opened."""


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one thing done several times."""

    median_ms: float
    p90_ms: float
    samples: int


def times(seconds: list[float]) -> Times:
    """Sum up at least one duration."""
    ordered = sorted(seconds)
    p90 = ordered[min(len(ordered) * 9 // 10, len(ordered) - 1)]
    return Times(median_ms=statistics.median(ordered) * 1e3, p90_ms=p90 * 1e3, samples=len(ordered))


def idle(upstream: Upstream, wanted: int) -> Idle:
    """Open client sessions with a push stream each, wait, then call once in each.

    There are fewer than `wanted` where the system does not allow as many open files.
    """
    count = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES)
    with ExitStack() as stack:
        gateway = run_holdfast(stack, [upstream.url], ["--max-sessions", str(count + 2 * _WARMUP_SESSIONS)])
        assert gateway.pid is not None
        for _ in range(_WARMUP_SESSIONS):
            with Client(gateway.port) as client:
                client.initialize()
                client.call("warm")
                client.delete()
        empty = rss_bytes(gateway.pid)
        clients: list[Client] = []
        streams = 0
        for _ in range(count):
            client = stack.enter_context(Client(gateway.port))
            client.initialize()
            streams += client.open_stream()
            clients.append(client)
        initialized = rss_bytes(gateway.pid)
        cpu_share = _cpu_share(gateway.pid)
        initializes = _initializes(upstream)
        with Client(gateway.port) as caller:
            for client in clients:
                caller.session = client.session
                caller.call("once")
        called = rss_bytes(gateway.pid)
    return Idle(
        sessions=count,
        streams=streams,
        initialized_kib=(initialized - empty) / 1024 / count,
        cpu_share=cpu_share,
        called_kib=(called - empty) / 1024 / count,
        opened_by_calls=_initializes(upstream) - initializes,
    )


def _cpu_share(pid: int) -> float:
    nothing_happens = threading.Event()
    nothing_happens.wait(_SETTLE_TIME)
    cpu, began = cpu_seconds(pid), time.perf_counter()
    nothing_happens.wait(_IDLE_TIME)
    return (cpu_seconds(pid) - cpu) / (time.perf_counter() - began)


def _initializes(upstream: Upstream) -> int:
    assert upstream.port is not None
    return stats(upstream.port)["initializes"]


def reconnecting_host(messages: int) -> dict[str, Times]:
    """Time per message of a host that connects, initializes, lists, calls once and deletes for each.

    `cold` is the first message of a chat, `warm` any later one; `direct` knows no difference.
    """
    with ExitStack() as stack:
        server = stack.enter_context(start(SCRIPTED_SERVER, log=BUILD / "server.log", stdout=subprocess.PIPE))
        server_port = urlsplit(read_line(server.stdout, "the server")).port
        assert server_port is not None
        gateway = run_holdfast(stack, [f"http://127.0.0.1:{server_port}/mcp"], ["--trust", "chat=X-Chat"])
        chats = itertools.count(1)
        _message(gateway.port, "warm")
        found: dict[str, list[float]] = {"direct": [], "cold": [], "warm": []}
        for _ in range(messages):
            found["direct"].append(_message(server_port, "direct"))
            found["cold"].append(_message(gateway.port, f"cold-{next(chats)}"))
            found["warm"].append(_message(gateway.port, "warm"))
    return {name: times(seconds) for name, seconds in found.items()}


def _message(port: int, chat: str) -> float:
    began = time.perf_counter()
    with Client(port, headers={"X-Chat": chat}) as client:
        client.initialize()
        client.list_tools()
        client.call(chat)
        client.delete()
    return time.perf_counter() - began


def start_to_first_answer(upstream: Upstream, starts: int) -> Times:
    """Time from the start of `holdfast run` to the first answered call of a client that keeps trying."""
    found: list[float] = []
    for _ in range(starts):
        port = free_port()
        command = holdfast_command([upstream.url], port)
        began = time.perf_counter()
        with start(command, log=BUILD / "holdfast.log") as child:
            while not answers_a_call(port):
                if has_ended(child, within=_POLL_INTERVAL) or time.perf_counter() - began > _START_TIMEOUT:
                    raise BenchError("holdfast answers no call; see bench/build/holdfast.log")
            found.append(time.perf_counter() - began)
    return times(found)
