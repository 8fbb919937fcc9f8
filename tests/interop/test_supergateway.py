"""`supergateway --stateful`, which sends a call's progress on whichever call's stream is the oldest."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Generator

import pytest

from bare_client import BareClient, Response
from interop.programs import EVERYTHING_STDIO, PATIENCE, Steps, holdfast, node, sdk_client, text_of
from processes import free_port
from requirements import requirement


@pytest.fixture(scope="module")
def port() -> Generator[int]:
    """supergateway in front of server-everything."""
    port = free_port()
    arguments = ["--stdio", shlex.join(EVERYTHING_STDIO), "--outputTransport", "streamableHttp", "--stateful"]
    with node("supergateway/dist/index.js", *arguments, "--port", str(port), "--logLevel", "none", port=port):
        yield port


async def test_directly_progress_comes_on_the_wrong_stream(port: int) -> None:
    """The yardstick: without it the next test would prove nothing."""
    client = BareClient(port)
    async with asyncio.timeout(PATIENCE):
        await client.open()
        first, second = (operation(client, token) for token in ("first", "second"))
        async with client.request("POST", first) as one:
            assert await next_token(one) == "first"
            async with client.request("POST", second) as two:
                assert two.status == 200
                while await next_token(one) != "second":
                    pass


async def next_token(response: Response) -> object:
    """The token of the next progress on this stream; other notifications may come before."""
    while (message := await response.message())["method"] != "notifications/progress":
        pass
    return message["params"]["progressToken"]


def operation(client: BareClient, token: str) -> dict[str, object]:
    """A call that lasts for as long as anybody looks."""
    call = client.tool("trigger-long-running-operation", duration=PATIENCE, steps=5 * PATIENCE)
    call["params"]["_meta"] = {"progressToken": token}
    return call


@requirement("interop:supergateway:progress-finds-its-call")
async def test_progress_of_two_calls_at_once_reaches_each_its_own(port: int) -> None:
    tool = "trigger-long-running-operation"
    short, long = Steps(), Steps()
    with holdfast(f"http://127.0.0.1:{port}/mcp") as (url, _):
        async with asyncio.timeout(PATIENCE), sdk_client(url) as client, asyncio.TaskGroup() as group:
            calls = [
                group.create_task(client.call_tool(tool, {"duration": 1, "steps": 4}, progress_callback=short)),
                group.create_task(client.call_tool(tool, {"duration": 1, "steps": 5}, progress_callback=long)),
            ]
    assert ["Steps: 4" in text_of(calls[0].result()), "Steps: 5" in text_of(calls[1].result())] == [True, True]
    assert [saw_its_own(short, 4), saw_its_own(long, 5)] == [True, True]


@requirement("interop:supergateway:progress-finds-its-call")
async def test_progress_of_two_clients_of_one_session_reaches_each_its_own(port: int) -> None:
    tool = "trigger-long-running-operation"
    both_connected = asyncio.Barrier(2)

    async def one(url: str, steps: int) -> Steps:
        seen = Steps()
        async with sdk_client(url) as client:
            await both_connected.wait()
            text_of(await client.call_tool(tool, {"duration": 1, "steps": steps}, progress_callback=seen))
        return seen

    with holdfast("--scope", "shared", f"http://127.0.0.1:{port}/mcp") as (url, _):
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            calls = [group.create_task(one(url, steps)) for steps in (4, 5)]
    assert [saw_its_own(call.result(), of) for call, of in zip(calls, (4, 5), strict=True)] == [True, True]


def saw_its_own(steps: Steps, of: int) -> bool:
    """Every step in order, but perhaps the last ones: they and the result come on two connections, in any order."""
    return bool(steps.seen) and steps.seen == [(step, of) for step in range(1, len(steps.seen) + 1)]
