"""All servers at one URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from pydantic import SecretStr

from bare_client import Response
from holdfast.config import TRUST_PRESETS, ClientSettings, ServerTools, ToolRules, Trust, key_digest
from holdfast.servers import joint
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_tools import TOOLS
from requirements import requirement
from rig import Client, next_message, text_of
from rows import Figure, row
from several import Behind, Several, behind, listed, names, several

ALL: Final = [name for name in TOOLS if name != "extra"]
NOTE: Final = "memo://note"
CHATS: Final = (ClientSettings(name="host", trust=Trust(user="x-user", chat="x-chat")),)
LONG: Final = "a-server-with-a-name-that-leaves-no-room-for-that-of-a-tool"


def with_meta(body: dict[str, Any], **meta: Any) -> dict[str, Any]:
    body["params"]["_meta"] = meta
    return body


def progressing(body: dict[str, Any], token: Any = 7) -> dict[str, Any]:
    return with_meta(body, progressToken=token)


@asynccontextmanager
async def with_a_slow_one() -> AsyncGenerator[tuple[Several, Client, ManualClock]]:
    """A gateway with one server that opens in an instant and one that takes 20 s of the last clock, and a client."""
    clock, slow = ManualClock(), ManualClock()
    async with several("one", behind("slow", delay=20, clock=slow), clock=clock, is_learnt=False) as running:
        await running.told.learnt("one")
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(running.connected())
            await running.until(lambda: len(running.app.sessions) == 1)
            await clock.advance_settled(2)
        yield running, opening.result(), slow
        await slow.advance_settled(20)


@asynccontextmanager
async def push_stream(running: Several, client: Client) -> AsyncGenerator[Response]:
    async with client.stream() as stream:
        await running.until(lambda: running.session_of(client).push_stream.is_read)
        yield stream


async def until_said(stream: Response, method: str) -> Any:
    """The params of the next notification of this method."""
    while (message := await next_message(stream)).get("method") != method:
        pass
    return message.get("params")


# Names.


@requirement("merged:names:prefixed")
async def test_every_tool_is_listed_once_with_its_servers_prefix_in_the_order_of_the_settings() -> None:
    async with several("b.two", "a_one", behind("c", prefix="x")) as running:
        client = await running.connected()
        found = await listed(client)
        assert found == [f"{prefix}__{tool}" for prefix in ("b_two", "a_one", "x") for tool in ALL]
        assert await listed(running.client()) == found, "without a session"
        assert await listed(client, "/mcp") == found


@requirement("merged:names:prefixed")
async def test_a_call_reaches_the_one_server_that_its_name_leads_to() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        assert await client.tool_text("two__remember", key="k", value="v") == "remembered"
        assert running.executed() == {"one": 0, "two": 1}
        assert running.upstreams["two"].calls()[0].tool == "remember"
        assert await client.tool_text("two__recall", key="k") == "v"
        assert await client.tool_text("one__recall", key="k") == "nothing is remembered as k"


@requirement("merged:names:one-server-is-untouched")
async def test_at_its_own_path_a_server_is_as_it_is() -> None:
    async with several("one", "two") as running:
        client = running.client()
        assert await listed(client, "/mcp/two") == ALL
        assert await client.tool_text("count", "/mcp/two") == "1"
        async with running.client().request("POST", client.call("tools/call", name="two__count"), "/mcp/two") as answer:
            assert (await answer.json())["error"]["code"] == -32602
    async with several("only") as running:
        assert await listed(running.client()) == ALL


@requirement("merged:names:separator-and-aliases")
async def test_a_tool_with_an_alias_has_no_other_name_at_mcp_and_its_own_at_its_server() -> None:
    tools = ServerTools(aliases={"count": "tally"})
    async with several("one", behind("two", tools=tools), separator="-") as running:
        client = await running.connected()
        found = await listed(client)
        assert "tally" in found
        assert "two-count" not in found
        assert {"one-count", "two-echo"} <= set(found)
        assert await client.tool_text("tally") == "1"
        assert running.executed("count") == {"one": 0, "two": 1}
        refused = await client.ask(client.tool("two-count"))
        assert refused["error"]["code"] == -32602
        assert "count" in await listed(running.client(), "/mcp/two")


@requirement("merged:names:unknown")
@pytest.mark.parametrize("name", ["", "count", "__count", "three__count", "one", "one_count", None, 7, {}, "o" * 64])
async def test_a_name_that_leads_nowhere_is_refused_and_reaches_no_server(name: Any) -> None:
    async with several("one", "two") as running:
        client = running.client()
        for method in ("tools/call", "prompts/get"):
            answer = await client.ask(client.call(method, name=name))
            assert answer["error"]["code"] == -32602
        assert running.executed() == {"one": 0, "two": 0}


@requirement("merged:names:cut")
async def test_names_that_are_too_long_are_cut_and_can_be_called_before_any_list_was_fetched() -> None:
    async with several(LONG, "two") as running:
        client = await running.connected()
        found = [name for name in await listed(client) if not name.startswith("two__")]
        assert len(set(found)) == len(ALL)
        assert max(map(len, found)) == 64
        prompts = names(await client.ask(client.call("prompts/list")), "prompts")
    short = dict(zip(ALL, found, strict=True))
    async with several(LONG, "two") as running:
        client = await running.connected()
        assert await client.tool_text(short["count"]) == "1"
        assert running.executed("count") == {LONG: 1, "two": 0}
        greeting = await client.ask(client.call("prompts/get", name=prompts[0], arguments={"name": "Ada"}))
        assert greeting["result"]["messages"][0]["content"]["text"] == "Greet Ada."
    async with several(LONG, "two") as running:
        client = running.client()
        ref = {"type": "ref/prompt", "name": prompts[0]}
        body = client.call("completion/complete", ref=ref, argument={"name": "name", "value": "Al"})
        assert (await client.ask(body))["result"]["completion"]["values"] == ["Alan", "Alonzo"]
        nothing = await client.ask(client.tool(short["count"][:-8] + "00000000"))
        assert nothing["error"]["code"] == -32602


# What comes back while a call runs.


def without_status(messages: list[Any]) -> list[Any]:
    """What servers said, without what the gateway says of a call that waits."""

    def is_status(message: Any) -> bool:
        params = message.get("params", {})
        return bool(params.get("logger") == "holdfast" or 0 < params.get("progress", 0) < 0.01)

    return [message for message in messages if not is_status(message)]


@requirement("merged:calls:reach-the-right-caller")
async def test_progress_and_logs_of_calls_to_several_servers_reach_their_own_callers() -> None:
    async with several("one", "two") as running:
        clients = [await running.connected() for _ in range(3)]

        async def use(client: Client, server: str) -> None:
            steps = progressing(client.tool(f"{server}__progress", steps=3), f"t-{server}")
            heard = without_status(await client.events(steps))
            assert [m["params"]["progress"] for m in heard[:-1] if m["method"] == "notifications/progress"] == [1, 2, 3]
            assert {m["params"]["progressToken"] for m in heard[:-1]} == {f"t-{server}"}
            told = client.tool(f"{server}__log", level="info", message=f"{server} {id(client)}")
            said = without_status(await client.events(told))
            assert [m["params"]["data"] for m in said[:-1]] == [f"{server} {id(client)}"]

        async with asyncio.TaskGroup() as group:
            for client in clients:
                for server in ("one", "two"):
                    group.create_task(use(client, server))


@requirement("merged:calls:reach-the-right-caller")
@pytest.mark.parametrize(
    ("tool", "arguments", "method", "reply"),
    [
        ("ask", {"message": "Sure?"}, "elicitation/create", {"action": "accept", "content": {"answer": "yes"}}),
        ("sample", {"prompt": "Hm?"}, "sampling/createMessage", {"role": "assistant", "content": {}, "model": "m"}),
        ("roots", {}, "roots/list", {"roots": []}),
    ],
)
async def test_questions_of_two_servers_are_each_answered_by_whom_they_are_for(
    tool: str, arguments: dict[str, Any], method: str, reply: dict[str, Any]
) -> None:
    able: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
    async with several("one", "two") as running:
        clients = [await running.connected(capabilities=able) for _ in range(2)]

        async def use(client: Client, server: str) -> None:
            mark = f"{server}-{clients.index(client)}"
            async with client.request("POST", client.tool(f"{server}__{tool}", **arguments)) as response:
                question = await next_message(response)
                assert question["method"] == method
                await client.reply(question, **reply, mark=mark)
                assert mark in text_of(await next_message(response))

        async with asyncio.TaskGroup() as group:
            for client in clients:
                for server in ("one", "two"):
                    group.create_task(use(client, server))


@requirement("merged:calls:cancelled")
async def test_a_cancelled_call_is_cancelled_at_its_server_and_gets_no_answer() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        body = client.tool("two__slow", gate="g")

        async def run() -> int:
            return await client.post(body)

        async with asyncio.TaskGroup() as group:
            status = group.create_task(run())
            await running.upstreams["two"].entered("g")
            await client.notify("notifications/cancelled", requestId=body["id"])
        assert status.result() == 202
        two = running.upstreams["two"]
        await two.until(lambda: two.calls("slow")[0].outcome == "cancelled")


@requirement("merged:calls:chats-stay-apart")
async def test_two_users_and_their_chats_have_sessions_of_their_own_with_every_server() -> None:
    async with several("one", "two", behind("own", scope="user"), behind("all", scope="shared"), clients=CHATS) as run:
        client = run.client()
        counts: dict[str, list[str]] = {}
        for server in ("one", "two", "own", "all"):
            counts[server] = [
                text_of(await client.ask(client.tool(f"{server}__count"), x_user=user, x_chat=chat))
                for user, chat in (("ann", "1"), ("ann", "2"), ("bob", "1"), ("ann", "1"))
            ]
        assert counts["one"] == counts["two"] == ["1", "1", "1", "2"]
        assert counts["own"] == ["1", "2", "1", "3"]
        assert counts["all"] == ["1", "2", "3", "4"]
        mine = await run.client(x_user="ann", x_chat="1").tool_text("count", "/mcp/one")
        assert mine == "3", "a chat is the same at /mcp and at the server's own path"


@requirement("merged:calls:chats-stay-apart")
async def test_without_a_session_and_a_chat_every_request_is_alone_and_an_array_is_one() -> None:
    async with several("one", "two") as running:
        client = running.client()
        assert [await client.tool_text("one__count") for _ in range(2)] == ["1", "1"]
        calls = [client.tool(f"{server}__count") for server in ("one", "two", "one", "two")]
        answers = {answer["id"]: text_of(answer) for answer in await client.ask(calls)}
        assert sorted(answers[call["id"]] for call in calls[::2]) == ["1", "2"]
        assert sorted(answers[call["id"]] for call in calls[1::2]) == ["1", "2"]
        refused = await client.ask(client.call("resources/subscribe", uri=NOTE))
        assert refused["error"]["code"] == -32600
        assert (await client.ask(client.call("logging/setLevel", level="error")))["result"] == {}


# Prompts, completion, resources.


@requirement("merged:lists:prompts-and-completion")
async def test_prompts_are_prefixed_got_and_completed() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        assert names(await client.ask(client.call("prompts/list")), "prompts") == ["one__greet", "two__greet"]
        got = await client.ask(client.call("prompts/get", name="two__greet", arguments={"name": "Grace"}))
        assert got["result"]["messages"][0]["content"]["text"] == "Greet Grace."
        body = client.call(
            "completion/complete",
            ref={"type": "ref/prompt", "name": "two__greet"},
            argument={"name": "name", "value": "Al"},
        )
        assert (await client.ask(body))["result"]["completion"]["values"] == ["Alan", "Alonzo"]
        for ref in ({"type": "ref/prompt", "name": "greet"}, {"type": "ref/prompt"}, None, 7, {"type": "ref/other"}):
            argument = {"name": "name", "value": "A"}
            unknown = await client.ask(client.call("completion/complete", ref=ref, argument=argument))
            assert unknown["error"]["code"] == -32602
        asked = [e for e in running.upstreams["one"].ledger if e.method in {"prompts/get", "completion/complete"}]
        assert asked == []


@requirement("merged:resources:marked")
async def test_a_uri_that_two_servers_list_is_marked_for_the_second_and_both_can_be_read() -> None:
    async with several("one", "two_2") as running:
        client = await running.connected()
        uris = names(await client.ask(client.call("resources/list")), "resources")
        assert [uri for uri in uris if NOTE in uri] == [NOTE, f"two.2+{NOTE}"]
        templates = names(await client.ask(client.call("resources/templates/list")), "resourceTemplates")
        assert templates == ["memo://item/{id}", "two.2+memo://item/{id}"]
        await client.tool_text("two_2__change_resource", text="the second")
        for uri, text in {
            NOTE: "empty",
            f"two.2+{NOTE}": "the second",
            f"TWO.2+{NOTE}": "the second",
            f"one+{NOTE}": "empty",
            "memo://item/3": "item 3",
            "two.2+memo://item/4": "item 4",
        }.items():
            (content,) = (await client.ask(client.call("resources/read", uri=uri)))["result"]["contents"]
            assert content["uri"] == uri
            assert content["text"] == text or text == "empty"
        body = client.call(
            "completion/complete",
            ref={"type": "ref/resource", "uri": "two.2+memo://item/{id}"},
            argument={"name": "id", "value": "20"},
        )
        assert (await client.ask(body))["result"]["completion"]["values"] == ["20"]
        read = [e.args["uri"] for e in running.upstreams["two_2"].ledger if e.method == "resources/read"]
        assert read == [NOTE, NOTE, "memo://item/4"]


@requirement("merged:resources:marked")
async def test_a_resource_is_found_without_a_list_and_an_unknown_one_is_asked_of_nobody() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        read = await client.ask(client.call("resources/read", uri=f"two+{NOTE}"))
        assert "result" in read
        assert "result" in await client.ask(client.call("resources/read", uri=NOTE))
        for uri in ("other://thing", "", None, 7):
            unknown = await client.ask(client.call("resources/read", uri=uri))
            assert unknown["error"]["code"] == -32002
        read_at = [e.args for up in running.upstreams.values() for e in up.ledger if e.method == "resources/read"]
        assert read_at == [{"uri": NOTE}, {"uri": NOTE}]


@requirement("merged:resources:subscriptions")
async def test_an_update_comes_with_the_uri_by_which_the_client_subscribed() -> None:
    async with several("one", "two") as running:
        client, other = await running.connected(), await running.connected()
        await client.ask(client.call("resources/list"))
        async with push_stream(running, client) as stream:
            for uri in (NOTE, f"two+{NOTE}"):
                assert (await client.ask(client.call("resources/subscribe", uri=uri)))["result"] == {}
            await client.tool_text("two__change_resource", text="2")
            assert (await until_said(stream, "notifications/resources/updated"))["uri"] == f"two+{NOTE}"
            await client.tool_text("one__change_resource", text="1")
            assert (await until_said(stream, "notifications/resources/updated"))["uri"] == NOTE
            assert (await client.ask(client.call("resources/unsubscribe", uri=f"two+{NOTE}")))["result"] == {}
            assert all(s.subscriptions == set() for s in running.upstreams["two"].sessions.values())
            await client.tool_text("two__change_resource", text="unheard")
            await client.tool_text("one__change_resource", text="heard")
            assert (await until_said(stream, "notifications/resources/updated"))["uri"] == NOTE
        assert other.headers != client.headers


@requirement("merged:resources:subscriptions")
async def test_what_a_client_calls_a_resource_is_known_for_as_long_as_it_hears_of_it() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        await client.ask(client.call("resources/list"))

        async def about(method: str, chat: str) -> None:
            call = with_meta(client.call(method, uri=f"two+{NOTE}"), **{"dev.holdfast/chat": chat})
            assert (await client.ask(call))["result"] == {}

        branch = running.merged.branch(running.session_of(client), running.merged.members["two"])
        for chat in ("a", "b"):
            await about("resources/subscribe", chat)
        await about("resources/unsubscribe", "a")
        assert branch.public_uris == {NOTE: f"two+{NOTE}"}, "the other chat still hears of it"
        await about("resources/unsubscribe", "b")
        assert branch.public_uris == {}


@requirement("merged:resources:subscriptions")
async def test_a_subscription_that_is_refused_leaves_nothing() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        refused = await client.ask(client.call("resources/subscribe", uri="two+memo://item/77"))
        assert refused["error"]["code"] == -32002
        unknown = await client.ask(client.call("resources/subscribe", uri="other://thing"))
        assert unknown["error"]["code"] == -32002


# What belongs to no call.


@requirement("merged:lists:changes")
async def test_a_change_at_any_server_is_told_and_the_next_list_has_it() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        await client.tool_text("two__count")
        await running.upstreams["two"].pushing()
        async with push_stream(running, client) as stream:
            changer = await running.connected()
            assert await changer.tool_text("two__change_tools") == "added"
            await until_said(stream, "notifications/tools/list_changed")
            await running.until_idle()
            assert "two__extra" in await listed(client)
            assert "one__extra" not in await listed(client)


@requirement("merged:logs:level")
async def test_a_log_level_counts_at_every_server_also_in_sessions_that_open_later() -> None:
    async with several("one", "two") as running:
        client = await running.connected()
        await client.tool_text("one__count")
        assert (await client.ask(client.call("logging/setLevel", level="error")))["result"] == {}
        await client.tool_text("two__count")
        quiet = await client.ask(client.tool("one__log", level="info", message="hush"))
        assert text_of(quiet) == "below the level"
        assert text_of(await client.ask(client.tool("two__log", level="info", message="hush"))) == "below the level"
        loud = await client.events(client.tool("two__log", level="error", message="loud"))
        assert loud[0]["params"]["data"] == "loud"
        bad = await client.ask(client.call("logging/setLevel", level="shout"))
        assert bad["error"]["code"] == -32602


@requirement("merged:introduction:names-everybody")
async def test_the_introduction_holds_the_words_of_every_server_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.servers.introduction.PATIENCE", 60.0)  # a busy machine may take longer than a client
    async with several("one", behind("down", is_up=False), "two") as running:
        await running.told.failed("down")
        client = running.client()
        hello = await client.open()
        assert hello["serverInfo"]["name"] == "holdfast"
        assert hello["capabilities"]["resources"] == {"listChanged": True, "subscribe": True}
        heads = [line for line in hello["instructions"].splitlines() if line.startswith("## ")]
        assert heads == ["## one", "## down", "## two"]
        assert "begin with two__" in hello["instructions"]
        assert "down could not be reached" in hello["instructions"] or "refused" in hello["instructions"]


# Servers that are down, or slow.


@requirement("merged:lists:unavailable")
async def test_a_server_that_is_down_leaves_the_others_listed_with_a_note() -> None:
    async with several("one", behind("down", is_up=False)) as running:
        await running.told.failed("down")
        client = await running.connected()
        answer = await client.ask(client.call("tools/list"))
        assert names(answer) == [f"one__{tool}" for tool in ALL]
        note = answer["result"]["_meta"]["dev.holdfast/unavailable"]
        assert note.keys() == {"down"}
        assert note["down"]
        call = await client.ask(client.tool("down__count"))
        assert call["error"]["code"] == -31001
        assert call["error"]["data"]["holdfast"]["upstream"] == "down"
        async with push_stream(running, client) as stream:
            await client.ask(client.call("tools/list"))
            await running.upstreams["down"].start()
            await until_said(stream, "notifications/tools/list_changed")
            await running.told.learnt("down")
            back = await client.ask(client.call("tools/list"))
            assert "down__count" in names(back)
            assert "_meta" not in back["result"]


@requirement("merged:lists:unavailable")
async def test_a_slow_server_is_waited_for_with_patience_and_its_tools_follow() -> None:
    async with with_a_slow_one() as (running, client, slow), push_stream(running, client) as stream:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(client.ask(client.call("tools/list")))
            await running.until(lambda: bool(running.session_of(client).calls))
            await running.clock.advance_settled(4.9)
            assert not asked.done()
            await running.clock.advance_settled(0.2)
        assert names(asked.result()) == [f"one__{tool}" for tool in ALL]
        assert asked.result()["result"]["_meta"]["dev.holdfast/unavailable"].keys() == {"slow"}
        await slow.advance_settled(20)
        await until_said(stream, "notifications/tools/list_changed")
        await running.told.learnt("slow")
        assert "slow__count" in await listed(client)


@requirement("merged:lists:unavailable")
async def test_only_who_missed_a_server_is_told_that_it_came() -> None:
    async with several("one", behind("down", is_up=False)) as running:
        await running.told.failed("down")
        client, other = await running.connected(), await running.connected()
        await client.ask(client.call("tools/list"))
        async with push_stream(running, other) as stream, push_stream(running, client) as told:
            await running.upstreams["down"].start()
            await until_said(told, "notifications/tools/list_changed")
            running.push(other, 1)
            assert (await next_message(stream))["method"] == "test/event"


@requirement("merged:calls:cancelled")
async def test_a_list_that_is_cancelled_while_it_waits_gets_no_answer_and_leaves_nothing() -> None:
    async with with_a_slow_one() as (running, client, _):
        body = client.call("tools/list")
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(client.post(body))
            await running.until(lambda: bool(running.session_of(client).calls))
            await client.notify("notifications/cancelled", requestId=body["id"])
        assert asked.result() == 202
        assert running.session_of(client).calls == {}


# Pages.


@requirement("merged:lists:pages")
async def test_a_list_comes_in_pages_whose_cursors_stay_valid_when_the_list_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joint, "PAGE", 5)
    async with several("one", "two") as running:
        client = await running.connected()
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await client.ask(client.call("tools/list", **cursor))
            found += names(answer)
            if "nextCursor" not in answer["result"]:
                break
            cursor = {"cursor": answer["result"]["nextCursor"]}
            if len(found) == 5:
                await client.tool_text("one__change_tools")
                await running.until_idle()
        assert found == [*(f"one__{tool}" for tool in TOOLS), *(f"two__{tool}" for tool in ALL)]
        odd: list[Any] = ["", "x", "!", "ä", "b25lX19ub3BlCg==", 7, {}, [], True]
        for nonsense in odd:
            refused = await client.ask(client.call("tools/list", cursor=nonsense))
            assert refused["error"]["code"] == -32602


@requirement("merged:lists:pages")
async def test_the_pages_of_a_server_are_followed_to_the_end() -> None:
    paged = Behind("two", options={"page_size": 3})
    async with several("one", paged) as running:
        assert await listed(running.client()) == [f"{s}__{tool}" for s in ("one", "two") for tool in ALL]


# Who may see what.


def seeing(name: str, servers: dict[str, ToolRules] | None) -> ClientSettings:
    return ClientSettings(name=name, key_digests=(key_digest(name),), servers=servers)


WHO: Final = {
    "all": None,
    "some": {"one": ToolRules(allow=("co*", "echo")), "two": ToolRules(deny=("c*",))},
    "single": {"two": ToolRules()},
}
HIDDEN: Final = {
    "all": {"one": {"crash"}, "two": set[str](), LONG: set[str]()},
    "some": {
        "one": {t for t in ALL if t not in {"count", "echo"}},
        "two": {t for t in ALL if t.startswith("c")},
        LONG: set(ALL),
    },
    "single": {"one": set(ALL), "two": set[str](), LONG: set(ALL)},
}
"""By client and server, the tools that must not exist."""


@row(14)
@requirement("merged:access:hidden-tools")
async def test_no_caller_can_call_what_it_does_not_see_by_any_name_or_path(figure: Figure) -> None:
    """A tool that is called by mistake would be in the server's ledger; those that end servers are among them."""
    clients = tuple(seeing(name, servers) for name, servers in WHO.items())
    one = behind("one", tools=ServerTools(deny=("crash",), aliases={"count": "tally"}))
    tried = 0
    async with several(one, "two", LONG, clients=clients) as running:
        every = running.client(authorization="Bearer all")
        public: dict[tuple[str, str], str] = {}
        for server in ("one", "two", LONG):
            own = await listed(every, f"/mcp/{server}")
            start = {"one": "one__", "two": "two__"}.get(server)
            rest = [n for n in await listed(every) if n.startswith(LONG[:40])] if start is None else None
            for number, tool in enumerate(own):
                public[server, tool] = rest[number] if rest is not None else f"{start}{tool}"
        public["one", "count"], public["one", "crash"] = "tally", "one__crash"
        for name, hidden in HIDDEN.items():
            client = running.client(authorization=f"Bearer {name}")
            has_session = running.client(authorization=f"Bearer {name}")
            await has_session.open()
            gone = {public[server, tool] for server, tools in hidden.items() for tool in tools}
            assert set(await listed(client)) == set(public.values()) - gone
            for server, tools in hidden.items():
                is_seen = len(tools) < len(ALL)
                if is_seen:
                    assert set(await listed(client, f"/mcp/{server}")) == set(ALL) - tools
                for tool in tools:
                    for caller in (client, has_session):
                        for call in (public[server, tool], f"{server}__{tool}", tool):
                            answer = await caller.ask(caller.tool(call))
                            assert answer["error"]["code"] == -32602, (name, call)
                            assert call in answer["error"]["message"]
                            tried += 1
                    at_server = client.request("POST", client.tool(tool), f"/mcp/{server}")
                    async with at_server as response:
                        assert response.status == (200 if is_seen else 404)
                        body = await response.json()
                        assert body["error"]["code"] == (-32602 if is_seen else -32600)
                    tried += 1
        assert running.executed() == {"one": 0, "two": 0, LONG: 0}
        figure(f"0 executions of hidden tools in {tried} calls")


