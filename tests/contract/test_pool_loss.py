"""What becomes of calls without an answer, and of sessions that are lost: architecture 5, threats-and-faults F."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from holdfast import events
from holdfast.call import Call
from holdfast.errors import Code, Delivery
from holdfast.session.lifecycle import State
from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind
from pool_rig import FakeCaller, FakeWatcher, PoolRig, pool_rig
from requirements import requirement

READ = Call("resources/read", {"uri": "file:///a"})
TRUSTED_TOOLS = {
    "tools": [
        {"name": "look", "annotations": {"readOnlyHint": True}},
        {"name": "put", "annotations": {"idempotentHint": True}},
        {"name": "tool"},
    ]
}


@pytest.fixture(params=[False, True], ids=["upstream", "handshake"])
async def rig(request: pytest.FixtureRequest) -> AsyncGenerator[PoolRig]:
    async with pool_rig(over_link=request.param) as made:
        yield made


async def learn_hints(rig: PoolRig) -> None:
    rig.fake.lists["tools/list"] = TRUSTED_TOOLS
    await rig.listed()


# Suspicion: 400 or 404 to a request of the session.


@requirement("pool:suspicion:one-ping")
async def test_one_ping_decides_for_all_suspects(rig: PoolRig) -> None:
    callers = [await rig.call(READ) for _ in range(5)]
    old = rig.fake.session
    del rig.fake.answers["ping"]
    for request in old.got("resources/read"):
        request.fail(FaultKind.REFUSED, "404 Not Found")
    await settle()
    assert len(old.got("ping")) == 1
    assert not any(caller.is_over for caller in callers)
    old.got("ping")[0].fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(0.1)
    assert len(old.got("ping")) == 1
    assert len(rig.fake.sessions) == 2
    assert len(rig.fake.session.got("resources/read")) == 5


async def test_a_server_that_answers_the_ping_keeps_its_session_and_its_error_is_relayed(rig: PoolRig) -> None:
    await rig.answered()
    caller = await rig.call("tool")
    rig.fake.session.call.fail(FaultKind.REFUSED, "400 Bad Request", {"code": -32602, "message": "no such tool"})
    await settle()
    assert caller.error == {"code": -32602, "message": "no such tool"}
    await rig.answered()
    assert len(rig.fake.sessions) == 1


async def test_a_refusal_without_an_error_object_by_a_living_server_is_upstream_invalid(rig: PoolRig) -> None:
    caller = await rig.call("tool")
    rig.fake.session.call.fail(FaultKind.REFUSED, "400 Bad Request")
    await settle()
    assert caller.code is Code.UPSTREAM_INVALID
    assert caller.failure.delivery is Delivery.REFUSED
    assert rig.pool.count(State.IDLE) == 1


async def test_a_call_that_a_living_server_refused_leaves_the_session_clean(rig: PoolRig) -> None:
    await rig.call("tool")
    rig.fake.session.call.fail(FaultKind.REFUSED, "400 Bad Request")
    await settle()
    rig.fake.session.die()
    await settle()
    await rig.answered()


@requirement("pool:loss:clean-calls-are-resent-once")
async def test_calls_refused_in_a_clean_session_run_in_one_new_session(rig: PoolRig) -> None:
    callers = [await rig.call(f"t{n}") for n in range(4)]
    rig.fake.is_known = False
    for request in rig.fake.session.calls:
        request.fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(0.2)
    assert len(rig.fake.sessions) == 2
    assert [c.name for c in rig.fake.session.calls] == ["t0", "t1", "t2", "t3"]
    for request in rig.fake.session.calls:
        request.text("ok")
    assert [c.text for c in callers] == ["ok"] * 4
    assert [e.is_reopened for e in rig.seen(events.SessionReady)] == [False, True]
    assert len(rig.seen(events.SessionLost)) == 1
    assert len(rig.seen(events.CallRepeated)) == 4


async def test_a_call_that_is_sent_again_is_a_new_request_with_a_new_id() -> None:
    async with pool_rig(over_link=True) as rig:
        caller = await rig.call(READ)
        first: Any = rig.fake.session.requests[-1]
        first.fail(FaultKind.CUT)
        await rig.passes(0.2)
        second: Any = rig.fake.session.requests[-1]
        assert second is not first
        assert second.id != first.id
        first.result({"late": True})
        assert not caller.is_over
        second.result({})
        assert caller.result == {}


async def test_a_call_that_is_refused_twice_is_not_sent_a_third_time(rig: PoolRig) -> None:
    rig.fake.is_known = False
    caller = await rig.call("tool")
    for _ in range(2):
        rig.fake.session.call.fail(FaultKind.REFUSED, "404 Not Found")
        await rig.passes(0.2)
    assert caller.code is Code.UPSTREAM_UNAVAILABLE
    assert caller.failure.delivery is Delivery.REFUSED
    assert caller.failure.retryable
    assert len(rig.fake.calls) == 2


@requirement("pool:loss:dirty-is-told-once")
async def test_every_call_that_a_lost_dirty_session_refused_is_told_and_uses_the_marker_up(rig: PoolRig) -> None:
    await rig.answered()
    callers = [await rig.call("tool"), await rig.call(READ), await rig.call("tool")]
    rig.fake.is_known = False
    for request in rig.fake.session.requests[1:]:
        request.fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(0.2)
    assert [c.code for c in callers] == [Code.SESSION_LOST] * 3
    assert all(c.failure.delivery is Delivery.REFUSED and c.failure.retryable for c in callers)
    assert len(rig.fake.sessions) == 1
    await rig.answered()  # without another refusal
    assert len(rig.fake.sessions) == 2


async def test_a_loss_with_nothing_in_flight_is_told_to_the_next_call_of_whatever_method_once(rig: PoolRig) -> None:
    await rig.answered()
    rig.fake.session.die()
    await settle()
    assert (await rig.call(READ)).code is Code.SESSION_LOST
    assert len(rig.fake.sessions) == 1
    await rig.answered()
    await rig.answered()


async def test_a_clean_session_that_died_is_followed_by_a_new_one_without_a_word(rig: PoolRig) -> None:
    reader = await rig.call(READ)
    rig.fake.session.requests[-1].result({})
    assert reader.is_over
    rig.fake.session.die()
    await settle()
    await rig.answered()


async def test_the_loss_of_one_key_is_no_other_keys_business(rig: PoolRig) -> None:
    await rig.answered(rig.key("a"))
    await rig.answered(rig.key("b"))
    rig.fake.sessions[0].die()
    await settle()
    await rig.answered(rig.key("b"))
    assert (await rig.call(key=rig.key("a"))).code is Code.SESSION_LOST


async def test_a_push_that_was_refused_raises_the_suspicion_too(rig: PoolRig) -> None:
    await rig.answered()
    rig.fake.is_known = False
    rig.fake.session.suspect()
    await settle()
    assert rig.fake.session.is_terminated
    assert (await rig.call()).code is Code.SESSION_LOST
    await rig.answered()


@requirement("pool:loss:ends-what-is-in-flight")
async def test_a_call_in_flight_ends_when_its_session_turns_out_to_be_lost(rig: PoolRig) -> None:
    """It would otherwise wait for its timeout, since nothing of the old session is read any more."""
    unsafe, safe = await rig.call("tool"), await rig.call(READ)
    refused = await rig.call(READ)
    rig.fake.is_known = False
    rig.fake.session.requests[-1].fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(1.9)
    assert not unsafe.is_over
    await rig.passes(0.3)
    assert unsafe.code is Code.OUTCOME_UNKNOWN
    assert [r.method for r in rig.fake.session.requests] == ["resources/read", "resources/read"]
    for request in rig.fake.session.requests:
        request.result({})
    assert (safe.result, refused.result) == ({}, {})


async def test_calls_in_flight_when_a_dirty_session_is_lost_are_told_and_use_the_marker_up(rig: PoolRig) -> None:
    await rig.answered()
    reader = await rig.call(READ)
    rig.fake.is_known = False
    rig.fake.session.suspect()
    await settle()
    rig.fake.session.requests[-2].fail(FaultKind.REFUSED, "404 Not Found")
    await settle()
    assert reader.code is Code.SESSION_LOST
    assert rig.fake.session.is_terminated
    await rig.answered()


@requirement("pool:loss:each-call-by-itself")
async def test_calls_still_in_flight_when_a_session_is_found_lost_are_each_settled_by_what_they_get(
    rig: PoolRig,
) -> None:
    """Of many calls that one restart refuses, the first refusal must not make the others' outcome unknown."""
    refused, later, answered = [await rig.call(name) for name in ("refused", "later", "answered")]
    old = rig.fake.session
    rig.fake.is_known = False
    old.calls[0].fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(0.2)
    assert len(rig.fake.sessions) == 2
    assert not old.is_terminated
    old.calls[1].fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(0.2)
    assert [c.name for c in rig.fake.session.calls] == ["refused", "later"]
    for request in rig.fake.session.calls:
        request.text("ok")
    old.calls[2].text("ran on another replica")
    assert (refused.text, later.text, answered.text) == ("ok", "ok", "ran on another replica")
    assert old.is_terminated
    assert len(old.got("ping")) == 1
    assert len(rig.seen(events.SessionLost)) == 1
    assert (await rig.call()).code is Code.SESSION_LOST  # of what the last one left there
    await rig.answered()


