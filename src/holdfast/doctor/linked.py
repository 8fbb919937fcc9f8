"""Sessions whose transport is one stream or one process: stdio, and the HTTP+SSE of 2024-11-05."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Raw

from holdfast.clock import Clock, timeout
from holdfast.doctor.conversation import INITIALIZE, Conversation, Patience, modern_params
from holdfast.doctor.http import refusal, revision_of
from holdfast.doctor.reply import Reply, settle, short
from holdfast.errors import OpenFailed
from holdfast.upstream.transport import Fault, FaultKind, Link
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ServerMessage


class _Asked:
    """A request under way."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class LinkedSession:
    """One session over a link of its own; a `Receiver` for what comes."""

    def __init__(self, link: Link, clock: Clock, patience: Patience, *, is_modern: bool = False) -> None:
        self._link = link
        self._clock = clock
        self._patience = patience
        self._is_modern = is_modern
        self._ids = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._tokens: list[object] = []
        self._fault: Fault | None = None
        self._has_ended = False

    async def start(self) -> None:
        """Start the process. Raises `OpenFailed`."""
        await self._link.start(self)

    def established(self, revision: str) -> None:
        """The handshake is done."""
        self._link.established(revision)
        self._link.post(jsonrpc.notification("notifications/initialized"))

    async def ask(self, method: str, params: Mapping[str, Any] | None = None, *, within: float | None = None) -> Reply:
        number, asked, begun = next(self._ids), _Asked(), self._clock.now()
        reply, limit = asked.reply, within or self._patience.answer
        if self._fault is not None:
            return Reply(words=short(self._fault.detail))
        self._asked[number] = asked
        heard = len(self._tokens)
        whole = modern_params(params or {}) if self._is_modern else params
        sent = self._link.request(number, jsonrpc.request(number, method, whole))
        try:
            async with timeout(self._clock, limit):
                await asked.done
        except TimeoutError:
            reply.words = f"no answer within {limit:.2g} s"
            sent.cancel("it took too long")
        finally:
            self._asked.pop(number, None)
        reply.seconds = self._clock.now() - begun
        reply.tokens = tuple(self._tokens[heard:])
        return reply

    async def end(self) -> Reply:
        begun = self._clock.now()
        if not self._has_ended:
            self._has_ended = True
            await self._link.close()
        return Reply(kind="empty", seconds=self._clock.now() - begun)

    async def reconnect(self) -> bool:
        return False

    def terminate(self) -> None:
        """Drop it at once; a process is killed."""
        self._has_ended = True
        self._link.terminate()

    # What the link reports.

    def received(self, message: bytes, request_id: int | None, envelope: ServerMessage | None = None) -> None:
        del request_id, envelope  # there is one stream, and the answer says whose it is
        for part in jsonrpc.decode_items(message) or [Raw(message)]:
            self._take(bytes(part))

    def failed(self, request_id: int, fault: Fault) -> None:
        if (asked := self._asked.get(request_id)) is not None:
            asked.reply.words = short(fault.detail)
            asked.reply.is_unsent = fault.kind is FaultKind.NOT_SENT
            asked.finish()

    def lost(self, fault: Fault) -> None:
        self._fault = fault
        for number in list(self._asked):
            self.failed(number, fault)

    def suspended(self, request_id: int) -> None: ...

    def push_stream(self, is_up: bool) -> None: ...

    def suspected(self, fault: Fault) -> None: ...

    def _take(self, message: bytes) -> None:
        try:
            envelope = jsonrpc.decode_server(message)
        except ValueError:
            return
        if envelope.method == "notifications/progress":
            token = jsonrpc.decode_fields(envelope.params).get("progressToken", b"null")
            self._tokens.append(jsonrpc.decode_value(token))
        elif envelope.method is not None and envelope.id:
            self._link.post(refusal(envelope))
        elif envelope.method is None and envelope.own_id in self._asked:
            asked = self._asked[envelope.own_id]
            self._link.answered_elsewhere(envelope.own_id)
            settle(asked.reply, envelope)
            asked.finish()


class LinkOpener:
    """Opens sessions, each over a link of its own; whoever has it calls `close`."""

    def __init__(self, new_link: Callable[[], Link], clock: Clock, patience: Patience) -> None:
        self._new_link = new_link
        self._clock = clock
        self._patience = patience
        self._sessions: list[LinkedSession] = []

    async def open(self) -> tuple[Reply, LinkedSession | None]:
        session, reply = await self._start("initialize", INITIALIZE, is_modern=False)
        revision = revision_of(reply.result)
        if revision is None:
            return reply, None  # `close` ends it
        session.established(revision)
        return reply, session

    async def discover(self) -> tuple[Reply, Conversation]:
        session, reply = await self._start("server/discover", {}, is_modern=True)
        return reply, session

    async def close(self) -> None:
        """End every session that was opened; cancelled, it kills what is left."""
        try:
            async with asyncio.TaskGroup() as group:
                for session in self._sessions:
                    group.create_task(session.end())
        finally:
            for session in self._sessions:
                session.terminate()

    async def _start(self, method: str, params: Mapping[str, Any], *, is_modern: bool) -> tuple[LinkedSession, Reply]:
        session = LinkedSession(self._new_link(), self._clock, self._patience, is_modern=is_modern)
        self._sessions.append(session)
        begun, limit = self._clock.now(), self._patience.opening
        try:
            async with timeout(self._clock, limit):
                await session.start()
        except OpenFailed as error:
            return session, Reply(words=short(str(error)), is_unsent=True)
        except TimeoutError:
            return session, Reply(words=f"not started within {limit:.2g} s")
        left = max(0.01, limit - (self._clock.now() - begun))
        reply = await session.ask(method, params, within=left)
        reply.seconds = self._clock.now() - begun
        return session, reply
