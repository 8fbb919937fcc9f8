"""A whole gateway in the test's own event loop, in front of several scripted servers.

Leaving checks that nothing was left behind, as `rig` does, and nothing at `/mcp` either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast import events
from holdfast.clock import Clock
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.gateway import Gateway
from holdfast.servers.merged import Merged
from holdfast.session.lifecycle import State
from holdfast.testing.clock import ManualClock
from holdfast.testing.server import ScriptedServer, ServerOptions
from holdfast.testing.server_core import Changes
from rig import Client, Rig, check_that_all_ended, no_errors_logged, serving, streams_ended, time_to_end

LOCAL: Final = (ClientSettings(name="local"),)


@dataclass(frozen=True)
class Behind:
    """One of the servers; `settings` are fields of `ServerSettings`, `options` of `ServerOptions`."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    clock: Clock | None = None
    is_up: bool = True
    """Whether it listens from the beginning."""


def behind(name: str, *, clock: Clock | None = None, is_up: bool = True, delay: float = 0.0, **settings: Any) -> Behind:
    """A server that answers `initialize` after `delay` seconds of its clock."""
    return Behind(name, settings, {"open_delay": delay}, clock, is_up)


class Several(Rig):
    """The parts of a running gateway with several servers."""

    def __init__(
        self,
        gateway: Gateway,
        port: int,
        connections: Collection[object],
        clock: ManualClock | None,
        *,
        upstreams: Mapping[str, ScriptedServer],
        told: Told,
    ) -> None:
        super().__init__(gateway, port, connections, None, clock)
        self.upstreams = upstreams
        self.told = told

    @property
    def merged(self) -> Merged:
        return self.gateway.servers.merged

    def executed(self, tool: str | None = None) -> dict[str, int]:
        """How many tool calls each server's ledger has."""
        return {name: len(upstream.calls(tool)) for name, upstream in self.upstreams.items()}

    async def until_idle(self) -> None:
        busy = {State.OPENING, State.DRAINING, State.LOST, State.CLOSED}  # those that are still closing too
        await self.until(
            lambda: (
                not any(s.leases or s.state in busy for server in self.gateway.servers for s in server.pool.sessions)
            )
        )

    async def check_that_nothing_is_left(self) -> None:
        for session in self.app.sessions:
            self.app.sessions.end(session)
            assert (session.calls, session.questions, session.streams, session.requests) == ({}, 0, {}, 0)
        assert len(self.app.sessions) == 0
        assert self.app.sessions.budget.used == 0
        assert not self.merged.is_watched
        await self.until_idle()
        assert (len(self.app.modern.parked), len(self.app.modern.listeners)) == (0, 0)
        for server in self.gateway.servers:
            for upstream in server.pool.sessions:
                assert (upstream.leases, upstream.watchers) == (0, [])


class Told:
    """What the gateway said has happened."""

    def __init__(self) -> None:
        self.seen: list[events.Event] = []
        self._changes = Changes()

    def take(self, event: events.Event) -> None:
        self.seen.append(event)
        self._changes.touch()

    async def learnt(self, *names: str) -> None:
        """Return once the lists of these servers are known."""
        await self._changes.until(lambda: set(names) <= {e.server for e in self.seen if type(e) is events.ListsLearned})

    async def failed(self, name: str) -> None:
        """Return once a session with this server could not be opened."""
        await self._changes.until(lambda: any(type(e) is events.SessionFailed and e.server == name for e in self.seen))


@asynccontextmanager
async def several(
    *servers: str | Behind,
    clock: ManualClock | None = None,
    clients: tuple[ClientSettings, ...] = LOCAL,
    is_learnt: bool = True,
    **gateway: Any,
) -> AsyncGenerator[Several]:
    """A gateway in front of these servers, which have been learnt from already where they are up and eager."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(120))
        stack.enter_context(no_errors_logged(restarts=True))
        stack.enter_context(time_to_end())
        upstreams: dict[str, ScriptedServer] = {}
        settings: list[ServerSettings] = []
        chosen = [Behind(each) if isinstance(each, str) else each for each in servers]
        for each in chosen:
            upstream = ScriptedServer(ServerOptions(**each.options), clock=each.clock)
            await stack.enter_async_context(upstream)
            upstreams[each.name] = upstream
            stack.callback(check_that_all_ended, upstream)
            stack.push_async_callback(streams_ended, upstream)
            settings.append(ServerSettings(name=each.name, url=upstream.url, **each.settings))
            if not each.is_up:
                await upstream.stop()
        told = Told()
        whole = await stack.enter_async_context(
            Gateway(GatewaySettings(servers=tuple(settings), clients=clients, **gateway), emit=told.take, clock=clock)
        )
        port, connections = await stack.enter_async_context(serving(whole))
        running = Several(whole, port, connections, clock, upstreams=upstreams, told=told)
        if is_learnt:
            quick = [each for each in chosen if each.is_up and not each.options.get("open_delay")]
            eager = {s.name for s in settings if s.is_learned_at_start}
            await told.learnt(*(each.name for each in quick if each.name in eager))
        try:
            yield running
        finally:
            running.close_clients()
        await running.check_that_nothing_is_left()
    if clock is not None:
        assert clock.pending == 0


def names(answer: Any, kind: str = "tools") -> list[str]:
    """The names, or URIs, of a list."""
    keys = {"resources": "uri", "resourceTemplates": "uriTemplate"}
    return [each[keys.get(kind, "name")] for each in answer["result"][kind]]


async def listed(client: Client, path: str = "/mcp") -> list[str]:
    """The names of the tools that a client sees."""
    return names(await client.ask(client.call("tools/list"), path))
