"""New settings while clients call: who notices, and who must not. Threats-and-faults, rows 13 and 49."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast import events
from holdfast.config import ClientSettings, ServerSettings, ServerTools, ToolRules, Trust
from holdfast.errors import Code
from holdfast.gateway import Gateway
from holdfast.servers.names import Names
from holdfast.testing.clock import ManualClock, settle
from reload_rig import LIST_CHANGES, House, changed, client_of, end_of, house, next_of
from requirements import requirement
from rig import Client, next_message, text_of
from rows import row
from several import behind, several

LONG: Final = "a-server-with-a-name-that-leaves-no-room-for-that-of-a-tool"
NOTE: Final = "memo://note"


def is_gone(status: int) -> bool:
    return status == 404


# Settings that nobody need notice.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was given up while it opened is not waited for."""
    monkeypatch.setattr("holdfast.upstream.streamable_http.UNCLAIMED_TIMEOUT", 0.05)


@requirement("reload:unchanged:keeps-everything")
async def test_identical_settings_are_noticed_by_nobody() -> None:
    async with house("a", "b") as home:
        client = await home.connected("/mcp/a")
        async with client.stream() as pushed:
            assert await client.count() == "1"
            home.reload()
            assert await client.count() == "2"
            home.session_of(client).push("test/event", None)
            assert (await next_message(pushed))["method"] == "test/event"  # and nothing before
        assert home.told(events.SettingsReloaded) == [events.SettingsReloaded((), (), ())]
        assert [upstream.initializes for upstream in home.upstreams.values()] == [1, 1]
        assert home.told(events.SessionClosed) == []


KEPT: Final[list[dict[str, Any]]] = [
    {"call_timeout": 7.0, "open_timeout": 7.0, "idle_timeout": 7.0, "call_deadline": 70.0, "ask_timeout": 7.0},
    {"max_sessions": 3, "max_concurrency": 1, "max_queue": 1, "max_age": 3600.0, "acquire_timeout": 7.0},
    {"tools": ServerTools(deny=("crash",))},
    {"prefix": "other"},
    {"on_loss": "resume", "start": "lazy"},
]


@requirement("reload:changed:keeps-sessions")
@pytest.mark.parametrize("fields", KEPT, ids=lambda fields: next(iter(fields)))
async def test_settings_that_open_sessions_can_take_on_end_none(fields: dict[str, Any]) -> None:
    async with house("a") as home:
        client = await home.connected("/mcp/a")
        assert await client.count() == "1"
        initializes = home.upstreams["a"].initializes
        server = home.server("a")
        home.change("a", **fields)
        assert home.server("a") is server
        assert await client.count() == "2"
        assert home.upstreams["a"].initializes == initializes
        assert home.told(events.SettingsReloaded) == [events.SettingsReloaded((), ("a",), ())]
        assert home.told(events.ServerAdded) == [events.ServerAdded("a")]  # at start


@requirement("reload:changed:keeps-sessions")
async def test_a_new_timeout_holds_for_the_next_call_in_an_open_session() -> None:
    clock = ManualClock()
    async with house("a", clock=clock) as home:
        client = await home.connected("/mcp/a")
        await client.count()
        home.change("a", call_timeout=5.0)
        upstream = home.upstreams["a"]
        call = home.start(client.ask(client.tool("slow", gate="never")))
        await upstream.entered("never")
        await clock.advance_settled(6.0)
        assert (await call)["error"]["code"] == Code.TIMEOUT
        upstream.open_gate("never")


@requirement("reload:changed:keeps-sessions")
async def test_new_rules_for_tools_hold_at_once_and_clients_hear_of_it() -> None:
    async with house("a") as home:
        client = await home.connected("/mcp/a")
        async with client.stream() as pushed:
            assert "echo" in await client.tools()
            home.change("a", tools=ServerTools(deny=("echo",)))
            await next_of(pushed, "notifications/tools/list_changed")
            assert "echo" not in await client.tools()
            assert await client.failure("echo") == -32602
            home.change("a", tools=ServerTools())
            await next_of(pushed, "notifications/tools/list_changed")
            assert "echo" in await client.tools()


