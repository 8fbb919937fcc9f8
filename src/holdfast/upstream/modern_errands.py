"""Requests of our own to a server of 2026-07-28, that no caller waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import Call, Fields, Result, RpcError
from holdfast.upstream.modern_answer import MirroredArguments, understood
from holdfast.upstream.modern_call import Leg
from holdfast.upstream.transport import Fault, Sent
from holdfast.wire import jsonrpc

MAX_PAGES: Final = 100
"""Of a list of tools that is read again for its headers."""


class Asks(Protocol):
    """What sends them."""

    def ask(self, leg: Leg, call: Call) -> Sent:
        """Send a request of our own."""
        ...


class Doubt:
    """A discovery that asks whether anything has changed."""

    def __init__(self, resolved: Callable[[Result | RpcError | Fault], None]) -> None:
        self._resolved = resolved

    def progress(self, update: Fields) -> None: ...

    def notify(self, method: str, params: Raw | None) -> None: ...

    def answered(self, outcome: Result | RpcError) -> None:
        self._resolved(outcome)

    def failed(self, fault: Fault) -> None:
        self._resolved(fault)


class Listing:
    """The tools of a server, read again page by page, for the headers that they ask for."""

    def __init__(self, desk: Asks, mirrored: MirroredArguments, then: Callable[[bool], None]) -> None:
        self._desk = desk
        self._mirrored = mirrored
        self._then = then
        self._pages = 0

    def start(self, cursor: str | None = None) -> None:
        """Ask for a page."""
        self._desk.ask(self, Call("tools/list", {} if cursor is None else {"cursor": cursor}))

    def progress(self, update: Fields) -> None: ...

    def notify(self, method: str, params: Raw | None) -> None: ...

    def answered(self, outcome: Result | RpcError) -> None:
        if isinstance(outcome, RpcError):
            self._then(False)
            return
        fields = jsonrpc.decode_fields(outcome.raw)
        understood("tools/list", outcome.raw, fields, self._mirrored)
        self._pages += 1
        cursor = jsonrpc.decode_value(fields.get("nextCursor", b"null"))
        if isinstance(cursor, str) and self._pages < MAX_PAGES:
            self.start(cursor)
        else:
            self._then(True)

    def failed(self, fault: Fault) -> None:
        del fault  # the refusal that led here says more
        self._then(False)
