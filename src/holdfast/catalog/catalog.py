"""What one server says of itself and what it lists, kept so that no session is needed to answer.

Shared by everyone who reaches the server under the same credential and settings; a server whose
lists differ by session says so (`lists: session`), and then nothing but its introduction is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from msgspec import Raw

from holdfast import events
from holdfast.call import Call, Caller, RpcError, Running, Status, StatusWord
from holdfast.catalog.mirrored import Mirrored, mirrored_arguments
from holdfast.catalog.pages import Pages, fetch, hints, length, texts
from holdfast.catalog.waiting import Waiting
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.errors import CallFailed, OpenFailed
from holdfast.session.key import SessionKey
from holdfast.session.pool import Pool
from holdfast.session.retry import Safety, failure, is_read, overloaded, unavailable
from holdfast.session.session import Session
from holdfast.session.watch import Watcher
from holdfast.tasks import TaskScope
from holdfast.upstream.transport import Fault, FaultKind, Hello
from holdfast.wire import jsonrpc

logger = logging.getLogger("holdfast.catalog")

LIST_TTL: Final = 30.0
"""Seconds for which a list is believed where the server does not announce changes."""
MAX_WAITING: Final = 1000
"""Callers who wait for an introduction, or for one list."""
_REPEATED: Final = frozenset({FaultKind.NOT_SENT, FaultKind.CUT, FaultKind.UNAVAILABLE})
"""A list that could not be had for one of these is asked for once more."""

CAPABILITY: Final[Mapping[str, str]] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resources",
}
"""The lists, and the capability that offers each."""

_OF_THE_SESSION: Final = frozenset({"resources/list", "resources/templates/list"})
"""Lists that servers with memory fill with what their session holds (decision 8)."""

Introduced: TypeAlias = Callable[[Hello | CallFailed], None]


@dataclass(slots=True)
class _List:
    pages: Pages = field(default_factory=Pages)
    fetched_at: float = 0.0
    changes: int = 0
    """How often the server said that it changed."""
    is_stale: bool = True
    """The server said that it changed, or it was never fetched."""
    is_fetching: bool = False
    waiting: list[Waiting] = field(default_factory=list["Waiting"])


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
        self.hello: Hello | None = None
        """What the server last said of itself, if it was ever reached."""
        self.footing: tuple[bool, ...] | None = None
        """What of that decides on the session of a request."""
        self._lists = {method: _List() for method in CAPABILITY}
        self._safeties: dict[str, Safety] = {}
        self.mirrored: dict[str, Mirrored] = {}
        """By tool, the arguments that its clients repeat in headers, as far as the list of tools is kept."""
        self._push_since: float | None = None
        """Since when every change is announced; None while that is not so."""
        self._introduced: list[Introduced] = []
        self._is_learning = False
        self.tools: int | None = None
        """How many tools it listed last; None before it did."""
        pool.observer = self

    def reconfigure(self, settings: ServerSettings) -> None:
        """Go by other settings from now on."""
        self._settings = settings

    def introduce(self, then: Introduced, key: SessionKey) -> None:
        """Call `then` with what the server says of itself, at once if it is known."""
        if self.hello is not None:
            then(self.hello)
        elif len(self._introduced) >= MAX_WAITING:
            then(self._overloaded())
        else:
            self._introduced.append(then)
            self._learn(key)

    def start(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running:
        """Answer a list from what is kept where that is allowed; run anything else in a session."""
        if (
            call.method not in CAPABILITY
            or not self._settings.has_common_lists
            or key.has_own_credential
            or call.params.keys() - {"cursor", "_meta"}
        ):
            return self._pool.start(key, call, caller, watcher)
        if not self._is_everybodys(call.method) and (
            self._pool.session_of(key) is not None or not self._pool.can_lend_unused
        ):
            return self._pool.start(key, call, caller, watcher)
        waiting = Waiting(key, call, caller, watcher)
        if self.hello is None or self._lists[call.method].is_stale:
            caller.status(
                Status(StatusWord.CONNECTING, f"Asking {self._settings.name} for its {CAPABILITY[call.method]}.")
            )
        self.introduce(lambda hello: self._answer_introduced(waiting, hello), key)
        return waiting

    async def learn(self, prefer: SessionKey | None) -> None:
        """Learn the introduction and every list. Raises `OpenFailed`."""
        unused = not self._is_shared and self._pool.can_lend_unused
        async with self._pool.borrow(prefer, unused=unused) as session:
            for method in CAPABILITY:
                may_keep = unused or self._is_everybodys(method)
                if self._offers(method) and self._settings.has_common_lists and may_keep:
                    self._must_list(session, method, await self._fetch_in(session, method))
        self._emit(events.ListsLearned(self._settings.name, self.tools or 0))

    def _must_list(self, session: Session, method: str, hindrance: RpcError | Fault | None) -> None:
        """A server that cannot list its tools is not ready; many that have resources have no templates."""
        if isinstance(hindrance, Fault):
            reason = f"{method} got no answer: {hindrance.detail}"
        elif isinstance(hindrance, RpcError) and method == "tools/list":
            reason = f"{method} was refused: {jsonrpc.error_message(hindrance.raw)}"
        else:
            return
        if self._pool.parting is None:  # else it was we who ended the session
            self._emit(events.SessionFailed(self._settings.name, session.id, reason))
        raise OpenFailed(reason)

    def _is_everybodys(self, method: str) -> bool:
        """Whether a list says the same in every session."""
        return self._is_shared or method not in _OF_THE_SESSION

    @property
    def _is_shared(self) -> bool:
        return self._settings.scope == "shared"

    # Observer: what sessions reveal.

    def opened(self, hello: Hello) -> None:
        kept = self.hello
        if kept is not None and hello.is_deaf:
            # Others listen, and what they may promise stands.
            hello = replace(kept, speaks_both=hello.speaks_both) if kept.is_modern else kept
        elif kept is not None and not kept.is_modern and hello.could_shake_hands:
            hello = replace(kept, speaks_both=True, discovery=hello)
        self.hello = hello
        self.footing = (hello.is_modern, hello.speaks_both, hello.is_stateless, hello.could_shake_hands)
        self._introduce(hello)

    def restored(self, key: SessionKey) -> None:
        if key.has_own_credential:
            return  # what it lists is not what is kept
        for method, kept in self._lists.items():
            if kept.pages and self._offers(method) and (self._is_everybodys(method) or self._pool.can_lend_unused):
                self._refresh(method, key)  # and whoever watches is told if it differs

    def lists_changed(self, method: str) -> None:
        for name, kept in self._lists.items():
            if method == f"notifications/{CAPABILITY[name]}/list_changed":
                kept.is_stale = True
                kept.changes += 1

    def push_changed(self, is_up: bool) -> None:
        now = self._clock.now()
        if is_up:
            self._push_since = now if self._push_since is None else self._push_since
        elif self._push_since is not None:
            for kept in self._lists.values():
                if kept.fetched_at >= self._push_since:
                    kept.fetched_at = now  # until now every change would have been announced
            self._push_since = None

    def safety(self, call: Call) -> Safety:
        if call.method != "tools/call":
            return Safety.READ if is_read(call.method) else Safety.UNSAFE
        if not self._settings.trusted or call.target is None:
            return Safety.UNSAFE
        return self._safeties.get(call.target, Safety.UNSAFE)

    # Inside.

    def _offers(self, method: str) -> bool:
        return self.hello is not None and CAPABILITY[method] in self.hello.capabilities

    def _age(self, method: str, kept: _List) -> float:
        """Seconds since what is kept was true for certain: 0 while a change would have been announced."""
        if kept.is_stale:
            return math.inf
        if self.hello is not None and self._push_since is not None and kept.fetched_at >= self._push_since:
            capability = jsonrpc.decode_value(self.hello.capabilities.get(CAPABILITY[method], b"null"))
            if isinstance(capability, dict) and capability.get("listChanged") is True:
                return 0.0
        return self._clock.now() - kept.fetched_at

    def _answer_introduced(self, waiting: Waiting, hello: Hello | CallFailed) -> None:
        if isinstance(hello, CallFailed):
            waiting.answer(hello)
        else:
            self._answer(waiting)

    def _answer(self, waiting: Waiting) -> None:
        if waiting.is_over:
            return
        method = waiting.call.method
        if waiting.key.prefers_modern and self.hello is not None and self.hello.speaks_both:
            # What is kept is as older revisions have it.
            waiting.running = self._pool.start(waiting.key, waiting.call, waiting.caller, waiting.watcher)
            return
        if not self._offers(method):
            message = f"{self._settings.name} offers no {CAPABILITY[method]}."
            waiting.answer(RpcError(Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, message))))
            return
        kept = self._lists[method]
        if kept.is_stale:
            if len(kept.waiting) >= MAX_WAITING:
                waiting.answer(self._overloaded())
                return
            kept.waiting.append(waiting)
            self._refresh(method, waiting.key)
            return
        if self._age(method, kept) >= LIST_TTL:
            self._refresh(method, waiting.key)
        self._serve(waiting, kept)

    def _serve(self, waiting: Waiting, kept: _List) -> None:
        """Answer with a page that is kept, however old."""
        if waiting.is_over:
            return
        cursor = waiting.call.params.get("cursor")
        page = kept.pages.get(cursor) if cursor is None or isinstance(cursor, str) else None
        if page is not None:
            waiting.answer(page if page.modern is None else page.aged(self._age(waiting.call.method, kept)))
            return
        # A cursor of an earlier edition, or none of ours: the server knows what it is worth.
        waiting.running = self._pool.start(waiting.key, waiting.call, waiting.caller, waiting.watcher)

    def _introduce(self, hello: Hello | CallFailed) -> None:
        introduced, self._introduced = self._introduced, []
        for then in introduced:
            try:
                then(hello)
            except Exception:
                logger.exception("an introduction of %s could not be delivered", self._settings.name)

    def _learn(self, key: SessionKey) -> None:
        if not self._is_learning:
            self._is_learning = True
            self._scope.start(self._learn_behind(key), f"learn {self._settings.name}")

    async def _learn_behind(self, key: SessionKey) -> None:
        try:
            async with self._pool.borrow(self._shared(key)):
                pass  # that a session opened is all that is wanted: it told `opened`
        except OpenFailed as error:
            self._introduce(self._unavailable(error))
        finally:
            self._is_learning = False

    def _refresh(self, method: str, key: SessionKey) -> None:
        kept = self._lists[method]
        if not kept.is_fetching:
            kept.is_fetching = True
            self._scope.start(self._fetch(method, key), f"list {self._settings.name} {method}")

    async def _fetch(self, method: str, key: SessionKey) -> None:
        kept = self._lists[method]
        asked, kept.waiting = kept.waiting, []
        hindrance: RpcError | CallFailed | None = self._unavailable(OpenFailed("the gateway failed; its log says why"))
        try:
            hindrance = await self._fetch_in_any(method, key)
        finally:
            kept.is_fetching = False
            late, kept.waiting = kept.waiting, []
            for one in asked:  # who asked before it was fetched is served, even if it has changed since
                if hindrance is None:
                    self._serve(one, kept)
                else:
                    one.answer(hindrance)
            for one in late:
                if hindrance is None:
                    self._answer(one)
                else:
                    one.answer(hindrance)

    async def _fetch_in_any(self, method: str, key: SessionKey) -> RpcError | CallFailed | None:
        """Fetch a list, in another session where the first one turns out to be gone; what hindered it, if anything."""
        try:
            hindrance, may_repeat = await self._try_to_fetch(method, key)
            if may_repeat:
                hindrance, _ = await self._try_to_fetch(method, key)
        except OpenFailed as error:
            return self._unavailable(error)
        if not isinstance(hindrance, Fault):
            return hindrance
        if hindrance.kind is FaultKind.REFUSED and hindrance.error is not None:
            return RpcError(hindrance.error)
        return failure(hindrance, Call(method), self._settings.name)

    async def _try_to_fetch(self, method: str, key: SessionKey) -> tuple[RpcError | Fault | None, bool]:
        """What hindered it, if anything did, and whether another try may go better. Raises `OpenFailed`."""
        unused = not self._is_everybodys(method)
        async with self._pool.borrow(self._shared(key), unused=unused) as session:
            hindrance = await self._fetch_in(session, method)
            if not isinstance(hindrance, Fault):
                return hindrance, False
            if hindrance.kind is FaultKind.REFUSED:
                await self._pool.find_out(session, hindrance.detail)
            return hindrance, hindrance.kind in _REPEATED or not session.is_open

    async def _fetch_in(self, session: Session, method: str) -> RpcError | Fault | None:
        """Fetch all pages of a list in `session`; what hindered it, if anything did."""
        kept = self._lists[method]
        changes = kept.changes
        pages = await fetch(session, method, self._clock, self._settings.call_timeout)
        if not isinstance(pages, dict):
            return pages
        self._keep(method, kept, pages)
        kept.is_stale = kept.changes != changes  # a change announced meanwhile
        return None

    def _keep(self, method: str, kept: _List, pages: Pages) -> None:
        has_changed = bool(kept.pages) and texts(kept.pages) != texts(pages)
        kept.pages = pages
        kept.fetched_at = self._clock.now()
        if method == "tools/list":
            raws = [page.raw for page in pages.values()]
            self.tools = sum(length(raw, "tools") for raw in raws)
            self.mirrored = dict(found for raw in raws for found in mirrored_arguments(raw))
            if self._settings.trusted:
                self._safeties = {name: safety for raw in raws for name, safety in hints(raw)}
        if has_changed and not kept.is_stale:  # else the server has announced it
            self._pool.announce(f"notifications/{CAPABILITY[method]}/list_changed")

    def _overloaded(self) -> CallFailed:
        return overloaded(self._settings.name, f"{MAX_WAITING} callers wait for it already")

    def _shared(self, key: SessionKey) -> SessionKey | None:
        """The key whose session may be opened for a list: only a shared one, else a spare is."""
        return key if not key.is_private else None

    def _unavailable(self, error: OpenFailed) -> CallFailed:
        return unavailable(self._settings.name, str(error), is_unauthorized=error.is_unauthorized)
