"""The composition root: joins the rooms, and owns every task and connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from holdfast import events
from holdfast.clock import Clock, LoopClock
from holdfast.config import GatewaySettings, ServerSettings, describe
from holdfast.config.change import Change
from holdfast.dashboard.api import Api
from holdfast.downstream.app import App
from holdfast.errors import OpenFailed
from holdfast.observe.feed import KINDS, PASSING, Taker, fan_out
from holdfast.operations import Operations
from holdfast.servers.directory import Directory
from holdfast.servers.handles import Handles
from holdfast.servers.merged import Merged
from holdfast.servers.server import Server
from holdfast.session.quota import Quota
from holdfast.session.roster import Connect
from holdfast.tasks import TaskScope
from holdfast.upstream.connector import Connector
from holdfast.upstream.watchdog import Watchdog

DRAIN_TIMEOUT: Final = 2.5
"""Seconds for all sessions to end when the gateway ends."""
_BOUND_AT_START: Final = ("host", "port")


def _ignore(_: events.Event) -> None: ...


class Gateway:
    """Everything between clients and servers. Used as an async context manager; `app` serves inside it.

    Leaving ends client streams, closes every session in order, bounded by `DRAIN_TIMEOUT`, and
    leaves no child process.
    """

    app: App
    servers: Directory
    operations: Operations

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        emit: events.Emit = _ignore,
        emit_passing: events.Emit | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`emit` is told what happens; of the events of each call, `emit_passing` instead, if that is given."""
        self.settings = settings
        self._shown_to = (Taker(emit, KINDS - PASSING), Taker(emit_passing or emit, PASSING))
        self._given_clock = clock
        self._rng = rng if rng is not None else random.Random()
        self._stack = AsyncExitStack()
        self.leaving: dict[Server, None] = {}
        """Servers that are not served any more, while their last calls end."""
        self._learning: dict[Server, asyncio.Task[None]] = {}
        """The servers whose lists are not known yet."""

    async def __aenter__(self) -> Self:
        settings = self.settings
        clock = self._clock = self._given_clock if self._given_clock is not None else LoopClock()
        self._scope = await self._stack.enter_async_context(TaskScope())
        self._watchdog = Watchdog(clock)
        self._quota = Quota(settings.limits)
        self._handles = Handles(clock, settings.limits)
        merged = Merged(settings.separator, clock)
        self.servers = Directory(merged)
        self.operations = Operations(self.servers, lambda: len(self.app.sessions), lambda: self.app.drops.counted)
        self._emit = fan_out(*self._shown_to, *self.operations.takers, Taker(merged.take, merged.TAKEN))
        self._api = Api(self.operations, settings, clock)
        self.app = App(settings, self.servers, pages=self._api, scope=self._scope, clock=clock, emit=self._emit)
        servers = {each.name: self._serve(each) for each in settings.servers}
        self.servers.replace(servers, settings.separator, settings.merged)
        self.operations.awaited = tuple(each for each in self.servers if each.settings.is_learned_at_start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.operations.is_draining = True
        servers = [*self.servers, *self.leaving]
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                async with asyncio.TaskGroup() as group:
                    for server in servers:
                        group.create_task(server.pool.aclose())
        except TimeoutError:
            pass  # what is left is dropped below
        self.app.close()
        for server in servers:
            server.terminate()
        await self._stack.aclose()
        await self._watchdog.aclose()

    def drain(self) -> None:
        """End the streams on which clients only listen, so that the HTTP server can stop."""
        self.operations.is_draining = True
        self._api.drain()
        self.app.send_away()

    def terminate(self) -> None:
        """Drop every session at once."""
        for server in (*self.servers, *self.leaving):
            server.pool.terminate()

    def close_sessions(self) -> None:
        """Begin to end every session; calls under way are answered with an error."""
        for server in (*self.servers, *self.leaving):
            self._scope.start(server.pool.aclose(), f"close {server.name}")

    def tell(self, event: events.Event) -> None:
        """Tell whoever is told what happens."""
        self._emit(event)

    # Reload.

    def reload(self, settings: GatewaySettings, notes: Sequence[str] = ()) -> None:
        """Go by new settings from now on, all at once; what does not differ keeps its sessions.

        A server that is gone, or that another one replaces, takes no more calls and ends when those
        under way have. `notes` are for the operator, and told with what has changed. Ignored once the
        gateway is about to end.
        """
        if self.operations.is_draining:
            return
        before = self.settings
        bound = {name: getattr(before, name) for name in _BOUND_AT_START}
        if any(getattr(settings, name) != value for name, value in bound.items()):
            notes = (*notes, "another listen takes effect at the next start; the rest is in force")
        try:  # what is safe at the new address may not be at this one
            settings = GatewaySettings(**{**dict(settings), **bound})
        except ValidationError as error:
            where = f"listen: the gateway stays at {before.host} port {before.port} until the next start"
            self._emit(events.SettingsRefused(f"{where}: {describe(error)}"))
            return
        servers = self._servers_of(settings)
        self.settings = settings
        change = Change(before, settings)
        for each in settings.servers:
            servers[each.name].reconfigure(each)
            servers[each.name].admit(settings.clients)
        replaced = [(old, servers[old.name]) for old in self.servers if servers.get(old.name, old) is not old]
        removed = [old for old in self.servers if old.name not in servers]
        self.servers.replace(servers, settings.separator, settings.merged)
        self._quota.reconfigure(settings.limits)
        self._handles.reconfigure(settings.limits)
        self.app.reconfigure(settings)
        self._api.apply(settings)
        for old, new in replaced:
            new.succeed(old)
            self.app.sessions.move(old, new)
            notes = (*notes, *new.untold_of(old))
        for old, heir in (*replaced, *((old, None) for old in removed)):
            self._retire(old, heir)
        self.app.sessions.shut_out(change.clients_gone | change.clients_narrowed)
        for server in (*servers.values(), *self.leaving):
            for client in change.barred_from(server.name):
                server.close_sessions_of(client)
        self.app.sessions.announce(
            change.clients_widened, [server for server in servers.values() if server.name in change.tools_differ]
        )
        for old in removed:
            self._emit(events.ServerRemoved(old.name))
        self._emit(events.SettingsReloaded(change.added, change.changed, change.removed, tuple(notes), change.clients))

    def _servers_of(self, settings: GatewaySettings) -> dict[str, Server]:
        """The servers of new settings; if one of them cannot be made, none is left behind."""
        servers: dict[str, Server] = {}
        try:
            for each in settings.servers:
                servers[each.name] = self._next(each)
        except Exception:
            for name, server in servers.items():
                if self.servers.find(name) is not server:
                    self._retire(server)
                if name not in self.servers:
                    self._emit(events.ServerRemoved(name))
            raise
        return servers

    def _next(self, settings: ServerSettings) -> Server:
        """The server of that name that follows: the one that is there, if it can go on."""
        old = self.servers.find(settings.name)
        return old if old is not None and old.can_become(settings) else self._serve(settings)

    def _retire(self, server: Server, heir: Server | None = None) -> None:
        """Let a server's last calls end, and its sessions with them; it is never opened again."""
        self.leaving[server] = None
        server.retire(heir)
        learning = self._learning.get(server)
        if learning is not None:
            learning.cancel()
        self._scope.start(self._see_off(server), f"see {server.name} off")

    async def _see_off(self, server: Server) -> None:
        try:
            await server.pool.drain()
        finally:
            self.app.sessions.end_with(server)
            server.terminate()
            self.leaving.pop(server, None)

    def _serve(self, settings: ServerSettings) -> Server:
        """A server that is served from now on."""
        connect, close = self._connect(settings)
        scope, clock, rng = self._scope, self._clock, self._rng
        if settings.name not in self.servers:
            self._emit(events.ServerAdded(settings.name, is_lazy=not settings.is_learned_at_start))
        server = Server(
            settings,
            connect,
            scope=scope,
            clock=clock,
            emit=self._emit,
            rng=rng,
            quota=self._quota,
            handles=self._handles,
            close=close,
        )
        server.admit(self.settings.clients)
        server.pool.run()
        if settings.is_learned_at_start:
            self._learning[server] = scope.start(self._learn(server), f"learn {settings.name}")
        return server

    def _connect(self, settings: ServerSettings) -> tuple[Connect, Callable[[], None]]:
        """How sessions with a server are connected, and what closes what they share."""
        scope, clock, rng = self._scope, self._clock, self._rng
        connector = Connector(
            settings,
            lambda: self.settings.limits.message_bytes,
            scope=scope,
            clock=clock,
            rng=rng,
            watchdog=self._watchdog,
        )
        return connector, connector.close

    async def _learn(self, server: Server) -> None:
        """Learn what a server offers, for as long as it takes it to come up."""
        try:
            while True:
                try:
                    await server.learn()
                except OpenFailed:
                    await self._clock.sleep(max(0.5, server.pool.retry_delay))
                else:
                    return
        finally:
            self._learning.pop(server, None)
