"""The table is the specification: these tests hold what must be true of any such table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidTransition
from holdfast.session.lifecycle import NEXT, OPEN, Event, State, advance
from requirements import requirement


@requirement("session:lifecycle:only-the-tables-edges")
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_edge_is_the_tables_or_raises(state: State, event: Event) -> None:
    if (state, event) in NEXT:
        assert advance(state, event) is NEXT[state, event]
    else:
        with pytest.raises(InvalidTransition, match=f"{event} does not happen to a session that is {state}"):
            advance(state, event)


def test_every_state_can_be_reached_from_new() -> None:
    reached, fresh = {State.NEW}, {State.NEW}
    while fresh:
        fresh = {after for (state, _), after in NEXT.items() if state in fresh} - reached
        reached |= fresh
    assert reached == set(State)


def test_every_event_happens_somewhere() -> None:
    assert {event for _, event in NEXT} == set(Event)


def test_whatever_is_not_closed_can_be_closed() -> None:
    for state in set(State) - {State.CLOSED}:
        assert advance(state, Event.CLOSE) is State.CLOSED


def test_every_state_that_was_ever_open_can_be_lost() -> None:
    for state in (State.OPENING, State.IDLE, State.ACTIVE, State.DRAINING):
        assert advance(state, Event.LOSE) is State.LOST


def test_nothing_returns_from_lost_or_closed() -> None:
    assert {after for (state, _), after in NEXT.items() if state is State.CLOSED} == {State.CLOSED}
    assert {after for (state, _), after in NEXT.items() if state is State.LOST} == {State.LOST, State.CLOSED}


def test_only_open_states_take_leases() -> None:
    assert {state for state, event in NEXT if event is Event.LEASED} <= OPEN


@given(st.lists(st.sampled_from(list(Event))))
def test_a_session_that_was_closed_stays_closed(events: list[Event]) -> None:
    state = State.NEW
    was_closed = False
    for event in events:
        try:
            state = advance(state, event)
        except InvalidTransition:
            continue
        was_closed = was_closed or state is State.CLOSED
        assert not was_closed or state is State.CLOSED
