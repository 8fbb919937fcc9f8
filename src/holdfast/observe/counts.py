"""Events as plain numbers: what the metrics know, and all that a call pays for them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from holdfast import events
from holdfast.errors import Code

OTHER: Final = "other"
"""The label value of whatever is not known beforehand, so that nobody can make series without end."""

METHODS: Final = (
    "tools/call",
    "tools/list",
    "prompts/get",
    "prompts/list",
    "resources/read",
    "resources/list",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    OTHER,
)
"""What a call may ask of a server."""

OUTCOMES: Final = ("result", "error", "cancelled", *(code.name.lower() for code in Code), OTHER)
"""How a call may end, by `events.CallEnded`."""

HTTP_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

CALL_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Up to the default `call_timeout`."""

OPEN_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a server next door to one that `npx` installs first."""


class Histogram:
    """How often a duration fell between which bounds."""

    __slots__ = ("_bounds", "_counts", "_first", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._first = bounds[0]
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[0 if seconds <= self._first else bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def cumulated(self) -> tuple[list[tuple[str, float]], float]:
        """The buckets as Prometheus has them, each with all below it, and the sum of the durations."""
        total, buckets = 0, list[tuple[str, float]]()
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return buckets, self._sum


class ServerCounts:
    """What happened at one server since it was added.

    Every label is there from the start, with 0, so that rates work; what is not known beforehand counts as `OTHER`.
    """

    __slots__ = (
        "call_seconds",
        "calls",
        "circuit_openings",
        "closed",
        "lost",
        "open_seconds",
        "opened",
        "refused",
        "repeated",
    )

    def __init__(self) -> None:
        self.calls = {(method, outcome): 0 for method in METHODS for outcome in OUTCOMES}
        self.call_seconds = Histogram(CALL_SECONDS)
        self.opened = {"ready": 0, "reopened": 0, "failed": 0}
        self.open_seconds = Histogram(OPEN_SECONDS)
        self.lost = {False: 0, True: 0}
        """By whether something that it remembered was lost with it."""
        self.closed = dict.fromkeys(map(str, events.Ending), 0)
        self.refused = dict.fromkeys(map(str, events.Limit), 0)
        self.repeated = 0
        self.circuit_openings = 0

    def call_ended(self, event: events.CallEnded) -> None:
        """Count a call that was answered."""
        method, outcome = event.method, event.outcome
        try:
            self.calls[method, outcome] += 1
        except KeyError:
            self.calls[method if method in METHODS else OTHER, outcome if outcome in OUTCOMES else OTHER] += 1
        self.call_seconds.observe(event.seconds)

    def session_ready(self, event: events.SessionReady) -> None:
        """Count a session that opened."""
        self.opened["reopened" if event.is_reopened else "ready"] += 1
        self.open_seconds.observe(event.seconds)

    def session_failed(self, _: events.SessionFailed) -> None:
        """Count a session that did not open."""
        self.opened["failed"] += 1

    def session_lost(self, event: events.SessionLost) -> None:
        """Count a session that turned out to be gone."""
        self.lost[event.was_dirty] += 1

    def session_closed(self, event: events.SessionClosed) -> None:
        """Count a session that we ended."""
        self.closed[event.kind] += 1

    def call_repeated(self, _: events.CallRepeated) -> None:
        """Count a call that was sent a second time."""
        self.repeated += 1

    def call_refused(self, event: events.CallRefused) -> None:
        """Count a call that a limit kept from being sent."""
        self.refused[event.kind] += 1

    def circuit_opened(self, _: events.CircuitOpened) -> None:
        """Count a server that is left alone for a while."""
        self.circuit_openings += 1

    def ended_with(self, outcome: str) -> int:
        """How many calls ended with `outcome`, whatever they asked."""
        return sum(count for (_, ended), count in self.calls.items() if ended == outcome)


class Counts:
    """What happened in the whole gateway.

    A server is counted between its `ServerAdded` and `ServerRemoved`: what its last calls do after
    that does not bring its series back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.servers: dict[str, ServerCounts] = {}
        self.requests: dict[tuple[str, str, int], int] = {}
        """HTTP requests by route, method and status."""
        self.reloads = {"applied": 0, "refused": 0}
        self.settings_at = now()
        """When the settings in force were read, in seconds since the epoch."""

    def call_ended(self, event: Any) -> None:
        """Count a call that was answered, at its server; `event` is a `CallEnded`."""
        counts = self.servers.get(event.server)
        if counts is not None:
            counts.call_ended(event)

    def request_ended(self, event: Any) -> None:
        """Count an HTTP request; `event` is a `RequestEnded`."""
        method = event.method
        labels = (event.route, method if method in HTTP_METHODS else OTHER, event.status)
        try:
            self.requests[labels] += 1
        except KeyError:
            self.requests[labels] = 1

    def server_added(self, event: events.ServerAdded) -> None:
        """Count what happens at a server from now on."""
        self.servers.setdefault(event.server, ServerCounts())

    def server_removed(self, event: events.ServerRemoved) -> None:
        """Forget what happened at a server."""
        self.servers.pop(event.server, None)

    def settings_reloaded(self, _: events.SettingsReloaded) -> None:
        """Count new settings that are in force."""
        self.reloads["applied"] += 1
        self.settings_at = self._now()

    def settings_refused(self, _: events.SettingsRefused) -> None:
        """Count new settings that had mistakes."""
        self.reloads["refused"] += 1


# Each function is only ever given events of the class that it stands beside.
AT_SERVER: Final[Mapping[type[events.Event], Callable[[ServerCounts, Any], None]]] = {
    events.CallEnded: ServerCounts.call_ended,
    events.SessionReady: ServerCounts.session_ready,
    events.SessionFailed: ServerCounts.session_failed,
    events.SessionLost: ServerCounts.session_lost,
    events.SessionClosed: ServerCounts.session_closed,
    events.CallRepeated: ServerCounts.call_repeated,
    events.CallRefused: ServerCounts.call_refused,
    events.CircuitOpened: ServerCounts.circuit_opened,
}
"""How each event that concerns one server is counted."""

AT_GATEWAY: Final[Mapping[type[events.Event], Callable[[Counts, Any], None]]] = {
    events.RequestEnded: Counts.request_ended,
    events.ServerAdded: Counts.server_added,
    events.ServerRemoved: Counts.server_removed,
    events.SettingsReloaded: Counts.settings_reloaded,
    events.SettingsRefused: Counts.settings_refused,
}
"""How each other event is counted."""
