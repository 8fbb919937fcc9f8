"""The scripted server over HTTP, as a client sees it that knows nothing of MCP."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bare_client import BareClient
from holdfast.testing.clock import ManualClock
from holdfast.testing.server import ScriptedServer, ServerOptions


@asynccontextmanager
async def raw_server(
    clock: ManualClock | None = None, **options: Any
) -> AsyncGenerator[tuple[ScriptedServer, BareClient], None]:
    async with asyncio.timeout(60), ScriptedServer(ServerOptions(**options), clock=clock) as server:
        yield server, BareClient(server.port)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_handshake_revision_is_negotiated(version: str) -> None:
    async with raw_server() as (_, client):
        assert (await client.open(version))["protocolVersion"] == version


async def test_an_unknown_revision_is_answered_with_the_latest() -> None:
    async with raw_server() as (_, client):
        assert (await client.open("2031-01-01"))["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize("unknown", [400, 404])
async def test_requests_without_a_living_session_are_refused(unknown: int) -> None:
    async with raw_server(unknown_session=unknown) as (server, client):
        assert await client.status("POST", client.call("ping")) == 400
        await client.open()
        assert await client.status("POST", client.call("ping")) == 200
        assert await client.status("POST", client.call("ping"), mcp_session_id="nonsense") == unknown
        assert await client.status("POST", client.call("ping"), mcp_protocol_version="2031-01-01") == 400
        assert await client.status("POST", client.call("ping"), accept="application/json") == 406
        assert await client.status("POST", client.call("ping"), origin="https://evil.example") == 403
        assert await client.status("DELETE") == 204
        assert await client.status("POST", client.call("ping")) == unknown
        assert (server.initializes, server.deletes) == (1, 1)


async def test_answers_are_streams_unless_json_is_asked_for_and_enough() -> None:
    async with raw_server() as (_, client):
        await client.open()
        async with client.request("POST", client.call("ping")) as response:
            assert response.headers["content-type"] == "text/event-stream"
    async with raw_server(json=True) as (_, client):
        await client.open()
        async with client.request("POST", client.call("ping")) as response:
            assert response.headers["content-type"] == "application/json"
            assert await response.json() == {"jsonrpc": "2.0", "id": client.next_id, "result": {}}
        async with client.request("POST", client.tool("log", level="info", message="m", count=2)) as response:
            assert response.headers["content-type"] == "text/event-stream"
            methods = [(await response.message()).get("method") for _ in range(3)]
            assert methods == ["notifications/message", "notifications/message", None]


async def test_one_connection_refuses_a_second_session_with_a_page() -> None:
    async with raw_server(one_connection=True) as (server, client):
        await client.open()
        async with BareClient(server.port).request("POST", client.call("initialize")) as response:
            assert (response.status, response.headers["content-type"]) == (500, "text/html; charset=utf-8")
            assert b"Already connected to a transport" in await response.body()
        await client.status("DELETE")
        await BareClient(server.port).open()


async def test_initialize_can_be_slow_on_the_servers_clock() -> None:
    clock = ManualClock()
    async with raw_server(clock, open_delay=30) as (server, client), asyncio.TaskGroup() as group:
        opening = group.create_task(client.open())
        await clock.waited_on()
        assert server.initializes == 1
        assert server.sessions == {}
        clock.advance(30)
        await opening


async def test_stopping_ends_a_slow_initialize_and_leaves_nothing() -> None:
    clock = ManualClock()
    async with raw_server(clock, open_delay=30) as (server, client), asyncio.TaskGroup() as group:

        async def opening() -> None:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await client.open()

        group.create_task(opening())
        await clock.waited_on()
        await server.stop()
        assert clock.pending == 0


async def test_a_gate_holds_calls_until_it_is_opened() -> None:
    async with raw_server() as (server, client), asyncio.TaskGroup() as group:
        await client.open()
        calls = [group.create_task(client.answer(client.tool("slow", gate="g"))) for _ in range(3)]
        await server.entered("g", times=3)
        assert [entry.outcome for entry in server.calls("slow")] == ["running"] * 3
        server.open_gate("g")
        for call in calls:
            assert (await call)["result"]["content"][0]["text"] == "done"
        assert [entry.outcome for entry in server.calls("slow")] == ["executed"] * 3


async def test_a_cancelled_call_ends_without_an_answer_and_is_in_the_ledger() -> None:
    async with raw_server() as (server, client):
        await client.open()
        async with client.request("POST", client.tool("slow", gate="g")) as response:
            await server.entered("g")
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": client.next_id}}
            assert await client.status("POST", cancel) == 202
            assert await response.event() is None
        assert [entry.outcome for entry in server.calls()] == ["cancelled"]
        assert server.ledger[-1].method == "notifications/cancelled"


async def test_a_lost_connection_cancels_nothing() -> None:
    async with raw_server() as (server, client):
        await client.open()
        async with client.request("POST", client.tool("slow", gate="g")):
            await server.entered("g")
        await server.until(lambda: server.connections == 0)
        server.open_gate("g")
        await server.until(lambda: server.calls()[0].outcome == "executed")


async def test_an_ask_goes_on_the_calls_own_stream_and_is_withdrawn_with_the_call() -> None:
    async with raw_server() as (server, client):
        await client.open(elicitation={"form": {}, "url": {}}, sampling={}, roots={})
        async with client.request("POST", client.tool("ask", message="m", mode="url")) as response:
            asked = await response.message()
            assert (asked["method"], asked["params"]["mode"]) == ("elicitation/create", "url")
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": client.next_id}}
            await client.status("POST", cancel)
            withdrawn = await response.message()
            assert (withdrawn["method"], withdrawn["params"]) == ("notifications/cancelled", {"requestId": asked["id"]})
        for tool, method in (("sample", "sampling/createMessage"), ("roots", "roots/list")):
            async with client.request("POST", client.tool(tool, prompt="p")) as response:
                asked = await response.message()
                assert asked["method"] == method
                refusal = {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -1, "message": "no"}}
                await client.status("POST", refusal)
                result = (await response.message())["result"]
                assert result["isError"]
                assert json.loads(result["content"][0]["text"]) == {"code": -1, "message": "no"}
        assert len(server.sessions) == 1


async def test_log_messages_obey_the_sessions_level() -> None:
    async with raw_server() as (_, client):
        await client.open()
        await client.answer(client.call("logging/setLevel", level="error"))
        async with client.request("POST", client.tool("log", level="info", message="m")) as response:
            assert (await response.message())["result"]["content"][0]["text"] == "below the level"
        async with client.request("POST", client.tool("log", level="critical", message="m")) as response:
            assert (await response.message())["params"]["level"] == "critical"


async def test_lists_come_in_pages_with_cursors() -> None:
    async with raw_server(page_size=7) as (_, client):
        await client.open()
        names: list[str] = []
        page = (await client.answer(client.call("tools/list")))["result"]
        while "nextCursor" in page:
            assert len(page["tools"]) == 7
            names += [tool["name"] for tool in page["tools"]]
            page = (await client.answer(client.call("tools/list", cursor=page["nextCursor"])))["result"]
        names += [tool["name"] for tool in page["tools"]]
        assert len(names) == len(set(names)) > 14
        assert (await client.answer(client.call("tools/list", cursor="bad")))["error"]["code"] == -32602


async def test_subscribers_are_told_of_a_changed_resource_on_their_push_stream() -> None:
    async with raw_server() as (server, client):
        await client.open()
        other = BareClient(server.port)
        await other.open()
        async with client.request("GET") as pushes, other.request("GET") as others:
            await server.pushing()
            await client.answer(client.call("resources/subscribe", uri="memo://note"))
            await client.answer(client.tool("change_resource", text="new"))
            assert (await pushes.message())["params"] == {"uri": "memo://note"}
            read = await client.answer(client.call("resources/read", uri="memo://note"))
            assert read["result"]["contents"][0]["text"] == "new"
            await client.answer(client.call("resources/unsubscribe", uri="memo://note"))
            await client.answer(client.tool("change_resource"))
            await client.answer(client.tool("change_tools"))
            for stream in (pushes, others):
                assert (await stream.message())["method"] == "notifications/tools/list_changed"


async def test_any_notification_can_be_emitted_on_the_call_or_as_a_push() -> None:
    async with raw_server() as (server, client):
        await client.open()
        async with client.request("GET") as pushes:
            await server.pushing()
            await client.answer(client.tool("emit", params={"n": 1}, where="push"))
            assert await pushes.message() == {"jsonrpc": "2.0", "method": "holdfast.test/event", "params": {"n": 1}}
        async with client.request("POST", client.tool("emit", method="a/b")) as response:
            assert (await response.message())["method"] == "a/b"


async def test_a_new_push_stream_takes_the_place_of_the_old_one() -> None:
    async with raw_server() as (server, client):
        await client.open()
        async with client.request("GET") as old, client.request("GET") as new:
            assert await old.event() is None
            await client.answer(client.tool("emit", where="push"))
            assert (await new.message())["method"] == "holdfast.test/event"
            assert server.gets == 2


async def test_a_push_stream_can_be_hung_up_and_opened_again() -> None:
    async with raw_server() as (server, client):
        await client.open()
        session_id = client.headers["mcp-session-id"]
        async with client.request("GET") as response:
            await server.pushing(session_id)
            server.hang_up(session_id)
            assert await response.event() is None
            assert not server.sessions[session_id].is_pushing
        async with client.request("GET") as response:
            await server.pushing(session_id)
            await client.answer(client.tool("change_tools"))
            assert (await response.message())["method"] == "notifications/tools/list_changed"


async def test_get_can_be_switched_off() -> None:
    async with raw_server(get=False) as (server, client):
        await client.open()
        assert await client.status("GET") == 405
        assert server.gets == 1


async def test_unknown_methods_are_refused_and_the_echo_method_returns_its_params() -> None:
    async with raw_server() as (server, client):
        await client.open()
        assert (await client.answer(client.call("a/b")))["error"]["code"] == -32601
        assert (await client.answer(client.call("holdfast.test/echo", x=[1])))["result"] == {"x": [1]}
        await client.status("POST", {"jsonrpc": "2.0", "method": "x/y", "params": {"canary": "c"}})
        assert (server.ledger[-1].method, server.ledger[-1].canary) == ("x/y", "c")


async def test_arrays_are_taken_only_where_the_revision_has_them() -> None:
    async with raw_server(json=True) as (_, client):
        batch = [client.call("ping"), client.tool("count")]
        await client.open("2025-03-26")
        answers = await client.answer(batch)
        assert {answer["id"] for answer in answers} == {1, 2}
        await client.open("2025-06-18")
        assert await client.status("POST", batch) == 400


async def test_whoami_shows_forwarded_headers_and_hides_the_credential() -> None:
    async with raw_server() as (_, client):
        await client.open()
        async with client.request(
            "POST", client.tool("whoami"), x_chat="c1", authorization="Bearer s3cret"
        ) as response:
            text = (await response.message())["result"]["content"][0]["text"]
        told = json.loads(text)
        assert told["headers"] == {"x-chat": "c1"}
        assert told["authorization"] is True
        assert told["clientInfo"]["name"] == "raw"
        assert "s3cret" not in text


async def test_primed_streams_can_be_resumed_after_the_server_hung_up() -> None:
    async with raw_server(prime=True) as (server, client):
        await client.open()
        async with client.request("POST", client.tool("slow", gate="g", hang_up=True)) as response:
            priming = await response.event()
            assert priming is not None
            assert (priming.data, await response.event()) == (b"", None)
        await server.entered("g")
        async with client.request("GET", last_event_id=priming.id) as resumed:
            assert resumed.status == 200
            server.open_gate("g")
            again = await resumed.event()
            assert again is not None
            assert again.data == b""
            assert (await resumed.message())["id"] == client.next_id
            assert await resumed.event() is None


async def test_a_resumed_stream_replays_only_what_came_after_the_last_event() -> None:
    async with raw_server(prime=True) as (_, client):
        await client.open()
        async with client.request("POST", client.tool("log", level="info", message="m", count=3)) as response:
            events = [await response.event() for _ in range(5)]
        second = events[2]
        assert second is not None
        async with client.request("GET", last_event_id=second.id) as resumed:
            replayed = [await resumed.event() for _ in range(3)]
            assert [event.data for event in replayed[1:] if event] == [event.data for event in events[3:] if event]
        assert await client.status("GET", last_event_id="nonsense") == 400


async def test_clients_before_2025_11_25_are_not_primed() -> None:
    async with raw_server(prime=True) as (_, client):
        await client.open("2025-06-18")
        async with client.request("POST", client.call("ping")) as response:
            event = await response.event()
            assert event is not None
            assert event.data
            assert event.id is None


async def test_a_forgotten_session_is_refused_from_the_next_request_on() -> None:
    async with raw_server() as (server, client):
        await client.open()
        answer = await client.answer(client.tool("forget_session"))
        assert answer["result"]["content"][0]["text"] == "forgotten"
        assert await client.status("POST", client.call("ping")) == 404
        await client.open()
        server.forget_session(client.headers["mcp-session-id"])
        assert await client.status("POST", client.call("ping")) == 404


async def test_a_crash_before_the_answer_cuts_every_connection_and_forgets_the_sessions() -> None:
    async with raw_server() as (server, client):
        await client.open()
        other = BareClient(server.port)
        await other.open()
        async with (
            other.request("GET") as pushes,
            client.request("POST", client.tool("crash", before_answer=True)) as cut,
        ):
            for response in (pushes, cut):
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await response.event()
        assert server.sessions == {}
        assert await client.status("POST", client.call("ping")) == 404


async def test_a_crash_after_the_answer_lets_the_answer_through() -> None:
    async with raw_server() as (server, client):
        await client.open()
        answer = await client.answer(client.tool("crash"))
        assert answer["result"]["content"][0]["text"] == "crashing"
        await server.until(lambda: not server.sessions and server.connections == 0)


async def test_a_restart_keeps_the_port_and_forgets_the_sessions() -> None:
    async with raw_server() as (server, client):
        await client.open()
        port = server.port
        await server.stop()
        with pytest.raises(ConnectionRefusedError):
            await client.status("POST", client.call("ping"))
        await server.start()
        assert server.port == port
        assert await client.status("POST", client.call("ping")) == 404
        await client.open()
        assert server.initializes == 2


async def test_the_ledger_is_read_and_reset_over_http() -> None:
    async with raw_server() as (_, client):
        await client.open()
        await client.answer(client.tool("echo", canary="c1"))
        async with client.request("GET", path="/ledger") as response:
            report = await response.json()
        last = report["entries"][-1]
        assert (last["tool"], last["arguments"], last["outcome"]) == ("echo", {"canary": "c1"}, "executed")
        assert [entry["number"] for entry in report["entries"]] == [1, 2, 3]
        async with client.request("POST", path="/ledger/reset") as response:
            assert response.status == 204
        async with client.request("GET", path="/ledger") as response:
            assert (await response.json())["entries"] == []
