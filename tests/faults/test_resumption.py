"""Streams of the server that end before their answer, and are resumed: nothing lost, nothing doubled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from bare_client import BareClient
from faults.rig import Rig, call, code_of, gateway_to, in_flight, rest_of, text_of, together, until
from holdfast.testing.proxy import Direction, FaultProxy
from holdfast.testing.server import ScriptedServer, ServerOptions
from requirements import requirement

STEPS: Final = 6
CUTS: Final = 40
"""Places at which the answer is cut, spread over it; each resumption waits for 0.1 s."""
CALLERS: Final = 30
CHAT: Final = "/mcp/upstream/chats/c"


@asynccontextmanager
async def through_a_proxy() -> AsyncGenerator[tuple[ScriptedServer, FaultProxy, Rig]]:
    async with (
        ScriptedServer(ServerOptions(prime=True, get=True)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp") as rig,
    ):
        yield server, proxy, rig


def reporting(client: BareClient, tool: str, **arguments: Any) -> dict[str, Any]:
    body = client.tool(tool, **arguments)
    body["params"]["_meta"] = {"progressToken": "t"}
    return body


def steps(messages: list[Any]) -> list[int]:
    return [m["params"]["progress"] for m in messages if m.get("method") == "notifications/progress"]


def resumptions(server: ScriptedServer) -> list[str]:
    return [headers["last-event-id"] for headers in server.received_headers if "last-event-id" in headers]


async def test_a_stream_that_the_server_closes_is_resumed_for_its_answer() -> None:
    async with through_a_proxy() as (server, _, rig):
        client = rig.client()
        body = reporting(client, "slow", hang_up=True, steps=STEPS, canary="once")
        async with client.request("POST", body, CHAT) as response:
            answer, before = await rest_of(response, body["id"])
        assert text_of(answer) == "done"
        assert steps(before) == list(range(1, STEPS + 1))
        assert resumptions(server)
        assert len(server.calls("slow")) == 1
        assert text_of(await call(client, "count", CHAT)) == "1"


async def test_a_client_that_can_resume_is_sent_away_as_well_and_misses_nothing() -> None:
    async with through_a_proxy() as (server, _, rig):
        client = await rig.opened()
        for number in range(10):
            messages = await resuming(client, reporting(client, "slow", hang_up=True, steps=STEPS, canary=number))
            assert steps(messages) == list(range(1, STEPS + 1))
            assert text_of(messages[-1]) == "done"
        assert len(server.calls("slow")) == 10


async def resuming(client: BareClient, body: dict[str, Any]) -> list[Any]:
    """All that comes for a request, over as many streams as it takes."""
    messages: list[Any] = []
    last_id: str | None = None
    method, sent = "POST", body
    while not any("id" in message and "method" not in message for message in messages):
        async with client.request(
            method, sent if method == "POST" else None, "/mcp", last_event_id=last_id
        ) as response:
            assert response.status == 200
            if response.headers["content-type"] == "application/json":
                messages.append(await response.json())
                continue
            while (event := await response.event()) is not None:
                last_id = event.id or last_id
                if event.data:
                    messages.append(json.loads(event.data))
            assert last_id is not None
            method = "GET"
    assert [m["id"] for m in messages if "method" not in m] == [body["id"]]
    return messages


@requirement("faults:resume:nothing-lost-nothing-doubled")
async def test_a_stream_that_is_cut_anywhere_loses_and_doubles_nothing() -> None:
    async with through_a_proxy() as (server, proxy, rig):
        client = rig.client()
        assert text_of(await call(client, "count", CHAT)) == "1"
        await server.pushing()
        await rig.at_rest()
        before = proxy.passed(Direction.TO_CLIENT)
        body = reporting(client, "progress", steps=STEPS)
        async with client.request("POST", body, CHAT) as response:
            await rest_of(response, body["id"])
        length = proxy.passed(Direction.TO_CLIENT) - before
        codes: Counter[int | None] = Counter()
        cuts = range(1, length, max(1, length // CUTS))
        for count in cuts:
            proxy.cut_after(Direction.TO_CLIENT, count, reset=count % 2 == 0)
            body = reporting(client, "progress", steps=STEPS, canary=count)
            async with client.request("POST", body, CHAT) as response:
                answer, messages = await rest_of(response, body["id"])
            codes[code_of(answer)] += 1
            if code_of(answer) is None:
                assert steps(messages) == list(range(1, STEPS + 1)), count
            else:
                assert code_of(answer) == -31002
                assert count < 250, ("once there is an event id, the stream can be resumed", answer)
                await call(client, "count", CHAT)  # five failures in a row would open the circuit
        assert codes[None] > len(cuts) // 2
        seen = Counter(entry.canary for entry in server.calls("progress") if entry.canary is not None)
        assert seen == dict.fromkeys(cuts, 1)
        assert resumptions(server)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "fin"])
async def test_streams_that_are_cut_together_are_all_resumed(reset: bool) -> None:
    async with through_a_proxy() as (server, proxy, rig):
        await call(rig.client(), "count", CHAT)

        async def caller(number: int) -> None:
            client = rig.client()
            path = f"{CHAT}{number % 5}"
            async with in_flight(client, path, canary=number) as running:
                entered.append(number)
                assert text_of(await running.answer) == "done"

        async def cutting() -> None:
            await server.entered("gate", CALLERS)
            await until(lambda: len(entered) == CALLERS)
            proxy.drop_all(reset=reset)
            server.open_gate("gate")

        entered: list[int] = []
        await together(cutting(), *(caller(number) for number in range(CALLERS)))
        assert Counter(entry.canary for entry in server.calls("progress")) == dict.fromkeys(range(CALLERS), 1)


async def test_a_stream_whose_session_is_forgotten_meanwhile_ends_with_one_answer() -> None:
    async with through_a_proxy() as (server, proxy, rig):
        client = rig.client()
        for number in range(5):
            async with in_flight(client, CHAT, canary=number) as running:
                server.core.forget_all()
                proxy.drop_all()
                assert code_of(await running.answer) == -31002
            answer = await call(client, "count", CHAT)
            assert code_of(answer) in {None, -31006}, "told already, if the loss was seen by then"
            if code_of(answer) is not None:
                answer = await call(client, "count", CHAT)
            assert text_of(answer) == "1"
        assert max(Counter(entry.canary for entry in server.calls("progress")).values()) == 1
