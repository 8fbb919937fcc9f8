"""Plain JSON or an event stream: what the answer to a POST is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.testing.clock import ManualClock
from requirements import requirement
from rig import Rig, next_message, read_all, rig, text_of

STREAM = "text/event-stream"
JSON = "application/json"


async def content_type(running: Rig, accept: str | None, tool: str, *, has_session: bool, **arguments: Any) -> str:
    client = await running.connected() if has_session else running.client()
    call = client.tool(tool, **arguments)
    call["params"]["_meta"] = {"progressToken": 1}
    async with client.request("POST", call, accept=accept) as response:
        assert response.status == 200
        kind = response.headers["content-type"]
        answer = await response.json() if kind == JSON else (await read_all(response))[-1]
        assert answer["id"] == call["id"]
        assert text_of(answer)
        return kind


with_or_without = pytest.mark.parametrize("has_session", [True, False], ids=["session", "no session"])


@requirement("exchange:answers:form")
@with_or_without
@pytest.mark.parametrize(
    ("accept", "quiet", "talkative"),
    [
        ("application/json, text/event-stream", JSON, STREAM),
        ("text/event-stream, application/json", STREAM, STREAM),
        ("application/json;q=0.5, text/event-stream", STREAM, STREAM),
        ("text/event-stream;q=0.5, application/json", JSON, STREAM),
        ("text/event-stream", STREAM, STREAM),
        ("application/json", JSON, JSON),
        ("*/*", JSON, JSON),
        (None, JSON, JSON),
    ],
)
async def test_accept_and_what_comes_first_decide_the_form(
    accept: str | None, quiet: str, talkative: str, *, has_session: bool
) -> None:
    async with rig() as running:
        assert await content_type(running, accept, "echo", has_session=has_session) == quiet
        assert await content_type(running, accept, "progress", has_session=has_session, steps=2) == talkative
        assert await content_type(running, accept, "log", has_session=has_session, level="info", message="m") == (
            talkative
        )


@requirement("exchange:answers:form")
async def test_accept_may_come_in_two_lines() -> None:
    async with rig() as running:
        client = running.client()
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"log","arguments":'
        body += b'{"level":"info","message":"m"}}}'
        head = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        accepts = b"accept: application/json\r\naccept: text/event-stream\r\n\r\n"
        async with client.raw(head % len(body) + accepts + body) as response:
            assert response.headers["content-type"] == STREAM


@requirement("exchange:answers:silence")
@with_or_without
async def test_five_silent_seconds_open_a_stream_that_is_kept_alive(*, has_session: bool) -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected("2025-06-18") if has_session else running.client()
        call = client.tool("slow", gate="g")
        async with asyncio.TaskGroup() as group:
            answered = group.create_task(exchange(running, client, call))
            await running.upstream.entered("g")
            await running.passing(4.9)
            assert not answered.done()
            await running.passing(0.1)
        body = answered.result()
        assert body.startswith(": keep-alive\n\n: keep-alive\n\n")
        assert body.count(": keep-alive") == 2
        assert f'"id":{call["id"]}' in body


async def exchange(running: Rig, client: Any, call: Any) -> str:
    """The whole stream as text; time passes once its head has come."""
    async with client.request("POST", call) as response:
        assert response.headers["content-type"] == STREAM
        await running.passing(15)
        await running.passing(15)
        await running.passing(14)
        running.upstream.open_gate("g")
        chunks = b""
        while chunk := await response.chunk():
            chunks += chunk
        return chunks.decode()


@requirement("exchange:answers:silence")
async def test_a_client_that_takes_no_stream_waits_in_silence() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = running.client(accept=JSON)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(client.ask(client.tool("slow", gate="g")))
            await running.upstream.entered("g")
            await running.passing(120)
            running.upstream.open_gate("g")
            assert text_of(await answer) == "done"


@requirement("exchange:answers:order")
async def test_what_comes_before_the_result_comes_before_the_result() -> None:
    async with rig() as running:
        client = await running.connected()
        call = client.tool("log", level="info", message="m", count=50)
        *logs, answer = await client.events(call)
        assert [log["params"]["data"] for log in logs if log["params"].get("logger") == "test"] == ["m"] * 50
        assert answer["id"] == call["id"]


@requirement("exchange:answers:nothing-lost-without-a-stream")
async def test_what_a_json_only_client_cannot_take_with_the_answer_comes_on_its_get_stream() -> None:
    async with rig() as running:
        client = await running.connected()
        client.headers["accept"] = JSON
        async with client.stream() as pushed:
            await client.tool_text("emit", method="test/event", params={"a": 1})
            assert await next_message(pushed) == {"jsonrpc": "2.0", "method": "test/event", "params": {"a": 1}}


@requirement("exchange:answers:large")
@with_or_without
@pytest.mark.parametrize("accept", [JSON, STREAM])
async def test_large_results_pass_whole(accept: str, *, has_session: bool) -> None:
    size = 3_000_000
    async with rig() as running:
        client = await running.connected() if has_session else running.client()
        call = client.tool("big", bytes=size)
        async with client.request("POST", call, accept=accept) as response:
            if accept == JSON:
                answer = await response.json()
            else:
                answer = (await read_all(response))[-1]
        assert len(text_of(answer)) == size