@requirement("reload:changed:keeps-sessions")
async def test_a_new_prefix_renames_the_tools_and_keeps_the_sessions() -> None:
    async with house("a", "b") as home:
        client = await home.connected()
        async with client.stream() as pushed:
            assert await client.count("a__count") == "1"
            home.change("a", prefix="alpha")
            await next_of(pushed, "notifications/tools/list_changed")
            assert {"alpha__count", "b__count"} <= await client.tools()
            assert await client.count("alpha__count") == "2"
            assert await client.failure("a__count") == -32602


async def test_a_server_that_becomes_eager_does_not_make_the_gateway_unready() -> None:
    async with house("a", "b") as home:
        home.change("b", start="lazy")
        assert home.gateway.operations.is_ready
        home.change("b", start="eager")
        assert home.gateway.operations.is_ready
    async with several(behind("a", start="lazy"), behind("b", start="lazy")) as running:
        assert running.gateway.operations.is_ready
        settings = running.gateway.settings
        eager = tuple(changed(each, start="eager") for each in settings.servers)
        running.gateway.reload(settings.model_copy(update={"servers": eager}))
        assert running.gateway.operations.is_ready


# Settings that make another server of it.


@requirement("reload:changed:replaces-the-server")
@pytest.mark.parametrize("kind", ["url", "headers"])
async def test_a_server_that_changes_is_replaced_and_its_state_missed_once(kind: str) -> None:
    async with house("a", others=["new"]) as home:
        old, new = home.upstreams["a"], home.upstreams["a" if kind == "headers" else "new"]
        client = await home.connected("/mcp/a")
        async with client.stream() as pushed:
            assert await client.count() == "1"
            home.change("a", **({"url": new.url} if kind == "url" else {"headers": {"x-version": "2"}}))
            heard = {(await next_message(pushed))["method"] for _ in range(3)}
            assert heard == LIST_CHANGES
            assert await client.failure() == Code.SESSION_LOST
            assert await client.count() == "1"
            assert await client.count() == "2"
        if kind == "url":
            await home.until_gone(old)
        assert home.told(events.ServerRemoved) == []
        assert home.told(events.SettingsReloaded) == [events.SettingsReloaded((), ("a",), ())]


@requirement("reload:changed:replaces-the-server")
@pytest.mark.parametrize(("fields", "is_told"), [({"headers": {"x-version": "2"}}, True), ({"scope": "user"}, False)])
async def test_of_a_replaced_server_the_log_says_that_its_settings_changed_and_who_is_told(
    fields: dict[str, Any], is_told: bool
) -> None:
    async with house("a") as home:
        client = await home.connected("/mcp/a")
        await client.count()
        home.change("a", **fields)
        (closed,) = [event for event in home.told(events.SessionClosed) if event.key]
        assert closed.reason == "the settings of a have changed, and its sessions cannot go on under the new ones"
        assert closed.was_dirty is is_told
        (reloaded,) = home.told(events.SettingsReloaded)
        assert bool(reloaded.notes) is not is_told
        assert all("scope" in note and "no caller is told" in note for note in reloaded.notes)
        assert (await client.ask(client.tool("count"))).get("error", {}).get("code") == (
            Code.SESSION_LOST if is_told else None
        )


@requirement("reload:changed:replaces-the-server")
async def test_who_left_nothing_in_a_replaced_server_is_told_nothing() -> None:
    async with house("a", others=["new"]) as home:
        client = await home.connected("/mcp/a")
        assert "count" in await client.tools()
        home.change("a", url=home.upstreams["new"].url)
        assert await client.count() == "1"
        assert await client.count() == "2"


