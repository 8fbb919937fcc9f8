"""The metrics by name: each with its type, its labels and what it means. docs/observability.md has the same table."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from holdfast import __version__
from holdfast.observe.counts import Counts, Histogram, ServerCounts
from holdfast.views import SESSION_STATES, ServerView

SERVER_STATES: Final = ("idle", "connecting", "ready", "failed")
CIRCUIT_STATES: Final = ("closed", "open", "half-open")

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, and the number that they stand for."""


def render(counts: Counts, views: tuple[ServerView, ...], client_sessions: int, dropped: Mapping[str, int]) -> bytes:
    """Every metric at this moment, in Prometheus' text format."""
    return generate_latest(Exposition(counts, views, client_sessions, dropped))


class Exposition(Collector):
    """The metrics at one moment, as `prometheus_client` writes them; in no registry but this."""

    def __init__(
        self, counts: Counts, views: tuple[ServerView, ...], client_sessions: int, dropped: Mapping[str, int]
    ) -> None:
        self._counts = counts
        self._views = views
        self._client_sessions = client_sessions
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """Every metric with all its series."""
        yield from self._servers()
        yield from self._sessions()
        yield from self._calls()
        yield from self._gateway()
        yield from ProcessCollector(registry=None).collect()

    def _servers(self) -> Iterator[Metric]:
        yield _gauge(
            "holdfast_server_state",
            "1 for the state in which the server is, 0 for the others; idle has not been tried yet.",
            ("server", "state"),
            self._states(SERVER_STATES, lambda view: view.state),
        )
        yield _gauge(
            "holdfast_circuit_state",
            "1 for the state of the circuit to the server, 0 for the others; open lets no call through.",
            ("server", "state"),
            self._states(CIRCUIT_STATES, lambda view: view.circuit),
        )
        yield _counter(
            "holdfast_circuit_openings_total",
            "How often the server failed so often that it was left alone for a while.",
            ("server",),
            self._counted(lambda counts: counts.circuit_openings),
        )
        yield _gauge(
            "holdfast_tools",
            "Tools of the server; no series before they were listed.",
            ("server",),
            (((view.name,), view.tools) for view in self._views if view.tools is not None),
        )

    def _sessions(self) -> Iterator[Metric]:
        yield _gauge(
            "holdfast_sessions",
            "Sessions with the server.",
            ("server", "state"),
            (((view.name, state), view.sessions.get(state, 0)) for view in self._views for state in SESSION_STATES),
        )
        yield _gauge(
            "holdfast_sessions_limit",
            "Sessions that the server may have at once.",
            ("server",),
            self._viewed(lambda view: view.max_sessions),
        )
        yield _counter(
            "holdfast_session_opens_total",
            "Attempts to open a session: ready, reopened after a loss, or failed.",
            ("server", "result"),
            self._by(lambda counts: counts.opened),
        )
        yield self._histogram(
            "holdfast_session_open_duration_seconds",
            "From the first attempt until the session was open.",
            lambda counts: counts.open_seconds,
        )
        yield _counter(
            "holdfast_sessions_lost_total",
            "Open sessions that turned out to be gone; dirty if they remembered something.",
            ("server", "dirty"),
            self._by(lambda counts: {str(was_dirty).lower(): count for was_dirty, count in counts.lost.items()}),
        )
        yield _counter(
            "holdfast_sessions_closed_total",
            "Sessions that the gateway ended.",
            ("server", "reason"),
            self._by(lambda counts: counts.closed),
        )

    def _calls(self) -> Iterator[Metric]:
        yield _counter(
            "holdfast_calls_total",
            "Calls that were answered, by the server or by the gateway in its place; not lists from the catalogue.",
            ("server", "method", "outcome"),
            self._calls_ended(),
        )
        yield self._histogram(
            "holdfast_call_duration_seconds",
            "From the arrival of a call to its answer.",
            lambda counts: counts.call_seconds,
        )
        yield _gauge(
            "holdfast_calls_in_flight",
            "Calls that the server has not answered.",
            ("server",),
            self._viewed(lambda view: view.sent),
        )
        yield _gauge(
            "holdfast_calls_in_flight_limit",
            "Calls that may be under way at the server at once.",
            ("server",),
            self._viewed(lambda view: view.max_concurrency),
        )
        yield _gauge(
            "holdfast_calls_queued",
            "Calls that wait until fewer are in flight.",
            ("server",),
            self._viewed(lambda view: view.queued),
        )
        yield _gauge(
            "holdfast_calls_waiting",
            "Calls that wait for a session.",
            ("server",),
            self._viewed(lambda view: view.waiting),
        )
        yield _counter(
            "holdfast_calls_refused_total",
            "Calls that were not sent, because a limit was reached.",
            ("server", "reason"),
            self._by(lambda counts: counts.refused),
        )
        yield _counter(
            "holdfast_repeats_total",
            "Calls that were sent a second time, since that was safe.",
            ("server",),
            self._counted(lambda counts: counts.repeated),
        )
        yield _counter(
            "holdfast_repeats_refused_total",
            "Calls that were not sent a second time and ended with this error, since that might have done harm.",
            ("server", "error"),
            self._by(lambda counts: {error: counts.ended_with(error) for error in ("outcome_unknown", "session_lost")}),
        )

    def _gateway(self) -> Iterator[Metric]:
        yield _gauge("holdfast_client_sessions", "Sessions of clients.", (), [((), self._client_sessions)])
        yield _counter(
            "holdfast_messages_dropped_total",
            "Progress, logs and other notifications that no client will see, and never an answer.",
            ("reason",),
            (((reason,), count) for reason, count in self._dropped.items()),
        )
        yield _counter(
            "holdfast_http_requests_total",
            "HTTP requests that were answered or refused.",
            ("route", "method", "status"),
            (((route, method, str(status)), n) for (route, method, status), n in self._counts.requests.items()),
        )
        yield _counter(
            "holdfast_config_reloads_total",
            "New settings that came into force, or had mistakes and were refused.",
            ("result",),
            (((result,), count) for result, count in self._counts.reloads.items()),
        )
        yield _gauge(
            "holdfast_config_last_reload_success_timestamp_seconds",
            "When the settings in force were read, since the epoch.",
            (),
            [((), self._counts.settings_at)],
        )
        yield InfoMetricFamily(
            "holdfast_build",
            "Always 1; the labels say which version runs.",
            {"version": __version__, "python": platform.python_version()},
        )

    def _viewed(self, number: Callable[[ServerView], float]) -> Samples:
        return (((view.name,), number(view)) for view in self._views)

    def _states(self, states: Iterable[str], current: Callable[[ServerView], str]) -> Samples:
        return (((view.name, state), float(state == current(view))) for view in self._views for state in states)

    def _counted(self, number: Callable[[ServerCounts], int]) -> Samples:
        return (((name,), number(counts)) for name, counts in self._counts.servers.items())

    def _by(self, numbers: Callable[[ServerCounts], dict[str, int]]) -> Samples:
        return (
            ((name, label), count)
            for name, counts in self._counts.servers.items()
            for label, count in numbers(counts).items()
        )

    def _calls_ended(self) -> Samples:
        return (
            ((name, *labels), count)
            for name, counts in self._counts.servers.items()
            for labels, count in counts.calls.items()
        )

    def _histogram(self, name: str, meaning: str, of: Callable[[ServerCounts], Histogram]) -> Metric:
        family = HistogramMetricFamily(name, meaning, labels=("server",))
        for server, counts in self._counts.servers.items():
            buckets, total = of(counts).cumulated()
            family.add_metric((server,), buckets, total)
        return family


def _counter(name: str, meaning: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _gauge(name: str, meaning: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
