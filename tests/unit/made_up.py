"""A gateway of which only the operator's side exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.observe.feed import EventFeed, Subscriber
from holdfast.views import ServerView, SessionView


def session(number: int, **fields: Any) -> SessionView:
    known: dict[str, Any] = {
        "id": f"s{number}",
        "server": "browser",
        "key": f"{number:08x}",
        "state": "idle",
        "scope": "chat",
        "client": "open-webui",
        "user": f"user-{number}",
        "age": 60.0 + number,
        "idle": float(number),
        "calls": 0,
        "watchers": 0,
        "subscriptions": 0,
        "is_dirty": False,
    }
    return SessionView(**{**known, **fields})


def server(name: str = "browser", **fields: Any) -> ServerView:
    known: dict[str, Any] = {
        "name": name,
        "transport": "stdio",
        "scope": "chat",
        "state": "ready",
        "reason": "",
        "title": "Playwright 1.0",
        "protocol": "2025-11-25",
        "tools": 21,
        "max_sessions": 64,
        "max_concurrency": 64,
    }
    return ServerView(**{**known, **fields})


class CountingFeed(EventFeed):
    """Knows how many hear it; every event happens at the same moment."""

    def __init__(self) -> None:
        super().__init__(lambda: 1_700_000_000.0)
        self.subscribers = 0

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        unsubscribe = super().subscribe(subscriber)
        self.subscribers += 1

        def leave() -> None:
            self.subscribers -= 1
            unsubscribe()

        return leave


class MadeUpGateway:
    """`Operations` whose every answer the test chooses."""

    def __init__(self, servers: Sequence[ServerView] = (), sessions: Sequence[SessionView] = ()) -> None:
        self.is_ready = True
        self.is_draining = False
        self.client_sessions = 3
        self.feed = CountingFeed()
        self.server_views = list(servers)
        self.session_views = list(sessions)

    def servers(self) -> Sequence[ServerView]:
        return self.server_views

    def sessions(self) -> Sequence[SessionView]:
        return self.session_views

    def close_session(self, session_id: str, /) -> bool:
        before = len(self.session_views)
        self.session_views = [view for view in self.session_views if view.id != session_id]
        return len(self.session_views) < before

    def metrics(self) -> bytes:
        return b"holdfast_sessions 1\n"
