"""Events and views as Prometheus' text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from holdfast import events
from holdfast.errors import Code
from holdfast.observe.counts import CALL_SECONDS, METHODS, OTHER, OUTCOMES
from holdfast.observe.metrics import CONTENT_TYPE, Metrics
from holdfast.session.lifecycle import State
from holdfast.views import SESSION_STATES, ServerView
from requirements import requirement

ROOT: Final = Path(__file__).resolve().parents[2]
UNITS: Final = ("seconds", "bytes")
NO_BASE_UNITS: Final = ("milliseconds", "ms", "minutes", "hours", "kilobytes", "kib", "mib", "percent")

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def view(name: str = "notes", **fields: Any) -> ServerView:
    known: dict[str, Any] = {
        "transport": "http",
        "scope": "chat",
        "state": "ready",
        "reason": "",
        "title": "Notes 1.0",
        "protocol": "2025-11-25",
        "tools": 3,
        "max_sessions": 1000,
        "max_concurrency": 64,
    }
    return ServerView(name, **(known | fields))


def counting(*names: str) -> Metrics:
    """Metrics of a gateway with these servers."""
    metrics = Metrics(now=lambda: 1_000_000.0)
    for name in names or ("notes",):
        metrics.take(events.ServerAdded(name))
    return metrics


def families(metrics: Metrics, *views: ServerView) -> list[Metric]:
    return list(text_string_to_metric_families(metrics.render(views, 2, {"slow": 3, "away": 1}).decode()))


def series(metrics: Metrics, *views: ServerView) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(metrics, *views)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, *views: ServerView, **labels: str) -> float:
    return series(metrics, *views)[f"holdfast_{name}", frozenset(labels.items())]


def total(metrics: Metrics, name: str) -> float:
    return sum(number for (found, _), number in series(metrics).items() if found == f"holdfast_{name}")


# What is counted.


def test_calls_are_counted_by_method_and_outcome_and_timed() -> None:
    metrics = counting()
    for seconds in (0.004, 0.3, 400.0):
        metrics.take(events.CallEnded("notes", "tools/call", "result", seconds))
    metrics.take(events.CallEnded("notes", "prompts/get", "timeout", 300.0))
    assert value(metrics, "calls_total", server="notes", method="tools/call", outcome="result") == 3
    assert value(metrics, "calls_total", server="notes", method="prompts/get", outcome="timeout") == 1
    assert total(metrics, "calls_total") == 4
    buckets = {le: value(metrics, "call_duration_seconds_bucket", server="notes", le=le) for le in ("0.005", "0.25")}
    assert buckets == {"0.005": 1, "0.25": 1}
    assert value(metrics, "call_duration_seconds_bucket", server="notes", le="0.5") == 2
    assert value(metrics, "call_duration_seconds_bucket", server="notes", le=str(CALL_SECONDS[-1])) == 3
    assert value(metrics, "call_duration_seconds_bucket", server="notes", le="+Inf") == 4
    assert value(metrics, "call_duration_seconds_count", server="notes") == 4
    assert value(metrics, "call_duration_seconds_sum", server="notes") == pytest.approx(700.304)


@requirement("observe:metrics:bounded-series")
def test_nobody_can_make_series_without_end() -> None:
    metrics = counting()
    before = len(series(metrics))
    for number in range(100):
        metrics.take(events.CallEnded("notes", f"made/up-{number}", f"made-up-{number}", 0.1))
        metrics.take(events.SessionClosed("notes", f"s{number}", f"reason {number}"))
        metrics.take(events.CallRefused("notes", f"limit {number}"))
    assert len(series(metrics)) == before
    assert value(metrics, "calls_total", server="notes", method=OTHER, outcome=OTHER) == 100
    for number in range(100):
        metrics.take(events.RequestEnded("mcp", f"M{number}", 405))
    assert value(metrics, "http_requests_total", route="mcp", method=OTHER, status="405") == 100
    assert len(series(metrics)) == before + 1


def test_sessions_are_counted_as_they_open_are_lost_and_close() -> None:
    metrics = counting()
    metrics.take(events.SessionReady("notes", "s1", 0.2, is_reopened=False))
    metrics.take(events.SessionReady("notes", "s2", 0.2, is_reopened=True))
    metrics.take(events.SessionFailed("notes", "s3", "refused"))
    metrics.take(events.SessionLost("notes", "s1", "it exited", was_dirty=True))
    metrics.take(events.SessionClosed("notes", "s2", "idle for too long"))
    for result in ("ready", "reopened", "failed"):
        assert value(metrics, "session_opens_total", server="notes", result=result) == 1
    assert value(metrics, "session_open_duration_seconds_bucket", server="notes", le="0.1") == 0
    assert value(metrics, "session_open_duration_seconds_bucket", server="notes", le="0.25") == 2
    assert value(metrics, "sessions_lost_total", server="notes", dirty="true") == 1
    assert value(metrics, "sessions_lost_total", server="notes", dirty="false") == 0
    assert value(metrics, "sessions_closed_total", server="notes", reason="idle") == 1


def test_repetitions_and_their_refusals_are_counted() -> None:
    metrics = counting()
    metrics.take(events.CallRepeated("notes", "tools/list", "the connection closed"))
    for outcome in ("outcome_unknown", "outcome_unknown", "session_lost", "timeout"):
        metrics.take(events.CallEnded("notes", "tools/call", outcome, 0.1))
    assert value(metrics, "repeats_total", server="notes") == 1
    assert value(metrics, "repeats_refused_total", server="notes", error="outcome_unknown") == 2
    assert value(metrics, "repeats_refused_total", server="notes", error="session_lost") == 1


def test_a_server_stands_as_its_view_says() -> None:
    metrics = counting()
    metrics.take(events.CircuitOpened("notes", "refused", 30.0))
    metrics.take(events.CallRefused("notes", "256 calls wait already"))
    metrics.take(events.CallRefused("notes", "no session or slot came free within 30 s", kind=events.Limit.WAIT))
    stands = view(
        state="failed", circuit="open", sessions={"idle": 2, "active": 1}, sent=5, queued=6, waiting=7, tools=None
    )
    assert value(metrics, "server_state", stands, server="notes", state="failed") == 1
    assert value(metrics, "server_state", stands, server="notes", state="ready") == 0
    assert value(metrics, "circuit_state", stands, server="notes", state="open") == 1
    assert value(metrics, "circuit_state", stands, server="notes", state="closed") == 0
    assert value(metrics, "circuit_openings_total", stands, server="notes") == 1
    sessions = {state: value(metrics, "sessions", stands, server="notes", state=state) for state in SESSION_STATES}
    assert sessions == dict.fromkeys(SESSION_STATES, 0) | {"idle": 2, "active": 1}
    assert value(metrics, "sessions_limit", stands, server="notes") == 1000
    assert value(metrics, "calls_in_flight", stands, server="notes") == 5
    assert value(metrics, "calls_in_flight_limit", stands, server="notes") == 64
    assert value(metrics, "calls_queued", stands, server="notes") == 6
    assert value(metrics, "calls_waiting", stands, server="notes") == 7
    assert value(metrics, "calls_refused_total", stands, server="notes", reason="queue_full") == 1
    assert value(metrics, "calls_refused_total", stands, server="notes", reason="acquire_timeout") == 1
    assert not [name for name, _ in series(metrics, stands) if name == "holdfast_tools"], "not listed yet is not none"
    assert value(metrics, "tools", view(), server="notes") == 3


def test_the_gateway_itself_is_measured() -> None:
    moments = iter((1_000_000.0, 1_000_500.0))
    metrics = Metrics(now=lambda: next(moments))
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == 1_000_000.0
    metrics.take(events.SettingsRefused("servers: missing"))
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == 1_000_000.0
    metrics.take(events.SettingsReloaded(("a",), (), ()))
    metrics.take(events.RequestEnded("mcp", "POST", 200))
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == 1_000_500.0
    assert value(metrics, "config_reloads_total", result="applied") == 1
    assert value(metrics, "config_reloads_total", result="refused") == 1
    assert value(metrics, "http_requests_total", route="mcp", method="POST", status="200") == 1
    assert value(metrics, "client_sessions") == 2
    assert value(metrics, "messages_dropped_total", reason="slow") == 3
    assert value(metrics, "messages_dropped_total", reason="away") == 1
    names = {name for name, _ in series(metrics)}
    assert "holdfast_build_info" in names
    if Path("/proc/self/stat").exists():
        assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= names
        assert series(metrics)["process_start_time_seconds", frozenset()] > 0


# Which series there are.


@requirement("observe:metrics:series-live-as-long-as-their-server")
def test_every_series_of_a_server_is_there_from_the_start_with_0() -> None:
    metrics = counting("notes", "other")
    counters = {
        key: number
        for key, number in series(metrics, view(), view("other")).items()
        if ("server", "notes") in key[1] and re.search("_(total|count|sum|bucket)$", key[0])
    }
    assert set(counters.values()) == {0}
    happened: list[events.Event] = [
        *(events.CallEnded("notes", method, outcome, 1.0) for method in METHODS for outcome in OUTCOMES),
        *(events.SessionClosed("notes", "s1", "over", kind=kind) for kind in events.Ending),
        *(events.SessionReady("notes", "s1", 1.0, is_reopened=again) for again in (False, True)),
        *(events.SessionLost("notes", "s1", "", was_dirty=dirty) for dirty in (False, True)),
        events.SessionFailed("notes", "s1", "refused"),
        *(events.CallRefused("notes", "full", kind=limit) for limit in events.Limit),
        events.CallRepeated("notes", "tools/list", ""),
        events.CircuitOpened("notes", "refused", 30.0),
    ]
    for event in happened:
        metrics.take(event)
    after = series(metrics, view(), view("other"))
    assert {key for key in after if ("server", "notes") in key[1]} >= counters.keys()
    assert after.keys() == series(counting("notes", "other"), view(), view("other")).keys()


@requirement("observe:metrics:series-live-as-long-as-their-server")
def test_the_series_of_a_server_vanish_with_it_and_its_last_calls_do_not_bring_them_back() -> None:
    metrics = counting("notes", "other")
    metrics.take(events.CallEnded("notes", "tools/call", "result", 0.1))
    metrics.take(events.ServerRemoved("notes"))
    metrics.take(events.CallEnded("notes", "tools/call", "result", 0.1))
    metrics.take(events.SessionClosed("notes", "s1", "the gateway is shutting down"))
    servers = {dict(labels).get("server") for _, labels in series(metrics, view("other"))}
    assert servers == {None, "other"}
    metrics.take(events.ServerAdded("notes"))
    assert value(metrics, "calls_total", server="notes", method="tools/call", outcome="result") == 0


def test_a_server_that_is_added_again_while_it_is_served_keeps_its_counts() -> None:
    metrics = counting()
    metrics.take(events.CallEnded("notes", "tools/call", "result", 0.1))
    metrics.take(events.ServerAdded("notes"))
    assert total(metrics, "calls_total") == 1


NAMES: Final = st.sampled_from(["notes", "other"])
SECONDS: Final = st.floats(0, 1000)
HAPPENINGS: Final = st.one_of(
    st.builds(events.CallEnded, NAMES, st.sampled_from([*METHODS, "x/y"]), st.sampled_from([*OUTCOMES, "?"]), SECONDS),
    st.builds(events.SessionReady, NAMES, st.just("s1"), SECONDS, st.booleans()),
    st.builds(events.SessionFailed, NAMES, st.just("s1"), st.text()),
    st.builds(events.SessionLost, NAMES, st.just("s1"), st.text(), st.booleans()),
    st.builds(events.SessionClosed, NAMES, st.just("s1"), st.text(), kind=st.sampled_from(events.Ending)),
    st.builds(events.CallRefused, NAMES, st.text(), kind=st.sampled_from(events.Limit)),
    st.builds(events.CallRepeated, NAMES, st.just("tools/list"), st.text()),
    st.builds(events.CircuitOpened, NAMES, st.text(), SECONDS),
    st.builds(events.CircuitClosed, NAMES),
    st.builds(events.RequestEnded, st.sampled_from(["mcp", "api"]), st.text(max_size=5), st.integers(100, 599)),
    st.builds(events.SettingsRefused, st.text()),
)


@settings(max_examples=25)
@given(st.lists(HAPPENINGS, max_size=8), st.lists(HAPPENINGS, max_size=8))
def test_counters_never_decrease_and_the_text_always_parses(
    before: list[events.Event], then: list[events.Event]
) -> None:
    metrics = counting("notes", "other")
    for event in before:
        metrics.take(event)
    earlier = {key: number for key, number in series(metrics).items() if key[0].startswith("holdfast_")}
    for event in then:
        metrics.take(event)
    later = series(metrics)
    assert [key for key, number in earlier.items() if later[key] < number] == []
    for name in ("notes", "other"):
        assert value(metrics, "call_duration_seconds_count", server=name) == sum(
            number
            for (found, labels), number in later.items()
            if found == "holdfast_calls_total" and ("server", name) in labels
        )


def test_a_name_with_quotes_and_line_ends_stays_one_label() -> None:
    name = 'a"b\\c\nd'
    assert value(counting(name), "repeats_total", server=name) == 0


# What the labels rest on.


def test_the_labels_know_every_outcome_and_every_state() -> None:
    assert {code.name.lower() for code in Code} < set(OUTCOMES)
    assert list(SESSION_STATES) == [state.value for state in State]


def holdfast_families() -> list[Metric]:
    metrics = counting()
    metrics.take(events.RequestEnded("mcp", "POST", 200))
    return [family for family in families(metrics, view()) if family.name.startswith("holdfast_")]


def labels_of(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - {"le"}


@pytest.mark.parametrize("family", holdfast_families(), ids=lambda family: family.name)
def test_names_follow_the_rules_of_prometheus(family: Metric) -> None:
    """As `promtool check metrics` has them: <https://prometheus.io/docs/practices/naming/>."""
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", family.name)
    assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation), "a sentence of help"
    assert not [unit for unit in NO_BASE_UNITS if unit in family.name.split("_")]
    samples = {sample.name for sample in family.samples}
    if family.type == "counter":
        assert samples == {f"{family.name}_total"}
    elif family.type == "histogram":
        assert family.name.endswith(UNITS)
        assert samples == {f"{family.name}_{suffix}" for suffix in ("bucket", "count", "sum")}
    else:
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
    assert labels_of(family) <= {"server", "method", "outcome", "state", "reason", "result", "dirty", "error"} | (
        {"route", "status"} if "http" in family.name else {"version", "python"}
    )


