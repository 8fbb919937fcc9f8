"""Clients of the handshake era with a session: initialize, POST, GET, DELETE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Raw

from holdfast.call import LOG_LEVELS, NOBODY, Abilities, Ask, AskId, Call, Outcome, Reply, Result, RpcError
from holdfast.clock import Clock
from holdfast.downstream.answer import Answer, PlainStream, Stream
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.clients import ClientSession, ClientSessions, abilities_of
from holdfast.downstream.http import Responder
from holdfast.downstream.post import Post, Target, read_call, without_chat
from holdfast.downstream.refusal import Refusal
from holdfast.downstream.replay import EventStream
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.servers.service import Conversation, Service
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.headers import Accepts
from holdfast.wire.jsonrpc import ClientNotification, ClientReply, ClientRequest
from holdfast.wire.revisions import allows_batches, negotiate

_NONE: Final = Raw(b"{}")
_EMPTY: Final = Result(_NONE)


class SessionCaller(AnswerCaller):
    """The caller of a request in a client session."""

    __slots__ = ("_asks", "_client", "_is_shared")

    def __init__(
        self, answer: Answer, message_id: bytes, token: Raw | None, client: ClientSession, *, is_shared: bool
    ) -> None:
        super().__init__(answer, message_id, token)
        self._client = client
        self._is_shared = is_shared
        self._asks: dict[AskId, int] = {}

    @property
    def abilities(self) -> Abilities:
        if self._client.is_ended:
            return NOBODY
        return self._client.own_abilities if self._answer.takes_stream else self._client.abilities

    @property
    def floor(self) -> str | None:
        return self._client.log_level or ("info" if self._is_shared else None)

    def notify(self, method: str, params: Raw | None) -> None:
        """On the GET stream where this answer is none: unlike progress and logs, it may matter beyond the call."""
        if self._answer.takes_stream:
            super().notify(method, params)
        elif method != "notifications/message":
            self._client.push(method, params)

    def ask(self, ask: Ask) -> None:
        ask_id, message = self._client.put(ask, lambda reply: self._replied(ask.id, reply))
        self._asks[ask.id] = ask_id
        self._tell(message)

    def withdraw(self, ask_id: AskId) -> None:
        message = self._client.take_back(self._asks.pop(ask_id, 0))
        if message is not None:
            self._tell(message)

    def suspend(self) -> None:
        """The server freed its connection until it answers: ours may go too, for who can come back."""
        stream = self._answer.stream
        if self._client.primes and isinstance(stream, EventStream):
            stream.send_away()

    def answer(self, outcome: Outcome) -> None:
        self._client.calls.pop(self._message_id, None)
        super().answer(outcome)

    def send_away(self) -> None:
        """The client's session ends: cancel what nobody can read."""
        if self.running is not None:
            self.running.cancel("the client ended its session")

    def _tell(self, message: bytes) -> None:
        if not self._answer.event(message, droppable=False):
            self._client.push_stream.emit(message, droppable=False)

    def _replied(self, ask_id: AskId, reply: Reply) -> None:
        self._asks.pop(ask_id, None)
        if self.running is not None:
            self.running.reply(ask_id, reply)


