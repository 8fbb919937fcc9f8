"""Servers that speak 2026-07-28 and older revisions: who can come back has a session that remembers."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from faults.odd_server import NO_SESSION, odd_server, result_of
from holdfast.config import ClientSettings, Trust
from holdfast.session.lifecycle import State
from holdfast.testing.clock import ManualClock
from holdfast.testing.server import ScriptedServer, ServerOptions
from holdfast.testing.server_tools import NOTE_URI
from modern_client import YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import Client, Rig, Transport, next_message, rig
from several import Behind, several
from unit.scripted_http import Peer, plain

WAYS: Final[tuple[Transport, ...]] = ("sse", "json", "stdio")
BOTH: Final[dict[str, Any]] = {"era": "both"}
PATH: Final = "/mcp/memory/chats/c"


def discoveries(server: ScriptedServer) -> int:
    """How often the server was discovered."""
    return sum(headers.get("mcp-method") == "server/discover" for headers in server.received_headers)


def handshakes(server: ScriptedServer) -> int:
    """How often somebody tried to shake hands with the server: of all POSTs it alone bears neither."""
    return sum(
        method == "POST" and not headers.keys() & {"mcp-protocol-version", "mcp-session-id"}
        for method, headers in server.received
    )


def revisions(running: Rig) -> list[str]:
    """What is spoken in each session, spares included."""
    return sorted(s.hello.protocol_version for s in running.server.pool.sessions if s.hello is not None)


async def told_of(client: Client, key: str) -> str:
    return await client.tool_text("recall", PATH, key=key)


@requirement("both-eras:mirrored")
@pytest.mark.parametrize("transport", WAYS)
async def test_who_shakes_hands_has_a_session_that_remembers(transport: Transport) -> None:
    async with rig(transport, options=BOTH) as running:
        one, other = await running.connected(), await running.connected()
        assert await one.tool_text("remember", key="a", value="1") == "remembered"
        assert await one.tool_text("recall", key="a") == "1"
        assert await other.tool_text("recall", key="a") == "nothing is remembered as a"
        curl = running.client()
        assert await curl.tool_text("remember", PATH, key="b", value="2") == "remembered"
        assert await told_of(curl, "b") == "2"
        assert await curl.tool_text("recall", key="b") == "nothing is remembered as b"
        await running.until_idle()
        assert set(revisions(running)) == {"2025-11-25"}


@requirement("both-eras:kept")
@pytest.mark.parametrize("transport", WAYS)
async def test_a_modern_client_that_names_its_chat_has_a_session_that_remembers(transport: Transport) -> None:
    async with rig(transport, options=BOTH) as running:
        one, other = ModernClient(running, chat="c"), ModernClient(running, chat="d")
        assert text_in(await one.result(one.tool("remember", key="a", value="1"))) == "remembered"
        assert text_in(await one.result(one.tool("recall", key="a"))) == "1"
        assert text_in(await other.result(other.tool("recall", key="a"))) == "nothing is remembered as a"
        await running.until_idle()
        assert set(revisions(running)) == {"2025-11-25"}


@requirement("both-eras:kept")
async def test_it_remembers_in_whichever_way_the_chat_is_named() -> None:
    trusting = ClientSettings(name="local", trust=Trust(chat="x-chat"))
    async with rig(options=BOTH, clients=(trusting,)) as running:
        for number, client in enumerate(
            (ModernClient(running, chat="c"), ModernClient(running, path=PATH), ModernClient(running, x_chat="c"))
        ):
            assert text_in(await client.result(client.tool("count"))) == str(number + 1)


@requirement("both-eras:kept")
@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_a_session_that_needs_no_name_for_the_chat_remembers_too(scope: Any) -> None:
    async with rig(options=BOTH, scope=scope) as running:
        for count in "12":
            client = ModernClient(running)
            assert text_in(await client.result(client.tool("count"))) == count
        old = await running.connected()
        assert await old.tool_text("count") == "3"
        assert revisions(running) == ["2025-11-25"]


@requirement("both-eras:kept")
async def test_a_user_who_is_not_named_is_spoken_to_as_one_who_cannot_come_back() -> None:
    naming = ClientSettings(name="local", trust=Trust(user="x-user"))
    async with rig(options=BOTH, scope="user", clients=(naming,)) as running:
        nobody, ann = ModernClient(running), ModernClient(running, x_user="ann")
        assert (await nobody.result(nobody.tool("measure")))["structuredContent"] == [1, 2, 3]
        for count in "12":
            assert text_in(await ann.result(ann.tool("count"))) == count


@requirement("both-eras:kept")
async def test_the_session_of_a_chat_remembers_whoever_comes_first() -> None:
    async with rig(options=BOTH) as running:
        old, new = running.client(), ModernClient(running, path=PATH)
        await new.result(new.tool("remember", key="a", value="1"))
        assert await told_of(old, "a") == "1"
        await old.tool_text("remember", PATH, key="b", value="2")
        assert text_in(await new.result(new.tool("recall", key="b"))) == "2"
        body = new.tool("ask", message="?")
        result, (key,) = await new.asked(body)
        assert len(running.app.modern.parked) == 1, "that session can only be asked while it waits"
        assert reply_in(await new.result(new.again(body, result, **{key: YES}))) == YES
        assert revisions(running) == ["2025-11-25"]


@requirement("both-eras:kept")
async def test_a_modern_client_is_told_once_that_the_session_of_its_chat_was_lost() -> None:
    async with rig(options=BOTH) as running:
        client = ModernClient(running, chat="c")
        await client.result(client.tool("remember", key="a", value="1"))
        running.upstream.core.forget_all()
        _, code, _ = await client.refused(client.tool("recall", key="a"))
        assert code == -31006
        assert text_in(await client.result(client.tool("recall", key="a"))) == "nothing is remembered as a"
        await running.until_idle()
        assert set(revisions(running)) == {"2025-11-25"}


@requirement("both-eras:kept")
async def test_the_operator_may_have_it_spoken_to_in_2026_07_28_alone() -> None:
    async with rig(options=BOTH, era="modern") as running:
        client = ModernClient(running, chat="c")
        assert (await client.result(client.tool("measure")))["structuredContent"] == [1, 2, 3]
        assert set(revisions(running)) == {"2026-07-28"}


@requirement("both-eras:mirrored")
async def test_where_its_sessions_have_no_id_it_remembers_in_neither_era_and_is_spoken_to_in_the_newer() -> None:
    says: dict[str, Any] = {"capabilities": {"tools": {}}, "serverInfo": {"name": "odd", "version": "1"}}

    async def odd(message: dict[str, Any], peer: Peer) -> None:
        result: dict[str, Any] = (
            {"content": []} if message["method"] == "tools/call" else {**says, "supportedVersions": ["2026-07-28"]}
        )
        answer = result_of(message, {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result})
        peer.write(plain(answer, "200 OK", "application/json"))

    async with odd_server(odd) as server:
        hello = result_of({"id": 1}, {"protocolVersion": "2025-11-25", **says})
        server.greeting, server.to_get = plain(hello, "200 OK", "application/json"), NO_SESSION
        async with rig(url=server.url) as running:
            assert revisions(running) == ["2025-11-25"]
            client = ModernClient(running, chat="c")
            await client.result(client.tool("any"))
            assert revisions(running) == ["2025-11-25", "2026-07-28"]


@requirement("both-eras:kept")
async def test_what_is_listened_for_in_a_chat_is_heard_in_its_session() -> None:
    async with rig(options=BOTH) as running:
        client = ModernClient(running, chat="c")
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [NOTE_URI]}
        async with client.post(client.message("subscriptions/listen", notifications=wanted)) as stream:
            assert (await next_message(stream))["params"]["notifications"] == wanted
            await client.result(client.tool("change_resource"))
            assert (await next_message(stream))["method"] == "notifications/resources/updated"
            await client.result(client.tool("change_tools"))
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"
            assert revisions(running) == ["2025-11-25"]
        await running.until(lambda: len(running.app.modern.listeners) == 0)


@requirement("both-eras:mirrored")
@pytest.mark.parametrize("transport", WAYS)
async def test_a_modern_client_that_names_no_chat_is_asked_in_the_servers_own_words(transport: Transport) -> None:
    async with rig(transport, options=BOTH) as running:
        client = ModernClient(running)
        body = client.tool("ask", message="?")
        result, (key,) = await client.asked(body)
        assert key == "q1", "the server's name for it"
        assert len(running.app.modern.parked) == 0
        assert reply_in(await client.result(client.again(body, result, **{key: YES}))) == YES
        assert (await client.result(client.tool("measure")))["structuredContent"] == [1, 2, 3]
        assert "2026-07-28" in revisions(running)


@requirement("both-eras:mirrored")
async def test_the_session_that_was_opened_at_start_is_not_lent_to_who_names_no_chat() -> None:
    async with rig(options=BOTH) as running:
        assert revisions(running) == ["2025-11-25"]
        (spare,) = running.server.pool.sessions
        nameless = ModernClient(running)
        await nameless.result(nameless.tool("echo"))
        assert spare.is_spare
        named = ModernClient(running, chat="d")
        await named.result(named.tool("echo"))
        assert not spare.is_spare
        assert revisions(running) == ["2025-11-25", "2026-07-28"]


@requirement("both-eras:mirrored")
async def test_a_spare_makes_way_for_who_names_no_chat_where_there_is_no_other_room() -> None:
    async with rig(options=BOTH, max_sessions=1) as running:
        client = ModernClient(running)
        await client.result(client.tool("echo"))
        assert revisions(running) == ["2026-07-28"]
        listed = await client.result(client.message("tools/list"))
        assert listed["ttlMs"] == 1000


@requirement("both-eras:lists")
async def test_each_is_introduced_and_listed_to_as_the_server_does_in_the_era_it_is_spoken_to() -> None:
    async with rig(options=BOTH) as running:
        client, named = ModernClient(running), ModernClient(running, chat="c")
        discovered = await client.result(client.message("server/discover"))
        assert discovered["capabilities"]["tools"] == {"listChanged": True}
        listed = await client.result(client.message("tools/list"))
        assert (listed["ttlMs"], listed["cacheScope"]) == (1000, "private")
        assert "measure" in {tool["name"] for tool in listed["tools"]}
        old = await running.connected()
        older = (await old.ask(old.call("tools/list")))["result"]["tools"]
        assert "measure" not in {tool["name"] for tool in older}, "which the server has in 2026-07-28 alone"
        assert {tool["name"] for tool in (await named.result(named.message("tools/list")))["tools"]} == {
            tool["name"] for tool in older
        }, "what its session can call"
        extensions = discovered["capabilities"]["extensions"]
        assert "io.modelcontextprotocol/tasks" in extensions
        introduced = (await named.result(named.message("server/discover")))["capabilities"]
        assert "io.modelcontextprotocol/tasks" not in introduced.get("extensions", {})
        again = (await old.ask(old.call("tools/list")))["result"]["tools"]
        assert again == older


@requirement("both-eras:lists")
async def test_lists_of_one_era_announce_no_change_in_the_other() -> None:
    async with rig(options=BOTH) as running:
        old, new = await running.connected(), ModernClient(running)
        async with old.stream() as stream:
            for _ in range(2):
                await new.result(new.message("tools/list"))
                await old.ask(old.call("tools/list"))
            await old.ask(old.tool("change_resource"))
            await old.ask(old.call("resources/subscribe", uri=NOTE_URI))
            await old.ask(old.tool("change_resource"))
            assert (await next_message(stream))["method"] == "notifications/resources/updated"


@requirement("both-eras:lists")
@pytest.mark.parametrize("is_learnt", [True, False])
async def test_a_modern_client_that_comes_first_gets_the_modern_list(is_learnt: bool) -> None:
    async with rig(options=BOTH, is_learnt=is_learnt, start="eager" if is_learnt else "lazy") as running:
        client = ModernClient(running)
        listed = await client.result(client.message("tools/list"))
        assert "measure" in {tool["name"] for tool in listed["tools"]}


@requirement("both-eras:found-out")
async def test_it_is_found_out_once() -> None:
    async with rig(options=BOTH) as running:
        curl = running.client()
        for chat in "abc":
            await curl.tool_text("echo", f"/mcp/memory/chats/{chat}")
        assert discoveries(running.upstream) == 1
        assert running.upstream.initializes == 3, "the session of the start is the first chat's"


@requirement("both-eras:found-out")
async def test_a_server_of_2026_07_28_alone_is_asked_for_no_handshake_where_it_has_no_stream_to_get() -> None:
    async with rig(options={"era": "modern"}) as running:
        curl = running.client()
        for chat in "abc":
            await curl.tool_text("echo", f"/mcp/memory/chats/{chat}")
        assert handshakes(running.upstream) == 0
        assert [method for method, _ in running.upstream.received].count("GET") == 1
        assert discoveries(running.upstream) == 3


@requirement("both-eras:found-out")
async def test_a_modern_client_that_comes_first_leaves_open_whether_hands_can_be_shaken() -> None:
    async with rig(options=BOTH, start="lazy", is_learnt=False) as running:
        nameless = ModernClient(running)
        await nameless.result(nameless.tool("echo"))
        assert running.upstream.initializes == 0
        named = ModernClient(running, path=PATH)
        await named.result(named.tool("remember", key="a", value="1"))
        assert await told_of(running.client(), "a") == "1"
        assert running.upstream.initializes == 1
        assert discoveries(running.upstream) == 1


@requirement("both-eras:found-out")
@pytest.mark.parametrize("after", ["handshake", "modern"])
async def test_a_server_that_loses_an_era_is_found_out(after: Any) -> None:
    async with rig(options=BOTH, restarts=True) as running:
        before = running.upstream
        await before.stop()
        async with ScriptedServer(ServerOptions(era=after, port=before.port)) as server:
            old, new = running.client(), ModernClient(running, chat="n")
            assert await old.tool_text("remember", PATH, key="a", value="1") == "remembered"
            assert await told_of(old, "a") == "1"
            assert text_in(await new.result(new.tool("echo")))
            expected = "2025-11-25" if after == "handshake" else "2026-07-28"
            assert set(revisions(running)) == {expected}
            running.server.pool.terminate()
            await server.until(lambda: after == "handshake" or not server.sessions)


@requirement("handles:apart")
async def test_sessions_that_a_modern_client_opens_remember_and_are_apart() -> None:
    async with rig(options=BOTH, handles=True) as running:
        client = ModernClient(running)

        async def called(tool: str, **arguments: Any) -> Any:
            return await client.result(client.tool(tool, **arguments))

        one, other = [(await called("open_session"))["structuredContent"]["session"] for _ in "ab"]
        await called("remember", key="a", value="1", session=one)
        assert text_in(await called("recall", key="a", session=one)) == "1"
        assert text_in(await called("recall", key="a", session=other)) == "nothing is remembered as a"


@requirement("both-modern:nameless")
async def test_requests_that_name_no_chat_share_nothing_once_a_server_begins_to_remember() -> None:
    async with rig(options=BOTH, restarts=True) as running:
        before = running.upstream
        client = ModernClient(running)
        await client.result(client.tool("echo"))
        (shared,) = (s for s in running.server.pool.sessions if s.key is not None)
        running.server.pool.close_session(shared.id)
        await running.until(lambda: shared not in running.server.pool.sessions)
        await before.stop()
        async with ScriptedServer(ServerOptions(era="handshake", port=before.port)) as server:
            bodies = [client.tool("remember", key=key, value="1") for key in "abc"]
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(client.events(body)) for body in bodies]
            assert [call.result()[-1]["error"]["code"] for call in calls if "error" in call.result()[-1]] == 3 * [
                -31001
            ]
            for key in "abc":
                assert text_in(await client.result(client.tool("recall", key=key))) == f"nothing is remembered as {key}"
            assert len({call.session for call in server.calls()}) == len(server.calls()), "each has one of its own"
            await running.until_idle()
            assert not [s for s in running.server.pool.sessions if s.key is not None and s.is_open]
            running.server.pool.terminate()


@requirement("both-eras:mirrored")
async def test_among_several_servers_each_is_spoken_to_as_it_speaks() -> None:
    eras = ("handshake", "modern", "both")
    async with several(*(Behind(era, options={"era": era}) for era in eras)) as running:
        named, nameless = ModernClient(running, chat="c"), ModernClient(running)
        for client, era, name in (
            (named, "handshake", "1"),
            (named, "modern", "q1"),
            (named, "both", "1"),
            (nameless, "both", "q1"),
        ):
            body = client.tool(f"{era}__ask", message="?")
            result, (key,) = await client.asked(body)
            assert key == name
            assert reply_in(await client.result(client.again(body, result, **{key: YES}))) == YES
        old = running.client()
        await old.open("2025-11-25")
        await old.tool_text("both__remember", key="a", value="1")
        assert await old.tool_text("both__recall", key="a") == "1"
        listed = (await nameless.result(nameless.message("tools/list")))["tools"]
        assert {"modern__measure", "both__measure"} <= {tool["name"] for tool in listed}


@requirement("both-modern:nameless")
@pytest.mark.parametrize("era", ["modern", "both"])
async def test_requests_that_name_no_chat_share_a_session_that_remembers_nothing(era: str) -> None:
    async with rig(options={"era": era}) as running:
        client = ModernClient(running)
        for _ in range(3):
            await client.result(client.tool("echo"))
        held = [s for s in running.server.pool.sessions if s.key is not None]
        assert [s.hello is not None and s.hello.is_stateless for s in held] == [True]
        assert discoveries(running.upstream) == (1 if era == "modern" else 2), "at the start, and in the other era"
        curl = running.client()
        await curl.tool_text("echo")
        await running.until_idle()
        assert [s for s in running.server.pool.sessions if s.key is not None and s.is_open] == held


@requirement("both-modern:nameless")
async def test_who_names_no_chat_hears_of_resources_too() -> None:
    async with rig(options={"era": "modern"}) as running:
        client = ModernClient(running)
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [NOTE_URI]}
        async with client.post(client.message("subscriptions/listen", notifications=wanted)) as stream:
            assert (await next_message(stream))["params"]["notifications"] == wanted
            await client.result(client.tool("change_resource"))
            assert (await next_message(stream))["method"] == "notifications/resources/updated"
            await client.result(client.tool("change_tools"))
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"
        await running.until(lambda: len(running.app.modern.listeners) == 0)


@requirement("both-modern:nameless")
@pytest.mark.parametrize("chat", ["c", None])
async def test_a_session_is_opened_and_kept_for_who_listens(chat: str | None) -> None:
    clock = ManualClock()
    async with rig(options={"era": "modern"}, clock=clock, idle_timeout=100) as running:
        client = ModernClient(running, chat=chat)
        body = client.message("subscriptions/listen", notifications={"toolsListChanged": True})
        async with client.post(body, accept="text/event-stream") as stream:
            assert "acknowledged" in (await next_message(stream))["method"]
            await running.until(lambda: running.server.pool.count(State.IDLE) == 1)
            await running.passing(1000)
            running.upstream.core.notify_all("notifications/tools/list_changed")
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"
        await running.until(lambda: len(running.app.modern.listeners) == 0)
        await running.passing(1000)
        await running.until(lambda: running.server.pool.sessions == [])