@requirement("reload:changed:replaces-the-server")
@pytest.mark.parametrize("path", ["/mcp/a", "/mcp"])
async def test_a_call_in_a_replaced_server_ends_well_and_the_next_one_does_not_wait_for_it(path: str) -> None:
    async with house("a", others=["new"]) as home:
        old, new = home.upstreams["a"], home.upstreams["new"]
        client = await home.connected(path)
        call = home.start(client.tool_text("slow", gate="g"))
        await old.entered("g")
        home.change("a", url=new.url)
        assert await client.failure() == Code.SESSION_LOST
        assert await client.count() == "1"
        assert not call.done()
        old.open_gate("g")
        assert await call == "done"
        await home.until_gone(old)
        assert await client.count() == "2"


@requirement("reload:changed:replaces-the-server")
async def test_a_question_of_a_replaced_server_is_still_answered() -> None:
    async with house("a", others=["new"]) as home:
        client = await home.connected("/mcp/a", elicitation={})
        async with client.request("POST", client.tool("ask", message="really?")) as answer:
            question = await next_of(answer, "elicitation/create")
            home.change("a", url=home.upstreams["new"].url)
            await client.reply(question, action="accept", content={"answer": "yes"})
            assert "yes" in text_of(await next_message(answer))
        await home.until_gone(home.upstreams["a"])


@requirement("reload:changed:replaces-the-server")
@pytest.mark.parametrize(("path", "prefix"), [("/mcp/a", ""), ("/mcp", "a__")])
async def test_subscriptions_go_on_with_the_server_that_follows(path: str, prefix: str) -> None:
    async with house("a", "b", others=["new"]) as home:
        new = home.upstreams["new"]
        client = await home.connected(path)
        uri = next(r["uri"] for r in await resources(client) if r["uri"].endswith(NOTE))
        assert (await client.ask(client.call("resources/subscribe", uri=uri)))["result"] == {}
        home.change("a", url=new.url)
        async with client.stream() as pushed:
            await next_of(pushed, "notifications/resources/list_changed")
            await client.ask(client.tool(f"{prefix}count"))  # it may be told that its session is lost
            await client.count(f"{prefix}count")
            await new.until(lambda: any(NOTE in session.subscriptions for session in new.sessions.values()))
            await client.tool_text(f"{prefix}change_resource", text="new")
            assert (await next_of(pushed, "notifications/resources/updated"))["params"] == {"uri": uri}


async def resources(client: Client) -> list[Any]:
    listed: list[Any] = (await client.ask(client.call("resources/list")))["result"]["resources"]
    return listed


@requirement("reload:changed:replaces-the-server")
async def test_a_client_that_initializes_meanwhile_gets_the_server_that_follows(impatient: None) -> None:
    async with house("a", others=["new"], slow=["slow"]) as home:
        home.change("a", url=home.upstreams["slow"].url)
        client = home.client("/mcp/a")
        opening = home.start(client.open())
        await home.until(lambda: home.upstreams["slow"].initializes == 1)
        home.change("a", url=home.upstreams["new"].url)
        await opening
        assert await client.count() == "1"


