"""The gateway is killed: nothing that it started is left after 2 seconds (threats, row 36)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from statistics import median
from typing import Final

import pytest

import holdfast
from faults.rig import together
from holdfast.clock import LoopClock
from holdfast.upstream.watchdog import MARKER, Watchdog
from requirements import requirement
from rows import Figure, row
from stdio_rig import Inbox, exists, is_alive, link_to, none_alive, python

KILLS: Final = 25
"""On each of two event loops."""
AT_ONCE: Final = 5
ORPHAN_TIMEOUT: Final = 2.0
NOISE: Final = 3
"""What a busy machine may add to the slowest."""

STUBBORN = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
print('{"pid":%d}' % os.getpid(), flush=True)
while True:
    signal.pause()
"""

# Ignores the end of its input; runs below a shell, as what `npx` starts does.
WRAPPED = ("sh", "-c", '"$@" & wait', "sh", *python(STUBBORN))

# Leaves the group of its server, as a browser does.
DETACHED = python(f"""
import os, signal
if os.fork() == 0:
    os.setsid()
    exec({STUBBORN!r})
signal.pause()
""")

GATEWAY = """
import asyncio, json, sys

import uvloop

from holdfast.clock import LoopClock
from holdfast.upstream.stdio import StdioLink
from holdfast.upstream.watchdog import Watchdog


class Printer:
    def received(self, message, request_id, envelope=None):
        print(json.loads(message)["pid"], flush=True)


async def main():
    clock = LoopClock()
    watchdog = Watchdog(clock)
    for command in json.loads(sys.argv[2]):
        link = StdioLink(command, env={}, cwd=None, clock=clock, watchdog=watchdog)
        await link.start(Printer())
        print(link.pid, flush=True)
    print(watchdog.pid, flush=True)
    await asyncio.Event().wait()


loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
with asyncio.Runner(loop_factory=loops[sys.argv[1]]) as runner:
    runner.run(main())
"""


@pytest.fixture
async def watchdog() -> AsyncIterator[Watchdog]:
    """A watchdog that runs, in a gateway that is this test."""
    watchdog = Watchdog(LoopClock())
    await watchdog.ensure()
    try:
        yield watchdog
    finally:
        await watchdog.aclose()


@contextlib.contextmanager
def child(environment: dict[str, str]) -> Generator[subprocess.Popen[bytes]]:
    """A process in a session of its own that ignores whatever can be ignored."""
    process = subprocess.Popen(
        python(STUBBORN), stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def started(watchdog: int) -> None:
    """Wait until this process has its own code running: until then its interpreter opens what it likes."""
    async with asyncio.timeout(60):
        while not all(_ignores(watchdog, number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
            await LoopClock().sleep(0.02)


async def killed_gateway(loop: str) -> float:
    """Start a gateway with two servers, kill it, and return once all are gone: after how many seconds."""
    source = str(Path(holdfast.__file__).parent.parent)
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", GATEWAY, loop, json.dumps([WRAPPED, DETACHED])),
        stdin=DEVNULL,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    pids: list[int] = []
    try:
        assert gateway.stdout is not None
        async with asyncio.timeout(60):
            while len(pids) < 5:  # two servers, what each of them started, and the watchdog
                pids.append(int(await gateway.stdout.readline()))
        assert all(is_alive(pid) for pid in pids)
        killed_at = time.monotonic()
        gateway.kill()
        await none_alive(*pids)
        return time.monotonic() - killed_at
    finally:
        with contextlib.suppress(ProcessLookupError):
            gateway.kill()
        await gateway.communicate()
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)


@row(36)
@requirement("faults:end:no-orphans")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_all_that_a_killed_gateway_started_is_gone_within_two_seconds(loop: str, figure: Figure) -> None:
    taken: list[float] = []

    async def killing(times: int) -> None:
        taken.extend([await killed_gateway(loop) for _ in range(times)])

    await together(*(killing(KILLS // AT_ONCE) for _ in range(AT_ONCE)))
    assert len(taken) == KILLS
    assert median(taken) < ORPHAN_TIMEOUT
    assert max(taken) < NOISE * ORPHAN_TIMEOUT
    figure(f"{KILLS} SIGKILLs of a gateway ({loop}): 0 orphans after {max(taken):.2f} s, {median(taken):.2f} s mostly")


async def test_a_child_that_was_not_registered_yet_is_found_by_its_marker(watchdog: Watchdog) -> None:
    with child(dict([watchdog.marker])) as process:
        await watchdog.aclose()
        assert process.wait(60) == -signal.SIGKILL


async def test_a_registered_group_is_ended_and_a_discarded_one_is_not(watchdog: Watchdog) -> None:
    with child({}) as registered, child({}) as discarded:
        watchdog.add(discarded.pid)
        watchdog.add(registered.pid)
        watchdog.discard(discarded.pid)
        await watchdog.aclose()
        assert registered.wait(60) == -signal.SIGKILL
        assert discarded.poll() is None


async def test_another_gateways_children_are_left_alone(watchdog: Watchdog) -> None:
    name, value = watchdog.marker
    with child({name: value[:-1] + "x"}) as other, child({"OTHER": f"{name}={value}"}) as quoted:
        await watchdog.aclose()
        assert other.poll() is None
        assert quoted.poll() is None


async def test_it_ignores_the_signals_that_end_a_service(watchdog: Watchdog) -> None:
    pid = watchdog.pid
    assert pid is not None
    with child({}) as process:
        watchdog.add(process.pid)
        await started(pid)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        await watchdog.aclose()
        assert process.wait(60) == -signal.SIGKILL
    assert not exists(pid)


async def test_it_holds_nothing_of_the_gateways_open(watchdog: Watchdog) -> None:
    pid = watchdog.pid
    assert pid is not None
    await started(pid)
    stdin, *others = _descriptors_of(pid)
    assert stdin.startswith("pipe:")
    assert others == ["/dev/null", "/dev/null"]
    assert _working_directory_of(pid) == "/"
    assert os.getsid(pid) == pid


async def test_a_watchdog_that_died_is_replaced_and_told_of_the_groups(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    with child({}) as process:
        watchdog.add(process.pid)
        first = watchdog.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await none_alive(first)
        watchdog.add(process.pid)  # a broken pipe harms nobody
        await watchdog.ensure()
        assert watchdog.pid != first
        await watchdog.aclose()
        assert process.wait(60) == -signal.SIGKILL
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


async def test_servers_run_without_a_watchdog_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = python("print('{}', flush=True); input()")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    watchdog = Watchdog(LoopClock())
    for _ in range(2):
        link, inbox = link_to(*command, watchdog=watchdog), Inbox()
        await link.start(inbox)
        async with asyncio.timeout(60):
            assert await inbox.messages.get() == b"{}"
            await link.close()
    await watchdog.aclose()
    assert [record.levelname for record in caplog.records if record.name == "holdfast.watchdog"] == ["WARNING"]


async def test_a_gateway_below_another_one_keeps_its_own_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARKER, "of-the-outer-gateway")
    watchdog = Watchdog(LoopClock())
    await watchdog.ensure()
    try:
        assert watchdog.pid is not None
        assert MARKER.encode() not in _environment_of(watchdog.pid)
    finally:
        await watchdog.aclose()


def _descriptors_of(pid: int) -> list[str]:
    paths = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name))
    return [str(path.readlink()) for path in paths]


def _working_directory_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/cwd").readlink())


def _environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def _ignores(pid: int, number: signal.Signals) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, mask = line.partition(":")
        if name == "SigIgn":
            return bool(int(mask, 16) & 1 << (number - 1))
    return False
