"""What one server says of itself and what it lists, kept so that no session is needed to answer.

Shared by everyone who reaches the server under the same credential and settings; a server whose
lists differ by session says so (`lists: session`), and then nothing but its introduction is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from msgspec import Raw

from holdfast import events
from holdfast.call import AskId, Call, Caller, Reply, Result, RpcError, Running
from holdfast.clock import Clock, timeout
from holdfast.config import ServerSettings
from holdfast.errors import CallFailed, Code, Delivery, OpenFailed
from holdfast.session.key import SessionKey
from holdfast.session.pool import Pool
from holdfast.session.retry import Safety, is_read
from holdfast.session.session import Session
from holdfast.session.watch import Watcher
from holdfast.tasks import TaskScope
from holdfast.upstream.transport import Fault, FaultKind, Hello
from holdfast.wire import jsonrpc

logger = logging.getLogger("holdfast.catalog")

LIST_TTL: Final = 30.0
"""Seconds for which a list is believed where the server does not announce changes."""
MAX_PAGES: Final = 1000

CAPABILITY: Final[Mapping[str, str]] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resources",
}
"""The lists, and the capability that offers each."""

Introduced: TypeAlias = Callable[[Hello | CallFailed], None]


@dataclass(slots=True)
class _List:
    pages: dict[str | None, Raw] = field(default_factory=dict[str | None, Raw])
    fetched_at: float = 0.0
    is_stale: bool = True
    """The server said that it changed, or it was never fetched."""
    is_fetching: bool = False
    waiting: list[_Waiting] = field(default_factory=list["_Waiting"])


class _Waiting:
    """A `Running` that waits for a list, or goes on in a session."""

    __slots__ = ("call", "caller", "is_over", "key", "running", "watcher")

    def __init__(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None) -> None:
        self.key = key
        self.call = call
        self.caller = caller
        self.watcher = watcher
        self.is_over = False
        self.running: Running | None = None

    def answer(self, outcome: Result | RpcError | CallFailed) -> None:
        if not self.is_over:
            self.is_over = True
            self.caller.answer(outcome)

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        if self.running is not None:
            self.running.reply(ask_id, reply)

    def cancel(self, reason: str) -> None:
        if self.running is not None:
            self.running.cancel(reason)
        else:
            self.answer(
                CallFailed(
                    Code.OUTCOME_UNKNOWN,
                    f"The call was cancelled: {reason}.",
                    server=self.key.server,
                    delivery=Delivery.NOT_SENT,
                    retryable=False,
                )
            )

    def pause(self) -> None:
        if self.running is not None:
            self.running.pause()

    def resume(self) -> None:
        if self.running is not None:
            self.running.resume()


class Catalog:
    """The `Observer` of one pool, and what answers lists and introductions in front of it."""

    def __init__(
        self, settings: ServerSettings, pool: Pool, *, scope: TaskScope, clock: Clock, emit: events.Emit
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._scope = scope
        self._clock = clock
        self._emit = emit
        self._hello: Hello | None = None
        self._lists = {method: _List() for method in CAPABILITY}
        self._safeties: dict[str, Safety] = {}
        self._has_push = False
        self._introduced: list[Introduced] = []
        self._is_learning = False
        pool.observer = self

    @property
    def hello(self) -> Hello | None:
        """What the server last said of itself, if it was ever reached."""
        return self._hello

    def introduce(self, then: Introduced, key: SessionKey) -> None:
        """Call `then` with what the server says of itself, at once if it is known."""
        if self._hello is not None:
            then(self._hello)
            return
        self._introduced.append(then)
        self._learn(key)

    def start(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running:
        """Answer a list from what is kept where that is allowed; run anything else in a session."""
        if (
            call.method not in CAPABILITY
            or self._settings.lists == "session"
            or call.params.keys() - {"cursor", "_meta"}
        ):
            return self._pool.start(key, call, caller, watcher)
        waiting = _Waiting(key, call, caller, watcher)
        if self._hello is None:
            self._introduced.append(lambda hello: self._answer_introduced(waiting, hello))
            self._learn(key)
        else:
            self._answer(waiting)
        return waiting

    async def learn(self, prefer: SessionKey | None) -> None:
        """Learn the introduction and every list. Raises `OpenFailed`."""
        async with self._pool.borrow(prefer) as session:
            for method in CAPABILITY:
                if self._offers(method) and self._settings.lists == "server":
                    await self._fetch_in(session, method)
        tools = sum(_length(page, "tools") for page in self._lists["tools/list"].pages.values())
        self._emit(events.ListsLearned(self._settings.name, tools))

    # Observer: what sessions reveal.

    def opened(self, hello: Hello) -> None:
        self._hello = hello
        introduced, self._introduced = self._introduced, []
        for then in introduced:
            then(hello)

    def restored(self, key: SessionKey) -> None:
        for method, kept in self._lists.items():
            if kept.pages and self._offers(method):
                self._refresh(method, key)  # and whoever watches is told if it differs

    def lists_changed(self, method: str) -> None:
        for name, kept in self._lists.items():
            if method == f"notifications/{CAPABILITY[name]}/list_changed":
                kept.is_stale = True

    def push_changed(self, is_up: bool) -> None:
        if self._has_push and not is_up:
            for kept in self._lists.values():
                kept.fetched_at = self._clock.now()  # until now every change would have been announced
        self._has_push = is_up

    def safety(self, call: Call) -> Safety:
        if is_read(call.method):
            return Safety.READ
        if call.method != "tools/call" or not self._settings.trusted or call.target is None:
            return Safety.UNSAFE
        return self._safeties.get(call.target, Safety.UNSAFE)

    # Inside.

    def _offers(self, method: str) -> bool:
        return self._hello is not None and CAPABILITY[method] in self._hello.capabilities

    def _is_fresh(self, method: str, kept: _List) -> bool:
        if self._hello is not None and self._has_push:
            capability = jsonrpc.decode_value(self._hello.capabilities[CAPABILITY[method]])
            if isinstance(capability, dict) and capability.get("listChanged") is True:
                return True
        return self._clock.now() - kept.fetched_at < LIST_TTL

    def _answer_introduced(self, waiting: _Waiting, hello: Hello | CallFailed) -> None:
        if isinstance(hello, CallFailed):
            waiting.answer(hello)
        else:
            self._answer(waiting)

    def _answer(self, waiting: _Waiting) -> None:
        if waiting.is_over:
            return
        method = waiting.call.method
        if not self._offers(method):
            message = f"{self._settings.name} offers no {CAPABILITY[method]}."
            waiting.answer(RpcError(Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, message))))
            return
        kept = self._lists[method]
        if kept.is_stale:
            kept.waiting.append(waiting)
            self._refresh(method, waiting.key)
            return
        cursor = waiting.call.params.get("cursor")
        page = kept.pages.get(cursor) if cursor is None or isinstance(cursor, str) else None
        if page is None:  # a cursor of an earlier edition, or none of ours: the server knows what it is worth
            waiting.running = self._pool.start(waiting.key, waiting.call, waiting.caller, waiting.watcher)
            return
        if not self._is_fresh(method, kept):
            self._refresh(method, waiting.key)
        waiting.answer(Result(page))

    def _learn(self, key: SessionKey) -> None:
        if not self._is_learning:
            self._is_learning = True
            self._scope.start(self._learn_behind(key), f"learn {self._settings.name}")

    async def _learn_behind(self, key: SessionKey) -> None:
        try:
            async with self._pool.borrow(self._shared(key)):
                pass  # that a session opened is all that is wanted: it told `opened`
        except OpenFailed as error:
            failure = self._failure(str(error), is_unauthorized=error.is_unauthorized)
            introduced, self._introduced = self._introduced, []
            for then in introduced:
                then(failure)
        finally:
            self._is_learning = False

    def _refresh(self, method: str, key: SessionKey) -> None:
        kept = self._lists[method]
        if not kept.is_fetching:
            kept.is_fetching = True
            self._scope.start(self._fetch(method, key), f"list {self._settings.name} {method}")

    async def _fetch(self, method: str, key: SessionKey) -> None:
        kept = self._lists[method]
        failure: RpcError | CallFailed | None = None
        try:
            async with self._pool.borrow(self._shared(key)) as session:
                failure = await self._fetch_in(session, method)
        except OpenFailed as error:
            failure = self._failure(str(error), is_unauthorized=error.is_unauthorized)
        finally:
            kept.is_fetching = False
            waiting, kept.waiting = kept.waiting, []
        for one in waiting:
            if failure is not None:
                one.answer(failure)
            else:
                self._answer(one)

    async def _fetch_in(self, session: Session, method: str) -> RpcError | CallFailed | None:
        """Fetch all pages of a list in `session`; what hindered it, if anything did."""
        kept = self._lists[method]
        was_stale = kept.is_stale
        kept.is_stale = False  # a change announced from here on makes it stale again
        pages: dict[str | None, Raw] = {}
        cursor: str | None = None
        while cursor not in pages and len(pages) < MAX_PAGES:
            outcome = await self._ask(session, method, cursor)
            if not isinstance(outcome, Result):
                kept.is_stale = kept.is_stale or was_stale
                return outcome
            pages[cursor] = outcome.raw.copy()
            following = jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("nextCursor", b"null"))
            if not isinstance(following, str):
                break
            cursor = following
        self._keep(method, kept, pages)
        return None

    async def _ask(self, session: Session, method: str, cursor: str | None) -> Result | RpcError | CallFailed:
        try:
            async with timeout(self._clock, self._settings.call_timeout):
                outcome = await session.request(method, {} if cursor is None else {"cursor": cursor})
        except TimeoutError:
            outcome = Fault(FaultKind.TIMEOUT, f"no answer to {method}")
        if not isinstance(outcome, Fault):
            return outcome
        if outcome.kind is FaultKind.REFUSED:
            session.suspected(outcome)
        return self._failure(outcome.detail, is_unauthorized=outcome.kind is FaultKind.UNAUTHORIZED)

    def _keep(self, method: str, kept: _List, pages: dict[str | None, Raw]) -> None:
        has_changed = bool(kept.pages) and [bytes(p) for p in kept.pages.values()] != [bytes(p) for p in pages.values()]
        kept.pages = pages
        kept.fetched_at = self._clock.now()
        if method == "tools/list" and self._settings.trusted:
            self._safeties = {name: safety for page in pages.values() for name, safety in _hints(page)}
        if has_changed:
            self._pool.announce(f"notifications/{CAPABILITY[method]}/list_changed")

    def _shared(self, key: SessionKey) -> SessionKey | None:
        """The key whose session may be opened for a list: only a shared one, else a spare is."""
        return key if not key.is_private else None

    def _failure(self, reason: str, *, is_unauthorized: bool = False) -> CallFailed:
        return CallFailed(
            Code.UPSTREAM_UNAUTHORIZED if is_unauthorized else Code.UPSTREAM_UNAVAILABLE,
            f"{self._settings.name} is not available: {reason}.",
            server=self._settings.name,
            delivery=Delivery.REFUSED if is_unauthorized else Delivery.NOT_SENT,
            retryable=not is_unauthorized,
        )


def _length(page: Raw, name: str) -> int:
    items = jsonrpc.decode_value(jsonrpc.decode_fields(page).get(name, b"[]"))
    return len(items) if isinstance(items, list) else 0


def _hints(page: Raw) -> list[tuple[str, Safety]]:
    """What a trusted server says of its tools."""
    tools = jsonrpc.decode_value(jsonrpc.decode_fields(page).get("tools", b"[]"))
    hints: list[tuple[str, Safety]] = []
    for tool in tools if isinstance(tools, list) else []:
        annotations = tool.get("annotations") if isinstance(tool, dict) else None
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not isinstance(annotations, dict):
            continue
        if annotations.get("readOnlyHint") is True:
            hints.append((name, Safety.READ_ONLY_TOOL))
        elif annotations.get("idempotentHint") is True:
            hints.append((name, Safety.IDEMPOTENT_TOOL))
    return hints
