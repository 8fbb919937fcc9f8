"""A scriptable MCP server of either era, stateful in the handshake era, in-process or as a program.

`python -m holdfast.testing.server` prints the URL of its endpoint once it listens; `--help`
lists its options. In a test: `async with ScriptedServer() as server`, then talk to `server.url`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from holdfast.clock import Clock
from holdfast.tasks import TaskScope
from holdfast.testing.listener import Listener
from holdfast.testing.server_core import Changes, LedgerEntry, ServerCore, ServerOptions, Session
from holdfast.testing.server_http import MCP_PATH, HttpFace
from holdfast.testing.server_modern_faces import ModernHttpFace
from holdfast.testing.server_sse import SSE_PATH
from holdfast.testing.server_stdio import serve as serve_stdio
from holdfast.wire.revisions import HANDSHAKE_REVISIONS, LATEST

__all__ = ["LedgerEntry", "ScriptedServer", "ServerOptions", "Session", "main"]

KEEP_ALIVE: Final = 75
"""Seconds that an idle connection stays open: nginx's default."""


class _Connections(ServerState):
    """uvicorn's state, with a count of all that ever connected."""

    accepted: int = 0


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also says that a connection came or went."""

    def __init__(self, config: Config, connections: _Connections, changes: Changes) -> None:
        super().__init__(config, connections, {})
        self._counted = connections
        self._changes = changes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._counted.accepted += 1
        self._changes.touch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._changes.touch()


class ScriptedServer:
    """The server over HTTP, within the running event loop.

    `stop` and `start` are a restart: the port stays, every session is forgotten, the ledger and
    the counters go on. The tool `crash` aborts all connections and forgets all sessions, as a
    process does that a supervisor starts again at once. Give a clock, and `open_delay` and the
    tools' seconds are its seconds.
    """

    def __init__(
        self,
        options: ServerOptions | None = None,
        *,
        clock: Clock | None = None,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        self.options = options or ServerOptions()
        self.core = ServerCore(self.options, clock, on_crash or self._crash)
        self._port = self.options.port
        self._listener: Listener | None = None
        self._connections = _Connections()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises `OSError` where the port is taken."""
        config = Config(
            HttpFace(self.core) if self.options.era == "handshake" else ModernHttpFace(self.core),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        config.load()
        self._connections = connections = _Connections()
        listener = Listener(lambda: _Protocol(config, connections, self.core.changes), self.options.host, self._port)
        self._listener = await listener.__aenter__()
        self._port = listener.port
        self.core.scope = TaskScope()
        await self.core.scope.__aenter__()

    async def stop(self) -> None:
        """Refuse connections, abort the open ones, forget all sessions. Harmless where it is stopped."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        await listener.__aexit__(None, None, None)
        self._crash()
        if self._connections.tasks:
            await asyncio.wait(self._connections.tasks)
        await self.core.scope.__aexit__(None, None, None)

    @property
    def port(self) -> int:
        """The port, also while the server is stopped."""
        return self._port

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return f"http://{self.options.host}:{self._port}{SSE_PATH if self.options.sse else MCP_PATH}"

    @property
    def ledger(self) -> list[LedgerEntry]:
        """Every request and notification that reached a session, in order."""
        return list(self.core.entries)

    def calls(self, tool: str | None = None) -> list[LedgerEntry]:
        """The tool calls of the ledger, or those of one tool."""
        return [entry for entry in self.core.entries if entry.tool is not None and tool in (None, entry.tool)]

    @property
    def sessions(self) -> dict[str, Session]:
        """Living sessions by id."""
        return self.core.sessions

    @property
    def initializes(self) -> int:
        """How many times a client asked to initialize."""
        return self.core.initializes

    @property
    def deletes(self) -> int:
        """How many DELETEs came."""
        return self.core.deletes

    @property
    def gets(self) -> int:
        """How many GETs came to the MCP endpoint."""
        return self.core.gets

    @property
    def probes(self) -> int:
        """With the option `sse`: how many POSTs came to where the stream is, as Streamable HTTP would have them."""
        return self.core.probes

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections.connections)

    @property
    def accepted(self) -> int:
        """How many connections came since the last start."""
        return self._connections.accepted

    @property
    def received(self) -> list[tuple[str, dict[str, str]]]:
        """HTTP method and headers (names in lower case) of each request to the MCP endpoint."""
        return list(self.core.requests)

    @property
    def received_headers(self) -> list[dict[str, str]]:
        """The headers alone."""
        return [headers for _, headers in self.core.requests]

    def forget_session(self, session_id: str) -> None:
        """Drop a session as if it had expired; its streams end."""
        self.core.forget_session(session_id)

    def hang_up(self, session_id: str) -> None:
        """End the session's push stream; the client may open another."""
        push = self.core.sessions[session_id].push
        if push is not None:
            push.hang_up()

    def open_gate(self, name: str) -> None:
        """Let on the calls that wait at this gate, now and from now on."""
        self.core.open_gate(name)

    async def entered(self, name: str, times: int = 1) -> None:
        """Return once `times` calls in all have come to this gate."""
        await self.until(lambda: self.core.gate(name).entered >= times)

    async def pushing(self, session_id: str | None = None) -> None:
        """Return once this session, or with None every session of at least one, has its push stream."""

        def has_push() -> bool:
            chosen = [s for s in self.sessions.values() if session_id in (None, s.id)]
            return bool(chosen) and all(session.is_pushing for session in chosen)

        await self.until(has_push)

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return once `predicate` holds; it is asked as messages, sessions, streams and connections come and go."""
        await self.core.changes.until(predicate)

    def _crash(self) -> None:
        self.core.forget_all()
        for connection in list(self._connections.connections):
            connection.transport.abort()
        for task in list(self._connections.tasks):
            task.cancel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server until SIGINT or SIGTERM, or until standard input ends."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    options = ServerOptions(
        host=flags.host,
        port=flags.port,
        one_connection=flags.one_connection,
        unknown_session=flags.unknown_session,
        open_delay=flags.open_delay,
        sse=flags.sse,
        json=flags.json,
        get=not flags.no_get,
        prime=flags.prime,
        retry_ms=flags.retry_ms,
        page_size=flags.page_size,
        ledger=flags.ledger,
        era=flags.era,
        revision=flags.revision,
        stubborn=flags.stubborn,
    )
    asyncio.run(_run_stdio(options) if flags.stdio else _run_http(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m holdfast.testing.server", description="An MCP server for tests.")
    add = parser.add_argument
    add("--stdio", action="store_true", help="serve one client over standard input and output")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0: any free port")
    add("--one-connection", action="store_true", help="HTTP 500 for a second session")
    add("--unknown-session", type=int, choices=(400, 404), default=404, help="status for an unknown session id")
    add("--open-delay", type=float, default=0.0, metavar="SECONDS", help="answer initialize this late")
    add("--sse", action="store_true", help="the HTTP+SSE of 2024-11-05 instead of Streamable HTTP")
    add("--json", action="store_true", help="answer with JSON bodies where possible")
    add("--no-get", action="store_true", help="405 to GET")
    add("--prime", action="store_true", help="streams that can be resumed, from 2025-11-25 on")
    add("--retry-ms", type=int, default=10, metavar="MS", help="the retry time of such a stream")
    add("--page-size", type=int, default=0, metavar="N", help="entries per page of a list")
    add("--ledger", type=Path, metavar="FILE", help="append a JSON line per tool call, before it runs")
    add("--era", choices=("handshake", "modern", "both"), default="handshake", help="modern: revision 2026-07-28")
    add(
        "--revision", choices=HANDSHAKE_REVISIONS, default=LATEST, help="the newest of the handshake era that is spoken"
    )
    add("--stubborn", action="store_true", help="on stdio, ignore the end of stdin and SIGTERM")
    return parser


async def _run_http(options: ServerOptions) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with ScriptedServer(options, on_crash=_exit) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await stopped.wait()


async def _run_stdio(options: ServerOptions) -> None:
    async with TaskScope() as scope:
        core = ServerCore(options, None, _exit)
        core.scope = scope
        await serve_stdio(core)


def _exit() -> None:
    os._exit(1)


if __name__ == "__main__":
    main()
