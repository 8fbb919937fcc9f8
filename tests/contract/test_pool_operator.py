"""What an operator sees of a pool, and how sessions are ended by hand."""

from __future__ import annotations

import pytest

from holdfast import events
from holdfast.errors import Code, Delivery
from holdfast.session.key import Principal, SessionKey
from holdfast.testing.clock import settle
from holdfast.views import SessionView
from pool_rig import FakeCaller, FakeWatcher, PoolRig, pool_rig
from requirements import requirement


def of_client(rig: PoolRig, client: str, chat: str = "c1") -> SessionKey:
    return SessionKey("srv", "r", "c", "chat", Principal(client, "alice"), f"chat:{chat}")


def session_id(rig: PoolRig, key: SessionKey) -> str:
    session = rig.pool.session_of(key)
    assert session is not None
    return session.id


# Views.


async def test_a_view_tells_whose_a_session_is_and_what_goes_on_in_it() -> None:
    async with pool_rig() as rig:
        key = rig.key(user="alice")
        watcher = FakeWatcher()
        watcher.subscriptions = {"file:///a"}
        rig.pool.attach(key, watcher)
        await rig.call(key=key)
        await rig.passes(3.0)
        (seen,) = rig.pool.views()
        assert seen == SessionView(
            id=session_id(rig, key),
            server="srv",
            key=key.digest,
            state="active",
            scope="chat",
            client="host",
            user="alice",
            age=3.0,
            idle=0.0,
            calls=1,
            watchers=1,
            subscriptions=1,
            is_dirty=False,
        )
        rig.fake.session.call.text("ok")
        await rig.passes(2.0)
        (seen,) = rig.pool.views()
        assert (seen.state, seen.age, seen.idle, seen.calls, seen.is_dirty) == ("idle", 5.0, 2.0, 0, True)


async def test_a_spare_and_a_shared_session_are_nobodys() -> None:
    async with pool_rig(spares=1) as rig:
        await settle()
        await rig.call(key=rig.key(scope="shared"))
        await settle()
        seen = [(v.scope, v.client, v.user, bool(v.key)) for v in rig.pool.views()]
        assert seen == [("shared", None, None, True), ("spare", None, None, False)]


async def test_what_is_sent_queued_and_waiting_is_counted() -> None:
    async with pool_rig(max_sessions=1, max_concurrency=1) as rig:
        for _ in range(3):
            await rig.call(key=rig.key("a"))
        await rig.call(key=rig.key("b"))
        assert (rig.pool.sent, rig.pool.queued, rig.pool.waiting) == (1, 2, 1)
        assert rig.pool.states() == {"active": 1}


# One session.


@requirement("pool:operator:ends-a-session")
async def test_an_operator_ends_a_session_with_its_calls_and_its_next_caller_is_told_once() -> None:
    async with pool_rig() as rig:
        await rig.answered()
        caller = await rig.call()
        assert rig.pool.close_session(session_id(rig, rig.key()))
        await settle()
        assert "an operator ended its session" in caller.failure.message
        assert rig.fake.session.call.cancelled
        assert rig.fake.session.is_closed
        assert [event.was_dirty for event in rig.seen(events.SessionClosed)] == [True]
        assert (await rig.call()).code is Code.SESSION_LOST
        await rig.answered()
        assert len(rig.fake.sessions) == 2


