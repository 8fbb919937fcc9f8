"""The composition root: joins the rooms, and owns every task and connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from holdfast import events
from holdfast.clock import Clock, LoopClock
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.dashboard.api import Api
from holdfast.downstream.app import App
from holdfast.errors import OpenFailed
from holdfast.observe.feed import fan_out
from holdfast.operations import Operations
from holdfast.servers.directory import Directory
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
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self._shown_to = emit
        self._given_clock = clock
        self._rng = rng if rng is not None else random.Random()
        self._stack = AsyncExitStack()
        self._leaving: dict[Server, None] = {}
        """Servers that are not served any more, while their last calls end."""

    async def __aenter__(self) -> Self:
        settings = self.settings
        clock = self._clock = self._given_clock if self._given_clock is not None else LoopClock()
        self._scope = await self._stack.enter_async_context(TaskScope())
        self._watchdog = Watchdog(clock)
        self._quota = Quota(settings.limits)
        merged = Merged(settings.separator, clock)
        self.servers = Directory(merged)
        self.operations = Operations(self.servers, lambda: len(self.app.sessions))
        self._emit = fan_out(self._shown_to, self.operations.take, merged.take)
        self._api = Api(self.operations, settings, clock)
        self.app = App(settings, self.servers, pages=self._api, scope=self._scope, clock=clock, emit=self._emit)
        self.servers.replace({each.name: self._serve(each) for each in settings.servers}, settings.separator)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        servers = [*self.servers, *self._leaving]
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                async with asyncio.TaskGroup() as group:
                    for server in servers:
                        group.create_task(server.pool.aclose())
        except TimeoutError:
            pass  # what is left is dropped below
        self.app.sessions.close()
        for server in servers:
            server.terminate()
        await self._stack.aclose()
        await self._watchdog.aclose()

    def drain(self) -> None:
        """End the streams on which clients only listen, so that the HTTP server can stop."""
        self.operations.is_draining = True
        self._api.drain()
        self.app.sessions.send_away()

    def terminate(self) -> None:
        """Drop every session at once."""
        for server in (*self.servers, *self._leaving):
            server.pool.terminate()

    def close_sessions(self) -> None:
        """Begin to end every session; calls under way are answered with an error."""
        for server in (*self.servers, *self._leaving):
            self._scope.start(server.pool.aclose(), f"close {server.name}")

    # Reload.

    def reload(self, settings: GatewaySettings, notes: Sequence[str] = ()) -> None:
        """Go by new settings from now on, all at once; what does not differ keeps its sessions.

        A server that is gone, or that another one replaces, takes no more calls and ends when those
        under way have. `notes` are for the operator, and told with what has changed.
        """
        before = self.settings
        moved = any(getattr(before, name) != getattr(settings, name) for name in _BOUND_AT_START)
        self.settings = settings = settings.model_copy(update={name: getattr(before, name) for name in _BOUND_AT_START})
        if moved:
            notes = (*notes, "another listen takes effect at the next start; the rest is in force")
        change = _Change(before, settings)
        servers = {each.name: self._next(each) for each in settings.servers}
        replaced = [(old, servers[old.name]) for old in self.servers if servers.get(old.name, old) is not old]
        removed = [old for old in self.servers if old.name not in servers]
        self.servers.replace(servers, settings.separator)
        for server in servers.values():
            server.admit(settings.clients)
        self._quota.reconfigure(settings.limits)
        self.app.reconfigure(settings)
        self._api.apply(settings)
        for old, new in replaced:
            new.succeed(old)
            self.app.sessions.move(old, new)
        for old in (*(old for old, _ in replaced), *removed):
            self._leaving[old] = None
            self._scope.start(self._retire(old), f"retire {old.name}")
        for name in change.shut_out:
            for server in servers.values():
                server.pool.close_sessions_of(name)
        self.app.sessions.shut_out(change.shut_out | change.narrowed)
        for old in removed:
            self._emit(events.ServerRemoved(old.name))
        self._emit(events.SettingsReloaded(change.added, change.changed, change.removed, tuple(notes)))

    def _next(self, settings: ServerSettings) -> Server:
        """The server of that name that follows: the one that is there, if it can go on."""
        old = self.servers.find(settings.name)
        if old is None or not old.can_become(settings):
            return self._serve(settings)
        old.reconfigure(settings)
        return old

    async def _retire(self, server: Server) -> None:
        """Let a server's last calls end, and its sessions with them."""
        await server.pool.drain()
        self.app.sessions.end_with(server)
        server.terminate()
        self._leaving.pop(server, None)

    def _serve(self, settings: ServerSettings) -> Server:
        """A server that is served from now on."""
        connect, close = self._connect(settings)
        scope, clock, rng = self._scope, self._clock, self._rng
        self._emit(events.ServerAdded(settings.name, is_lazy=not settings.is_learned_at_start))
        server = Server(
            settings, connect, scope=scope, clock=clock, emit=self._emit, rng=rng, quota=self._quota, close=close
        )
        server.admit(self.settings.clients)
        server.pool.run()
        if settings.is_learned_at_start:
            scope.start(self._learn(server), f"learn {settings.name}")
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
        while server not in self._leaving:
            try:
                await server.learn()
            except OpenFailed:
                await self._clock.sleep(max(0.5, server.pool.retry_delay))
            else:
                return


class _Change:
    """How two editions of the settings differ."""

    def __init__(self, before: GatewaySettings, after: GatewaySettings) -> None:
        old, new = ({each.name: each for each in settings.servers} for settings in (before, after))
        self.added = tuple(name for name in new if name not in old)
        self.removed = tuple(name for name in old if name not in new)
        self.changed = tuple(name for name, each in new.items() if name in old and old[name] != each)
        clients = {client.name: client for client in after.clients}
        self.shut_out = frozenset(client.name for client in before.clients if client.name not in clients)
        """Clients that are not there any more."""
        self.narrowed = frozenset(
            client.name for client in before.clients if (now := clients.get(client.name)) and _is_narrower(now, client)
        )
        """Clients that may see less, or name others: their sessions with us rest on what they were."""


def _is_narrower(now: ClientSettings, before: ClientSettings) -> bool:
    if now.trust != before.trust:
        return True
    return now.servers is not None and (before.servers is None or not before.servers.keys() <= now.servers.keys())
