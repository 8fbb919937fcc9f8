"""Pages that a server wants visited: who is to hear when they are complete."""

from __future__ import annotations

from typing import Final

from holdfast.call import Fields, RpcError
from holdfast.session.watch import Watcher
from holdfast.wire import jsonrpc

MAX_PAGES: Final = 1000
URL_NEEDED: Final = -32042
"""MCP 2025-11-25, Elicitation: pages must be visited before the call can succeed."""


class ElicitedPages:
    """The elicitations by URL of one session that are not complete; the oldest are forgotten."""

    def __init__(self) -> None:
        self._watchers: dict[str, Watcher] = {}

    def add(self, elicitation_id: str | None, watcher: Watcher | None) -> None:
        """`watcher` is to hear that an elicitation is complete; nothing where there is none, or nobody."""
        if elicitation_id is not None and watcher is not None:
            self._watchers[elicitation_id] = watcher
            if len(self._watchers) > MAX_PAGES:
                del self._watchers[next(iter(self._watchers))]

    def add_all_of(self, error: RpcError, watcher: Watcher | None) -> None:
        """`watcher` is to hear of every page that must be visited first, if that is the error."""
        fields = jsonrpc.decode_fields(error.raw)
        if jsonrpc.decode_value(fields.get("code", b"null")) != URL_NEEDED:
            return
        pages = jsonrpc.decode_items(jsonrpc.decode_fields(fields.get("data", b"{}")).get("elicitations", b"[]"))
        for page in pages[:MAX_PAGES]:
            self.add(_elicitation_id(jsonrpc.decode_fields(page)), watcher)

    def complete(self, fields: Fields) -> Watcher | None:
        """Who is to hear of the notification with these params, which is the last of its elicitation."""
        elicitation_id = _elicitation_id(fields)
        return None if elicitation_id is None else self._watchers.pop(elicitation_id, None)

    def leave(self, watcher: Watcher) -> None:
        """`watcher` is not there any more."""
        self._watchers = {page: to for page, to in self._watchers.items() if to is not watcher}


def _elicitation_id(fields: Fields) -> str | None:
    named = jsonrpc.decode_value(fields.get("elicitationId", b"null"))
    return named if isinstance(named, str) else None
