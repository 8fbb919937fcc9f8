"""Settings that change while sessions are open: other limits, and servers that are replaced or removed."""

# pyright: reportPrivateUsage=false
# What is left behind shows in private tables only.

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fake_upstream import FakeServer
from holdfast import events
from holdfast.call import Call, RpcError
from holdfast.errors import Code, Delivery, OpenFailed
from holdfast.session.closing import DRAIN_TIMEOUT
from holdfast.session.key import SessionKey
from holdfast.session.lifecycle import State
from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind
from pool_rig import FakeWatcher, PoolRig, pool_rig
from requirements import requirement


def reconfigure(rig: PoolRig, **changes: Any) -> None:
    rig.pool.reconfigure(rig.settings.model_copy(update=changes))


# Other limits.


@requirement("pool:reload:limits-end-nothing")
async def test_other_timeouts_hold_for_open_sessions_and_new_calls() -> None:
    async with pool_rig(idle_timeout=1000.0, call_timeout=300.0) as rig:
        await rig.answered(rig.key("a"))
        old = await rig.call(key=rig.key("b"))
        reconfigure(rig, idle_timeout=60.0, call_timeout=10.0)
        new = await rig.call(key=rig.key("b"))
        await rig.passes(10.0)
        assert new.code is Code.TIMEOUT
        assert not old.is_over
        await rig.passes(56.0)
        assert rig.pool.session_of(rig.key("a")) is None
        assert rig.pool.session_of(rig.key("b")) is not None


@requirement("pool:reload:limits-end-nothing")
async def test_a_call_that_waits_during_a_reload_is_timed_as_when_it_came() -> None:
    async with pool_rig(max_concurrency=1, call_timeout=300.0) as rig:
        first, second = await rig.call(), await rig.call()
        reconfigure(rig, call_timeout=10.0)
        rig.fake.session.calls[0].text("done")
        third = await rig.call()
        await rig.passes(299.0)
        assert first.text == "done"
        assert not second.is_over
        assert third.code is Code.OVERLOADED
        await rig.passes(1.0)
        assert second.code is Code.TIMEOUT


async def test_a_server_whose_sessions_are_dropped_leaves_no_timer_of_their_calls() -> None:
    async with pool_rig(max_concurrency=2) as rig:
        running, waiting, _ = [await rig.call() for _ in range(3)]
        reconfigure(rig, call_timeout=10.0)
        rig.fake.session.calls[0].text("done")
        await settle()
        assert running.is_over
        assert not waiting.is_over
        rig.pool.terminate()
        for caller in (waiting, _):
            caller.running.cancel("enough")
        await settle()
        rig.pool.retire()
        assert rig.clock.pending == 0


@requirement("pool:reload:limits-end-nothing")
async def test_a_lower_limit_closes_only_surplus_idle_sessions_the_longest_idle_first() -> None:
    async with pool_rig(max_sessions=4) as rig:
        for chat in "abc":
            await rig.answered(rig.key(chat))
            await rig.passes(1.0)
        running = await rig.call(key=rig.key("d"))
        reconfigure(rig, max_sessions=2)
        await settle()
        assert [rig.pool.session_of(rig.key(chat)) is not None for chat in "abcd"] == [False, False, True, True]
        assert not running.is_over
        assert (await rig.call(key=rig.key("a"))).code is Code.SESSION_LOST


async def test_sessions_that_are_busy_when_the_limit_sinks_are_closed_when_they_fall_idle() -> None:
    async with pool_rig(max_sessions=3) as rig:
        callers = [await rig.call(key=rig.key(chat)) for chat in "abc"]
        reconfigure(rig, max_sessions=1)
        for call in rig.fake.calls:
            call.text("ok")
        await rig.passes(5.0)
        assert all(caller.is_over for caller in callers)
        assert rig.pool.count(State.IDLE) == 1


async def test_a_higher_limit_serves_who_waits_at_once() -> None:
    async with pool_rig(max_sessions=1, max_concurrency=1) as rig:
        await rig.call("a1", rig.key("a"))
        await rig.call("a2", rig.key("a"))
        await rig.call("b", rig.key("b"))
        reconfigure(rig, max_sessions=2, max_concurrency=3)
        await settle()
        assert [call.name for call in rig.fake.calls] == ["a1", "a2", "b"]


async def test_spares_that_are_asked_for_are_opened_at_once() -> None:
    async with pool_rig() as rig:
        reconfigure(rig, spares=2)
        await settle()
        assert [session.is_spare for session in rig.pool.sessions] == [True, True]


