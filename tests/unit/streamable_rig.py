"""A Streamable HTTP link against a scripted server, with everything around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from holdfast.tasks import TaskScope
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.streamable_http import StreamableHttpLink
from holdfast.upstream.transport import Fault
from unit.scripted_http import (
    Answer,
    Peer,
    RecordingReceiver,
    ScriptedServer,
    SeenRequest,
    WatchedClock,
    plain,
    scripted,
)

INITIALIZE = b'{"jsonrpc":"2.0","id":1,"method":"initialize"}'
CALL = b'{"jsonrpc":"2.0","id":2,"method":"tools/call"}'
ANSWER_1 = b'{"jsonrpc":"2.0","id":1,"result":{}}'
ANSWER_2 = b'{"jsonrpc":"2.0","id":2,"result":{"content":[]}}'
PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
REFUSAL = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"No valid session ID provided"}}'
SESSION = "s3cr3t-session"
WELCOME = plain(ANSWER_1, "200 OK", "application/json", f"Mcp-Session-Id: {SESSION}")
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
NO_GET = b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n"


def event(message: bytes, event_id: str | None = None) -> bytes:
    prefix = b"id: %b\n" % event_id.encode() if event_id is not None else b""
    return b"%bdata: %b\n\n" % (prefix, message)


@dataclass
class Rig:
    """A link and all that is around it."""

    server: ScriptedServer
    client: HttpClient
    clock: WatchedClock
    receiver: RecordingReceiver
    link: StreamableHttpLink

    async def open(self, *, with_session: bool = True) -> None:
        """`initialize` is answered; with an id, if the test wants one."""
        rest, self.server.answer = self.server.answer, answering(WELCOME if with_session else plain(ANSWER_1))
        self.link.request(1, INITIALIZE)
        assert await self.receiver.outcome(1) == ANSWER_1
        self.server.answer = rest
        self.link.established("2025-11-25")

    async def call(self, request_id: int = 2, message: bytes = CALL) -> bytes | Fault:
        self.link.request(request_id, message)
        return await self.receiver.outcome(request_id)

    async def fault(self) -> Fault:
        outcome = await self.call()
        assert isinstance(outcome, Fault)
        assert SESSION not in outcome.detail
        assert "t0ken" not in outcome.detail
        return outcome


@asynccontextmanager
async def rig(answer: Answer, *, wants_push: bool = False, max_message_bytes: int = 65536) -> AsyncGenerator[Rig]:
    async with asyncio.timeout(60), scripted(answer) as server, TaskScope() as scope:
        clock = WatchedClock()
        client = HttpClient(server.url, scope, clock)
        receiver = RecordingReceiver()
        link = StreamableHttpLink(
            client,
            "/mcp",
            {"Authorization": "Bearer t0ken"},
            clock,
            wants_push=wants_push,
            max_message_bytes=max_message_bytes,
            jitter=lambda: 0.0,
        )
        await link.start(receiver)
        try:
            yield Rig(server, client, clock, receiver, link)
        finally:
            link.terminate()
            client.close()
            assert clock.manual.pending == 0, "a timer was left behind"


def answering(*answers: bytes) -> Answer:
    """Answers in turn, the last one again and again."""
    left = list(answers)

    async def answer(request: SeenRequest, peer: Peer) -> None:
        peer.write(left.pop(0) if len(left) > 1 else left[0])

    return answer