@requirement("reload:changed:replaces-the-server")
async def test_a_request_whose_body_comes_after_the_reload_is_for_the_server_that_follows() -> None:
    async with house("a", others=["new"]) as home:
        client = await home.connected("/mcp/a")
        session = client.headers["mcp-session-id"]
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"count","arguments":{}}}'
        head = (
            f"POST /mcp/a HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\nmcp-session-id: {session}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
        writer.write(head.encode() + body[:10])
        await home.until(lambda: bool(home.gateway.app.open_requests))
        home.change("a", url=home.upstreams["new"].url)
        writer.write(body[10:])
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
        assert await client.count() == "2"


# Servers that come and go.


@requirement("reload:servers:come-and-go")
async def test_a_server_that_is_added_is_served_beside_the_others() -> None:
    async with house("a", "b", others=["c"]) as home:
        client = await home.connected()
        async with client.stream() as pushed:
            assert await client.count("a__count") == "1"
            home.reload(servers=(*home.gateway.settings.servers, changed(home.server("a").settings, **c_of(home))))
            assert home.gateway.operations.is_ready  # or traffic would be sent elsewhere
            await next_of(pushed, "notifications/tools/list_changed")
            await home.until_learnt("c")
            assert "c__count" in await client.tools()
            assert await client.count("c__count") == "1"
            assert await client.count("a__count") == "2"
        assert await home.client("/mcp/c").count() == "1"
        assert home.told(events.SettingsReloaded) == [events.SettingsReloaded(("c",), (), ())]


def c_of(home: House) -> dict[str, Any]:
    return {"name": "c", "url": home.upstreams["c"].url}


def without(home: House, *names: str) -> None:
    home.reload(servers=tuple(each for each in home.gateway.settings.servers if each.name not in names))


@requirement("reload:servers:come-and-go")
async def test_a_server_that_is_removed_is_not_found_and_its_calls_still_end() -> None:
    async with house("a", "b", "c") as home:
        gone = home.upstreams["b"]
        client, other = await home.connected("/mcp/b"), await home.connected("/mcp/b")
        whole = await home.connected()
        async with other.stream() as listening:
            call = home.start(client.tool_text("slow", gate="g"))
            joint = home.start(whole.tool_text("b__slow", gate="g"))
            await gone.entered("g", 2)
            without(home, "b")
            assert is_gone(await client.post(client.tool("count")))
            assert is_gone(await home.client("/mcp/b").post(client.tool("count")))
            assert await whole.failure("b__count") == -32602
            assert {name.partition("__")[0] for name in await whole.tools()} == {"a", "c"}
            gone.open_gate("g")
            assert await call == await joint == "done"
            await end_of(listening)
        await home.until_gone(gone)
        initializes = gone.initializes
        assert await whole.count("a__count") == "1"
        assert gone.initializes == initializes
        assert home.told(events.ServerRemoved) == [events.ServerRemoved("b")]
        assert len(home.gateway.app.sessions) == 1


@requirement("reload:servers:never-revived")
async def test_a_server_that_is_removed_while_it_fails_to_connect_is_never_tried_again() -> None:
    clock = ManualClock()
    async with house("a", others=["b"], clock=clock) as home:
        dead = home.upstreams["b"]
        await dead.stop()
        home.reload(
            servers=(*home.gateway.settings.servers, changed(home.server("a").settings, name="b", url=dead.url))
        )
        while not home.told(events.SessionFailed):
            await clock.advance_settled(1.0)
        without(home, "b")
        await dead.start()
        for _ in range(20):
            await clock.advance_settled(30.0)
        assert not home.gateway.leaving
        assert dead.accepted == 0
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "learn b"]
        assert home.told(events.ServerRemoved) == [events.ServerRemoved("b")]


@requirement("reload:servers:never-revived")
async def test_a_server_that_is_removed_while_it_connects_is_let_go(impatient: None) -> None:
    async with house("a", slow=["b"]) as home:
        slow = home.upstreams["b"]
        home.reload(
            servers=(*home.gateway.settings.servers, changed(home.server("a").settings, name="b", url=slow.url))
        )
        await home.until(lambda: slow.initializes == 1)
        without(home, "b")
        await home.until(lambda: not home.gateway.leaving)
        await home.until(lambda: not slow.connections)
        assert slow.initializes == 1


@requirement("reload:servers:never-revived")
async def test_a_server_that_comes_back_starts_afresh() -> None:
    async with house("a", "b") as home:
        client = await home.connected("/mcp/b")
        assert await client.count() == "1"
        servers = home.gateway.settings.servers
        without(home, "b")
        home.reload(servers=servers)
        assert is_gone(await client.post(client.tool("count")))
        fresh = await home.connected("/mcp/b")
        assert await fresh.count() == "1"
        assert home.told(events.ServerAdded)[2:] == [events.ServerAdded("b")]


