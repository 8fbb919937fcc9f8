"""What the scripted server remembers: its options, sessions, gates, and a ledger of what it did."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from holdfast.call import LOG_LEVELS, Json
from holdfast.clock import Clock, LoopClock
from holdfast.tasks import TaskScope
from holdfast.wire import jsonrpc, revisions

MAX_LEDGER_ENTRIES: Final = 100_000
MAX_RECEIVED_REQUESTS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a `ScriptedServer` behaves; each field is a flag of `python -m holdfast.testing.server`."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port, and the same one again after a restart."""
    one_connection: bool = False
    """A second `initialize` while a session lives gets HTTP 500 and an HTML page, as from mcp-searxng 0.10.5."""
    unknown_session: Literal[400, 404] = 404
    open_delay: float = 0.0
    """Seconds before `initialize` is answered."""
    sse: bool = False
    """Speak the HTTP+SSE of 2024-11-05, at `/sse`, instead of Streamable HTTP."""
    json: bool = False
    """Answer with a JSON body where nothing but answers is to be sent."""
    get: bool = True
    """Offer a GET push stream; without it, 405."""
    prime: bool = False
    """From 2025-11-25 on, streams begin with a priming event and can be resumed (SEP-1699)."""
    retry_ms: int = 10
    """What a priming event tells the client to wait before it resumes."""
    page_size: int = 0
    """Entries per page of a list; 0 gives all at once."""
    ledger: Path | None = None
    """One JSON line is appended per tool call, before it runs."""
    era: Literal["handshake", "modern", "both"] = "handshake"
    """`modern`: speak 2026-07-28, and nothing else. `both`: each request in the revision that it is of."""
    revision: str = revisions.LATEST
    """The newest revision of the handshake era that is spoken; what came later is not there."""
    unannounced: tuple[str, ...] = ()
    """In the modern era: kinds of changes that are declared and, when it comes to it, not announced."""
    stubborn: bool = False
    """On stdio: ignore the end of stdin and SIGTERM, so that only SIGKILL helps."""


class RpcFailure(Exception):
    """A request is answered with this JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class LedgerEntry(Struct, rename={"args": "arguments"}):
    """One message that the server acted on. `number` tells the order."""

    number: int
    session: str
    kind: Literal["request", "notification"]
    method: str
    tool: str | None
    args: dict[str, Json]
    """A tool's arguments; of other methods, the params."""
    canary: Json
    """The argument `canary`: whose call this is, for tests that look for mix-ups."""
    outcome: Literal["running", "executed", "refused", "cancelled"] = "running"


class Outlet(Protocol):
    """Where the messages that belong to one request go."""

    @property
    def has_reader(self) -> bool:
        """Whether somebody reads it now."""
        ...

    def send(self, message: bytes) -> None:
        """Send a notification, or a request of the server."""

    def answer(self, message: bytes | None, then: list[Callable[[], None]]) -> None:
        """Send the answer (None: there will be none), then call what is in `then`."""

    def hang_up(self) -> None:
        """Close the connection; the answer waits for a resumption, where the outlet has such."""


class Changes:
    """Wakes whoever waits for a condition, each time something has changed."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def touch(self) -> None:
        """Something changed: let every waiter look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return as soon as `predicate` holds."""
        while not predicate():
            await self.next()

    async def next(self) -> None:
        """Return after the next change."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


@dataclass(slots=True, eq=False)
class Session:
    """One conversation with a client, and what its tools remember of it."""

    id: str
    version: str
    client_info: Json
    client_capabilities: dict[str, Json]
    is_initialized: bool = False
    log_level: str = LOG_LEVELS[0]
    counter: int = 0
    memory: dict[str, str] = field(default_factory=dict[str, str])
    subscriptions: set[str] = field(default_factory=set[str])
    push: Outlet | None = None
    """Where messages go that belong to no request; without it they are dropped."""
    streams: dict[str, Outlet] = field(default_factory=dict[str, Outlet])
    """Streams that can be resumed, by the part of their event ids that names them."""
    calls: dict[bytes, asyncio.Task[None]] = field(default_factory=dict[bytes, "asyncio.Task[None]"])
    asks: dict[bytes, asyncio.Future[jsonrpc.ClientReply]] = field(
        default_factory=dict[bytes, "asyncio.Future[jsonrpc.ClientReply]"]
    )
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def is_pushing(self) -> bool:
        """Whether the client has a stream open for what belongs to no request."""
        return self.push is not None and self.push.has_reader

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification that belongs to no request."""
        if self.push is not None:
            self.push.send(jsonrpc.notification(method, params))

    async def ask(self, outlet: Outlet, method: str, params: Mapping[str, Any] | None) -> jsonrpc.ClientReply:
        """Put a request to the client. Cancelled, it takes the request back."""
        number = next(self.numbers)
        answer: asyncio.Future[jsonrpc.ClientReply] = asyncio.get_running_loop().create_future()
        self.asks[jsonrpc.id_bytes(number)] = answer
        outlet.send(jsonrpc.request(number, method, params))
        try:
            return await answer
        except asyncio.CancelledError:
            outlet.send(jsonrpc.notification("notifications/cancelled", {"requestId": number}))
            raise
        finally:
            del self.asks[jsonrpc.id_bytes(number)]

    def answered(self, reply: jsonrpc.ClientReply) -> None:
        """Take the client's answer to one of our requests; others are ignored."""
        waiting = self.asks.get(jsonrpc.id_bytes(reply.id))
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def cancel(self, request_id: Json) -> None:
        """Stop the client's request of that id, if it still runs."""
        task = self.calls.get(jsonrpc.encode(request_id))
        if task is not None:
            # Not at once: the task must have begun, so that it sees its own cancellation.
            asyncio.get_running_loop().call_soon(task.cancel)

    def end(self) -> None:
        """Stop everything that runs for this session and let its streams end."""
        for task in self.calls.values():
            asyncio.get_running_loop().call_soon(task.cancel)
        if self.push is not None:
            self.push.hang_up()


