"""More than there is room for (threats, rows 39 and 48): refused in order, and everything goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections import Counter
from contextlib import AsyncExitStack
from typing import Final

from bare_client import BareClient
from faults.rig import SERVER, call, code_of, gateway_to, resident, text_of, together
from faults.test_half_open import CHAT
from holdfast.testing.clock import settle
from holdfast.testing.server import ScriptedServer
from processes import free_port, start
from requirements import requirement
from rows import Figure, row

CALLS: Final = 5_000
SENT: Final = 64
QUEUED: Final = 256
AT_ONCE: Final = 50
"""Clients that call again as soon as they are refused."""
OTHERS: Final = 200
"""Calls to another server meanwhile."""
MIB: Final = 1 << 20

DESCRIPTORS: Final = 256
CONNECTIONS: Final = 400
CALLS_MEANWHILE: Final = 20


@row(39)
@requirement("faults:overload:one-server")
async def test_five_thousand_calls_of_a_server_that_answers_none_are_refused_and_disturb_no_other(
    figure: Figure,
) -> None:
    async with AsyncExitStack() as stack:
        server, other = [await stack.enter_async_context(ScriptedServer()) for _ in range(2)]
        rig = await stack.enter_async_context(
            gateway_to(server.url, others={"other": other.url}, acquire_timeout=300.0, within=240.0)
        )
        codes: Counter[int | None] = Counter()
        assert text_of(await call(rig.client(), "count", CHAT)) == "1"
        assert text_of(await call(rig.client(), "count", "/mcp/other/chats/c")) == "1"
        memory = resident()

        async def waiting() -> None:
            codes[code_of(await call(rig.client(), "slow", CHAT, gate="gate"))] += 1

        async def refused(times: int) -> None:
            for _ in range(times):
                code = code_of(await call(rig.client(), "count", CHAT))
                assert code == -31005
                codes[code] += 1

        async def elsewhere() -> None:
            client = rig.client()
            for number in range(OTHERS):
                assert text_of(await call(client, "count", "/mcp/other/chats/c")) == str(number + 2)

        async def storm() -> None:
            await server.entered("gate", SENT)
            await server.until(lambda: rig.gateway.servers[SERVER].pool.sessions[0].leases == SENT + QUEUED)
            left = CALLS - SENT - QUEUED
            await together(elsewhere(), *(refused(left // AT_ONCE + (n < left % AT_ONCE)) for n in range(AT_ONCE)))
            grown.append(resident() - memory)
            server.open_gate("gate")

        grown: list[int] = []
        await together(storm(), *(waiting() for _ in range(SENT + QUEUED)))
        assert codes == {None: SENT + QUEUED, -31005: CALLS - SENT - QUEUED}
        assert len(server.calls("count")) == 1, "what was refused was not sent"
        assert grown[0] <= 64 * MIB
        figure(
            f"{CALLS:,} calls: {codes[None]} answered, {codes[-31005]:,} refused unsent;"
            f" {grown[0] / MIB:.0f} MiB more; 0 of {OTHERS} calls of another server failed"
        )


@row(48)
@requirement("faults:overload:descriptors")
async def test_a_gateway_without_descriptors_goes_on_when_there_are_some(figure: Figure) -> None:
    port = free_port()
    limited = ("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", sys.executable, "-m", "holdfast")
    ends: Counter[str] = Counter()
    async with asyncio.timeout(240), ScriptedServer() as server:
        with start(*limited, "run", "--port", str(port), "--name", SERVER, server.url) as process:
            await asyncio.to_thread(process.wait_for_line, r"ready in \d+ ms")

            async def calling(number: int) -> None:
                try:
                    answer = await call(BareClient(port), "count", f"/mcp/{SERVER}/chats/{number}")
                except (OSError, asyncio.IncompleteReadError):
                    ends["refused the connection"] += 1
                else:
                    ends["answered" if code_of(answer) is None else "answered with an error"] += 1

            await calling(0)
            with contextlib.ExitStack() as held:
                connections = [await idle(port, held) for _ in range(CONNECTIONS)]
                async with asyncio.TaskGroup() as group:
                    for number in range(CALLS_MEANWHILE):
                        group.create_task(calling(number))
                    await settle(1000)
                    closed = sum(map(is_closed, connections))
                    held.close()
            assert process.is_running()
            assert sum(ends.values()) == 1 + CALLS_MEANWHILE
            ends.clear()
            while not ends["answered"]:
                await calling(0)
            assert "Traceback" not in process.output
    figure(
        f"{CONNECTIONS} idle connections and {CALLS_MEANWHILE} calls to a gateway of {DESCRIPTORS} descriptors:"
        f" {closed} connections refused, 0 exits, served again after {sum(ends.values())} call(s)"
    )


async def idle(port: int, stack: contextlib.ExitStack) -> socket.socket:
    """A connection over which nothing is ever sent."""
    connection = stack.enter_context(socket.socket())
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it."""
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