@requirement("reload:servers:come-and-go")
async def test_the_url_of_all_servers_goes_on_as_what_it_was_for_each_session() -> None:
    """One server is served as it is and several as one, and no session may find itself renamed."""
    async with house("a", others=["b"]) as home:
        alone = await home.connected()
        assert await alone.count() == "1"
        one = home.gateway.settings.servers
        home.reload(servers=(*one, changed(one[0], name="b", url=home.upstreams["b"].url)))
        together = await home.connected()
        assert await alone.count() == "2"
        assert await together.count("a__count") == "1"
        assert await together.count("b__count") == "1"
        home.reload(servers=one)
        assert await together.count("a__count") == "2"
        assert await alone.count() == "3"
        again = await home.connected()
        assert await again.count() == "1"
        home.change("a", url=home.upstreams["b"].url)
        assert [await each.failure() for each in (alone, again)] == [Code.SESSION_LOST] * 2
        assert await alone.count() == "1"


async def test_where_one_server_is_merged_too_a_second_one_renames_nothing() -> None:
    async with house("a", others=["b"]) as home:
        home.reload(merged="always")
        client = await home.connected()
        assert await client.count("a__count") == "1"
        one = home.gateway.settings.servers
        home.reload(servers=(*one, changed(one[0], name="b", url=home.upstreams["b"].url)))
        assert await client.count("a__count") == "2"
        assert await client.count("b__count") == "1"
        home.reload(servers=one)
        assert await client.count("a__count") == "3"


# Clients.


@row(13)
@requirement("reload:clients:revocation")
async def test_a_client_that_is_removed_loses_everything_and_nobody_else_does() -> None:
    both = (client_of("host", "one"), client_of("guest", "two"))
    async with house("a", clients=both) as home:
        host, guest = await home.connected("/mcp/a", "one"), await home.connected("/mcp/a", "two")
        assert [await host.count(), await guest.count()] == ["1", "1"]
        upstream = home.upstreams["a"]
        async with guest.stream() as stolen, host.stream() as kept:
            call = home.start(guest.ask(guest.tool("slow", gate="g")))
            direct = home.start(home.client("/mcp/a", "two").post(guest.tool("slow", gate="g")))
            await upstream.entered("g", 2)
            home.reload(clients=both[:1])
            await end_of(stolen)
            assert await direct == 401
            with pytest.raises(AssertionError, match="401"):
                await call
            assert await guest.post(guest.tool("count")) == 401
            await home.until(lambda: [s.key.principal.client for s in sessions_in_use(home)] == ["host"])
            assert await host.count() == "2"
            home.session_of(host).push("test/event", None)
            assert (await next_message(kept))["method"] == "test/event"
        home.reload(clients=both)
        assert is_gone(await guest.post(guest.tool("count")))
        fresh = await home.connected("/mcp/a", "two")
        assert await fresh.count() == "1"  # nothing was kept, and nothing is left to be told


def sessions_in_use(home: House) -> list[Any]:
    return [session for session in home.server("a").pool.sessions if session.key is not None]


@row(13)
@requirement("reload:clients:rotation")
async def test_a_key_is_replaced_without_anybody_losing_a_session() -> None:
    async with house("a", clients=(client_of("host", "old"),)) as home:
        before = await home.connected("/mcp/a", "old")
        after = before.with_key("new")
        assert await before.count() == "1"
        assert await after.post(after.tool("count")) == 401
        home.reload(clients=(client_of("host", "old", "new"),))
        assert [await before.count(), await after.count()] == ["2", "3"]
        async with before.stream() as cut:
            call = home.start(before.ask(before.tool("slow", gate="g")))
            await home.upstreams["a"].entered("g")
            home.reload(clients=(client_of("host", "new"),))
            await end_of(cut)
            with pytest.raises(AssertionError, match="401"):
                await call
        assert await before.post(before.tool("count")) == 401
        async with after.stream() as pushed:
            home.session_of(after).push("test/event", None)
            assert (await next_message(pushed))["method"] == "test/event"
        home.upstreams["a"].open_gate("g")
        assert await after.count() == "4"


