"""What comes from a server and belongs to no call's stream: who hears it, and who hears nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import pytest
from msgspec import Raw

from holdfast.call import Call, Reply
from holdfast.session.watch import Watcher
from holdfast.testing.clock import settle
from pool_rig import EVERYTHING, FakeCaller, FakeWatcher, PoolRig, pool_rig
from requirements import requirement
from rows import row

READ = Call("resources/read", {"uri": "file:///a"})


@pytest.fixture(params=[False, True], ids=["upstream", "handshake"])
async def rig(request: pytest.FixtureRequest) -> AsyncGenerator[PoolRig]:
    async with pool_rig(over_link=request.param) as made:
        yield made


# Logs and the like.


@row(3)
@requirement("pool:push:belongs-to-the-only-call")
async def test_a_log_belongs_to_the_only_call_in_flight(rig: PoolRig) -> None:
    watcher = FakeWatcher()
    rig.pool.attach(rig.key(), watcher)
    caller = await rig.call(watcher=watcher)
    rig.fake.session.log("of the call")
    assert caller.logs == ["of the call"]
    assert watcher.pushed == []


async def test_a_log_goes_to_who_watches_while_nothing_or_several_are_in_flight(rig: PoolRig) -> None:
    watchers = [FakeWatcher(), FakeWatcher()]
    for watcher in watchers:
        rig.pool.attach(rig.key(), watcher)
    first = await rig.call()
    second = await rig.call()
    rig.fake.session.log("of two calls")
    assert first.logs == second.logs == []
    for call in rig.fake.session.calls:
        call.text("done")
    rig.fake.session.log("of none")
    for watcher in watchers:
        assert [params["data"] for _, params in watcher.pushed] == ["of two calls", "of none"]


@row(3)
@requirement("pool:push:shared-never-leaks")
async def test_once_two_principals_share_a_session_nothing_without_a_stream_reaches_anybody(rig: PoolRig) -> None:
    """Not even the only call in flight: it may speak of another's, that has ended."""
    alices, bobs = (rig.key(scope="shared", user=user) for user in ("alice", "bob"))
    watchers = [FakeWatcher(EVERYTHING, user) for user in ("alice", "bob")]
    for key, watcher in zip((alices, bobs), watchers, strict=True):
        rig.pool.attach(key, watcher)
    first = await rig.call(key=alices, caller=FakeCaller(EVERYTHING), watcher=watchers[0])
    first.running.cancel("she left")
    second = await rig.call(key=bobs, caller=FakeCaller(EVERYTHING), watcher=watchers[1])
    rig.fake.session.log("of the call that was cancelled")
    ask = rig.fake.session.ask(message="of the call that was cancelled")
    await settle()
    assert (second.logs, second.asks) == ([], [])
    assert [(watcher.pushed, watcher.asks) for watcher in watchers] == [([], []), ([], [])]
    assert rig.fake.session.replies == [(ask, {"action": "cancel"})]


@row(3)
@requirement("pool:push:shared-never-leaks")
async def test_a_principal_who_only_listens_to_a_shared_session_counts(rig: PoolRig) -> None:
    listening = FakeWatcher(EVERYTHING, "bob")
    caller = await rig.call(key=rig.key(scope="shared", user="alice"))
    rig.pool.attach(rig.key(scope="shared", user="bob"), listening)
    rig.fake.session.calls[-1].text("done")
    rig.fake.session.log("late, and of the call that has ended")
    assert (caller.logs, listening.pushed) == ([], [])


async def test_a_shared_session_of_one_principal_is_like_any_other(rig: PoolRig) -> None:
    key = rig.key(scope="shared")
    watcher = FakeWatcher()
    rig.pool.attach(key, watcher)
    caller = await rig.call(key=key, watcher=watcher)
    rig.fake.session.log("of the call")
    assert caller.logs == ["of the call"]


async def test_a_serial_shared_session_may_ask_until_a_call_was_abandoned() -> None:
    async with pool_rig(serial=True) as rig:
        alices, bobs = (rig.key(scope="shared", user=user) for user in ("alice", "bob"))
        await rig.answered(alices)
        asked = await rig.call(key=bobs, caller=FakeCaller(EVERYTHING))
        rig.fake.session.ask(message="of the only call there is")
        await settle()
        assert len(asked.asks) == 1
        asked.running.cancel("he left")
        other = await rig.call(key=alices, caller=FakeCaller(EVERYTHING))
        rig.fake.session.ask(message="whose?")
        await settle()
        assert other.asks == []


