"""Whatever the two sides say to each other arrives as it was said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from requirements import requirement
from rig import INITIALIZED, Client, next_message, read_all, rig, text_of
from rows import row

NOTE = "memo://note"


def said(answer: Any) -> Any:
    return json.loads(text_of(answer))


@row(2)
@requirement("exchange:relay:ids-and-tokens")
@pytest.mark.parametrize("value", [1, "1", 1.0, 0, -7, 2**53, "", "é\n\u2028", 1.5])
async def test_request_ids_and_progress_tokens_come_back_with_their_type(value: Any) -> None:
    async with rig() as running:
        for client in (await running.connected(), running.client()):
            call = client.tool("progress", steps=2)
            call["id"] = value
            call["params"]["_meta"] = {"progressToken": value}
            *updates, answer = await client.events(call)
            same: Any = (type(value), value)
            tokens = [u["params"]["progressToken"] for u in updates if u["method"] == "notifications/progress"]
            assert [(type(token), token) for token in tokens] == [same] * 2
            assert (type(answer["id"]), answer["id"]) == same
            failed = await client.ask({"jsonrpc": "2.0", "id": value, "method": "no/such"})
            assert (type(failed["id"]), failed["id"]) == same


@row(2)
@requirement("exchange:relay:ids-and-tokens")
async def test_equal_ids_and_tokens_of_different_clients_and_types_are_told_apart() -> None:
    async with rig() as running:
        clients = [await running.connected() for _ in range(3)] + [running.client()]
        values: list[Any] = [1, "1", 1.0]
        async with asyncio.TaskGroup() as group:
            waiting: list[tuple[Any, str, asyncio.Task[list[Any]]]] = []
            for number, client in enumerate(clients):
                for value in values:
                    gate = f"{number}-{type(value).__name__}"
                    call = client.tool("progress", steps=2, gate=gate, canary=gate)
                    call |= {"id": value}
                    call["params"]["_meta"] = {"progressToken": value}
                    waiting.append((value, gate, group.create_task(client.events(call))))
            for _, gate, _ in waiting:
                await running.upstream.entered(gate)
            for value, gate, task in reversed(waiting):
                running.upstream.open_gate(gate)
                *messages, answer = await task
                steps = [m["params"] for m in messages if m["method"] == "notifications/progress"]
                own = [step for step in steps if step["message"].startswith("step")]  # of a slow start we tell as well
                values_back = [step["progressToken"] for step in own] + [answer["id"]]
                assert [(type(v), v) for v in values_back] == [(type(value), value)] * 3


@requirement("exchange:relay:untouched")
async def test_unknown_methods_fields_and_notifications_pass_unharmed() -> None:
    async with rig() as running:
        client = await running.connected()
        params = {"deep": [{"a": None, "b": [1, 2.5, "\u2028", "\r\n"]}], "big": 2**60, "_meta": {"x/y": {"z": 1}}}
        call = {**client.call("holdfast.test/echo"), "params": params, "unknown": True}
        assert (await client.ask(call))["result"] == params
        failed = await client.ask(client.call("no/such/method", a=1))
        assert failed["error"] == {"code": -32601, "message": "Method not found: no/such/method"}
        await client.notify("notifications/of/ours", a=[1], _meta={"k": 1, "dev.holdfast/chat": ""})
        await running.upstream.until(
            lambda: any(entry.method == "notifications/of/ours" for entry in running.upstream.ledger)
        )
        sent = [entry for entry in running.upstream.ledger if entry.method == "notifications/of/ours"]
        assert [entry.args for entry in sent] == [{"a": [1], "_meta": {"k": 1}}]
        *events, _ = await client.events(client.tool("emit", method="test/unknown", params={"deep": {"k": [None]}}))
        assert {"jsonrpc": "2.0", "method": "test/unknown", "params": {"deep": {"k": [None]}}} in events


@requirement("exchange:relay:untouched")
async def test_the_servers_own_errors_pass_untouched() -> None:
    async with rig() as running:
        for client in (await running.connected(), running.client()):
            unknown = await client.ask(client.tool("no-such-tool"))
            assert unknown["error"] == {"code": -32602, "message": "Unknown tool: no-such-tool"}
            failed = await client.ask(client.tool("fail", message="as tools do"))
            assert failed["result"] == {"content": [{"type": "text", "text": "as tools do"}], "isError": True}


@requirement("exchange:relay:meta")
async def test_meta_arrives_without_the_key_that_is_ours() -> None:
    async with rig() as running:
        for client in (await running.connected(), running.client()):
            call = client.tool("echo", a=1)
            call["params"]["_meta"] = {"dev.holdfast/chat": "c", "traceparent": "00-1", "other": {"x": [1]}}
            echoed = said(await client.ask(call))
            assert echoed == {"arguments": {"a": 1}, "_meta": {"traceparent": "00-1", "other": {"x": [1]}}}


@requirement("exchange:relay:logs")
async def test_each_client_gets_the_log_levels_it_asked_for_and_the_server_the_lowest() -> None:
    async with rig(scope="shared") as running:
        loud, calm, silent = [await running.connected() for _ in range(3)]
        assert await calm.ask(calm.call("logging/setLevel", level="error")) == {
            "jsonrpc": "2.0",
            "id": calm.next_id,
            "result": {},
        }
        (session,) = running.upstream.sessions.values()
        assert session.log_level == "error"
        await loud.ask(loud.call("logging/setLevel", level="debug"))
        assert session.log_level == "debug"
        for client, levels in ((loud, {"debug", "info", "error"}), (calm, {"error"}), (silent, {"info", "error"})):
            seen: set[str] = set()
            for level in ("debug", "info", "error"):
                async with client.request("POST", client.tool("log", level=level, message="m")) as response:
                    if response.headers["content-type"] == "text/event-stream":
                        seen |= {m["params"]["level"] for m in await read_all(response) if "params" in m}
            assert seen == levels
        await calm.ask(calm.call("logging/setLevel", level="critical"))
        assert session.log_level == "debug"
        bad = await loud.ask(loud.call("logging/setLevel", level="loud"))
        assert bad["error"]["code"] == -32602


@row(9)
@requirement("exchange:relay:cancel")
async def test_a_cancelled_call_is_cancelled_at_the_server_and_not_answered() -> None:
    async with rig() as running:
        client, other = await running.connected(), await running.connected()
        await client.tool_text("count")
        call = client.tool("slow", gate="g")
        async with client.request("POST", call, accept="text/event-stream") as response:
            await running.upstream.entered("g")
            await other.notify("notifications/cancelled", requestId=call["id"])
            await client.notify("notifications/cancelled", requestId=str(call["id"]))
            await client.notify("notifications/cancelled", requestId=[1])
            await client.notify("notifications/cancelled")
            assert running.upstream.calls("slow")[0].outcome == "running"
            await client.notify("notifications/cancelled", requestId=call["id"], reason="enough")
            assert await read_all(response) == []
        await running.upstream.until(lambda: running.upstream.calls("slow")[0].outcome == "cancelled")
        cancels = [e for e in running.upstream.ledger if e.method == "notifications/cancelled"]
        assert [cancel.args["reason"] for cancel in cancels] == ["enough"]
        assert await client.tool_text("count") == "2"


@requirement("exchange:relay:features")
async def test_ping_is_answered_without_the_server() -> None:
    async with rig() as running:
        client = await running.connected()
        assert (await client.ask(client.call("ping")))["result"] == {}
        assert [entry.method for entry in running.upstream.ledger if entry.method == "ping"] == []
        assert running.upstream.initializes == 1


@requirement("exchange:relay:features")
async def test_completion_prompts_resources_and_templates_work() -> None:
    async with rig() as running:
        for client in (await running.connected(), running.client()):
            completion = client.call(
                "completion/complete",
                ref={"type": "ref/prompt", "name": "greet"},
                argument={"name": "name", "value": "A"},
                context={"arguments": {}},
            )
            assert (await client.ask(completion))["result"]["completion"]["values"] == ["Ada", "Alan", "Alonzo"]
            prompt = await client.ask(client.call("prompts/get", name="greet", arguments={"name": "Ada"}))
            assert prompt["result"]["messages"][0]["content"]["text"] == "Greet Ada."
            note = await client.ask(client.call("resources/read", uri=NOTE))
            assert note["result"]["contents"][0]["text"] == "empty"
            templates = await client.ask(client.call("resources/templates/list"))
            assert templates["result"]["resourceTemplates"][0]["uriTemplate"] == "memo://item/{id}"
            missing = await client.ask(client.call("resources/read", uri="memo://nothing"))
            assert missing["error"]["code"] == -32002


@requirement("exchange:relay:features")
async def test_lists_come_in_the_pages_of_the_server() -> None:
    async with rig(options={"page_size": 4}) as running:
        for client in (await running.connected(), running.client()):
            names: list[str] = []
            cursor: dict[str, Any] = {}
            while True:
                page = (await client.ask(client.call("tools/list", **cursor)))["result"]
                names += [tool["name"] for tool in page["tools"]]
                assert len(page["tools"]) <= 4
                if "nextCursor" not in page:
                    break
                cursor = {"cursor": page["nextCursor"]}
            assert len(names) == len(set(names)) > 12
            bad = await client.ask(client.call("tools/list", cursor="nonsense"))
            assert bad["error"]["code"] == -32602


@requirement("exchange:relay:subscriptions")
async def test_a_resource_is_subscribed_once_and_until_the_last_client_lets_go() -> None:
    async with rig(scope="user") as running:
        first, second, third = [await running.connected() for _ in range(3)]
        for client in (first, second):
            assert (await client.ask(client.call("resources/subscribe", uri=NOTE)))["result"] == {}
        await running.upstream.pushing()
        (session,) = running.upstream.sessions.values()
        assert [entry.method for entry in running.upstream.ledger].count("resources/subscribe") == 1
        async with first.stream() as one, second.stream() as two, third.stream() as three:
            await third.tool_text("change_resource", text="new")
            for pushed in (one, two):
                message = await next_message(pushed)
                assert (message["method"], message["params"]) == ("notifications/resources/updated", {"uri": NOTE})
            assert (await first.ask(first.call("resources/unsubscribe", uri=NOTE)))["result"] == {}
            assert session.subscriptions == {NOTE}
            await third.tool_text("change_resource", text="newer")
            assert (await next_message(two))["method"] == "notifications/resources/updated"
            for client in (first, third):
                running.push(client, 1)  # nothing else came before it
            for pushed in (one, three):
                assert (await next_message(pushed))["method"] == "test/event"
        assert await second.delete() == 204
        await running.upstream.until(lambda: session.subscriptions == set())


@requirement("exchange:relay:list-changed")
async def test_all_clients_hear_that_a_list_changed_and_then_get_the_new_one() -> None:
    async with rig() as running:
        clients = [await running.connected() for _ in range(3)]
        actor: Client = clients[0]
        await actor.tool_text("count")
        await running.upstream.pushing()
        async with clients[1].stream() as one, clients[2].stream() as two:
            await actor.tool_text("change_tools")
            for pushed in (one, two):
                assert (await next_message(pushed))["method"] == "notifications/tools/list_changed"
        for client in (*clients, running.client()):
            tools = (await client.ask(client.call("tools/list")))["result"]["tools"]
            assert "extra" in {tool["name"] for tool in tools}


@requirement("exchange:relay:untouched")
async def test_initialized_goes_to_the_server_once_per_session_however_often_clients_say_it() -> None:
    async with rig() as running:
        client = await running.connected()
        await client.tool_text("count")
        assert await client.post(INITIALIZED) == 202
        ledger = running.upstream.ledger
        assert [entry.method for entry in ledger].count("notifications/initialized") == 1