@row(13)
@requirement("reload:clients:revocation")
async def test_who_came_without_a_key_is_cut_off_once_one_is_needed() -> None:
    async with house("a", clients=(client_of("local"),)) as home:
        client = await home.connected("/mcp/a")
        assert await client.count() == "1"
        async with client.stream() as cut:
            home.reload(clients=(client_of("local", "key"),))
            await end_of(cut)
        assert await client.post(client.tool("count")) == 401
        assert await client.with_key("key").count() == "2"


@row(13)
@requirement("reload:clients:revocation")
async def test_a_key_that_becomes_anothers_lets_nobody_stay_as_who_it_was() -> None:
    both = (client_of("host", "a-key", "moving"), client_of("guest", "b-key"))
    async with house("a", clients=both) as home:
        client = await home.connected("/mcp/a", "moving")
        assert await client.count() == "1"
        async with client.stream() as cut:
            home.reload(clients=(client_of("host", "a-key"), client_of("guest", "b-key", "moving")))
            await end_of(cut)
        assert is_gone(await client.post(client.tool("count")))
        assert await client.with_key("a-key").count() == "2"


NARROWER: Final[list[dict[str, Any]]] = [
    {"servers": {"a": ToolRules()}},
    {"servers": {"a": ToolRules(deny=("crash",)), "b": ToolRules()}},
    {"servers": {"a": ToolRules(allow=("c*",)), "b": ToolRules()}},
]


@row(13)
@requirement("reload:clients:narrowed")
@pytest.mark.parametrize("fields", NARROWER, ids=["a server less", "deny", "allow"])
async def test_a_client_that_may_see_less_loses_its_sessions_with_us(fields: dict[str, Any]) -> None:
    async with house("a", "b", clients=(client_of("host", "k"), client_of("guest", "g"))) as home:
        host, guest = await home.connected("/mcp/b", "k"), await home.connected("/mcp/b", "g")
        assert [await host.count(), await guest.count()] == ["1", "1"]
        async with host.stream() as cut:
            home.reload(clients=(client_of("host", "k", **fields), client_of("guest", "g")))
            await end_of(cut)
        assert is_gone(await host.post(host.tool("count")))
        assert await guest.count() == "2"


@row(13)
@requirement("reload:clients:narrowed")
async def test_a_server_that_a_client_may_not_see_any_more_forgets_it_calls_included() -> None:
    sees_both = {"a": ToolRules(), "b": ToolRules()}
    clients = (client_of("host", "k", servers=sees_both),)
    async with house("a", "b", clients=clients, scope="user") as home:
        direct = home.client("/mcp/b", "k")
        assert await direct.count() == "1"
        call = home.start(direct.ask(direct.tool("slow", gate="g")))
        await home.upstreams["b"].entered("g")
        home.reload(clients=(client_of("host", "k", servers={"a": ToolRules()}),))
        assert "error" in await call
        assert is_gone(await direct.post(direct.tool("count")))
        home.reload(clients=clients)
        assert await direct.count() == "1"


@requirement("reload:clients:widened")
async def test_a_client_that_may_see_more_keeps_its_session_and_sees_more() -> None:
    narrow = client_of("host", "k", servers={"a": ToolRules(deny=("echo",))})
    async with house("a", "b", clients=(narrow,)) as home:
        client = await home.connected("/mcp", "k")
        async with client.stream() as pushed:
            assert await client.count("a__count") == "1"
            assert not {"a__echo", "b__count"} & await client.tools()
            home.reload(clients=(client_of("host", "k"),))
            await next_of(pushed, "notifications/tools/list_changed")
            assert {"a__echo", "b__count"} <= await client.tools()
            assert await client.count("a__count") == "2"
            assert await client.count("b__count") == "1"