async def test_a_question_to_a_watcher_is_given_up_after_the_ask_timeout() -> None:
    async with pool_rig(ask_timeout=50) as rig:
        watcher = FakeWatcher(EVERYTHING)
        rig.pool.attach(rig.key(), watcher)
        await rig.answered()
        ask = rig.fake.session.ask(message="?")
        await settle()
        assert len(watcher.asks) == 1
        await rig.passes(51)
        assert watcher.withdrawn == [watcher.asks[0][0].id]
        assert rig.fake.session.replies == [(ask, {"action": "cancel"})]


async def test_nothing_belongs_to_a_call_that_still_waits_for_its_slot() -> None:
    async with pool_rig(max_concurrency=1) as rig:
        await rig.answered()
        other = await rig.call(key=rig.key("other"))
        watcher = FakeWatcher()
        rig.pool.attach(rig.key(), watcher)
        queued = await rig.call(caller=FakeCaller(EVERYTHING))
        rig.fake.sessions[0].log("of none")
        ask = rig.fake.sessions[0].ask()
        assert queued.logs == []
        assert queued.asks == []
        assert [params["data"] for _, params in watcher.pushed] == ["of none"]
        assert rig.fake.sessions[0].replies == [(ask, {"action": "cancel"})]
        assert not other.is_over


# Changes.


async def test_list_changed_reaches_everyone_who_watches_any_session_of_the_server(rig: PoolRig) -> None:
    watchers = {user: FakeWatcher() for user in ("alice", "bob")}
    for user, watcher in watchers.items():
        rig.pool.attach(rig.key(user=user), watcher)
        await rig.answered(rig.key(user=user))
    rig.fake.sessions[0].push("notifications/tools/list_changed")
    assert [w.methods for w in watchers.values()] == [["notifications/tools/list_changed"]] * 2


async def test_with_lists_of_their_own_sessions_change_for_their_watchers_only() -> None:
    async with pool_rig(lists="session") as rig:
        watchers = {user: FakeWatcher() for user in ("alice", "bob")}
        for user, watcher in watchers.items():
            rig.pool.attach(rig.key(user=user), watcher)
            await rig.answered(rig.key(user=user))
        rig.fake.sessions[0].push("notifications/tools/list_changed")
        assert [len(w.pushed) for w in watchers.values()] == [1, 0]


async def test_list_changed_on_a_calls_stream_is_told_there_and_to_everyone_else(rig: PoolRig) -> None:
    own, other = FakeWatcher(), FakeWatcher()
    for watcher in (own, other):
        rig.pool.attach(rig.key(), watcher)
    caller = await rig.call(watcher=own)
    rig.fake.session.call.notify("notifications/tools/list_changed", {})
    assert caller.notified == ["notifications/tools/list_changed"]
    assert own.pushed == []
    assert other.methods == ["notifications/tools/list_changed"]


async def test_a_changed_resource_reaches_those_who_subscribed_to_it_or_to_what_it_lies_below(rig: PoolRig) -> None:
    above, exact, other = FakeWatcher(), FakeWatcher(), FakeWatcher()
    above.subscriptions, exact.subscriptions, other.subscriptions = {"file:///d"}, {"file:///d/a"}, {"file:///dd"}
    for watcher in (above, exact, other):
        rig.pool.attach(rig.key(), watcher)
    await rig.answered()
    rig.fake.session.push("notifications/resources/updated", {"uri": "file:///d/a"})
    assert [len(w.pushed) for w in (above, exact, other)] == [1, 1, 0]


async def test_a_changed_resource_on_a_calls_stream_is_for_its_subscribers_alone(rig: PoolRig) -> None:
    own, other = FakeWatcher(), FakeWatcher()
    other.subscriptions = {"file:///a"}
    for watcher in (own, other):
        rig.pool.attach(rig.key(), watcher)
    caller = await rig.call(watcher=own)
    rig.fake.session.call.notify("notifications/resources/updated", {"uri": "file:///a"})
    assert caller.notified == []
    assert own.pushed == []
    assert other.methods == ["notifications/resources/updated"]


