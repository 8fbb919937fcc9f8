"""How the era of a server is found out, and that no server is harmed by the question."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bare_client import BareClient, Response
from faults.odd_server import NO_SESSION, Odd, OddServer, odd_server, result_of, text
from faults.rig import gateway_to, until
from holdfast.call import ANYBODY
from holdfast.config import MAX_MESSAGE_BYTES, ServerSettings
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock
from holdfast.testing.server import ScriptedServer, ServerOptions
from holdfast.upstream.connector import Connector
from requirements import requirement
from stdio_rig import Unwatched, python
from unit.recorded_upstream import RecordedListener
from unit.scripted_http import Peer, plain

PECULIAR = """
import json, os, sys
births, manner = sys.argv[1:]
with open(births, "a") as file:
    file.write("born\\n")

def say(request, **fields):
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **fields}), flush=True)

for line in sys.stdin:
    request = json.loads(line)
    method = request["method"]
    if method == "initialize":
        hello = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "old", "version": "1"}}
        say(request, result={**hello, "capabilities": {"tools": {}}})
    elif method == "tools/call":
        say(request, result={"content": [{"type": "text", "text": "here"}]})
    elif method == "server/discover" and manner == "exits":
        sys.exit("what is that?")
    elif method == "server/discover" and manner == "refuses and exits":
        say(request, error={"code": -32601, "message": "what is that?"})
        sys.exit("enough")
    elif method == "server/discover" and manner == "refuses":
        say(request, error={"code": -1, "message": "what is that?"})
    elif method == "server/discover" and manner == "offers older ones":
        data = {"supported": ["2025-11-25"], "requested": "2026-07-28"}
        say(request, error={"code": -32022, "message": "no", "data": data})
"""
"""A server of the handshake era that answers what it does not know in its own way."""


async def texts(client: BareClient, *chats: str) -> list[str]:
    """What a tool says in each of these chats."""
    said: list[str] = []
    for chat in chats:
        async with client.request("POST", client.tool("echo"), f"/mcp/upstream/chats/{chat}") as response:
            answer = await whole(response)
            said.append(answer["result"]["content"][0]["text"])
    return said


async def whole(response: Response) -> Any:
    """The answer, whatever its form."""
    if response.headers["content-type"] == "application/json":
        return await response.json()
    while "id" not in (message := await response.message()):
        pass
    return message


def discoveries(server: ScriptedServer) -> int:
    """How often a server was asked for its era."""
    return sum(headers.get("mcp-method") == "server/discover" for headers in server.received_headers)


@requirement("modern-servers:probe")
@pytest.mark.parametrize("manner", ["exits", "refuses and exits", "refuses", "offers older ones"])
async def test_a_process_is_asked_once_in_its_life_and_not_at_all_later(tmp_path: Path, manner: str) -> None:
    births = tmp_path / "births"
    command = (*python(PECULIAR), str(births), manner)
    async with gateway_to(command=command, era="auto") as running:
        client = running.client()
        assert await texts(client, "a", "b", "c") == ["here"] * 3
    assert len(births.read_text().split()) == (4 if "exits" in manner else 3)


@requirement("modern-servers:probe")
async def test_a_silent_process_is_waited_for_a_while_and_shakes_hands_after_all(tmp_path: Path) -> None:
    births, clock = tmp_path / "births", ManualClock()
    command = (*python(PECULIAR), str(births), "says nothing")
    settings = ServerSettings(name="silent", command=command)
    async with asyncio.timeout(60), TaskScope() as scope:
        watchdog = Unwatched(clock)
        connect = Connector(
            settings, lambda: MAX_MESSAGE_BYTES, scope=scope, clock=clock, rng=Random(1), watchdog=watchdog
        )
        first, second = (connect(RecordedListener(), declares=ANYBODY) for _ in range(2))
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(first.open())
            await until(births.exists)
            await clock.advance_settled(6)
        assert opening.result().protocol_version == "2025-06-18"
        assert births.read_text().split() == ["born"], "it is the same process"
        await second.open()
        await first.close()
        await second.close()
    assert clock.pending == 0


@requirement("modern-servers:probe")
async def test_a_handshake_server_over_http_is_asked_once() -> None:
    async with ScriptedServer() as server, gateway_to(server.url, era="auto") as running:
        await texts(running.client(), "a", "b", "c")
        assert discoveries(server) == 1
        assert server.initializes == 3
        assert len(server.calls("echo")) == 3


@requirement("modern-servers:probe")
@pytest.mark.parametrize(("era", "expected"), [("handshake", 0), ("modern", 1), ("auto", 1)])
async def test_the_era_can_be_said_beforehand(era: str, expected: int) -> None:
    options = ServerOptions(era="handshake" if era == "handshake" else "modern")
    async with ScriptedServer(options) as server, gateway_to(server.url, era=era) as running:
        await texts(running.client(), "a")
        assert discoveries(server) == expected
        assert server.initializes == (era == "handshake")


@requirement("modern-servers:probe")
async def test_a_server_that_is_said_to_be_modern_and_is_not_is_not_available() -> None:
    async with ScriptedServer() as server, gateway_to(server.url, era="modern") as running:
        client = running.client()
        async with client.request("POST", client.tool("echo")) as response:
            error = (await response.json())["error"]
        assert error["code"] == -31001
        assert "refused to be discovered" in error["message"]
        assert server.initializes == 0


@requirement("modern-servers:probe")
@pytest.mark.parametrize(("before", "after"), [("handshake", "modern"), ("modern", "handshake")])
async def test_a_server_that_comes_back_in_the_other_era_is_found_out(before: Any, after: Any) -> None:
    async with ScriptedServer(ServerOptions(era=before)) as old, gateway_to(old.url, era="auto") as running:
        client = running.client()
        assert len(await texts(client, "a")) == 1
        await old.stop()
        async with ScriptedServer(ServerOptions(era=after, port=old.port)) as new:
            assert len(await texts(client, "b")) == 1
            await until_answered(client, "a")
            assert discoveries(new) >= 1
            assert new.initializes == (2 if after == "handshake" else 0)


async def until_answered(client: BareClient, chat: str) -> None:
    """Call until the session of a chat has found out that its server is another one: twice at the most."""
    answers: list[Any] = []
    for _ in range(3):
        async with client.request("POST", client.tool("echo"), f"/mcp/upstream/chats/{chat}") as response:
            answers.append(await whole(response))
        if "result" in answers[-1]:
            return
    raise AssertionError(answers)


def refused(status: str, body: dict[str, Any] | None) -> Odd:
    """Answer the question for the era so, and every tool well; None for no answer at all."""

    async def odd(message: dict[str, Any], peer: Peer) -> None:
        if message["method"] == "tools/call":
            peer.write(plain(result_of(message, text("here")), "200 OK", "application/json"))
        elif status == "cut":
            peer.close()
        elif body is None:
            peer.write(plain(b"no", status, "text/plain"))
        else:
            whole = json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}).encode()
            peer.write(plain(whole, status, "application/json"))

    return odd


UNKNOWN = {"error": {"code": -32601, "message": "no such method"}}


@requirement("modern-servers:probe")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("404 Not Found", UNKNOWN),
        ("200 OK", UNKNOWN),
        ("200 OK", {"result": {}}),
        ("200 OK", {"result": {"supportedVersions": ["2025-11-25"]}}),
        ("400 Bad Request", None),
        ("405 Method Not Allowed", None),
        ("406 Not Acceptable", None),
        ("500 Internal Server Error", None),
        ("503 Service Unavailable", None),
        ("202 Accepted", None),
        ("cut", None),
    ],
)
async def test_whatever_else_is_said_to_the_question_a_handshake_follows(status: str, body: dict[str, Any]) -> None:
    async with odd_server(refused(status, body)) as server, gateway_to(server.url, era="auto") as running:
        assert await texts(running.client(), "a", "b") == ["here", "here"]
        assert len(server.methods("server/discover")) == 1
        assert len(server.methods("initialize")) == 2


@requirement("modern-servers:probe")
async def test_a_server_that_never_answers_the_question_is_waited_for_a_while() -> None:
    clock = ManualClock()

    async def odd(message: dict[str, Any], peer: Peer) -> None:
        if message["method"] == "tools/call":
            peer.write(plain(result_of(message, text("here")), "200 OK", "application/json"))

    async with odd_server(odd) as server, gateway_to(server.url, era="auto", clock=clock) as running:
        async with asyncio.TaskGroup() as group:
            said = group.create_task(texts(running.client(), "a"))
            await until(lambda: len(server.methods("server/discover")) == 1)
            await clock.advance_settled(6)
        assert said.result() == ["here"]
        assert len(server.methods("initialize")) == 1


_DISCOVERED: dict[str, Any] = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "ttlMs": 0,
    "cacheScope": "private",
}


async def modern_alone(message: dict[str, Any], peer: Peer) -> None:
    """Speak 2026-07-28; how `initialize` is answered is the greeting's to say."""
    result = _DISCOVERED if message["method"] == "server/discover" else text("here") | {"resultType": "complete"}
    peer.write(plain(result_of(message, result)))


