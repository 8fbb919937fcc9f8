"""Two gateways of one kind, each a process: one meets a fault, and the same calls go to both in turn.

Whatever else the machine does slows down both alike, so what differs is the fault's.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from bare_client import BareClient
from faults.raw_http import RawConnection, post, raw_connection
from processes import free_port, start

MIB: Final = 1 << 20
NOISE: Final = 3
"""How much more than it should a time may be, on a machine that does other work."""


class Twin:
    """A gateway in a process of its own, and a client that calls it over one connection."""

    def __init__(self, port: int, pid: int, connection: RawConnection) -> None:
        self.client = BareClient(port)
        """Opens a connection for each of its requests."""
        self.port = port
        self.taken: list[float] = []
        """Seconds of each call of `call`."""
        self._pid = pid
        self._connection = connection

    async def call(self, path: str = "/mcp", tool: str = "echo", **arguments: Any) -> None:
        """Call a tool, and note how long that takes."""
        body = json.dumps(self.client.tool(tool, **arguments)).encode()
        fields = [(name, value) for name, value in self.client.headers.items()]
        began = time.perf_counter()
        self._connection.write(post(body, fields, path=path))
        answer = await self._connection.answer()
        self.taken.append(time.perf_counter() - began)
        assert (answer.status, answer.closes) == (200, False)
        assert "result" in answer.messages()[-1], answer.body

    async def metrics(self) -> str:
        """Its metrics as they stand."""
        async with self.client.request("GET", path="/metrics") as response:
            return (await response.body()).decode()

    async def metric(self, name: str) -> float:
        """One of them, by its name and labels."""
        return next(float(line.split()[-1]) for line in (await self.metrics()).splitlines() if line.startswith(name))

    def resident(self) -> int:
        """Bytes of memory that the gateway holds."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


@asynccontextmanager
async def twins(
    arguments: Callable[[int], Sequence[str | Path]], *, warm: str = "/mcp", within: float = 240.0
) -> AsyncGenerator[tuple[Twin, Twin]]:
    """Two of `holdfast` with the arguments for a port each, for the time of the block, each warmed up by calls."""
    async with asyncio.timeout(within), AsyncExitStack() as stack:
        pair: list[Twin] = []
        for port in (free_port(), free_port()):
            process = stack.enter_context(start(sys.executable, "-m", "holdfast", *arguments(port)))
            await asyncio.to_thread(process.wait_for_line, r"ready in \d+ ms")
            connection = await stack.enter_async_context(raw_connection(port))
            pair.append(Twin(port, process.pid, connection))
        one, other = pair
        for _ in range(200):
            await one.call(warm)
            await other.call(warm)
        one.taken.clear()
        other.taken.clear()
        yield one, other


def compared(hurt: Twin, spared: Twin) -> str:
    """The 99th percentiles in words; fails where the fault more than doubled it, and the noise."""
    with_fault, without = (quantiles(twin.taken, n=100)[98] for twin in (hurt, spared))
    words = f"p99 of {len(hurt.taken):,} calls {1000 * with_fault:.1f} ms, {1000 * without:.1f} ms without"
    assert with_fault < 2 * NOISE * without, words
    return words


def running(url: str) -> Callable[[int], Sequence[str]]:
    """The arguments for a gateway in front of one server."""
    return lambda port: ("run", url, "--port", str(port))
