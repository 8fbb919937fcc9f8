"""A server that restarts forgets its sessions (threats, row 32): one answer per call, one opening per key."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final, Literal

import pytest

from bare_client import BareClient
from faults.odd_server import answering, odd_server
from faults.rig import answer_to, call, code_of, gateway_to, read, text_of, together
from holdfast import events
from holdfast.testing.server import ScriptedServer, ServerOptions
from requirements import requirement
from rows import Figure, row
from unit.scripted_http import plain

CLIENTS: Final = 10
RESTARTS: Final = 5
CALLS: Final = 20
"""Of each client between two restarts: 1,000 in all."""
STORM: Final = 500
BOTH: Final = pytest.mark.parametrize("status", [404, 400])

Status = Literal[400, 404]


async def restart(server: ScriptedServer) -> None:
    await server.stop()
    await server.start()


async def reached(server: ScriptedServer, calls: int) -> None:
    """Return once the server has taken that many calls."""
    await server.until(lambda: len(server.calls()) >= calls)


def executed_twice(server: ScriptedServer) -> list[object]:
    """The canaries of the calls that the server ran more than once."""
    seen = Counter(entry.canary for entry in server.calls() if entry.canary is not None)
    return [canary for canary, times in seen.items() if times > 1]


@row(32)
@requirement("faults:loss:one-answer-per-call")
@BOTH
async def test_a_thousand_calls_over_restarts_get_one_answer_each(status: Status, figure: Figure) -> None:
    async with ScriptedServer(ServerOptions(unknown_session=status)) as server:
        async with gateway_to(server.url) as rig:
            clients = [await rig.opened() for _ in range(CLIENTS)]
            codes: Counter[int | None] = Counter()
            for number in range(RESTARTS):
                before = server.initializes

                async def calling(chat: int, client: BareClient, part: int = number) -> None:
                    for n in range(CALLS):
                        codes[code_of(await call(client, "count", canary=f"{part}/{chat}/{n}"))] += 1

                await together(*(calling(chat, client) for chat, client in enumerate(clients)))
                assert server.initializes - before <= CLIENTS + (number == 0)
                await restart(server)
            assert sum(codes.values()) == CLIENTS * RESTARTS * CALLS
            assert codes[-31006] == CLIENTS * (RESTARTS - 1), "each key once per restart"
            assert set(codes) == {None, -31006}
        assert executed_twice(server) == []
        assert len(server.calls("count")) == codes[None]
        figure(
            f"{sum(codes.values()):,} calls over {RESTARTS - 1} restarts ({status}): one answer each,"
            f" {codes[-31006]} told of the loss, {server.initializes} initializes for {CLIENTS} keys"
        )


@BOTH
async def test_calls_under_way_when_the_server_restarts_are_answered_once(status: Status) -> None:
    async with ScriptedServer(ServerOptions(unknown_session=status)) as server:
        async with gateway_to(server.url) as rig:
            clients = [await rig.opened() for _ in range(CLIENTS)]
            codes: Counter[int | None] = Counter()
            sentences: set[str] = set()

            async def calling(chat: int, client: BareClient) -> None:
                for n in range(CALLS * RESTARTS):
                    answer = await call(client, "count", canary=f"{chat}/{n}")
                    codes[code_of(answer)] += 1
                    if "error" in answer:
                        sentences.add(answer["error"]["message"])

            async def restarting() -> None:
                for number in range(1, RESTARTS + 1):
                    await reached(server, number * CLIENTS * CALLS // 2)
                    await restart(server)

            await together(restarting(), *(calling(chat, client) for chat, client in enumerate(clients)))
            assert sum(codes.values()) == CLIENTS * RESTARTS * CALLS
            assert set(codes) <= {None, -31006, -31002, -31001}, sentences
            assert codes[-31006] + codes[-31002] + codes[-31001] <= 2 * CLIENTS * RESTARTS
        assert executed_twice(server) == []


@row(32, 37)
@requirement("faults:loss:one-opening-per-key")
@BOTH
async def test_a_storm_of_refused_calls_opens_one_session(status: Status, figure: Figure) -> None:
    async with ScriptedServer(ServerOptions(unknown_session=status)) as server:
        async with gateway_to(server.url, max_queue=STORM) as rig:
            client = await rig.opened()
            assert "result" in await read(client)
            await rig.at_rest()
            before = server.initializes
            server.core.forget_all()
            answers: list[dict[str, Any]] = []

            async def reading(body: dict[str, Any]) -> None:
                answers.append(await answer_to(client, body))

            bodies = [client.tool("count", canary=number) for number in range(STORM)]
            await together(*(reading(body) for body in bodies))
            assert Counter(code_of(answer) for answer in answers) == {None: STORM}
            assert sorted(int(text_of(answer)) for answer in answers) == list(range(1, STORM + 1))
            assert server.initializes == before + 1
            assert rig.count(events.SessionLost) == 1
            figure(f"{STORM} calls refused at once ({status}): {server.initializes - before} initialize, 0 lost")
        assert executed_twice(server) == []


async def test_a_storm_in_a_session_with_memory_executes_none_of_what_was_refused() -> None:
    async with ScriptedServer() as server, gateway_to(server.url, max_queue=STORM) as rig:
        client = await rig.opened()
        assert text_of(await call(client, "count")) == "1"
        server.core.forget_all()
        codes: Counter[int | None] = Counter()

        async def calling(body: dict[str, Any]) -> None:
            codes[code_of(await answer_to(client, body))] += 1

        await together(*(calling(client.tool("count", canary=n)) for n in range(STORM)))
        assert set(codes) <= {None, -31006}
        assert 1 <= codes[-31006] <= 64, "at most those that the server refused"
        assert server.initializes <= 3
        assert len(server.calls("count")) == 1 + codes[None]
        assert executed_twice(server) == []


async def test_a_call_that_two_sessions_in_a_row_refuse_is_told_that_it_was_not_executed() -> None:
    async with ScriptedServer(ServerOptions(get=False)) as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert "result" in await read(client)
        async with asyncio.TaskGroup() as group:
            server.core.forget_all()
            calling = group.create_task(call(client, "count"))
            for number in (1, 2):
                await rig.saw(events.SessionReady, number)
                server.core.forget_all()
        answer = calling.result()
        assert code_of(answer) in {-31001, -31006}
        assert answer["error"]["data"]["holdfast"]["retryable"] is True
        assert server.calls("count") == []
        assert text_of(await call(client, "count")) == "1"


@requirement("faults:loss:a-refusal-is-a-suspicion")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<html>no</html>", -31004),
        (b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32602,"message":"no such tool"}}', -32602),
    ],
    ids=["html", "json-rpc"],
)
@pytest.mark.parametrize("status", ["404 Not Found", "400 Bad Request"])
async def test_a_refusal_that_is_no_loss_keeps_the_session(status: str, body: bytes, code: int) -> None:
    async with odd_server(answering(plain(body, status))) as server, gateway_to(server.url) as rig:
        client = await rig.opened()
        assert text_of(await call(client, "count")) == "1"
        for number in range(1, 6):
            answer = await call(client, "odd")
            assert code_of(answer) == code
            assert answer["error"]["message"]
            assert len(server.methods("ping")) == number
        assert text_of(await call(client, "count")) == "2", "what it remembers is still there"
        assert rig.count(events.SessionLost) == 0
        assert len(server.methods("initialize")) <= 2
