"""The client that started us: one MCP message a line on standard input and output, one session for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import Raw, Struct

from holdfast import events
from holdfast.call import NOBODY, Abilities, Result
from holdfast.clock import Clock
from holdfast.config import Limits
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.client import Client, abilities_of
from holdfast.downstream.modern import Modern, Offered, offered
from holdfast.downstream.pipes import LineWriter
from holdfast.downstream.post import Target, check_messages, is_modern, read_call
from holdfast.downstream.refusal import Refusal, bad_message
from holdfast.downstream.replay import Drops
from holdfast.downstream.reply import Array, LineExchange, Reply
from holdfast.downstream.requests import ClientCaller, begin, introduction, take_notification
from holdfast.errors import CallFailed
from holdfast.identity.caller import Identity
from holdfast.servers.service import Service
from holdfast.session.key import Principal
from holdfast.session.running import UNDELIVERABLE
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import BadMessage, ClientMessage, ClientNotification, ClientReply, ClientRequest, RequestId
from holdfast.wire.lines import LineSplitter, Oversized
from holdfast.wire.revisions import MODERN, allows_batches, negotiate

logger = logging.getLogger("holdfast.stdio")

LOCAL: Final = Identity(Principal("local"), None, lacks_user=False)
"""Whoever started the process is its user, and its only one."""

_BEFORE_INITIALIZE: Final = "2025-03-26"
"""What is allowed to a client that negotiated nothing, as where HTTP clients name no revision."""
_FAILED: Final = Refusal(500, "The gateway failed; its log says why.", code=-32603)
_SIGNALS: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    }
)
"""Say that something is not what it was: one that waits to be read says as much as many."""


class PipeClient(Client):
    """The client at the other end: the process is its session."""

    def __init__(self, service: Service, writer: LineWriter) -> None:
        super().__init__(service, LOCAL.principal, _BEFORE_INITIALIZE, NOBODY)
        self.has_begun = False
        """It has initialized: before that, scripts get the answers to what they ask, and nothing else."""
        self._writer = writer

    @property
    def abilities(self) -> Abilities:
        return self.own_abilities if not self.is_ended else NOBODY

    def inform(self, method: str, message: bytes) -> None:
        if not self.has_begun:
            return
        if method in _SIGNALS:
            self._writer.signal(message)
        else:
            self._writer.emit(message, droppable=True)

    def deliver(self, message: bytes) -> None:
        self._writer.emit(message, droppable=False)


class _Line(Struct, frozen=True):
    """A request of 2026-07-28 that came as a line."""

    target: Target
    begin: Callable[[], LineExchange]
    headers: None = None
    terms: None = None
    takes_stream: bool = True


class PipeCaller(ClientCaller[Reply, PipeClient]):
    """The caller of a request that came as a line."""

    @property
    def floor(self) -> str | None:
        return super().floor if self._client.has_begun else "emergency"

    def notify(self, method: str, params: Raw | None) -> None:
        if method != "notifications/message":
            self._client.push(method, params)
        elif self._client.has_begun:
            super().notify(method, params)


class Stdio:
    """The dialect: takes what standard input yields, and writes to a `LineWriter`. A `Reader`.

    Requests of either era may come, in any order: those of 2026-07-28 have no part in the client's session.
    `ended` is set when there is no more input, and everything asked is answered.
    """

    def __init__(
        self,
        service: Service,
        writer: LineWriter,
        clock: Clock,
        limits: Limits,
        *,
        emit: events.Emit = events.unheard,
        offered: Offered = offered,
    ) -> None:
        """`offered` gives the revisions that a client may turn to."""
        self.client = PipeClient(service, writer)
        self.modern = Modern(clock, limits, Drops(), emit, offered)
        self.ended = asyncio.Event()
        self._service = service
        self._writer = writer
        self._clock = clock
        self._request_bytes = limits.request_bytes
        self._lines = LineSplitter(limits.request_bytes)
        self._is_initializing = False
        self._has_ended_input = False

    def feed(self, chunk: bytes) -> None:
        for line in self._lines.feed(chunk):
            if isinstance(line, Oversized):
                self._refuse(Refusal(413, f"The line is larger than {self._request_bytes} bytes: it was skipped."))
            elif text := line.strip():
                self._take_line(text)

    def end_of_input(self) -> None:
        """The client will ask nothing more, and answer nothing; what it asked is still answered."""
        if self._has_ended_input:
            return
        self.feed(b"\n")  # the last line of a script may lack its own
        self._has_ended_input = True
        self.client.own_abilities = NOBODY
        self.client.fall_silent()
        self.modern.listeners.send_away()
        self._check_end()

    def end(self) -> None:
        """The client has left: give up what it asked."""
        self.client.end()
        self.modern.close()

    def _check_end(self) -> None:
        if self._has_ended_input and not self.client.calls and not self._is_initializing:
            self.ended.set()

    def _take_line(self, line: bytes) -> None:
        try:
            self._take(line)
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            logger.exception("a message failed")
            self._refuse(_FAILED)

    def _refuse(self, refusal: Refusal) -> None:
        self._writer.emit(self._error(refusal, refusal.request_id), droppable=False)

    def _error(self, refusal: Refusal, request_id: RequestId | None) -> bytes:
        """Tells why something is not taken up, without the id of a call that this would seem to answer."""
        message_id = jsonrpc.id_bytes(request_id)
        if message_id in self.client.calls:
            message_id = jsonrpc.id_bytes(None)
        return jsonrpc.error(message_id, jsonrpc.error_object(refusal.code, refusal.message, refusal.data))

    def _take(self, line: bytes) -> None:
        """Take the message of a line, or the messages of its array. Raises `Refusal`."""
        try:
            decoded = jsonrpc.decode_client(line)
        except BadMessage as error:
            raise bad_message(error) from None
        if isinstance(decoded, list):
            self._take_array(decoded)
            return
        check_messages(decoded, takes_modern=True)
        if isinstance(decoded, ClientRequest):
            self._check_id(decoded)
            if is_modern(decoded):
                self._take_modern(decoded)
                return
            if decoded.method == "initialize":
                self._initialize(decoded)
                return
        self._take_message(decoded, None)

    def _take_modern(self, request: ClientRequest) -> None:
        """Raises `Refusal`."""
        calls, message_id = self.client.calls, jsonrpc.id_bytes(request.id)

        def over() -> None:
            calls.pop(message_id, None)
            self._check_end()

        def begin() -> LineExchange:
            calls[message_id] = exchange = LineExchange(self._writer, self._clock, over)
            return exchange

        try:
            self.modern.take(_Line(Target(self._service, LOCAL, None), begin), request)
        except Refusal:
            raise
        except Exception:
            logger.exception("a request failed")
            exchange = calls.get(message_id)
            if not isinstance(exchange, LineExchange):
                raise
            exchange.result(jsonrpc.error(message_id, UNDELIVERABLE.raw))

    def _take_array(self, messages: list[ClientMessage]) -> None:
        """Take all messages of an array, or none: then each request is told why. Raises `Refusal`."""
        requests = [message for message in messages if isinstance(message, ClientRequest)]
        try:
            self._check_array(messages, requests)
        except Refusal as refusal:
            if not requests:
                raise
            errors = [self._error(refusal, request.id) for request in requests]
            self._writer.emit(jsonrpc.array(errors), droppable=False)
            return
        array = Array(self._writer, len(requests))
        for message in messages:
            self._take_message(message, array)

    def _check_array(self, messages: list[ClientMessage], requests: list[ClientRequest]) -> None:
        if any(is_modern(request) for request in requests):
            raise Refusal(400, f"Arrays are not part of revision {MODERN}: send one message at a time.")
        if not allows_batches(self.client.revision):
            raise Refusal(400, f"Arrays are not part of revision {self.client.revision}: send one message at a time.")
        check_messages(messages)
        for request in requests:
            if request.method == "initialize":
                raise Refusal(400, "Initialize alone, not in an array.")
            self._check_id(request)

    def _check_id(self, request: ClientRequest) -> None:
        if jsonrpc.id_bytes(request.id) in self.client.calls:
            raise Refusal(409, "A request with this id is still running.", request_id=request.id)

    def _take_message(self, message: ClientMessage, array: Array | None) -> None:
        if isinstance(message, ClientReply):
            self.client.replied(message)
        elif isinstance(message, ClientNotification):
            take_notification(Target(self._service, LOCAL, None), message, self.client)
        else:
            self._start(message, array)

    def _start(self, request: ClientRequest, array: Array | None) -> None:
        client = self.client
        target = Target(self._service, LOCAL, None)
        call, token = read_call(request, target.request)
        conversation = client.converse_with(target, request.params)
        client.use(conversation)
        message_id = jsonrpc.id_bytes(request.id)
        reply = Reply(self._writer, self._clock, array, self._check_end)
        caller = PipeCaller(reply, message_id, token, client, conversation)
        client.calls[message_id] = caller
        begin(call, conversation, caller, client)

    def _initialize(self, request: ClientRequest) -> None:
        """Answer as soon as it is known what the server is. Raises `Refusal`."""
        client, params = self.client, request.params
        if client.has_begun or self._is_initializing:
            raise Refusal(400, "This session is initialized already.", request_id=request.id)
        if not isinstance(params.get("protocolVersion"), str):
            raise Refusal(
                400, "initialize needs a protocolVersion.", code=jsonrpc.INVALID_PARAMS, request_id=request.id
            )
        revision = negotiate(params["protocolVersion"])
        capabilities = params.get("capabilities")
        abilities = abilities_of(capabilities if isinstance(capabilities, dict) else {})
        conversation = client.converse(Target(self._service, LOCAL, None).asker(params, client.id))
        caller = AnswerCaller(
            Reply(self._writer, self._clock, None, self._check_end), jsonrpc.id_bytes(request.id), None
        )

        def introduced(hello: Hello | CallFailed) -> None:
            self._is_initializing = False
            if isinstance(hello, CallFailed):
                caller.answer(hello)
                return
            client.revision, client.has_begun = revision, True
            client.own_abilities = NOBODY if self._has_ended_input else abilities
            caller.answer(Result(introduction(hello, revision)))
            client.use(conversation)
            for each in client.conversations:
                each.offer_roots(client.abilities.roots)

        self._is_initializing = True
        conversation.introduce(introduced)
