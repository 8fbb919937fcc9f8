"""Idle connections that die as they are used again (threats, row 31): no call of theirs runs twice."""

# pyright: reportPrivateUsage=false
# The moment between the choice of a connection and its first byte is nowhere else.

from __future__ import annotations

import contextlib
import select
import socket
from collections import Counter
from typing import Any, Final

import pytest

from faults.rig import answer_to, code_of, gateway_to
from holdfast.testing.clock import settle
from holdfast.testing.proxy import FaultProxy
from holdfast.testing.server import ScriptedServer, ServerOptions
from holdfast.upstream import http1
from requirements import requirement
from rows import Figure, row

DEATHS: Final = 1_000


class Ambush:
    """Ends the server's side of every connection in the instant in which the gateway takes one of them."""

    def __init__(self, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_set = False
        self.struck = 0
        self._proxy = proxy
        reuse = http1.HttpClient._reuse

        def ambushed(client: http1.HttpClient, exchange: Any) -> bool:
            if self.is_set and client._idle:
                self.is_set = False
                self._strike()
                if http1.PROBE_AFTER == 0.0:
                    arrived([connection._fd for connection in client._idle])
            return reuse(client, exchange)

        monkeypatch.setattr(http1.HttpClient, "_reuse", ambushed)

    def _strike(self) -> None:
        self.struck += 1
        for connection in self._proxy.connections:
            with contextlib.suppress(OSError):
                connection.client.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def arrived(descriptors: list[int]) -> None:
    """Return once the end of each connection is there to be seen: the kernel of a busy machine takes a moment."""
    for descriptor in descriptors:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert poller.poll(60_000)


@row(31)
@requirement("faults:death:never-twice")
async def test_a_thousand_kept_connections_that_die_at_reuse_execute_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    async with (
        ScriptedServer(ServerOptions(get=False)) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
        gateway_to(f"http://127.0.0.1:{proxy.port}/mcp", within=240) as rig,
    ):
        client = await rig.opened()
        ambush = Ambush(proxy, monkeypatch)
        outcomes: dict[int, int | None] = {}
        for number in range(DEATHS):
            # What was idle for long is asked for its end first; what was not has seen it, or is written to.
            monkeypatch.setattr(http1, "PROBE_AFTER", 0.0 if number % 4 == 0 else 3600.0)
            if number % 4 == 1:
                proxy.drop_all(reset=number % 8 == 1)
                await settle(number // 8 % 4)
            else:
                ambush.is_set = True
            outcomes[number] = code_of(await answer_to(client, client.tool("count", canary=number)))
            ambush.is_set = False
        codes = Counter(outcomes.values())
        executed = Counter(entry.canary for entry in server.calls("count"))
        assert set(codes) == {None, -31002}
        assert max(executed.values()) == 1
        assert all(number in executed for number, code in outcomes.items() if code is None)
        assert all(outcomes[number] is None for number in range(0, DEATHS, 4)), "whose end was seen in time"
        assert server.initializes == 1, "the client's session with the server lives on"
        struck = f"{ambush.struck} of them between choice and first byte"
        figure(f"{DEATHS:,} idle connections killed, {struck}: 0 executed twice, {codes[-31002]} of unknown outcome")
