"""The composition root: joins the rooms, and owns every task and connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from holdfast import events
from holdfast.clock import Clock, LoopClock
from holdfast.config import GatewaySettings, ServerSettings
from holdfast.downstream.app import App
from holdfast.downstream.http import Request, Responder
from holdfast.downstream.refusal import Refusal
from holdfast.errors import OpenFailed
from holdfast.servers.directory import Directory
from holdfast.servers.merged import Merged
from holdfast.servers.server import Server
from holdfast.session.roster import Connect
from holdfast.tasks import TaskScope
from holdfast.upstream.handshake import ALL_CAPABILITIES, HandshakeUpstream
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.stdio import StdioLink
from holdfast.upstream.streamable_http import StreamableHttpLink
from holdfast.upstream.transport import Listener, Upstream
from holdfast.upstream.watchdog import Watchdog

_NO_CAPABILITIES: Final[Mapping[str, Any]] = {}
DRAIN_TIMEOUT: Final = 2.5
"""Seconds for all sessions to end when the gateway ends."""


def _ignore(_: events.Event) -> None: ...


class _Pages:
    def dispatch(self, request: Request, responder: Responder) -> None:  # noqa: ARG002 (until there are any)
        raise Refusal(404, "There is nothing at this path.")


class Gateway:
    """Everything between clients and servers. Used as an async context manager; `app` serves inside it.

    Leaving ends client streams, closes every session in order, bounded by `DRAIN_TIMEOUT`, and
    leaves no child process.
    """

    app: App
    servers: Directory

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        emit: events.Emit = _ignore,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self._emit = emit
        self._given_clock = clock
        self._rng = rng if rng is not None else random.Random()
        self._stack = AsyncExitStack()
        self._clients: list[HttpClient] = []

    async def __aenter__(self) -> Self:
        clock = self._clock = self._given_clock if self._given_clock is not None else LoopClock()
        scope = self._scope = await self._stack.enter_async_context(TaskScope())
        self._watchdog = Watchdog(clock)
        self.servers = Directory(Merged(self.settings.separator, clock))
        self.servers.replace({each.name: self._serve(each) for each in self.settings.servers}, self.settings.separator)
        self.app = App(self.settings, self.servers, pages=_Pages(), scope=scope, clock=clock, emit=self._emit)
        return self

    def _serve(self, settings: ServerSettings) -> Server:
        """A server that is served from now on."""
        server = Server(
            settings, self._connect(settings), scope=self._scope, clock=self._clock, emit=self._emit, rng=self._rng
        )
        server.admit(self.settings.clients)
        server.pool.run()
        if settings.start == "eager":
            self._scope.start(self._learn(server), f"learn {settings.name}")
        return server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                async with asyncio.TaskGroup() as group:
                    for server in self.servers:
                        group.create_task(server.pool.aclose())
        except TimeoutError:
            pass  # what is left is dropped below
        self.app.sessions.close()
        for server in self.servers:
            server.pool.terminate()
        for client in self._clients:
            client.close()
        await self._stack.aclose()
        await self._watchdog.aclose()

    def drain(self) -> None:
        """End the streams on which clients only listen, so that the HTTP server can stop."""
        self.app.sessions.send_away()

    async def _learn(self, server: Server) -> None:
        """Learn what a server offers, for as long as it takes it to come up."""
        while True:
            try:
                await server.learn()
            except OpenFailed:
                await self._clock.sleep(max(0.5, server.pool.retry_delay))
            else:
                return

    def _connect(self, settings: ServerSettings) -> Connect:
        """How sessions with a server are connected."""
        if settings.url is not None:
            return self._connect_http(settings, settings.url)
        return self._connect_stdio(settings, settings.command or ())

    def _connect_http(self, settings: ServerSettings, url: str) -> Connect:
        client = HttpClient(url, self._scope, self._clock)
        self._clients.append(client)
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}

        def connect(listener: Listener, *, declares: bool) -> Upstream:
            link = StreamableHttpLink(
                client, target, headers, self._clock, wants_push=declares, jitter=self._rng.random
            )
            return HandshakeUpstream(
                link, listener, ALL_CAPABILITIES if declares else _NO_CAPABILITIES, server=settings.name
            )

        return connect

    def _connect_stdio(self, settings: ServerSettings, command: tuple[str, ...]) -> Connect:
        env = {name: value.get_secret_value() for name, value in settings.env.items()}

        def connect(listener: Listener, *, declares: bool) -> Upstream:
            link = StdioLink(command, env=env, cwd=settings.cwd, clock=self._clock, watchdog=self._watchdog)
            return HandshakeUpstream(
                link, listener, ALL_CAPABILITIES if declares else _NO_CAPABILITIES, server=settings.name
            )

        return connect