TaskStatus: TypeAlias = Literal["working", "input_required", "completed", "failed", "cancelled"]


class BegunTask(Protocol):
    """A tool call that runs as a task."""

    status: TaskStatus

    @property
    def is_over(self) -> bool:
        """Whether it has come to an end."""
        ...

    def shown(self) -> dict[str, Any]:
        """The task as clients see it."""
        ...


class Gate:
    """A point in a tool where calls wait until a test lets them on."""

    def __init__(self) -> None:
        self.entered = 0
        self.is_open = False


class ServerCore:
    """The state that all sessions of one scripted server share."""

    def __init__(self, options: ServerOptions, clock: Clock | None, crash: Callable[[], None]) -> None:
        self.options = options
        self.clock = clock
        """None: the event loop's own."""
        self.scope = TaskScope()
        """Owns the running calls; replaced at each start."""
        self.crash = crash
        self.changes = Changes()
        self.sessions: dict[str, Session] = {}
        self.gates: dict[str, Gate] = {}
        self.entries: deque[LedgerEntry] = deque(maxlen=MAX_LEDGER_ENTRIES)
        self.requests: deque[tuple[str, dict[str, str]]] = deque(maxlen=MAX_RECEIVED_REQUESTS)
        self.initializes = 0
        self.deletes = 0
        self.gets = 0
        self.probes = 0
        """POSTs to where the HTTP+SSE transport has its stream: somebody tried Streamable HTTP."""
        self.opening = 0
        self.has_extra_tool = False
        self.note = "empty"
        self.memory: dict[str, str] = {}
        """Of the modern era, where there are no sessions to remember anything."""
        self.tasks: dict[str, BegunTask] = {}
        """Everything that was begun as a task, whosever it is."""
        self.request_numbers = count(1)
        self._numbers = count(1)

    async def open_session(self, params: Mapping[str, Json], session_id: str | None = None) -> Session:
        """Take an `initialize`, after `open_delay`."""
        self.initializes += 1
        self.changes.touch()
        if self.options.open_delay > 0:
            self.opening += 1
            try:
                await self.sleep(self.options.open_delay)
            finally:
                self.opening -= 1
        capabilities = params.get("capabilities")
        session = Session(
            id=session_id or secrets.token_urlsafe(18),
            version=min(revisions.negotiate(params.get("protocolVersion")), self.options.revision),
            client_info=params.get("clientInfo"),
            client_capabilities=capabilities if isinstance(capabilities, dict) else {},
        )
        self.sessions[session.id] = session
        self.changes.touch()
        return session

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of the server's clock."""
        await (self.clock or LoopClock()).sleep(seconds)

    def forget_session(self, session_id: str) -> None:
        """Drop a session as if it had expired. An id that is not known is ignored."""
        session = self.sessions.pop(session_id, None)
        if session is not None:
            session.end()
            self.changes.touch()

    def forget_all(self) -> None:
        """Drop every session."""
        for session_id in list(self.sessions):
            self.forget_session(session_id)

    def notify_all(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification on the push streams of all sessions."""
        for session in self.sessions.values():
            session.notify(method, params)

    def gate(self, name: str) -> Gate:
        """The gate of that name, which comes to be when first named."""
        return self.gates.setdefault(name, Gate())

    def open_gate(self, name: str) -> None:
        """Let on who waits at the gate, and whoever comes later."""
        self.gate(name).is_open = True
        self.changes.touch()

    async def wait_at_gate(self, name: str) -> None:
        """Return once the gate is open."""
        gate = self.gate(name)
        gate.entered += 1
        self.changes.touch()
        await self.changes.until(lambda: gate.is_open)

    def record(
        self,
        session: Session,
        kind: Literal["request", "notification"],
        method: str,
        params: dict[str, Json],
    ) -> LedgerEntry:
        """Enter a message into the ledger; a tool call also into the ledger file, before it runs."""
        tool = None
        args: dict[str, Json] = params
        if method == "tools/call":
            name, arguments = params.get("name"), params.get("arguments")
            tool = name if isinstance(name, str) else ""
            args = arguments if isinstance(arguments, dict) else {}
        entry = LedgerEntry(next(self._numbers), session.id, kind, method, tool, args, args.get("canary"))
        self.entries.append(entry)
        if tool is not None and self.options.ledger is not None:
            _append_line(self.options.ledger, jsonrpc.encode(entry))
        self.changes.touch()
        return entry

    @contextmanager
    def executing(self, entry: LedgerEntry) -> Generator[None, None, None]:
        """Note in the ledger how a request ended."""
        try:
            yield
        except asyncio.CancelledError:
            entry.outcome = "cancelled"
            raise
        except RpcFailure:
            entry.outcome = "refused"
            raise
        else:
            entry.outcome = "executed"
        finally:
            self.changes.touch()

    def report(self) -> bytes:
        """The ledger and the counters as JSON, for `/ledger`."""
        return jsonrpc.encode(
            {
                "entries": list(self.entries),
                "sessions": list(self.sessions),
                "initializes": self.initializes,
                "deletes": self.deletes,
                "gets": self.gets,
            }
        )

    def reset_ledger(self) -> None:
        """Forget entries, received headers and counters; sessions live on."""
        self.entries.clear()
        self.requests.clear()
        self.initializes = self.deletes = self.gets = 0


def _append_line(path: Path, line: bytes) -> None:
    """Append with one `write`, so that a killed process leaves whole lines."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line + b"\n")
    finally:
        os.close(file)
