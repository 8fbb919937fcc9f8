"""What sessions cost besides calls: memory while idle, time to open, time to start."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bench.client import Client, answers_a_call, stats
from bench.compile import BUILD
from bench.gateways import SCRIPTED_SERVER, holdfast_command, start_holdfast
from bench.processes import BenchError, free_port, has_ended, read_line, rss_bytes, start

_WARMUP_SESSIONS: Final = 50
_START_TIMEOUT: Final = 15.0
_POLL_INTERVAL: Final = 0.001


@dataclass(frozen=True, slots=True)
class IdleMemory:
    """Memory of Holdfast per idle client session, in KiB."""

    sessions: int
    streams: int
    """How many of them had a push stream open."""
    initialized_kib: float
    called_kib: float
    """After one call in each, for which each had a session with the server opened."""
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


def idle_memory(upstream_port: int, count: int) -> IdleMemory:
    """Open `count` client sessions with a push stream each, then call once in each."""
    with ExitStack() as stack:
        gateway = start_holdfast(stack, upstream_port, ["--max-sessions", str(count + 2 * _WARMUP_SESSIONS)])
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
        initializes = stats(upstream_port)["initializes"]
        with Client(gateway.port) as caller:
            for client in clients:
                caller.session = client.session
                caller.call("once")
        called = rss_bytes(gateway.pid)
        opened = stats(upstream_port)["initializes"] - initializes
    return IdleMemory(
        sessions=count,
        streams=streams,
        initialized_kib=(initialized - empty) / 1024 / count,
        called_kib=(called - empty) / 1024 / count,
        opened_by_calls=opened,
    )


def reconnecting_host(messages: int) -> dict[str, Times]:
    """Time per message of a host that connects, initializes, lists, calls once and deletes for each.

    `cold` is the first message of a chat, `warm` any later one; `direct` knows no difference.
    """
    with ExitStack() as stack:
        server = stack.enter_context(start(SCRIPTED_SERVER, log=BUILD / "server.log", stdout=subprocess.PIPE))
        server_port = urlsplit(read_line(server.stdout, "the server")).port
        assert server_port is not None
        gateway = start_holdfast(stack, server_port, ["--trust", "chat=X-Chat"])
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


def start_to_first_answer(upstream_port: int, starts: int) -> Times:
    """Time from the start of `holdfast run` to the first answered call of a client that keeps trying."""
    found: list[float] = []
    for _ in range(starts):
        port = free_port()
        command = holdfast_command(f"http://127.0.0.1:{upstream_port}/mcp", port)
        began = time.perf_counter()
        with start(command, log=BUILD / "holdfast.log") as child:
            while not answers_a_call(port):
                if has_ended(child, within=_POLL_INTERVAL) or time.perf_counter() - began > _START_TIMEOUT:
                    raise BenchError("holdfast answers no call; see bench/build/holdfast.log")
            found.append(time.perf_counter() - began)
    return times(found)
