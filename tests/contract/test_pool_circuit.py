"""A server that fails is left alone, and tried with one opening or call: the circuit breaker."""

from __future__ import annotations

from typing import Any

import pytest

from fake_upstream import FakeServer
from holdfast import events
from holdfast.call import Call
from holdfast.errors import Code, Delivery
from holdfast.session.backoff import FAIL_FAST_AFTER
from holdfast.session.breaker import FAILURES, WINDOW
from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind
from pool_rig import FakeCaller, PoolRig, pool_rig
from requirements import requirement

HTML = Fault(FaultKind.INVALID, "it speaks HTML")
STDIO: dict[str, Any] = {"url": None, "command": ("server",)}


def circuit(rig: PoolRig) -> str:
    return rig.pool.circuit


async def fail(rig: PoolRig, times: int = 1, kind: FaultKind = FaultKind.CUT) -> FakeCaller:
    """Tool calls, one after another, that the server gives no answer."""
    caller = FakeCaller()
    for _ in range(times):
        caller = await rig.call()
        rig.fake.calls[-1].fail(kind, "the connection was lost")
        await settle()
    return caller


async def fail_openings(rig: PoolRig, times: int = FAILURES) -> None:
    rig.fake.open_fault = HTML
    for n in range(times):
        await rig.call(key=rig.key(f"f{n}"))
        await rig.passes(FAIL_FAST_AFTER)


async def waits_until_half_open(rig: PoolRig) -> None:
    await rig.passes(rig.pool.retry_delay)
    assert circuit(rig) == "half-open"


# It opens.


@requirement("pool:circuit:opens-and-tells-at-once")
@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.FAILED, FaultKind.UNAVAILABLE, FaultKind.INVALID])
async def test_after_five_failures_in_a_row_callers_are_told_at_once(kind: FaultKind) -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES - 1, kind)
        assert circuit(rig) == "closed"
        await fail(rig, 1, kind)
        assert circuit(rig) == "open"
        (opened,) = rig.seen(events.CircuitOpened)
        assert opened.reason == "the connection was lost"
        assert 1.0 <= opened.seconds <= 2.0
        sent = len(rig.fake.calls)
        refused = await rig.call()
        assert len(rig.fake.calls) == sent
        assert refused.code is Code.UPSTREAM_UNAVAILABLE
        assert (refused.failure.delivery, refused.failure.retryable) == (Delivery.NOT_SENT, True)
        assert "the next attempt is in" in refused.failure.message


async def test_calls_that_time_out_one_after_another_open_the_circuit() -> None:
    async with pool_rig(call_timeout=10.0) as rig:
        for _ in range(FAILURES):
            await rig.call()
            await rig.passes(10.0)
        assert circuit(rig) == "open"


async def test_an_answer_in_between_keeps_it_closed() -> None:
    async with pool_rig() as rig:
        for _ in range(3):
            await fail(rig, FAILURES - 1)
            await rig.call()
            rig.fake.calls[-1].error(-32000)  # an answer, if no welcome one
            await settle()
        assert circuit(rig) == "closed"


async def test_an_opening_in_between_keeps_it_closed() -> None:
    async with pool_rig() as rig:
        for n in range(3):
            await rig.call(key=rig.key(f"c{n}"))
            for _ in range(FAILURES - 1):
                await rig.call(key=rig.key(f"c{n}"))
                rig.fake.calls[-1].fail(FaultKind.CUT)
                await settle()
        assert circuit(rig) == "closed"


async def test_failures_that_are_far_apart_keep_it_closed() -> None:
    async with pool_rig() as rig:
        for _ in range(3 * FAILURES):
            await fail(rig)
            await rig.passes(WINDOW / (FAILURES - 1) + 1.0)
        assert circuit(rig) == "closed"


async def test_calls_that_are_cut_off_together_count_once() -> None:
    async with pool_rig() as rig:
        for _ in range(FAILURES - 1):
            callers = [await rig.call() for _ in range(10)]
            await rig.passes(0.1)
            for call in rig.fake.calls[-10:]:
                call.fail(FaultKind.CUT)
                await rig.passes(0.01)
            assert all(caller.is_over for caller in callers)
        assert circuit(rig) == "closed"
        await fail(rig)
        assert circuit(rig) == "open"


