"""Which session a call runs in: chats, users and scopes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.config import TRUST_PRESETS, ClientSettings, Trust, key_digest
from requirements import requirement
from rig import Client, Rig, rig, text_of
from rows import row

HOST = ClientSettings(name="host", trust=TRUST_PRESETS["openwebui"])
CHATS = ClientSettings(name="host", trust=Trust(chat="x-chat"))
USER, CHAT = "x-openwebui-user-id", "x-openwebui-chat-id"


def named(call: dict[str, Any], chat: Any) -> dict[str, Any]:
    call["params"]["_meta"] = {"dev.holdfast/chat": chat}
    return call


async def count(client: Client, chat: Any = None, path: str = "/mcp", **headers: str | None) -> int:
    """How often the tool was called in the session that serves this call."""
    call = client.tool("count")
    answer = await client.ask(call if chat is None else named(call, chat), path, **headers)
    return int(text_of(answer))


@requirement("exchange:chats:ladder")
@pytest.mark.parametrize("has_session", [True, False], ids=["session", "no session"])
async def test_meta_then_header_then_path_then_session_name_the_chat(*, has_session: bool) -> None:
    async with rig(clients=(CHATS,)) as running:
        client = await running.connected() if has_session else running.client()
        path = "/mcp/memory/chats/p"
        assert await count(client, "m", path, x_chat="h") == 1
        assert await count(client, "m") == 2
        assert await count(client, None, path, x_chat="h") == 1
        assert await count(client, x_chat="h") == 2
        assert await count(client, None, path) == 1
        assert await count(client, None, path) == 2
        assert await count(client) == 1
        assert await count(client) == (2 if has_session else 1)


@requirement("exchange:chats:ladder")
async def test_an_empty_name_is_no_name() -> None:
    async with rig(clients=(CHATS,)) as running:
        client = await running.connected()
        assert await count(client) == 1
        assert await count(client, "", x_chat=" ") == 2
        assert int(text_of(await client.ask(named(client.tool("count"), None)))) == 3
        odd: list[Any] = [7, ["a"], {}, True]
        for name in odd:
            assert await client.status("POST", named(client.tool("count"), name)) == 400
        bare = running.client()
        assert await count(bare, "", x_chat=" ") == 1
        assert await count(bare, "", x_chat=" ") == 1


@requirement("exchange:chats:ladder")
async def test_names_are_bounded_since_they_are_kept() -> None:
    """A marker keeps a name for a day: unbounded ones would fill the memory."""
    async with rig(clients=(CHATS,)) as running:
        client = running.client()
        longest, longer = "c" * 1024, "c" * 1025
        assert await count(client, "", x_chat=longest) == 1
        assert await client.status("POST", client.tool("count"), x_chat=longer) == 400
        assert await client.status("POST", named(client.tool("count"), longer)) == 400
        async with client.request("POST", client.tool("count"), f"/mcp/upstream/chats/{longer}") as response:
            assert response.status in {400, 404}


@requirement("exchange:chats:ladder")
async def test_headers_of_clients_that_are_not_trusted_name_nothing() -> None:
    async with rig() as running:
        first, second = running.client(x_openwebui_chat_id="c"), running.client(x_openwebui_chat_id="c")
        assert [await count(client) for client in (first, second, first)] == [1, 1, 1]


@requirement("exchange:chats:ladder")
async def test_a_chat_of_the_url_may_be_anything_that_a_url_can_say() -> None:
    async with rig() as running:
        client = running.client()
        paths = [f"/mcp/memory/chats/{chat}" for chat in ("a", "a%2Fb", "a%20b", "A", "%C3%A9", "temporary:1")]
        assert [await count(client, path=path) for path in paths * 2] == [1] * 6 + [2] * 6
        assert await client.post(client.tool("count"), "/mcp/memory/chats/%ff") == 404
        assert await client.post(client.tool("count"), "/mcp/memory/chats/") == 404
        assert await client.post(client.tool("count"), "/mcp/memory/chats/a/b") == 404


@row(1)
@requirement("exchange:chats:users")
async def test_two_users_never_share_a_chat_of_the_same_name() -> None:
    async with rig(clients=(HOST,)) as running:
        ann = running.client(**{USER: "ann", CHAT: "c"})
        bob = running.client(**{USER: "bob", CHAT: "c"})
        assert [await count(client) for client in (ann, bob, ann, bob)] == [1, 1, 2, 2]
        by_meta = running.client(**{USER: "bob"})
        assert await count(by_meta, "c") == 3
        assert await count(by_meta, path="/mcp/memory/chats/c") == 4


@row(1)
@requirement("exchange:chats:users")
async def test_two_clients_never_share_a_chat_of_the_same_name() -> None:
    trust = Trust(chat="x-chat")
    clients = tuple(ClientSettings(name=name, key_digests=(key_digest(name),), trust=trust) for name in ("one", "two"))
    async with rig(clients=clients) as running:
        one = running.client(authorization="Bearer one", x_chat="c")
        two = running.client(authorization="bearer two", x_chat="c")
        assert [await count(client) for client in (one, two, one, two)] == [1, 1, 2, 2]


@row(7)
@requirement("exchange:chats:users")
@pytest.mark.parametrize("scope", ["chat", "user"])
async def test_a_request_without_a_user_is_private_where_users_are_named(scope: Any) -> None:
    async with rig(clients=(HOST,), scope=scope) as running:
        for headers in ({CHAT: "c"}, {CHAT: "c", USER: " "}, {}):
            client = running.client(**headers)
            assert [await count(client), await count(client, "c")] == [1, 1]
            await client.open()
            assert [await count(client), await count(client, "c")] == [1, 1]
            assert await client.delete() == 204
        await running.until_idle()
        assert running.upstream.sessions == {}


@requirement("exchange:chats:scopes")
async def test_scope_user_joins_the_chats_of_one_user_and_no_others() -> None:
    async with rig(clients=(HOST,), scope="user") as running:
        ann = running.client(**{USER: "ann", CHAT: "c"})
        also_ann = running.client(**{USER: "ann", CHAT: "d"})
        bob = running.client(**{USER: "bob", CHAT: "c"})
        assert [await count(client) for client in (ann, also_ann, bob, ann)] == [1, 2, 1, 3]
        await also_ann.open()
        assert await count(also_ann) == 4
        assert await also_ann.delete() == 204
        assert await count(ann) == 5


@requirement("exchange:chats:scopes")
async def test_scope_shared_joins_everyone() -> None:
    async with rig(clients=(HOST,), scope="shared") as running:
        ann, bob, nobody = running.client(**{USER: "ann"}), running.client(**{USER: "bob"}), running.client()
        assert [await count(client) for client in (ann, bob, nobody)] == [1, 2, 3]
        assert running.upstream.initializes == 1


async def one_message(running: Rig, chat: str) -> int:
    """What a host does for each message of a chat."""
    client = running.client(**{USER: "ann", CHAT: chat})
    await client.open()
    async with client.stream():
        await client.ask(client.call("tools/list"))
        result = await count(client)
        assert await client.delete() == 204
    return result


@requirement("exchange:chats:reconnecting-hosts")
async def test_a_host_that_reconnects_for_every_message_finds_its_state() -> None:
    async with rig(clients=(HOST,)) as running:
        assert [await one_message(running, "c") for _ in range(5)] == [1, 2, 3, 4, 5]
        assert running.upstream.initializes == 1
        assert running.upstream.deletes == 0
        assert [entry.method for entry in running.upstream.ledger].count("tools/list") == 1
        assert await one_message(running, "d") == 1
        assert await one_message(running, "c") == 6
        assert running.upstream.initializes == 2


@requirement("exchange:chats:reconnecting-hosts")
async def test_parallel_messages_of_one_chat_share_one_session() -> None:
    async with rig(clients=(HOST,), start="lazy", is_learnt=False) as running:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one_message(running, "c")) for _ in range(8)]
        assert sorted(task.result() for task in tasks) == list(range(1, 9))
        await running.until_idle()
        assert len(running.upstream.sessions) <= 2  # that of the chat, and a spare that learnt the lists


@requirement("exchange:chats:catalogue-needs-no-session")
async def test_initialize_lists_and_ping_open_no_session() -> None:
    async with rig(clients=(HOST,)) as running:
        clients = [running.client(**{USER: f"u{n}", CHAT: f"c{n}"}) for n in range(5)]
        for client in clients:
            await client.open()
            for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "ping"):
                assert "result" in await client.ask(client.call(method))
        assert running.upstream.initializes == 1
        for client in clients:
            assert await client.delete() == 204
        assert running.upstream.initializes == 1
        assert running.upstream.deletes == 0
