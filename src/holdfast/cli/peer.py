"""A conversation of the command line with one server: what `tools` and `call` have in common."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeAlias

from msgspec import Raw

from holdfast.call import (
    Abilities,
    Answered,
    Ask,
    AskId,
    Call,
    Fields,
    InputRequired,
    Json,
    Reply,
    Result,
    RpcError,
)
from holdfast.clock import Clock, LoopClock, timeout
from holdfast.config import MAX_MESSAGE_BYTES, ServerSettings
from holdfast.errors import OpenFailed
from holdfast.tasks import TaskScope
from holdfast.upstream.connector import Connector
from holdfast.upstream.era import PROBE_TIMEOUT
from holdfast.upstream.handshake import Misunderstood
from holdfast.upstream.transport import Exchange, Fault, FaultKind, Hello, Listener, Upstream
from holdfast.upstream.watchdog import Watchdog
from holdfast.wire import jsonrpc

CHAT_KEY: Final = "dev.holdfast/chat"
"""The `_meta` key by which a gateway is told the chat."""
MAX_PAGES: Final = 1000

_ABILITIES: Final = Abilities(elicitation_form=True, elicitation_url=True)
_CANCEL: Final = Reply(Raw(b'{"action":"cancel"}'))
_NO_ROOTS: Final = Reply(Raw(b'{"roots":[]}'))
"""Nobody meant to show a server the folder that they happen to be in."""

Answer: TypeAlias = Result | RpcError | Fault
Era: TypeAlias = Literal["handshake", "modern"]
Elicit: TypeAlias = Callable[[Ask], Awaitable[Raw]]
"""Puts a question to the person; returns the `ElicitResult`."""


class Hearer(Protocol):
    """Who shows what a server says while a request runs."""

    def progress(self, update: Fields) -> None:
        """The params of a progress notification."""

    def log(self, params: Raw) -> None:
        """The params of a log message."""

    def end(self) -> None:
        """The call is given up, and there is nothing more to show."""


class Peer:
    """One session with `server`, open within its async context; entering raises `OpenFailed`.

    A server whose era is not set is asked to shake hands, and spoken to in 2026-07-28 where it cannot: one
    conversation is no reason to ask every server of the older kind first what it does not know.
    Without a `hearer` the server is not heard between its answers. Questions go to `elicit`, one
    at a time; without it they are answered with `cancel`. Leaving ends the session in order, and
    leaves no process; cancelled meanwhile, at once.
    """

    hello: Hello
    found: ServerSettings
    """Of the server, with the era and the transport that it was found to speak."""

    def __init__(self, server: ServerSettings, chat: str | None = None) -> None:
        self._server = server
        self._meta: dict[str, Json] = {} if chat is None else {"_meta": {CHAT_KEY: chat}}
        self._stack = AsyncExitStack()
        self._asking = asyncio.Lock()
        self._questions: dict[AskId, asyncio.Task[None]] = {}
        self.hearer: Hearer | None = None
        self.elicit: Elicit | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._clock: Clock = LoopClock()
            watchdog = Watchdog(self._clock)
            stack.push_async_callback(watchdog.aclose)
            self._scope = await stack.enter_async_context(TaskScope())
            limit = self._server.open_timeout
            try:
                async with timeout(self._clock, limit):
                    await self._open(stack, watchdog)
            except TimeoutError:
                raise OpenFailed(f"no answer to initialize within {limit:g} s", advice="is it an MCP server?") from None
            self._stack = stack.pop_all()
        return self

    async def _open(self, stack: AsyncExitStack, watchdog: Watchdog) -> None:
        era = self._server.era
        if era != "auto":
            await self._converse(stack, watchdog, era)
            return
        began = self._clock.now()
        try:
            await self._converse(stack, watchdog, "handshake")
        except Misunderstood as refusal:
            if self._server.transport == "sse":  # a transport of that era alone
                raise
            # What is no MCP server may not answer at all; a process must start anew for it, as it just did.
            limit = min(PROBE_TIMEOUT + self._clock.now() - began, self._server.open_timeout / 2)
            try:
                async with timeout(self._clock, limit):
                    await self._converse(stack, watchdog, "modern")
            except (OpenFailed, TimeoutError):
                raise refusal from None  # it is of neither

    async def _converse(self, stack: AsyncExitStack, watchdog: Watchdog, era: Era) -> None:
        """Open a conversation of `era`, which `stack` closes; one that cannot be opened is closed at once."""
        settings = self._server.model_copy(update={"era": era})
        async with AsyncExitStack() as attempt:
            try:
                connector = Connector(
                    settings,
                    lambda: MAX_MESSAGE_BYTES,
                    scope=self._scope,
                    clock=self._clock,
                    rng=random.Random(),
                    watchdog=watchdog,
                )
                attempt.callback(connector.close)
                # In 2026-07-28 all that belongs to a call comes on its own stream.
                listens = era == "handshake" and self.hearer is not None
                self._upstream: Upstream = connector(_Listener(self), declares=_ABILITIES, listens=listens)
                attempt.callback(self._upstream.terminate)
                attempt.push_async_callback(self._upstream.close)
                self.hello = await self._upstream.open()
            except ValueError as error:  # a URL or a header that cannot be sent
                raise OpenFailed(str(error)) from None
            self.found = settings.model_copy(update={"transport": "sse"}) if connector.is_legacy else settings
            stack.push_async_exit(attempt.pop_all())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def server_name(self) -> str:
        """What the server calls itself, with its version."""
        info = jsonrpc.decode_value(jsonrpc.decode_fields(self.hello.raw).get("serverInfo", b"{}"))
        words = [info.get("title") or info.get("name"), info.get("version")] if isinstance(info, dict) else []
        return " ".join(word for word in words if isinstance(word, str)) or self._server.name

    async def request(
        self, method: str, params: Mapping[str, Json] | None = None, *, within: float | None = None
    ) -> Answer:
        """Send a request and wait for its answer, `within` seconds where that is given.

        Raises `TimeoutError`. The server is told of a request that is given up, also by cancellation.
        """
        if within is None:
            return await self._request(method, params or {})
        async with timeout(self._clock, within):
            return await self._request(method, params or {})

    async def list_tools(self) -> list[Raw] | RpcError | Fault:
        """Every tool, byte for byte as listed, from all pages; none where the server has no tools."""
        tools: list[Raw] = []
        cursor: Json = None
        for _ in range(MAX_PAGES):
            answer = await self.request("tools/list", None if cursor is None else {"cursor": cursor})
            if isinstance(answer, RpcError) and not tools and error_code(answer) == jsonrpc.METHOD_NOT_FOUND:
                return []
            if not isinstance(answer, Result):
                return answer
            page = jsonrpc.decode_fields(sent(answer))
            with suppress(ValueError):
                tools += jsonrpc.decode_array(bytes(page.get("tools", b"[]")))
            cursor = jsonrpc.decode_value(page.get("nextCursor", b"null"))
            if not isinstance(cursor, str):
                return tools
        return Fault(FaultKind.INVALID, f"the list of tools has more than {MAX_PAGES} pages")

    async def _request(self, method: str, params: Mapping[str, Json]) -> Answer:
        exchange = _Exchange(self)
        wants_progress = self.hearer is not None and method == "tools/call"
        sent = self._upstream.settled.send(Call(method, {**params, **self._meta}, wants_progress), exchange)
        try:
            return await exchange.outcome
        except asyncio.CancelledError:
            if self.hearer is not None:
                self.hearer.end()
            sent.cancel("the caller gave up")
            raise
        finally:
            for task in self._questions.values():
                task.cancel()

    # What the server says.

    def notified(self, method: str, params: Raw | None) -> None:
        """Take a notification that came outside of the call's own."""
        if method == "notifications/message" and params is not None and self.hearer is not None:
            self.hearer.log(params)

    def asked(self, ask: Ask) -> None:
        """Answer what can be answered without the person, and put the rest to them."""
        if ask.method == "roots/list":
            self._upstream.reply(ask.id, _NO_ROOTS)
        elif ask.method != "elicitation/create":
            refusal = jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, f"{ask.method} is not offered here.")
            self._upstream.reply(ask.id, Reply(error=Raw(refusal)))
        elif self.elicit is None:
            self._upstream.reply(ask.id, _CANCEL)
        else:
            self._questions[ask.id] = self._scope.start(self._put(ask, self.elicit), "question")

    def withdrawn(self, ask_id: AskId) -> None:
        """The server does not want the answer any more."""
        if (task := self._questions.pop(ask_id, None)) is not None:
            task.cancel()

    async def _put(self, ask: Ask, elicit: Elicit) -> None:
        async with self._asking:
            reply = _CANCEL
            try:
                reply = Reply(await elicit(ask))
            finally:
                self._questions.pop(ask.id, None)
                self._upstream.reply(ask.id, reply)


