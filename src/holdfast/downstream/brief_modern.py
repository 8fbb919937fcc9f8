"""The usual request of 2026-07-28: it says of itself what the one before it said; its answer comes first and soon."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import Abilities, Ask, AskId, Fields, Outcome, Result, Running, Status
from holdfast.clock import Deadlines
from holdfast.downstream.answer import FAILED, JSON_HEADERS
from holdfast.downstream.envelope import check_mirrored
from holdfast.downstream.http import HttpResponder
from holdfast.downstream.parked import Binding, ModernCall
from holdfast.downstream.post import Target, Terms
from holdfast.downstream.precedent import Precedent
from holdfast.downstream.shaping import in_parts
from holdfast.session.running import UNDELIVERABLE
from holdfast.wire import jsonrpc
from holdfast.wire.familiar import LESSONS

logger: Final = logging.getLogger("holdfast.http")


class Dialect(Protocol):
    """What takes over a request that turns out to be more than usual."""

    @property
    def silences(self) -> Deadlines[BriefModernCaller]:
        """The requests of which nothing was heard so far, and that would rather have a stream than silence."""
        ...

    def expand(self, brief: BriefModernCaller) -> ModernCall:
        """The caller that goes on in place of `brief`."""
        ...


class ModernLane:
    """What a head leads to: calls like the one before."""

    def __init__(
        self, dialect: Dialect, precedent: Precedent, target: Target, terms: Terms, headers: Mapping[str, str]
    ) -> None:
        """The client accepts JSON, and rather that than a stream."""
        self.dialect = dialect
        self.precedent = precedent
        self.target = target
        self.accepts = terms.accepts
        self.takes_stream = terms.accepts.stream
        self._terms = terms
        self._headers = headers

    def take(self, responder: HttpResponder, body: bytes) -> bool:
        """Answer the request in `body`; False where it is not a usual one, and nothing has been done.

        Raises `Refusal`.
        """
        request = jsonrpc.decode_usual(body)
        precedent = self.precedent
        asked = None if request is None else precedent.call(request, responder.request_id)
        if request is None or asked is None:
            return False
        call, token = asked
        asker, conversation = precedent.asker, precedent.conversation
        if conversation is None:
            asker = precedent.another()
            conversation = precedent.service.converse(asker)
        if precedent.method == "tools/call":
            mirrored = conversation.mirrored(precedent.name)
            if mirrored:
                check_mirrored(request, self._headers, mirrored)
        self._terms.lessons = LESSONS
        caller = BriefModernCaller(self, responder, Binding(self.target, asker, request), token)
        responder.on_gone = caller.leave
        if self.takes_stream:
            self.dialect.silences.add(caller)
        try:
            caller.begin(conversation.start(call, caller))
        except Exception:
            self.dialect.silences.discard(caller)
            raise
        return True


class BriefModernCaller:
    """The caller of a usual request. Whatever comes before the answer, or a long silence, makes it a full one."""

    _running: Running | None = None
    _full: ModernCall | None = None
    _is_over = False
    """It is answered, or nobody reads the answer."""

    def __init__(self, lane: ModernLane, responder: HttpResponder, binding: Binding, token: Raw | None) -> None:
        self.lane = lane
        self.responder = responder
        self.binding = binding
        self.token = token

    @property
    def full(self) -> ModernCall:
        """The caller that it has become, from now on."""
        return self._full or self.become(self.lane.dialect.expand(self))

    def become(self, full: ModernCall) -> ModernCall:
        """Leave all that follows to `full`."""
        self.lane.dialect.silences.discard(self)
        self._full = full
        full.begin(self._running)
        self._running = None
        return full

    def leave(self) -> None:
        """The client closed the request: that cancels the call."""
        self.lane.dialect.silences.discard(self)
        self._is_over = True
        running, self._running = self._running, None
        if running is not None:
            running.cancel("the client left")

    def begin(self, running: Running | None) -> None:
        """Hold the call that is under way; it may have been answered before this is known."""
        if self._full is not None:
            self._full.begin(running)
        elif not self._is_over:
            self._running = running

    def answer(self, outcome: Outcome) -> None:
        if self._full is None and self._is_over:
            return
        if self._full is not None or type(outcome) is not Result:
            self.full.answer(outcome)
            return
        self._is_over = True
        self._running = None  # it holds us: a cycle per call would keep the garbage collector busy
        lane, responder, request = self.lane, self.responder, self.binding.request
        if lane.takes_stream:
            lane.dialect.silences.discard(self)
        message_id = jsonrpc.id_bytes(request.id)
        try:
            parts = in_parts(message_id, request.method, outcome, lane.precedent.service)
        except Exception:
            logger.exception("an answer could not be put in words")
            parts = (jsonrpc.error(message_id, UNDELIVERABLE.raw),)
        try:
            responder.answer(200, JSON_HEADERS, parts)
        except Exception:
            responder.answer(500, JSON_HEADERS, (FAILED,))
            raise

    @property
    def abilities(self) -> Abilities:
        own = self.lane.precedent.envelope.abilities
        return self.full.abilities if own.can_answer_any else own  # the same for who cannot be asked anything

    def status(self, status: Status) -> None:
        self.full.status(status)

    def progress(self, update: Fields) -> None:
        self.full.progress(update)

    def log(self, params: Raw) -> None:
        self.full.log(params)

    def notify(self, method: str, params: Raw | None) -> None:
        self.full.notify(method, params)

    def ask(self, ask: Ask) -> None:
        self.full.ask(ask)

    def withdraw(self, ask_id: AskId) -> None:
        self.full.withdraw(ask_id)

    def suspend(self) -> None: ...
