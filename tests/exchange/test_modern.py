"""Clients of revision 2026-07-28 in front of a server of the handshake era: requests that stand alone."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from holdfast.config import ClientSettings, ToolRules, Trust
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_core import RpcFailure
from holdfast.testing.server_tools import NOTE_URI, TOOLS, Tool, ToolCall, text_result
from modern_client import KEY, YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import TRANSPORTS, Transport, next_message, read_all, rig
from several import several

JSON = "application/json"


def raising(monkeypatch: pytest.MonkeyPatch, failure: RpcFailure) -> None:
    """Let the server have a tool `refuse` that answers with this error."""

    async def refuse(_call: ToolCall) -> dict[str, Any]:
        raise failure

    monkeypatch.setitem(TOOLS, "refuse", Tool(refuse, {"name": "refuse", "inputSchema": {"type": "object"}}))


@requirement("modern:discover:says-what-initialize-says")
async def test_discover_says_what_the_server_said_when_it_was_initialized() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        hello = await running.client().open()
        result = await client.result(client.message("server/discover"))
        assert result["supportedVersions"][0] == "2026-07-28"
        assert "2025-11-25" in result["supportedVersions"]
        of_the_handshake = {"tasks"}
        assert result["capabilities"] == {k: v for k, v in hello["capabilities"].items() if k not in of_the_handshake}
        assert result["instructions"] == hello["instructions"]
        assert result["_meta"][KEY + "serverInfo"] == hello["serverInfo"]
        assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
        assert running.upstream.initializes == 1, "discovering opens no session"


@requirement("modern:discover:says-what-initialize-says")
async def test_discover_waits_for_a_server_that_is_not_there_and_says_why() -> None:
    async with rig(is_learnt=False, start="lazy", restarts=True) as running:
        client = ModernClient(running)
        result = await client.result(client.message("server/discover"))
        assert "tools" in result["capabilities"]
        await running.upstream.stop()
        assert (await client.result(client.message("server/discover")))["resultType"] == "complete"
        await running.upstream.start()


@requirement("modern:lists:from-the-catalogue")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_lists_and_reads_are_complete_and_say_that_nothing_may_be_kept(transport: Transport) -> None:
    async with rig(transport) as running:
        client = ModernClient(running, chat="c")
        for method, field in (
            ("tools/list", "tools"),
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
        ):
            result = await client.result(client.message(method))
            assert isinstance(result[field], list)
            assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
            assert result["_meta"][KEY + "serverInfo"]["name"] == "holdfast-test-server"
        read = await client.result(client.message("resources/read", uri=NOTE_URI))
        assert read["contents"][0]["uri"] == NOTE_URI
        assert (read["ttlMs"], read["cacheScope"]) == (0, "private")
        got = await client.result(client.message("prompts/get", name="greet", arguments={"name": "Ann"}))
        assert got["resultType"] == "complete"
        assert "ttlMs" not in got


@requirement("modern:calls:envelope")
async def test_the_envelope_goes_no_further_and_what_is_not_of_it_goes_on() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        meta = {"traceparent": "00-1", "com.example/kept": [1], KEY + "logLevel": "info", "progressToken": "p"}
        echoed = json.loads(text_in(await client.result(client.tool("echo", meta, text="hi"))))
        assert echoed["arguments"] == {"text": "hi"}
        token = echoed["_meta"].pop("progressToken")
        assert isinstance(token, int)
        assert echoed["_meta"] == {"traceparent": "00-1", "com.example/kept": [1]}
        received = running.upstream.received_headers
        opening = {"server/discover", "initialize"}
        for headers in (headers for headers in received if headers.get("mcp-method") not in opening):
            assert "mcp-method" not in headers
            assert headers.get("mcp-protocol-version", "2025-11-25") == "2025-11-25"


@requirement("modern:calls:conversation")
async def test_a_conversation_is_named_by_header_meta_or_path_and_else_lasts_for_one_call() -> None:
    trusting = ClientSettings(name="local", trust=Trust(chat="x-chat"))
    async with rig(clients=(trusting,)) as running:

        async def count(client: ModernClient, **headers: str) -> str:
            return text_in(await client.result(client.tool("count"), **headers))

        unnamed = ModernClient(running)
        assert [await count(unnamed) for _ in range(2)] == ["1", "1"]
        named = ModernClient(running, chat="a")
        assert [await count(named) for _ in range(2)] == ["1", "2"]
        assert await count(ModernClient(running, path="/mcp/memory/chats/a")) == "3"
        assert await count(unnamed, x_chat="a") == "4"
        assert await count(unnamed, x_chat="b") == "1"
        assert await count(unnamed, mcp_session_id="stray") == "1"


@requirement("modern:calls:conversation")
async def test_a_chat_has_one_session_whichever_era_its_clients_are_of() -> None:
    async with rig() as running:
        modern, handshake = ModernClient(running, chat="a"), await running.connected()
        assert text_in(await modern.result(modern.tool("count"))) == "1"
        call = handshake.call("tools/call", name="count", arguments={}, _meta={"dev.holdfast/chat": "a"})
        assert text_in((await handshake.ask(call))["result"]) == "2"


@requirement("modern:calls:progress-and-logs")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_progress_comes_on_the_requests_own_stream(transport: Transport) -> None:
    async with rig(transport) as running:
        client = ModernClient(running, chat="c")
        *updates, answer = await client.events(client.tool("progress", {"progressToken": "p"}, steps=3))
        assert [u["params"]["progress"] for u in updates] == [1, 2, 3]
        assert {u["params"]["progressToken"] for u in updates} == {"p"}
        assert answer["result"]["resultType"] == "complete"
        (answer,) = await client.events(client.tool("progress", steps=3))
        assert text_in(answer["result"]) == "done"


@requirement("modern:calls:progress-and-logs")
async def test_logs_come_only_where_the_request_asks_for_them_and_from_its_level_on() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        for level, seen in ((None, []), ("debug", ["info"]), ("info", ["info"]), ("error", [])):
            meta = {} if level is None else {KEY + "logLevel": level}
            *logs, answer = await client.events(client.tool("log", meta, level="info", message="m"))
            assert [each["params"]["level"] for each in logs] == seen, level
            assert text_in(answer["result"]) == "logged"
        (answer,) = await client.events(client.tool("emit", {"progressToken": 1}))
        assert text_in(answer["result"]) == "emitted", "nothing else may come on a request's stream"


@requirement("modern:levels:told-to-the-server")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_server_is_told_the_level_that_its_session_needs(transport: Transport) -> None:
    async with rig(transport) as running:

        async def logged(client: ModernClient, level: str | None) -> tuple[str, int]:
            """What the server says of a message at `debug`, and how many the client got."""
            meta = {} if level is None else {KEY + "logLevel": level}
            *logs, answer = await client.events(client.tool("log", meta, level="debug", message="m"))
            own = [each for each in logs if each["params"]["logger"] == "test"]  # others say what the call waits for
            return text_in(answer["result"]), len(own)

        alone, chatting = ModernClient(running), ModernClient(running, chat="c")
        assert await logged(alone, "error") == ("below the level", 0)
        assert await logged(alone, "debug") == ("logged", 1)
        assert await logged(chatting, "error") == ("below the level", 0)
        assert await logged(chatting, None) == ("below the level", 0)
        assert await logged(chatting, "debug") == ("logged", 1)
        assert await logged(chatting, "error") == ("logged", 0), "another may still want more"


@requirement("modern:calls:progress-and-logs")
async def test_a_server_of_the_same_era_is_told_the_level_that_the_request_names() -> None:
    async with rig(options={"era": "modern"}) as running:
        client = ModernClient(running, chat="c")
        for level, text in ((None, "below the level"), ("debug", "logged"), ("error", "below the level")):
            meta = {} if level is None else {KEY + "logLevel": level}
            assert text_in(await client.result(client.tool("log", meta, level="debug", message="m"))) == text, level


@requirement("modern:calls:closing-cancels")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_closing_a_requests_stream_cancels_the_call_and_the_session_lives(transport: Transport) -> None:
    async with rig(transport) as running:
        client = ModernClient(running, chat="c")
        assert text_in(await client.result(client.tool("count"))) == "1"
        async with client.post(client.tool("progress", {"progressToken": 1}, steps=2, gate="shut")) as response:
            assert (await next_message(response))["params"]["progress"] == 1
        await running.until_idle()
        assert text_in(await client.result(client.tool("count"))) == "2"
        if transport != "stdio":
            (entry,) = running.upstream.calls("progress")
            await running.upstream.until(lambda: entry.outcome == "cancelled")


@requirement("modern:refusals:headers")
@pytest.mark.parametrize(
    "headers",
    [
        {"mcp_protocol_version": None},
        {"mcp_protocol_version": "2025-11-25"},
        {"mcp_method": None},
        {"mcp_method": "tools/list"},
        {"mcp_method": "Tools/Call"},
        {"mcp_name": None},
        {"mcp_name": "Echo"},
        {"mcp_name": "=?base64?!!!?="},
        {"mcp_name": "=?base64?ZWNobw?="},
        {"mcp_name": "=?BASE64?ZWNobw==?="},
    ],
    ids=str,
)
async def test_headers_that_do_not_say_what_the_body_says_are_refused(headers: dict[str, str | None]) -> None:
    async with rig() as running:
        client = ModernClient(running)
        status, code, _ = await client.refused(client.tool("echo"), **headers)
        assert (status, code) == (400, -32020)
        assert running.upstream.calls() == []


@requirement("modern:refusals:headers")
async def test_names_that_no_header_can_hold_come_encoded() -> None:
    async with rig() as running:
        client = ModernClient(running)
        for name in ("echo", "größe", "  spaced  ", "=?base64?eA==?="):
            encoded = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
            async with client.post(client.tool(name), mcp_name=encoded) as response:
                assert response.status == 200, name
        status, code, _ = await client.refused(client.tool("größe"), mcp_name="grosse")
        assert (status, code) == (400, -32020)


@requirement("modern:refusals:envelope")
async def test_an_envelope_that_lacks_something_is_refused() -> None:
    async with rig() as running:
        client = ModernClient(running)
        for key in ("protocolVersion", "clientCapabilities"):
            wrongs: list[Any] = [None, 1, []]
            for wrong in wrongs:
                body = client.tool("echo")
                body["params"]["_meta"][KEY + key] = wrong
                assert (await client.refused(body))[:2] == (400, -32602), (key, wrong)
                del body["params"]["_meta"][KEY + key]
                assert (await client.refused(body))[:2] == (400, -32602), key
        body = client.tool("echo")
        del body["params"]["_meta"]
        assert (await client.refused(body))[:2] == (400, -32602)
        assert running.upstream.calls() == []


@requirement("modern:refusals:version")
async def test_a_revision_that_is_not_served_is_told_which_are() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        for version in ("2027-01-01", "2025-11-25", ""):
            body = client.message("server/discover", {KEY + "protocolVersion": version})
            status, code, error = await client.refused(body, mcp_protocol_version=version or "x")
            if not version:
                assert (status, code) == (400, -32020)  # an empty header is none
                continue
            assert (status, code) == (400, -32022)
            assert error["data"]["requested"] == version
            assert "2026-07-28" in error["data"]["supported"]


@requirement("modern:refusals:methods")
async def test_methods_that_the_revision_does_not_have_are_unknown() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        before = len(running.upstream.ledger)
        for method in ("ping", "initialize", "logging/setLevel", "resources/subscribe", "tasks/get", "no/such"):
            assert (await client.refused(client.message(method)))[:2] == (404, -32601), method
        assert len(running.upstream.ledger) == before


@requirement("modern:refusals:params")
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {}),
        ("tools/call", {"name": 1}),
        ("tools/call", {"name": "echo", "arguments": []}),
        ("tools/call", {"name": "echo", "requestState": 1}),
        ("tools/call", {"name": "echo", "requestState": "no such"}),
        ("tools/call", {"name": "echo", "requestState": "ünseen"}),
        ("tools/call", {"name": "echo", "inputResponses": []}),
        ("tools/call", {"name": "echo", "inputResponses": {"1": "yes"}}),
        ("prompts/get", {"name": None}),
        ("resources/read", {"uri": {}}),
        ("tools/list", {"cursor": 1}),
        ("tools/list", {"_meta": {KEY + "logLevel": "loud"}}),
        ("subscriptions/listen", {}),
        ("subscriptions/listen", {"notifications": []}),
        ("subscriptions/listen", {"notifications": {"toolsListChanged": 1}}),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [1]}}),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": "a:"}}),
    ],
    ids=str,
)
async def test_nonsense_in_params_is_refused(method: str, params: dict[str, Any]) -> None:
    async with rig() as running:
        client = ModernClient(running)
        params = dict(params)
        meta = params.pop("_meta", None)
        body = client.message(method, meta, **params)
        name = params.get("name")
        status, code, _ = await client.refused(body, mcp_name=name if isinstance(name, str) else None)
        assert (status, code) == (400, -32602)
        assert running.upstream.calls() == []


@requirement("modern:refusals:forms")
async def test_arrays_and_answers_are_no_part_of_the_revision_and_notifications_are_taken() -> None:
    async with rig() as running:
        client = ModernClient(running)
        modern = {"mcp_protocol_version": "2026-07-28"}
        cases: list[tuple[Any, int]] = [
            ([client.message("tools/list")], 400),
            ([client.http.call("tools/list")], 400),
            ({"jsonrpc": "2.0", "id": 1, "result": {}}, 400),
            ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}, 202),
            ({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}, 202),
        ]
        for body, status in cases:
            assert await client.http.post(body, **modern) == status, body
        for method in ("GET", "DELETE"):
            assert await client.http.status(method, **modern) in {400, 405}


@requirement("modern:errors:said-in-its-words")
async def test_an_unknown_resource_is_said_in_this_revisions_words() -> None:
    async with rig() as running:
        client, handshake = ModernClient(running, chat="c"), await running.connected()
        answer = (await client.events(client.message("resources/read", uri="memo://none")))[-1]
        before = (await handshake.ask(handshake.call("resources/read", uri="memo://none")))["error"]
        assert before["code"] == -32002
        assert answer["error"] == before | {"code": -32602}


@requirement("modern:errors:said-in-its-words")
async def test_pages_that_a_server_wants_visited_first_are_questions_and_coming_again_is_a_new_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = {"mode": "url", "elicitationId": "e1", "url": "https://example.test/1", "message": "Sign in"}
    raising(monkeypatch, RpcFailure(-32042, "Sign in first.", {"elicitations": [page]}))
    async with rig() as running:
        client = ModernClient(running, chat="c")
        result, keys = await client.asked(client.tool("refuse"))
        (question,) = result["inputRequests"].values()
        assert question == {
            "method": "elicitation/create",
            "params": {name: value for name, value in page.items() if name != "elicitationId"},
        }
        assert "requestState" not in result

        async def agree(_call: ToolCall) -> dict[str, Any]:
            return {"content": [{"type": "text", "text": "in"}]}

        monkeypatch.setitem(TOOLS, "refuse", Tool(agree, TOOLS["refuse"].declaration))
        again = client.tool("refuse")
        again["params"]["inputResponses"] = {keys[0]: {"action": "accept"}}
        assert text_in(await client.result(again)) == "in"
        raising(monkeypatch, RpcFailure(-32042, "Sign in first.", {"elicitations": [page]}))
        unable = ModernClient(running, chat="c", capabilities={"elicitation": {"form": {}}})
        status, code, error = await unable.refused(unable.tool("refuse"))
        assert (status, code) == (400, -32021)
        assert error["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}


@requirement("modern:errors:said-in-its-words")
async def test_failures_of_ours_are_what_they_are_in_every_era() -> None:
    clock = ManualClock()
    async with rig(clock=clock, call_timeout=4.0) as running, asyncio.TaskGroup() as group:
        client = ModernClient(running, chat="c")
        call = group.create_task(client.events(client.tool("slow", gate="shut")))
        await running.upstream.entered("shut")
        await running.passing(4.0)
        error = (await call)[-1]["error"]
        assert error["code"] == -31003
        assert error["data"]["holdfast"]["delivery"] == "unknown"


@requirement("modern:lists:from-the-catalogue")
async def test_clients_that_take_no_stream_get_json() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        body = client.tool("progress", {"progressToken": 1}, steps=2)
        async with client.post(body, accept=JSON) as response:
            assert response.headers["content-type"] == JSON
            assert text_in((await response.json())["result"]) == "done"
        async with client.post(client.tool("ask", message="?"), accept=JSON) as response:
            assert (await response.json())["result"]["resultType"] == "input_required"
        running.app.modern.parked.close()
        async with client.post(client.tool("count"), accept="text/event-stream") as response:
            assert text_in((await read_all(response))[-1]["result"]) == "1"


@requirement("modern:merged:the-same")
async def test_all_servers_as_one_are_served_alike() -> None:
    async with several("memory", "other") as running:
        client = ModernClient(running, chat="c")
        hello = await client.result(client.message("server/discover"))
        assert hello["_meta"][KEY + "serverInfo"]["name"] == "holdfast"
        listed = await client.result(client.message("tools/list"))
        assert {"memory__count", "other__count"} <= {tool["name"] for tool in listed["tools"]}
        assert [text_in(await client.result(client.tool("memory__count"))) for _ in range(2)] == ["1", "2"]
        assert text_in(await client.result(client.tool("other__count"))) == "1"
        call = client.tool("other__ask", message="sure?")
        result, (key,) = await client.asked(call)
        assert reply_in(await client.result(client.again(call, result, **{key: YES}))) == YES
        *updates, _ = await client.events(client.tool("memory__progress", {"progressToken": "p"}, steps=2))
        assert [u["params"]["progress"] for u in updates] == [1, 2]


@requirement("modern:refusals:arguments-in-headers")
async def test_arguments_that_a_tool_wants_in_headers_must_stand_there(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"type": "object", "properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "free": {"type": "number", "x-mcp-header": "No-Such-Type"},
    }

    async def deploy(call: ToolCall) -> dict[str, Any]:
        return text_result(call.text("region", "nowhere"))

    declared = {"name": "deploy", "inputSchema": {"type": "object", "properties": properties}}
    monkeypatch.setitem(TOOLS, "deploy", Tool(deploy, declared))
    hiding = ClientSettings(name="local", servers={"memory": ToolRules(deny=("deploy",))})
    async with rig() as running, rig(clients=(hiding,)) as shut:
        client, stranger = ModernClient(running, chat="c"), ModernClient(shut, chat="c")
        body = client.tool("deploy", region="eu", deep={"count": 42}, dry=True, free=1)
        good = {"mcp_param_region": "eu", "mcp_param_count": "42", "mcp_param_dry": "true"}
        assert text_in(await client.result(body, **good)) == "eu"
        assert text_in(await client.result(body, **good, mcp_param_other="x")) == "eu"
        assert text_in(await client.result(body, **{**good, "mcp_param_region": "=?base64?ZXU=?="})) == "eu"
        assert text_in(await client.result(body, **{**good, "mcp_param_count": "042"})) == "eu"
        for wrong in ({"region": "us"}, {"region": None}, {"count": "43"}, {"count": "x"}, {"dry": "True"}):
            ((name, value),) = wrong.items()
            assert (await client.refused(body, **{**good, f"mcp_param_{name}": value}))[:2] == (400, -32020), wrong
        assert text_in(await client.result(client.tool("deploy"))) == "nowhere"
        nothing = client.tool("deploy", region=None)
        assert (await client.refused(nothing, mcp_param_region="eu"))[:2] == (400, -32020)
        assert (await client.result(client.message("tools/list")))["resultType"] == "complete"
        answer = (await stranger.events(stranger.tool("deploy", region="eu")))[-1]
        assert answer["error"]["code"] == -32602, "whoever may not see a tool learns nothing of it"
