"""One call of a session at a server of 2026-07-28: as many requests as the server asks for input, and one answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from msgspec import Raw

from holdfast.call import Answered, Ask, AskId, Call, Fields, InputRequired, Reply, Result, RpcError
from holdfast.clock import Clock, Timer
from holdfast.upstream.modern_answer import MirroredArguments, understood
from holdfast.upstream.polled_task import PolledTask, needs_extension
from holdfast.upstream.transport import Exchange, Fault, FaultKind, Sent, has_tools, next_ask_id
from holdfast.upstream.turns import InTurns
from holdfast.wire import jsonrpc, tasks

MAX_ROUNDS: Final = 10
"""Requests for input that one call may make; the official SDKs' own."""

RETRY: Final = 0.2
RETRY_MAX: Final = 10.0
"""Seconds, doubling, before a request is repeated for which nobody has to be asked."""

HEADER_MISMATCH: Final = -32020

_OUT_OF_PLACE: Final = frozenset({-32000, -32001, jsonrpc.INVALID_REQUEST, -32022})
"""What servers of the handshake era say to a request without a session, and those of another revision to ours."""

_QUESTIONS: Final = frozenset({"elicitation/create", "sampling/createMessage", "roots/list"})
_NOT_MCP: Final = "the server asked for input in a way that is not MCP"
_CANCELLED: Final = Raw(b'{"action":"cancel"}')
_NO_ROOTS: Final = Raw(b'{"roots":[]}')
_ACCEPTED: Final = Raw(b'{"action":"accept"}')


class Leg(Protocol):
    """The end of one request of ours: one `answered` or `failed`."""

    def progress(self, update: Fields) -> None:
        """As `Exchange.progress`."""

    def notify(self, method: str, params: Raw | None) -> None:
        """A notification that came on this request's stream."""

    def answered(self, outcome: Result | RpcError) -> None:
        """The server's answer."""

    def failed(self, fault: Fault) -> None:
        """There will be no answer."""


class Desk(Protocol):
    """What a call asks of its conversation."""

    clock: Clock
    mirrored: MirroredArguments

    def jitter(self) -> float:
        """0 to 1."""
        ...

    def transmit(
        self, leg: Leg, call: Call, exchange: Exchange, extra: Mapping[str, Any], *, has_tasks: bool = False
    ) -> Sent:
        """Send `call` with `extra` among its params; the leg may be ended before this returns.

        `has_tasks`: it may be answered with a task, whatever its caller knows of tasks.
        """
        ...

    def errand(self, call: Call, exchange: Exchange) -> None:
        """Send a request about a task, of which nothing more is to be heard."""

    def list_anew(self, then: Callable[[bool], None]) -> None:
        """Learn the tools again, then say whether that went well."""

    def asks(self, ask_id: AskId, call: ModernCall) -> None:
        """A reply to `ask_id` is for `call`."""

    def doubt(self) -> None:
        """The answer is none of this revision: find out whether the server still speaks it."""

    def ended(self, call: ModernCall) -> None:
        """The call is over, and so are its questions."""