async def test_closing_the_pool_does_not_wait_for_what_a_lost_session_has_not_settled(rig: PoolRig) -> None:
    caller = await rig.call("tool")
    rig.fake.is_known = False
    rig.fake.session.suspect()
    await settle()
    closing = rig.scope.start(rig.pool.aclose(), "close")
    await settle()
    assert closing.done()
    assert len(caller.outcomes) == 1


async def test_a_server_that_cannot_be_reached_for_the_ping_is_asked_twice(rig: PoolRig) -> None:
    del rig.fake.answers["ping"]
    caller = await rig.call("tool")
    old = rig.fake.session
    old.call.fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(5.2)
    assert len(old.got("ping")) == 2
    old.got("ping")[1].result({})
    await settle()
    assert caller.code is Code.UPSTREAM_INVALID  # it lives
    assert not old.is_terminated


async def test_a_call_cancelled_under_suspicion_ends_once(rig: PoolRig) -> None:
    del rig.fake.answers["ping"]
    caller = await rig.call("tool")
    rig.fake.session.call.fail(FaultKind.REFUSED, "404 Not Found")
    await settle()
    caller.running.cancel("the client left")
    rig.fake.session.got("ping")[0].fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(0.2)
    assert len(caller.outcomes) == 1
    assert len(rig.fake.calls) == 1