@requirement("merged:access:hidden-servers")
async def test_a_server_that_a_client_may_not_see_does_not_exist_for_it() -> None:
    clients = (seeing("all", None), seeing("one", {"one": ToolRules()}))
    async with several("one", behind("secret", is_up=False), clients=clients) as running:
        await running.told.failed("secret")
        client = running.client(authorization="Bearer one")
        hello = await client.open()
        assert "secret" not in hello["instructions"]
        for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
            answer = await client.ask(client.call(method))
            assert "secret" not in str(answer)
            assert "_meta" not in answer["result"]
        assert (await client.ask(client.call("resources/read", uri=f"secret+{NOTE}")))["error"]["code"] == -32002
        refusals: list[tuple[int, bytes]] = []
        for path in ("/mcp/secret", "/mcp/nothing", "/mcp/secret/chats/1", "/mcp/nothing/chats/1"):
            async with running.client(authorization="Bearer one").request("GET", None, path) as response:
                refusals.append((response.status, await response.body()))
        assert len(set(refusals)) == 1
        assert refusals[0][0] == 404
        async with push_stream(running, client) as stream:
            await running.upstreams["secret"].start()
            await running.told.learnt("secret")
            running.push(client, 1)
            assert (await next_message(stream))["method"] == "test/event"


# Lists that are a session's own, and headers that are a caller's.