def test_the_text_has_help_and_type_for_each_metric_and_names_it_once() -> None:
    text = counting().render([view()], 0, {}).decode()
    helps, types = (re.findall(rf"^# {word} (\S+)", text, re.MULTILINE) for word in ("HELP", "TYPE"))
    assert helps == types
    assert len(set(helps)) == len(helps)
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_every_metric_is_documented_as_it_is_and_no_other() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    documented = re.findall(r"^\| `(holdfast_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    exposed = [
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            ", ".join(f"`{label}`" for label in sorted(labels_of(family))) or "none",
            family.documentation,
        )
        for family in holdfast_families()
    ]
    assert documented == exposed


def test_every_value_of_a_label_is_documented() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    listed = "\n".join(line for line in page.splitlines() if line.startswith("| `") and "holdfast_" not in line)
    values = {
        found
        for family in holdfast_families()
        for sample in family.samples
        for label, found in sample.labels.items()
        if label not in {"server", "le", "version", "python", "method", "status"} and found != "false"
    } | set(METHODS)
    assert {found for found in values if f"`{found}`" not in listed} == set()


def test_every_metric_that_an_alert_names_exists() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    known = {sample.name for family in holdfast_families() for sample in family.samples}
    alerts = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"holdfast_\w+", "".join(alerts)))
    assert named
    assert named - known == set()
