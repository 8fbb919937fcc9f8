"""One call on its way: its time, its slot, its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from holdfast.call import Call, Outcome
from holdfast.errors import Code, Delivery
from holdfast.session.pushed import MAX_ASKS
from holdfast.session.running import UNDELIVERABLE
from holdfast.testing.clock import settle
from holdfast.upstream.transport import FaultKind
from pool_rig import EVERYTHING, FakeCaller, PoolRig, pool_rig
from requirements import requirement

READ = Call("resources/read", {"uri": "file:///a"})


@pytest.fixture(params=[False, True], ids=["upstream", "handshake"])
async def rig(request: pytest.FixtureRequest) -> AsyncGenerator[PoolRig]:
    async with pool_rig(over_link=request.param, call_timeout=300.0, ask_timeout=600.0) as made:
        yield made


async def test_what_the_server_sends_reaches_the_caller_in_order_and_the_answer_ends_it(rig: PoolRig) -> None:
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    request = rig.fake.session.call
    request.progress(1)
    request.log("one")
    request.progress(2)
    request.notify("notifications/x", {})
    request.text("done")
    request.progress(3)
    request.text("twice")
    assert caller.progressed == [1, 2]
    assert caller.logs == ["one"]
    assert caller.notified == ["notifications/x"]
    assert caller.text == "done"


async def test_a_servers_own_error_is_an_answer(rig: PoolRig) -> None:
    caller = await rig.call()
    rig.fake.session.call.error(-32000, "mine")
    assert caller.error == {"code": -32000, "message": "mine"}


# Time.


async def test_calls_that_were_sent_one_after_another_time_out_each_at_its_own_time(rig: PoolRig) -> None:
    callers: list[FakeCaller] = []
    for _ in range(4):
        callers.append(await rig.call())
        await rig.passes(10.0)
    rig.fake.session.calls[1].text("in time")
    await rig.passes(259.0)  # 299 since the first was sent
    for late in callers:
        assert late.is_over == (late is callers[1])
        await rig.passes(1.0)
        assert late.is_over
        await rig.passes(9.0)
    assert [caller.code for caller in callers if caller is not callers[1]] == [Code.TIMEOUT] * 3


@requirement("pool:time:silence-ends-a-call")
async def test_a_call_ends_after_call_timeout_without_a_message_and_is_cancelled_upstream(rig: PoolRig) -> None:
    caller = await rig.call()
    await rig.passes(299.0)
    assert not caller.is_over
    await rig.passes(1.0)
    assert caller.code is Code.TIMEOUT
    assert rig.fake.session.call.cancelled == "no message for 300 s"
    rig.fake.session.call.text("late")
    assert len(caller.outcomes) == 1


async def test_every_message_of_the_server_starts_the_silence_anew(rig: PoolRig) -> None:
    caller = await rig.call()
    for n in range(10):
        await rig.passes(200.0)
        rig.fake.session.call.progress(n)
    assert not caller.is_over
    await rig.passes(300.0)
    assert caller.code is Code.TIMEOUT


async def test_a_safe_call_that_timed_out_is_not_sent_again(rig: PoolRig) -> None:
    caller = await rig.call(READ)
    await rig.passes(301.0)
    assert caller.code is Code.TIMEOUT
    assert len(rig.fake.requests) == 1


async def test_a_call_ends_at_its_deadline_however_much_the_server_talks() -> None:
    async with pool_rig(call_timeout=300.0, call_deadline=1000.0) as rig:
        caller = await rig.call()
        for n in range(9):
            await rig.passes(100.0)
            rig.fake.session.call.progress(n)
        await rig.passes(99.0)
        assert not caller.is_over
        await rig.passes(1.0)
        assert caller.code is Code.TIMEOUT
        assert rig.fake.session.call.cancelled == "not done within 1000 s"


@requirement("pool:time:stands-still-while-asked")
async def test_the_clocks_of_a_call_stand_still_while_a_question_is_open() -> None:
    async with pool_rig(call_timeout=100.0, call_deadline=150.0, ask_timeout=600.0) as rig:
        caller = await rig.call(caller=FakeCaller(EVERYTHING))
        await rig.passes(50.0)
        ask = rig.fake.session.call.ask()
        await rig.passes(500.0)
        assert not caller.is_over
        caller.say({"action": "accept"})
        assert rig.fake.session.replies == [(ask, {"action": "accept"})]
        await rig.passes(99.0)
        assert not caller.is_over
        await rig.passes(1.0)
        assert caller.code is Code.TIMEOUT  # 50 s before and 100 s after the question


async def test_of_two_open_questions_the_last_one_lets_the_clocks_go_on(rig: PoolRig) -> None:
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    rig.fake.session.call.ask()
    rig.fake.session.call.ask()
    first, second = caller.asks
    await rig.passes(290.0)
    caller.say({"action": "accept"}, first)
    await rig.passes(290.0)
    caller.say({"action": "accept"}, second)
    await rig.passes(299.0)
    assert not caller.is_over


@requirement("pool:asks:time-out")
async def test_a_question_that_nobody_answers_is_taken_back_and_answered_for_them(rig: PoolRig) -> None:
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    ask = rig.fake.session.call.ask()
    await rig.passes(599.0)
    assert rig.fake.session.replies == []
    await rig.passes(1.0)
    assert rig.fake.session.replies == [(ask, {"action": "cancel"})]
    assert caller.withdrawn == [caller.asks[0].id]
    assert not caller.is_over
    rig.fake.session.call.text("went on without")
    assert caller.text == "went on without"


@requirement("pool:asks:bounded")
async def test_a_server_that_asks_without_end_is_answered_for_the_caller(rig: PoolRig) -> None:
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    asks = [rig.fake.session.call.ask() for _ in range(MAX_ASKS + 3)]
    assert len(caller.asks) == MAX_ASKS
    assert rig.fake.session.replies == [(ask, {"action": "cancel"}) for ask in asks[MAX_ASKS:]]
    caller.say({"action": "accept"}, caller.asks[0])
    rig.fake.session.call.ask()
    assert len(caller.asks) == MAX_ASKS + 1, "there is room for one again"


async def test_a_question_that_the_server_takes_back_is_withdrawn(rig: PoolRig) -> None:
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    ask = rig.fake.session.call.ask()
    rig.fake.session.withdraw(ask)
    assert caller.withdrawn == [caller.asks[0].id]
    caller.say({"action": "accept"})
    assert rig.fake.session.replies == []


async def test_the_questions_of_a_call_that_ends_are_closed(rig: PoolRig) -> None:
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    ask = rig.fake.session.call.ask("sampling/createMessage")
    caller.running.cancel("the client left")
    assert caller.withdrawn == [caller.asks[0].id]
    assert [(a, r["code"]) for a, r in rig.fake.session.replies] == [(ask, -32601)]


@requirement("pool:asks:nobody-is-answered-for")
async def test_where_the_caller_cannot_be_asked_it_is_answered_for_at_once(rig: PoolRig) -> None:
    caller = await rig.call()
    for method in ("elicitation/create", "sampling/createMessage", "roots/list", "other/thing"):
        rig.fake.session.call.ask(method)
    replies = [reply.get("code", reply) for _, reply in rig.fake.session.replies]
    assert replies == [{"action": "cancel"}, -32601, {"roots": []}, -32601]
    assert caller.asks == []


# Slots.


@requirement("pool:slots:bounded")
async def test_sixty_four_calls_are_sent_two_hundred_fifty_six_wait_and_the_next_is_refused() -> None:
    async with pool_rig() as rig:
        await rig.answered()
        callers = [rig.start(f"t{n}") for n in range(64 + 256)]
        assert len(rig.fake.calls) - 1 == 64
        refused = rig.start("one too many")
        assert refused.code is Code.OVERLOADED
        assert refused.failure.delivery is Delivery.NOT_SENT
        sent = 1
        while sent < len(rig.fake.calls):
            rig.fake.calls[sent].text("ok")
            sent += 1
        assert [c.name for c in rig.fake.calls[1:]] == [f"t{n}" for n in range(64 + 256)]
        assert all(c.text == "ok" for c in callers)


async def test_a_call_waits_for_a_slot_no_longer_than_the_acquire_timeout() -> None:
    async with pool_rig(max_concurrency=1, acquire_timeout=30.0) as rig:
        await rig.call("first")
        second = await rig.call("second")
        assert second.statuses[-1] == "waiting"
        await rig.passes(30.0)
        assert second.code is Code.OVERLOADED
        rig.fake.session.call.text("ok")
        assert len(rig.fake.calls) == 1


@requirement("pool:slots:parked-take-none")
async def test_a_call_that_waits_for_a_person_takes_no_slot() -> None:
    async with pool_rig(max_concurrency=1) as rig:
        asking = await rig.call("asking", caller=FakeCaller(EVERYTHING))
        second = await rig.call("second")
        assert len(rig.fake.calls) == 1
        rig.fake.session.call.ask()
        assert [c.name for c in rig.fake.calls] == ["asking", "second"]
        third = await rig.call("third")
        asking.say({"action": "accept"})  # back, it exceeds the limit rather than wait
        rig.fake.calls[1].text("ok")
        assert second.is_over
        assert len(rig.fake.calls) == 2
        rig.fake.calls[0].text("ok")
        assert asking.is_over
        assert rig.fake.calls[2].name == "third"
        rig.fake.calls[2].text("ok")
        assert third.is_over


async def test_a_serial_server_runs_one_call_of_a_session_at_a_time() -> None:
    async with pool_rig(serial=True) as rig:
        await rig.answered(rig.key("a"))
        await rig.answered(rig.key("b"))
        for n in range(2):
            for chat in "ab":
                rig.start(f"{chat}{n}", rig.key(chat))
        assert [c.name for c in rig.fake.calls[2:]] == ["a0", "b0"]
        rig.fake.calls[3].text("ok")
        assert [c.name for c in rig.fake.calls[2:]] == ["a0", "b0", "b1"]
        rig.fake.calls[2].text("ok")
        assert [c.name for c in rig.fake.calls[2:]] == ["a0", "b0", "b1", "a1"]


async def test_a_serial_session_stays_with_a_call_that_waits_for_a_person() -> None:
    async with pool_rig(serial=True) as rig:
        asking = await rig.call("asking", caller=FakeCaller(EVERYTHING))
        await rig.call("second")
        rig.fake.session.call.ask()
        assert len(rig.fake.calls) == 1
        asking.say({"action": "accept"})
        rig.fake.calls[0].text("ok")
        assert rig.fake.calls[1].name == "second"


# Cancellation, in every phase.


@requirement("pool:cancel:ends-once")
@pytest.mark.parametrize("phase", ["line", "opening", "slot", "sent", "asking", "suspected", "resending", "over"])
async def test_a_cancelled_call_ends_exactly_once_in_every_phase(phase: str) -> None:
    async with pool_rig(max_sessions=1, max_concurrency=1) as rig:
        del rig.fake.answers["ping"]
        call: Call | str = READ if phase == "resending" else "tool"
        key = rig.key("mine")
        rig.fake.holds_openings = phase == "opening"
        if phase in {"line", "slot"}:
            await rig.call("other", rig.key("other") if phase == "line" else key)
        caller = await rig.call(call, key, FakeCaller(EVERYTHING))
        match phase:
            case "asking":
                rig.fake.session.call.ask()
            case "suspected":
                rig.fake.session.call.fail(FaultKind.REFUSED)
            case "resending":
                rig.fake.requests[-1].fail(FaultKind.CUT)
            case "over":
                rig.fake.session.call.text("done")
            case _:
                pass
        await settle()
        sent = len(rig.fake.requests)
        caller.running.cancel("the client left")
        caller.running.cancel("the client left")
        assert len(caller.outcomes) == 1
        if phase != "over":
            assert "the client left" in caller.failure.message
            assert caller.failure.delivery is (
                Delivery.NOT_SENT if phase in {"line", "opening", "slot"} else Delivery.UNKNOWN
            )
        if phase in {"sent", "asking"}:
            assert rig.fake.requests[-1].cancelled == "the client left"
        await rig.passes(60.0)
        assert len(caller.outcomes) == 1
        assert all(r.method == "ping" for r in rig.fake.requests[sent:])


async def test_a_late_answer_to_a_cancelled_call_is_dropped(rig: PoolRig) -> None:
    caller = await rig.call()
    caller.running.cancel("the client left")
    rig.fake.session.call.text("late")
    assert len(caller.outcomes) == 1
    await rig.answered()


# Exceptions of a caller.


@requirement("pool:callers:a-failure-ends-one-call")
@pytest.mark.parametrize("breaks", ["status", "progress", "log", "notify", "ask", "withdraw", "answer"])
async def test_an_exception_in_a_callers_callback_ends_that_call_and_no_other(breaks: str) -> None:
    async with pool_rig(may_log_errors=True) as rig:
        rig.fake.holds_openings = True
        broken = await rig.call("broken", caller=FakeCaller(EVERYTHING, breaks=breaks))
        sound = await rig.call("sound", caller=FakeCaller(EVERYTHING))
        rig.fake.session.let_open()
        await settle()
        for request in rig.fake.session.calls:
            request.progress(1)
            request.log("x")
            request.notify("notifications/x", {})
            ask = request.ask()
            if breaks == "withdraw":
                rig.fake.session.withdraw(ask)
            request.text("done")
        await settle()
        assert len(broken.outcomes) == (2 if breaks == "answer" else 1)
        assert sound.text == "done"
        assert sound.progressed == [1]


async def test_a_list_whose_answer_cannot_be_delivered_harms_no_other_list() -> None:
    async with pool_rig(may_log_errors=True) as rig:
        rig.fake.holds_openings = True
        broken = await rig.call(Call("tools/list"), caller=FakeCaller(breaks="answer"))
        sound = await rig.call(Call("tools/list"))
        called = await rig.call()
        rig.fake.session.let_open()
        await settle()
        rig.fake.session.call.text("ok")
        assert (len(broken.outcomes), broken.outcomes[-1]) == (2, UNDELIVERABLE)
        assert "tools" in sound.result
        assert called.text == "ok"


class Clumsy(FakeCaller):
    """Fails at so many answers."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self._failures = failures

    def answer(self, outcome: Outcome) -> None:
        if self._failures:
            self._failures -= 1
            raise RuntimeError("clumsy")
        super().answer(outcome)


@requirement("pool:call:nobody-waits-for-an-answer-that-failed")
@pytest.mark.parametrize("failures", [1, 2])
async def test_whose_answer_fails_on_its_way_is_told_that_it_did(failures: int) -> None:
    async with pool_rig(may_log_errors=True) as rig:
        caller = await rig.call(caller=Clumsy(failures))
        other = await rig.call()
        rig.fake.session.calls[0].text("one")
        rig.fake.session.calls[1].text("two")
        if failures == 1:
            assert caller.error["code"] == -32603
        assert len(caller.outcomes) == 2 - failures
        assert other.text == "two"
        assert rig.pool.sessions[0].leases == 0


# A slow reader.


async def test_a_paused_call_pauses_its_request_and_the_one_that_repeats_it() -> None:
    async with pool_rig() as rig:
        caller = await rig.call(READ)
        first = rig.fake.requests[-1]
        caller.running.pause()
        assert first.is_paused
        first.fail(FaultKind.CUT)
        await rig.passes(0.2)
        assert rig.fake.requests[-1] is not first
        assert rig.fake.requests[-1].is_paused
        caller.running.resume()
        assert not rig.fake.requests[-1].is_paused
