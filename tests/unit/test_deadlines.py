"""Many deadlines of one length, with one timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from holdfast.clock import Deadlines, LoopClock
from holdfast.testing.clock import ManualClock


def deadlines(clock: ManualClock, delay: float = 30.0) -> tuple[Deadlines[str], list[tuple[str, float]]]:
    """Deadlines, and what was due when, in seconds since now."""
    began_at = clock.now()
    heard: list[tuple[str, float]] = []
    return Deadlines(clock, delay, lambda item: heard.append((item, clock.now() - began_at))), heard


def test_each_item_is_due_exactly_its_delay_after_it_was_added_the_oldest_first() -> None:
    clock = ManualClock()
    waiting, heard = deadlines(clock)
    for item in "abc":
        waiting.add(item)
        clock.advance(7.5)
    clock.advance(100.0)
    assert heard == [("a", 30.0), ("b", 37.5), ("c", 45.0)]


def test_nothing_is_due_before_its_time() -> None:
    clock = ManualClock()
    waiting, heard = deadlines(clock)
    waiting.add("a")
    clock.advance(20.0)
    waiting.add("b")
    clock.advance(29.75)
    assert heard == [("a", 30.0)]
    clock.advance(0.25)
    assert heard == [("a", 30.0), ("b", 50.0)]


def test_what_was_added_at_one_instant_is_due_at_one_instant_in_order() -> None:
    clock = ManualClock()
    waiting, heard = deadlines(clock)
    for item in "abc":
        waiting.add(item)
    clock.advance(30.0)
    assert heard == [("a", 30.0), ("b", 30.0), ("c", 30.0)]


def test_an_instant_that_the_caller_knows_counts_as_now() -> None:
    clock = ManualClock()
    waiting, heard = deadlines(clock)
    waiting.add("a", clock.now())
    clock.advance(30.0)
    assert heard == [("a", 30.0)]


def test_what_is_discarded_is_never_due_and_does_not_delay_the_next() -> None:
    clock = ManualClock()
    waiting, heard = deadlines(clock)
    for item in "abc":
        waiting.add(item)
        clock.advance(1.0)
    waiting.discard("a")
    waiting.discard("b")
    waiting.discard("never added")
    clock.advance(100.0)
    assert heard == [("c", 32.0)]


def test_what_is_added_again_waits_from_then_on_and_is_due_once() -> None:
    clock = ManualClock()
    waiting, heard = deadlines(clock)
    waiting.add("a")
    clock.advance(1.0)
    waiting.add("b")
    clock.advance(1.0)
    waiting.add("a")
    clock.advance(100.0)
    assert heard == [("b", 31.0), ("a", 32.0)]


def test_all_items_together_have_one_timer() -> None:
    clock = ManualClock()
    waiting, _ = deadlines(clock)
    for number in range(100):
        waiting.add(str(number))
        clock.advance(0.01)
    assert len(waiting) == 100
    assert clock.pending == 1


def test_where_nothing_is_left_the_timer_rings_at_most_once_more() -> None:
    clock = ManualClock()
    waiting, _ = deadlines(clock)
    waiting.add("a")
    waiting.discard("a")
    assert clock.pending == 1
    clock.advance(30.0)
    assert clock.pending == 0
    assert len(waiting) == 0


def test_the_timer_is_set_again_for_what_comes_after_a_pause() -> None:
    clock = ManualClock()
    waiting, heard = deadlines(clock)
    waiting.add("a")
    waiting.discard("a")
    clock.advance(100.0)
    waiting.add("b")
    clock.advance(30.0)
    assert heard == [("b", 130.0)]


def test_an_item_that_is_due_may_add_itself_again_and_discard_others() -> None:
    clock = ManualClock()
    heard: list[tuple[str, float]] = []

    def due(item: str) -> None:
        heard.append((item, clock.now() - 1000.0))
        waiting.discard("b")
        if len(heard) == 1:
            waiting.add(item)

    waiting = Deadlines[str](clock, 30.0, due)
    waiting.add("a")
    waiting.add("b")
    clock.advance(10.0)
    waiting.add("c")
    clock.advance(100.0)
    assert heard == [("a", 30.0), ("c", 40.0), ("a", 60.0)]
    assert clock.pending == 0


async def test_an_item_without_delay_that_adds_itself_again_and_again_lets_others_run() -> None:
    stopped = asyncio.Event()
    rings = 0

    def due(item: str) -> None:
        nonlocal rings
        rings += 1
        if not stopped.is_set() and rings < 1000:
            waiting.add(item)

    waiting = Deadlines[str](LoopClock(), 0.0, due)
    waiting.add("a")
    asyncio.get_running_loop().call_later(0.0, stopped.set)
    async with asyncio.timeout(5):
        await stopped.wait()
    waiting.close()
    assert rings < 1000


def test_a_failure_with_one_item_keeps_no_other_from_being_due() -> None:
    clock = ManualClock()
    heard: list[str] = []

    def due(item: str) -> None:
        if item == "bad":
            raise ValueError(item)
        heard.append(item)

    waiting = Deadlines[str](clock, 30.0, due)
    waiting.add("bad")
    waiting.add("good")
    clock.advance(1.0)
    waiting.add("late")
    with pytest.raises(ValueError, match="bad"):
        clock.advance(29.0)
    clock.advance(0.0)
    assert heard == ["good"]
    clock.advance(1.0)
    assert heard == ["good", "late"]


@pytest.mark.parametrize("is_ringing", [False, True])
def test_closing_forgets_all_items_and_stops_the_timer(is_ringing: bool) -> None:
    clock = ManualClock()
    waiting = Deadlines[str](clock, 30.0, lambda _: waiting.close())
    waiting.add("a")
    waiting.add("b")
    if is_ringing:
        clock.advance(30.0)
    else:
        waiting.close()
    assert len(waiting) == 0
    assert clock.pending == 0


async def test_by_the_clock_of_the_loop_too_every_item_comes_due_in_order() -> None:
    heard: list[int] = []
    all_due: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def due(item: int) -> None:
        heard.append(item)
        if len(heard) == 3:
            all_due.set_result(None)

    add: Callable[[int], None] = Deadlines(LoopClock(), 0.0005, due).add
    async with asyncio.timeout(5):
        for item in range(3):
            add(item)
            await asyncio.sleep(0)
        await all_due
    assert heard == [0, 1, 2]