@requirement("both-eras:found-out")
@pytest.mark.parametrize(
    ("status", "body", "tries"),
    [
        ("400 Bad Request", {"error": {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}}, 1),
        ("404 Not Found", UNKNOWN, 1),
        ("200 OK", UNKNOWN, 1),
        ("405 Method Not Allowed", None, 1),
        ("200 OK", {"result": {}}, 1),
        ("500 Internal Server Error", None, 3),
        ("503 Service Unavailable", None, 3),
    ],
)
async def test_a_modern_server_is_used_however_it_refuses_to_shake_hands(
    status: str, body: dict[str, Any] | None, tries: int
) -> None:
    async with odd_server(modern_alone) as server:
        said = b"no" if body is None else json.dumps({"jsonrpc": "2.0", "id": 1, **body}).encode()
        server.to_get = NO_SESSION
        server.greeting = plain(said, status, "text/plain" if body is None else "application/json")
        async with gateway_to(server.url, era="auto") as running:
            chats = "abcdef"
            assert await texts(running.client(), *chats) == ["here"] * len(chats)
        assert len(server.methods("initialize")) == tries
        assert len(server.methods("server/discover")) == len(chats) + tries


def has_tried(server: OddServer, times: int) -> bool:
    return len(server.methods("initialize")) == times


@requirement("both-eras:found-out")
async def test_a_modern_server_that_does_not_answer_a_handshake_is_waited_for_three_times() -> None:
    clock = ManualClock()
    async with odd_server(modern_alone) as server:
        server.to_get = NO_SESSION
        server.greeting = b""
        async with gateway_to(server.url, era="auto", clock=clock) as running, asyncio.TaskGroup() as group:
            said = group.create_task(texts(running.client(), *"abcd"))
            for number in range(1, 4):
                await until(partial(has_tried, server, number))
                await clock.advance_settled(6)
        assert said.result() == ["here"] * 4
        assert len(server.methods("initialize")) == 3


@requirement("both-eras:found-out")
async def test_a_modern_server_with_no_stream_to_get_is_not_asked_to_shake_hands() -> None:
    async with odd_server(modern_alone) as server:
        async with gateway_to(server.url, era="auto") as running:
            assert await texts(running.client(), *"abc") == ["here"] * 3
        assert server.methods("initialize") == []
        assert len(server.methods("server/discover")) == 3