# The process or connection that is the session has ended.


@requirement("pool:loss:cut-off-is-told")
async def test_an_unsafe_call_that_was_cut_off_is_told_and_uses_the_marker_up(rig: PoolRig) -> None:
    await rig.answered()
    caller = await rig.call("tool")
    rig.fake.session.die()
    await settle()
    assert caller.code is Code.OUTCOME_UNKNOWN
    assert caller.failure.delivery is Delivery.UNKNOWN
    assert not caller.failure.retryable
    await rig.answered()
    assert len(rig.fake.calls) == 3


async def test_a_safe_call_that_was_cut_off_in_a_clean_session_runs_once_more(rig: PoolRig) -> None:
    caller = await rig.call(READ)
    rig.fake.session.die()
    await rig.passes(0.2)
    assert len(rig.fake.sessions) == 2
    rig.fake.session.requests[-1].result({"again": True})
    assert caller.result == {"again": True}
    assert "reconnecting" in caller.statuses


async def test_a_safe_call_that_was_cut_off_twice_ends(rig: PoolRig) -> None:
    caller = await rig.call(READ)
    for _ in range(2):
        rig.fake.session.die()
        await rig.passes(0.2)
    assert caller.code is Code.OUTCOME_UNKNOWN
    assert len(rig.fake.requests) == 2


