"""Callers that give up at random moments, ten thousand times (threats, row 41): nobody else notices."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

import pytest

from faults.rig import call, gateway_to, text_of, until
from faults.test_cancellation import (
    STEPS,
    GiveUp,
    Request,
    cancel_the_call,
    cancel_the_task,
    disconnect,
    end_the_session,
    given_up,
    names_of_tasks,
    nothing_runs,
    slow,
)
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

CANCELLATIONS: Final = 10_000
WORKERS: Final = 20
"""Callers that give up, at once."""
SIBLINGS: Final = 2
WAYS: Final[tuple[GiveUp, ...]] = (cancel_the_task, disconnect, cancel_the_call, end_the_session)


@row(41)
@pytest.mark.timeout(1800)
@requirement("faults:cancel:nothing-is-left")
async def test_ten_thousand_random_cancellations_fail_no_other_call_and_leave_nothing(figure: Figure) -> None:
    rng = random.Random(41)
    given: Counter[str] = Counter()
    answered = 0
    async with ScriptedServer() as server, gateway_to(server.url, within=1700.0) as rig:
        assert text_of(await call(rig.client(), "count")) == "1"
        await nothing_runs(rig, server)
        before = await names_of_tasks()

        async def giving_up(worker: int) -> None:
            for number in range(CANCELLATIONS // WORKERS):
                give_up = rng.choice(WAYS)
                session: str | None = None
                if give_up in {cancel_the_call, end_the_session}:
                    session = (await rig.opened()).headers["mcp-session-id"]
                request = Request(rig, "POST", slow(worker * CANCELLATIONS + number), session)
                await given_up(rig, server, request, rng.randrange(STEPS), give_up)
                given[give_up.__name__] += 1
                if give_up is cancel_the_call:
                    await Request(rig, "DELETE", session=session).run()

        async def calling(is_over: asyncio.Event) -> None:
            nonlocal answered
            client = await rig.opened()
            count = 0
            while not is_over.is_set():
                count += 1
                assert text_of(await call(client, "count")) == str(count), "in one session, and every one of them"
            answered += count
            await client.status("DELETE")

        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as siblings:
            for _ in range(SIBLINGS):
                siblings.create_task(calling(is_over))
            async with asyncio.TaskGroup() as workers:
                for worker in range(WORKERS):
                    workers.create_task(giving_up(worker))
            is_over.set()
        await nothing_runs(rig, server)
        await until(lambda: not any(session.key for session in rig.pool.sessions))
        after = await names_of_tasks()
        assert after == before
        assert sum(given.values()) == CANCELLATIONS
    figure(f"{CANCELLATIONS:,} cancellations in {len(given)} ways: 0 of {answered:,} other calls failed, 0 tasks left")