@pytest.mark.parametrize("over_link", [False, True], ids=["upstream", "handshake"])
async def test_nothing_is_missed_of_a_server_that_keeps_nothing_in_its_sessions(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        rig.fake.is_stateless = True
        await rig.answered()
        assert rig.pool.close_session(session_id(rig, rig.key()))
        await rig.answered()


async def test_ending_a_clean_session_leaves_no_marker() -> None:
    async with pool_rig() as rig:
        await rig.read()
        rig.fake.requests[-1].result({})
        assert rig.pool.close_session(session_id(rig, rig.key()))
        await rig.answered()


async def test_ending_a_session_that_still_opens_ends_the_calls_that_wait_for_it() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        callers = [await rig.call() for _ in range(2)]
        assert rig.pool.close_session(rig.pool.views()[0].id)
        await settle()
        assert all("an operator" in caller.failure.message for caller in callers)
        assert rig.pool.sessions == []


async def test_a_session_that_is_not_there_or_ends_already_is_not_ended() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_closing = True
        await rig.answered()
        name = session_id(rig, rig.key())
        assert not rig.pool.close_session(name + "0")
        assert rig.pool.close_session(name)
        await settle()
        assert [seen.state for seen in rig.pool.views()] == ["closed"]
        assert not rig.pool.close_session(name)


async def test_the_room_of_an_ended_session_serves_who_waits() -> None:
    async with pool_rig(max_sessions=1) as rig:
        await rig.call(key=rig.key("a"))
        waiter = await rig.call("next", rig.key("b"))
        assert rig.pool.close_session(session_id(rig, rig.key("a")))
        await settle()
        assert rig.fake.session.call.name == "next"
        rig.fake.session.call.text("served")
        assert waiter.text == "served"


# Those of a client.


@requirement("pool:operator:ends-what-a-revoked-client-has")
async def test_a_revoked_client_loses_every_session_and_call_and_nobody_else_does() -> None:
    async with pool_rig(max_sessions=4) as rig:
        gone, stays = of_client(rig, "gone"), of_client(rig, "stays")
        await rig.answered(gone)
        running, others = await rig.call(key=gone), [await rig.call(key=stays)]
        rig.fake.holds_openings = True
        opening = await rig.call(key=of_client(rig, "gone", "c2"))
        others.append(await rig.call(key=of_client(rig, "stays", "c2")))
        in_line = await rig.call(key=of_client(rig, "gone", "c3"))
        rig.pool.close_sessions_of("gone")
        await settle()
        assert all("may call no more" in caller.failure.message for caller in (running, opening, in_line))
        assert not any(caller.is_over for caller in others)
        assert {seen.client for seen in rig.pool.views()} == {"stays"}
        assert rig.pool.session_of(stays) is not None


@pytest.mark.parametrize("is_pinged", [False, True], ids=["opening", "pinged"])
async def test_who_only_opens_a_session_ahead_is_not_told_that_something_may_have_been_executed(
    is_pinged: bool,
) -> None:
    async with pool_rig() as rig:
        rig.fake.answers.pop("ping")
        rig.fake.holds_openings = not is_pinged
        ahead = FakeCaller()
        rig.pool.warm(of_client(rig, "gone"), ahead)
        await settle()
        assert len(rig.fake.session.got("ping")) == is_pinged
        rig.pool.close_sessions_of("gone")
        await settle()
        assert ahead.code is Code.UPSTREAM_UNAVAILABLE
        assert (ahead.failure.delivery, ahead.failure.retryable) == (Delivery.NOT_SENT, True)
        assert "may call no more" in ahead.failure.message


async def test_a_revoked_client_finds_no_marker_should_it_come_back() -> None:
    async with pool_rig(idle_timeout=60.0) as rig:
        await rig.answered(of_client(rig, "gone", "old"))
        await rig.passes(66.0)
        await rig.answered(of_client(rig, "gone"))
        rig.pool.close_sessions_of("gone")
        await settle()
        assert rig.pool.sessions == []
        await rig.answered(of_client(rig, "gone"))
        await rig.answered(of_client(rig, "gone", "old"))


async def test_a_shared_session_outlives_one_of_its_clients() -> None:
    async with pool_rig() as rig:
        one = SessionKey("srv", "r", "c", "shared", None, asker=Principal("gone"))
        two = SessionKey("srv", "r", "c", "shared", None, asker=Principal("stays"))
        left, stayed = await rig.call(key=one), await rig.call(key=two)
        rig.pool.close_sessions_of("gone")
        assert left.is_over
        rig.fake.session.calls[1].text("ok")
        assert stayed.text == "ok"
        assert rig.pool.session_of(two) is not None
