"""Clients that leave while their calls run: what that means to the server, for every pair of eras."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final, Literal

import pytest

from holdfast.downstream.http import WATCH_AFTER
from holdfast.testing.clock import ManualClock
from modern_client import ModernClient, mirrored
from requirements import requirement
from rig import Client, Rig, next_message, rig, text_of
from rows import Figure, row

DEPARTURES: Final = 250
AT_ONCE: Final = 50
PEOPLE: Final = 10

Kind = Literal["modern", "session", "bare"]
CANCELS: Final[dict[Kind, bool]] = {"modern": True, "session": False, "bare": True}
"""Whether leaving says that the answer is not wanted: with a session of their own, clients can come back for it."""


class Departure:
    """A call whose client leaves."""

    def __init__(self, client: Client, body: dict[str, Any], headers: dict[str, str | None], *, reads: bool) -> None:
        self.client = client
        self.body = body
        self.event_id: str | None = None
        """Of the last event that came."""
        self.is_ready = asyncio.Event()
        """It has read what it wanted to."""
        self._headers = headers
        self._reads = reads

    @property
    def number(self) -> int:
        number: int = self.body["params"]["arguments"]["canary"]
        return number

    async def run(self) -> None:
        """Call, and wait until it is cancelled."""
        if not self._reads:
            self.is_ready.set()
        async with self.client.request("POST", self.body, "/mcp", **self._headers) as response:
            while self._reads and not self.is_ready.is_set():
                event = await response.event()
                assert event is not None, "the stream ended"
                self.event_id = event.id
                if event.data:
                    self.is_ready.set()
            await asyncio.Event().wait()

    async def fetch_answer(self) -> str:
        """Come back for the answer: its text."""
        async with self.client.stream(last_event_id=self.event_id) as stream:
            while (message := await next_message(stream)).get("id") != self.body["id"]:
                pass
            return text_of(message)


class Crowd:
    """People of one kind, who call and do not wait for the answer."""

    def __init__(self, running: Rig, kind: Kind) -> None:
        self.running = running
        self.kind: Kind = kind
        self._rng = Random(40)
        self._sessions: list[Client] = []

    async def gather(self) -> None:
        """Open sessions, where they have any."""
        if self.kind == "session":
            self._sessions = [await self.running.connected() for _ in range(PEOPLE)]

    def departure(self, number: int) -> Departure:
        """The next call. Every other client reads something of the answer before it leaves."""
        reads = self._rng.random() < 0.5
        name, own = ("progress", {"steps": 2}) if reads else ("slow", {})
        arguments = {"gate": str(number // AT_ONCE), "canary": number, **own}
        meta = {"progressToken": number}
        if self.kind == "modern":
            caller = ModernClient(self.running, chat=f"c{number % PEOPLE}")
            body = caller.tool(name, meta, **arguments)
            return Departure(caller.http, body, mirrored(body), reads=reads)
        client = self._sessions[number % PEOPLE] if self._sessions else self.running.client()
        body = client.tool(name, **arguments)
        body["params"]["_meta"] = meta
        return Departure(client, body, {"accept": "text/event-stream"}, reads=reads)

    async def leave(self, batch: int) -> list[Departure]:
        """Have calls under way at the server, and leave them, in every other batch before anybody looks who does."""
        leaving = [self.departure(number) for number in range(batch * AT_ONCE, (batch + 1) * AT_ONCE)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(departure.run()) for departure in leaving]
            await self.running.upstream.entered(str(batch), AT_ONCE)
            for departure in leaving:
                await departure.is_ready.wait()
            if batch % 2:
                await self.running.passing(2 * WATCH_AFTER)
            for task in tasks:
                task.cancel()
        await self.running.passing(2 * WATCH_AFTER)
        await self.running.until(lambda: not self.running.app.open_requests)
        return leaving

    async def check(self, batch: int, left: list[Departure]) -> None:
        """See what became of the calls that were left."""
        entries = self.running.upstream.calls()[-AT_ONCE:]
        assert sorted(str(entry.canary) for entry in entries) == sorted(str(departure.number) for departure in left)
        expected = "cancelled" if CANCELS[self.kind] else "executed"
        if not CANCELS[self.kind]:
            assert {entry.outcome for entry in entries} == {"running"}
            self.running.upstream.open_gate(str(batch))
        await self.running.upstream.until(lambda: {entry.outcome for entry in entries} == {expected})
        if not CANCELS[self.kind]:
            await self.running.until_idle()
            for departure in left:
                if departure.event_id is not None:
                    assert await departure.fetch_answer() == "done"


@row(40)
@requirement("exchange:leaving:every-pair-of-eras")
@pytest.mark.parametrize("era", ["handshake", "modern"])
@pytest.mark.parametrize("kind", CANCELS)
async def test_who_leaves_cancels_unless_it_can_come_back_for_the_answer(kind: Kind, era: str, figure: Figure) -> None:
    async with rig(clock=ManualClock(), options={"era": era}) as running:
        crowd = Crowd(running, kind)
        await crowd.gather()
        fetched = 0
        for batch in range(DEPARTURES // AT_ONCE):
            left = await crowd.leave(batch)
            await crowd.check(batch, left)
            fetched += sum(departure.event_id is not None for departure in left)
        await running.until_idle()
        calls = running.upstream.calls()
        assert len(calls) == DEPARTURES
        told = sum(entry.method == "notifications/cancelled" for entry in running.upstream.ledger)
        assert told == (DEPARTURES if CANCELS[kind] and era == "handshake" else 0)
    fate = "cancelled" if CANCELS[kind] else f"executed, and the answers fetched of {fetched} who could name an event"
    figure(f"{kind} clients, {era} server: {DEPARTURES} left, {DEPARTURES} {fate}")
