"""How many sessions a user may have, over all servers, and what makes way for whom: row 22."""

# pyright: reportPrivateUsage=false
# What is left behind shows in private tables only.

from __future__ import annotations

from dataclasses import replace

from holdfast import events
from holdfast.config import Limits
from holdfast.errors import Code, Delivery
from holdfast.session.quota import Quota
from holdfast.testing.clock import settle
from pool_rig import PoolRig, pool_rig
from requirements import requirement
from rows import row


def limits(per_user: int, total: int = 10_000) -> Quota:
    return Quota(Limits(sessions_per_user=per_user, sessions=total))


def idle_chats(rig: PoolRig, user: str) -> int:
    return sum(view.user == user and view.state == "idle" for view in rig.pool.views())


@requirement("pool:quota:a-flood-evicts-only-its-own")
@row(22)
async def test_a_flood_at_a_full_server_evicts_none_of_anothers_and_does_not_hold_up_others() -> None:
    """Without a limit for users, what a server can hold is shared among those who are there."""
    async with pool_rig(max_sessions=20) as rig:
        for n in range(8):
            await rig.answered(rig.key(f"b{n}", user="bob"))
        flood = [await rig.call(key=rig.key(f"a{n}", user="mallory")) for n in range(40)]
        assert idle_chats(rig, "bob") == 8
        assert sum(caller.is_over for caller in flood) == 0
        newcomer = await rig.call("hello", rig.key("c1", user="carol"))
        rig.fake.calls[-1].text("served")
        await settle()
        assert newcomer.text == "served"
        assert idle_chats(rig, "bob") == 7  # carol holds less than her share, so the longest idle made way
        flood[0].running.cancel("it left")
        await settle()
        assert idle_chats(rig, "bob") == 7


@requirement("pool:quota:counts-over-all-servers")
async def test_the_longest_idle_session_of_the_user_makes_way_whatever_server_it_is_with() -> None:
    quota = limits(2)
    async with pool_rig(quota=quota, name="one") as one, pool_rig(quota=quota, name="two", beside=one) as two:
        await two.answered(two.key("bobs", user="bob"))
        await one.answered(one.key("a"))
        await two.passes(1.0)
        await two.answered(two.key("b"))
        await two.passes(1.0)
        await two.answered(two.key("c"))
        assert [seen.state for seen in one.pool.views()] == []
        assert len(two.pool.sessions) == 3
        assert [event.reason for event in one.seen(events.SessionClosed)] == ["the user has 2 sessions"]
        assert (await one.call(key=one.key("a"))).code is Code.SESSION_LOST  # it was dirty
        await one.answered(one.key("a"))
        assert two.pool.session_of(two.key("b")) is None
        assert two.pool.session_of(two.key("bobs", user="bob")) is not None


@requirement("pool:quota:waits-then-tells")
async def test_a_user_with_nothing_idle_waits_and_is_told_of_its_limit() -> None:
    async with pool_rig(quota=limits(2), acquire_timeout=30.0) as rig:
        for chat in ("a", "b"):
            await rig.call(key=rig.key(chat))
        waiter = await rig.call(key=rig.key("c"))
        assert waiter.statuses == ["waiting"]
        other = await rig.call(key=rig.key("c", user="bob"))
        assert len(rig.fake.sessions) == 3
        await rig.passes(29.0)
        assert not waiter.is_over
        await rig.passes(1.0)
        assert waiter.code is Code.OVERLOADED
        assert "the user has 2 sessions" in waiter.failure.message
        assert waiter.failure.delivery is Delivery.NOT_SENT
        assert not other.is_over


async def test_a_call_that_waits_for_its_users_limit_is_served_when_another_falls_idle_at_another_server() -> None:
    quota = limits(1)
    async with pool_rig(quota=quota, name="one") as one, pool_rig(quota=quota, name="two", beside=one) as two:
        await one.call(key=one.key("a"))
        waiter = await two.call(key=two.key("b"))
        follower = await two.call("later", two.key("b"))
        assert two.fake.sessions == []
        one.fake.session.call.text("done")
        await settle()
        assert one.fake.session.is_closed
        for call in two.fake.calls:
            call.text("served")
        assert (waiter.text, follower.text) == ("served", "served")


async def test_who_waits_for_its_limit_and_leaves_holds_up_nobody() -> None:
    async with pool_rig(quota=limits(2)) as rig:
        for chat in ("a", "a2"):
            await rig.call(key=rig.key(chat))
        first, second = await rig.call("first", rig.key("b")), await rig.call("second", rig.key("c"))
        first.running.cancel("it left")
        rig.fake.session.call.text("done")
        await settle()
        assert rig.fake.calls[-1].name == "second"
        rig.fake.calls[-1].text("served")
        assert second.text == "served"


