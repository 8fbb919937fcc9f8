"""The gateway's own end (threats, row 36, and architecture 5, End): in time, and with no process left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from bare_client import BareClient
from faults.rig import call, read, text_of
from holdfast import gateway
from holdfast.cli import serving
from processes import Process, free_port, start
from requirements import requirement
from stdio_rig import none_alive

SERVER: Final = (sys.executable, "-m", "holdfast.testing.server", "--stdio", "--stubborn")
WRAPPED: Final = ("sh", "-c", '"$@"; true', "sh", *SERVER)
"""As `npx` runs a server: below a shell that waits for it."""
CLIENTS: Final = 4
KILLS: Final = 3
END_TIMEOUT: Final = 5.0
NOISE: Final = 3
"""What a busy machine may add."""


@contextlib.contextmanager
def running(*command: str) -> Generator[tuple[Process, int]]:
    """`holdfast run` in front of a stdio server, and the port."""
    port = free_port()
    with start(sys.executable, "-m", "holdfast", "run", "--port", str(port), "--", *command) as process:
        process.wait_for_line(r"ready in \d+ ms")
        yield process, port


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").iterdir():
        for child in (tasks / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


async def busy(port: int, stack: contextlib.AsyncExitStack) -> list[asyncio.Task[None]]:
    """Clients with a push stream and a call that does not end; done when all are sent away."""
    group = await stack.enter_async_context(asyncio.TaskGroup())
    waiting: list[asyncio.Task[None]] = []
    for _ in range(CLIENTS):
        client = BareClient(port)
        await client.open()
        assert text_of(await call(client, "count")) == "1"
        waiting.append(group.create_task(pushes(client)))
        started = asyncio.Event()
        waiting.append(group.create_task(endless(client, started)))
        await started.wait()
    return waiting


async def pushes(client: BareClient) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        async with client.request("GET", last_event_id=None) as response:
            assert response.status == 200
            while await response.event() is not None:
                pass


async def endless(client: BareClient, started: asyncio.Event) -> None:
    body = client.tool("progress", steps=2, gate="never")
    body["params"]["_meta"] = {"progressToken": "t"}
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        async with client.request("POST", body) as response:
            while (event := await response.event()) is not None:
                if b"notifications/progress" in event.data:
                    started.set()


@requirement("faults:end:within-5-seconds")
def test_all_that_an_end_waits_for_is_bounded_to_less() -> None:
    assert serving.GRACE + gateway.DRAIN_TIMEOUT < END_TIMEOUT - 1


@requirement("faults:end:within-5-seconds")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_gateway_within_5_seconds_with_streams_and_calls_open(number: signal.Signals) -> None:
    async with asyncio.timeout(120):
        with running(*WRAPPED) as (process, port):
            async with contextlib.AsyncExitStack() as stack:
                waiting = await busy(port, stack)
                below = descendants(process.pid)
                assert len(below) >= 2 * CLIENTS
                started = time.monotonic()
                process.send(number)
                await asyncio.wait(waiting)
                status = await asyncio.to_thread(process.wait)
                assert time.monotonic() - started < NOISE * END_TIMEOUT
            assert status in {0, -number, 128 + number}
            await none_alive(*below)
            assert "Traceback" not in process.output


async def test_a_second_signal_ends_it_at_once() -> None:
    async with asyncio.timeout(120):
        with running(*WRAPPED) as (process, port):
            async with contextlib.AsyncExitStack() as stack:
                waiting = await busy(port, stack)
                below = descendants(process.pid)
                process.send(signal.SIGTERM)
                await asyncio.wait(waiting)  # two at once may reach a process as one
                process.send(signal.SIGTERM)
                await asyncio.to_thread(process.wait)
            await none_alive(*below)
            assert "Traceback" not in process.output


@requirement("faults:end:no-orphans")
async def test_a_killed_gateway_leaves_no_process() -> None:
    async with asyncio.timeout(240):
        for _ in range(KILLS):
            with running(*WRAPPED) as (process, port):
                clients = [BareClient(port) for _ in range(CLIENTS)]
                for client in clients:
                    await client.open()
                    assert "result" in await read(client)
                below = descendants(process.pid)
                assert len(below) >= 2 * CLIENTS
                os.kill(process.pid, signal.SIGKILL)
                await none_alive(*below)
