"""Ten thousand messages that no honest server sends: each call is answered once, and hears only its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from bare_client import BareClient
from faults.hostile_messages import EVENT_JUNK, Talk, event
from faults.odd_server import ACCEPTED, OddServer
from faults.raw_http import Answer, Closed, post, raw_connection
from faults.rig import Rig, call, code_of, gateway_to, text_of, together
from holdfast.config import ClientSettings, key_digest
from holdfast.testing.clock import settle
from processes import ROOT
from requirements import requirement
from rows import Figure, row
from unit.scripted_http import Peer, SeenRequest, chunk, scripted, stream_head

CALLS: Final = 2_700
LINES: Final = 1_000
"""Calls over stdio."""
CALLERS: Final = 24
CLIENTS: Final = tuple(ClientSettings(name=name, key_digests=(key_digest(name),)) for name in ("ann", "bob", "eve"))
"""Each is a principal of its own, and all share one session of the server."""
PATIENCE: Final = 120.0
"""Seconds within which a call is answered: it may be resumed several times."""
ACCEPTS: Final = ("application/json, text/event-stream", "application/json", "text/event-stream", "*/*")
SECRET: Final = re.compile(rb"cnry[0-9a-f]{16}")


class HostileServer(OddServer):
    """Answers the tool `storm` with whatever the call's number stands for, and pushes nonsense."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = self.storm
        self.malformed = 0
        self.open: dict[int, str] = {}
        """The secrets of the calls that are not answered."""
        self.pushing: list[Peer] = []

    async def answer(self, request: SeenRequest, peer: Peer) -> None:
        if request.method == "GET" and "last-event-id" not in request.headers:
            self.pushing.append(peer)
            peer.write(stream_head())
        elif request.method == "POST" and b'"method"' not in request.body:
            peer.write(ACCEPTED)
        else:
            await super().answer(request, peer)

    async def storm(self, message: dict[str, Any], peer: Peer) -> None:
        arguments = message["params"]["arguments"]
        rng = Random(arguments["number"])
        self.open[message["id"]] = arguments["secret"]
        await settle(rng.randint(1, 20))
        del self.open[message["id"]]
        talk = Talk(rng, message["id"], arguments["secret"], self.open)
        pieces, closes = talk.http()
        for piece in pieces:
            peer.write(piece)
            await settle(1)
        if closes:
            peer.close()
        push = Talk(rng, 0, "nobody", self.open)
        for one in (peer for peer in self.pushing if not peer.has_ended):
            one.write(chunk(event(push.odd(), b"\n") + rng.choice(EVENT_JUNK)))
        self.malformed += talk.count + push.count