async def test_more_keys_than_a_user_may_have_sessions_do_not_wait_for_its_limit() -> None:
    async with pool_rig(quota=limits(2)) as rig:
        callers = [await rig.call(key=rig.key(f"c{n}")) for n in range(5)]
        assert [caller.is_over for caller in callers] == [False] * 4 + [True]
        assert callers[4].code is Code.OVERLOADED


async def test_a_lost_session_is_reopened_in_its_own_place() -> None:
    async with pool_rig(quota=limits(2)) as rig:
        await rig.answered(rig.key("a"))
        await rig.read(rig.key("b"))
        rig.fake.requests[-1].result({})
        rig.fake.session.die()
        await settle()
        await rig.answered(rig.key("b"))
        assert rig.pool.session_of(rig.key("a")) is not None


async def test_a_client_that_names_no_users_has_no_limit_of_its_own() -> None:
    async with pool_rig(quota=limits(1)) as rig:
        for n in range(3):
            await rig.answered(rig.key(f"c{n}", user=None))
        assert rig.pool.states() == {"idle": 3}


@requirement("pool:quota:bounds-the-gateway")
async def test_where_the_gateway_is_full_idle_spares_make_way_and_nobody_else() -> None:
    quota = limits(10, total=2)
    async with pool_rig(quota=quota, name="one", spares=1) as one:
        await settle()
        async with pool_rig(quota=quota, name="two", beside=one, acquire_timeout=30.0) as two:
            await two.answered(two.key("a"))
            await two.answered(two.key("b", user="bob"))
            assert one.fake.session.is_closed
            waiter = await two.call(key=two.key("c", user="carol"))
            await one.passes(29.0)
            assert not waiter.is_over
            await one.passes(1.0)
            assert waiter.code is Code.OVERLOADED
            assert "the gateway has 2 sessions" in waiter.failure.message
            assert len(two.pool.sessions) == 2
            assert one.pool.sessions == []  # nor is a spare opened


async def test_who_waits_for_room_in_the_gateway_is_served_when_a_session_ends_anywhere() -> None:
    quota = limits(10, total=1)
    async with pool_rig(quota=quota, name="one") as one, pool_rig(quota=quota, name="two", beside=one) as two:
        await one.call(key=one.private_key())
        waiter = await two.call(key=two.key())
        one.fake.session.call.text("done")
        await settle()
        two.fake.session.call.text("served")
        assert waiter.text == "served"


async def test_other_limits_hold_at_once() -> None:
    quota = limits(1)
    async with pool_rig(quota=quota) as rig:
        await rig.call(key=rig.key("a"))
        waiter = await rig.call(key=rig.key("b"))
        assert len(rig.fake.sessions) == 1
        quota.reconfigure(Limits(sessions_per_user=2))
        await settle()
        rig.fake.session.call.text("served")
        assert waiter.text == "served"


async def test_a_spare_counts_for_its_user_once_it_is_given_away() -> None:
    quota = limits(1)
    async with pool_rig(quota=quota, spares=1) as rig:
        await settle()
        await rig.answered(rig.key("a"))
        await settle()
        await rig.answered(rig.key("b"))
        assert rig.pool.session_of(rig.key("a")) is None
        assert rig.pool.session_of(rig.key("b")) is not None


async def test_what_is_asked_in_a_users_own_session_waits_for_its_limit_like_a_call() -> None:
    """Where a caller's headers decide what is listed, no spare can tell."""
    async with pool_rig(quota=limits(1), pass_headers=("x-tenant",)) as rig:
        await rig.call(key=rig.private_key())
        own = replace(rig.key(), passed=(("x-tenant", "a"),))

        async def ask() -> None:
            async with rig.pool.borrow(own):
                assert rig.pool.session_of(own) is not None

        asking = rig.scope.start(ask(), "ask")
        await settle()
        assert len(rig.fake.sessions) == 1
        rig.fake.session.call.text("done")
        await settle()
        assert asking.done()
        assert len(rig.fake.sessions) == 2


async def test_nothing_is_counted_once_all_is_closed() -> None:
    quota = limits(3)
    async with pool_rig(quota=quota, spares=1) as rig:
        for n in range(5):
            await rig.answered(rig.key(f"c{n}"))
        rig.fake.session.die()
    assert len(quota) == 0
    assert (len(quota._users), len(quota._spares), len(quota.waiting)) == (0, 0, 0)
