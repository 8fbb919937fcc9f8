"""A gateway of which only the operator's side exists."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from holdfast.dashboard.stream import Numbered
from holdfast.events import Event
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


class MadeUpFeed:
    """Keeps `length` events, numbered from 1."""

    def __init__(self, length: int = 4) -> None:
        self.recent: deque[Numbered] = deque(maxlen=length)
        self.callbacks: list[Callable[[Numbered], None]] = []
        self._count = 0

    def subscribe(self, callback: Callable[[Numbered], None], /) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def encode(self, event: Event, /) -> Mapping[str, Any]:
        return asdict(event)

    def add(self, event: Event) -> None:
        self._count += 1
        self.recent.append((self._count, 1_700_000_000.0 + self._count, event))
        for callback in list(self.callbacks):
            callback(self.recent[-1])


class MadeUpGateway:
    """`Operations` whose every answer the test chooses."""

    def __init__(self, servers: Sequence[ServerView] = (), sessions: Sequence[SessionView] = ()) -> None:
        self.is_ready = True
        self.is_draining = False
        self.client_sessions = 3
        self.feed = MadeUpFeed()
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
