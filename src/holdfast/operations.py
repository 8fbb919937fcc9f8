"""A running gateway as its operator sees it: how its servers and sessions stand, and what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from holdfast.observe.feed import EventFeed, Taker
from holdfast.observe.metrics import Metrics
from holdfast.servers.directory import Directory
from holdfast.servers.server import Server
from holdfast.views import ServerView, SessionView


class Operations:
    """What the API shows; `takers` are to be told what happens."""

    def __init__(
        self, directory: Directory, count_clients: Callable[[], int], count_drops: Callable[[], Mapping[str, int]]
    ) -> None:
        self.feed = EventFeed()
        self.is_draining = False
        """The gateway is about to end."""
        self.awaited: Iterable[Server] = ()
        """The servers opened at start: those that a reload brings, or makes eager, do not make it unready again."""
        self._metrics = Metrics()
        self._directory = directory
        self._count_clients = count_clients
        self._count_drops = count_drops

    @property
    def takers(self) -> tuple[Taker, ...]:
        """Who counts events, and who passes them to whoever listens."""
        return *self._metrics.takers, self.feed.taker

    @property
    def is_ready(self) -> bool:
        """Every server that is opened at start was tried once, or is served no more."""
        return all(each.was_tried for each in self.awaited if self._directory.find(each.name) is each)

    @property
    def client_sessions(self) -> int:
        """How many sessions clients have with the gateway."""
        return self._count_clients()

    def servers(self) -> list[ServerView]:
        """The servers in the order of the settings."""
        return [server.view() for server in self._directory]

    def sessions(self) -> list[SessionView]:
        """All sessions with servers."""
        return [view for server in self._directory for view in server.pool.views()]

    def close_session(self, session_id: str) -> bool:
        """End a session; False if there is none of that id."""
        return any(server.pool.close_session(session_id) for server in self._directory)

    def metrics(self) -> bytes:
        """All metrics, in the text format of Prometheus."""
        return self._metrics.render(self.servers(), self.client_sessions, self._count_drops())
