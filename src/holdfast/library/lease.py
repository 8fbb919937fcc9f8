"""What an application holds of a kept session."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, TypeAlias, TypeVar

from mcp_types import (
    CallToolResult,
    CompleteResult,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    Prompt,
    PromptReference,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    ResourceTemplateReference,
    Tool,
)
from msgspec import Raw
from pydantic import BaseModel, ValidationError

from holdfast.call import NOBODY, Abilities, Ask, AskId, Call, Caller, Json, Reply, Running, Status
from holdfast.clock import Clock, timeout
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.library.call import EVERYTHING, AskKind, Hears, OnAsk, OnLog, OnProgress, OnStatus, Start, as_json, run
from holdfast.library.errors import InvalidAnswer
from holdfast.servers.server import ServerConversation
from holdfast.servers.warming import LAST, Warming
from holdfast.session.key import Principal, SessionKey
from holdfast.session.watch import answer_for_nobody
from holdfast.wire import jsonrpc

logger = logging.getLogger("holdfast.library")

SessionState: TypeAlias = Literal["cold", "warm", "restored", "lost"]
"""`cold`: none is open; `warm`: the one it was, or the first; `restored`: another than before, and a person should
know; `lost`: what the server remembered is gone, and the next call will say so."""

OnChange: TypeAlias = Callable[[str, Json], None]
"""A notification that belongs to no call: its method and params."""

MAX_PAGES: Final = 1000
ELSEWHERE: Final = "lives in another event loop: use it there, or a BlockingSessionPool, which any thread may call"

M = TypeVar("M", bound=BaseModel)
_Page = TypeVar("_Page", ListToolsResult, ListPromptsResult, ListResourcesResult, ListResourceTemplatesResult)


class PooledSession:
    """A lease of the session of one server, principal and chat. Made by `SessionPool`.

    Leases of the same three share the session; each may be used, and released, by any task. Methods
    raise `ServerError` where the server answers with an error, `CallFailed` where there is no answer,
    `InvalidAnswer` where it is no MCP, and `RuntimeError` once the lease is released. Cancelling a
    method cancels the call at the server.

    `on_progress`, `on_log` and `on_status` are called, or awaited, in the task that waits for the
    result, in order; `on_ask` runs beside it. `timeout` is in seconds, and for the whole call.
    """

    def __init__(
        self,
        conversation: ServerConversation,
        *,
        clock: Clock,
        on_status: OnStatus | None,
        on_change: OnChange | None,
        released: Callable[[PooledSession], None],
    ) -> None:
        self._conversation = conversation
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._on_status = on_status
        self._released = released
        self._listener = _Listener(conversation.key, on_change)
        self._first: str | None = None
        """The session that the lease met first."""
        self._parsed: dict[str, tuple[list[bytes], list[Any]]] = {}
        self._calls = 0
        """Those under way."""
        self.is_released = False
        conversation.attach(self._listener)

    def __repr__(self) -> str:
        return f"<PooledSession {self.server}: {'released' if self.is_released else self.state}>"

    @property
    def server(self) -> str:
        """The configured name of the server."""
        return self._conversation.server.name

    @property
    def state(self) -> SessionState:
        """How the session stands now."""
        pool, key = self._conversation.server.pool, self._conversation.key
        if pool.is_lost(key):
            return "lost"
        session = pool.session_of(key)
        if session is None:
            return "cold"
        if self._first is None:
            self._first = session.id
        return "warm" if session.id == self._first else "restored"

    async def warm(self) -> None:
        """Return once a session is open; `on_status` hears what is waited for. Raises `CallFailed`."""
        self._check()
        if self.state in {"warm", "restored"}:
            return
        ended: asyncio.Future[CallFailed | None] = asyncio.get_running_loop().create_future()
        statuses: asyncio.Queue[Status] = asyncio.Queue()

        def done(failure: CallFailed | None) -> None:
            if not ended.done():
                ended.set_result(failure)

        running = Warming(self._conversation, self._clock, statuses.put_nowait, done).start()
        try:
            while True:
                status = await statuses.get()
                await self._tell(status)
                if status.word in LAST:
                    break
        except BaseException:
            if running is not None and not ended.done():
                running.cancel("the application gave up")
            raise
        failure = await ended
        if failure is not None:
            raise failure
        _ = self.state  # note which session it met

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_log: OnLog | None = None,
        on_ask: OnAsk | None = None,
        asks: Collection[AskKind] = EVERYTHING,
        meta: Mapping[str, Any] | None = None,
    ) -> CallToolResult:
        """Call a tool; a tool that fails says so in `is_error`. `asks` is what `on_ask` can be asked."""
        hears = Hears(self._on_status, on_progress, on_log, on_ask, asks)
        params = {"name": name, "arguments": dict(arguments or {})}
        return read_result(CallToolResult, await self._request("tools/call", params, hears, timeout, meta))

    async def list_tools(self, *, timeout: float | None = None) -> list[Tool]:
        """All tools, of all pages; from what is kept, as long as the server announces no change.

        Here and in the other lists, `timeout` is for each page.
        """
        return await self._list("tools/list", ListToolsResult, lambda page: page.tools, timeout)

    async def list_prompts(self, *, timeout: float | None = None) -> list[Prompt]:
        """All prompts."""
        return await self._list("prompts/list", ListPromptsResult, lambda page: page.prompts, timeout)

    async def list_resources(self, *, timeout: float | None = None) -> list[Resource]:
        """All resources."""
        return await self._list("resources/list", ListResourcesResult, lambda page: page.resources, timeout)

    async def list_resource_templates(self, *, timeout: float | None = None) -> list[ResourceTemplate]:
        """All resource templates."""
        return await self._list(
            "resources/templates/list", ListResourceTemplatesResult, lambda page: page.resource_templates, timeout
        )

    async def read_resource(self, uri: str, *, timeout: float | None = None) -> ReadResourceResult:
        """Read a resource."""
        return read_result(ReadResourceResult, await self.request("resources/read", {"uri": uri}, timeout=timeout))

    async def get_prompt(
        self, name: str, arguments: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> GetPromptResult:
        """Get a prompt."""
        params = {"name": name, "arguments": dict(arguments or {})}
        return read_result(GetPromptResult, await self.request("prompts/get", params, timeout=timeout))

    async def complete(
        self,
        ref: PromptReference | ResourceTemplateReference,
        name: str,
        value: str,
        *,
        context: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CompleteResult:
        """Complete `value` of the argument `name`; `context` are the arguments chosen already."""
        params: dict[str, Any] = {
            "ref": ref.model_dump(by_alias=True, exclude_none=True),
            "argument": {"name": name, "value": value},
        }
        if context:
            params["context"] = {"arguments": dict(context)}
        return read_result(CompleteResult, await self.request("completion/complete", params, timeout=timeout))

    async def subscribe(self, uri: str) -> None:
        """Hear of changes of a resource through `on_change`, in sessions that follow this one too."""
        call = Call("resources/subscribe", {"uri": uri})
        await self._run(lambda call, caller: self._conversation.subscribe(call, caller, self._listener), call, Hears())

    async def unsubscribe(self, uri: str) -> None:
        """Hear no more of them."""
        call = Call("resources/unsubscribe", {"uri": uri})
        await self._run(
            lambda call, caller: self._conversation.unsubscribe(call, caller, self._listener), call, Hears()
        )

    async def request(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> bytes:
        """Send any request; returns the server's `result`, as JSON."""
        return await self._request(method, dict(params or {}), Hears(self._on_status), timeout, None)

    def release(self) -> None:
        """Give the lease back. Idempotent; calls under way go on, and nothing more is begun.

        A session that no chat, user or sharing names ends with its lease, once they have ended.
        """
        if not self.is_released:
            self.is_released = True
            self._released(self)
            self._part()

    # Inside.

    def _check(self) -> None:
        if self.is_released:
            raise RuntimeError("the session was released")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"the session {ELSEWHERE}")

    async def _request(
        self, method: str, params: dict[str, Any], hears: Hears, limit: float | None, meta: Mapping[str, Any] | None
    ) -> bytes:
        if meta:
            params["_meta"] = dict(meta)
        call = Call(method, as_json(params), wants_progress=hears.progress is not None)
        if limit is None:
            return bytes(await self._run(self._begin, call, hears))
        bound = timeout(self._clock, limit)
        try:
            async with bound:
                return bytes(await self._run(self._begin, call, hears))
        except TimeoutError:
            if not bound.is_ended:
                raise  # a callback's own
            raise CallFailed(
                Code.TIMEOUT,
                f"{self.server} did not answer {method} within {limit:g} s; the call was cancelled.",
                server=self.server,
                delivery=Delivery.UNKNOWN,
                retryable=False,
            ) from None

    async def _run(self, start: Start, call: Call, hears: Hears) -> Raw:
        self._check()
        self._calls += 1
        try:
            raw = await run(start, call, hears)
        finally:
            self._calls -= 1
            if self.is_released:
                self._part()
        _ = self.state  # note which session it met
        return raw

    def _part(self) -> None:
        if self._calls == 0:
            self._conversation.detach(self._listener)

    def _begin(self, call: Call, caller: Caller) -> Running | None:
        return self._conversation.start(call, caller, self._listener)

    async def _tell(self, status: Status) -> None:
        if self._on_status is not None:
            told = self._on_status(status)
            if told is not None:
                await told

    async def _list(
        self, method: str, model: type[_Page], items: Callable[[_Page], list[Any]], limit: float | None
    ) -> list[Any]:
        """Every page; parsed once for as long as the bytes stay what they were."""
        pages: list[bytes] = []
        cursor: str | None = None
        while len(pages) < MAX_PAGES:
            page = await self.request(method, {} if cursor is None else {"cursor": cursor}, timeout=limit)
            pages.append(page)
            following = jsonrpc.decode_value(jsonrpc.decode_fields(page).get("nextCursor", b"null"))
            if not isinstance(following, str) or following == cursor:
                break
            cursor = following
        known = self._parsed.get(method)
        if known is None or known[0] != pages:
            parsed = [item for page in pages for item in items(read_result(model, page))]
            known = self._parsed[method] = (pages, parsed)
        return list(known[1])


class _Listener:
    """The `Watcher` of one lease."""

    def __init__(self, key: SessionKey, on_change: OnChange | None) -> None:
        self.id = secrets.token_urlsafe(8)
        self.log_level: str | None = None
        self._key = key
        self._on_change = on_change
        self._subscriptions: set[str] = set()

    @property
    def listens(self) -> bool:
        return False

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        return self._subscriptions if key == self._key else set()

    @property
    def principal(self) -> Principal:
        return self._key.caller or Principal("")

    @property
    def abilities(self) -> Abilities:
        """Questions that belong to no call have nobody to go to."""
        return NOBODY

    def push(self, method: str, params: Raw | None) -> None:
        if self._on_change is not None:
            try:
                self._on_change(method, None if params is None else jsonrpc.decode_value(params))
            except Exception:  # the session is not its alone
                logger.exception("the application's on_change failed at %s", method)

    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        reply(answer_for_nobody(ask))

    def withdraw(self, ask_id: AskId) -> None: ...


def read_result(model: type[M], raw: bytes) -> M:
    """A result as what the specification says it is. Raises `InvalidAnswer`."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidAnswer(f"the server's answer is no {model.__name__}: {error}", raw) from None
