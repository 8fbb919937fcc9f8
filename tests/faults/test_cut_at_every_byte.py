"""An answer that breaks off after any of its bytes: one answer for the caller, never two executions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

import pytest

from bare_client import BareClient
from faults.rig import NoJitter, Rig, answer_to, call, code_of, gateway_to, read, rest_of, text_of
from holdfast.testing.proxy import Direction, FaultProxy
from holdfast.testing.server import ScriptedServer, ServerOptions
from requirements import requirement

STEP: Final = 1
"""Bytes from one cut to the next."""
EARNED: Final = 10
"""Calls that pay for one repetition: a tenth of all calls may be repetitions."""

KINDS: Final = pytest.mark.parametrize("json", [True, False], ids=["json", "sse"])
ENDS: Final = pytest.mark.parametrize("reset", [True, False], ids=["reset", "half-close"])


class Cuts:
    """A server, a proxy that cuts, a gateway, and one session through all of them."""

    def __init__(self, server: ScriptedServer, proxy: FaultProxy, rig: Rig, client: BareClient) -> None:
        self.server = server
        self.proxy = proxy
        self.rig = rig
        self.client = client

    async def length_of(self, body: dict[str, Any]) -> int:
        """How many bytes the whole answer of the server has."""
        before = self.proxy.passed(Direction.TO_CLIENT)
        await answer_to(self.client, body)
        await self.rig.at_rest()
        return self.proxy.passed(Direction.TO_CLIENT) - before

    async def cut(self, count: int, body: dict[str, Any], *, reset: bool) -> dict[str, Any]:
        """Send a request whose answer breaks off after `count` bytes."""
        self.proxy.cut_after(Direction.TO_CLIENT, count, reset=reset)
        async with asyncio.timeout(60):
            async with self.client.request("POST", body) as response:
                assert response.status == 200
                answer, _ = await rest_of(response, body["id"])
                return answer


@requirement("faults:cut:at-every-byte")
@KINDS
@ENDS
async def test_an_unsafe_call_is_never_sent_again(json: bool, reset: bool) -> None:
    async with (
        ScriptedServer(ServerOptions(json=json, get=False)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp", rng=NoJitter()) as rig,
    ):
        cuts = Cuts(server, proxy, rig, await rig.opened())
        assert text_of(await call(cuts.client, "count")) == "1"
        length = await cuts.length_of(cuts.client.tool("count", canary="whole"))
        codes: Counter[int | None] = Counter()
        for count in range(1, length, STEP):
            answer = await cuts.cut(count, cuts.client.tool("count", canary=count), reset=reset)
            codes[code_of(answer)] += 1
            await call(cuts.client, "count", canary="between")  # five failures in a row would open the circuit
            if count < length - 60:
                assert code_of(answer) == -31002, count
                assert answer["error"]["data"]["holdfast"] == {
                    "delivery": "unknown",
                    "retryable": False,
                    "upstream": "upstream",
                }
        assert set(codes) <= {None, -31002}
        assert sum(codes.values()) == len(range(1, length, STEP))
        seen = Counter(entry.canary for entry in server.calls("count") if isinstance(entry.canary, int))
        assert seen == dict.fromkeys(range(1, length, STEP), 1)
        assert server.initializes <= 2


@KINDS
@ENDS
async def test_a_read_is_sent_again_once_and_answered(json: bool, reset: bool) -> None:
    async with (
        ScriptedServer(ServerOptions(json=json, get=False)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp", rng=NoJitter()) as rig,
    ):
        cuts = Cuts(server, proxy, rig, await rig.opened())
        assert "result" in await read(cuts.client)
        length = await cuts.length_of(cuts.client.call("resources/read", uri="memo://note"))
        for count in range(1, length, STEP):
            for _ in range(EARNED):
                await call(cuts.client, "echo")
            before = len(server.ledger)
            answer = await cuts.cut(count, cuts.client.call("resources/read", uri="memo://note"), reset=reset)
            assert "result" in answer, count
            assert [entry.method for entry in server.ledger[before:]] in (["resources/read"] * 2, ["resources/read"])


@KINDS
async def test_a_request_that_breaks_off_on_its_way_is_executed_at_most_once(json: bool) -> None:
    async with (
        ScriptedServer(ServerOptions(json=json, get=False)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp", rng=NoJitter()) as rig,
    ):
        client = await rig.opened()
        await call(client, "count")
        before = proxy.passed(Direction.TO_SERVER)
        await call(client, "count", canary=1000)
        length = proxy.passed(Direction.TO_SERVER) - before
        for count in range(0, length - 1, STEP):
            proxy.cut_after(Direction.TO_SERVER, count)
            assert code_of(await call(client, "count", canary=count)) == -31002
            await call(client, "count", canary=f"after {count}")  # five failures in a row would open the circuit
        assert max(Counter(entry.canary for entry in server.calls("count")).values()) == 1
        assert text_of(await call(client, "count")) == str(len(server.calls("count")))