@requirement("merged:lists:scopes")
async def test_servers_with_lists_of_their_own_and_common_ones_are_listed_together() -> None:
    own = behind("own", lists="session")
    async with several(own, behind("all", scope="shared"), behind("user", scope="user"), "chat", clients=CHATS) as run:
        client = run.client(x_user="ann", x_chat="1")
        await client.open()
        found = await listed(client)
        assert found == [f"{server}__{tool}" for server in ("own", "all", "user", "chat") for tool in ALL]
        assert await listed(run.client()) == found, "who names nobody has a session of its own for it"
        await client.tool_text("own__change_tools")
        assert "own__extra" in await listed(client)


@row(12)
@requirement("merged:access:passed-headers")
async def test_only_the_allowed_headers_go_on_and_callers_whose_values_differ_never_share(figure: Figure) -> None:
    passing = behind("passing", pass_headers=("X-Tenant", "X-Region"), scope="user")
    host = ClientSettings(name="host", key_digests=(key_digest("canary-key"),))
    async with several(passing, "plain", clients=(host,)) as running:
        sent = 0
        for tenant in ("canary-a", "canary-b"):
            for path, tool in (("/mcp", "passing__count"), ("/mcp/passing", "count")):
                for number in ("1", "2") if path == "/mcp" else ("3",):
                    client = running.client(authorization="Bearer canary-key", cookie="canary-cookie")
                    headers = {"x_tenant": tenant, "x_region": "canary-r", "x_other": "canary-other"}
                    answer = await client.ask(client.tool(tool), path, **headers)
                    assert text_of(answer) == number, "one session for each tenant, at both paths"
                    assert text_of(await client.ask(client.tool("plain__count"), **headers)) == "1"
                    sent += 2
        seen = {name: running.upstreams[name].received_headers for name in ("passing", "plain")}
        assert {h.get("x-tenant") for h in seen["passing"] if h.get("x-tenant")} == {"canary-a", "canary-b"}
        assert running.upstreams["passing"].initializes >= 2
        for name, requests in seen.items():
            allowed = {"x-tenant", "x-region"} if name == "passing" else set[str]()
            leaked = {key for h in requests for key, value in h.items() if "canary" in value} - allowed
            assert leaked == set()
            assert not any({"authorization", "cookie"} & h.keys() for h in requests)
        figure(f"0 canaries in {sum(map(len, seen.values()))} requests upstream for {sent} calls")