# A server that goes.


@requirement("pool:drain:calls-end-nothing-begins")
async def test_a_drained_server_lets_calls_end_and_begins_none() -> None:
    async with pool_rig(max_sessions=3, max_concurrency=1) as rig:
        await rig.answered(rig.key("idle"))
        running = await rig.call("running", rig.key("a"))
        queued = await rig.call("queued", rig.key("a"))
        rig.fake.holds_openings = True
        opening = await rig.call("opening", rig.key("b"))
        in_line = await rig.call("in line", rig.key("c"))
        draining = rig.scope.start(rig.pool.drain(), "drain")
        await settle()
        for caller in (queued, opening, in_line, await rig.call("late", rig.key("a"))):
            assert caller.code is Code.UPSTREAM_UNAVAILABLE
            assert "srv is no longer served" in caller.failure.message
            assert caller.failure.delivery is Delivery.NOT_SENT
        assert [view.state for view in rig.pool.views()] == ["draining"]
        assert not running.is_over
        rig.fake.calls[-1].progress(1)
        rig.fake.calls[-1].text("done")
        await settle()
        assert running.text == "done"
        assert draining.done()
        assert rig.pool.sessions == []
        assert [call.name for call in rig.fake.calls] == ["tool", "running"]


@requirement("pool:drain:calls-end-nothing-begins")
async def test_calls_of_a_drained_server_have_a_limited_time() -> None:
    async with pool_rig(call_timeout=1000.0) as rig:
        caller = await rig.call()
        draining = rig.scope.start(rig.pool.drain("srv is served elsewhere"), "drain")
        await rig.passes(DRAIN_TIMEOUT - 1.0)
        assert not caller.is_over
        await rig.passes(1.0)
        assert "srv is served elsewhere" in caller.failure.message
        assert caller.failure.delivery is Delivery.UNKNOWN
        assert draining.done()
        assert rig.fake.session.is_closed


async def test_a_drained_server_opens_nothing_for_who_subscribed_nor_for_lists() -> None:
    async with pool_rig(spares=1) as rig:
        watcher = FakeWatcher()
        watcher.subscriptions = {"file:///a"}
        rig.pool.attach(rig.key(), watcher)
        await rig.call(key=rig.key())
        await settle()
        made = len(rig.fake.sessions)
        rig.pool.retire()
        rig.fake.sessions[0].die()
        await rig.passes(10.0)
        assert len(rig.fake.sessions) == made
        listing = await rig.listed()
        assert listing.code is Code.UPSTREAM_UNAVAILABLE
        with pytest.raises(OpenFailed, match="no longer served"):
            async with rig.pool.borrow(rig.key()):
                pass
        assert len(rig.fake.sessions) == made


async def test_a_list_that_is_being_fetched_ends_before_its_session_does() -> None:
    async with pool_rig() as rig:
        del rig.fake.answers["tools/list"]
        listing = await rig.listed()
        rig.pool.retire()
        await settle()
        assert [view.state for view in rig.pool.views()] == ["draining"]
        rig.fake.requests[-1].result(rig.fake.lists["tools/list"])
        await settle()
        assert listing.result["tools"]
        assert rig.pool.sessions == []


async def test_a_refused_call_of_a_draining_session_that_lives_gets_the_servers_error() -> None:
    async with pool_rig() as rig:
        caller = await rig.call()
        rig.pool.retire()
        rig.fake.calls[-1].fail(FaultKind.REFUSED, "404", error={"code": -32000, "message": "no such thing"})
        await settle()
        assert isinstance(caller.outcome, RpcError)
        assert rig.pool.sessions == []


async def test_a_read_that_is_cut_off_while_its_session_drains_is_still_repeated() -> None:
    async with pool_rig() as rig:
        caller = await rig.call(Call("resources/read", {"uri": "file:///a"}))
        rig.pool.retire()
        rig.fake.requests[-1].fail(FaultKind.CUT)
        await rig.passes(0.2)
        rig.fake.requests[-1].result({})
        assert caller.result == {}


async def test_a_drained_server_whose_session_is_lost_is_over() -> None:
    async with pool_rig() as rig:
        caller = await rig.read()
        draining = rig.scope.start(rig.pool.drain(), "drain")
        await settle()
        rig.fake.session.die()
        await settle()
        assert caller.code is Code.OUTCOME_UNKNOWN  # it may have been read
        assert draining.done()


