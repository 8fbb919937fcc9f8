"""Clients of 2026-07-28 that started us: every line says for itself who asks, beside those with a handshake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.downstream.pipes import QUEUE_LENGTH
from holdfast.testing.clock import settle
from holdfast.testing.server_tools import NOTE_URI
from holdfast.wire.revisions import MODERN, SERVED, WITH_SESSIONS
from modern_client import KEY, YES
from pipe_rig import PipeClient, pipe_client
from requirements import requirement
from rig import TRANSPORTS, Transport, rig

ABLE: dict[str, Any] = {"elicitation": {"form": {}}}


def ask(client: PipeClient, method: str, chat: str | None = "c", version: str = MODERN, **params: Any) -> int:
    """Send a request with its envelope; returns its id."""
    meta: dict[str, Any] = {KEY + "protocolVersion": version, KEY + "clientCapabilities": ABLE}
    if chat is not None:
        meta["dev.holdfast/chat"] = chat
    return client.request(method, **{**params, "_meta": meta | params.get("_meta", {})})


def tool(client: PipeClient, name: str, chat: str | None = "c", **arguments: Any) -> int:
    """Call a tool; returns the request's id."""
    return ask(client, "tools/call", chat, name=name, arguments=arguments)


async def text(client: PipeClient, request_id: int) -> str:
    result = (await client.answer(request_id))["result"]
    assert result["resultType"] == "complete"
    said: str = result["content"][0]["text"]
    return said


@requirement("stdio:modern:answered-in-its-era")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("chat", ["c", None])
async def test_a_discovery_offers_what_keeps_the_state_of_a_server(transport: Transport, chat: str | None) -> None:
    async with rig(transport) as running, pipe_client(running.gateway) as client:
        said = (await client.answer(ask(client, "server/discover", chat)))["result"]
        assert said["supportedVersions"] == list(SERVED if chat else WITH_SESSIONS)
        assert said["_meta"][KEY + "serverInfo"]["name"] == "holdfast-test-server"
        refused = (await client.answer(ask(client, "tools/list", chat, version="2027-01-01")))["error"]
        assert refused["code"] == -32022
        assert refused["data"] == {"supported": said["supportedVersions"], "requested": "2027-01-01"}


@requirement("stdio:modern:answered-in-its-era")
async def test_state_is_kept_where_the_chat_is_named_and_the_process_names_none() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        counted = [await text(client, tool(client, "count", chat)) for chat in ("a", "a", "b", None, None)]
        assert counted == ["1", "2", "1", "1", "1"]


@requirement("stdio:modern:answered-in-its-era")
async def test_lines_of_both_eras_are_answered_each_in_its_own() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await client.initialize()
        assert [await client.call("count"), await text(client, tool(client, "count"))] == ["1", "1"]
        old = (await client.answer(client.tool("count")))["result"]
        assert "resultType" not in old
        assert old["content"][0]["text"] == "2"
        client.notify("notifications/roots/list_changed", _meta={KEY + "protocolVersion": MODERN})
        assert (await client.answer(ask(client, "ping")))["error"]["code"] == -32601


@requirement("stdio:modern:answered-in-its-era")
async def test_what_cannot_be_meant_is_refused_and_nothing_of_it_runs() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        bare = client.request("tools/call", name="count", arguments={}, _meta={KEY + "protocolVersion": MODERN})
        assert (await client.answer(bare))["error"]["code"] == -32602
        envelope: dict[str, Any] = {KEY + "protocolVersion": MODERN, KEY + "clientCapabilities": {}}
        params: dict[str, Any] = {"name": "count", "arguments": {}, "_meta": envelope}
        client.send([{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params} for n in (1, 2)])
        refused = await client.next()
        assert [(each["id"], each["error"]["code"]) for each in refused] == [(1, -32600), (2, -32600)]
        slow = tool(client, "slow", gate="g")
        await running.upstream.entered("g")
        client.send({"jsonrpc": "2.0", "id": slow, "method": "tools/call", "params": params})
        assert (await client.next())["error"]["message"] == "A request with this id is still running."
        running.upstream.open_gate("g")
        assert await text(client, slow) == "done"
        assert len(running.upstream.calls("count")) == 0


@requirement("stdio:modern:questions")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_question_ends_the_request_and_its_answer_comes_with_the_next(transport: Transport) -> None:
    async with rig(transport) as running, pipe_client(running.gateway) as client:
        first = (await client.answer(tool(client, "ask", message="Which?")))["result"]
        assert first["resultType"] == "input_required"
        ((name, question),) = first["inputRequests"].items()
        assert question["params"]["message"] == "Which?"
        again: dict[str, Any] = {
            "name": "ask",
            "arguments": {"message": "Which?"},
            "requestState": first["requestState"],
        }
        stolen = ask(client, "tools/call", "d", **again, inputResponses={name: YES})
        assert (await client.answer(stolen))["error"]["code"] == -32602, "that of another chat"
        assert json.loads(await text(client, ask(client, "tools/call", **again, inputResponses={name: YES}))) == YES
        used = ask(client, "tools/call", **again, inputResponses={name: YES})
        assert (await client.answer(used))["error"]["code"] == -32602


