"""Lists and introductions: answered from what is kept, as long as it may be believed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from holdfast import events
from holdfast.call import Call
from holdfast.errors import CallFailed, Code
from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind, Hello
from pool_rig import FakeWatcher, PoolRig, pool_rig
from requirements import requirement
from rows import row

OLD: Any = {"tools": [{"name": "old"}]}
NEW: Any = {"tools": [{"name": "new"}]}


@pytest.fixture(params=[False, True], ids=["upstream", "handshake"])
async def rig(request: pytest.FixtureRequest) -> AsyncGenerator[PoolRig]:
    async with pool_rig(over_link=request.param) as made:
        made.fake.lists["tools/list"] = OLD
        yield made


def asked(rig: PoolRig, method: str = "tools/list") -> int:
    return sum(request.method == method for request in rig.fake.requests)


async def learned(rig: PoolRig, *, push: bool) -> None:
    """The lists are known, by a session that stays; with `push`, changes are announced in it from before."""
    await rig.answered()
    if push:
        rig.fake.session.push_stream(True)
    assert (await rig.listed()).result == OLD
    rig.fake.lists["tools/list"] = NEW


# Freshness.


@requirement("catalog:fresh-lists-need-no-session")
async def test_a_kept_list_is_answered_without_a_session(rig: PoolRig) -> None:
    assert (await rig.listed()).result == OLD
    for session in rig.fake.open_sessions:
        session.die()
    await settle()
    opened = len(rig.fake.sessions)
    await rig.passes(29.0)
    for user in ("alice", "bob"):
        assert (await rig.listed(key=rig.private_key(user))).result == OLD
    assert len(rig.fake.sessions) == opened
    assert asked(rig) == 1


@requirement("catalog:stale-then-refreshed")
async def test_without_pushes_a_list_older_than_30_s_is_answered_at_once_and_refreshed_behind(rig: PoolRig) -> None:
    await learned(rig, push=False)
    await rig.passes(29.0)
    assert (await rig.listed()).result == OLD
    assert asked(rig) == 1
    await rig.passes(2.0)
    listing = rig.start(Call("tools/list"))
    assert listing.result == OLD  # before anything was asked
    await settle()
    assert asked(rig) == 2
    assert (await rig.listed()).result == NEW
    assert asked(rig) == 2


async def test_who_watches_hears_of_a_refresh_that_found_something_else(rig: PoolRig) -> None:
    await learned(rig, push=False)
    watcher = FakeWatcher()
    rig.pool.attach(rig.key(), watcher)
    await rig.passes(31.0)
    await rig.listed()
    assert watcher.methods == ["notifications/tools/list_changed"]
    await rig.passes(31.0)
    await rig.listed()
    assert len(watcher.methods) == 1


@requirement("catalog:pushes-keep-lists-fresh")
async def test_while_changes_are_announced_a_list_is_believed_for_good(rig: PoolRig) -> None:
    await learned(rig, push=True)
    await rig.passes(1000.0)
    assert (await rig.listed()).result == OLD
    assert asked(rig) == 1


async def test_a_server_that_announces_no_changes_is_not_believed_for_good() -> None:
    async with pool_rig() as rig:
        rig.fake.capabilities = {"tools": {}}
        rig.fake.lists["tools/list"] = OLD
        await learned(rig, push=True)
        await rig.passes(31.0)
        await rig.listed()
        assert asked(rig) == 2


async def test_once_the_pushes_end_a_list_is_believed_for_another_30_s(rig: PoolRig) -> None:
    await learned(rig, push=True)
    await rig.passes(1000.0)
    rig.fake.session.push_stream(False)
    await rig.passes(29.0)
    await rig.listed()
    assert asked(rig) == 1
    await rig.passes(2.0)
    await rig.listed()
    assert asked(rig) == 2


@requirement("catalog:changes-in-a-gap-are-found")
async def test_a_list_from_before_a_gap_in_the_pushes_is_not_believed_for_good(rig: PoolRig) -> None:
    """A change in the gap was announced to nobody."""
    await learned(rig, push=True)
    rig.fake.session.push_stream(False)
    await rig.passes(10.0)
    rig.fake.session.push_stream(True)
    await rig.passes(25.0)
    await rig.listed()
    assert (await rig.listed()).result == NEW
    await rig.passes(1000.0)
    await rig.listed()
    assert asked(rig) == 2


@requirement("catalog:list-changed-invalidates")
async def test_list_changed_makes_the_next_list_wait_for_the_new_one(rig: PoolRig) -> None:
    await learned(rig, push=True)
    rig.fake.session.push("notifications/tools/list_changed")
    assert (await rig.listed()).result == NEW
    assert asked(rig) == 2
    assert asked(rig, "resources/list") == 0


async def test_lists_asked_for_while_the_new_one_is_fetched_wait_for_it_too(rig: PoolRig) -> None:
    await learned(rig, push=True)
    del rig.fake.answers["tools/list"]
    rig.fake.session.push("notifications/tools/list_changed")
    listings = [await rig.listed() for _ in range(3)]
    assert not any(listing.is_over for listing in listings)
    rig.fake.requests[-1].result(NEW)
    await settle()
    assert [listing.result for listing in listings] == [NEW] * 3
    assert asked(rig) == 2


async def test_a_change_that_is_announced_once_is_told_once(rig: PoolRig) -> None:
    await learned(rig, push=True)
    watcher = FakeWatcher()
    rig.pool.attach(rig.key(), watcher)
    rig.fake.session.push("notifications/tools/list_changed")
    await rig.listed()
    assert watcher.methods == ["notifications/tools/list_changed"]


async def test_a_server_that_announces_a_change_with_every_list_does_not_make_anybody_wait_for_ever(
    rig: PoolRig,
) -> None:
    def restless(request: Any) -> None:
        request.session.push("notifications/tools/list_changed")
        request.result(NEW)

    rig.fake.answers["tools/list"] = restless
    assert (await rig.listed()).result == NEW
    assert asked(rig) == 1
    assert (await rig.listed()).result == NEW
    assert asked(rig) == 2


# Pages.


async def test_pages_are_kept_by_their_cursors_and_byte_for_byte(rig: PoolRig) -> None:
    pages: Any = {
        None: {"tools": [{"name": "a"}], "nextCursor": "2", "x": 1},
        "2": {"tools": [{"name": "b"}], "nextCursor": "3"},
        "3": {"tools": [{"name": "c"}]},
    }
    rig.fake.answers["tools/list"] = lambda request: request.result(pages[request.params.get("cursor")])
    await rig.server.learn()
    assert [e.tools for e in rig.seen(events.ListsLearned)] == [3]
    assert asked(rig) == 3
    assert (await rig.listed()).result == pages[None]
    assert (await rig.listed(cursor="2")).result == pages["2"]
    assert (await rig.listed(cursor="3")).result == pages["3"]
    assert asked(rig) == 3


async def test_a_server_whose_cursors_go_in_circles_is_left_after_one_round(rig: PoolRig) -> None:
    rig.fake.answers["tools/list"] = lambda request: request.result({"tools": [], "nextCursor": "1"})
    await rig.listed()
    assert asked(rig) == 2


async def test_an_unknown_cursor_goes_to_the_session_of_whoever_bears_it(rig: PoolRig) -> None:
    await rig.listed()
    rig.fake.answers["tools/list"] = lambda request: request.error(-32602, "no such cursor")
    listing = await rig.listed(cursor="unknown")
    assert listing.error["code"] == -32602
    assert rig.fake.requests[-1].params == {"cursor": "unknown"}


async def test_a_list_with_other_params_goes_to_the_session(rig: PoolRig) -> None:
    await rig.listed()
    await rig.listed(filter="x")
    assert rig.fake.requests[-1].params == {"filter": "x"}


# What is not there.


@requirement("catalog:undeclared-is-not-found")
async def test_a_list_that_the_server_does_not_offer_is_not_found_without_a_session(rig: PoolRig) -> None:
    await rig.listed()
    for session in rig.fake.open_sessions:
        session.die()
    await settle()
    opened = len(rig.fake.sessions)
    assert (await rig.listed("prompts/list")).error["code"] == -32601
    assert len(rig.fake.sessions) == opened
    assert asked(rig, "prompts/list") == 0


async def test_a_list_that_the_server_refuses_is_answered_with_its_own_error(rig: PoolRig) -> None:
    rig.fake.answers["tools/list"] = lambda request: request.error(-32603, "broken")
    assert (await rig.listed()).error == {"code": -32603, "message": "broken"}


async def test_a_failure_keeps_the_old_lists(rig: PoolRig) -> None:
    await learned(rig, push=False)
    rig.fake.answers["tools/list"] = lambda request: request.error(-32603, "broken")
    await rig.passes(31.0)
    assert (await rig.listed()).result == OLD
    assert (await rig.listed()).result == OLD


async def test_a_list_that_takes_too_long_is_told_as_a_timeout() -> None:
    async with pool_rig(call_timeout=100.0) as rig:
        del rig.fake.answers["tools/list"]
        listings = [await rig.listed() for _ in range(2)]
        await rig.passes(100.0)
        assert [listing.code for listing in listings] == [Code.TIMEOUT] * 2
        assert rig.fake.requests[-1].cancelled is not None


# Loss.


@requirement("catalog:lists-survive-a-loss")
@pytest.mark.parametrize("how", ["refused", "died", "cut"])
async def test_a_list_whose_session_turns_out_to_be_lost_is_fetched_in_another(how: str) -> None:
    async with pool_rig() as rig:
        await rig.answered()
        del rig.fake.answers["tools/list"]
        listing = await rig.listed()
        match how:
            case "refused":
                rig.fake.is_known = False
                rig.fake.requests[-1].fail(FaultKind.REFUSED, "404 Not Found")
            case "died":
                rig.fake.session.die()
            case _:
                rig.fake.requests[-1].fail(FaultKind.CUT)
        await rig.passes(0.2)
        rig.fake.requests[-1].result(NEW)
        await settle()
        assert listing.result == NEW
        assert len(rig.fake.sessions) == (1 if how == "cut" else 2)


async def test_a_list_ends_when_the_session_that_it_was_asked_in_is_closed() -> None:
    async with pool_rig(call_timeout=10_000.0) as rig:
        key = rig.key(ends_with_client=True)
        watcher = FakeWatcher()
        rig.pool.attach(key, watcher)
        await rig.answered(key)
        del rig.fake.answers["tools/list"]
        listing = await rig.listed(key=rig.key("other"))
        rig.pool.detach(key, watcher)
        await settle()
        rig.fake.requests[-1].result(NEW)
        await settle()
        assert listing.result == NEW
        assert len(rig.fake.sessions) == 2


async def test_a_list_that_a_living_server_refuses_is_answered_with_the_refusal(rig: PoolRig) -> None:
    await rig.answered()
    del rig.fake.answers["tools/list"]
    listing = await rig.listed()
    rig.fake.requests[-1].fail(FaultKind.REFUSED, "400 Bad Request", {"code": -32600, "message": "no lists today"})
    await settle()
    assert listing.error["message"] == "no lists today"
    assert asked(rig) == 1
    assert len(rig.fake.open_sessions) == 1


async def test_a_list_uses_no_marker_up() -> None:
    async with pool_rig() as rig:
        await rig.answered()
        rig.fake.session.die()
        await settle()
        assert (await rig.listed()).result["tools"]
        assert (await rig.call()).code is Code.SESSION_LOST


# Learning.


async def test_the_introduction_is_learned_once_for_everyone_who_asks(rig: PoolRig) -> None:
    rig.fake.holds_openings = True
    heard: list[Hello | CallFailed] = []
    for user in ("alice", "bob"):
        rig.server.introduce(rig.key(user=user), heard.append)
    await settle()
    assert heard == []
    rig.fake.session.let_open()
    await settle()
    assert [type(hello) for hello in heard] == [Hello, Hello]
    assert len(rig.fake.sessions) == 1
    rig.server.introduce(rig.key(user="carol"), heard.append)
    assert len(heard) == 3


@requirement("catalog:a-failed-learning-answers-everyone")
async def test_a_learning_that_fails_answers_everyone_who_waits_and_is_tried_anew(rig: PoolRig) -> None:
    rig.fake.holds_openings = True
    heard: list[Hello | CallFailed] = []
    rig.server.introduce(rig.key(), heard.append)
    listings = [await rig.listed(key=rig.private_key()) for _ in range(3)]
    rig.fake.session.let_open(Fault(FaultKind.INVALID, "it speaks HTML"))
    await settle()
    assert [listing.code for listing in listings] == [Code.UPSTREAM_UNAVAILABLE] * 3
    assert all("it speaks HTML" in listing.failure.message for listing in listings)
    assert isinstance(heard[0], CallFailed)
    rig.fake.holds_openings = False
    await rig.passes(1.0)
    assert (await rig.listed()).result == OLD


async def test_a_new_chats_list_is_answered_while_its_session_opens(rig: PoolRig) -> None:
    await rig.listed()
    rig.fake.holds_openings = True
    for session in rig.fake.open_sessions:
        session.die()
    caller = await rig.call(key=rig.key("new"))
    assert (await rig.listed(key=rig.key("new"))).result == OLD
    assert not caller.is_over


async def test_a_list_that_is_cancelled_while_it_waits_ends_once(rig: PoolRig) -> None:
    rig.fake.holds_openings = True
    listing = await rig.listed()
    listing.running.cancel("the client left")
    rig.fake.session.let_open()
    await settle()
    assert "the client left" in listing.failure.message


# Lists of their own.


@row(8)
@requirement("catalog:lists-per-session-are-not-shared")
async def test_lists_that_differ_by_session_are_asked_for_in_each() -> None:
    async with pool_rig(lists="session") as rig:
        for user in ("alice", "bob"):
            rig.fake.lists["tools/list"] = {"tools": [{"name": user}]}
            assert (await rig.listed(key=rig.key(user=user))).result == {"tools": [{"name": user}]}
        assert len(rig.fake.sessions) == 2
        assert all(session.got("tools/list") for session in rig.fake.sessions)
