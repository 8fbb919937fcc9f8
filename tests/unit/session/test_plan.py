"""How the next key in line is served, and which sessions are over."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from holdfast.session.key import Principal
from holdfast.session.lifecycle import State
from holdfast.session.plan import Adopt, Evict, Open, Wait, expired, plan


@dataclass(eq=False)
class Seen:
    state: State
    is_spare: bool = False
    opened_at: float = 0.0
    last_used_at: float = 0.0
    is_awaited: bool = False
    principal: Principal | None = None


LEAVING = (State.CLOSED, State.LOST, State.DRAINING)
A, B = Principal("host", "a"), Principal("host", "b")
people = st.sampled_from([None, A, B, Principal("host")])
sessions = st.builds(
    Seen,
    st.sampled_from(list(State)),
    st.booleans(),
    st.floats(0, 100),
    st.floats(0, 100),
    st.just(False),
    people,
)
lines = st.lists(people, min_size=1, max_size=8)
houses = st.lists(sessions, max_size=8)


def test_the_youngest_idle_spare_is_adopted() -> None:
    old, young = Seen(State.IDLE, is_spare=True, opened_at=1), Seen(State.IDLE, is_spare=True, opened_at=2)
    assert plan([young, old, Seen(State.IDLE)], 10, [A]) == Adopt(0, young)


def test_who_can_take_no_spare_is_passed_by_one_who_can_and_gets_a_session_of_its_own() -> None:
    spare = Seen(State.IDLE, is_spare=True)
    assert plan([spare], 10, [A, B], unfit=[0]) == Adopt(1, spare)
    assert plan([spare], 10, [A], unfit=[0]) == Open(0)
    assert plan([spare], 1, [A], unfit=[0]) == Evict(0, spare)


def test_a_spare_that_is_leased_or_still_opens_is_not_adopted() -> None:
    busy = [Seen(State.ACTIVE, is_spare=True), Seen(State.OPENING, is_spare=True)]
    assert plan(busy, 10, [A]) == Open(0)


def test_the_longest_idle_makes_room() -> None:
    old, young = Seen(State.IDLE, last_used_at=1), Seen(State.IDLE, last_used_at=2)
    assert plan([young, old], 2, [A]) == Evict(0, old)


def test_no_more_are_evicted_than_wait() -> None:
    house = [Seen(State.CLOSED), Seen(State.IDLE)]
    assert plan(house, 2, [A]) == Wait()
    assert plan(house, 2, [A, B]) == Evict(1, house[1])


@given(houses, st.integers(1, 8), lines)
def test_a_plan_never_exceeds_the_limit_and_never_touches_what_is_in_use(
    house: list[Seen], limit: int, line: list[Principal | None]
) -> None:
    match plan(house, limit, line):
        case Adopt(_, spare):
            assert spare in house
            assert spare.is_spare
            assert spare.state is State.IDLE
        case Open(_):
            assert len(house) < limit
        case Evict(turn, victim):
            assert victim in house
            assert victim.state is State.IDLE
            assert len(house) >= limit
            assert sum(s.state in LEAVING for s in house) < len(line)
            if line[turn] in greedy(house, limit):
                assert victim.principal == line[turn]
        case Wait():
            assert len(house) >= limit


@given(houses, st.integers(1, 8), lines)
def test_nobody_waits_while_something_could_be_done(
    house: list[Seen], limit: int, line: list[Principal | None]
) -> None:
    if plan(house, limit, line) == Wait():
        idle = [s for s in house if s.state is State.IDLE]
        leaving = sum(s.state in LEAVING for s in house)
        modest = [who for who in line if who not in greedy(house, limit)]
        assert not idle or leaving >= len(modest)
        assert leaving or not any(s.principal in line and s.principal is not None for s in idle)


def greedy(house: list[Seen], limit: int) -> list[Principal]:
    """The users who hold more than their share."""
    held = [s.principal for s in house if s.principal is not None]
    return [who for who in (A, B) if held.count(who) > limit / max(1, len(set(held)))]


def test_a_user_with_more_than_its_share_loses_its_own() -> None:
    others = Seen(State.IDLE, last_used_at=1, principal=B)
    own = [Seen(State.IDLE, last_used_at=n, principal=A) for n in (4, 3, 5)]
    assert plan([others, *own], 4, [A]) == Evict(0, own[1])
    assert plan([others, *own], 4, [B]) == Evict(0, others)


def test_a_user_with_more_than_its_share_and_nothing_idle_evicts_nobody_and_lets_others_pass() -> None:
    house = [Seen(State.IDLE, principal=B), *(Seen(State.ACTIVE, principal=A) for _ in range(3))]
    assert plan(house, 4, [A]) == Wait()
    assert plan(house, 4, [A, A, B]) == Evict(2, house[0])
    house[0].state = State.CLOSED
    assert plan(house, 4, [A, B]) == Wait()
    assert plan(house, 5, [A, B]) == Open(1)


def test_a_client_that_names_no_users_shares_with_nobody() -> None:
    client = Principal("host")
    house = [Seen(State.IDLE, last_used_at=1, principal=B), *(Seen(State.IDLE, last_used_at=2, principal=client),) * 3]
    assert plan(house, 4, [client]) == Evict(0, house[0])


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
