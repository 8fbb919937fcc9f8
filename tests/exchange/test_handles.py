"""Sessions that callers open themselves, and name in their calls (`handles: true`)."""

from __future__ import annotations

import asyncio
import json
import re
from random import Random
from typing import Any, Final

import pytest

from handle_rig import KINDS, OVER_HTTP, Kind, calling, modern
from holdfast import events
from holdfast.config import ClientSettings, ServerTools, ToolRules, Trust, key_digest
from holdfast.errors import Code
from holdfast.servers.handles import PREFIX
from holdfast.testing import server_modern
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_tools import TOOLS, Tool, ToolCall, text_result
from modern_client import YES, ModernClient, text_in
from requirements import requirement
from rig import TRANSPORTS, Transport, next_message, rig, text_of
from rows import Figure, row
from several import behind, several

CHATS: Final = ClientSettings(name="host", trust=Trust(chat="x-chat"))
USERS: Final = ClientSettings(name="host", key_digests=(key_digest("k1"),), trust=Trust(user="x-user"))
OTHER: Final = ClientSettings(name="other", key_digests=(key_digest("k2"),), trust=Trust(user="x-user"))
ANN: Final = {"authorization": "Bearer k1", "x_user": "ann"}
UNKNOWN: Final = PREFIX + 32 * "0"

every_kind = pytest.mark.parametrize("kind", KINDS)
every_kind_over_http = pytest.mark.parametrize("kind", OVER_HTTP)


# What they are for.


@requirement("handles:opened")
@requirement("handles:every-face")
@every_kind
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_that_names_an_opened_session_finds_what_was_left_there(transport: Transport, kind: Kind) -> None:
    async with rig(transport, handles=True) as running:
        async with calling(running, kind) as ada, calling(running, kind) as ben:
            assert {"open_session", "close_session"} <= (await ada.tools()).keys()
            session = await ada.opened()
            await ada.text("remember", key="k", value="kept", session=session)
            assert await ada.text("recall", key="k", session=session) == "kept"
            assert await ben.text("recall", key="k", session=session) == "kept", "the same principal, another client"
            await ada.text("close_session", session=session)
            assert "open_session" in await ben.refusal("recall", key="k", session=session)
        await running.until(lambda: not any(each.is_open for each in running.server.pool.sessions))


@requirement("handles:every-face")
async def test_a_session_that_a_modern_client_opened_serves_a_handshake_client_and_curl() -> None:
    async with rig(handles=True) as running:
        async with calling(running, "modern") as ada:
            session = await ada.opened()
            counted = [await ada.text("count", session=session)]
        for kind in KINDS:
            async with calling(running, kind) as caller:
                counted.append(await caller.text("count", session=session))
        assert counted == ["1", "2", "3", "4", "5", "6"]


@requirement("handles:apart")
@every_kind_over_http
async def test_a_call_without_a_handle_runs_where_it_would_have(kind: Kind) -> None:
    async with rig(handles=True) as running, calling(running, kind) as caller:
        session = await caller.opened()
        assert await caller.text("count", session=session) == "1"
        assert await caller.text("count") == "1"
        assert await caller.text("count") == ("2" if kind == "handshake" else "1")
        assert await caller.text("count", session=session) == "2"


@requirement("handles:apart")
async def test_a_handle_wins_over_the_chat_that_is_named_and_leaves_it_alone() -> None:
    async with (
        rig(handles=True, clients=(CHATS,)) as running,
        modern(running, x_chat="a") as a,
        modern(running, x_chat="b") as b,
    ):
        assert [await a.text("count"), await b.text("count")] == ["1", "1"]
        session = await a.opened()
        assert [await caller.text("count", session=session) for caller in (a, b, a)] == ["1", "2", "3"]
        assert [await a.text("count"), await b.text("count")] == ["2", "2"]


@requirement("handles:apart")
async def test_under_scope_user_a_handle_is_a_session_beside_the_users_own() -> None:
    async with rig(handles=True, scope="user") as running, modern(running) as ada, modern(running) as ben:
        assert [await ada.text("count"), await ben.text("count")] == ["1", "2"]
        session = await ada.opened()
        assert [await ben.text("count", session=session), await ada.text("count")] == ["1", "3"]