async def test_calls_that_wait_for_a_slot_are_told_when_it_opens() -> None:
    async with pool_rig(max_concurrency=1) as rig:
        await fail(rig, FAILURES - 1)
        await rig.call()
        queued = await rig.call()
        rig.fake.calls[-1].fail(FaultKind.CUT)
        assert queued.code is Code.UPSTREAM_UNAVAILABLE
        assert queued.failure.delivery is Delivery.NOT_SENT


async def test_cancelled_calls_and_refused_credentials_do_not_count() -> None:
    async with pool_rig() as rig:
        for _ in range(2 * FAILURES):
            caller = await rig.call()
            caller.running.cancel("the client left")
            await rig.call()
            rig.fake.calls[-1].fail(FaultKind.UNAUTHORIZED)
        assert circuit(rig) == "closed"


# The probe.


@requirement("pool:circuit:one-probe")
async def test_when_its_time_is_over_one_call_goes_through_and_its_answer_lets_the_others_go() -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES)
        await waits_until_half_open(rig)
        callers = [await rig.call(f"t{n}", rig.key()) for n in range(3)]
        assert [call.name for call in rig.fake.calls[FAILURES:]] == ["t0"]
        assert [caller.statuses for caller in callers] == [[], ["waiting"], ["waiting"]]
        rig.fake.calls[-1].text("up")
        await settle()
        assert circuit(rig) == "closed"
        assert len(rig.seen(events.CircuitClosed)) == 1
        assert [call.name for call in rig.fake.calls[FAILURES:]] == ["t0", "t1", "t2"]


@requirement("pool:circuit:one-probe")
async def test_a_probe_that_fails_opens_it_for_longer_and_those_who_wait_are_told() -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES)
        for _ in range(4):
            await waits_until_half_open(rig)
            probe, waiter = await rig.call(), await rig.call()
            rig.fake.calls[-1].fail(FaultKind.CUT)
            assert probe.code is Code.OUTCOME_UNKNOWN
            assert waiter.code is Code.UPSTREAM_UNAVAILABLE
        seconds = [event.seconds for event in rig.seen(events.CircuitOpened)]
        assert len(seconds) == 5
        for lasted, ceiling in zip(seconds, [2.0, 4.0, 5.0, 5.0, 5.0], strict=True):
            assert ceiling / 2 <= lasted <= ceiling
        assert rig.seen(events.CircuitClosed) == []


async def test_callers_who_come_shortly_before_the_attempt_wait_for_it() -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES)
        await rig.passes(rig.pool.retry_delay - 0.5)
        callers = [await rig.call(f"t{n}") for n in range(2)]
        assert not any(caller.is_over for caller in callers)
        await rig.passes(0.5)
        assert [call.name for call in rig.fake.calls[FAILURES:]] == ["t0"]


async def test_those_who_wait_for_the_probe_wait_no_longer_than_for_a_session() -> None:
    async with pool_rig(acquire_timeout=30.0) as rig:
        await fail(rig, FAILURES)
        await waits_until_half_open(rig)
        probe, waiter = await rig.call(), await rig.call()
        await rig.passes(29.0)
        assert not waiter.is_over
        await rig.passes(1.0)
        assert waiter.code is Code.OVERLOADED
        assert not probe.is_over


async def test_no_more_calls_wait_for_the_probe_than_for_a_slot() -> None:
    async with pool_rig(max_queue=4) as rig:
        await fail(rig, FAILURES)
        await waits_until_half_open(rig)
        callers = [await rig.call(f"t{n}") for n in range(10)]
        assert rig.pool.queued == 4
        assert [caller.code for caller in callers[5:]] == [Code.OVERLOADED] * 5
        assert [event.kind for event in rig.seen(events.CallRefused)] == [events.Limit.QUEUE] * 5
        rig.fake.calls[-1].text("up")
        await settle()
        assert not any(caller.is_over for caller in callers[1:5]), "who was let wait is let go on"


async def test_a_probe_that_is_cancelled_hands_on_to_the_next() -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES)
        await waits_until_half_open(rig)
        callers = [await rig.call(f"t{n}") for n in range(3)]
        callers[0].running.cancel("the client left")
        await settle()
        assert [call.name for call in rig.fake.calls[FAILURES:]] == ["t0", "t1"]


