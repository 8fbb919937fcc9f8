"""Who listens for changes and names no chat has no session to hear of them, and hears of them all the same."""

from __future__ import annotations

import pytest

from exchange.test_listening import LISTS, listening, until_unheard
from holdfast.session.roster import SPARE_TTL
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_tools import NOTE_URI
from modern_client import ModernClient, text_in
from requirements import requirement
from rig import Rig, next_message, rig

CHANGED = "notifications/tools/list_changed"


def has_an_ear(running: Rig) -> bool:
    """Whether a session that no call will end can hear of changes."""
    sessions = running.server.pool.sessions
    return any(s.is_open and s.has_push and (s.key is None or not s.key.is_private) for s in sessions)


@requirement("modern:listen:without-a-session")
@pytest.mark.parametrize("era", ["handshake", "modern"])
@pytest.mark.parametrize("start", ["eager", "lazy"])
async def test_who_names_no_chat_hears_of_lists_for_as_long_as_it_listens(era: str, start: str) -> None:
    clock = ManualClock()
    async with rig(clock=clock, options={"era": era}, start=start, is_learnt=start == "eager") as running:
        client, other = ModernClient(running), ModernClient(running, capabilities={})
        async with listening(client, **LISTS) as (stream, honoured, _):
            assert honoured == LISTS
            for caller in (client, other, client):
                await running.until(lambda: has_an_ear(running))
                await running.passing(2 * SPARE_TTL)
                await running.until(lambda: has_an_ear(running))
                await caller.result(caller.tool("change_tools"))
                assert (await next_message(stream))["method"] == CHANGED
        await until_unheard(running)
        await running.passing(2 * running.server.settings.idle_timeout)
        await running.until(lambda: not running.server.pool.sessions)


@requirement("modern:listen:without-a-session")
async def test_the_ear_makes_way_for_those_who_call() -> None:
    async with rig(max_sessions=1) as running:
        client, chat = ModernClient(running), ModernClient(running, chat="c")
        async with listening(client, **LISTS):
            assert text_in(await chat.result(chat.tool("count"))) == "1"
            assert text_in(await client.result(client.tool("count"))) == "1"
        await until_unheard(running)


@requirement("modern:listen:without-a-session")
async def test_a_call_without_a_session_takes_back_nothing_that_a_modern_server_promises() -> None:
    async with rig(options={"era": "modern"}) as running:
        for nameless in (ModernClient(running, capabilities={}), ModernClient(running)):
            await nameless.result(nameless.tool("count"))
            await running.client().ask(running.client().tool("count"))
            await running.until_idle()
            hello = await running.client().open()
            assert hello["capabilities"]["tools"] == {"listChanged": True}
            assert hello["capabilities"]["resources"] == {"listChanged": True, "subscribe": True}
            chat = ModernClient(running, chat="c")
            async with listening(chat, **LISTS, resourceSubscriptions=[NOTE_URI]) as (_, honoured, _):
                assert honoured == {**LISTS, "resourceSubscriptions": [NOTE_URI]}
            await until_unheard(running)
