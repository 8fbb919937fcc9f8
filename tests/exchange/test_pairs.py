"""Every feature between every kind of client and every kind of server, as docs/eras.md says it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby
from typing import Any, Final

import pytest

from holdfast import events
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, Trust
from holdfast.gateway import Gateway
from holdfast.session.lifecycle import State
from holdfast.testing.clock import settle
from holdfast.testing.server import ScriptedServer, ServerOptions
from pair_clients import LIMIT, driver_of
from pair_driver import Driver, Place
from pairs import CELLS, SERVERS, Cell, Outcome, ServerKind
from requirements import requirement
from rig import check_that_all_ended, no_errors_logged, serving, streams_ended

PAGE: Final = 10
MAX_HANGING: Final = 4
"""Cells that may take their whole time before the others are given up."""
ALWAYS: Final = {"autumn", "modern"}
"""Servers that are always there: where there is one alone, `/mcp` is that one, and gives it no prefix."""

Seen = Outcome | Exception


class Everything:
    """A gateway in front of one server of each kind."""

    def __init__(self, gateway: Gateway, port: int, upstreams: Mapping[str, ScriptedServer]) -> None:
        self.gateway = gateway
        self.port = port
        self.upstreams = upstreams
        self._hanging = 0

    async def run(self, wanted: Iterable[Cell]) -> dict[Cell, Seen]:
        """What came of each cell; those of one client and server share the client, until one fails."""
        seen: dict[Cell, Seen] = {}
        for (client, server), group in groupby(wanted, lambda cell: (cell.client, cell.server)):
            left = list(group)
            place = Place(self.gateway, self.port, server, self.upstreams.get(server.name), client.is_merged)
            while left:
                cell = left.pop(0)
                try:
                    async with driver_of(client, place) as driver:
                        seen[cell] = await self._outcome(driver, cell)
                        while left:
                            cell = left.pop(0)
                            seen[cell] = await self._outcome(driver, cell)
                except Exception as error:  # noqa: BLE001 (told by the cell's own test)
                    seen[cell] = error
        return seen

    async def _outcome(self, driver: Driver, cell: Cell) -> Outcome:
        if self._hanging >= MAX_HANGING:
            raise RuntimeError("not tried: too many others hang")
        try:
            async with asyncio.timeout(LIMIT):
                return cell.judged(await driver.tries(cell.feature))
        except TimeoutError:
            self._hanging += 1
            raise

    async def check_that_nothing_is_left(self) -> None:
        app = self.gateway.app
        while len(app.sessions) or app.modern.parked or app.modern.listeners or any(self._busy()):
            await settle(1)
        assert app.sessions.budget.used == 0
        assert not self.gateway.servers.merged.is_watched

    def _busy(self) -> Iterator[object]:
        for server in self.gateway.servers:
            for session in server.pool.sessions:
                if session.leases or session.watchers or session.state in {State.OPENING, State.DRAINING}:
                    yield session


@asynccontextmanager
async def everything(names: Collection[str]) -> AsyncGenerator[Everything]:
    """A gateway in front of the servers of these names, all of which it has learnt from."""
    async with AsyncExitStack() as stack:
        stack.enter_context(no_errors_logged(restarts=True))
        upstreams: dict[str, ScriptedServer] = {}
        settings: list[ServerSettings] = []
        for kind in (kind for kind in SERVERS if kind.name in names):
            if kind.transport == "stdio":
                # A process for each chat would take most of the time.
                settings.append(ServerSettings(name=kind.name, command=command(kind), scope="user"))
                continue
            upstream = ScriptedServer(ServerOptions(**options(kind), sse=kind.transport == "HTTP+SSE"))
            upstreams[kind.name] = await stack.enter_async_context(upstream)
            stack.callback(check_that_all_ended, upstream)
            stack.push_async_callback(streams_ended, upstream)
            settings.append(ServerSettings(name=kind.name, url=upstream.url))
        learnt: set[str] = set()
        is_learnt = asyncio.Event()
        clients = (ClientSettings(name="local", trust=Trust(chat="x-chat")),)

        def heard(event: events.Event) -> None:
            if isinstance(event, events.ListsLearned):
                learnt.add(event.server)
                if len(learnt) == len(settings):
                    is_learnt.set()

        gateway = await stack.enter_async_context(
            Gateway(GatewaySettings(servers=tuple(settings), clients=clients), emit=heard)
        )
        port, _ = await stack.enter_async_context(serving(gateway))
        async with asyncio.timeout(LIMIT):
            await is_learnt.wait()
        running = Everything(gateway, port, upstreams)
        yield running
        async with asyncio.timeout(LIMIT):
            await running.check_that_nothing_is_left()


def options(kind: ServerKind) -> dict[str, Any]:
    """Those of the scripted server."""
    if kind.speaks_both:
        spoken = {"era": "both"}
    else:
        spoken = {"era": "modern"} if kind.is_modern else {"revision": kind.revision}
    return {"page_size": PAGE, **spoken}


def command(kind: ServerKind) -> tuple[str, ...]:
    """What starts the scripted server."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options(kind).items()]
    return sys.executable, "-m", "holdfast.testing.server", "--stdio", *flags


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Mapping[Cell, Seen]:
    """What came of all cells whose tests are to run, in one world."""
    ids = {item.name for item in request.session.items if isinstance(item, pytest.Function)}
    wanted = [cell for cell in CELLS if f"{test_a_feature_fares_as_the_table_says.__name__}[{cell}]" in ids]

    async def run() -> Mapping[Cell, Seen]:
        async with everything({cell.server.name for cell in wanted} | ALWAYS) as running:
            return await running.run(wanted)

    return asyncio.run(run())


@requirement("eras:pairs:as-the-table-says")
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_feature_fares_as_the_table_says(cell: Cell, outcomes: Mapping[Cell, Seen]) -> None:
    seen = outcomes[cell]
    if isinstance(seen, Exception):
        raise seen
    assert seen is cell.expected