async def test_a_probe_that_makes_progress_has_shown_enough() -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES)
        await waits_until_half_open(rig)
        callers = [await rig.call(f"t{n}") for n in range(2)]
        rig.fake.calls[-1].progress(1)
        await settle()
        assert circuit(rig) == "closed"
        assert [call.name for call in rig.fake.calls[FAILURES:]] == ["t0", "t1"]
        assert not any(caller.is_over for caller in callers)


async def test_a_late_answer_to_an_earlier_call_closes_it_as_well() -> None:
    async with pool_rig() as rig:
        early = await rig.call("early")
        await fail(rig, FAILURES)
        rig.fake.calls[0].text("at last")
        assert early.text == "at last"
        assert circuit(rig) == "closed"
        await rig.answered()


async def test_a_late_failure_of_an_earlier_call_does_not_prolong_it() -> None:
    async with pool_rig() as rig:
        await rig.call("early")
        await fail(rig, FAILURES)
        left = rig.pool.retry_delay
        rig.fake.calls[0].fail(FaultKind.CUT)
        assert rig.pool.retry_delay == left
        await waits_until_half_open(rig)
        await rig.answered()


@pytest.mark.parametrize("is_probe", [True, False], ids=["the-probe", "who-waits-for-it"])
async def test_a_call_whose_session_is_lost_at_the_circuit_goes_on_in_the_next(is_probe: bool) -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES)
        await rig.read(rig.key("b"))  # told at once
        await waits_until_half_open(rig)
        first = await rig.read()
        second = await rig.read()
        rig.fake.is_known = False
        rig.fake.requests[-1].fail(FaultKind.REFUSED, "404")
        await rig.passes(3.0)
        for request in rig.fake.session.got("resources/read"):
            request.result({})
        await settle()
        for request in rig.fake.session.got("resources/read"):
            request.result({})
        caller = first if is_probe else second
        assert caller.is_over
        assert circuit(rig) == "closed"


# Openings.


@requirement("pool:circuit:one-probe")
async def test_after_failed_openings_one_is_tried_while_the_others_wait_in_line() -> None:
    async with pool_rig() as rig:
        await fail_openings(rig)
        assert [type(e) for e in rig.events if isinstance(e, events.CircuitOpened)] == [events.CircuitOpened]
        rig.fake.open_fault = None
        rig.fake.holds_openings = True
        if circuit(rig) == "open":
            await waits_until_half_open(rig)
        tried = len(rig.fake.sessions)
        callers = [await rig.call(f"t{n}", rig.key(f"c{n}")) for n in range(3)]
        await rig.passes(10.0)
        assert len(rig.fake.sessions) == tried + 1
        rig.fake.holds_openings = False
        rig.fake.session.let_open()
        await settle()
        assert circuit(rig) == "closed"
        assert len(rig.fake.sessions) == tried + 3
        for call in rig.fake.calls[-3:]:
            call.text("up")
        assert [caller.text for caller in callers] == ["up"] * 3


async def test_an_opening_that_is_the_probe_and_fails_opens_it_again() -> None:
    async with pool_rig() as rig:
        await fail_openings(rig)
        if circuit(rig) == "open":
            await waits_until_half_open(rig)
        tried = len(rig.fake.sessions)
        rig.fake.holds_openings = True
        callers = [await rig.call(key=rig.key(f"c{n}")) for n in range(3)]
        rig.fake.session.let_open(HTML)
        await settle()
        assert len(rig.fake.sessions) == tried + 1
        assert [caller.code for caller in callers] == [Code.UPSTREAM_UNAVAILABLE] * 3
        assert circuit(rig) == "open"


async def test_an_opening_that_is_ended_as_the_probe_hands_on_to_the_next() -> None:
    async with pool_rig() as rig:
        await fail_openings(rig)
        if circuit(rig) == "open":
            await waits_until_half_open(rig)
        rig.fake.open_fault = None
        rig.fake.holds_openings = True
        ended = await rig.call(key=rig.key("a"))
        waiter = await rig.call(key=rig.key("b"))
        rig.fake.holds_openings = False
        assert rig.pool.close_session(rig.pool.views()[0].id)
        await settle()
        assert ended.is_over
        rig.fake.calls[-1].text("up")
        assert waiter.text == "up"


