"""How sessions behind handles end, and what becomes of them when settings change (`handles: true`)."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from handle_rig import KINDS, OVER_HTTP, Kind, calling, modern
from holdfast import events
from holdfast.config import ClientSettings, Limits, Trust, key_digest
from holdfast.errors import Code
from holdfast.servers.handles import PREFIX
from holdfast.testing.clock import ManualClock
from reload_rig import house, next_of
from requirements import requirement
from rig import rig
from rows import row

CHATS: Final = ClientSettings(name="host", trust=Trust(chat="x-chat"))
USERS: Final = ClientSettings(name="host", key_digests=(key_digest("k1"),), trust=Trust(user="x-user"))
OTHER: Final = ClientSettings(name="other", key_digests=(key_digest("k2"),), trust=Trust(user="x-user"))
ANN: Final = {"authorization": "Bearer k1", "x_user": "ann"}
UNKNOWN: Final = PREFIX + 32 * "0"

every_kind = pytest.mark.parametrize("kind", KINDS)
every_kind_over_http = pytest.mark.parametrize("kind", OVER_HTTP)


# In time, by hand, for want of room.


@requirement("handles:bounded")
@row(22)
async def test_a_session_ends_after_a_time_without_a_call_and_its_handle_with_it() -> None:
    clock = ManualClock()
    async with (
        rig(handles=True, idle_timeout=60, clock=clock, gateway={"client_idle_timeout": 10_000}) as running,
        calling(running, "handshake") as caller,
    ):
        session, unused = await caller.opened(), await caller.opened()
        assert await caller.text("count", session=session) == "1"
        await running.until_idle()
        await running.passing(59)
        assert await caller.text("count", session=session) == "2"
        await running.until_idle()
        await running.passing(59)
        words = {await caller.refusal("count", session=unused)}
        assert await caller.text("count", session=session) == "3"
        await running.until_idle()
        await running.passing(66)
        words |= {await caller.refusal("count", session=session), await caller.refusal("count", session=UNKNOWN)}
        assert len(words) == 1
        assert len(running.upstream.calls("count")) == 3
        closed = [e.event for e in running.gateway.operations.feed.recent if isinstance(e.event, events.SessionClosed)]
        assert [(event.kind, event.was_dirty) for event in closed if event.key] == [(events.Ending.IDLE, True)]


@requirement("handles:bounded")
async def test_a_long_call_keeps_its_session_and_closing_it_ends_the_call() -> None:
    clock = ManualClock()
    async with (
        rig(handles=True, idle_timeout=60, call_timeout=10_000, clock=clock) as running,
        modern(running) as ada,
        modern(running) as ben,
    ):
        session = await ada.opened()
        async with asyncio.TaskGroup() as group:
            long = group.create_task(ada.ask("tools/call", name="slow", arguments={"gate": "g", "session": session}))
            await running.upstream.entered("g")
            await running.passing(600)
            assert await ben.text("count", session=session) == "1"
            await ben.text("close_session", session=session)
            assert (await long)["error"]["code"] == Code.OUTCOME_UNKNOWN
        await ben.refusal("count", session=session)
        running.upstream.open_gate("g")


@requirement("handles:bounded")
@row(22)
async def test_a_user_who_opens_too_many_loses_its_own_and_nobody_elses() -> None:
    limits = Limits(sessions_per_user=3)
    async with (
        rig(handles=True, clients=(USERS,), gateway={"limits": limits}) as running,
        modern(running, **ANN) as ann,
        modern(running, authorization="Bearer k1", x_user="bob") as bob,
    ):
        bobs = await bob.opened()
        first = await ann.opened()
        assert await ann.text("count", session=first) == "1"
        later = [await ann.opened() for _ in range(3)]
        await ann.refusal("count", session=first)
        assert [await ann.text("count", session=name) for name in later] == ["1", "1", "1"]
        assert await bob.text("count", session=bobs) == "1"
        await running.until(lambda: len(running.upstream.sessions) == 4)


@requirement("handles:bounded")
async def test_where_calls_run_in_all_that_could_make_way_the_next_is_refused() -> None:
    limits = Limits(sessions_per_user=1)
    async with rig(handles=True, clients=(USERS,), gateway={"limits": limits}) as running:
        async with modern(running, **ANN) as ann, modern(running, **ANN) as again:
            session = await ann.opened()
            async with asyncio.TaskGroup() as group:
                call = group.create_task(ann.text("slow", gate="g", session=session))
                await running.upstream.entered("g")
                assert await again.code("open_session") == Code.OVERLOADED
                running.upstream.open_gate("g")
                assert await call == "done"
            assert await again.opened()
        refused = [e.event for e in running.gateway.operations.feed.recent if isinstance(e.event, events.CallRefused)]
        assert [event.kind for event in refused] == [events.Limit.SESSIONS]


@requirement("handles:loss-is-told")
@every_kind_over_http
async def test_what_a_session_remembered_and_its_server_lost_is_told_once(kind: Kind) -> None:
    async with rig(handles=True) as running, calling(running, kind) as caller:
        session, other = await caller.opened(), await caller.opened()
        for name in (session, other):
            assert await caller.text("count", session=name) == "1"
        lost = next(entry.session for entry in running.upstream.calls("count"))
        running.upstream.forget_session(lost)
        assert await caller.code("count", session=session) == Code.SESSION_LOST
        assert [await caller.text("count", session=name) for name in (session, other)] == ["1", "2"]


@requirement("handles:loss-is-told")
async def test_a_session_that_made_way_for_another_is_told_of_and_its_handle_stays() -> None:
    async with rig(handles=True, max_sessions=1) as running, modern(running) as caller:
        first, second = await caller.opened(), await caller.opened()
        assert await caller.text("count", session=first) == "1"
        await running.until_idle()
        assert await caller.text("count", session=second) == "1"
        await running.until_idle()
        assert await caller.code("count", session=first) == Code.SESSION_LOST
        assert await caller.text("count", session=first) == "1"


# New settings.


@requirement("handles:reload")
async def test_they_can_be_switched_on_and_off_while_clients_listen() -> None:
    async with house("a") as home:
        client = await home.connected("/mcp/a")
        async with client.stream() as pushed:
            assert await client.count() == "1"
            home.change("a", handles=True)
            await next_of(pushed, "notifications/tools/list_changed")
            assert "open_session" in await client.tools()
            opened = await client.ask(client.tool("open_session"))
            session = opened["result"]["structuredContent"]["session"]
            assert await client.tool_text("count", session=session) == "1"
            assert await client.count() == "2", "its own session goes on"
            home.change("a", handles=True, idle_timeout=60)
            await next_of(pushed, "notifications/tools/list_changed")
            listed = await client.ask(client.call("tools/list"))
            assert "1 minute" in listed["result"]["tools"][-2]["description"]
            assert await client.tool_text("count", session=session) == "2"
            home.change("a", handles=False)
            await next_of(pushed, "notifications/tools/list_changed")
            assert "open_session" not in await client.tools()
            assert await client.count() == "3"
            await home.until(lambda: len(home.upstreams["a"].sessions) == 1)
            home.change("a", handles=True)
            refused = await client.ask(client.tool("count", session=session))
            assert refused["result"]["isError"] is True


@requirement("handles:reload")
async def test_handles_lead_to_the_server_that_takes_the_place_of_theirs_and_loss_is_told_once() -> None:
    async with house("a", others=["new"], handles=True) as home:
        client = home.client("/mcp/a")

        async def opened() -> str:
            answer = await client.ask(client.tool("open_session"))
            name: str = answer["result"]["structuredContent"]["session"]
            return name

        used, unused = await opened(), await opened()
        assert await client.tool_text("count", session=used) == "1"
        home.change("a", url=home.upstreams["new"].url)
        await home.until_learnt("a")
        lost = await client.ask(client.tool("count", session=used))
        assert lost["error"]["code"] == Code.SESSION_LOST
        assert [await client.tool_text("count", session=name) for name in (used, unused, used)] == ["1", "1", "2"]
        home.change("a", scope="user")
        await home.until_learnt("a")
        assert (await client.ask(client.tool("count", session=used)))["result"]["isError"] is True
        await home.until_gone(home.upstreams["a"])


@requirement("handles:reload")
async def test_a_client_that_may_call_no_more_loses_its_handles() -> None:
    async with (
        rig(handles=True, clients=(USERS, OTHER)) as running,
        modern(running, **ANN) as ann,
        modern(running, authorization="Bearer k2", x_user="ann") as other,
    ):
        anns, others = await ann.opened(), await other.opened()
        assert [await ann.text("count", session=anns), await other.text("count", session=others)] == ["1", "1"]
        settings = running.gateway.settings
        running.gateway.reload(settings.model_copy(update={"clients": (OTHER,)}))
        assert await other.text("count", session=others) == "2"
        running.gateway.reload(settings)
        await ann.refusal("count", session=anns)
        assert await other.text("count", session=others) == "3"