@requirement("merged:access:passed-headers")
@pytest.mark.parametrize("value", ["Zo\u00eb".encode(), b"Zo\xeb", b"plain"], ids=["utf-8", "latin-1", "ascii"])
async def test_a_header_goes_on_byte_for_byte(value: bytes) -> None:
    async with several(behind("passing", pass_headers=("x-name",)), "plain") as running:
        client = running.client()
        body = json.dumps(client.tool("count")).encode()
        head = b"POST /mcp/passing HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        async with client.raw(
            head + b"accept: application/json\r\nx-name: " + value + b"\r\n" + length + body
        ) as answer:
            assert answer.status == 200
        received = {headers.get("x-name") for headers in running.upstreams["passing"].received_headers}
        assert received == {value.decode("latin-1")}


# Rates.


@requirement("merged:rates:users")
async def test_a_user_who_sends_too_much_is_told_when_to_go_on_and_nobody_else_is() -> None:
    host = ClientSettings(name="host", key_digests=(key_digest("host"),), trust=TRUST_PRESETS["openwebui"])
    plain = ClientSettings(name="plain", key_digests=(key_digest("plain"),))
    clock = ManualClock()
    limits = {"user_rate": 0.5}
    async with several("one", "two", clock=clock, clients=(host, plain), limits=limits) as running:
        client, other = running.client(authorization="Bearer host"), running.client(authorization="Bearer plain")
        ann, bob = {"x_openwebui_user_id": "ann"}, {"x_openwebui_user_id": "bob"}
        for _ in range(5):
            assert await client.post(client.call("ping"), **ann) == 200
        async with client.request("POST", client.call("ping"), "/mcp", **ann) as refused:
            assert refused.status == 429
            assert refused.headers["retry-after"] == "2"
            assert (await refused.json())["error"]["code"] == -32600
        assert await client.post(client.call("ping"), **bob) == 200
        assert await client.post([client.call("ping") for _ in range(4)], **bob) == 200
        assert await client.post(client.call("ping"), **bob) == 429, "an array counts each of its messages"
        for _ in range(20):
            assert await other.post(other.call("ping")) == 200
            assert await client.post(client.call("ping")) == 200, "no user is named"
        clock.advance(2)
        assert await client.post(client.call("ping"), **ann) == 200