class ModernCall(InTurns):
    """The `Sent` of the session, and the `Leg` of each of its requests in turn."""

    def __init__(self, desk: Desk, call: Call, exchange: Exchange) -> None:
        super().__init__()
        self._desk = desk
        self._call = call
        self._exchange = exchange
        self._extra: dict[str, Any] = {}
        self._rounds = 0
        self._retries = 0
        self._has_listed = False
        self._open: dict[AskId, tuple[str, Ask]] = {}
        """The questions that nobody has answered yet, and the server's names of them."""
        self._replies: dict[str, Raw] = {}
        self._accepted: dict[str, str | None] = {}
        """The URLs that a person agreed to open, and our names of them: the server is asked until it is content."""
        self._timer: Timer | None = None
        self._awaits_task = False
        """The server runs it only as a task, of which its caller knows nothing."""
        self._task: PolledTask | None = None
        self._is_over = False

    def start(self) -> None:
        """Send the call, or send it again with what the server asked for."""
        self._timer = None
        self.end_turn()
        sent = self._desk.transmit(self, self._call, self._exchange, self._extra, has_tasks=self._awaits_task)
        if self._is_over or self._timer is not None or self._open or self._task is not None:
            return  # it was answered or failed at once
        self.begin_turn(sent)

    def cancel(self, reason: str) -> None:
        if not self._is_over:
            if self._task is not None:
                self._task.cancel()
            self._end()
            self.cancel_turn(reason)

    # Leg: what the server does.

    def progress(self, update: Fields) -> None:
        if not self._is_over:
            self._exchange.progress(update)

    def notify(self, method: str, params: Raw | None) -> None:
        if self._is_over:
            return
        if method == "notifications/message" and params is not None:
            self._exchange.log(params)
        else:
            self._exchange.notify(method, params)

    def answered(self, outcome: Result | RpcError) -> None:
        self.end_turn()
        if isinstance(outcome, RpcError):
            if not self._has_listed and self._call.method == "tools/call" and _code(outcome) == HEADER_MISMATCH:
                self._has_listed = True
                self._desk.list_anew(lambda is_done: self._listed(outcome, is_done=is_done))
                return
            if self._may_await and not self._awaits_task and needs_extension(outcome):
                self._awaits_task = True
                self.start()
                return
            if _code(outcome) in _OUT_OF_PLACE:
                self._desk.doubt()
            self._finish(outcome)
            return
        fields = jsonrpc.decode_fields(outcome.raw)
        kind = jsonrpc.decode_value(fields.get("resultType", b'"complete"'))
        if kind == "task" and self._awaits_task and (task := tasks.task_id(fields)) is not None:
            self._task = PolledTask(self, task, self._desk.clock)
            self._task.begin(fields)
        elif self._call.declared is not None:
            self._pass_on(kind, outcome.raw, fields)
        elif kind == "complete":
            self._finish(Result(self._understood(outcome.raw, fields), outcome.raw))
        elif kind == "input_required":
            self._ask(fields)
        else:
            self._fail("the server answered with a kind of result that nobody asked for")

    def failed(self, fault: Fault) -> None:
        self.end_turn()
        if self._is_over:
            return
        self._end()
        if fault.kind is FaultKind.INVALID:
            self._desk.doubt()
        if fault.kind is FaultKind.NOT_SENT and self._rounds:
            # The server has begun with the call, which must not look as if it had never arrived.
            fault = Fault(FaultKind.CUT, f"the server asked for input and could not be given it: {fault.detail}")
        self._exchange.failed(fault)

    def _pass_on(self, kind: object, raw: Raw, fields: Fields) -> None:
        """The caller is of this revision too: what the server says is the caller's to judge."""
        if kind != "input_required":
            is_list = self._call.method == "tools/list"  # which is also read for its headers
            is_task = kind == "task" and self._call.method == "tools/call" and self._exchange.abilities.tasks
            self._finish(Result(self._understood(raw, fields) if is_list else raw, raw, is_task=is_task))
        elif is_input_required(fields):
            self._finish(InputRequired(raw))
        else:
            self._fail(_NOT_MCP)

    @property
    def _may_await(self) -> bool:
        """Whether a task that the server insists on is waited for: its caller would not know what to do with one."""
        return self._call.method == "tools/call" and not self._exchange.abilities.tasks

    def _understood(self, raw: Raw, fields: Fields) -> Raw:
        return understood(self._call.method, raw, fields, self._desk.mirrored)

    # Rounds, for a caller that cannot make them itself.

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        """Take the answer to one of the questions; with the last, the server gets them all."""
        name, ask = self._open.pop(ask_id)
        if reply.error is None:
            self._replies[name] = reply.result or Raw(b"{}")
            self._remember_url(ask, self._replies[name])
        elif ask.method == "elicitation/create":
            self._replies[name] = _CANCELLED
        elif ask.method == "roots/list":
            self._replies[name] = _NO_ROOTS
        else:
            if self._task is not None:
                self._task.cancel()
            self._finish(RpcError(reply.error))  # only results can be given to the server
            return
        if not self._open and self._task is not None:
            self._task.update(self._replies)
        elif not self._open:
            self._extra["inputResponses"] = self._replies
            self.start()

    def _ask(self, fields: Fields) -> None:
        """Put what the server wants to know to the caller, or wait where it wants to know nothing."""
        self._rounds += 1
        if not is_input_required(fields):
            self._fail(_NOT_MCP)
            return
        wanted = {name: jsonrpc.decode_fields(raw) for name, raw in _requests(fields).items()}
        state = _state(fields)
        self._extra = {} if state is None else {"requestState": state.copy()}
        self._replies = {}
        asks = {name: _read_ask(name, request) for name, request in wanted.items()}
        if not all(ask is not None for ask in asks.values()):
            self._fail(_NOT_MCP)
            return
        known = {name for name, ask in asks.items() if ask is not None and _url(ask) in self._accepted}
        if known and len(known) == len(asks):
            self._rounds -= 1  # a person is on the way; the call's own time bounds this
            self._extra["inputResponses"] = dict.fromkeys(known, _ACCEPTED)
            self._retry()
        elif self._rounds > MAX_ROUNDS:
            self._fail(f"the server asked for input more than {MAX_ROUNDS} times")
        elif not asks:
            self._retry()
        else:
            self._put({name: ask for name, ask in asks.items() if ask is not None}, known)

    def _put(self, asks: Mapping[str, Ask], known: set[str]) -> None:
        self._replies = dict.fromkeys(known, _ACCEPTED)
        put = [ask for name, ask in asks.items() if name not in known]
        self._open = {ask.id: (name, ask) for name, ask in asks.items() if name not in known}
        for ask in put:
            self._desk.asks(ask.id, self)
        for ask in put:
            if ask.id in self._open:  # else the call has ended over another of them
                self._exchange.ask(ask)

    def _retry(self) -> None:
        delay = min(RETRY * 2**self._retries, RETRY_MAX) * (0.5 + 0.5 * self._desk.jitter())
        self._retries = min(self._retries + 1, 16)
        self._timer = self._desk.clock.call_later(delay, self.start)

    def _remember_url(self, ask: Ask, result: Raw) -> None:
        action = jsonrpc.decode_value(jsonrpc.decode_fields(result).get("action", b"null"))
        url = _url(ask)
        if url is not None and action == "accept":
            self._accepted[url] = ask.elicitation_id

    # Tool: what becomes of a task that is waited for.

    def request(self, leg: Leg, call: Call) -> Sent:
        return self._desk.transmit(leg, call, self._exchange, {}, has_tasks=True)

    def errand(self, call: Call) -> None:
        self._desk.errand(call, self._exchange)

    def works(self) -> None:
        self._exchange.alive()

    def asks(self, requests: Fields) -> None:
        asks = {name: _read_ask(name, jsonrpc.decode_fields(raw)) for name, raw in requests.items()}
        if all(ask is not None for ask in asks.values()):
            self._put({name: ask for name, ask in asks.items() if ask is not None}, set())
        else:
            self._fail(_NOT_MCP)

    def done(self, outcome: Result | RpcError) -> None:
        if isinstance(outcome, Result):
            fields = jsonrpc.decode_fields(outcome.raw)
            outcome = Result(self._understood(outcome.raw, fields), outcome.raw)
        self._finish(outcome)

    def undone(self, fault: Fault) -> None:
        if not self._is_over:
            self._end()
            self._exchange.failed(fault)

    def _listed(self, outcome: RpcError, *, is_done: bool) -> None:
        if self._is_over:
            return
        if is_done:
            self.start()
        else:
            self._finish(outcome)

    def _finish(self, outcome: Answered) -> None:
        if not self._is_over:
            self._end()
            if isinstance(outcome, Result):
                self._tell_complete()
            self._exchange.answered(outcome)

    def _tell_complete(self) -> None:
        """What the revision no longer says: a server that has gone on has got what its pages were for."""
        for elicitation_id in self._accepted.values():
            params = Raw(jsonrpc.encode({"elicitationId": elicitation_id}))
            self._exchange.notify("notifications/elicitation/complete", params)

    def _fail(self, detail: str) -> None:
        if not self._is_over:
            self._end()
            self._exchange.failed(Fault(FaultKind.INVALID, detail))

    def _end(self) -> None:
        self._is_over = True
        self._open = {}
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.stop()
        self._desk.ended(self)