@requirement("stdio:modern:cancelled")
async def test_a_cancelled_request_is_given_up_and_nothing_more_is_said_of_it() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        asked = ask(
            client, "tools/call", name="progress", arguments={"steps": 9, "gate": "g"}, _meta={"progressToken": 1}
        )
        await client.until("notifications/progress")
        client.notify("notifications/cancelled", requestId=asked)
        await running.until(lambda: running.upstream.calls("progress")[0].outcome == "cancelled")
        assert await text(client, tool(client, "count")) == "1"
        assert client.heard == []
        assert client.stdio.client.calls == {}


@requirement("stdio:modern:cancelled")
async def test_a_client_that_leaves_cancels_what_runs_and_what_waits_for_it() -> None:
    async with rig() as running:
        async with pipe_client(running.gateway) as client:
            parked = (await client.answer(tool(client, "ask", "a", message="?")))["result"]
            assert parked["resultType"] == "input_required"
            tool(client, "slow", "b", gate="never")
            await running.upstream.entered("never")
        begun = [running.upstream.calls(name)[0] for name in ("ask", "slow")]
        await running.until(lambda: [call.outcome for call in begun] == ["cancelled"] * 2)
        assert len(client.stdio.modern.parked) == 0


@requirement("stdio:modern:listens")
async def test_changes_are_told_to_who_listens_until_they_cancel_it() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await text(client, tool(client, "count"))
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [NOTE_URI]}
        listening = ask(client, "subscriptions/listen", notifications=wanted)
        granted = await client.until("notifications/subscriptions/acknowledged")
        assert granted["params"]["notifications"] == wanted
        assert client.heard == []
        await running.upstream.pushing()
        await text(client, tool(client, "change_resource", text="new"))
        told = client.heard[0] if client.heard else await client.until("notifications/resources/updated")
        assert told["method"] == "notifications/resources/updated"
        assert told["params"]["_meta"][KEY + "subscriptionId"] == listening
        client.notify("notifications/cancelled", requestId=listening)
        assert len(client.stdio.modern.listeners) == 0
        client.heard.clear()
        await text(client, tool(client, "change_tools"))
        await text(client, tool(client, "count"))
        assert client.heard == []


@requirement("stdio:modern:listens")
async def test_a_slow_reader_is_told_of_changes_and_not_of_each() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await text(client, tool(client, "count"))
        ask(client, "subscriptions/listen", notifications={"toolsListChanged": True})
        await client.until("notifications/subscriptions/acknowledged")
        await running.upstream.pushing()
        client.writer.pause_writing()
        asked = [tool(client, "change_tools") for _ in range(QUEUE_LENGTH // 8)]
        await running.until(lambda: len(client.stdio.client.calls) == 1)
        await settle()
        assert client.is_quiet
        client.writer.resume_writing()
        for request_id in asked:
            await client.answer(request_id)
        await text(client, tool(client, "count"))
        told = [message["method"] for message in client.heard]
        assert set(told) == {"notifications/tools/list_changed"}
        assert len(told) < len(asked) / 2, "what waits to be read says as much as many"


@requirement("stdio:modern:listens")
async def test_what_is_owed_to_a_reader_that_is_far_behind_comes_once_it_has_caught_up() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        await text(client, tool(client, "count"))
        ask(client, "subscriptions/listen", notifications={"toolsListChanged": True})
        await client.until("notifications/subscriptions/acknowledged")
        await running.upstream.pushing()
        client.writer.pause_writing()
        asked = [client.request("ping") for _ in range(QUEUE_LENGTH + 1)]
        assert client.writer.is_slow
        changed = tool(client, "change_tools")
        await running.until(lambda: len(client.stdio.client.calls) == 1)
        await settle()
        client.writer.resume_writing()
        for request_id in [*asked, changed]:
            await client.answer(request_id)
        told = client.heard or [await client.next()]
        assert {message["method"] for message in told} == {"notifications/tools/list_changed"}


@requirement("stdio:end:what-was-asked-is-answered")
async def test_after_the_end_of_input_listening_ends_in_order_and_calls_are_answered() -> None:
    async with rig() as running, pipe_client(running.gateway) as client:
        listening = ask(client, "subscriptions/listen", notifications={"toolsListChanged": True})
        await client.until("notifications/subscriptions/acknowledged")
        slow = tool(client, "slow", gate="g")
        await running.upstream.entered("g")
        client.stdio.end_of_input()
        ended = (await client.answer(listening))["result"]
        assert ended["_meta"][KEY + "subscriptionId"] == listening
        assert not client.stdio.ended.is_set()
        running.upstream.open_gate("g")
        assert await text(client, slow) == "done"
        await client.stdio.ended.wait()
