"""Which revisions a client of 2026-07-28 may choose from: none in which it would lose what a server keeps for it."""

from __future__ import annotations

from typing import Any, Final, Literal

import pytest

from faults.odd_server import answering, odd_server, result_of
from holdfast.config import ClientSettings, Trust
from modern_client import YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import Transport, rig
from several import Behind, several
from unit.scripted_http import plain

OLD: Final = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
ALL: Final = ["2026-07-28", *OLD]


async def offered(client: ModernClient, **headers: str) -> list[str]:
    """The revisions that a discovery names."""
    result = await client.result(client.message("server/discover"), **headers)
    assert result["resultType"] == "complete"
    versions: list[str] = result["supportedVersions"]
    return versions


async def supported(client: ModernClient) -> list[str]:
    """The revisions that the refusal of another one names."""
    body = client.message("server/discover", {"io.modelcontextprotocol/protocolVersion": "2027-01-01"})
    status, code, error = await client.refused(body, mcp_protocol_version="2027-01-01")
    assert (status, code) == (400, -32022)
    versions: list[str] = error["data"]["supported"]
    return versions


@requirement("modern:discover:revisions")
@pytest.mark.parametrize("transport", ["sse", "json", "legacy", "stdio"])
async def test_who_names_no_chat_is_sent_to_the_revisions_with_sessions_where_a_server_remembers(
    transport: Transport,
) -> None:
    async with rig(transport) as running:
        nameless = ModernClient(running)
        assert await offered(nameless) == await supported(nameless) == OLD
        hello = await running.client().open()
        result = await nameless.result(nameless.message("server/discover"))
        assert result["capabilities"] == {name: each for name, each in hello["capabilities"].items() if name != "tasks"}
        assert result["instructions"] == hello["instructions"]
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"] == hello["serverInfo"]


@requirement("modern:discover:revisions")
async def test_requests_of_the_new_revision_are_served_all_the_same() -> None:
    async with rig() as running:
        nameless = ModernClient(running)
        assert await offered(nameless) == OLD
        assert [text_in(await nameless.result(nameless.tool("count"))) for _ in range(2)] == ["1", "1"]
        body = nameless.tool("ask", message="?")
        result, (key,) = await nameless.asked(body)
        assert reply_in(await nameless.result(nameless.again(body, result, **{key: YES}))) == YES


@requirement("modern:discover:revisions")
async def test_who_names_a_chat_in_whichever_way_may_choose_from_all() -> None:
    trusting = ClientSettings(name="local", trust=Trust(chat="x-chat"))
    async with rig(clients=(trusting,)) as running:
        named = ModernClient(running, chat="a")
        assert await offered(named) == await supported(named) == ALL
        assert await offered(ModernClient(running, path="/mcp/memory/chats/a")) == ALL
        assert await offered(ModernClient(running), x_chat="a") == ALL
        assert await offered(ModernClient(running), x_chat="") == OLD


@requirement("modern:discover:revisions")
@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_a_session_that_needs_no_chat_leaves_all_to_choose_from(scope: Literal["user", "shared"]) -> None:
    async with rig(scope=scope) as running:
        assert await offered(ModernClient(running)) == ALL


@requirement("modern:discover:revisions")
async def test_who_may_not_be_anybody_again_in_either_era_may_choose_from_all() -> None:
    naming = ClientSettings(name="local", trust=Trust(user="x-user"))
    async with rig(clients=(naming,)) as running:
        assert await offered(ModernClient(running)) == ALL, "a client session of nobody's keeps nothing either"
        assert await offered(ModernClient(running), x_user="ann") == OLD


@requirement("modern:discover:revisions")
async def test_a_server_of_the_new_revision_leaves_all_to_choose_from() -> None:
    async with rig(options={"era": "modern"}) as running:
        nameless = ModernClient(running)
        assert await offered(nameless) == await supported(nameless) == ALL


@requirement("modern:discover:revisions")
async def test_a_server_of_both_eras_remembers_after_a_handshake_alone() -> None:
    async with rig(options={"era": "both"}) as running:
        nameless = ModernClient(running)
        assert await offered(nameless) == await supported(nameless) == OLD
        assert await offered(ModernClient(running, chat="a")) == ALL


@requirement("modern:discover:revisions")
async def test_a_server_that_gives_its_sessions_no_id_leaves_all_to_choose_from() -> None:
    hello: dict[str, Any] = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "odd", "version": "1"},
    }
    async with odd_server(answering()) as odd:
        odd.greeting = plain(result_of({"id": 1}, hello), "200 OK", "application/json")
        async with rig(url=odd.url, era="handshake") as running:
            assert await offered(ModernClient(running)) == ALL


@requirement("modern:discover:revisions")
async def test_of_all_servers_together_one_that_remembers_is_enough() -> None:
    new = Behind("new", options={"era": "modern"})
    common = Behind("common", {"scope": "shared"})
    async with several(new, common, "memory") as running:
        whole = ModernClient(running)
        assert await offered(whole) == await supported(whole) == OLD
        assert await offered(ModernClient(running, chat="a")) == ALL
        assert await offered(ModernClient(running, path="/mcp/new")) == ALL
        assert await offered(ModernClient(running, path="/mcp/memory")) == OLD
    async with several(new, common) as running:
        assert await offered(ModernClient(running)) == ALL


@requirement("modern:discover:revisions")
async def test_a_server_that_was_not_reached_yet_may_be_one_that_remembers() -> None:
    lazy: dict[str, Any] = {"start": "lazy"}
    async with several(Behind("new", lazy, {"era": "modern"}), Behind("other", {"scope": "shared"})) as running:
        whole = ModernClient(running)
        assert await offered(whole) == OLD
        await whole.result(whole.tool("new__echo", text="x"))
        assert await offered(whole) == OLD, "nobody has tried to shake hands with it"
        await running.client().tool_text("new__echo", text="x")
        assert await offered(whole) == ALL
    known = Behind("new", lazy | {"era": "modern"}, {"era": "modern"})
    async with several(known, Behind("other", {"scope": "shared"})) as running:
        assert await offered(ModernClient(running)) == ALL


@requirement("modern:discover:revisions")
async def test_what_is_offered_follows_the_server_when_another_takes_its_place() -> None:
    async with rig(restarts=True) as running:
        client = ModernClient(running)
        assert await offered(client) == OLD
        shared = running.server.settings.model_copy(update={"scope": "shared"})
        running.gateway.reload(running.gateway.settings.model_copy(update={"servers": (shared,)}))
        assert await offered(client) == ALL
