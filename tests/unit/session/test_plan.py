"""How the next key in line is served, and which sessions are over."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from holdfast.session.lifecycle import State
from holdfast.session.plan import Adopt, Evict, Open, Wait, expired, plan


@dataclass(eq=False)
class Seen:
    state: State
    is_spare: bool = False
    opened_at: float = 0.0
    last_used_at: float = 0.0
    is_awaited: bool = False


LEAVING = (State.CLOSED, State.LOST, State.DRAINING)
sessions = st.builds(Seen, st.sampled_from(list(State)), st.booleans(), st.floats(0, 100), st.floats(0, 100))
houses = st.lists(sessions, max_size=8)


def test_the_youngest_idle_spare_is_adopted() -> None:
    old, young = Seen(State.IDLE, is_spare=True, opened_at=1), Seen(State.IDLE, is_spare=True, opened_at=2)
    assert plan([young, old, Seen(State.IDLE)], 10, 1) == Adopt(young)


def test_a_spare_that_is_leased_or_still_opens_is_not_adopted() -> None:
    busy = [Seen(State.ACTIVE, is_spare=True), Seen(State.OPENING, is_spare=True)]
    assert plan(busy, 10, 1) == Open()


def test_the_longest_idle_makes_room() -> None:
    old, young = Seen(State.IDLE, last_used_at=1), Seen(State.IDLE, last_used_at=2)
    assert plan([young, old], 2, 1) == Evict(old)


def test_no_more_are_evicted_than_wait() -> None:
    house = [Seen(State.CLOSED), Seen(State.IDLE)]
    assert plan(house, 2, 1) == Wait()
    assert plan(house, 2, 2) == Evict(house[1])


@given(houses, st.integers(1, 8), st.integers(1, 8))
def test_a_plan_never_exceeds_the_limit_and_never_touches_what_is_in_use(
    house: list[Seen], limit: int, line: int
) -> None:
    match plan(house, limit, line):
        case Adopt(spare):
            assert spare in house
            assert spare.is_spare
            assert spare.state is State.IDLE
        case Open():
            assert len(house) < limit
        case Evict(victim):
            assert victim in house
            assert victim.state is State.IDLE
            assert len(house) >= limit
            assert sum(s.state in LEAVING for s in house) < line
        case Wait():
            assert len(house) >= limit


@given(houses, st.integers(1, 8), st.integers(1, 8))
def test_nobody_waits_while_something_could_be_done(house: list[Seen], limit: int, line: int) -> None:
    if plan(house, limit, line) == Wait():
        has_idle = any(s.state is State.IDLE for s in house)
        assert not has_idle or sum(s.state in LEAVING for s in house) >= line


def over(
    house: list[Seen],
    now: float,
    *,
    idle_timeout: float = 60,
    spare_ttl: float = 10,
    max_age: float | None = None,
    spares: int = 0,
) -> list[Seen]:
    return expired(house, now, idle_timeout=idle_timeout, spare_ttl=spare_ttl, max_age=max_age, spares=spares)


def test_an_idle_session_is_over_at_its_idle_timeout_and_not_before() -> None:
    house = [Seen(State.IDLE, last_used_at=100)]
    assert over(house, 159.9) == []
    assert over(house, 160) == house


def test_the_longest_idle_is_named_first() -> None:
    house = [Seen(State.IDLE, last_used_at=20), Seen(State.IDLE, last_used_at=10)]
    assert over(house, 1000) == house[::-1]


def test_spares_that_are_asked_for_stay_and_the_others_go_after_their_time() -> None:
    house = [Seen(State.IDLE, is_spare=True, opened_at=n, last_used_at=n) for n in range(3)]
    assert over(house, 1000, spares=2) == house[:1]
    assert over(house, 9) == []
    assert over(house, 10) == house[:1]


def test_age_ends_spares_and_others_alike() -> None:
    house = [
        Seen(State.IDLE, opened_at=0, last_used_at=99),
        Seen(State.IDLE, is_spare=True, opened_at=0, last_used_at=99),
        Seen(State.IDLE, opened_at=50, last_used_at=99),
    ]
    assert over(house, 100, max_age=100, spares=1) == house[:2]


@given(houses, st.floats(0, 1000), st.integers(0, 3))
def test_only_what_is_idle_is_ever_over(house: list[Seen], now: float, spares: int) -> None:
    assert all(s.state is State.IDLE for s in over(house, now, max_age=5, spares=spares))


def test_a_session_for_whose_updates_somebody_waits_is_not_idle_for_too_long() -> None:
    awaited = Seen(State.IDLE, is_spare=False, opened_at=0.0, last_used_at=0.0, is_awaited=True)
    over = expired([awaited], 10_000.0, idle_timeout=60.0, spare_ttl=60.0, max_age=None, spares=0)
    assert over == []
    over = expired([awaited], 10_000.0, idle_timeout=60.0, spare_ttl=60.0, max_age=9_000.0, spares=0)
    assert over == [awaited]