class Storm:
    """Calls the tool, and judges what comes back."""

    def __init__(self, rig: Rig, calls: int) -> None:
        self.rig = rig
        self.numbers = iter(range(calls))
        self.owners: dict[bytes, tuple[int, BareClient]] = {}
        """Whose secret is whose: the number of the call, and its client."""
        self.codes: Counter[int | None] = Counter()
        self.good = 0
        self.counted = 0
        """What the honest call gave back last."""

    async def run(self, clients: Sequence[BareClient]) -> None:
        """Make all calls, while each client reads its push stream, and end the clients' sessions."""
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(self.listen(client))
            await together(*(self.shout(client) for client in itertools.islice(itertools.cycle(clients), CALLERS)))
            await self.rig.at_rest()
            await self.check(clients[0])
            for client in clients:
                assert await client.status("DELETE") == 204

    async def shout(self, client: BareClient) -> None:
        for number in self.numbers:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.call(client, number)
                    if number % 100 == 0:
                        await self.check(client)
            except BaseException as error:
                error.add_note(f"call {number}")
                raise

    async def call(self, client: BareClient, number: int) -> None:
        rng = Random(number)
        secret = f"cnry{rng.randbytes(8).hex()}"
        self.owners[secret.encode()] = number, client
        params = {
            "name": "storm",
            "arguments": {"number": number, "secret": secret},
            "_meta": {"progressToken": f"t{number}"},
        }
        body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        fields = [*client.headers.items(), ("accept", rng.choice(ACCEPTS))]
        async with raw_connection(self.rig.port) as connection:
            connection.write(post(json.dumps(body).encode(), fields))
            self.judge(number, client, await connection.answer())

    def judge(self, number: int, client: BareClient, answer: Answer) -> None:
        """One answer with our id, that any client can read, and nothing of another call."""
        assert answer.status == 200, answer
        for secret in SECRET.findall(answer.body):
            assert self.owners.get(secret, (number, client)) == (number, client), answer
        messages = answer.messages()
        answers = [message for message in messages if "method" not in message]
        assert len(answers) == 1, messages
        assert messages[-1] is answers[0]
        assert answers[0]["id"] == number
        error = answers[0].get("error")
        if error is None:
            assert isinstance(answers[0]["result"], dict), answers
        else:
            assert isinstance(error["code"], int), error
            assert isinstance(error["message"], str), error
        for message in messages[:-1]:
            if message["method"] == "notifications/progress":
                assert message["params"]["progressToken"] == f"t{number}"
        self.codes[None if error is None else error["code"]] += 1

    async def listen(self, client: BareClient) -> None:
        """Read the push stream to its end: of calls, the questions of our own whose answers are no streams."""
        async with raw_connection(self.rig.port) as connection:
            connection.write(post(b"", client.headers.items(), method="GET"))
            assert (await connection.answer("GET")).status == 200
            try:
                while True:
                    for secret in SECRET.findall(heard := await connection.chunk()):
                        assert self.owners[secret][1] is client, heard
            except Closed:
                return

    async def check(self, client: BareClient) -> None:
        """An honest call works. It may meet a connection that the server closes in this moment, or a long pause."""
        while code_of(answer := await call(client, "count")) in {-31002, -31003}:
            pass
        self.counted = int(text_of(answer))
        self.good += 1


async def opened(rig: Rig, key: str) -> BareClient:
    """The client with this key, and a session."""
    client = rig.client()
    client.headers["authorization"] = f"Bearer {key}"
    await client.open("2025-06-18")  # from 2025-11-25 on, a server that ends its stream may have ours ended too
    return client


@row(23)
@requirement("faults:hostile:messages")
async def test_whatever_a_server_says_over_http_each_call_is_answered_once_with_its_own(figure: Figure) -> None:
    server = HostileServer()
    async with (
        scripted(server.answer) as server.http,
        gateway_to(server.url, within=280, scope="shared", clients=CLIENTS, call_timeout=2.0, ask_timeout=1.0) as rig,
    ):
        storm = Storm(rig, CALLS)
        await storm.run([await opened(rig, settings.name) for settings in CLIENTS])
    assert sum(storm.codes.values()) == CALLS
    assert server.malformed >= 10_000
    figure(
        f"{server.malformed:,} malformed messages over HTTP: {CALLS:,} calls answered once each,"
        f" 0 foreign secrets, {storm.good} good calls between them"
    )


@row(23)
@requirement("faults:hostile:messages")
async def test_whatever_a_server_says_over_stdio_each_call_is_answered_once_with_its_own(figure: Figure) -> None:
    settings: dict[str, Any] = {
        "command": (sys.executable, "-m", "faults.hostile_stdio"),
        "env": {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests")))},
        "scope": "shared",
        "call_timeout": 5.0,
    }
    async with gateway_to(within=280, clients=CLIENTS, **settings) as rig:
        storm = Storm(rig, LINES)
        await storm.run([await opened(rig, settings.name) for settings in CLIENTS])
    assert sum(storm.codes.values()) == LINES
    assert storm.counted >= 5_000
    figure(
        f"{storm.counted:,} malformed lines over stdio: {LINES:,} calls answered once each, 0 foreign secrets,"
        f" {storm.good} good calls between them"
    )
