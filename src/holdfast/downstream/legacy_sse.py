"""Clients of the HTTP+SSE transport of 2024-11-05: one GET stream is the session, every message of theirs is a POST.

All that they are told comes on that stream, answers included. Nothing can be resumed: when the
stream ends so does the client's session, and what runs for it is cancelled, since nobody could
read the answers.
<https://modelcontextprotocol.io/specification/2024-11-05/basic/transports#http-with-sse>
"""

from __future__ import annotations

from typing import Final

from holdfast.call import NOBODY, Result
from holdfast.clock import Clock
from holdfast.downstream.answer import Answer
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.client import abilities_of
from holdfast.downstream.clients import ClientSession, ClientSessions
from holdfast.downstream.handshake import Handshake, requested_revision
from holdfast.downstream.http import Headers, Responder
from holdfast.downstream.post import Post, Target
from holdfast.downstream.refusal import Refusal, session_not_found
from holdfast.downstream.replay import PUSH, EventStream, ReplayBudget
from holdfast.downstream.requests import introduction
from holdfast.errors import CallFailed
from holdfast.servers.service import Conversation, Service
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc, sse
from holdfast.wire.headers import Accepts, parse_accept
from holdfast.wire.jsonrpc import ClientRequest
from holdfast.wire.revisions import HANDSHAKE_REVISIONS, negotiate

REVISION: Final = HANDSHAKE_REVISIONS[0]
"""Of a session until its client has named another."""
_STREAM_ONLY: Final = Accepts(json=False, stream=True, prefers_stream=True)
_NOT_HERE: Final = b"A GET opens the stream here, and the stream names the endpoint to POST to.\n"
_NOT_HERE_HEADERS: Final[Headers] = ((b"content-type", b"text/plain"), (b"allow", b"GET"))


class LiveStream(EventStream):
    """The one stream of a client that cannot come back: nothing is kept, and events bear no ids."""

    def __init__(self, budget: ReplayBudget) -> None:
        super().__init__(PUSH, b"", budget, lambda _: None)
        self.is_initialized = False
        """The client has begun to initialize, and was not refused."""
        self._turns = 0
        self._is_leaving = False

    def emit(self, data: bytes, *, droppable: bool) -> None:
        reader = self._responder
        if reader is None or reader.is_gone:
            return
        if droppable and reader.is_slow:
            self._lose_slow()
        elif droppable and not self.is_initialized:
            self.dropped += 1
        else:
            reader.write(sse.format_event(data))

    def begin_turn(self) -> None:
        """The answer to a POST will come on this stream."""
        self._turns += 1

    def end_turn(self) -> None:
        """It has come."""
        self._turns -= 1
        if self._is_leaving:
            self.send_away()

    def send_away(self) -> None:
        """End the stream, once what runs is answered: it cannot go on elsewhere."""
        self._is_leaving = self._turns > 0
        if not self._is_leaving:
            super().send_away()

    def forget(self) -> None:
        """End the stream at once."""
        self._turns = 0
        super().forget()


class _Turn:
    """Where the events of one answer go: among all others of the session."""

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream
        stream.begin_turn()

    def emit(self, data: bytes, *, droppable: bool) -> None:
        self._stream.emit(data, droppable=droppable)

    def comment(self) -> None:
        """Do nothing: the session's own signs of life are enough."""

    def finish(self, now: float) -> None:  # noqa: ARG002 (nothing is kept, so the time is of no use)
        self._stream.end_turn()


class LegacySse(Handshake):
    """The dialect of these clients: a session as any other, but for its one stream."""

    def __init__(self, sessions: ClientSessions, clock: Clock) -> None:
        super().__init__(sessions, clock)
        self._sessions = sessions
        self._clock = clock

    def open(self, responder: Responder, accept: str | None, target: Target, endpoint: str) -> None:
        """Begin a session whose messages go to `endpoint`, a path. Raises `Refusal`.

        `accept` is the client's `Accept`: unlike at `/mcp`, who asks for nothing in particular takes a stream.
        """
        if accept and "*/*" not in accept and not parse_accept(accept).stream:
            raise Refusal(406, "A GET opens an event stream: accept text/event-stream.")
        client = self._sessions.create(target.service, target.asker({}), REVISION, NOBODY)
        client.began_at_whole = target.is_whole
        stream = LiveStream(self._sessions.budget)
        client.push_stream = client.streams[PUSH] = stream
        stream.attach(responder, gone=lambda: self._sessions.end(client))
        responder.write(b"event: endpoint\ndata: %b?session=%b\n\n" % (endpoint.encode(), client.id.encode()))
        self._sessions.beat(client)

    def refuse_post(self, responder: Responder) -> None:
        """Answer a POST to where the stream is, so that clients which try Streamable HTTP first go on with a GET."""
        responder.answer(405, _NOT_HERE_HEADERS, (_NOT_HERE,))

    def take(self, post: Post, client: ClientSession) -> None:
        """Accept the messages of a client; they are answered on its stream. Raises `Refusal`."""
        stream = client.push_stream
        if not isinstance(stream, LiveStream):
            raise session_not_found()
        requests = post.requests
        if requests and stream.is_slow:
            raise Refusal(429, "The session's stream is not read: read what is there first.")
        if not stream.is_initialized:
            first = post.messages[0]
            if post.is_array or not isinstance(first, ClientRequest) or first.method != "initialize":
                raise Refusal(400, "Initialize first.", request_id=requests[0].id if requests else None)
            self._begin(post, first, client, stream)
        else:
            self.post(post, client)
        post.responder.answer(202, ())

    def _begin(self, post: Post, request: ClientRequest, client: ClientSession, stream: LiveStream) -> None:
        client.revision = negotiate(requested_revision(request))
        capabilities = request.params.get("capabilities")
        client.own_abilities = abilities_of(capabilities if isinstance(capabilities, dict) else {})
        stream.is_initialized = True
        caller = AnswerCaller(self._answer(post, client, 1), jsonrpc.id_bytes(request.id), None)
        asker = post.target.asker(request.params, client.id)

        def introduce() -> None:
            service, conversation = client.service, client.converse(asker)
            conversation.introduce(lambda hello: introduced(hello, service, conversation))

        def introduced(hello: Hello | CallFailed, service: Service, conversation: Conversation) -> None:
            if client.is_ended:
                return
            if client.service is not service:
                introduce()  # another server has taken its place meanwhile
            elif isinstance(hello, CallFailed):
                stream.is_initialized = False  # it may try again
                caller.answer(hello)
            else:
                client.use(conversation)
                caller.answer(Result(introduction(hello, client.revision)))

        introduce()

    def _answer(self, post: Post, client: ClientSession, expected: int) -> Answer:
        stream = client.push_stream
        if not isinstance(stream, LiveStream):
            return super()._answer(post, client, expected)
        return Answer(
            post.responder, _STREAM_ONLY, self._clock, lambda: _Turn(stream), expected=expected, is_array=post.is_array
        )