# Status lines.


@requirement("exchange:status:when-it-lasts")
@pytest.mark.parametrize("level", [None, "error"])
async def test_a_call_that_waits_says_so_in_logs_and_progress_that_the_servers_own_follows(level: str | None) -> None:
    clock, server_clock = ManualClock(), ManualClock()
    slow = behind("slow", delay=3, clock=server_clock, start="lazy")
    async with several("one", slow, clock=clock) as running:
        client = await running.connected()
        if level is not None:
            await client.ask(client.call("logging/setLevel", level=level))
        body = progressing(client.tool("slow__progress", steps=3))
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(client.events(body))
            await running.until(lambda: bool(running.session_of(client).calls))
            await clock.advance_settled(0.3)
            await server_clock.waited_on()
            await server_clock.advance_settled(3)
        heard = asked.result()
        logs = [m["params"] for m in heard[:-1] if m["method"] == "notifications/message"]
        steps = [m["params"] for m in heard[:-1] if m["method"] == "notifications/progress"]
        words = [each["data"]["status"] for each in logs]
        assert words == ([] if level == "error" else ["connecting", "ready"])
        values = [each["progress"] for each in steps]
        assert values == sorted(set(values))
        assert values[-3:] == [1, 2, 3]
        assert steps[0]["message"] == "Connecting to slow."
        assert {each["progressToken"] for each in steps} == {7}


