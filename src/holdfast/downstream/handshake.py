"""Clients of the handshake era with a session: initialize, POST, GET, DELETE."""

from __future__ import annotations

from msgspec import Raw

from holdfast.call import Abilities, Result
from holdfast.clock import Clock, Deadlines
from holdfast.downstream.answer import SILENCE, Answer, Stream
from holdfast.downstream.brief import BriefCaller, Lane
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.client import abilities_of
from holdfast.downstream.clients import ClientSession, ClientSessions
from holdfast.downstream.http import Responder
from holdfast.downstream.post import Post, Target, Terms, read_call
from holdfast.downstream.refusal import Refusal
from holdfast.downstream.replay import EventStream
from holdfast.downstream.requests import EMPTY, ClientCaller, begin, introduction, take_notification
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.servers.service import Conversation, Service
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.headers import Accepts
from holdfast.wire.jsonrpc import ClientNotification, ClientReply, ClientRequest
from holdfast.wire.revisions import HANDSHAKE_REVISIONS, allows_batches, negotiate


class SessionCaller(ClientCaller[Answer, ClientSession]):
    """The caller of a request in a client session over HTTP."""

    @property
    def abilities(self) -> Abilities:
        return super().abilities if self._answer.takes_stream else self._client.abilities

    def notify(self, method: str, params: Raw | None) -> None:
        """On the GET stream where this answer is none: unlike progress and logs, it may matter beyond the call."""
        if self._answer.takes_stream:
            super().notify(method, params)
        elif method != "notifications/message":
            self._client.push(method, params)

    def suspend(self) -> None:
        """The server freed its connection until it answers: ours may go too, for who can come back."""
        stream = self._answer.stream
        if self._client.primes and isinstance(stream, EventStream):
            stream.send_away()


class _SessionAnswer(Answer):
    """The answer to a POST of a client session, which is busy with it until it has ended or nobody reads it."""

    _is_left = False

    def __init__(
        self,
        responder: Responder,
        accepts: Accepts,
        client: ClientSession,
        sessions: ClientSessions,
        clock: Clock,
        *,
        expected: int = 1,
        is_array: bool = False,
    ) -> None:
        self._client = client
        self._sessions = sessions
        sessions.enter(client)
        super().__init__(responder, accepts, clock, expected=expected, is_array=is_array)
        if self._stream is None:
            responder.on_gone = self._over
            if responder.is_gone:
                self._over()

    def _open(self) -> Stream:
        stream = self._client.new_stream(self._clock.now())
        stream.attach(self._responder, primes=self._client.primes, gone=self._over)
        return stream

    def _over(self) -> None:
        if not self._is_left:
            self._is_left = True
            self._sessions.leave(self._client)


class Handshake:
    """The dialect of clients with a session."""

    def __init__(self, sessions: ClientSessions, clock: Clock) -> None:
        self._sessions = sessions
        self.clock = clock
        self.silences = Deadlines[BriefCaller](clock, SILENCE, self._break_silence)

    def close(self) -> None:
        """Wait for nothing any more: every session has ended."""
        self.silences.close()

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
            self.clock,
            drops=self._sessions.budget.drops,
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
                caller.answer(hello if isinstance(hello, CallFailed) else EMPTY)
                return
            client.use(conversation)
            caller.answer(Result(introduction(hello, revision)))

        introduce()

    def post(self, post: Post, client: ClientSession) -> None:
        """Take the messages of a client with a session. Raises `Refusal`."""
        if post.is_array and not allows_batches(client.revision):
            raise Refusal(400, f"Arrays are not part of revision {client.revision}: send one message at a time.")
        ids = [self._check(request, client) for request in post.requests]
        answer = self._answer(post, client, len(ids)) if ids else None
        remaining = iter(ids)
        for message in post.messages:
            if isinstance(message, ClientReply):
                client.replied(message)
            elif isinstance(message, ClientNotification):
                take_notification(post.target, message, client)
            elif answer is not None:
                self._start(post.target, message, next(remaining), answer, client)
        if answer is None:
            self._touch(client)
            post.responder.answer(202, ())

    def _answer(self, post: Post, client: ClientSession, expected: int) -> Answer:
        return _SessionAnswer(
            post.responder,
            post.accepts,
            client,
            self._sessions,
            self.clock,
            expected=expected,
            is_array=post.is_array,
        )

    # Requests with known heads.

    def lane(self, client: ClientSession, target: Target, terms: Terms) -> Lane | None:
        """What a head with this target and these terms leads to from now on; None where each request is looked at."""
        accepts, version = terms.accepts, terms.version
        if not accepts.json or (accepts.stream and accepts.prefers_stream):
            return None
        if (version is not None and version not in HANDSHAKE_REVISIONS) or client.service is not target.service:
            return None
        conversation = client.used
        if conversation is None or client.converse_with(target, {}) is not conversation:
            return None
        return Lane(self, client, conversation, accepts)

    def expand(self, brief: BriefCaller) -> SessionCaller:
        """See `holdfast.downstream.brief`."""
        lane = brief.lane
        answer = _SessionAnswer(brief.responder, lane.accepts, lane.client, self._sessions, self.clock)
        return SessionCaller(answer, brief.message_id, brief.token, lane.client, lane.conversation)

    def _break_silence(self, brief: BriefCaller) -> None:
        brief.full.way.break_silence()

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
        client.last_used_at = self.clock.now()

    def _check(self, request: ClientRequest, client: ClientSession) -> bytes:
        """The id by which a request is known, if it may run. Raises `Refusal`."""
        if request.method == "initialize":
            raise Refusal(400, "This session is initialized already.", request_id=request.id)
        message_id = jsonrpc.id_bytes(request.id)
        if message_id in client.calls:
            raise Refusal(409, "A request with this id is still running.", request_id=request.id)
        return message_id

    def _start(
        self, target: Target, request: ClientRequest, message_id: bytes, answer: Answer, client: ClientSession
    ) -> None:
        call, token = read_call(request, target.request)
        conversation = client.converse_with(target, request.params)
        if conversation is not client.used:
            client.use(conversation)
        caller = SessionCaller(answer, message_id, token, client, conversation)
        client.calls[message_id] = caller
        begin(call, conversation, caller, client)


def requested_revision(request: ClientRequest) -> str:
    """The revision that an `initialize` asks for. Raises `Refusal`."""
    version = request.params.get("protocolVersion")
    if not isinstance(version, str):
        raise Refusal(400, "initialize needs a protocolVersion.", code=jsonrpc.INVALID_PARAMS, request_id=request.id)
    return version


def _ended(server: str) -> CallFailed:
    return CallFailed(
        Code.UPSTREAM_UNAVAILABLE,
        "The session has ended: the gateway is shutting down, or its settings have changed.",
        server=server,
        delivery=Delivery.NOT_SENT,
        retryable=True,
    )
