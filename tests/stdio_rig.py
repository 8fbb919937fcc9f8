"""A stdio link to a small Python program, with everything that it reports kept."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from holdfast.clock import Clock, LoopClock, Timer
from holdfast.upstream.stdio import StdioLink
from holdfast.upstream.transport import Fault
from holdfast.upstream.watchdog import Watchdog
from holdfast.wire.jsonrpc import ServerMessage


def on_both_loops(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[Callable[[], Any]], None]:
    """Run `test` on asyncio's own loop and on uvloop, whose subprocess code is another; 2 minutes at most."""

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await test()

    def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(bounded())

    functools.update_wrapper(run, test)
    del run.__dict__["__wrapped__"]  # pytest would look for the parameters there
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    parametrized: Callable[[Callable[[], Any]], None] = pytest.mark.parametrize(
        "new_loop", loops, ids=["asyncio", "uvloop"]
    )(run)
    return parametrized


class Unwatched(Watchdog):
    """Starts no process; tests/faults/test_watchdog.py is about the real one."""

    async def ensure(self) -> None:
        return


class PatientClock(LoopClock):
    """Lets everything take 20 s longer, so that no timer fires in what a slow machine does slowly."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return super().call_later(delay + 20, callback)


class Inbox:
    """A `Receiver` that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.failures: asyncio.Queue[tuple[int, Fault]] = asyncio.Queue()
        self.losses: list[Fault] = []
        self.pushes: list[bool] = []
        self.is_lost = asyncio.Event()
        self.on_received: Callable[[bytes], None] | None = None

    def received(self, message: bytes, request_id: int | None, envelope: ServerMessage | None = None) -> None:
        assert request_id is None
        self.messages.put_nowait(message)
        if self.on_received is not None:
            self.on_received(message)

    def failed(self, request_id: int, fault: Fault) -> None:
        self.failures.put_nowait((request_id, fault))

    def suspended(self, request_id: int) -> None:
        raise AssertionError("a pipe is never resumed")

    def push_stream(self, is_up: bool) -> None:
        self.pushes.append(is_up)

    def suspected(self, fault: Fault) -> None:
        raise AssertionError("a process is alive or not")

    def lost(self, fault: Fault) -> None:
        self.losses.append(fault)
        self.is_lost.set()


def link_to(
    *command: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    max_message_bytes: int = 16 * 1024 * 1024,
    close_timeout: float = 2.0,
    watchdog: Watchdog | None = None,
    clock: Clock | None = None,
) -> StdioLink:
    """A link that was not started yet."""
    clock = clock or LoopClock()
    return StdioLink(
        command,
        env=env or {},
        cwd=None if cwd is None else str(cwd),
        clock=clock,
        watchdog=watchdog or Unwatched(clock),
        max_message_bytes=max_message_bytes,
        close_timeout=close_timeout,
    )


def python(script: str) -> tuple[str, ...]:
    """The command that runs `script`, with a quick start."""
    return sys.executable, "-I", "-S", "-c", script


@contextlib.asynccontextmanager
async def running(
    *command: str,
    env: Mapping[str, str] | None = None,
    max_message_bytes: int = 16 * 1024 * 1024,
    close_timeout: float = 2.0,
    clock: Clock | None = None,
) -> AsyncGenerator[tuple[StdioLink, Inbox]]:
    """A started link and what it reports; the process is gone when the block is left."""
    link = link_to(*command, env=env, max_message_bytes=max_message_bytes, close_timeout=close_timeout, clock=clock)
    inbox = Inbox()
    try:
        await link.start(inbox)
        yield link, inbox
    finally:
        link.terminate()
        await link.close()


def exists(pid: int) -> bool:
    """Whether there is such a process, a zombie included."""
    return Path(f"/proc/{pid}").exists()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that its new parent has not reaped yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


async def reaped(*pids: int) -> None:
    """Return once there are no such processes any more, zombies included."""
    async with asyncio.timeout(60):
        while any(map(exists, pids)):
            await LoopClock().sleep(0.01)


async def none_alive(*pids: int, within: float = 30.0) -> None:
    """Return once all `pids` have ended, our children or not."""
    async with asyncio.timeout(within):
        for pid in pids:
            await _end_of(pid)


async def _end_of(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)  # readable from its end on
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
