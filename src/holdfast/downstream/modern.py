"""Clients of revision 2026-07-28: every request stands alone, and a question ends it until it is asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from msgspec import Raw
from msgspec.structs import replace

from holdfast import events
from holdfast.call import LOG_LEVELS, UNKNOWN_STATE, Declared, Json, Outcome, Result, RpcError
from holdfast.clock import Clock, Deadlines
from holdfast.config import Limits
from holdfast.downstream.answer import SILENCE
from holdfast.downstream.brief_modern import BriefModernCaller, ModernLane
from holdfast.downstream.callers import AnswerCaller
from holdfast.downstream.envelope import (
    ASKING,
    DISCOVER,
    LISTEN,
    MISSING_CAPABILITY,
    NEEDS_TASKS,
    NO_TASKS,
    TASKS,
    Envelope,
    bad_params,
    check_mirrored,
    read_envelope,
    without_envelope,
    without_tasks,
)
from holdfast.downstream.exchange import Exchange, Incoming, Posted, PostExchange
from holdfast.downstream.listening import Listeners
from holdfast.downstream.parked import Binding, ModernCall, ParkedCalls
from holdfast.downstream.post import Post, Target, Terms, read_call
from holdfast.downstream.precedent import Precedent, remember
from holdfast.downstream.refusal import Refusal
from holdfast.downstream.replay import Drops
from holdfast.downstream.shaping import STATUSES, code_of, discovered, in_parts, shaped
from holdfast.errors import CallFailed
from holdfast.identity.caller import Identity
from holdfast.servers.service import Conversation, Service
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ClientNotification, ClientRequest
from holdfast.wire.revisions import MODERN, SERVED, WITH_SESSIONS
from holdfast.wire.tasks import has_extension

Offered: TypeAlias = Callable[[Conversation], Sequence[str]]


def offered(conversation: Conversation) -> Sequence[str]:
    """The revisions that a client may choose from (decision 11): none in which it would lose what a server keeps."""
    return WITH_SESSIONS if conversation.forgets else SERVED


class Leg(AnswerCaller[Exchange]):
    """One request: what a call yields while the request is open, in the words of this revision."""

    def __init__(
        self, answer: Exchange, request: ClientRequest, token: Raw | None, envelope: Envelope, service: Service
    ) -> None:
        super().__init__(answer, jsonrpc.id_bytes(request.id), token)
        self._method = request.method
        self._envelope = envelope
        self._service = service

    @property
    def floor(self) -> str | None:
        return self._envelope.level or LOG_LEVELS[-1]

    def log(self, params: Raw) -> None:
        if self._envelope.level is not None:
            super().log(params)

    def worded(self, outcome: Outcome) -> bytes:
        if type(outcome) is Result:
            parts = in_parts(self._message_id, self._method, outcome, self._service)
            return jsonrpc.one_line(b"".join(parts))
        outcome = shaped(outcome, self._envelope.abilities, self._service)
        self._answer.status = STATUSES.get(code_of(outcome), 200)
        return super().worded(outcome)


class Modern:
    """The dialect of clients without a handshake."""

    def __init__(
        self, clock: Clock, limits: Limits, drops: Drops, emit: events.Emit, offered: Offered = offered
    ) -> None:
        self.parked = ParkedCalls(clock)
        self.listeners = Listeners(limits)
        self.silences = Deadlines[BriefModernCaller](clock, SILENCE, self._break_silence)
        self._clock = clock
        self._drops = drops
        self._emit = emit
        self._offered = offered

    def reconfigure(self, limits: Limits, admits: Callable[[Identity], bool]) -> None:
        """Go by other settings: who would not be let in is given up, and who listens begins anew."""
        self.parked.shut_out(admits)
        self.listeners.reconfigure(limits)

    def close(self) -> None:
        """End what waits for its client."""
        self.parked.close()
        self.silences.close()
        self.listeners.send_away()

    def post(self, post: Post, headers: Mapping[str, str]) -> None:
        """Take the message of a POST. Raises `Refusal`."""
        message = post.messages[0]
        if isinstance(message, ClientNotification):
            post.responder.answer(202, ())
        elif isinstance(message, ClientRequest):
            self.take(Posted(post, headers, self._clock, self._drops), message)
        else:
            raise Refusal(400, "Nothing is asked of a client in this way: answers come as inputResponses.")

    def take(self, incoming: Incoming, request: ClientRequest) -> None:
        """See to it that a request is answered. Raises `Refusal`."""
        target = incoming.target
        envelope = read_envelope(
            request,
            incoming.headers,
            lambda: self._offered(target.service.converse(target.asker(request.params, is_modern=True))),
        )
        if request.method == DISCOVER:
            self._discover(incoming, request, envelope)
        elif request.method == LISTEN:
            self.listeners.open(incoming, request)
        elif request.method in TASKS and not envelope.abilities.tasks:
            self._refuse_tasks(incoming, request, envelope)
        else:
            self._call(incoming, request, envelope)

    def _discover(self, incoming: Incoming, request: ClientRequest, envelope: Envelope) -> None:
        target = incoming.target
        leg = Leg(incoming.begin(), request, None, envelope, target.service)
        conversation = target.service.converse(target.asker(request.params, is_modern=True))

        def introduced(hello: Hello | CallFailed) -> None:
            revisions = self._offered(conversation)
            leg.answer(hello if isinstance(hello, CallFailed) else discovered(hello, revisions))

        conversation.introduce(introduced)

    def _refuse_tasks(self, incoming: Incoming, request: ClientRequest, envelope: Envelope) -> None:
        """Say what is missing: the client's word for it, or that the server has such methods."""
        target = incoming.target
        leg = Leg(incoming.begin(), request, None, envelope, target.service)

        def introduced(hello: Hello | CallFailed) -> None:
            if isinstance(hello, CallFailed):
                leg.answer(hello)
                return
            if hello.protocol_version == MODERN and has_extension(hello.capabilities):
                leg.answer(RpcError(Raw(jsonrpc.error_object(MISSING_CAPABILITY, NO_TASKS, NEEDS_TASKS))))
            else:
                message = f"{request.method} is not part of {MODERN}."
                leg.answer(RpcError(Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, message))))

        target.service.converse(target.asker(request.params, is_modern=True)).introduce(introduced)

    def _call(self, incoming: Incoming, request: ClientRequest, envelope: Envelope) -> None:
        target, headers = incoming.target, incoming.headers
        call, token = read_call(without_envelope(request), target.request)
        if envelope.level is not None:
            call = replace(call, log_level=envelope.level)
        asker = target.asker(request.params, is_modern=True)
        if envelope.abilities.tasks and call.method == "tools/call" and asker.owner is None:  # it would be anybody's
            envelope = without_tasks(envelope)
        if request.method in ASKING:
            able = envelope.abilities
            asker = replace(asker, declares=replace(able, tasks=False) if able.tasks else able)
        conversation = target.service.converse(asker)
        if call.method == "tools/call" and headers is not None:
            check_mirrored(request, headers, conversation.mirrored(call.target or ""))
        brought: dict[str, Json] = {} if envelope.responses is None else {"inputResponses": {**envelope.responses}}
        origin = b""
        binding = Binding(target, asker, request)
        if envelope.state is not None:
            taken = self.parked.take(envelope.state, binding.terms())
            if taken is None:
                self._tell_of_misuse(target, envelope.state)
                raise bad_params(request, UNKNOWN_STATE)
            if isinstance(taken, ModernCall):
                leg = Leg(incoming.begin(), request, token, envelope, target.service)
                leg.way.when_gone(partial(taken.leave, leg))
                taken.come_back(leg, envelope.responses or {})
                return
            brought["requestState"], origin = taken.state, taken.origin
        call = replace(call, declared=Declared(envelope.capabilities, brought, origin))
        if incoming.terms is not None:
            remember(incoming.terms, binding, call, envelope, conversation)
        started = self._attend(incoming.begin(), binding, envelope, token)
        started.begin(conversation.start(call, started))

    def _attend(self, exchange: Exchange, binding: Binding, envelope: Envelope, token: Raw | None) -> ModernCall:
        """The caller of a call that begins, and its first leg."""
        started = ModernCall(self.parked, binding, envelope.abilities)
        leg = Leg(exchange, binding.request, token, envelope, binding.target.service)
        exchange.when_gone(partial(started.leave, leg))
        started.attend(leg)
        return started

    # Requests with known heads.

    def lane(self, target: Target, terms: Terms, headers: Mapping[str, str]) -> ModernLane | None:
        """What a head leads to from now on; None where each request is looked at."""
        accepts, precedent = terms.accepts, terms.precedent
        if not isinstance(precedent, Precedent) or not accepts.json or (accepts.stream and accepts.prefers_stream):
            return None
        return ModernLane(self, precedent, target, terms, headers)

    def expand(self, brief: BriefModernCaller) -> ModernCall:
        """See `holdfast.downstream.brief_modern`."""
        return self._expand(brief, self._exchange(brief))

    def _expand(self, brief: BriefModernCaller, exchange: PostExchange) -> ModernCall:
        return self._attend(exchange, brief.binding, brief.lane.precedent.envelope, brief.token)

    def _exchange(self, brief: BriefModernCaller) -> PostExchange:
        return PostExchange(brief.responder, brief.lane.accepts, self._clock, self._drops)

    def _break_silence(self, brief: BriefModernCaller) -> None:
        exchange = self._exchange(brief)
        brief.become(self._expand(brief, exchange))
        exchange.break_silence()

    def _tell_of_misuse(self, target: Target, state: str) -> None:
        """Tell the operator where an unknown `requestState` is that of somebody else's call."""
        owner, caller = self.parked.owner_of(state), target.identity.principal
        if owner is not None and owner != caller:
            self._emit(events.RequestStateMisused(target.service.name, caller.client, owner.client, target.request))