@requirement("handles:apart")
@pytest.mark.parametrize("empty", ["", None])
async def test_an_empty_name_is_no_name_since_models_fill_in_what_they_leave_out(empty: Any) -> None:
    async with rig(handles=True) as running, calling(running, "handshake") as caller:
        assert [await caller.text("count"), await caller.text("count", session=empty)] == ["1", "2"]
        assert json.loads(await caller.text("echo", x=1, session=empty))["arguments"] == {"x": 1}


@requirement("handles:apart")
async def test_two_hundred_sessions_keep_each_its_own_memory(figure: Figure) -> None:
    async with (
        rig(handles=True, max_sessions=300) as running,
        modern(running) as ada,
        calling(running, "curl") as ben,
        calling(running, "handshake") as cem,
    ):
        client, rng, gate = running.client(), Random(7), asyncio.Semaphore(16)
        opened = await client.ask([client.tool("open_session") for _ in range(200)])
        names: list[str] = [answer["result"]["structuredContent"]["session"] for answer in opened]
        assert len(set(names)) == 200
        told: dict[str, list[str]] = {name: [] for name in names}

        async def call(tool: str, name: str) -> None:
            async with gate:
                arguments = {"key": "k", "value": name} if tool == "remember" else {"key": "k"}
                told[name].append(await rng.choice((ada, ben, cem)).text(tool, session=name, **arguments))

        for tool in ("remember", "recall"):
            async with asyncio.TaskGroup() as group:
                for name in rng.sample(names, len(names)):
                    group.create_task(call(tool, name))
        assert told == {name: ["remembered", name] for name in names}
        assert len(running.upstream.sessions) >= 200
        closed = await client.ask([client.tool("close_session", session=name) for name in names])
        assert [text_of(answer) for answer in closed] == [f"Closed session {name}." for name in names]
        await running.until(lambda: len(running.upstream.sessions) <= 1)  # that of the start may still be there
        figure("200 handles, remembered and recalled in any order")


# Names, not rights.


@row(4)
@requirement("handles:names-not-rights")
@requirement("handles:refused-for-models")
@every_kind_over_http
async def test_a_handle_that_is_not_the_callers_is_refused_in_the_words_for_one_that_never_was(
    kind: Kind, figure: Figure
) -> None:
    async with rig(handles=True, clients=(USERS, OTHER)) as running:
        async with calling(running, kind, **ANN) as ann:
            session, closed = await ann.opened(), await ann.opened()
            await ann.text("count", session=session)
            await ann.text("close_session", session=closed)
            executed = len(running.upstream.calls())
            impostors = (
                {"authorization": "Bearer k1", "x_user": "bob"},
                {"authorization": "Bearer k2", "x_user": "ann"},
                {"authorization": "Bearer k1"},
            )
            words: set[str] = set()
            odd: tuple[Any, ...] = (UNKNOWN, "mine", session.upper(), session + "0", closed, 7, [session], {}, True)
            for headers in impostors:
                async with calling(running, kind, **headers) as impostor:
                    for name in (session, *odd):
                        words.add(await impostor.refusal("count", session=name))
                        words.add(await impostor.refusal("close_session", session=name))
                    words.add(await impostor.refusal("close_session"))
            for name in odd:
                words.add(await ann.refusal("count", session=name))
                words.add(await ann.refusal("close_session", session=name))
            assert len(words) == 1, words
            assert len(running.upstream.calls()) == executed, "nothing was executed"
            assert await ann.text("count", session=session) == "2", "and the owner goes on"
        figure(f"{len(impostors) + 1} callers x {len(odd) + 1} names, 0 executed")


@requirement("handles:names-not-rights")
async def test_a_request_without_a_user_can_open_nothing_where_users_are_named() -> None:
    async with rig(handles=True, clients=(USERS,)) as running, modern(running, authorization="Bearer k1") as nobody:
        assert "names its users" in await nobody.refusal("open_session")