async def test_a_call_of_which_something_was_relayed_is_never_sent_again(rig: PoolRig) -> None:
    caller = FakeCaller()
    await rig.call(Call("resources/read", {"uri": "x"}, wants_progress=True), caller=caller)
    rig.fake.session.requests[-1].progress(0.5)
    rig.fake.session.die()
    await rig.passes(0.2)
    assert caller.progressed == [0.5]
    assert caller.code is Code.OUTCOME_UNKNOWN
    assert len(rig.fake.requests) == 1


async def test_a_call_that_waited_for_a_slot_of_a_dead_session_is_sent_in_the_next_one() -> None:
    """It was never sent, so it must not be told that its outcome is unknown."""
    async with pool_rig(max_concurrency=1) as rig:
        sent = await rig.call("sent")
        queued = await rig.call("queued")
        rig.fake.session.die()
        await rig.passes(0.2)
        assert sent.code is Code.OUTCOME_UNKNOWN
        assert rig.fake.session.call.name == "queued"
        rig.fake.session.call.text("ok")
        assert queued.text == "ok"


async def test_a_call_that_fails_at_once_belongs_to_the_session_that_it_went_on_to() -> None:
    """A spare takes it over before the first `send` has returned; cancelling must reach the second."""
    async with pool_rig(spares=2) as rig:
        await settle()

        def die(request: Any) -> None:
            del rig.fake.answers["resources/read"]
            request.session.die()

        rig.fake.answers["resources/read"] = die
        caller = await rig.call(READ)
        first, second = rig.fake.requests
        assert first.session is not second.session
        caller.running.cancel("the client left")
        assert second.cancelled == "the client left"
        assert first.cancelled is None


# Other evidence.


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.UNAVAILABLE])
async def test_a_safe_call_is_sent_again_once_in_the_same_session(kind: FaultKind) -> None:
    async with pool_rig() as rig:
        caller = await rig.call(READ)
        rig.fake.session.requests[-1].fail(kind)
        assert not caller.is_over
        await rig.passes(0.2)
        assert len(rig.fake.requests) == 2
        rig.fake.session.requests[-1].fail(kind)
        assert caller.code is Code.OUTCOME_UNKNOWN
        await rig.passes(1.0)
        assert len(rig.fake.requests) == 2
        assert len(rig.fake.sessions) == 1


@pytest.mark.parametrize("is_dirty", [False, True])
@pytest.mark.parametrize("second", [FaultKind.REFUSED, FaultKind.NOT_SENT])
async def test_of_a_call_that_was_cut_off_once_it_is_never_said_that_it_was_not_executed(
    second: FaultKind, is_dirty: bool
) -> None:
    async with pool_rig() as rig:
        if is_dirty:
            await rig.answered()
        caller = await rig.call(READ)
        rig.fake.session.requests[-1].fail(FaultKind.CUT)
        await rig.passes(0.2)
        rig.fake.is_known = False
        rig.fake.session.requests[-1].fail(second)
        await rig.passes(1.0)
        assert caller.code is Code.OUTCOME_UNKNOWN
        assert (caller.failure.delivery, caller.failure.retryable) == (Delivery.UNKNOWN, False)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (FaultKind.CUT, Code.OUTCOME_UNKNOWN),
        (FaultKind.UNAVAILABLE, Code.OUTCOME_UNKNOWN),
        (FaultKind.FAILED, Code.OUTCOME_UNKNOWN),
        (FaultKind.INVALID, Code.UPSTREAM_INVALID),
        (FaultKind.UNAUTHORIZED, Code.UPSTREAM_UNAUTHORIZED),
    ],
)
async def test_an_unsafe_call_is_never_sent_again(kind: FaultKind, code: Code) -> None:
    async with pool_rig() as rig:
        caller = await rig.call("tool")
        rig.fake.session.call.fail(kind)
        assert caller.code is code
        await rig.passes(1.0)
        assert len(rig.fake.calls) == 1


