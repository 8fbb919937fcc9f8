"""How many requests a client, and a user whom it names, may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import Limits
from holdfast.identity import rates
from holdfast.identity.rates import BURST, Rates
from holdfast.session.key import Principal
from holdfast.testing.clock import ManualClock
from requirements import requirement

ANN, BOB, HOST = Principal("host", "ann"), Principal("host", "bob"), Principal("host")


@requirement("merged:rates:users")
def test_a_user_may_send_ten_seconds_worth_at_once_and_then_as_many_as_time_gives() -> None:
    clock = ManualClock()
    bound = Rates(Limits(user_rate=2), clock)
    assert [bound.take(ANN) for _ in range(20)] == [0.0] * 20
    assert bound.take(ANN) == pytest.approx(0.5)
    assert bound.take(BOB) == 0
    clock.advance(0.5)
    assert bound.take(ANN) == 0
    assert bound.take(ANN) == pytest.approx(0.5), "a refusal costs nothing"
    clock.advance(1000)
    assert [bound.take(ANN) for _ in range(21)][-1] > 0, "no more than a bucket is saved"


@requirement("merged:rates:users")
def test_who_names_no_user_has_no_rate_unless_its_client_has_one() -> None:
    clock = ManualClock()
    bound = Rates(Limits(user_rate=0.1), clock)
    assert {bound.take(HOST) for _ in range(1000)} == {0.0}
    bound.reconfigure(Limits(user_rate=None, client_rate=0.5))
    assert [bound.take(who) for who in (ANN, BOB, HOST, ANN, BOB)] == [0.0] * 5
    assert bound.take(BOB) == pytest.approx(2), "all users of a client together"
    assert bound.take(Principal("other")) == 0


@requirement("merged:rates:users")
def test_an_array_that_is_larger_than_a_bucket_is_let_through_when_it_is_full_and_paid_for_afterwards() -> None:
    clock = ManualClock()
    bound = Rates(Limits(user_rate=1), clock)
    assert bound.take(ANN, 100) == 0
    assert bound.take(ANN) == pytest.approx(91)
    clock.advance(91)
    assert bound.take(ANN) == 0


@requirement("merged:names:bounded")
def test_users_that_are_quiet_for_long_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_BUCKETS", 2)
    bound = Rates(Limits(user_rate=0.1), ManualClock())
    assert bound.take(ANN) == 0
    assert bound.take(ANN) > 0
    assert [bound.take(Principal("host", str(number))) for number in range(2)] == [0, 0]
    assert bound.take(ANN) == 0


@given(st.floats(0.01, 50), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20)), min_size=1, max_size=60))
def test_in_no_time_is_more_let_through_than_the_rate_gives_and_the_wait_that_is_told_is_enough(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    clock = ManualClock(0.0)
    bound = Rates(Limits(user_rate=rate), clock)
    admitted, most = 0, max(count for _, count in steps)
    for pause, count in steps:
        clock.advance(pause)
        wait = bound.take(ANN, count)
        if wait:
            clock.advance(wait * 1.000001 + 1e-6)
            assert bound.take(ANN, count) == 0
        admitted += count
        assert admitted <= rate * (clock.now() + BURST) + most + 1e-3