@requirement("exchange:status:when-it-lasts")
async def test_nothing_is_said_of_a_wait_that_is_short_or_to_who_takes_json_only() -> None:
    clock, server_clock = ManualClock(), ManualClock()
    slow = behind("slow", delay=3, clock=server_clock, start="lazy")
    async with several("one", slow, clock=clock) as running:
        client = await running.connected()
        for accept, wait in (("application/json", 3.0), (None, 0.2)):
            headers = {} if accept is None else {"accept": accept}
            body = progressing(client.tool("slow__count"))
            if accept is None:
                body = with_meta(body, **{"progressToken": 7, "dev.holdfast/chat": "another"})
            async with asyncio.TaskGroup() as group:

                async def run(body: Any = body, headers: Any = headers) -> str:
                    async with client.request("POST", body, "/mcp", **headers) as response:
                        assert response.headers["content-type"] == "application/json"
                        return text_of(await response.json())

                asked = group.create_task(run())
                await server_clock.waited_on()
                await clock.advance_settled(wait)
                await server_clock.advance_settled(3)
            assert asked.result() == "1"


# New settings.


@requirement("merged:reload:goes-on")
async def test_a_server_that_is_replaced_keeps_its_subscribers_and_who_sees_it_hears_of_it() -> None:
    clients = (seeing("all", None), seeing("one", {"one": ToolRules()}))
    async with several("one", "two", clients=clients) as running:
        client, other = running.client(authorization="Bearer all"), running.client(authorization="Bearer one")
        await client.open()
        await other.open()
        await client.ask(client.call("resources/list"))
        assert (await client.ask(client.call("resources/subscribe", uri=f"two+{NOTE}")))["result"] == {}
        settings = running.gateway.settings
        one, two = settings.servers
        another = two.model_copy(update={"headers": {"x-edition": SecretStr("2")}})
        async with push_stream(running, client) as stream, push_stream(running, other) as beside:
            running.gateway.reload(settings.model_copy(update={"servers": (one, another)}))
            await until_said(stream, "notifications/tools/list_changed")
            running.push(other, 1)
            assert (await next_message(beside))["method"] == "test/event", "nothing that it sees has changed"
            assert await client.tool_text("two__change_resource", text="2") == "changed"
            assert (await until_said(stream, "notifications/resources/updated"))["uri"] == f"two+{NOTE}"
        assert any(h.get("x-edition") == "2" for h in running.upstreams["two"].received_headers)
        await running.until(lambda: len(running.upstreams["two"].sessions) <= 2)


@requirement("merged:reload:goes-on")
async def test_servers_that_come_and_go_and_other_names_are_heard_of_and_count_at_once() -> None:
    async with several("one", "two", "three") as running:
        settings = running.gateway.settings
        client = await running.connected()
        async with push_stream(running, client) as stream:
            for change, names_now in (
                ({"servers": settings.servers[:2]}, {"one__", "two__"}),
                ({"servers": settings.servers}, {"one__", "two__", "three__"}),
                ({"separator": "--"}, {"one--", "two--", "three--"}),
            ):
                running.gateway.reload(settings.model_copy(update=change))
                await until_said(stream, "notifications/resources/list_changed")
                assert {
                    name.removesuffix("echo") for name in await listed(client) if name.endswith("echo")
                } == names_now
        assert await client.tool_text("three--count") == "1"
        assert (await client.ask(client.tool("three__count")))["error"]["code"] == -32602
