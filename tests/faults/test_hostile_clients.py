"""Ten thousand requests that no honest client sends: each is answered, and none disturbs the others."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any, Final

from bare_client import BareClient
from faults.hostile_requests import Kind, Shot, message, shot
from faults.raw_http import Answer, RawConnection, post, raw_connection
from faults.rig import Rig, answer_to, call, gateway_to, in_flight, text_of, together
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

SHOTS: Final = 10_000
GUNNERS: Final = 4
DUPLICATES: Final = 500
PATIENCE: Final = 120.0
"""Seconds within which one shot is answered."""


class Storm:
    """Shoots at the gateway and counts what comes back."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.numbers = itertools.count()
        self.statuses: Counter[int] = Counter()
        self.good = 0

    async def shoot(self, version: str) -> None:
        """Fire until all is fired, with a good call behind each 25th shot of ours, in a session of our own."""
        client = self.rig.client()
        await client.open(version)
        calls = 0
        for number in self.numbers:
            if number >= SHOTS:
                break
            rng = Random(number)
            fired = shot(rng, client.headers["mcp-session-id"])
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.fire(fired)
            except Exception as error:
                error.add_note(f"shot {number}: {fired}"[:3000])
                raise
            if number % (100 // GUNNERS) == 0:
                calls += 1
                await self.check(client, calls)

    async def fire(self, fired: Shot) -> None:
        async with raw_connection(self.rig.port) as connection:
            connection.write(fired.data)
            match fired.kind:
                case Kind.WHOLE:
                    await self.read_all(fired, connection)
                case Kind.BROKEN:
                    connection.end_writing()
                    for answer in await connection.until_closed():
                        self.note(answer)
                case Kind.LEFT:
                    pass

    async def read_all(self, fired: Shot, connection: RawConnection) -> None:
        answers = 0
        for _ in range(fired.requests):
            answer = await connection.answer(fired.method)
            answers += 1
            self.note(answer)
            if answer.status == 200 and fired.method == "POST":
                messages = answer.messages()
                assert messages
                if fired.content:
                    assert ids_of(m for m in messages if "method" not in m) == ids_of(requests_in(fired.content))
            elif answer.status == 202:
                assert not answer.body
            if answer.closes:
                break
        assert answers

    def note(self, answer: Answer) -> None:
        self.statuses[answer.status] += 1
        assert answer.status < 500, answer

    async def check(self, client: BareClient, calls: int) -> None:
        async with asyncio.timeout(PATIENCE):
            assert text_of(await call(client, "count")) == str(calls), "the server's session is another"
        self.good += 1


def requests_in(content: bytes) -> list[Any]:
    """The messages of a body that want an answer."""
    value: Any = json.loads(content)
    messages: list[Any] = value if content.lstrip().startswith(b"[") else [value]
    return [m for m in messages if "method" in m and "id" in m]


def ids_of(messages: Iterable[Any]) -> list[str]:
    """The ids of messages, in an order of their own; 1, 1.0 and "1" differ."""
    return sorted(json.dumps(message["id"]) for message in messages)


@row(23)
@requirement("faults:hostile:requests")
async def test_ten_thousand_malformed_requests_are_answered_and_disturb_nobody(figure: Figure) -> None:
    async with ScriptedServer() as server, gateway_to(server.url, within=170) as rig:
        storm = Storm(rig)
        await together(*(storm.shoot(version) for version in ("2025-11-25", "2025-03-26", "2025-06-18", "2024-11-05")))
        await rig.at_rest()
        assert storm.good == SHOTS // 25
    figure(f"{SHOTS:,} malformed requests: 0 crashes, 0 5xx, 0 unanswered; {storm.good} good calls between them")


@row(25)
@requirement("exchange:refusals:duplicates")
async def test_five_hundred_requests_with_a_running_id_are_refused_and_the_first_goes_on(figure: Figure) -> None:
    async with ScriptedServer() as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        async with in_flight(client) as first:
            running = client.next_id
            fields = [("mcp-session-id", client.headers["mcp-session-id"])]
            async with raw_connection(rig.port) as connection:
                for number in range(DUPLICATES):
                    made = {**message(Random(number)), "id": running, "method": "tools/call"}
                    connection.write(post(json.dumps(made).encode(), fields))
                    answer = await connection.answer()
                    assert answer.status == 409, (made, answer)
                    assert answer.messages()[0]["id"] == running
            other = await rig.opened()
            for caller in (other, rig.client()):  # their ids are their own
                assert text_of(await answer_to(caller, {**caller.tool("count"), "id": running})) == "1"
            server.open_gate("gate")
            assert "result" in await first.answer
        assert text_of(await answer_to(client, {**client.tool("count"), "id": running})) == "1"
    figure(f"{DUPLICATES} requests with a running id: {DUPLICATES} refused, the first answered")
