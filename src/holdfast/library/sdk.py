"""The official SDK's client on a kept session: messages in memory instead of bytes on a wire."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCMessage
from msgspec import Raw
from pydantic import TypeAdapter

from holdfast.clock import Clock
from holdfast.config import Limits
from holdfast.downstream.pipes import LineWriter
from holdfast.downstream.stdio import Stdio
from holdfast.identity.asker import Asker
from holdfast.servers.server import ServerConversation
from holdfast.servers.service import Conversation
from holdfast.tasks import TaskScope
from holdfast.wire.revisions import SERVED, WITH_SESSIONS

_MESSAGES: Final[TypeAdapter[JSONRPCMessage]] = TypeAdapter(JSONRPCMessage)
"""In the types of the SDK that is there: 1 has others than 2."""

Streams: TypeAlias = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]
"""What the SDK's `Client` reads, and writes."""


@asynccontextmanager
async def connect(conversation: ServerConversation, clock: Clock, limits: Limits) -> AsyncGenerator[Streams]:
    """A client's end of `conversation`; leaving ends what the client has under way."""
    # Unbounded: the client takes what comes in the same loop, and what may be dropped waits in no socket.
    to_client, read = anyio.create_memory_object_stream[SessionMessage | Exception](math.inf)
    write, from_client = anyio.create_memory_object_stream[SessionMessage](0)
    writer = LineWriter()
    writer.connect(_Messages(to_client))
    server = conversation.server

    def offered(_: Conversation) -> Sequence[str]:
        """What the server itself would: in the other era some of what a client hears is said differently."""
        hello = server.catalog.hello
        return SERVED if hello is None or hello.is_modern or hello.speaks_both else WITH_SESSIONS

    dialect = Stdio(_Leased(conversation), writer, clock, limits, offered=offered)

    async def take() -> None:
        async for message in from_client:
            dialect.feed(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")

    async with TaskScope() as scope, to_client, read, write, from_client:
        scope.start(take(), f"serve a client of {server.name}")
        try:
            yield read, write
        finally:
            writer.connection_lost(None)
            dialect.end()


class _Messages:
    """A `Sink` of lines that hands messages over."""

    def __init__(self, to_client: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        self._to_client = to_client

    def write(self, data: bytes) -> None:
        try:
            item: SessionMessage | Exception = SessionMessage(_MESSAGES.validate_json(data, by_name=False))
        except ValueError as error:
            item = error
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # the client has left
            self._to_client.send_nowait(item)


class _Leased:
    """A `Service` of which every request is of one conversation."""

    footing = None

    def __init__(self, conversation: ServerConversation) -> None:
        self._conversation = conversation
        self.passes = frozenset[str]()

    @property
    def name(self) -> str:
        return self._conversation.server.name

    @property
    def is_common(self) -> bool:
        return self._conversation.server.is_common

    @property
    def server_info(self) -> Raw | None:
        return self._conversation.server.server_info

    def converse(self, asker: Asker) -> ServerConversation:
        return ServerConversation(self._conversation.server, self._conversation.key, asker)