@requirement("reload:clients:widened")
async def test_a_server_that_goes_with_the_rules_that_name_it_costs_no_other_session() -> None:
    """The settings demand that both go together."""
    rules = {"a": ToolRules(), "b": ToolRules()}
    async with house("a", "b", clients=(client_of("host", "k", servers=rules),)) as home:
        client = await home.connected("/mcp/a", "k")
        assert await client.count() == "1"
        host = client_of("host", "k", servers={"a": ToolRules()})
        home.reload(servers=(home.server("a").settings,), clients=(host,))
        assert await client.count() == "2"


@row(13)
@requirement("reload:clients:narrowed")
async def test_a_client_that_names_users_by_another_header_names_others() -> None:
    async with house("a", clients=(client_of("host", "k", trust=Trust(user="x-user")),), scope="user") as home:
        client = home.client("/mcp/a", "k")
        client.headers |= {"x-user": "ada", "x-name": "ada"}
        assert [await client.count(), await client.count()] == ["1", "2"]
        home.reload(clients=(client_of("host", "k", trust=Trust(user="x-name")),))
        assert await client.count() == "1"


@requirement("reload:clients:narrowed")
async def test_a_call_that_is_on_its_way_to_a_server_reaches_it_no_more_once_its_client_may_not() -> None:
    clock, slow = ManualClock(), ManualClock()
    async with several("one", behind(LONG, delay=3, clock=slow), clock=clock, is_learnt=False) as running:
        await running.told.learnt("one")
        client = running.client()  # without a session: with that, its calls would end as well
        cut = Names(LONG, "__", {}).public("count")  # whose it is, only the list of that server can tell
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.ask(client.tool(cut)))
            await running.until(lambda: bool(running.app.open_requests))
            await settle()
            narrowed = (ClientSettings(name="local", servers={"one": ToolRules()}),)
            settings = running.gateway.settings
            running.gateway.reload(settings.model_copy(update={"clients": narrowed}))
            assert not call.done()
            while not call.done():
                await slow.advance_settled(1)
        assert call.result()["error"]["code"] == Code.UPSTREAM_UNAVAILABLE
        assert running.executed() == {"one": 0, LONG: 0}


# The gateway's own.


@requirement("reload:listen")
async def test_another_address_waits_for_the_next_start_and_the_rest_does_not() -> None:
    async with house("a") as home:
        home.reload(["a note"], port=1, client_idle_timeout=7.0)
        (told,) = home.told(events.SettingsReloaded)
        assert told.notes == ("a note", "another listen takes effect at the next start; the rest is in force")
        assert home.gateway.settings.port != 1
        assert home.gateway.settings.client_idle_timeout == 7.0


@row(13)
@requirement("reload:listen")
async def test_what_would_be_open_to_the_world_at_the_old_address_is_refused() -> None:
    """A file that says loopback needs no key, but the gateway does not listen there before it is restarted."""
    async with house("a", clients=(client_of("host", "k"),), gateway={"host": "0.0.0.0"}) as home:
        home.reload(host="127.0.0.1", clients=(client_of("local"),))
        (refused,) = home.told(events.SettingsRefused)
        assert refused.reason.startswith("listen: the gateway stays at 0.0.0.0 port 8790 until the next start: ")
        assert await home.client("/mcp/a").post(Client(0).tool("count")) == 401
        assert home.told(events.SettingsReloaded) == []


@requirement("reload:limits")
async def test_a_shorter_idle_timeout_holds_for_sessions_that_are_there() -> None:
    clock = ManualClock()
    async with house("a", clock=clock, gateway={"client_idle_timeout": 86400.0}) as home:
        client = await home.connected("/mcp/a")
        await clock.advance_settled(20.0)
        home.reload(client_idle_timeout=60.0)
        assert home.session_of(client)
        await clock.advance_settled(60.0)
        assert len(home.gateway.app.sessions) == 0


