"""Blocks with an end: told from outside, or by a clock."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.clock import Bound, timeout
from holdfast.testing.clock import ManualClock


async def test_a_bounded_block_that_is_ended_raises_timeout_error() -> None:
    bound = Bound()
    asyncio.get_running_loop().call_soon(bound.end)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5), bound:
            await asyncio.Event().wait()


async def test_ending_a_block_twice_or_after_it_has_ended_harms_nobody() -> None:
    bound = Bound()
    asyncio.get_running_loop().call_soon(bound.end)
    asyncio.get_running_loop().call_soon(bound.end)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5), bound:
            await asyncio.Event().wait()
    bound.end()
    async with asyncio.timeout(5):
        await asyncio.sleep(0)  # a cancellation that was left over would come here


async def test_a_block_is_over_at_its_time_and_not_before() -> None:
    clock = ManualClock()
    waiting = asyncio.Event()

    async def wait() -> None:
        async with timeout(clock, 30.0):
            waiting.set()
            await asyncio.Event().wait()

    async def wait_in_vain() -> None:
        with pytest.raises(TimeoutError):
            await wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(wait_in_vain())
        await waiting.wait()
        await clock.advance_settled(29.0)
        assert not task.done()
        clock.advance(1.0)


async def test_a_block_that_ends_in_time_leaves_no_timer() -> None:
    clock = ManualClock()
    async with timeout(clock, 30.0):
        assert clock.pending == 1
    assert clock.pending == 0


async def test_an_error_of_the_block_itself_is_not_taken_for_its_time() -> None:
    with pytest.raises(ValueError, match="its own"):
        async with timeout(ManualClock(), 30.0):
            raise ValueError("its own")


async def test_who_is_cancelled_from_outside_is_cancelled_although_its_time_is_over_too() -> None:
    clock = ManualClock()
    waiting = asyncio.Event()

    async def wait() -> None:
        async with timeout(clock, 30.0):
            waiting.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(wait())
        await waiting.wait()
        task.cancel()
        clock.advance(30.0)
    assert task.cancelled()
