"""The ends of a conversation with a server, each keeping what it is told."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from holdfast.call import NOBODY, Answered, Ask, AskId, Fields
from holdfast.upstream.transport import Fault, Receiver, Sent


class RecordedExchange:
    """An `Exchange` that keeps its outcome."""

    def __init__(self) -> None:
        self.outcome: Answered | Fault | None = None
        self._ended = asyncio.Event()
        self.abilities = NOBODY

    async def ended(self) -> Answered | Fault:
        await self._ended.wait()
        assert self.outcome is not None
        return self.outcome

    def answered(self, outcome: Answered) -> None:
        self._end(outcome)

    def failed(self, fault: Fault) -> None:
        self._end(fault)

    def _end(self, outcome: Answered | Fault) -> None:
        assert self.outcome is None, "ended twice"
        self.outcome = outcome
        self._ended.set()

    def alive(self) -> None: ...

    def progress(self, update: Fields) -> None: ...

    def log(self, params: Raw) -> None: ...

    def notify(self, method: str, params: Raw | None) -> None: ...

    def ask(self, ask: Ask) -> None: ...

    def withdraw(self, ask_id: AskId) -> None: ...

    def suspend(self) -> None: ...


class RecordedListener:
    """A `Listener` that keeps what was pushed."""

    def __init__(self) -> None:
        self.pushes: list[str] = []
        self.asks: list[str] = []
        self.late_asks: list[str] = []
        self.has_push = False

    def pushed(self, method: str, params: Raw | None) -> None:
        self.pushes.append(method)

    def asked(self, ask: Ask) -> None:
        self.asks.append(ask.method)

    def asked_too_late(self, ask: Ask) -> None:
        self.late_asks.append(ask.method)

    def withdrawn(self, ask_id: AskId) -> None: ...

    def push_stream(self, is_up: bool) -> None:
        self.has_push = is_up

    def suspected(self, fault: Fault) -> None: ...

    def lost(self, fault: Fault) -> None: ...


class _Sent:
    def cancel(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class RecordedLink:
    """A `Link` that keeps what it was given; the test speaks to `receiver` in its place."""

    is_stateless = False

    def __init__(self) -> None:
        self.receiver: Receiver
        self.requests: list[int] = []
        self.posts: list[bytes] = []
        self.answered: list[int] = []
        """The requests that were answered elsewhere."""

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def request(self, request_id: int, message: bytes) -> Sent:
        self.requests.append(request_id)
        return _Sent()

    def answered_elsewhere(self, request_id: int) -> None:
        self.answered.append(request_id)

    def post(self, message: bytes) -> None:
        self.posts.append(message)

    def established(self, protocol_version: str) -> None: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...
