"""How keys get sessions, keep them and lose them: architecture, section 5, told to a pool."""

# pyright: reportPrivateUsage=false
# What is left behind shows in private tables only.

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast import events
from holdfast.call import ANYBODY, NOBODY, Abilities, Call
from holdfast.errors import Code, Delivery
from holdfast.session.backoff import FAIL_FAST_AFTER
from holdfast.session.joining import MAX_WAITING
from holdfast.session.lifecycle import State
from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind
from pool_rig import FakeCaller, FakeWatcher, pool_rig
from requirements import requirement
from rows import row

both_conversations = pytest.mark.parametrize("over_link", [False, True], ids=["upstream", "handshake"])

# Opening.


@requirement("pool:opening:single-flight")
@both_conversations
async def test_calls_of_one_key_wait_for_one_opening(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        rig.fake.holds_openings = True
        callers = [await rig.call(f"t{n}") for n in range(5)]
        assert len(rig.fake.sessions) == 1
        assert [c.statuses for c in callers] == [["connecting"]] * 5
        rig.fake.session.let_open()
        await settle()
        assert [call.name for call in rig.fake.session.calls] == ["t0", "t1", "t2", "t3", "t4"]
        for call in rig.fake.session.calls:
            call.text(call.name)
        assert [c.text for c in callers] == ["t0", "t1", "t2", "t3", "t4"]


@requirement("pool:opening:survives-its-first-caller")
@both_conversations
async def test_an_opening_survives_the_cancellation_of_whoever_asked_first(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        rig.fake.holds_openings = True
        first, second = await rig.call("first"), await rig.call("second")
        first.running.cancel("the client left")
        assert first.failure.delivery is Delivery.NOT_SENT
        rig.fake.session.let_open()
        await settle()
        assert [call.name for call in rig.fake.calls] == ["second"]
        rig.fake.session.call.text("fine")
        assert second.text == "fine"
        assert len(rig.fake.sessions) == 1


async def test_an_opening_that_nobody_waits_for_any_more_leaves_an_idle_session() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        caller = await rig.call()
        caller.running.cancel("the client left")
        rig.fake.session.let_open()
        await settle()
        assert rig.pool.count(State.IDLE) == 1


async def test_a_private_session_whose_only_call_left_is_closed_as_soon_as_it_opened() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        caller = await rig.call(key=rig.private_key())
        caller.running.cancel("the client left")
        rig.fake.session.let_open()
        await settle()
        assert rig.pool.sessions == []


@both_conversations
async def test_an_opening_that_fails_is_told_to_everyone_who_waits_with_its_reason(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        rig.fake.holds_openings = True
        callers = [await rig.call() for _ in range(3)]
        rig.fake.session.let_open(Fault(FaultKind.INVALID, "it speaks HTML"))
        await settle()
        for caller in callers:
            assert caller.code is Code.UPSTREAM_UNAVAILABLE
            assert "it speaks HTML" in caller.failure.message
            assert caller.failure.delivery is Delivery.NOT_SENT
            assert caller.statuses[-1] == "failed"
        assert rig.pool.sessions == []


async def test_a_refused_credential_is_told_as_such() -> None:
    async with pool_rig() as rig:
        rig.fake.open_fault = Fault(FaultKind.UNAUTHORIZED, "401 Unauthorized")
        caller = await rig.call()
        assert caller.code is Code.UPSTREAM_UNAUTHORIZED
        assert not caller.failure.retryable


async def test_an_opening_is_tried_once_more_where_no_byte_was_written() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        caller = await rig.call()
        rig.fake.session.let_open(Fault(FaultKind.NOT_SENT, "connection refused"))
        await rig.passes(0.1)
        assert len(rig.fake.sessions) == 2
        rig.fake.session.let_open()
        await settle()
        rig.fake.session.call.text("up again")
        assert caller.text == "up again"


async def test_what_the_first_attempt_died_of_does_not_fail_the_second() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        caller = await rig.call()
        rig.fake.session.die()
        rig.fake.session.let_open(Fault(FaultKind.NOT_SENT, "the program was busy"))
        await rig.passes(0.1)
        rig.fake.session.let_open()
        await settle()
        rig.fake.session.call.text("up")
        assert caller.text == "up"


async def test_a_handshake_without_an_answer_ends_after_the_open_timeout() -> None:
    async with pool_rig(open_timeout=30.0) as rig:
        rig.fake.holds_openings = True
        caller = await rig.call()
        await rig.passes(29.9)
        assert not caller.is_over
        await rig.passes(0.2)
        assert "no answer to initialize within 30 s" in caller.failure.message
        assert rig.fake.session.is_terminated


async def test_a_failure_of_ours_while_opening_is_told_to_everyone_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: Any) -> None:
        raise KeyError("a bug")

    async with pool_rig(may_log_errors=True) as rig:
        monkeypatch.setattr("holdfast.session.roster.replay", broken)
        callers = [await rig.call() for _ in range(2)]
        assert [c.code for c in callers] == [Code.UPSTREAM_UNAVAILABLE] * 2
        assert rig.pool.sessions == []


async def test_openings_that_fail_again_and_again_are_spaced_out_and_callers_told_at_once() -> None:
    async with pool_rig() as rig:
        rig.fake.open_fault = Fault(FaultKind.INVALID, "it speaks HTML")
        attempts = 0
        while rig.pool.retry_delay <= FAIL_FAST_AFTER:
            await rig.call()
            await rig.passes(1.0)
            attempts += 1
            assert attempts < 20
            assert len(rig.fake.sessions) <= attempts
        made = len(rig.fake.sessions)
        refused = await rig.call()
        assert len(rig.fake.sessions) == made
        assert "the next attempt is in" in refused.failure.message
        rig.fake.open_fault = None
        await rig.passes(30.0)
        await rig.answered()
        assert rig.pool.retry_delay == 0


@both_conversations
async def test_a_session_lost_while_it_opens_fails_its_opening(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        watcher = FakeWatcher()
        watcher.subscriptions = {"file:///a"}
        rig.pool.attach(rig.key(), watcher)
        del rig.fake.answers["resources/subscribe"]
        caller = await rig.call()
        assert not caller.is_over  # it waits for the replay
        rig.fake.session.die()
        await settle()
        assert caller.code is Code.UPSTREAM_UNAVAILABLE
        assert rig.pool.sessions == []


async def test_more_calls_than_may_wait_for_openings_are_refused() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        waiting = [rig.start() for _ in range(MAX_WAITING)]
        assert (await rig.call()).code is Code.OVERLOADED
        assert not any(caller.is_over for caller in waiting)


# Ends by time.


@requirement("pool:idle:in-flight-is-not-idle")
async def test_a_session_that_runs_a_long_call_is_never_reaped() -> None:
    async with pool_rig(idle_timeout=60.0, call_timeout=10_000.0) as rig:
        caller = await rig.call("slow")
        await rig.passes(3600.0)
        assert rig.pool.reap() == []
        rig.fake.session.call.text("at last")
        assert caller.text == "at last"
        await rig.passes(59.0)
        assert len(rig.pool.sessions) == 1


async def test_a_session_with_nothing_in_flight_is_closed_after_the_idle_timeout() -> None:
    async with pool_rig(idle_timeout=60.0) as rig:
        await rig.answered()
        await rig.passes(59.0)
        assert rig.pool.count(State.IDLE) == 1
        await rig.passes(6.0)
        assert rig.pool.sessions == []
        assert rig.fake.session.is_closed


async def test_a_dirty_session_that_idled_out_leaves_a_marker() -> None:
    async with pool_rig(idle_timeout=60.0) as rig:
        await rig.answered()
        await rig.passes(66.0)
        assert (await rig.call()).code is Code.SESSION_LOST
        await rig.answered()
        assert len(rig.fake.sessions) == 2


async def test_a_session_that_only_read_leaves_no_marker_when_it_idles_out() -> None:
    async with pool_rig(idle_timeout=60.0) as rig:
        reader = await rig.read()
        rig.fake.session.requests[-1].result({})
        assert reader.result == {}
        await rig.passes(66.0)
        assert rig.pool.sessions == []
        await rig.answered()


async def test_a_session_is_replaced_at_its_first_idle_moment_after_max_age() -> None:
    async with pool_rig(max_age=100.0, call_timeout=10_000.0) as rig:
        await rig.answered()
        caller = await rig.call("slow")
        await rig.passes(200.0)
        assert len(rig.pool.sessions) == 1
        rig.fake.session.call.text("ok")
        assert caller.is_over
        await rig.passes(5.0)
        assert rig.pool.sessions == []


# Spares.


async def test_spares_are_opened_ahead_adopted_and_refilled() -> None:
    async with pool_rig(spares=1) as rig:
        await settle()
        assert [s.is_spare for s in rig.pool.sessions] == [True]
        caller = await rig.call()
        assert caller.statuses == ["ready"]
        assert rig.fake.sessions[0].calls
        await settle()
        assert [s.is_spare for s in rig.pool.sessions] == [False, True]


async def test_a_spare_is_handed_to_a_private_call_and_declares_what_keyed_sessions_declare() -> None:
    async with pool_rig(spares=1) as rig:
        await settle()
        await rig.call(key=rig.private_key())
        assert rig.fake.sessions[0].declares == ANYBODY
        rig.fake.sessions[0].call.text("ok")
        await settle()
        assert rig.fake.sessions[0].is_closed


async def test_private_sessions_declare_nothing_and_keyed_ones_everything() -> None:
    async with pool_rig() as rig:
        await rig.call(key=rig.private_key())
        await rig.call()
        assert [s.declares for s in rig.fake.sessions] == [NOBODY, ANYBODY]


@requirement("modern:private:declares")
@pytest.mark.parametrize("declares", [NOBODY, Abilities(sampling=True), Abilities(elicitation_form=True, roots=True)])
async def test_a_request_that_says_what_can_be_asked_gets_a_session_that_declares_just_that(
    declares: Abilities,
) -> None:
    async with pool_rig(spares=1) as rig:
        await settle()
        await rig.call(key=rig.private_key(declares=declares))
        assert [s.declares for s in rig.fake.sessions] == [ANYBODY, declares]
        assert rig.fake.sessions[1].calls
        await rig.call(key=rig.private_key(declares=ANYBODY))
        assert rig.fake.sessions[0].calls, "a spare has declared no more than this one can be asked"


@requirement("modern:private:declares")
async def test_a_spare_makes_room_for_a_request_that_it_has_declared_too_much_for() -> None:
    async with pool_rig(spares=1, max_sessions=1) as rig:
        await settle()
        caller = await rig.call(key=rig.private_key(declares=NOBODY))
        await settle()
        rig.fake.session.call.text("done")
        await settle()
        assert caller.text == "done"
        assert [s.declares for s in rig.fake.sessions][:2] == [ANYBODY, NOBODY]


async def test_the_session_that_learned_the_lists_is_a_spare_for_a_minute() -> None:
    async with pool_rig() as rig:
        await rig.server.learn()
        await rig.passes(55.0)
        assert [s.is_spare for s in rig.pool.sessions] == [True]
        await rig.passes(10.0)
        assert rig.pool.sessions == []


async def test_the_session_that_learned_the_lists_serves_the_first_new_chat() -> None:
    async with pool_rig() as rig:
        await rig.server.learn()
        await rig.passes(55.0)
        await rig.answered()
        assert len(rig.fake.sessions) == 1
        await rig.passes(300.0)
        assert len(rig.pool.sessions) == 1  # it is a chat's now


@requirement("pool:spares:are-set-up-when-adopted")
async def test_a_spare_is_set_up_as_its_watchers_wish_before_the_first_call() -> None:
    async with pool_rig(spares=1) as rig:
        await settle()
        watcher = FakeWatcher()
        watcher.log_level, watcher.subscriptions = "debug", {"file:///a"}
        rig.pool.attach(rig.key(), watcher)
        await rig.call()
        methods = [r.method for r in rig.fake.sessions[0].requests]
        assert methods == ["logging/setLevel", "resources/subscribe", "tools/call"]
        session = rig.pool.session_of(rig.key())
        assert session is not None
        assert (session.level, session.subscriptions) == ("debug", {"file:///a"})


# Room.


@requirement("pool:room:evicts-the-longest-idle")
async def test_the_longest_idle_session_makes_room_and_its_key_is_told_once() -> None:
    async with pool_rig(max_sessions=2) as rig:
        for chat in ("a", "b"):
            await rig.answered(rig.key(chat))
            await rig.passes(1.0)
        caller = await rig.call(key=rig.key("c"))
        assert rig.fake.sessions[0].is_closed
        assert not rig.fake.sessions[1].is_over
        rig.fake.session.call.text("in the room of a")
        assert caller.text == "in the room of a"
        await settle()
        assert (await rig.call(key=rig.key("a"))).code is Code.SESSION_LOST
        await rig.answered(rig.key("a"))
        assert [s.is_over for s in rig.fake.sessions] == [True, True, False, False]


async def test_a_session_that_was_used_meanwhile_is_not_the_longest_idle() -> None:
    async with pool_rig(max_sessions=2) as rig:
        for chat in ("a", "b", "a"):
            await rig.answered(rig.key(chat))
            await rig.passes(1.0)
        await rig.call(key=rig.key("c"))
        assert [s.is_over for s in rig.fake.sessions] == [False, True, False]


async def test_a_new_session_waits_until_the_evicted_one_has_closed() -> None:
    async with pool_rig(max_sessions=1) as rig:
        rig.fake.holds_closing = True
        await rig.answered(rig.key("a"))
        caller = await rig.call(key=rig.key("b"))
        assert rig.fake.session.is_closed
        assert len(rig.fake.sessions) == 1
        assert caller.statuses == ["waiting"]
        await rig.passes(4.0)  # CLOSE_TIMEOUT
        assert len(rig.fake.sessions) == 2
        rig.fake.session.call.text("ok")
        assert caller.is_over


@requirement("pool:room:waits-then-tells")
async def test_where_nothing_is_idle_a_call_waits_for_the_acquire_timeout_and_is_told() -> None:
    async with pool_rig(max_sessions=1, acquire_timeout=30.0) as rig:
        await rig.call(key=rig.key("a"))
        waiter = await rig.call(key=rig.key("b"))
        await rig.passes(29.0)
        assert not waiter.is_over
        await rig.passes(1.0)
        assert waiter.code is Code.OVERLOADED
        assert waiter.failure.delivery is Delivery.NOT_SENT
        assert len(rig.fake.sessions) == 1


async def test_those_who_wait_are_served_in_the_order_in_which_they_came() -> None:
    async with pool_rig(max_sessions=1) as rig:
        await rig.call("a", rig.key("a"))
        waiters = {chat: await rig.call(chat, rig.key(chat)) for chat in "bcd"}
        served: list[str] = []
        for _ in range(4):
            call = rig.fake.calls[-1]
            served.append(call.name)
            call.text("ok")
            await settle()
        assert served == ["a", "b", "c", "d"]
        assert all(caller.is_over for caller in waiters.values())


async def test_who_leaves_the_line_evicts_nobody() -> None:
    async with pool_rig(max_sessions=2) as rig:
        rig.fake.holds_closing = True
        calls = [await rig.call(key=rig.key(chat)) for chat in "ab"]
        waiters = [await rig.call(key=rig.key(chat)) for chat in "cd"]
        waiters[0].running.cancel("it left")
        for call in rig.fake.calls:
            call.text("ok")
        await settle()
        assert all(c.is_over for c in calls)
        assert [s.is_closed for s in rig.fake.sessions] == [True, False]


async def test_the_line_moves_when_an_opening_ends_without_a_caller() -> None:
    """The session fell idle without a call having ended in it."""
    async with pool_rig(max_sessions=1) as rig:
        rig.fake.holds_openings = True
        first = await rig.call("first", rig.key("a"))
        second = await rig.call("second", rig.key("b"))
        first.running.cancel("it left")
        rig.fake.session.let_open()
        await settle()
        rig.fake.session.let_open()
        await settle()
        rig.fake.session.call.text("served")
        assert second.text == "served"


# Whose session it is.


@row(1)
@requirement("pool:keys:never-shared")
async def test_two_keys_that_differ_in_any_field_have_two_sessions() -> None:
    async with pool_rig() as rig:
        keys = [rig.key("c1"), rig.key("c2"), rig.key("c1", user="bob"), rig.key(scope="user"), rig.key(scope="shared")]
        for key in keys:
            await rig.answered(key)
        assert len(rig.fake.sessions) == len(keys)
        for key in keys:
            await rig.answered(key)
        assert [len(s.calls) for s in rig.fake.sessions] == [2] * len(keys)


@both_conversations
async def test_a_private_session_is_closed_after_its_call(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        caller = await rig.call(key=rig.private_key())
        rig.fake.session.call.text("ok")
        await settle()
        assert caller.text == "ok"
        assert rig.fake.session.is_closed
        assert rig.pool.sessions == []


async def test_the_calls_of_one_array_share_one_private_session() -> None:
    async with pool_rig() as rig:
        key = rig.private_key()
        callers = [rig.start(f"t{n}", key) for n in range(3)]
        await settle()
        assert len(rig.fake.sessions) == 1
        for call in rig.fake.session.calls:
            call.text("ok")
        await settle()
        assert all(caller.is_over for caller in callers)
        assert rig.fake.session.is_closed


@pytest.mark.parametrize("is_opening", [True, False], ids=["while-it-opens", "once-it-is-open"])
async def test_a_session_that_only_a_client_session_named_ends_with_it(is_opening: bool) -> None:
    async with pool_rig() as rig:
        key = rig.key(ends_with_client=True)
        watcher = FakeWatcher()
        rig.pool.attach(key, watcher)
        rig.fake.holds_openings = is_opening
        caller = await rig.call(key=key, watcher=watcher)
        rig.pool.detach(key, watcher)
        await settle()
        assert caller.is_over
        assert rig.fake.session.is_over
        assert rig.pool.sessions == []
        assert len(rig.pool._places) == 0
        assert len(rig.pool._markers) == 0


async def test_a_session_that_a_chat_names_outlives_the_client_session() -> None:
    async with pool_rig() as rig:
        watcher = FakeWatcher()
        rig.pool.attach(rig.key(), watcher)
        await rig.answered()
        rig.pool.detach(rig.key(), watcher)
        await settle()
        assert rig.pool.count(State.IDLE) == 1


async def test_who_leaves_while_a_session_opens_is_forgotten_by_it() -> None:
    async with pool_rig() as rig:
        watcher = FakeWatcher()
        watcher.subscriptions = {"file:///a"}
        rig.pool.attach(rig.key(), watcher)
        del rig.fake.answers["resources/subscribe"]
        await rig.call()
        rig.pool.detach(rig.key(), watcher)
        rig.fake.session.requests[0].result({})
        await settle()
        session = rig.pool.session_of(rig.key())
        assert session is not None
        assert session.watchers == []


async def test_a_level_set_while_a_session_opens_is_set_up_before_its_first_call() -> None:
    async with pool_rig() as rig:
        watcher = FakeWatcher()
        rig.pool.attach(rig.key(), watcher)
        rig.fake.holds_openings = True
        await rig.call(watcher=watcher)
        level = FakeCaller()
        rig.server.set_level(rig.key(), "debug", level, watcher)
        assert level.result == {}
        rig.fake.session.let_open()
        await settle()
        assert [r.method for r in rig.fake.session.requests] == ["logging/setLevel", "tools/call"]


async def test_a_level_set_while_a_session_is_set_up_is_not_forgotten() -> None:
    async with pool_rig() as rig:
        watcher = FakeWatcher()
        watcher.subscriptions = {"file:///a"}
        rig.pool.attach(rig.key(), watcher)
        del rig.fake.answers["resources/subscribe"]
        await rig.call(watcher=watcher)
        rig.server.set_level(rig.key(), "debug", FakeCaller(), watcher)
        rig.fake.session.requests[0].result({})
        await settle()
        methods = [r.method for r in rig.fake.session.requests]
        assert methods == ["resources/subscribe", "logging/setLevel", "tools/call"]


# The end.


async def test_closing_the_pool_ends_every_call_and_every_wait_once() -> None:
    async with pool_rig(max_sessions=2, max_concurrency=1) as rig:
        sent = await rig.call("sent", rig.key("a"))
        queued = await rig.call("queued", rig.key("a"))
        rig.fake.holds_openings = True
        opening = await rig.call("opening", rig.key("b"))
        in_line = await rig.call("in line", rig.key("c"))
        closing = rig.scope.start(rig.pool.aclose(), "close")
        await settle()
        assert closing.done()
        for caller in (sent, queued, opening, in_line):
            assert len(caller.outcomes) == 1
            assert "the gateway is shutting down" in caller.failure.message
        assert [call.name for call in rig.fake.calls] == ["sent"]
        late = await rig.call()
        assert late.code is Code.UPSTREAM_UNAVAILABLE


async def test_who_waits_for_room_to_ask_for_a_list_opens_nothing_after_the_pool_has_closed() -> None:
    async with pool_rig(max_sessions=1) as rig:
        await rig.call(key=rig.private_key())
        listing = await rig.listed(key=rig.private_key("bob"))
        # the introduction is known, so only the list is missing
        assert not listing.is_over
        closing = rig.scope.start(rig.pool.aclose(), "close")
        await settle()
        assert closing.done()
        assert listing.code is Code.UPSTREAM_UNAVAILABLE
        assert len(rig.fake.sessions) == 1


async def test_a_list_waits_for_room_no_longer_than_a_call() -> None:
    async with pool_rig(max_sessions=1, acquire_timeout=30.0, call_timeout=1000.0) as rig:
        await rig.call(key=rig.private_key())
        listing = await rig.listed(key=rig.private_key("bob"))
        await rig.passes(29.0)
        assert not listing.is_over
        await rig.passes(1.5)
        assert "no session came free within 30 s" in listing.failure.message


async def test_a_close_that_hangs_is_bounded() -> None:
    async with pool_rig(idle_timeout=60.0) as rig:
        rig.fake.holds_closing = True
        await rig.answered()
        await rig.passes(62.0)
        assert not rig.fake.session.is_terminated
        await rig.passes(4.0)
        assert rig.fake.session.is_terminated


async def test_everything_that_happens_to_a_session_is_told_as_events() -> None:
    async with pool_rig(idle_timeout=60.0) as rig:
        await rig.answered()
        rig.fake.session.die()
        await settle()
        kinds = [type(event) for event in rig.events]
        assert kinds == [events.SessionOpening, events.SessionReady, events.CallEnded, events.SessionLost]
        assert await rig.call(Call("resources/read", {"uri": "x"}))


async def test_the_lists_are_asked_for_without_prolonging_a_chats_session() -> None:
    async with pool_rig(idle_timeout=60.0) as rig:
        await rig.answered()
        await rig.passes(40.0)
        assert (await rig.listed()).result["tools"]
        await rig.passes(30.0)
        assert rig.pool.sessions == []


async def test_a_spare_is_not_given_to_a_caller_whose_headers_it_was_opened_without() -> None:
    async with pool_rig(pass_headers=("x-tenant",)) as rig:
        passed = (("x-tenant", "a"),)
        rig.catalog.introduce(lambda _: None, replace(rig.private_key(), passed=passed))
        await settle()
        assert [session.is_spare for session in rig.pool.sessions] == [True]
        await rig.call(key=replace(rig.key(), passed=passed))
        assert len(rig.fake.sessions) == 2
        assert rig.fake.sessions[1].calls