@requirement("reload:follow:mistakes-change-nothing")
async def test_where_a_server_cannot_be_made_nothing_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Gateway._connect  # pyright: ignore[reportPrivateUsage] (nothing that settings may hold makes it fail)

    def fail_for_bad(gateway: Gateway, settings: ServerSettings) -> Any:
        if settings.name == "bad":
            raise ValueError("it cannot be made")
        return make(gateway, settings)

    monkeypatch.setattr(Gateway, "_connect", fail_for_bad)
    async with house("a", others=["new", "other"]) as home:
        client = await home.connected("/mcp/a")
        assert await client.count() == "1"
        before, server = home.gateway.settings, home.server("a")
        urls = {"a": home.upstreams["other"].url, "new": home.upstreams["new"].url, "bad": home.upstreams["new"].url}
        with pytest.raises(ValueError, match="cannot be made"):
            home.reload(servers=tuple(ServerSettings(name=name, url=url) for name, url in urls.items()))
        assert home.gateway.settings is before
        assert list(home.gateway.servers) == [server]
        assert await client.count() == "2"
        await home.until(lambda: not home.gateway.leaving)
        for name in ("new", "other"):
            await home.until_gone(home.upstreams[name])
        home.reload()
        assert home.told(events.SettingsReloaded) == [events.SettingsReloaded((), (), ())]


# One upon the other.


@requirement("reload:overlap")
async def test_reloads_while_an_earlier_one_still_drains_are_independent() -> None:
    async with house("a", others=["b", "c"]) as home:
        a, b, c = home.upstreams.values()
        client = await home.connected("/mcp/a")
        calls: list[asyncio.Task[str]] = []
        for upstream, following in ((a, b), (b, c)):
            calls.append(home.start(client.tool_text("slow", gate="g")))
            await upstream.entered("g")
            home.change("a", url=following.url)
            assert await client.failure() == Code.SESSION_LOST
        assert await client.count() == "1"
        b.open_gate("g")
        assert await calls[1] == "done"
        await home.until_gone(b)
        a.open_gate("g")
        assert await calls[0] == "done"
        await home.until_gone(a)
        assert not home.gateway.leaving


@requirement("reload:overlap")
async def test_two_reloads_at_once_leave_what_the_last_one_says() -> None:
    async with house("a", others=["b", "c"]) as home:
        client = await home.connected("/mcp/a")
        assert await client.count() == "1"
        home.change("a", url=home.upstreams["b"].url)
        home.change("a", url=home.upstreams["c"].url)
        assert await client.failure() == Code.SESSION_LOST
        assert await client.count() == "1"
        await home.until_gone(home.upstreams["a"])
        await home.until_gone(home.upstreams["b"])


@requirement("reload:overlap")
async def test_a_gateway_that_ends_takes_no_new_settings_and_ends_what_drains() -> None:
    async with house("a", others=["b"]) as home:
        client = await home.connected("/mcp/a")
        call = home.start(client.ask(client.tool("slow", gate="g")))
        await home.upstreams["a"].entered("g")
        home.change("a", url=home.upstreams["b"].url)
        home.gateway.drain()
        home.change("a", url=home.upstreams["a"].url)
        assert len(home.told(events.SettingsReloaded)) == 1
        home.gateway.close_sessions()
        assert "error" in await call


# Many.


@requirement("reload:servers:come-and-go")
async def test_servers_that_come_and_go_leave_no_task_and_no_descriptor() -> None:
    async with house("a", "b", others=["c"]) as home:
        left: list[tuple[int, int]] = []
        for _ in range(6):
            home.reload(servers=(*home.gateway.settings.servers, changed(home.server("a").settings, **c_of(home))))
            client, whole = await home.connected("/mcp/c"), await home.connected()
            async with client.stream() as listening:
                assert [await client.count(), await whole.count("c__count")] == ["1", "1"]
                without(home, "c")
                await end_of(listening)
            await whole.delete()
            await home.until_gone(home.upstreams["c"])
            await home.until(lambda: not home.gateway.leaving and not home.gateway.app.open_requests)
            await settle()
            left.append((len(asyncio.all_tasks()), open_descriptors()))
        assert left[1:] == left[:1] * 5


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