@row(4)
@requirement("handles:names-not-rights")
async def test_the_same_text_is_another_session_or_none_for_each_server_and_each_value_of_a_passed_header() -> None:
    async with several(behind("one", handles=True), behind("two", handles=True, pass_headers=("x-tenant",))) as running:
        async with modern(running, x_tenant="a") as a, modern(running, x_tenant="b") as b:
            one, two = await a.opened("one__open_session"), await a.opened("two__open_session")
            assert await b.text("one__count", session=one) == "1"
            assert await a.text("two__count", session=two) == "1"
            refused = [
                await b.refusal("two__count", session=two),
                await a.refusal("two__count", session=one),
                await a.refusal("one__count", session=two),
            ]
            assert ["two__open_session" in words for words in refused] == [True, True, False]
        assert running.executed("count") == {"one": 1, "two": 1}


@row(4)
@requirement("handles:names-not-rights")
async def test_the_operator_hears_who_named_a_session_of_another() -> None:
    async with rig(handles=True, clients=(USERS, OTHER)) as running, modern(running, **ANN) as ann:
        session = await ann.opened()
        await ann.refusal("count", session=UNKNOWN)
        for headers in (
            {"authorization": "Bearer k1", "x_user": "bob"},
            {"authorization": "Bearer k2", "x_user": "ann"},
        ):
            async with modern(running, **headers) as impostor:
                await impostor.refusal("count", session=session)
        entries = [entry.event for entry in running.gateway.operations.feed.recent]
        misused = [event for event in entries if isinstance(event, events.SessionIdMisused)]
        assert [(event.client, event.owner) for event in misused] == [("host", "host"), ("other", "host")]
        assert all(event.request for event in misused)


# What the server hears, and what the list says.


@requirement("handles:the-server-sees-nothing")
@every_kind_over_http
async def test_the_argument_goes_no_further_than_to_us(kind: Kind) -> None:
    async with rig(handles=True) as running, calling(running, kind) as caller:
        session = await caller.opened()
        assert json.loads(await caller.text("echo", x=[1], session=session))["arguments"] == {"x": [1]}
        assert json.loads(await caller.text("echo", session=session))["arguments"] == {}
        assert [entry.args for entry in running.upstream.calls("echo")] == [{"x": [1]}, {}]


async def ran(call: ToolCall) -> dict[str, Any]:
    """Say which arguments came."""
    return text_result(json.dumps(call.args))


def own(name: str, schema: Any) -> Tool:
    return Tool(ran, {"name": name, "inputSchema": schema})


@requirement("handles:schemas")
async def test_arguments_that_headers_repeat_are_checked_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    region = {"region": {"type": "string", "x-mcp-header": "Region"}}
    monkeypatch.setitem(TOOLS, "located", own("located", {"type": "object", "properties": region}))
    async with rig(handles=True) as running:
        client = ModernClient(running)
        session = (await client.result(client.tool("open_session")))["structuredContent"]["session"]
        body = client.tool("located", region="north", session=session)
        assert text_in(await client.result(body, mcp_param_region="north")) == '{"region": "north"}'
        assert (await client.refused(body, mcp_param_region="south"))[1] == -32020
        listed = await client.result(client.message("tools/list"))
        (schema,) = (tool["inputSchema"] for tool in listed["tools"] if tool["name"] == "located")
        assert schema["properties"]["region"] == region["region"]


@requirement("handles:every-face")
@every_kind_over_http
async def test_before_a_server_of_2026_07_28_they_do_no_harm(kind: Kind) -> None:
    async with rig(handles=True, options={"era": "modern"}) as running, calling(running, kind) as caller:
        session = await caller.opened()
        assert json.loads(await caller.text("echo", x=1, session=session))["arguments"] == {"x": 1}
        await caller.text("close_session", session=session)
        await caller.refusal("echo", session=session)


@requirement("handles:lists")
@pytest.mark.parametrize("handles", [True, False])
async def test_a_modern_servers_list_says_what_it_says_without_them(
    handles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server_modern.HINTS, "ttlMs", 60_000)
    async with rig(handles=handles, options={"era": "modern"}) as running:
        client = ModernClient(running)
        for _ in range(2):
            listed = await client.result(client.message("tools/list"))
            tools = {tool["name"]: tool for tool in listed["tools"]}
            assert tools["measure"]["outputSchema"]["type"] == "array"
            assert listed["ttlMs"] == 60_000
            assert ("open_session" in tools) == handles


