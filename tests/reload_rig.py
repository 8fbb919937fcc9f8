"""A gateway whose settings change while it serves, between clients over HTTP and scripted servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

from bare_client import Response
from holdfast import events
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, Trust, key_digest
from holdfast.downstream.clients import ClientSession
from holdfast.gateway import Gateway
from holdfast.servers.server import Server
from holdfast.testing.clock import ManualClock, settle
from holdfast.testing.server import ScriptedServer, ServerOptions
from rig import Client, next_message, no_errors_logged, serving, time_to_end

E = TypeVar("E", bound=events.Event)
T = TypeVar("T")
LIST_CHANGES: Final = {f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")}


def client_of(name: str, *keys: str, trust: Trust | None = None, **fields: Any) -> ClientSettings:
    """A client with these keys."""
    return ClientSettings(name=name, key_digests=tuple(map(key_digest, keys)), trust=trust or Trust(), **fields)


class PathClient(Client):
    """A client of one path."""

    def __init__(self, port: int, path: str, key: str | None) -> None:
        super().__init__(port)
        self.path = path
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}

    def with_key(self, key: str, request: int = 1000) -> PathClient:
        """The same client, session included, with another key; ids of requests begin after `request`."""
        other = PathClient(self.port, self.path, key)
        other.headers = self.headers | other.headers
        other.next_id = self.next_id + request
        return other

    @asynccontextmanager
    async def request(
        self, method: str, body: Any = None, path: str = "/mcp", **headers: str | None
    ) -> AsyncGenerator[Response, None]:
        async with super().request(method, body, self.path if path == "/mcp" else path, **headers) as response:
            yield response

    async def count(self, tool: str = "count") -> str:
        """What the session's counter says; each call adds one."""
        return await self.tool_text(tool)

    async def tools(self) -> set[str]:
        """The names of the tools that the client sees."""
        listed = await self.ask(self.call("tools/list"))
        return {tool["name"] for tool in listed["result"]["tools"]}

    async def failure(self, tool: str = "count") -> int:
        """The code of the error that a call gets."""
        answer = await self.ask(self.tool(tool))
        code: int = answer["error"]["code"]
        return code


class House:
    """A running gateway, the servers that it may be pointed at, and what it said."""

    def __init__(
        self, gateway: Gateway, port: int, upstreams: dict[str, ScriptedServer], heard: list[events.Event]
    ) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        self.gateway = gateway
        self.port = port
        self.upstreams = upstreams
        self.heard = heard

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let something happen beside the test; what fails is raised to who awaits it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def end_tasks(self) -> None:
        """End what still happens beside the test."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def reload(self, notes: Sequence[str] = (), **changes: Any) -> None:
        """Change these fields of the settings."""
        self.gateway.reload(GatewaySettings(**{**dict(self.gateway.settings), **changes}), notes)

    def change(self, name: str, **fields: Any) -> None:
        """Change these fields of one server."""
        servers = self.gateway.settings.servers
        self.reload(servers=tuple(changed(each, **fields) if each.name == name else each for each in servers))

    def client(self, path: str = "/mcp", key: str | None = None) -> PathClient:
        """A client without a session."""
        return PathClient(self.port, path, key)

    async def connected(self, path: str = "/mcp", key: str | None = None, **capabilities: Any) -> PathClient:
        """A client with a session."""
        client = self.client(path, key)
        await client.open("2025-11-25", **capabilities)
        return client

    def server(self, name: str) -> Server:
        return self.gateway.servers[name]

    def session_of(self, client: Client) -> ClientSession:
        """What the gateway knows of a client's session."""
        return next(s for s in self.gateway.app.sessions if s.id == client.headers["mcp-session-id"])

    def told(self, kind: type[E]) -> list[E]:
        """The events of a kind so far."""
        return [event for event in self.heard if isinstance(event, kind)]

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return once `predicate` holds; the loop runs meanwhile."""
        while not predicate():
            await settle(1)

    async def until_learnt(self, *names: str) -> None:
        """Return once the lists of these servers are known."""
        await self.until(lambda: all(self.server(name).catalog.tools is not None for name in names))

    async def until_gone(self, upstream: ScriptedServer) -> None:
        """Return once no session and no connection with a server is left."""
        await self.until(lambda: not upstream.sessions and not upstream.connections)


def changed(settings: ServerSettings, **fields: Any) -> ServerSettings:
    return ServerSettings(**{**dict(settings), **fields})


async def next_of(response: Response, method: str) -> Any:
    """The next message of this method; others are passed over."""
    while (message := await next_message(response)).get("method") != method:
        pass
    return message


async def end_of(response: Response) -> list[str]:
    """The methods of what a stream still brings, once it has ended."""
    methods: list[str] = []
    try:
        while (event := await response.event()) is not None:
            methods.append(event.data.decode())
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    return methods


@asynccontextmanager
async def house(
    *names: str,
    others: Sequence[str] = (),
    slow: Sequence[str] = (),
    seconds: float = 120,
    clients: tuple[ClientSettings, ...] = (ClientSettings(name="local"),),
    clock: ManualClock | None = None,
    gateway: dict[str, Any] | None = None,
    **fields: Any,
) -> AsyncGenerator[House]:
    """A gateway in front of the servers `names`, which have been learnt.

    `others` run besides, and so do `slow` ones, which open no session. `fields` are those of every
    server's settings. All must be over within `seconds`. Leaving checks that nothing was left behind.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(seconds))
        stack.enter_context(no_errors_logged(restarts=False))
        stack.enter_context(time_to_end())
        upstreams: dict[str, ScriptedServer] = {}
        for name in (*names, *others, *slow):
            options = ServerOptions(open_delay=3600.0 if name in slow else 0.0)
            upstreams[name] = await stack.enter_async_context(ScriptedServer(options))
        servers = tuple(ServerSettings(name=name, url=upstreams[name].url, **fields) for name in names)
        settings = GatewaySettings(servers=servers, clients=clients, **(gateway or {}))
        heard: list[events.Event] = []
        whole = await stack.enter_async_context(Gateway(settings, emit=heard.append, clock=clock))
        port, _ = await stack.enter_async_context(serving(whole))
        running = House(whole, port, upstreams, heard)
        stack.push_async_callback(running.end_tasks)
        await running.until_learnt(*names)
        yield running
        for session in whole.app.sessions:
            whole.app.sessions.end(session)
        assert whole.app.sessions.budget.used == 0
    for upstream in upstreams.values():
        assert not upstream.sessions
    if clock is not None:
        assert clock.pending == 0
