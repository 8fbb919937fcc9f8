"""Peers that say nothing and are not gone (threats, row 33): found out by TCP or by the call's own timeout."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from faults.rig import SERVER, Rig, call, code_of, gateway_to, in_flight, text_of, together, until
from faults.test_storms_of_death import MORTAL
from holdfast.config import ServerSettings
from holdfast.testing.clock import ManualClock
from holdfast.testing.proxy import FaultProxy
from holdfast.testing.server import ScriptedServer
from processes import start
from requirements import requirement
from rows import Figure, row

SIBLINGS: Final = 9
CALLS: Final = 30
"""To each sibling, before the fault and during it."""
NOISE: Final = 3
CHAT: Final = f"/mcp/{SERVER}/chats/c"


@asynccontextmanager
async def beside_nine(url: str, **options: Any) -> AsyncGenerator[Rig]:
    """A gateway in front of a server and of nine names of another one."""
    async with ScriptedServer() as sibling:
        others = {f"sibling{number}": sibling.url for number in range(SIBLINGS)}
        async with gateway_to(url, others=others, **options) as rig:
            yield rig


async def siblings_take(rig: Rig) -> list[float]:
    """Seconds of each of `CALLS` calls to every sibling."""
    taken: list[float] = []

    async def calling(number: int) -> None:
        client = rig.client()
        for _ in range(CALLS):
            began = time.perf_counter()
            assert code_of(await call(client, "echo", f"/mcp/sibling{number}/chats/c")) is None
            taken.append(time.perf_counter() - began)

    await together(*(calling(number) for number in range(SIBLINGS)))
    return taken


def compared(before: list[float], during: list[float]) -> str:
    """The 99th percentiles in words; fails where the median rose by more than half and the noise."""
    assert median(during) < 1.5 * NOISE * median(before)
    was, became = (quantiles(taken, n=100)[98] for taken in (before, during))
    return f"siblings' p99 {1000 * was:.1f} ms before, {1000 * became:.1f} ms during"


@row(33)
@requirement("faults:stall:found-by-tcp")
async def test_a_peer_that_vanished_is_found_out_by_tcp(figure: Figure) -> None:
    async with ScriptedServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        async with beside_nine(f"http://127.0.0.1:{proxy.port}/mcp") as rig:
            before = await siblings_take(rig)
            client = rig.client()
            async with in_flight(client, CHAT, canary="cut off") as running:
                assert text_of(await call(client, "count", CHAT)) == "1"  # leaves a connection for the next one
                proxy.vanish()
                began = time.monotonic()
                async with asyncio.TaskGroup() as group:
                    unheard = group.create_task(call(rig.client(), "count", CHAT, canary="unheard"))
                    during = await siblings_take(rig)
                assert code_of(await running.answer) == -31002
                assert code_of(unheard.result()) == -31002
                found_after = time.monotonic() - began
            assert text_of(await call(client, "count", CHAT)) == "2", "over a new connection, in the same session"
        assert [entry.canary for entry in server.calls("count")] == [None, None]
        figure(f"found after {found_after:.1f} s; {compared(before, during)}")


@row(33)
@requirement("faults:stall:ends-one-call")
async def test_calls_of_a_stopped_server_end_by_their_timeout_and_disturb_nobody(
    tmp_path: Path, figure: Figure
) -> None:
    clock = ManualClock()
    ledger = tmp_path / "ledger"
    with start(sys.executable, "-I", "-S", MORTAL, "--ledger", ledger) as process:
        port = (await asyncio.to_thread(process.wait_for_line, r"port (\d+)"))[1]
        pid = int((await asyncio.to_thread(process.wait_for_line, r"child (\d+)"))[1])
        async with beside_nine(f"http://127.0.0.1:{port}/mcp", clock=clock) as rig:
            client = rig.client()
            assert text_of(await call(client, "count", CHAT)) == "1"
            before = await siblings_take(rig)
            os.kill(pid, signal.SIGSTOP)
            try:
                async with asyncio.TaskGroup() as group:
                    stuck = group.create_task(call(client, "count", CHAT))
                    await until(lambda: any(session.calls for session in rig.pool.sessions))
                    during = await siblings_take(rig)
                    assert not stuck.done()
                    clock.advance(ServerSettings.model_fields["call_timeout"].default)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert code_of(stuck.result()) == -31003
            assert text_of(await call(client, "count", CHAT)) == "3", "the server had it, and nobody sent it twice"
        figure(f"ended by its timeout; {compared(before, during)}")
    assert len(ledger.read_text().splitlines()) == 3