@pytest.mark.parametrize("kind", [FaultKind.FAILED, FaultKind.INVALID])
async def test_a_hinted_tool_of_a_trusted_server_is_sent_again_after_a_5xx_or_nonsense(kind: FaultKind) -> None:
    async with pool_rig(trusted=True) as rig:
        await learn_hints(rig)
        caller = await rig.call("look")
        rig.fake.session.call.fail(kind)
        await rig.passes(0.2)
        rig.fake.session.call.text("seen")
        assert caller.text == "seen"
        assert len(rig.fake.calls) == 2


async def test_hints_of_a_server_that_is_not_trusted_count_for_nothing() -> None:
    async with pool_rig() as rig:
        await learn_hints(rig)
        caller = await rig.call("look")
        rig.fake.session.call.fail(FaultKind.CUT)
        assert caller.code is Code.OUTCOME_UNKNOWN


async def test_a_call_of_which_no_byte_was_written_is_sent_again_whatever_it_is(rig: PoolRig) -> None:
    caller = await rig.call("tool")
    rig.fake.session.call.fail(FaultKind.NOT_SENT, "connection refused")
    await rig.passes(0.2)
    rig.fake.session.call.fail(FaultKind.NOT_SENT, "connection refused")
    assert caller.code is Code.UPSTREAM_UNAVAILABLE
    assert caller.failure.delivery is Delivery.NOT_SENT
    assert len(rig.fake.calls) == 2


async def test_a_tool_that_was_never_sent_does_not_make_its_session_dirty(rig: PoolRig) -> None:
    caller = await rig.call("tool")
    for _ in range(2):
        rig.fake.session.call.fail(FaultKind.NOT_SENT, "connection refused")
        await rig.passes(0.2)
    assert caller.is_over
    rig.fake.session.die()
    await settle()
    await rig.answered()


@pytest.mark.parametrize("refusal", [-32601, -32602])
async def test_a_tool_that_the_server_declined_to_run_does_not_make_its_session_dirty(refusal: int) -> None:
    async with pool_rig() as rig:
        await rig.call("tool")
        rig.fake.session.call.error(refusal)
        rig.fake.session.die()
        await settle()
        await rig.answered()


async def test_a_tool_that_was_cancelled_on_its_way_makes_its_session_dirty() -> None:
    async with pool_rig() as rig:
        caller = await rig.call("tool")
        caller.running.cancel("the client left")
        rig.fake.session.die()
        await settle()
        assert (await rig.call()).code is Code.SESSION_LOST


async def test_a_read_only_tool_of_a_trusted_server_leaves_no_traces_and_an_idempotent_one_does() -> None:
    async with pool_rig(trusted=True) as rig:
        await learn_hints(rig)
        await rig.answered(tool="look")
        rig.fake.calls[-1].session.die()
        await settle()
        await rig.answered(tool="put")
        rig.fake.calls[-1].session.die()
        await settle()
        assert (await rig.call()).code is Code.SESSION_LOST


async def test_with_on_loss_resume_a_refused_call_goes_on_in_the_new_session_and_nobody_is_refused() -> None:
    async with pool_rig(on_loss="resume") as rig:
        await rig.answered()
        caller = await rig.call("tool")
        rig.fake.is_known = False
        rig.fake.session.call.fail(FaultKind.REFUSED, "404 Not Found")
        await rig.passes(0.2)
        rig.fake.session.call.text("resumed")
        assert caller.text == "resumed"
        await rig.answered()
        rig.fake.session.die()
        await settle()
        await rig.answered()
        assert [e.was_dirty for e in rig.seen(events.SessionLost)] == [False, False], "nobody will be told"


async def test_repetitions_are_a_tenth_of_all_calls_at_most() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["resources/read"] = lambda request: request.fail(FaultKind.CUT)
        rig.fake.answers["tools/call"] = lambda request: request.text("ok")
        callers: list[FakeCaller] = []
        for _ in range(50):
            callers += [await rig.call(READ) for _ in range(3)]
            await rig.answered()  # else the server is left alone after five failures
        await rig.passes(0.5)
        assert all(c.code is Code.OUTCOME_UNKNOWN for c in callers)
        repeated = len(rig.fake.requests) - 200
        assert 10 <= repeated <= 10 + 200 // 10


