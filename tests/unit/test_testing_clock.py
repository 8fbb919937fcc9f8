"""`ManualClock`: time that passes only when a test says so."""

import asyncio
from functools import partial

import pytest

from holdfast.clock import Clock
from holdfast.testing.clock import ManualClock, settle


def test_callbacks_run_in_order_of_time_and_see_their_own_instant() -> None:
    clock: Clock = (manual := ManualClock(now=0.0))
    ran: list[tuple[str, float]] = []
    clock.call_later(2, lambda: ran.append(("late", clock.now())))
    clock.call_later(1, lambda: ran.append(("early", clock.now())))
    manual.advance(3)
    assert ran == [("early", 1.0), ("late", 2.0)]
    assert clock.now() == 3.0


def test_of_callbacks_due_at_once_the_first_made_runs_first() -> None:
    clock = ManualClock()
    ran: list[int] = []
    for number in range(5):
        clock.call_later(1, partial(ran.append, number))
    clock.advance(1)
    assert ran == [0, 1, 2, 3, 4]


def test_nothing_runs_before_it_is_due() -> None:
    clock = ManualClock()
    ran: list[str] = []
    clock.call_later(1, lambda: ran.append("x"))
    clock.advance(0.999)
    assert ran == []
    assert clock.pending == 1
    clock.advance(0.002)
    assert ran == ["x"]
    assert clock.pending == 0


def test_a_callback_that_a_callback_adds_runs_in_the_same_advance_when_due_in_it() -> None:
    clock = ManualClock(now=0.0)
    ran: list[float] = []

    def tick() -> None:
        ran.append(clock.now())
        clock.call_later(1, tick)

    clock.call_later(1, tick)
    clock.advance(3.5)
    assert ran == [1.0, 2.0, 3.0]
    assert clock.next_due_at == 4.0


def test_a_cancelled_callback_does_not_run_and_cancelling_twice_is_harmless() -> None:
    clock = ManualClock()
    ran: list[str] = []
    timer = clock.call_later(1, lambda: ran.append("cancelled"))
    timer.cancel()
    timer.cancel()
    assert clock.next_due_at is None
    clock.advance(2)
    assert ran == []


def test_an_exception_of_a_callback_reaches_the_test_and_later_callbacks_stay() -> None:
    clock = ManualClock()
    ran: list[str] = []
    nothing: dict[str, None] = {}
    clock.call_later(1, lambda: nothing["missing"])
    clock.call_later(2, lambda: ran.append("later"))
    with pytest.raises(KeyError):
        clock.advance(5)
    clock.advance(1)
    assert ran == ["later"]


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    clock = ManualClock()
    woken = asyncio.Event()

    async def sleeper() -> None:
        await clock.sleep(10)
        woken.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(sleeper())
        await settle()
        clock.advance(9)
        await settle()
        assert not woken.is_set()
        clock.advance(1)
        await woken.wait()


async def test_a_cancelled_sleeper_leaves_no_callback() -> None:
    clock = ManualClock()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(clock.sleep(10))
        await settle()
        assert clock.pending == 1
        task.cancel()
    assert clock.pending == 0


async def test_settled_advancing_lets_a_loop_of_sleeps_run_all_its_rounds() -> None:
    clock = ManualClock(now=0.0)
    rounds: list[float] = []

    async def loop() -> None:
        while True:
            await clock.sleep(1)
            rounds.append(clock.now())

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(loop())
        await clock.advance_settled(3.5)
        task.cancel()
    assert rounds == [1.0, 2.0, 3.0]