class Handshake:
    """The dialect of clients with a session."""

    def __init__(self, sessions: ClientSessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    def initialize(self, post: Post, request: ClientRequest) -> None:
        """Begin a session as soon as it is known what the server is. Raises `Refusal`."""
        params = request.params
        revision = negotiate(requested_revision(request))
        capabilities = params.get("capabilities")
        client = self._sessions.create(
            post.target.service,
            post.target.asker({}),
            revision,
            abilities_of(capabilities if isinstance(capabilities, dict) else {}),
        )
        client.began_at_whole = post.target.is_whole
        headers = ((b"mcp-session-id", client.id.encode()),)
        self._sessions.enter(client)
        answer = Answer(
            post.responder,
            post.accepts,
            self._clock,
            lambda: PlainStream(post.responder, headers),
            expected=1,
            is_array=False,
            headers=headers,
            ended=lambda: self._sessions.leave(client),
        )
        message_id = jsonrpc.id_bytes(request.id)
        asker = post.target.asker(params, client.id)
        caller = AnswerCaller(answer, message_id, None)

        def introduce() -> None:
            service, conversation = client.service, client.converse(asker)
            conversation.introduce(lambda hello: introduced(hello, service, conversation))

        def introduced(hello: Hello | CallFailed, service: Service, conversation: Conversation) -> None:
            if client.service is not service and not client.is_ended:
                introduce()  # another server has taken its place meanwhile
                return
            if client.is_ended and not isinstance(hello, CallFailed):
                hello = _ended(post.target.service.name)
            if isinstance(hello, CallFailed) or post.responder.is_gone:
                self._sessions.end(client)
                answer.headers = ()  # the id means nothing any more
                caller.answer(hello if isinstance(hello, CallFailed) else _EMPTY)
                return
            client.use(conversation)
            caller.answer(Result(introduction(hello, revision)))

        introduce()

    def post(self, post: Post, client: ClientSession) -> None:
        """Take the messages of a client with a session. Raises `Refusal`."""
        if post.is_array and not allows_batches(client.revision):
            raise Refusal(400, f"Arrays are not part of revision {client.revision}: send one message at a time.")
        requests = post.requests
        self._check(requests, client)
        answer = self._answer(post, client, len(requests)) if requests else None
        for message in post.messages:
            if isinstance(message, ClientReply):
                client.replied(message)
            elif isinstance(message, ClientNotification):
                self._notification(post.target, message, client)
            elif answer is not None:
                self._start(post.target, message, answer, client)
        if answer is None:
            self._touch(client)
            post.responder.answer(202, ())

    def _answer(self, post: Post, client: ClientSession, expected: int) -> Answer:
        self._sessions.enter(client)
        done = _Once(lambda: self._sessions.leave(client))
        answer = Answer(
            post.responder,
            post.accepts,
            self._clock,
            lambda: self._open_stream(post.responder, client, done),
            expected=expected,
            is_array=post.is_array,
            ended=done,
        )
        if answer.stream is None:
            post.responder.on_gone = done
        return answer

    def get(self, responder: Responder, accepts: Accepts, client: ClientSession, last_event_id: str | None) -> None:
        """Open the push stream, or resume the stream of the last event seen. Raises `Refusal`."""
        if not accepts.stream:
            raise Refusal(406, "A GET opens an event stream: accept text/event-stream.")
        resumes = last_event_id is not None and not client.is_nameless
        found = client.find_stream(last_event_id) if last_event_id is not None and resumes else None
        self._touch(client)
        if found is not None and found[0] is not client.push_stream:
            found[0].attach(responder, after=found[1], gone=lambda: self._touch(client))
            return
        if found is None and client.push_stream.is_read:
            raise Refusal(409, "This session's push stream is open already: resume it with Last-Event-ID.")
        client.open_push(responder, after=None if found is None else found[1], gone=lambda: self._unread(client))
        self._sessions.beat(client)

    def delete(self, responder: Responder, client: ClientSession) -> None:
        """End the client's session; what it used ends behind the answer."""
        responder.answer(204, ())
        self._sessions.end(client)

    def _unread(self, client: ClientSession) -> None:
        client.rest()
        self._touch(client)

    def _touch(self, client: ClientSession) -> None:
        client.last_used_at = self._clock.now()

    def _open_stream(self, responder: Responder, client: ClientSession, gone: Callable[[], None]) -> Stream:
        stream = client.new_stream(self._clock.now())
        stream.attach(responder, primes=client.primes, gone=gone)
        return stream

    def _check(self, requests: list[ClientRequest], client: ClientSession) -> None:
        for request in requests:
            if request.method == "initialize":
                raise Refusal(400, "This session is initialized already.", request_id=request.id)
            if jsonrpc.id_bytes(request.id) in client.calls:
                raise Refusal(409, "A request with this id is still running.", request_id=request.id)

    def _start(self, target: Target, request: ClientRequest, answer: Answer, client: ClientSession) -> None:
        call, token = read_call(request, target.request)
        conversation = client.converse(target.asker(request.params, client.id))
        client.use(conversation)
        message_id = jsonrpc.id_bytes(request.id)
        caller = SessionCaller(answer, message_id, token, client, is_shared=conversation.is_shared)
        client.calls[message_id] = caller
        match call.method:
            case "ping":
                caller.answer(_EMPTY)
            case "logging/setLevel":
                self._set_level(conversation, call, caller, client)
            case "resources/subscribe":
                caller.begin(conversation.subscribe(call, caller, client))
            case "resources/unsubscribe":
                caller.begin(conversation.unsubscribe(call, caller, client))
            case _:
                caller.begin(conversation.start(call, caller, client))

    def _set_level(self, conversation: Conversation, call: Call, caller: SessionCaller, client: ClientSession) -> None:
        level = call.params.get("level")
        if not isinstance(level, str) or level not in LOG_LEVELS:
            message = f"The level is one of {', '.join(LOG_LEVELS)}."
            caller.answer(RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, message))))
        else:
            caller.begin(conversation.set_level(level, caller, client))

    def _notification(self, target: Target, message: ClientNotification, client: ClientSession) -> None:
        method, params = message.method, message.params
        if method == "notifications/initialized":
            return
        if method == "notifications/cancelled":
            _cancel(message, client)
            return
        raw = Raw(jsonrpc.encode(without_chat(params)))
        if method == "notifications/roots/list_changed":
            for conversation in client.conversations:
                conversation.notify(method, raw, client)
            return
        if method == "notifications/progress" and not client.is_asked_with(jsonrpc.encode(params.get("progressToken"))):
            return  # it belongs to no question of a server to this client
        client.converse(target.asker(params, client.id)).notify(method, raw, client)


def requested_revision(request: ClientRequest) -> str:
    """The revision that an `initialize` asks for. Raises `Refusal`."""
    version = request.params.get("protocolVersion")
    if not isinstance(version, str):
        raise Refusal(400, "initialize needs a protocolVersion.", code=jsonrpc.INVALID_PARAMS, request_id=request.id)
    return version


def introduction(hello: Hello, revision: str) -> Raw:
    """The server's own words, in our revision. Every client may get log messages, if only ours."""
    capabilities = hello.capabilities if "logging" in hello.capabilities else {**hello.capabilities, "logging": _NONE}
    fields = {
        **jsonrpc.decode_fields(hello.raw),
        "protocolVersion": Raw(jsonrpc.encode(revision)),
        "capabilities": Raw(jsonrpc.encode(capabilities)),
    }
    return Raw(jsonrpc.encode(fields))


def _ended(server: str) -> CallFailed:
    return CallFailed(
        Code.UPSTREAM_UNAVAILABLE,
        "The session has ended: the gateway is shutting down, or its settings have changed.",
        server=server,
        delivery=Delivery.NOT_SENT,
        retryable=True,
    )


class _Once:
    """A callback that runs the first time only."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def __call__(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


def _cancel(message: ClientNotification, client: ClientSession) -> None:
    """Only the requests of this very session can be meant."""
    request_id = message.params.get("requestId")
    reason = message.params.get("reason")
    if not isinstance(request_id, int | str | float) or isinstance(request_id, bool):
        return
    call = client.calls.get(jsonrpc.id_bytes(request_id))
    if call is not None:
        call.is_cancelled = True
        if call.running is not None:
            call.running.cancel(reason if isinstance(reason, str) else "the client cancelled")