async def test_an_elicitation_by_url_is_complete_for_whom_it_was_put_to_and_once(rig: PoolRig) -> None:
    own, other = FakeWatcher(EVERYTHING), FakeWatcher(EVERYTHING)
    for watcher in (own, other):
        rig.pool.attach(rig.key(), watcher)
    await rig.call(caller=FakeCaller(EVERYTHING), watcher=own)
    rig.fake.session.call.ask(mode="url", url="https://example.org", elicitationId="e1")
    for _ in range(2):
        rig.fake.session.push("notifications/elicitation/complete", {"elicitationId": "e1"})
    rig.fake.session.push("notifications/elicitation/complete", {"elicitationId": "unknown"})
    assert own.methods == ["notifications/elicitation/complete"]
    assert other.pushed == []


# Questions.


@requirement("pool:asks:belong-to-one")
async def test_a_question_without_a_stream_is_the_only_calls(rig: PoolRig) -> None:
    watcher = FakeWatcher(EVERYTHING)
    rig.pool.attach(rig.key(), watcher)
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    ask = rig.fake.session.ask()
    assert len(caller.asks) == 1
    assert watcher.asks == []
    caller.say({"action": "accept"})
    assert rig.fake.session.replies == [(ask, {"action": "accept"})]


async def test_a_question_without_a_stream_that_is_taken_back_is_withdrawn_from_the_call(rig: PoolRig) -> None:
    caller = await rig.call(caller=FakeCaller(EVERYTHING))
    rig.fake.session.withdraw(rig.fake.session.ask())
    assert caller.withdrawn == [caller.asks[0].id]


async def test_with_several_calls_in_flight_nobody_is_asked(rig: PoolRig) -> None:
    watcher = FakeWatcher(EVERYTHING)
    rig.pool.attach(rig.key(), watcher)
    callers = [await rig.call(caller=FakeCaller(EVERYTHING)) for _ in range(2)]
    ask = rig.fake.session.ask()
    assert rig.fake.session.replies == [(ask, {"action": "cancel"})]
    assert [c.asks for c in callers] == [[], []]
    assert watcher.asks == []


async def test_with_none_in_flight_the_one_watcher_with_the_ability_is_asked(rig: PoolRig) -> None:
    watcher = FakeWatcher(EVERYTHING)
    rig.pool.attach(rig.key(), watcher)
    await rig.answered()
    ask = rig.fake.session.ask()
    _, reply = watcher.asks[0]
    reply(Reply(result=Raw(b'{"action":"accept"}')))
    reply(Reply(result=Raw(b'{"action":"decline"}')))
    assert rig.fake.session.replies == [(ask, {"action": "accept"})]


@pytest.mark.parametrize("watchers", [0, 2])
async def test_with_no_watcher_or_several_nobody_is_asked(watchers: int) -> None:
    async with pool_rig() as rig:
        attached = [FakeWatcher(EVERYTHING) for _ in range(watchers)]
        for watcher in attached:
            rig.pool.attach(rig.key(), watcher)
        await rig.answered()
        ask = rig.fake.session.ask()
        assert rig.fake.session.replies == [(ask, {"action": "cancel"})]
        assert all(w.asks == [] for w in attached)


async def test_a_watcher_without_the_ability_is_not_asked(rig: PoolRig) -> None:
    watcher = FakeWatcher()
    rig.pool.attach(rig.key(), watcher)
    await rig.answered()
    ask = rig.fake.session.ask("sampling/createMessage")
    assert [(a, r["code"]) for a, r in rig.fake.session.replies] == [(ask, -32601)]


async def test_a_question_taken_back_is_withdrawn_from_the_watcher(rig: PoolRig) -> None:
    watcher = FakeWatcher(EVERYTHING)
    rig.pool.attach(rig.key(), watcher)
    await rig.answered()
    ask = rig.fake.session.ask()
    rig.fake.session.withdraw(ask)
    put, reply = watcher.asks[0]
    assert watcher.withdrawn == [put.id]
    reply(Reply(result=Raw(b"{}")))
    assert rig.fake.session.replies == []


