"""What Prometheus scrapes: events counted as they come, and how servers stand when it asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from holdfast import events
from holdfast.observe.counts import AT_GATEWAY, AT_SERVER, Counts
from holdfast.observe.feed import Taker
from holdfast.views import ServerView

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `Metrics.render` returns."""

COUNTED: Final = frozenset({*AT_SERVER, *AT_GATEWAY})
"""The kinds of events that are counted."""


class Metrics:
    """Counts events in plain numbers; nothing becomes text before it is asked for."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._counts = Counts(now)

    @property
    def takers(self) -> tuple[Taker, ...]:
        """Who is to be told what happens, so that it is counted; what each call tells has the shortest way."""
        of_calls = frozenset[type[events.Event]]({events.CallEnded})
        of_requests = frozenset[type[events.Event]]({events.RequestEnded})
        return (
            Taker(self._counts.call_ended, of_calls),
            Taker(self._counts.request_ended, of_requests),
            Taker(self.take, COUNTED - of_calls - of_requests),
        )

    def take(self, event: events.Event) -> None:
        """Count an event."""
        count = AT_SERVER.get(type(event))
        if count is not None:
            concerning: Any = event  # whatever stands in AT_SERVER names its server
            counts = self._counts.servers.get(concerning.server)
            if counts is not None:
                count(counts, event)
        elif (note := AT_GATEWAY.get(type(event))) is not None:
            note(self._counts, event)

    def render(self, servers: Iterable[ServerView], client_sessions: int, dropped: Mapping[str, int]) -> bytes:
        """Everything in Prometheus' text format; the servers, client sessions and drops as they stand now."""
        # prometheus_client brings an HTTP server and a client: loaded when somebody asks, not at each start.
        from holdfast.observe.exposition import render  # noqa: PLC0415

        return render(self._counts, tuple(servers), client_sessions, dropped)
