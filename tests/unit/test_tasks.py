"""The scope that owns background tasks."""

from __future__ import annotations

import asyncio
import logging

import pytest

from holdfast.tasks import TaskScope
from requirements import requirement


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise OSError("disk full")


async def test_work_runs_in_the_background() -> None:
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    async with asyncio.timeout(60), TaskScope() as scope:
        scope.start(work(), "work")
        await done.wait()


@requirement("tasks:a-failure-ends-one-child")
async def test_a_child_that_fails_is_logged_and_its_siblings_live_on(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
        sibling = scope.start(forever(), "sibling")
        await scope.start(fail(), "writing the log")
        assert not sibling.done()
        assert len(scope) == 1
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("holdfast.tasks", logging.ERROR)
    assert record.getMessage() == "writing the log failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


async def test_leaving_cancels_the_children_and_waits_for_them() -> None:
    ended: list[str] = []
    ready = asyncio.Event()

    async def work() -> None:
        try:
            ready.set()
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    async with asyncio.timeout(60):
        async with TaskScope() as scope:
            task = scope.start(work(), "work")
            await ready.wait()
        assert ended == ["cleaned up"]
        assert task.cancelled()
        assert len(scope) == 0


async def test_a_child_cancelled_before_its_first_step_leaves_no_warning() -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
        scope.start(forever(), "never begun").cancel()
        scope.start(forever(), "never begun either")


async def test_cancelling_one_child_leaves_the_others() -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
        one, other = scope.start(forever(), "one"), scope.start(forever(), "other")
        one.cancel()
        await asyncio.wait([one])
        assert one.cancelled()
        assert not other.done()
        assert len(scope) == 1


async def test_cancel_ends_all_children_and_the_scope_can_go_on() -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
        tasks = [scope.start(forever(), f"task {number}") for number in range(3)]
        scope.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert len(scope) == 0
        assert not scope.start(forever(), "later").done()


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    async def block() -> None:
        async with TaskScope() as scope:
            scope.start(forever(), "work")
            raise LookupError("the block's own")

    async with asyncio.timeout(60):
        with pytest.raises(LookupError, match="the block's own"):
            await block()


async def test_cancelling_the_block_cancels_the_children_and_comes_out_as_cancellation() -> None:
    inside = asyncio.Event()
    children: list[asyncio.Task[None]] = []

    async def block() -> None:
        async with TaskScope() as scope:
            children.append(scope.start(forever(), "work"))
            inside.set()
            await forever()

    async with asyncio.timeout(60), TaskScope() as owner:
        task = owner.start(block(), "block")
        await inside.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert children[0].cancelled()


async def test_cancelling_while_the_scope_waits_for_its_children_still_waits_for_them() -> None:
    leaving, may_end = asyncio.Event(), asyncio.Event()
    children: list[asyncio.Task[None]] = []

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            leaving.set()
            while not may_end.is_set():
                try:
                    await may_end.wait()
                except asyncio.CancelledError:
                    continue

    async def block() -> None:
        async with TaskScope() as scope:
            children.append(scope.start(stubborn(), "stubborn"))
            await asyncio.sleep(0)

    async with asyncio.timeout(60), TaskScope() as owner:
        task = owner.start(block(), "block")
        await leaving.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done(), "a scope that is left leaves nothing running"
        may_end.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert children[0].done()


async def test_a_timeout_around_the_scope_is_a_timeout() -> None:
    async def block() -> None:
        async with asyncio.timeout(0), TaskScope() as scope:
            scope.start(forever(), "work")
            await forever()

    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            await block()


async def test_a_child_may_start_another() -> None:
    done = asyncio.Event()

    async def inner() -> None:
        done.set()

    async with asyncio.timeout(60), TaskScope() as scope:

        async def outer() -> None:
            scope.start(inner(), "inner")

        scope.start(outer(), "outer")
        await done.wait()


async def test_a_scope_that_has_ended_starts_nothing() -> None:
    async with asyncio.timeout(60):
        async with TaskScope() as scope:
            pass
        with pytest.raises(RuntimeError):
            scope.start(forever(), "too late")


async def test_tasks_bear_their_names() -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
        assert scope.start(forever(), "ping of notes").get_name() == "ping of notes"