@pytest.mark.parametrize(
    ("method", "answer"),
    [("elicitation/create", {"action": "cancel"}), ("roots/list", {"roots": []}), ("sampling/createMessage", -32601)],
)
async def test_who_leaves_with_a_question_open_is_answered_for_as_anybody_is(method: str, answer: object) -> None:
    async with pool_rig() as rig:
        watcher = FakeWatcher(EVERYTHING)
        rig.pool.attach(rig.key(), watcher)
        await rig.answered()
        ask = rig.fake.session.ask(method)
        rig.pool.detach(rig.key(), watcher)
        assert [(a, r.get("code", r)) for a, r in rig.fake.session.replies] == [(ask, answer)]


# Roots.


@requirement("pool:roots:owed")
async def test_a_server_that_was_told_of_no_roots_hears_when_somebody_with_roots_comes(rig: PoolRig) -> None:
    await rig.call()
    rig.fake.session.call.ask("roots/list")
    rig.fake.session.call.text("done")
    assert rig.fake.session.replies[-1][1] == {"roots": []}
    owed = ("notifications/roots/list_changed", None)
    assert owed not in rig.fake.session.notifications
    await rig.call(caller=FakeCaller(EVERYTHING))
    await rig.call(caller=FakeCaller(EVERYTHING))
    assert rig.fake.session.notifications.count(owed) == 1


async def test_a_watcher_with_roots_pays_what_is_owed_too(rig: PoolRig) -> None:
    await rig.answered()
    rig.fake.session.ask("roots/list")
    rig.pool.attach(rig.key(), FakeWatcher(EVERYTHING))
    assert ("notifications/roots/list_changed", None) in rig.fake.session.notifications


# Levels and subscriptions, counted over watchers.


async def test_the_session_gets_the_lowest_level_that_any_watcher_set(rig: PoolRig) -> None:
    low, high = FakeWatcher(), FakeWatcher()
    for watcher in (low, high):
        rig.pool.attach(rig.key(), watcher)
    await rig.answered()

    async def set_level(level: str, watcher: Watcher) -> None:
        caller = FakeCaller()
        rig.server.set_level(rig.key(), level, caller, watcher)
        await settle()
        assert caller.result == {}

    await set_level("info", low)
    await set_level("error", high)
    await set_level("debug", high)
    levels = [r.params["level"] for r in rig.fake.session.got("logging/setLevel")]
    assert levels == ["info", "debug"]


async def test_the_server_is_asked_once_per_session_and_resource(rig: PoolRig) -> None:
    first, second = FakeWatcher(), FakeWatcher()
    for watcher in (first, second):
        rig.pool.attach(rig.key(), watcher)
    await rig.answered()
    call = Call("resources/subscribe", {"uri": "file:///a"})
    for watcher in (first, second):
        caller = FakeCaller()
        rig.server.subscribe(rig.key(), call, caller, watcher)
        await settle()
        assert caller.result == {}
    assert len(rig.fake.session.got("resources/subscribe")) == 1
    for watcher, unsubscribed in ((first, 0), (second, 1)):
        caller = FakeCaller()
        rig.server.unsubscribe(rig.key(), Call("resources/unsubscribe", {"uri": "file:///a"}), caller, watcher)
        await settle()
        assert caller.result == {}
        assert len(rig.fake.session.got("resources/unsubscribe")) == unsubscribed


async def test_the_subscriptions_of_who_leaves_are_cancelled_where_nobody_else_needs_them(rig: PoolRig) -> None:
    watchers = [FakeWatcher(), FakeWatcher()]
    for watcher, uris in zip(watchers, ({"file:///a", "file:///b"}, {"file:///b"}), strict=True):
        watcher.subscriptions = uris
        rig.pool.attach(rig.key(), watcher)
    await rig.answered()
    rig.server.detach(rig.key(), watchers[0])
    await settle()
    assert [r.params for r in rig.fake.session.got("resources/unsubscribe")] == [{"uri": "file:///a"}]


async def test_a_clients_notification_reaches_an_open_session_and_opens_none(rig: PoolRig) -> None:
    params = Raw(json.dumps({"x": 1}).encode())
    rig.server.notify(rig.key(), "notifications/x", params)
    await settle()
    assert rig.fake.sessions == []
    await rig.answered()
    rig.server.notify(rig.key(), "notifications/x", params)
    assert ("notifications/x", {"x": 1}) in rig.fake.session.notifications
