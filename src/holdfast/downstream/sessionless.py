"""Clients without a session: curl, scripts, and arrays of the 2025-03-26 kind."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from holdfast.call import NOBODY, Abilities, Ask, AskId, Result, RpcError
from holdfast.clock import Clock
from holdfast.downstream.answer import Answer
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.post import Post, Target, read_call
from holdfast.downstream.refusal import Refusal
from holdfast.downstream.replay import Drops
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ClientRequest

_PONG: Final = Result(Raw(b"{}"))
_LASTING: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
"""Change what a session's other users hear, and nobody is left for whom they could be undone."""
_NEEDS_SESSION: Final = RpcError(
    Raw(jsonrpc.error_object(jsonrpc.INVALID_REQUEST, "This outlasts its request: initialize first, for a session."))
)


class DirectCaller(AnswerCaller[Answer]):
    """The caller of a request without a session: it can be told, and not asked."""

    @property
    def abilities(self) -> Abilities:
        return NOBODY

    @property
    def floor(self) -> str | None:
        return "info"

    def ask(self, ask: Ask) -> None: ...

    def withdraw(self, ask_id: AskId) -> None: ...

    def suspend(self) -> None: ...


class Sessionless:
    """Answers a POST that bears no session id and does not initialize."""

    def __init__(self, clock: Clock, drops: Drops) -> None:
        self._clock = clock
        self._drops = drops

    def post(self, post: Post) -> None:
        """Run the requests; those of one array share one session. Raises `Refusal`."""
        requests = post.requests
        if not requests:
            post.responder.answer(202, ())
            return
        if any(request.method == "initialize" for request in requests):
            raise Refusal(400, "Initialize alone, not in an array.")
        answer = Answer(
            post.responder,
            post.accepts,
            self._clock,
            drops=self._drops,
            expected=len(requests),
            is_array=post.is_array,
        )
        callers: list[DirectCaller] = []
        post.responder.on_gone = lambda: _leave(callers)
        for request in requests:
            self._start(post.target, request, answer, callers)

    def _start(self, target: Target, request: ClientRequest, answer: Answer, callers: list[DirectCaller]) -> None:
        conversation = target.service.converse(target.asker(request.params))
        call, token = read_call(request, target.request)
        caller = DirectCaller(answer, jsonrpc.id_bytes(request.id), token)
        callers.append(caller)
        if request.method == "ping":
            caller.answer(_PONG)
        elif request.method in _LASTING and not conversation.is_private:
            caller.answer(_NEEDS_SESSION)
        else:
            caller.begin(conversation.start(call, caller))


def _leave(callers: list[DirectCaller]) -> None:
    """The client left, and nobody can read the answers: cancel what runs."""
    for caller in callers:
        if caller.running is not None:
            caller.running.cancel("the client left")
