"""A conversation of 2026-07-28 over a link that the test speaks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from holdfast.call import Abilities, Ask, Call, Declared
from holdfast.testing.clock import ManualClock
from holdfast.upstream.modern import ModernUpstream
from holdfast.upstream.modern_answer import MirroredArguments
from holdfast.upstream.transport import Hello, Receiver, Sent
from unit.recorded_upstream import RecordedExchange, RecordedListener

DISCOVERY: Final[dict[str, Any]] = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}},
    "instructions": "Be kind.",
    "ttlMs": 1,
    "cacheScope": "public",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
}
ALL: Final = Abilities(elicitation_form=True, elicitation_url=True, sampling=True, roots=True)


class Line:
    """A `ModernLink` that keeps what was sent; the test answers in the server's place."""

    def __init__(self) -> None:
        self.receiver: Receiver
        self.sent: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled: list[int] = []
        self.discovery: dict[str, Any] | None = {"result": DISCOVERY}
        """What the discovery is answered with."""
        self.agrees_to: dict[str, bool] | None = {"toolsListChanged": True}
        """What a subscription is acknowledged with; None: the test does it."""

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def request(self, request_id: int, message: bytes, headers: Iterable[tuple[str, str]]) -> Sent:
        self.sent.append(json.loads(message))
        self.raw.append(message)
        self.headers.append(dict(headers))
        soon = asyncio.get_running_loop().call_soon
        if self.last["method"] == "server/discover" and self.discovery is not None:
            soon(partial(self.say, request_id, **self.discovery))
        elif self.last["method"] == "subscriptions/listen" and self.agrees_to is not None:
            soon(partial(self.acknowledge, **self.agrees_to))
        return _Cancellable(self, request_id)

    def established(self, protocol_version: str) -> None: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...

    @property
    def last(self) -> dict[str, Any]:
        return self.sent[-1]

    def ids(self, method: str) -> list[int]:
        return [message["id"] for message in self.sent if message["method"] == method]

    def say(self, request_id: int, **fields: Any) -> None:
        """Answer a request."""
        self.receiver.received(json.dumps({"jsonrpc": "2.0", "id": request_id, **fields}).encode(), request_id)

    def tell(self, request_id: int, method: str, **params: Any) -> None:
        """Send a notification on a request's stream."""
        self.receiver.received(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode(), request_id)

    def acknowledge(self, *uris: str, **kinds: bool) -> int:
        """Agree to the last subscription."""
        request_id = self.ids("subscriptions/listen")[-1]
        honoured = {**kinds, **({"resourceSubscriptions": uris} if uris else {})}
        self.tell(request_id, "notifications/subscriptions/acknowledged", notifications=honoured)
        return request_id


class _Cancellable:
    def __init__(self, line: Line, request_id: int) -> None:
        self._line = line
        self._request_id = request_id

    def cancel(self, reason: str) -> None:
        self._line.cancelled.append(self._request_id)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Asked(RecordedExchange):
    """An exchange whose caller can be asked anything, and keeps the questions."""

    def __init__(self, abilities: Abilities = ALL) -> None:
        super().__init__()
        self.abilities = abilities
        self.asks: list[Ask] = []

    def ask(self, ask: Ask) -> None:
        self.asks.append(ask)


class Conversation:
    """An open conversation and its surroundings."""

    def __init__(self, *, declares: bool = True) -> None:
        self.line = Line()
        self.clock = ManualClock()
        self.listener = RecordedListener()
        self.upstream = ModernUpstream(
            self.line,
            self.listener,
            declares=declares,
            mirrored=MirroredArguments(),
            clock=self.clock,
            jitter=lambda: 1.0,
        )
        self.hello: Hello

    def call(self, exchange: RecordedExchange, method: str = "tools/call", **params: Any) -> Sent:
        return self.upstream.send(Call(method, params or {"name": "t", "arguments": {}}), exchange)

    def declare(self, exchange: RecordedExchange, log_level: str | None = None, **said: Any) -> Sent:
        """A call of a caller of the same revision."""
        call = Call("tools/call", {"name": "t"}, declared=Declared(**said), log_level=log_level)
        return self.upstream.send(call, exchange)

    def require(self, state: str | None = "s", **requests: Any) -> None:
        """Answer the last request with questions."""
        fields = {} if state is None else {"requestState": state}
        self.line.say(
            self.line.last["id"], result={"resultType": "input_required", "inputRequests": requests, **fields}
        )


@asynccontextmanager
async def conversing(*, declares: bool = True) -> AsyncGenerator[Conversation]:
    """A conversation that was opened; the server agreed to announce changes of its tools."""
    conversation = Conversation(declares=declares)
    async with asyncio.timeout(60):
        conversation.hello = await conversation.upstream.open()
        conversation.line.agrees_to = None
        yield conversation
    conversation.upstream.terminate()
    assert conversation.clock.pending == 0
