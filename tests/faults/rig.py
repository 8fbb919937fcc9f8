"""A whole gateway behind uvicorn, in this process, and clients that count the answers they get."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import random
import resource
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from bare_client import BareClient, Response
from holdfast import events
from holdfast.clock import Clock
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.downstream.connection import Connection
from holdfast.gateway import Gateway
from holdfast.session.lifecycle import State
from holdfast.session.pool import Pool
from holdfast.testing.clock import settle
from holdfast.testing.listener import Listener
from holdfast.testing.server_core import Changes

SERVER: Final = "upstream"
_ABORTED: Final = "ASGI callable returned without completing response."
"""What uvicorn says of a `ScriptedServer` that stops while it answers."""


class Rig:
    """The gateway, where it listens, and what happened in it."""

    def __init__(self, gateway: Gateway, seen: list[events.Event], changes: Changes, port: int) -> None:
        self.gateway = gateway
        self.events = seen
        self.port = port
        self._changes = changes

    @property
    def pool(self) -> Pool:
        """The sessions with the one server."""
        return self.gateway.servers[SERVER].pool

    def client(self) -> BareClient:
        """A client that has not initialized."""
        return BareClient(self.port)

    async def opened(self) -> BareClient:
        """A client with a session."""
        client = self.client()
        await client.open()
        return client

    def count(self, kind: type[events.Event]) -> int:
        """How many events of this kind there were."""
        return sum(isinstance(event, kind) for event in self.events)

    async def saw(self, kind: type[events.Event], times: int = 1) -> None:
        """Return once there were `times` events of this kind."""
        await self._changes.until(lambda: self.count(kind) >= times)

    async def at_rest(self) -> None:
        """Return once no call runs and no session is opening or closing: what is left, is left for good."""
        await until(lambda: all(s.state is State.IDLE and not s.leases and not s.calls for s in self.pool.sessions))


async def until(predicate: Callable[[], bool]) -> None:
    """Return once `predicate` holds, for what nothing announces."""
    while not predicate():
        await settle(1)


def resident() -> int:
    """Bytes of memory that this process holds, what is only kept for later given back first."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not with every C library
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class NoJitter(random.Random):
    """The least that a range allows: nothing is spread over time."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


@asynccontextmanager
async def gateway_to(
    url: str | None = None,
    *,
    within: float = 120.0,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    clients: tuple[ClientSettings, ...] = (ClientSettings(name="local"),),
    others: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncGenerator[Rig]:
    """A gateway in front of one server, for the time of the block, which may take `within` seconds.

    `others` are further servers: URLs by name.

    Fails if anything was logged as an error meanwhile.
    """
    seen: list[events.Event] = []
    changes = Changes()

    def emit(event: events.Event) -> None:
        seen.append(event)
        changes.touch()

    # The faults are timed by what the server was sent: a probe for its era would be one message more.
    fixed: dict[str, Any] = {"start": "lazy", "era": "handshake"}
    server = ServerSettings.model_validate({"name": SERVER, "url": url, **fixed, **settings})
    siblings = (ServerSettings(name=name, url=address, **fixed) for name, address in (others or {}).items())
    async with asyncio.timeout(within):
        with no_error_logged():
            gateway = Gateway(
                GatewaySettings(servers=(server, *siblings), clients=clients),
                emit=emit,
                clock=clock,
                rng=rng or random.Random(1),
            )
            async with gateway, serving(gateway) as port:
                yield Rig(gateway, seen, changes, port)


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncGenerator[int]:
    """Serve the gateway on a free port, as cli/serving.py does."""
    config = Config(
        gateway.app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # what stands before the application would hide that its connections know it
        timeout_keep_alive=75,
    )
    config.load()
    state = ServerState()
    try:
        async with Listener(lambda: Connection(config, state, {})) as listener:
            yield listener.port
    finally:
        gateway.drain()
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks)


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if text != _ABORTED:
            self.texts.append(text)


@contextmanager
def no_error_logged() -> Generator[None]:
    """Fail where anything was logged as an error: an exception that nobody took, above all."""
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(errors)
    assert errors.texts == []


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all at once, and let each end."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)


async def rest_of(response: Response, request_id: Any) -> tuple[dict[str, Any], list[Any]]:
    """Read `response` to its end: the one answer to the request, and what came before it."""
    messages: list[Any] = []
    if response.headers.get("content-type") == "application/json":
        messages.append(await response.json())
    else:
        while (event := await response.event()) is not None:
            if event.data:
                messages.append(json.loads(event.data))
    answers = [message for message in messages if "method" not in message]
    assert len(answers) == 1, messages
    assert answers[0]["id"] == request_id
    return answers[0], messages[:-1]


async def answer_to(client: BareClient, body: dict[str, Any], path: str = "/mcp") -> dict[str, Any]:
    """Send a request and return its answer, having seen that there was exactly one."""
    async with client.request("POST", body, path) as response:
        assert response.status == 200, await response.body()
        return (await rest_of(response, body["id"]))[0]


async def call(client: BareClient, tool: str, path: str = "/mcp", **arguments: Any) -> dict[str, Any]:
    """Call a tool and return the answer."""
    return await answer_to(client, client.tool(tool, **arguments), path)


async def read(client: BareClient, path: str = "/mcp") -> dict[str, Any]:
    """Read a resource, which is safe to repeat, and return the answer."""
    return await answer_to(client, client.call("resources/read", uri="memo://note"), path)


def code_of(answer: dict[str, Any]) -> int | None:
    """The error code of an answer; None of a result."""
    code: int | None = answer["error"]["code"] if "error" in answer else None
    return code


def text_of(answer: dict[str, Any]) -> str:
    """The text of a tool's result."""
    assert "result" in answer, answer
    text: str = answer["result"]["content"][0]["text"]
    return text


class InFlight:
    """A call that has been sent by the gateway and waits at a gate of the server."""

    def __init__(self) -> None:
        self.is_under_way = asyncio.Event()
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def run(self, client: BareClient, body: dict[str, Any], path: str = "/mcp") -> None:
        """Send the call; the first progress tells that it is under way."""
        body["params"]["_meta"] = {"progressToken": "t"}
        async with client.request("POST", body, path) as response:
            while b"notifications/progress" not in (first := await _next_event(response)):
                assert b'"method"' in first or not first, first
            self.is_under_way.set()
            self.answer.set_result((await rest_of(response, body["id"]))[0])


async def _next_event(response: Response) -> bytes:
    event = await response.event()
    assert event is not None
    return event.data


@asynccontextmanager
async def in_flight(client: BareClient, path: str = "/mcp", **arguments: Any) -> AsyncGenerator[InFlight]:
    """An unsafe call that waits at the server's gate `gate`."""
    running = InFlight()
    async with asyncio.TaskGroup() as group:
        body = client.tool("progress", **{"steps": 2, "gate": "gate", **arguments})
        group.create_task(running.run(client, body, path))
        await running.is_under_way.wait()
        yield running
