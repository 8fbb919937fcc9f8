"""The usual request of a client session: it comes with a head that came before, and its answer comes first and soon."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import Abilities, Ask, AskId, Call, Fields, Outcome, Result, Running, Status
from holdfast.clock import Clock, Deadlines
from holdfast.downstream.answer import FAILED, JSON_HEADERS, Answer
from holdfast.downstream.callers import encode_outcome, put_in_words
from holdfast.downstream.clients import ClientSession
from holdfast.downstream.http import HttpResponder
from holdfast.downstream.post import CHAT_KEY, read_call
from holdfast.downstream.requests import ClientCaller
from holdfast.servers.service import Conversation
from holdfast.session.running import UNDELIVERABLE
from holdfast.wire import jsonrpc
from holdfast.wire.headers import Accepts
from holdfast.wire.revisions import ENVELOPE_KEYS

logger = logging.getLogger("holdfast.http")

_ELSEWHERE: Final = frozenset(
    {
        *("initialize", "server/discover", "ping", "logging/setLevel"),
        *("resources/subscribe", "resources/unsubscribe"),
    }
)
"""Methods that are not just passed on."""


class Dialect(Protocol):
    """What takes over a request that turns out to be more than usual."""

    @property
    def clock(self) -> Clock:
        """Tells when a client was here."""
        ...

    @property
    def silences(self) -> Deadlines[BriefCaller]:
        """The requests of which nothing was heard so far, and that would rather have a stream than silence."""
        ...

    def expand(self, brief: BriefCaller) -> ClientCaller[Answer, ClientSession]:
        """The caller that goes on in place of `brief`."""
        ...


class Lane:
    """What a head leads to: a client session and the conversation that it used last. It holds as long as that does."""

    def __init__(self, dialect: Dialect, client: ClientSession, conversation: Conversation, accepts: Accepts) -> None:
        """`accepts` JSON, and rather that than a stream."""
        self.dialect = dialect
        self.client = client
        self.conversation = conversation
        self.accepts = accepts
        self.silences = dialect.silences if accepts.stream else None
        """None where the client takes no stream."""
        self.now = dialect.clock.now

    def take(self, responder: HttpResponder, body: bytes) -> bool:
        """Answer the request in `body`; False where it is not a usual one, and nothing has been done."""
        client, conversation = self.client, self.conversation
        if client.used is not conversation:
            return False  # it has ended, has moved, or speaks of something else
        request = jsonrpc.decode_usual(body)
        if request is None or request.method in _ELSEWHERE:
            return False
        message_id = jsonrpc.id_bytes(request.id)
        if message_id in client.calls:
            return False
        params, token = request.params, None
        meta = params.get("_meta")
        if meta is None:
            call = Call(request.method, params, False, responder.request_id)
        elif not isinstance(meta, dict) or CHAT_KEY in meta or not ENVELOPE_KEYS.isdisjoint(meta):
            return False
        else:
            call, token = read_call(request, responder.request_id)
        client.calls[message_id] = caller = BriefCaller(self, responder, message_id, token)
        client.requests += 1
        responder.on_gone = caller.leave
        if self.silences is not None:
            self.silences.add(caller)
        try:
            running = conversation.start(call, caller, client)
        except Exception:
            logger.exception("a request failed")
            caller.answer(UNDELIVERABLE)
        else:
            caller.begin(running)
        return True


class BriefCaller:
    """The caller of a usual request. Whatever comes before the answer, or a long silence, makes it a full one."""

    running: Running | None = None
    _full: ClientCaller[Answer, ClientSession] | None = None
    _is_answered = False
    _is_left = False
    """Nobody reads the answer, or it has been given: the client is not busy with it."""

    def __init__(self, lane: Lane, responder: HttpResponder, message_id: bytes, token: Raw | None) -> None:
        self.lane = lane
        self.responder = responder
        self.message_id = message_id
        self.token = token

    @property
    def full(self) -> ClientCaller[Answer, ClientSession]:
        """The caller that it has become, from now on."""
        full = self._full
        if full is None:
            lane = self.lane
            if lane.silences is not None:
                lane.silences.discard(self)
            self._full = full = lane.dialect.expand(self)  # which the client is busy with in turn
            if not self._is_left:
                self.leave()
            full.running, self.running = self.running, None
            if lane.client.calls.get(self.message_id) is self:
                lane.client.calls[self.message_id] = full
        return full

    def leave(self) -> None:
        """The client left, or has what it came for."""
        self._is_left = True
        client = self.lane.client
        client.requests -= 1
        client.last_used_at = self.lane.now()

    def begin(self, running: Running | None) -> None:
        """Hold the call that is under way; it may have been answered before this is known."""
        if self._full is not None:
            if not self._is_answered:
                self._full.running = running
        elif not self._is_answered:
            self.running = running

    def answer(self, outcome: Outcome) -> None:
        if self._is_answered:
            return
        self._is_answered = True
        self.running = None  # it holds us: a cycle per call would keep the garbage collector busy
        if self._full is not None:
            self._full.answer(outcome)
            return
        lane, responder = self.lane, self.responder
        lane.client.calls.pop(self.message_id, None)
        if not self._is_left:
            self.leave()
        if lane.silences is not None:
            lane.silences.discard(self)
        try:
            if type(outcome) is Result:
                parts = (b'{"jsonrpc":"2.0","id":%b,"result":' % self.message_id, outcome.raw, b"}")
                responder.answer(200, JSON_HEADERS, parts)
            else:
                message = put_in_words(self.message_id, outcome, partial(encode_outcome, self.message_id))
                responder.answer(200, JSON_HEADERS, (message,))
        except Exception:
            responder.answer(500, JSON_HEADERS, (FAILED,))
            raise

    @property
    def abilities(self) -> Abilities:
        if self._full is not None or self.lane.silences is None or self.responder.is_gone:
            return self.full.abilities
        return self.lane.client.own_abilities

    def status(self, status: Status) -> None:
        self.full.status(status)

    def progress(self, update: Fields) -> None:
        (self._full or self.full).progress(update)

    def log(self, params: Raw) -> None:
        self.full.log(params)

    def notify(self, method: str, params: Raw | None) -> None:
        self.full.notify(method, params)

    def ask(self, ask: Ask) -> None:
        self.full.ask(ask)

    def withdraw(self, ask_id: AskId) -> None:
        self.full.withdraw(ask_id)

    def suspend(self) -> None:
        self.full.suspend()

    def cancel(self, reason: str) -> None:
        self.full.cancel(reason)

    def send_away(self) -> None:
        self.full.send_away()
