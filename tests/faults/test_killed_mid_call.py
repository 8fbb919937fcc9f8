"""Servers that die while calls run (threats, rows 30 and 34): never twice, never silently."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

from bare_client import BareClient
from faults.rig import NoJitter, Rig, call, code_of, gateway_to, in_flight, read, text_of, together, until
from faults.test_storms_of_death import MORTAL
from holdfast import events
from holdfast.testing.proxy import Direction, FaultProxy
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row
from stdio_rig import descriptors, exists

CHATS: Final = 4
STDIO_ROUNDS: Final = 50
"""Each kills the process of every chat."""
CUTS: Final = 300
CUT_READS: Final = 20


def command(ledger: Path) -> tuple[str, ...]:
    return sys.executable, "-m", "holdfast.testing.server", "--stdio", "--ledger", str(ledger)


def executions(ledger: Path) -> Counter[object]:
    """How often the server ran each call that bore a canary."""
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    return Counter(entry["canary"] for entry in entries if entry["canary"] is not None)


def servers_with(ledger: Path) -> list[int]:
    """Our children that write this ledger."""
    pids = [int(pid) for tasks in Path("/proc/self/task").iterdir() for pid in (tasks / "children").read_text().split()]
    return [pid for pid in pids if str(ledger).encode() in command_line(pid)]


def command_line(pid: int) -> list[bytes]:
    """The words of a process's command; none of one that has gone meanwhile."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def kill(pids: list[int]) -> None:
    """Kill those that are not on their way out by themselves."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def starts_anew(client: BareClient) -> None:
    """The next call is not told again, and runs in a new session; with that the chat is over."""
    assert text_of(await call(client, "count")) == "1"
    assert await client.status("DELETE") == 204


@row(30, 34)
@requirement("faults:death:never-twice")
async def test_two_hundred_kills_of_processes_execute_nothing_twice(tmp_path: Path, figure: Figure) -> None:
    ledger = tmp_path / "ledger"
    killed: list[int] = []
    mortal = (sys.executable, "-I", "-S", str(MORTAL), "--stdio", "--ledger", str(ledger))
    async with gateway_to(command=mortal, within=240.0, rng=NoJitter()) as rig:
        before = descriptors()
        for number in range(STDIO_ROUNDS):
            clients = [await rig.opened() for _ in range(CHATS)]  # a chat whose server dies often is slowed down
            async with AsyncExitStack() as stack:
                running = [
                    await stack.enter_async_context(in_flight(client, canary=f"{number}/{chat}"))
                    for chat, client in enumerate(clients)
                ]
                victims = servers_with(ledger)
                assert len(victims) >= CHATS
                kill(victims)
                killed += victims
                for one in running:
                    assert code_of(await one.answer) == -31002
            await together(*(starts_anew(client) for client in clients))
        assert len(killed) >= CHATS * STDIO_ROUNDS
        assert rig.count(events.SessionLost) >= CHATS * STDIO_ROUNDS
        await until(lambda: descriptors() <= before + 1)  # the watchdog's pipe
        await until(lambda: not any(map(exists, killed)))
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    executed = Counter(canary for tool, canary in entries if tool == "progress")
    assert executed == {f"{n}/{c}": 1 for n in range(STDIO_ROUNDS) for c in range(CHATS)}
    figure(f"{len(killed)} SIGKILLs of stdio servers: 0 executed twice, 0 zombies, 0 descriptors left")


@requirement("faults:death:reads-go-on")
async def test_a_read_that_a_kill_cuts_off_is_answered_by_the_next_process(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with gateway_to(command=command(ledger)) as rig:
        for number in range(1, 11):
            client = await rig.opened()
            assert "result" in await read(client)
            [pid] = servers_with(ledger)
            os.kill(pid, signal.SIGSTOP)
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read(client))
                await until(lambda: any(session.calls for session in rig.pool.sessions))
                kill([pid])
            assert "result" in reading.result()
            assert rig.count(events.SessionLost) == number
            assert await client.status("DELETE") == 204
            await until(lambda: not rig.pool.sessions)


@requirement("faults:loss:told-once")
async def test_a_session_with_memory_that_dies_idle_is_told_of_once(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with gateway_to(command=command(ledger)) as rig:
        client = await rig.opened()
        assert text_of(await call(client, "count")) == "1"
        for number in range(1, 5):
            kill(servers_with(ledger))
            await rig.saw(events.SessionLost, number)
            assert code_of(await read(client)) == -31006, "of whatever method"
            assert text_of(await call(client, "count", canary=number)) == "1"
    assert executions(ledger) == dict.fromkeys(range(1, 5), 1)


@requirement("faults:death:never-twice")
async def test_connections_cut_in_mid_answer_execute_nothing_twice() -> None:
    async with ScriptedServer() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        async with gateway_to(f"http://127.0.0.1:{proxy.port}/mcp") as rig:
            clients = [await rig.opened() for _ in range(CHATS)]
            for number in range(CUTS // CHATS):
                async with AsyncExitStack() as stack:
                    running = [
                        await stack.enter_async_context(in_flight(client, canary=f"{number}/{chat}"))
                        for chat, client in enumerate(clients)
                    ]
                    proxy.drop_all(reset=number % 2 == 0)
                    for one in running:
                        assert code_of(await one.answer) == -31002
                for client in clients:
                    assert text_of(await call(client, "count")) == str(number + 1), "the session lives"
            assert rig.count(events.SessionLost) == 0
            assert server.initializes <= CHATS + 1
        seen = Counter(entry.canary for entry in server.calls("progress"))
        assert seen == {f"{n}/{c}": 1 for n in range(CUTS // CHATS) for c in range(CHATS)}


async def test_a_read_whose_connection_is_cut_is_sent_once_more() -> None:
    async with (
        ScriptedServer() as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp") as rig,
    ):
        client = await rig.opened()
        for number in range(CUT_READS):
            for _ in range(10):  # a tenth of all calls may be repetitions
                assert text_of(await call(client, "echo"))
            await cut_read(rig, client, proxy, server, reads=2 * number + 1)


async def cut_read(rig: Rig, client: BareClient, proxy: FaultProxy, server: ScriptedServer, *, reads: int) -> None:
    """Let the server execute a read and its answer be lost; it is answered all the same."""
    answers: list[int | None] = []

    async def reading() -> None:
        answers.append(code_of(await read(client)))

    async def cutting() -> None:
        await server.until(lambda: executed() == reads)
        proxy.drop_all()
        proxy.flow()
        await server.until(lambda: executed() == reads + 1)

    def executed() -> int:
        return sum(entry.method == "resources/read" and entry.outcome == "executed" for entry in server.ledger)

    proxy.stall(Direction.TO_CLIENT)
    await together(reading(), cutting())
    assert answers == [None]
    assert executed() == reads + 1
