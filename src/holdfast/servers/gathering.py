"""Answers of several servers to one request, gathered without waiting for the slowest for ever."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from msgspec import Raw

from holdfast.call import (
    NOBODY,
    Abilities,
    Ask,
    AskId,
    Call,
    Caller,
    Fields,
    Json,
    Outcome,
    Reply,
    Result,
    RpcError,
    Running,
    Status,
)
from holdfast.clock import Clock, Timer
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.wire import jsonrpc

MAX_PAGES: Final = 1000
N = TypeVar("N", bound=Hashable)
T = TypeVar("T")
Start: TypeAlias = Callable[[Call, Caller], Running | None]
"""Begins a call."""


class Gathering(Generic[N, T]):
    """Calls `done` once: when every name has reported, or when `patience` seconds are over."""

    def __init__(
        self, names: Iterable[N], clock: Clock, patience: float, done: Callable[[dict[N, T], list[N]], None]
    ) -> None:
        self._reports: dict[N, T] = {}
        self._missing = dict.fromkeys(names)
        self._done = done
        self._is_over = False
        self._timer: Timer | None = clock.call_later(patience, self._finish)

    @property
    def is_over(self) -> bool:
        """Whether `done` was called, or never will be."""
        return self._is_over

    def report(self, name: N, report: T) -> None:
        """What `name` had to say; ignored after the end."""
        if self._is_over or name not in self._missing:
            return
        del self._missing[name]
        self._reports[name] = report
        self.settle()

    def settle(self) -> None:
        """Finish if nothing is missing; to be called once after everyone was asked."""
        if not self._missing and not self._is_over:
            self._finish()

    def abandon(self) -> None:
        """Nobody cares any more."""
        self._is_over = True
        self._stop()

    def _finish(self) -> None:
        self._is_over = True
        self._stop()
        self._done(self._reports, list(self._missing))

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@dataclass(frozen=True, slots=True)
class Listed:
    """The list of one server, all pages; `hindrance` says why there is none, empty where it offers none."""

    pages: list[Raw] = field(default_factory=list[Raw])
    hindrance: str | None = None
    is_late: bool = False
    """It was still under way when the others were answered."""


class Deaf:
    """A caller that can be asked and told nothing."""

    @property
    def abilities(self) -> Abilities:
        return NOBODY

    def status(self, status: Status) -> None: ...

    def progress(self, update: Fields) -> None: ...

    def log(self, params: Raw) -> None: ...

    def notify(self, method: str, params: Raw | None) -> None: ...

    def ask(self, ask: Ask) -> None: ...

    def withdraw(self, ask_id: AskId) -> None: ...

    def suspend(self) -> None: ...

    def answer(self, outcome: Outcome) -> None: ...


class Lister(Deaf):
    """The caller of one server's list: follows its pages to the end."""

    def __init__(self, start: Start, method: str, then: Callable[[Listed], None], *, is_modern: bool = False) -> None:
        """`is_modern`: the pages are for a caller of 2026-07-28."""
        self._start = start
        self._method = method
        self._is_modern = is_modern
        self._then: Callable[[Listed], None] | None = then
        self._pages: list[Raw] = []
        self._cursors: set[str] = set()
        self._running: Running | None = None
        self._following: dict[str, Json] | None = None
        """The params of the page to ask for."""
        self._is_asking = False

    def start(self) -> None:
        """Ask for the first page."""
        self._ask({})

    def cancel(self, reason: str) -> None:
        """Stop caring."""
        running, self._then, self._running = self._running, None, None
        if running is not None:
            running.cancel(reason)

    def answer(self, outcome: Outcome) -> None:
        if self._then is None:
            return
        if isinstance(outcome, CallFailed):
            self._end(Listed(hindrance=outcome.message))
        elif isinstance(outcome, RpcError):
            code = jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("code", b"null"))
            offers_none = code == jsonrpc.METHOD_NOT_FOUND
            self._end(Listed() if offers_none else Listed(hindrance=jsonrpc.error_message(outcome.raw)))
        elif isinstance(outcome, Result) and outcome.modern is not None and self._is_modern:
            self._page(outcome.modern)
        else:
            self._page(outcome.raw)

    def _page(self, page: Raw) -> None:
        self._pages.append(page)
        cursor = jsonrpc.decode_value(jsonrpc.decode_fields(page).get("nextCursor", b"null"))
        if isinstance(cursor, str) and cursor not in self._cursors and len(self._pages) < MAX_PAGES:
            self._cursors.add(cursor)
            self._ask({"cursor": cursor})
        else:
            self._end(Listed(self._pages))

    def _ask(self, params: dict[str, Json]) -> None:
        """Ask for a page; the catalogue may answer at once, however many there are, so this is no recursion."""
        self._following = params
        if self._is_asking:
            return
        self._is_asking = True
        while self._then is not None and self._following is not None:
            params, self._following = self._following, None
            running = self._start(Call(self._method, params), self)
            if self._then is not None and self._following is None:  # else it was answered on the spot
                self._running = running
        self._is_asking = False

    def _end(self, listed: Listed) -> None:
        then, self._then, self._running = self._then, None, None
        if then is not None:
            then(listed)


class Later:
    """A call that begins once something else is known. A `Running`."""

    def __init__(self, caller: Caller, server: str) -> None:
        """`server` is what the caller is told of, should it cancel before."""
        self._caller = caller
        self._server = server
        self._running: Running | None = None
        self._is_waiting = True

    def go_on(self, begin: Callable[[], Running | None]) -> None:
        """All is known: the call is what `begin` gives, unless it was cancelled."""
        if self._is_waiting:
            self._is_waiting = False
            self._running = begin()

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        if self._running is not None:
            self._running.reply(ask_id, reply)

    def pause(self) -> None:
        if self._running is not None:
            self._running.pause()

    def resume(self) -> None:
        if self._running is not None:
            self._running.resume()

    def cancel(self, reason: str) -> None:
        if self._running is not None:
            self._running.cancel(reason)
        elif self._is_waiting:
            self._is_waiting = False
            self._abandon(reason)
            self._caller.answer(cancelled(reason, self._server))

    def _abandon(self, reason: str) -> None:
        """Stop finding out."""
        raise NotImplementedError


def cancelled(reason: str, server: str) -> CallFailed:
    """What a call is told that was cancelled before anything came of it."""
    return CallFailed(
        Code.OUTCOME_UNKNOWN,
        f"The call was cancelled: {reason}.",
        server=server,
        delivery=Delivery.NOT_SENT,
        retryable=False,
    )