async def test_a_drain_that_is_cancelled_leaves_no_session_behind() -> None:
    async with pool_rig() as rig:
        await rig.call()
        draining = rig.scope.start(rig.pool.drain(), "drain")
        await settle()
        draining.cancel()
        await settle()
        assert rig.fake.session.is_terminated


async def test_calls_that_wait_for_the_probe_are_told_that_the_server_goes() -> None:
    async with pool_rig() as rig:
        for _ in range(5):
            await rig.call()
            rig.fake.calls[-1].fail(FaultKind.CUT)
        await rig.passes(rig.pool.retry_delay)
        probe, waiter = await rig.call(), await rig.call()
        rig.pool.retire()
        assert "no longer served" in waiter.failure.message
        assert not probe.is_over


# A server that is replaced.


def heir(key: SessionKey) -> SessionKey:
    return replace(key, revision="r2", credential="c2")


@requirement("pool:reload:memory-that-goes-is-told")
async def test_whoever_comes_back_to_a_replaced_server_is_told_once_that_its_memory_is_gone() -> None:
    async with pool_rig(idle_timeout=60.0) as old, pool_rig(beside=old) as new:
        await old.answered(old.key("marked"))
        await old.passes(66.0)
        await old.answered(old.key("dirty"))
        await old.read(old.key("clean"))
        old.fake.requests[-1].result({})
        await old.call(key=old.key("running"))
        new.pool.inherit(old.pool, revision="r2", credential="c2")
        old.pool.retire()
        old.fake.calls[-1].text("done")
        for chat in ("marked", "dirty", "running"):
            assert (await new.call(key=heir(new.key(chat)))).code is Code.SESSION_LOST
            await new.answered(heir(new.key(chat)))
        await new.answered(heir(new.key("clean")))
        await new.answered(new.key("dirty"))  # only under the new revision


async def test_what_was_retired_first_is_inherited_all_the_same() -> None:
    async with pool_rig() as old, pool_rig(beside=old) as new:
        await old.answered(old.key())
        old.pool.retire()
        await settle()
        new.pool.inherit(old.pool, revision="r2", credential="c2")
        assert (await new.call(key=heir(new.key()))).code is Code.SESSION_LOST


async def test_nothing_is_inherited_where_it_is_resumed_or_told_already() -> None:
    async with pool_rig() as old, pool_rig(beside=old, on_loss="resume") as new:
        await old.answered(old.key("a"))
        new.pool.inherit(old.pool, revision="r2", credential="c2")
        await new.answered(heir(new.key("a")))
    async with pool_rig() as old, pool_rig(beside=old) as new:
        await old.answered(old.key("a"))
        old.fake.session.die()
        await settle()
        assert (await old.call(key=old.key("a"))).code is Code.SESSION_LOST
        new.pool.inherit(old.pool, revision="r2", credential="c2")
        await new.answered(heir(new.key("a")))


@pytest.mark.parametrize("is_inherited", [True, False])
async def test_the_log_says_that_a_caller_is_told_only_where_one_will_be(is_inherited: bool) -> None:
    async with pool_rig() as rig:
        await rig.answered(rig.key("idle"))
        await rig.call(key=rig.key("running"))
        rig.pool.retire("srv has other settings", is_inherited=is_inherited)
        rig.fake.calls[-1].text("done")
        await settle()
        closed = rig.seen(events.SessionClosed)
        assert [event.reason for event in closed] == ["srv has other settings"] * 2
        assert [event.was_dirty for event in closed] == [is_inherited] * 2


async def test_a_drain_keeps_to_what_was_said_when_the_server_was_retired() -> None:
    async with pool_rig() as rig:
        await rig.call()
        rig.pool.retire("srv has other settings", is_inherited=True)
        rig.scope.start(rig.pool.drain(), "drain")
        await settle()
        assert "srv has other settings" in (await rig.call()).failure.message
        rig.fake.calls[-1].text("done")
        await settle()
        assert [(event.reason, event.was_dirty) for event in rig.seen(events.SessionClosed)] == [
            ("srv has other settings", True)
        ]


async def test_a_server_that_goes_amid_failed_openings_is_tried_no_more() -> None:
    fake = FakeServer()
    fake.open_fault = Fault(FaultKind.INVALID, "it speaks HTML")
    async with pool_rig(fake=fake, spares=1) as rig:
        await rig.passes(30.0)
        assert rig.seen(events.SessionFailed)
        rig.pool.retire()
        await settle()
        made = len(rig.fake.sessions)
        await rig.passes(120.0)
        assert len(rig.fake.sessions) == made