# Reopening.


async def test_a_call_hears_that_its_session_was_lost_and_that_it_was_opened_again() -> None:
    async with pool_rig() as rig:
        reader = await rig.read()
        rig.fake.session.die()
        await rig.passes(0.2)
        rig.fake.requests[-1].result({})
        assert reader.result == {}
        assert reader.statuses == ["connecting", "ready", "lost", "reconnecting", "restored"]


async def test_who_comes_while_a_lost_session_is_opened_again_hears_of_the_same() -> None:
    async with pool_rig() as rig:
        await rig.read()
        rig.fake.holds_openings = True
        rig.fake.session.die()
        await rig.passes(0.2)
        late = await rig.call(key=rig.key())
        rig.fake.session.let_open()
        await settle()
        assert late.statuses == ["connecting", "restored"]


async def test_the_level_and_the_subscriptions_are_set_up_again_after_reopening(rig: PoolRig) -> None:
    watcher = FakeWatcher()
    watcher.log_level, watcher.subscriptions = "warning", {"file:///b", "file:///a"}
    rig.pool.attach(rig.key(), watcher)
    await rig.answered()
    rig.fake.session.die()
    await settle()
    await rig.call()  # told
    await rig.call()
    await rig.passes(0.2)
    assert [(r.method, r.params) for r in rig.fake.session.requests][:3] == [
        ("logging/setLevel", {"level": "warning"}),
        ("resources/subscribe", {"uri": "file:///a"}),
        ("resources/subscribe", {"uri": "file:///b"}),
    ]


async def test_what_cannot_be_set_up_again_hinders_nobody(rig: PoolRig) -> None:
    watcher = FakeWatcher()
    watcher.subscriptions = {"file:///gone", "file:///slow"}
    rig.pool.attach(rig.key(), watcher)

    def subscribe(request: Any) -> None:
        if request.params["uri"] == "file:///gone":
            request.error(-32002)

    rig.fake.answers["resources/subscribe"] = subscribe
    caller = await rig.call()
    assert not caller.is_over
    await rig.passes(5.0)
    rig.fake.session.call.text("ok")
    assert caller.text == "ok"


@requirement("pool:loss:list-changed-where-lists-differ")
async def test_who_watches_hears_of_lists_that_differ_after_reopening_and_only_of_those(rig: PoolRig) -> None:
    await rig.listed()
    await rig.listed("resources/list")
    watcher = FakeWatcher()
    rig.pool.attach(rig.key(), watcher)
    await rig.call(READ)
    rig.fake.lists["tools/list"] = {"tools": [{"name": "another"}]}
    for session in rig.fake.open_sessions:
        session.die()
    await rig.passes(0.2)
    assert watcher.methods == ["notifications/tools/list_changed"]
    assert (await rig.listed()).result == {"tools": [{"name": "another"}]}


async def test_where_each_session_has_its_own_lists_all_may_differ_after_reopening() -> None:
    async with pool_rig(lists="session") as rig:
        watcher = FakeWatcher()
        rig.pool.attach(rig.key(), watcher)
        await rig.call(READ)
        rig.fake.session.die()
        await rig.passes(0.2)
        assert sorted(watcher.methods) == [
            "notifications/prompts/list_changed",
            "notifications/resources/list_changed",
            "notifications/tools/list_changed",
        ]


async def test_a_spare_that_follows_a_lost_session_counts_as_its_reopening() -> None:
    async with pool_rig(lists="session", spares=1) as rig:
        await settle()
        watcher = FakeWatcher()
        rig.pool.attach(rig.key(), watcher)
        await rig.call(READ)
        rig.fake.sessions[0].die()
        await rig.passes(0.2)
        assert len(watcher.methods) == 3


