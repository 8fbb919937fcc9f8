"""Tasks of 2026-07-28 where they meet what else decides who a caller is and what it is spoken to in."""

from __future__ import annotations

from typing import Any, Final

import pytest

from holdfast.config import ClientSettings, Trust
from holdfast.downstream import parked
from modern_client import ABLE, ModernClient, text_in
from requirements import requirement
from rig import rig, text_of
from several import Behind, several

EXTENSION: Final = "io.modelcontextprotocol/tasks"
KNOWS: Final[dict[str, Any]] = {**ABLE, "extensions": {EXTENSION: {}}}
CHATS: Final = (ClientSettings(name="host", trust=Trust(chat="x-chat")),)
UNKNOWN: Final = -32602
PATH: Final = "/mcp/memory/chats/c"


@requirement("tasks:modern:pass")
async def test_a_task_of_a_server_that_speaks_both_can_be_come_back_for() -> None:
    async with rig(options={"era": "both"}) as running:
        client = ModernClient(running, capabilities=KNOWS)
        found = await client.result(client.message("server/discover"))
        assert EXTENSION in found["capabilities"]["extensions"]
        task = await client.result(client.tool("errand", whom="you"))
        assert task["resultType"] == "task"
        looked: Any = {"status": "working"}
        while looked["status"] == "working":
            looked = await client.result(client.message("tasks/get", taskId=task["taskId"]))
        assert text_in(looked["result"]) == "done for you"


@requirement("tasks:modern:awaited")
async def test_a_task_is_waited_for_in_a_session_that_a_server_of_both_remembers() -> None:
    async with rig(options={"era": "both"}) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        result = await client.result(client.tool("errand", whom="you"))
        assert (result["resultType"], text_in(result)) == ("complete", "done for you")
        status, code, _ = await client.refused(client.message("tasks/get", taskId="m1"))
        assert (status, code) == (404, -32601)


@requirement("tasks:modern:declared")
async def test_who_asks_a_server_that_speaks_both_for_tasks_is_told_to_declare_them() -> None:
    async with rig(options={"era": "both"}) as running:
        client = ModernClient(running)
        status, code, _ = await client.refused(client.message("tasks/get", taskId="m1"))
        assert (status, code) == (400, -32021)


@requirement("tasks:modern:awaited")
async def test_where_servers_are_one_a_task_is_waited_for_whatever_its_client_declares() -> None:
    async with several(Behind("a", options={"era": "modern"}), Behind("b")) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        result = await client.result(client.tool("a__errand", whom="you"))
        assert result["resultType"] == "complete"
        assert text_in(result) == "done for you"


@requirement("tasks:owners")
async def test_a_task_that_was_begun_in_an_opened_session_is_of_the_chat_that_began_it() -> None:
    async with rig(clients=CHATS, handles=True, options={"era": "modern"}) as running:
        opener = ModernClient(running, chat="one", capabilities=KNOWS)
        other = ModernClient(running, chat="two", capabilities=KNOWS)
        session = (await opener.result(opener.tool("open_session")))["structuredContent"]["session"]
        task = (await other.result(other.tool("errand", gate="g", session=session)))["taskId"]
        _, code, _ = await opener.refused(opener.message("tasks/get", taskId=task))
        assert code == UNKNOWN
        assert (await other.result(other.message("tasks/get", taskId=task)))["status"] == "working"
        running.upstream.open_gate("g")


@requirement("tasks:owners")
@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_who_has_the_name_of_a_client_that_was_removed_does_not_have_its_tasks(era: str) -> None:
    async with rig(scope="shared", clients=CHATS, options={"era": era}) as running:
        client, old = ModernClient(running, chat="c", capabilities=KNOWS), running.client()
        if era == "modern":
            task = (await client.result(client.tool("errand", gate="g")))["taskId"]
            assert (await client.result(client.message("tasks/get", taskId=task)))["status"] == "working"
        else:
            begin = old.tool("errand", gate="g")
            begin["params"]["task"] = {}
            task = (await old.ask(begin, PATH))["result"]["task"]["taskId"]
            assert "result" in await old.ask(old.call("tasks/get", taskId=task), PATH)
        settings = running.gateway.settings
        for clients in ((ClientSettings(name="other"),), CHATS):
            running.gateway.reload(settings.model_copy(update={"clients": clients}))
        if era == "modern":
            assert (await client.refused(client.message("tasks/get", taskId=task)))[1] == UNKNOWN
        else:
            assert (await old.ask(old.call("tasks/get", taskId=task), PATH))["error"]["code"] == UNKNOWN
        running.upstream.open_gate("g")


@requirement("tasks:modern:pass")
async def test_a_task_is_a_task_where_no_more_questions_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "MAX_PARKED", 0)
    async with rig(options={"era": "modern"}) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        task = await client.result(client.tool("errand", gate="g"))
        assert (await client.result(client.message("tasks/get", taskId=task["taskId"])))["status"] == "working"
        running.upstream.open_gate("g")


@requirement("tasks:awaited:every-caller")
async def test_a_task_that_is_asked_for_in_an_opened_session_is_waited_for_since_nobody_could_come_back() -> None:
    async with rig(handles=True) as running:
        client = await running.connected()
        session = (await client.ask(client.tool("open_session")))["result"]["structuredContent"]["session"]
        body = client.tool("errand", whom="you", session=session)
        body["params"]["task"] = {"ttl": 60_000}
        assert text_of(await client.ask(body)) == "done for you"
