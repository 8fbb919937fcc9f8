"""Backoff, markers and watchers: small parts of the middle."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.call import LOG_LEVELS, Ask, AskId
from holdfast.session.backoff import Backoff
from holdfast.session.key import Principal, SessionKey
from holdfast.session.markers import MARKER_TTL, MAX_MARKERS, Markers
from holdfast.session.watch import answer_for_nobody, lowest_level, only, subscribers
from holdfast.testing.clock import ManualClock
from pool_rig import FakeWatcher


def key(chat: str) -> SessionKey:
    return SessionKey("s", "r", "c", "chat", Principal("host", "alice"), chat)


# Backoff.


def test_the_first_failure_costs_no_delay() -> None:
    backoff = Backoff(0.25, 30.0, Random(1))
    backoff.failed(100.0, "refused")
    assert backoff.delay(100.0) == 0
    assert backoff.reason == "refused"


@given(st.integers(2, 40), st.integers())
def test_each_further_failure_doubles_the_delay_up_to_the_cap_with_jitter(failures: int, seed: int) -> None:
    backoff = Backoff(0.25, 30.0, Random(seed))
    for _ in range(failures):
        backoff.failed(100.0, "refused")
    ceiling = min(30.0, 0.25 * 2 ** (failures - 2))
    assert ceiling / 2 <= backoff.delay(100.0) <= ceiling
    assert backoff.delay(100.0 + ceiling) == 0


def test_a_success_starts_anew() -> None:
    backoff = Backoff(0.25, 30.0, Random(1))
    for _ in range(10):
        backoff.failed(100.0, "refused")
    backoff.succeeded()
    assert backoff.delay(100.0) == 0
    backoff.failed(100.0, "refused")
    assert backoff.delay(100.0) == 0


# Markers.


def test_a_marker_is_used_up_by_the_first_who_asks() -> None:
    markers = Markers(ManualClock())
    markers.add(key("a"))
    assert markers.pop(key("a"))
    assert not markers.pop(key("a"))
    assert not markers.pop(key("b"))


def test_a_marker_lasts_a_day() -> None:
    clock = ManualClock()
    markers = Markers(clock)
    markers.add(key("a"))
    markers.add(key("b"))
    clock.advance(MARKER_TTL - 1)
    assert markers.pop(key("a"))
    clock.advance(1)
    assert not markers.pop(key("b"))


def test_the_oldest_markers_go_when_there_are_too_many() -> None:
    markers = Markers(ManualClock())
    for n in range(MAX_MARKERS):
        markers.add(key(str(n)))
    markers.add(key("0"))  # anew, so it is the youngest now
    markers.add(key("last"))
    assert len(markers) == MAX_MARKERS
    assert not markers.pop(key("1"))
    assert markers.pop(key("0"))


def test_a_marker_that_nobody_can_come_back_for_is_forgotten() -> None:
    markers = Markers(ManualClock())
    markers.add(key("a"))
    markers.discard(key("a"))
    markers.discard(key("a"))
    assert len(markers) == 0


# Watchers.


@pytest.mark.parametrize(("items", "expected"), [([], None), ([1], 1), ([1, 2], None)])
def test_only_is_the_one_item_if_there_is_exactly_one(items: list[int], expected: int | None) -> None:
    assert only(items) == expected


@given(st.lists(st.sampled_from([None, *LOG_LEVELS, "unheard of"])))
def test_the_lowest_level_is_the_most_talkative_that_anybody_set(levels: list[str | None]) -> None:
    watchers = [FakeWatcher() for _ in levels]
    for watcher, level in zip(watchers, levels, strict=True):
        watcher.log_level = level
    known = [level for level in LOG_LEVELS if level in levels]
    assert lowest_level(watchers) == (known[0] if known else None)


@pytest.mark.parametrize(
    ("subscription", "uri", "expected"),
    [
        ("file:///d", "file:///d", True),
        ("file:///d", "file:///d/a", True),
        ("file:///d/", "file:///d/a", True),
        ("file:///d", "file:///da", False),
        ("file:///d/a", "file:///d", False),
    ],
)
def test_a_subscription_covers_what_lies_below_it(subscription: str, uri: str, expected: bool) -> None:
    watcher = FakeWatcher()
    watcher.subscriptions = {subscription}
    assert subscribers([watcher], None, uri) == ([watcher] if expected else [])


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("elicitation/create", b'{"action":"cancel"}'),
        ("roots/list", b'{"roots":[]}'),
        ("sampling/createMessage", None),
        ("anything/else", None),
    ],
)
def test_nobody_answers_always_the_same_way(method: str, answer: bytes | None) -> None:
    reply = answer_for_nobody(Ask(AskId(1), method, Raw(b"{}")))
    if answer is None:
        assert reply.result is None
        assert reply.error is not None
        assert b"-32601" in bytes(reply.error)
    else:
        assert reply.result is not None
        assert bytes(reply.result) == answer


def test_attempts_that_were_under_way_together_count_once() -> None:
    backoff = Backoff(0.25, 30.0, Random(1))
    for _ in range(10):
        backoff.failed(2.0, "down", started_at=1.0)
    assert backoff.delay(2.0) == 0.0
    backoff.failed(3.0, "down", started_at=2.5)
    assert 0.125 <= backoff.delay(3.0) <= 0.25
