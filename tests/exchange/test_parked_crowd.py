"""A thousand calls that wait for their clients at once: some come back in time, some too late, and some are others."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from holdfast.config import ClientSettings, Trust
from holdfast.downstream import parked
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_tools import TOOLS, Tool, ToolCall
from modern_client import ModernClient, reply_in
from requirements import requirement
from rig import Rig, rig
from rows import Figure, row

TRUSTING: Final = (ClientSettings(name="local", trust=Trust(user="x-user", chat="x-chat")),)
CALLS: Final = 1000
USERS: Final = 20
ASK_TIMEOUT: Final = 600.0
WAVES: Final = 10
STEP: Final = 50.0
"""Seconds between two waves of calls, and between two rounds of what becomes of them."""
AT_ONCE: Final = 50
STEPS: Final = int(ASK_TIMEOUT / STEP)
"""How many rounds the calls of a wave have until they expire."""


@dataclass
class Waiting:
    """A parked call, and what is to become of it."""

    number: int
    owner: ModernClient
    thief: ModernClient
    body: dict[str, Any]
    result: Any
    expires_in: int
    """The round, counted from when all wait, before which it is given up."""
    answered_in: int | None
    """The round in which its owner comes back; None: never."""
    stolen_in: int | None
    """The round in which somebody else comes with its state, while it waits."""

    @property
    def answer(self) -> dict[str, Any]:
        return {"action": "accept", "content": {"answer": str(self.number)}}

    async def finish(self) -> str:
        """Come back with the answer; what became of that."""
        ((key, question),) = self.result["inputRequests"].items()
        assert question["params"]["message"] == f"{self.number}?"
        got = reply_in(await self.owner.result(self.owner.again(self.body, self.result, **{key: self.answer})))
        return "answered" if got == self.answer else "mixed up"

    async def steal(self) -> str:
        """Come back as another user; what became of that."""
        return await self._refused(self.thief, "foreign states refused")

    async def come_too_late(self) -> str:
        """Come back when nothing waits any more, answered or not; what became of that."""
        return await self._refused(self.owner, "states refused afterwards")

    async def _refused(self, who: ModernClient, word: str) -> str:
        status, code, _ = await who.refused(who.again(self.body, self.result))
        return word if (status, code) == (400, -32602) else "taken"


class Crowd:
    """The calls, and what has become of them so far."""

    def __init__(self, running: Rig) -> None:
        self.running = running
        self.clients = [ModernClient(running, x_user=f"u{number}", x_chat="c") for number in range(USERS)]
        self.calls: list[Waiting] = []
        self.fates: Counter[str] = Counter()
        self._rng = random.Random(8)
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def begin(self, wave: int) -> None:
        """Let a wave of calls be asked something."""
        async with asyncio.TaskGroup() as group:
            begun = [group.create_task(self._begin(number)) for number in range(wave, CALLS, WAVES)]
            while not all(task.done() for task in begun):
                await self.running.passing(parked.GATHERING)
        for task in begun:
            number, body, result = task.result()
            assert result["resultType"] == "input_required"
            rounds = STEPS - (WAVES - 1 - wave)
            comes_back, is_tempting = self._rng.random() < 0.6, self._rng.random() < 0.3
            answered_in = self._rng.randrange(rounds) if comes_back else None
            stolen_in = self._rng.randrange(rounds if answered_in is None else answered_in + 1) if is_tempting else None
            owner, thief = self.clients[number % USERS], self.clients[(number + 1) % USERS]
            if stolen_in == answered_in:
                stolen_in = None  # who of the two is first is not to be known
            self.calls.append(Waiting(number, owner, thief, body, result, rounds, answered_in, stolen_in))

    async def _begin(self, number: int) -> tuple[int, dict[str, Any], Any]:
        client = self.clients[number % USERS]
        async with self._gate:
            body = client.tool("ask_noting", number=number)
            return number, body, await client.result(body)

    async def come_back(self, number: int) -> None:
        """All that happens in a round, in any order."""
        due = [call.finish() for call in self.calls if call.answered_in == number]
        due += [call.steal() for call in self.calls if call.stolen_in == number]
        self._rng.shuffle(due)
        await self._all(due)

    def is_settled(self, number: int) -> bool:
        """Whether those wait, and no others, who must after a round."""
        return len(self.running.app.modern.parked) == self.waiting_after(number)

    async def come_too_late(self) -> None:
        """Everybody comes once more."""
        await self._all([call.come_too_late() for call in self.calls])

    def waiting_after(self, number: int) -> int:
        """How many must wait after a round."""
        return sum(
            call.expires_in > number and (call.answered_in is None or call.answered_in > number) for call in self.calls
        )

    async def _all(self, work: list[Any]) -> None:
        async def one(each: Any) -> None:
            async with self._gate:
                self.fates[await each] += 1

        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(one(each))


def left_at(running: Rig) -> dict[str, int]:
    """What the calls take up here and at the server."""
    pool, sessions = running.server.pool, running.upstream.sessions.values()
    return {
        "parked": len(running.app.modern.parked),
        "leases": sum(session.leases for session in pool.sessions),
        "slots": pool.sent + pool.queued + pool.waiting,
        "questions": sum(len(session.asks) for session in sessions),
        "calls": sum(len(session.calls) for session in sessions),
    }


@row(3)
@requirement("modern:parked:a-thousand")
async def test_a_thousand_calls_wait_at_once_and_each_answer_reaches_its_own(
    figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[int, Any] = {}
    """What the server was told, by the numbers of its questions."""

    async def ask_noting(call: ToolCall) -> dict[str, Any]:
        number = int(call.number("number"))
        heard[number] = {"action": "cancel"}  # a cancellation may overtake the answer that says the same
        result = await call.ask("elicitation/create", {"message": f"{number}?", "requestedSchema": {}})
        heard[number] = json.loads(result["content"][0]["text"])
        return result

    monkeypatch.setitem(TOOLS, "ask_noting", Tool(ask_noting, {"name": "ask_noting", "inputSchema": {}}))
    async with rig(clock=ManualClock(), clients=TRUSTING, ask_timeout=ASK_TIMEOUT) as running, asyncio.timeout(120):
        crowd = Crowd(running)
        for client in crowd.clients:
            await client.result(client.tool("count"))
        tasks = len(asyncio.all_tasks())
        for wave in range(WAVES):
            await crowd.begin(wave)
            if wave < WAVES - 1:
                await running.passing(STEP)
        assert left_at(running) == {"parked": CALLS, "leases": CALLS, "slots": 0, "questions": CALLS, "calls": CALLS}
        await running.passing(STEP / 2)
        for number in range(STEPS):
            await crowd.come_back(number)
            await running.until(partial(crowd.is_settled, number))
            await running.passing(STEP)
        await running.upstream.until(lambda: not any(left_at(running).values()))
        await crowd.come_too_late()
        await running.until(lambda: len(asyncio.all_tasks()) <= tasks)
    cancelled = {"action": "cancel"}
    assert heard == {call.number: cancelled if call.answered_in is None else call.answer for call in crowd.calls}
    expired = list(heard.values()).count(cancelled)
    answered = CALLS - expired
    stolen = sum(call.stolen_in is not None for call in crowd.calls)
    assert crowd.fates == {
        "answered": answered,
        "foreign states refused": stolen,
        "states refused afterwards": CALLS,
    }
    figure(
        f"1,000 parked calls at once: {answered} answered, 0 mixed up; {expired} expired and cancelled;"
        f" {stolen} foreign and {CALLS:,} late states refused; 0 left behind"
    )