@requirement("pool:circuit:open-sessions-outlive-failed-openings")
async def test_openings_that_fail_keep_nobody_from_a_session_that_is_open() -> None:
    async with pool_rig() as rig:
        await rig.answered(rig.key("mine"))
        await fail_openings(rig)
        assert circuit(rig) != "closed"
        await rig.answered(rig.key("mine"))
        assert circuit(rig) == "closed"


async def test_the_lists_are_learned_by_the_probe_and_not_beside_it() -> None:
    async with pool_rig(acquire_timeout=30.0) as rig:
        await fail_openings(rig)
        if circuit(rig) == "open":
            await waits_until_half_open(rig)
        rig.fake.open_fault = None
        rig.fake.holds_openings = True
        probe = await rig.call(key=rig.key("a"))
        tried = len(rig.fake.sessions)
        listing = await rig.listed(key=rig.private_key())
        assert len(rig.fake.sessions) == tried
        rig.fake.holds_openings = False
        rig.fake.session.let_open()
        await settle()
        assert listing.result["tools"]
        rig.fake.calls[-1].text("up")
        assert probe.text == "up"


async def test_no_spare_is_opened_beside_the_probe() -> None:
    fake = FakeServer()
    fake.open_fault = HTML
    async with pool_rig(fake=fake, spares=2) as rig:
        await rig.passes(60.0)
        assert rig.seen(events.CircuitOpened)
        if circuit(rig) == "open":
            await waits_until_half_open(rig)
        rig.fake.holds_openings = True
        tried = len(rig.fake.sessions)
        await rig.call()
        await rig.passes(20.0)
        assert len(rig.fake.sessions) == tried + 1


# Processes of one's own.


@requirement("pool:circuit:one-person-keeps-nobody-out")
@pytest.mark.parametrize("dies", [True, False], ids=["crashes", "timeouts"])
async def test_one_person_whose_calls_fail_keeps_nobody_else_from_a_stdio_server(dies: bool) -> None:
    async with pool_rig(call_timeout=5.0, **STDIO) as rig:
        sessions = [rig.key(f"c{n}", user="mallory") for n in range(2 * FAILURES)]
        for key in sessions:
            await rig.answered(key)
        for session, key in zip(list(rig.fake.sessions), sessions, strict=True):
            await rig.call(key=key)
            if dies:
                session.die()
            await rig.passes(5.0)
        assert circuit(rig) == "closed"


@requirement("pool:circuit:one-person-keeps-nobody-out")
@pytest.mark.parametrize("user", ["a user each", None], ids=["users", "chats-without-users"])
async def test_a_stdio_server_that_fails_five_of_them_is_left_alone(user: str | None) -> None:
    async with pool_rig(**STDIO) as rig:
        keys = [rig.key(f"c{n}", user=user and f"u{n}") for n in range(FAILURES)]
        for key in keys:
            await rig.answered(key)
        for session in list(rig.fake.sessions):
            assert circuit(rig) == "closed"
            session.die()
            await settle()
        assert circuit(rig) == "open"


async def test_a_shared_process_counts_for_everybody() -> None:
    async with pool_rig(call_timeout=10.0, scope="shared", **STDIO) as rig:
        for _ in range(FAILURES):
            await rig.call(key=rig.key(scope="shared"))
            await rig.passes(10.0)
        assert circuit(rig) == "open"


# The end.


async def test_calls_that_wait_for_the_probe_are_told_when_the_gateway_ends() -> None:
    async with pool_rig() as rig:
        await fail(rig, FAILURES)
        await waits_until_half_open(rig)
        callers = [await rig.call() for _ in range(3)]
        rig.scope.start(rig.pool.aclose(), "close")
        await settle()
        assert all("shutting down" in caller.failure.message for caller in callers)


async def test_reads_that_are_repeated_count_once_they_have_failed() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["resources/read"] = lambda request: request.fail(FaultKind.CUT, "cut")
        for _ in range(FAILURES):
            assert circuit(rig) == "closed"
            await rig.call(Call("resources/read", {"uri": "file:///a"}))
            await rig.passes(0.2)
        assert circuit(rig) == "open"