class _Exchange(Exchange):
    """One request of ours: its outcome as a future; what comes before it goes to the peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    @property
    def abilities(self) -> Abilities:
        """Those that the session was opened with: a server of 2026-07-28 is told with each request."""
        return _ABILITIES

    def answered(self, outcome: Answered) -> None:
        if isinstance(outcome, InputRequired):
            self.failed(Fault(FaultKind.INVALID, "the server asked for input as servers of another revision do"))
        elif not self.outcome.done():
            self.outcome.set_result(outcome)

    def failed(self, fault: Fault) -> None:
        if not self.outcome.done():
            self.outcome.set_result(fault)

    def suspend(self) -> None: ...

    def alive(self) -> None: ...

    def progress(self, update: Fields) -> None:
        if self._peer.hearer is not None:
            self._peer.hearer.progress(update)

    def log(self, params: Raw) -> None:
        if self._peer.hearer is not None:
            self._peer.hearer.log(params)

    def notify(self, method: str, params: Raw | None) -> None:
        self._peer.notified(method, params)

    def ask(self, ask: Ask) -> None:
        self._peer.asked(ask)

    def withdraw(self, ask_id: AskId) -> None:
        self._peer.withdrawn(ask_id)


class _Listener(Listener):
    """What comes on no request's stream is treated as if it had: there is one call at a time."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def pushed(self, method: str, params: Raw | None) -> None:
        self._peer.notified(method, params)

    def asked(self, ask: Ask) -> None:
        self._peer.asked(ask)

    def asked_too_late(self, ask: Ask) -> None:
        self._peer.asked(ask)  # there is one person, whichever call it was

    def withdrawn(self, ask_id: AskId) -> None:
        self._peer.withdrawn(ask_id)

    def push_stream(self, is_up: bool) -> None: ...

    def suspected(self, fault: Fault) -> None: ...

    def lost(self, fault: Fault) -> None: ...


def sent(result: Result) -> Raw:
    """A result as the server sent it."""
    return result.raw if result.modern is None else result.modern


def error_code(error: RpcError) -> Json:
    """The code of a JSON-RPC error."""
    return jsonrpc.decode_value(jsonrpc.decode_fields(error.raw).get("code", b"null"))