def _requests(fields: Fields) -> Fields:
    return {name: raw.copy() for name, raw in jsonrpc.decode_fields(fields.get("inputRequests", b"{}")).items()}


def is_input_required(fields: Fields) -> bool:
    """Whether a result that asks for input can be acted on: it has a question, or a state that is a string."""
    state = _state(fields)
    return bool(_requests(fields)) if state is None else isinstance(jsonrpc.decode_value(state), str)


def _state(fields: Fields) -> Raw | None:
    state = fields.get("requestState")
    return None if state is None or bytes(state) == b"null" else state


def _read_ask(name: str, request: Fields) -> Ask | None:
    """One of the server's questions as handshake clients know it; None where it is none."""
    method = jsonrpc.decode_value(request.get("method", b"null"))
    if not isinstance(method, str) or method not in _QUESTIONS:
        return None
    params = request.get("params")
    ask_id = next_ask_id()
    if params is None or method != "elicitation/create":
        return Ask(ask_id, method, params, has_tools=has_tools(method, params), name=name)
    fields = jsonrpc.decode_fields(params)
    if jsonrpc.decode_value(fields.get("mode", b"null")) != "url":
        return Ask(ask_id, method, params, name=name)
    elicitation_id = uuid.uuid4().hex  # gone from the protocol, and required of old clients
    params = Raw(jsonrpc.encode({**fields, "elicitationId": elicitation_id}))
    return Ask(ask_id, method, params, is_url_elicitation=True, elicitation_id=elicitation_id, name=name)


def _url(ask: Ask) -> str | None:
    """The URL that a person is sent to; None where the question is another."""
    if not ask.is_url_elicitation or ask.params is None:
        return None
    url = jsonrpc.decode_value(jsonrpc.decode_fields(ask.params).get("url", b"null"))
    return url if isinstance(url, str) else None


def _code(outcome: RpcError) -> object:
    return jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("code", b"null"))