async def test_a_reopening_that_fails_is_told_to_the_calls_that_were_to_be_sent_again(rig: PoolRig) -> None:
    callers = [await rig.call("tool") for _ in range(3)]
    rig.fake.is_known = False
    rig.fake.open_fault = Fault(FaultKind.INVALID, "the new one does not start")
    for request in rig.fake.session.calls:
        request.fail(FaultKind.REFUSED, "404 Not Found")
    await rig.passes(0.2)
    for caller in callers:
        assert caller.code is Code.UPSTREAM_UNAVAILABLE
        assert "the new one does not start" in caller.failure.message


# A server that dies again and again.


@requirement("pool:loss:crash-loops-are-slowed")
async def test_a_server_that_dies_again_and_again_is_started_more_and_more_slowly() -> None:
    async with pool_rig(on_loss="resume") as rig:
        opened = 0
        for _ in range(5):
            await rig.call()
            await rig.passes(1.1)
            assert len(rig.fake.sessions) == opened + 1
            opened += 1
            rig.fake.session.die()
            await settle()
        refused = await rig.call()
        assert refused.code == -31001
        assert "died again and again" in refused.failure.message
        assert len(rig.fake.sessions) == opened
        await rig.passes(2.0)
        assert not (await rig.call()).is_over
        assert len(rig.fake.sessions) == opened + 1


@requirement("pool:loss:crash-loops-are-slowed")
async def test_whose_server_dies_again_and_again_keeps_nobody_else_from_it() -> None:
    async with pool_rig(on_loss="resume") as rig:
        for _ in range(6):
            await rig.call()
            await rig.passes(1.1)
            rig.fake.session.die()
            await settle()
        other = await rig.call(key=rig.key(user="bob"))
        assert not other.is_over
        assert rig.fake.session.is_open


async def test_a_server_that_lived_for_a_while_is_started_again_at_once() -> None:
    async with pool_rig(on_loss="resume") as rig:
        for number in range(6):
            await rig.call()
            await settle()
            assert len(rig.fake.sessions) == number + 1
            await rig.passes(61)
            rig.fake.session.die()
            await settle()


async def test_a_lost_session_is_opened_again_at_once_for_who_waits_for_updates() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["resources/subscribe"] = lambda request: request.result({})
        watcher = FakeWatcher()
        watcher.subscriptions.add("memo://note")
        rig.pool.attach(rig.key(), watcher)
        await rig.read()
        rig.fake.session.got("resources/read")[-1].result({"contents": []})
        await settle()
        rig.fake.session.die()
        await rig.passes(1.0)
        assert len(rig.fake.sessions) == 2
        assert [request.params for request in rig.fake.session.got("resources/subscribe")] == [{"uri": "memo://note"}]


@requirement("pool:loss:dirty-is-told-once")
async def test_opening_ahead_takes_the_news_of_a_loss_from_nobody(rig: PoolRig) -> None:
    await rig.answered()
    rig.fake.session.die()
    await settle()
    assert rig.pool.is_lost(rig.key())
    rig.fake.answers.pop("ping")
    ahead = FakeCaller()
    assert rig.pool.warm(rig.key(), ahead) is not None
    await settle()
    for _ in range(2):  # the sessions that it opens die in turn
        assert not ahead.is_over
        rig.fake.session.die()
        await rig.passes(5)
    assert ahead.code is not Code.SESSION_LOST
    assert (await rig.call()).code is Code.SESSION_LOST


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.TIMEOUT, FaultKind.INVALID, FaultKind.FAILED])
async def test_opening_ahead_that_fails_says_that_nothing_was_executed(rig: PoolRig, kind: FaultKind) -> None:
    rig.fake.answers.pop("ping")
    ahead = FakeCaller()
    assert rig.pool.warm(rig.key(), ahead) is not None
    await settle()
    while not ahead.is_over:  # where it may be repeated, it is
        rig.fake.session.got("ping")[-1].fail(kind, "it broke")
        await rig.passes(1.0)
    assert ahead.code is Code.UPSTREAM_UNAVAILABLE
    assert (ahead.failure.delivery, ahead.failure.retryable) == (Delivery.NOT_SENT, True)
    assert "it broke" in ahead.failure.message