@requirement("handles:lists")
@requirement("handles:the-server-sees-nothing")
@pytest.mark.parametrize("start", ["eager", "lazy"])
@every_kind_over_http
async def test_what_the_server_calls_so_itself_stays_its_own(
    kind: Kind, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = {"type": "object", "properties": {"session": {"type": "string"}}, "additionalProperties": False}
    monkeypatch.setitem(TOOLS, "open_session", own("open_session", {"type": "object"}))
    monkeypatch.setitem(TOOLS, "seat", own("seat", seats))
    monkeypatch.setitem(TOOLS, "odd", own("odd", {"type": "object", "maxProperties": 1}))
    async with (
        rig(handles=True, start=start, is_learnt=start == "eager") as running,
        calling(running, kind) as caller,
    ):
        assert await caller.text("open_session", x=1) == '{"x": 1}', "before anybody has listed"
        assert await caller.text("seat", session="12A") == '{"session": "12A"}'
        session = await caller.opened("holdfast_open_session")
        both = {"session": "12A", "holdfast_session": session}
        assert await caller.text("seat", **both) == '{"session": "12A"}'
        assert await caller.text("odd", session=session) == json.dumps({"session": session})
        assert "holdfast_open_session" in await caller.refusal("seat", holdfast_session=UNKNOWN)
        tools = await caller.tools()
        assert [*tools["seat"]["inputSchema"]["properties"]] == ["session", "holdfast_session"]
        assert tools["odd"]["inputSchema"] == {"type": "object", "maxProperties": 1}
        assert "open_session" in tools
        assert list(tools)[-2:] == ["holdfast_open_session", "holdfast_close_session"]


@requirement("handles:lists")
@pytest.mark.parametrize("passes", [(), ("x-tenant",)])
async def test_ours_stand_once_in_a_list_of_several_pages(passes: tuple[str, ...]) -> None:
    async with rig(handles=True, options={"page_size": 4}, pass_headers=passes, is_learnt=not passes) as running:
        async with modern(running) as caller:
            found: list[str] = []
            params: dict[str, Any] = {}
            while True:
                result = (await caller.ask("tools/list", **params))["result"]
                found += [tool["name"] for tool in result["tools"]]
                if "nextCursor" not in result:
                    break
                params = {"cursor": result["nextCursor"]}
        assert found == [*(name for name in TOOLS if name != "extra"), "open_session", "close_session"]


@requirement("handles:lists")
async def test_a_list_that_changes_keeps_what_is_ours() -> None:
    async with rig(handles=True) as running, calling(running, "handshake") as caller:
        session = await caller.opened()
        await caller.text("change_tools", session=session)
        tools = await caller.tools()
        assert "session" in tools["extra"]["inputSchema"]["properties"]
        assert {"open_session", "close_session"} <= tools.keys()
        assert await caller.text("extra", session=session) == "extra"


@requirement("handles:lists")
@row(14)
async def test_rules_for_tools_hold_for_what_is_ours() -> None:
    narrow = ClientSettings(
        name="narrow",
        key_digests=(key_digest("k2"),),
        servers={"memory": ToolRules(deny=("open_*",))},
    )
    async with (
        rig(handles=True, clients=(USERS, narrow), tools=ServerTools(deny=("close_session",))) as running,
        modern(running, **ANN) as ann,
        modern(running, authorization="Bearer k2") as other,
    ):
        assert "open_session" in await ann.tools()
        assert "close_session" not in await ann.tools()
        session = await ann.opened()
        assert await ann.code("close_session", session=session) == -32602
        assert not {"open_session", "close_session"} & (await other.tools()).keys()
        assert await other.code("open_session") == -32602
        assert "session" in (await other.tools())["count"]["inputSchema"]["properties"]


@requirement("handles:lists")
async def test_at_the_url_of_all_servers_names_have_prefixes_and_aliases_and_texts_say_them() -> None:
    aliases = ServerTools(aliases={"open_session": "new_browser"})
    servers = (behind("browser", handles=True, tools=aliases), behind("notes", handles=True), behind("plain"))
    async with several(*servers) as running:
        for kind in OVER_HTTP:
            async with calling(running, kind) as caller:
                tools = await caller.tools()
                ours = [name for name in tools if re.search("(open|close)_session$|new_", name)]
                assert ours == ["new_browser", "browser__close_session", "notes__open_session", "notes__close_session"]
                session = tools["browser__count"]["inputSchema"]["properties"]["session"]
                assert "as new_browser returned it" in session["description"]
                assert "browser__close_session" in tools["new_browser"]["description"]
                assert "session" not in tools["plain__count"]["inputSchema"]["properties"]
                browser, notes = await caller.opened("new_browser"), await caller.opened("notes__open_session")
                counted = [await caller.text("browser__count", session=browser) for _ in range(2)]
                assert [*counted, await caller.text("notes__count", session=notes)] == ["1", "2", "1"]
                assert "new_browser" in await caller.refusal("browser__count", session=notes)
                assert json.loads(await caller.text("plain__echo", session="x"))["arguments"] == {"session": "x"}
        alone = running.client()
        listed = await alone.ask(alone.call("tools/list"), "/mcp/notes")
        texts = {tool["name"]: tool["description"] for tool in listed["result"]["tools"]}
        assert "that open_session opened" in texts["close_session"]


@requirement("handles:off")
@every_kind_over_http
async def test_without_the_setting_nothing_is_added_and_nothing_taken_away(kind: Kind) -> None:
    async with rig() as running, calling(running, kind) as caller:
        tools = await caller.tools()
        assert not {"open_session", "close_session"} & tools.keys()
        assert "session" not in tools["count"]["inputSchema"]["properties"]
        for name in ("x", UNKNOWN):
            assert json.loads(await caller.text("echo", session=name))["arguments"] == {"session": name}
        answer = await caller.ask("tools/call", name="open_session", arguments={})
        assert "error" in answer


# Questions, and the other things that belong to a call.


@requirement("handles:every-face")
async def test_the_questions_of_a_call_with_a_handle_reach_its_caller() -> None:
    async with rig(handles=True) as running:
        client = ModernClient(running)
        session = (await client.result(client.tool("open_session")))["structuredContent"]["session"]
        body = client.tool("ask", message="sure?", session=session)
        asked, (key,) = await client.asked(body)
        assert '"answer":"yes"' in text_in(await client.result(client.again(body, asked, **{key: YES}))).replace(
            " ", ""
        )
        with_session = await running.connected(capabilities={"elicitation": {}})
        call = with_session.tool("ask", message="sure?", session=session)
        async with with_session.request("POST", call) as answer:
            question = await next_message(answer)
            await with_session.reply(question, action="accept", content={"answer": "yes"})
            assert '"answer":"yes"' in text_of(await next_message(answer)).replace(" ", "")


@requirement("handles:every-face")
async def test_a_later_leg_of_a_call_must_name_the_same_session() -> None:
    async with rig(handles=True) as running:
        client = ModernClient(running)
        opened = [(await client.result(client.tool("open_session")))["structuredContent"]["session"] for _ in range(2)]
        body = client.tool("ask", message="sure?", session=opened[0])
        asked, (key,) = await client.asked(body)
        other = {**body, "params": {**body["params"], "arguments": {"message": "sure?", "session": opened[1]}}}
        assert (await client.refused(client.again(other, asked, **{key: YES})))[1] == -32602
        await client.result(client.again(body, asked, **{key: YES}))


# A server that is not there.


@requirement("handles:lists")
async def test_a_server_that_cannot_be_listed_opens_no_session_and_says_why() -> None:
    servers = (behind("down", handles=True, is_up=False), behind("up", handles=True))
    async with several(*servers) as running, modern(running) as caller:
        assert await caller.code("down__open_session") == Code.UPSTREAM_UNAVAILABLE
        await caller.refusal("down__count", session=UNKNOWN)
        assert await caller.code("down__count", session="x") == Code.UPSTREAM_UNAVAILABLE
        assert await caller.opened("up__open_session")


@requirement("handles:lists")
async def test_a_caller_may_give_up_while_the_list_is_asked_for() -> None:
    clock = ManualClock()
    async with rig(
        handles=True, start="lazy", options={"open_delay": 20}, server_clock=clock, is_learnt=False
    ) as running:
        client = running.client()
        call = client.tool("open_session")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.ask(call))
            await running.until(lambda: len(running.server.pool.sessions) == 1)
            asking.cancel()
        await clock.advance_settled(20)
        assert running.upstream.calls() == []
