"""A tool that a server of 2025-11-25 runs only as a task, for a caller that waits: begun, followed and fetched.

Towards the caller it is a call like any: its progress, its questions, its result.
"""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Raw
from msgspec.structs import replace

from holdfast.call import Abilities, Answered, Ask, AskId, Call, Fields, InputRequired, Json, Result, RpcError
from holdfast.clock import Clock, Timer
from holdfast.upstream.transport import Exchange, Fault, FaultKind, Sent
from holdfast.upstream.turns import InTurns
from holdfast.wire import jsonrpc, tasks

TTL_MS: Final = 3_600_000
"""Milliseconds for which the server is asked to keep a task that is waited for."""
LOOK_INTERVAL: Final = 15.0
"""Seconds between two looks at a task, at the least: its result comes by itself, so this is only for signs of life."""
INTERVAL_MAX: Final = 60.0
"""The longest interval of a server that is kept to."""
RETRY_INTERVAL: Final = 1.0
"""Seconds before a result whose fetching was cut off is fetched again, where the server names no interval."""
MAX_RETRIES: Final = 5
"""Times in a row."""
PATIENCE: Final = 30.0
"""Seconds in which a task may still begin after its call was cancelled; it is cancelled then."""

_PASSING: Final = frozenset({FaultKind.NOT_SENT, FaultKind.CUT, FaultKind.UNAVAILABLE})
_DOUBTFUL: Final = frozenset({FaultKind.NOT_SENT, FaultKind.REFUSED, FaultKind.UNAUTHORIZED, FaultKind.UNAVAILABLE})
"""What says that a request was not executed; the task has begun all the same."""
_RUNNING: Final = frozenset({"working", "input_required"})
_NOT_OF_THIS_ERA: Final = "the server asked for input in a way of 2026-07-28"


class Desk(Protocol):
    """What a task asks of its conversation."""

    clock: Clock

    def transmit(self, call: Call, exchange: Exchange) -> Sent:
        """Send a request; the exchange may be ended before this returns."""
        ...

    def mint_token(self) -> int:
        """A progress token that no other request has."""
        ...

    def doubt(self, fault: Fault) -> None:
        """The session may be lost: something was refused in it."""

    def is_task(self, tool: str | None) -> None:
        """The server made a task of a call of this tool."""

    def cancel_task(self, task: str) -> None:
        """Tell the server to cancel a task; what it answers is of no interest."""

    def ended(self, awaited: AwaitedTask) -> None:
        """Nothing that comes belongs to it any more."""


class Ears:
    """What comes back on the requests of a call, passed on without the name of the task that the caller knows not."""

    def __init__(self, exchange: Exchange) -> None:
        self.task: str | None = None
        """The task's id, once it has begun; what bears the name of another is not the call's, and passes as it is."""
        self._exchange = exchange
        self._is_over = False

    @property
    def abilities(self) -> Abilities:
        return self._exchange.abilities

    def alive(self) -> None:
        if not self._is_over:
            self._exchange.alive()

    def progress(self, update: Fields) -> None:
        if not self._is_over:
            self._exchange.progress(_unrelated(update))

    def log(self, params: Raw) -> None:
        if not self._is_over:
            self._exchange.log(self._nameless("notifications/message", params))

    def notify(self, method: str, params: Raw | None) -> None:
        if not self._is_over and not (method == tasks.STATUS and self._is_own(method, params)):
            self._exchange.notify(method, None if params is None else self._nameless(method, params))

    def ask(self, ask: Ask) -> None:
        params = None if ask.params is None else self._nameless(ask.method, ask.params)
        self._exchange.ask(replace(ask, params=params))

    def _nameless(self, method: str, params: Raw) -> Raw:
        return tasks.unrelated(params) if self._is_own(method, params) else params

    def _is_own(self, method: str, params: Raw | None) -> bool:
        return self.task is not None and tasks.task_of(method, params) == self.task

    def withdraw(self, ask_id: AskId) -> None:
        if not self._is_over:
            self._exchange.withdraw(ask_id)

    def suspend(self) -> None:
        if not self._is_over:
            self._exchange.suspend()


class AwaitedTask(Ears, InTurns):
    """A tool call that becomes a task at the server, or may have to: all its requests, and one answer.

    The `Sent` of the session, and the exchange of its requests. Cancelled, it cancels the task. Once
    the task has begun, no failure looks as if nothing had been executed.
    """

    def __init__(self, desk: Desk, call: Call, exchange: Exchange, *, is_known: bool) -> None:
        """`is_known`: the tool must be a task; else that is found out by calling it."""
        Ears.__init__(self, exchange)
        InTurns.__init__(self)
        self.token = desk.mint_token()
        self._desk = desk
        self._call = call
        self._is_task = is_known
        self._interval = 0.0
        self._retries = 0
        self._is_waiting = False
        self._timer: Timer | None = None
        self._look: Timer | None = None

    def start(self) -> None:
        """Call the tool."""
        self._send({"task": {"ttl": TTL_MS}} if self._is_task else {})

    def stop(self) -> None:
        """Nothing more is sent: it is over, or the conversation is."""
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()
        self._timer = self._look = None
        self._desk.ended(self)

    # Sent

    def cancel(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._is_task and self.task is None:  # which task that will be is not known before it has begun
            self._timer = self._desk.clock.call_later(PATIENCE, lambda: self._give_up(reason))
            return
        self.stop()
        if self.task is not None:
            self._desk.cancel_task(self.task)
        self.cancel_turn(reason)

    # Exchange

    def answered(self, outcome: Answered) -> None:
        if isinstance(outcome, InputRequired):
            self.failed(Fault(FaultKind.INVALID, _NOT_OF_THIS_ERA))
            return
        self._settled()
        if self.task is not None:
            if not self._is_over:
                self._finish(Result(tasks.unrelated(outcome.raw)) if isinstance(outcome, Result) else outcome)
        elif self._is_task:
            self._begun(outcome)
        elif isinstance(outcome, RpcError) and _code(outcome) == jsonrpc.METHOD_NOT_FOUND and not self._is_over:
            self._is_task = True
            self.start()
        elif not self._is_over:
            self._finish(outcome)

    def failed(self, fault: Fault) -> None:
        self._settled()
        if self._is_over:
            self.stop()
        elif self.task is None:
            self._fail(fault)
        elif fault.kind in _PASSING and self._retries < MAX_RETRIES:
            self._retries += 1
            self._timer = self._desk.clock.call_later(self._interval or RETRY_INTERVAL, self._fetch)
        else:
            if fault.kind is FaultKind.REFUSED:
                self._desk.doubt(fault)
            if fault.kind in _DOUBTFUL:
                detail = f"it runs as a task whose result could not be fetched: {fault.detail}"
                fault = Fault(FaultKind.CUT, detail, remark=fault.remark)
            self._fail(fault)

    # Inside.

    def _send(self, more: dict[str, Json]) -> None:
        params = {**self._call.params, **more}
        if self._call.wants_progress:
            meta = params.get("_meta")
            params["_meta"] = {**(meta if isinstance(meta, dict) else {}), "progressToken": self.token}
        self._transmit(Call(self._call.method, params, request=self._call.request))

    def _transmit(self, call: Call) -> None:
        self.end_turn()
        self._is_waiting = True
        sent = self._desk.transmit(call, self)
        if self._is_waiting and not self.has_turn:  # else it was answered or failed at once
            self.begin_turn(sent)

    def _settled(self) -> None:
        self.end_turn()
        self._is_waiting = False

    def _begun(self, outcome: Result | RpcError) -> None:
        """Follow the task, if the server made one of the call."""
        self.task = tasks.begun(outcome.raw) if isinstance(outcome, Result) else None
        if self.task is None:
            if self._is_over:
                self.stop()
            else:
                self._finish(outcome)
            return
        self._desk.is_task(self._call.target)
        if self._is_over:
            self.stop()
            self._desk.cancel_task(self.task)
            return
        self._note_interval(tasks.task_in(outcome.raw))
        self._fetch()
        self._look_later()

    def _fetch(self) -> None:
        """Ask for the result, which comes when the task has ended, and before it what the task has to ask."""
        self._timer = None
        self._transmit(Call("tasks/result", {"taskId": self.task}, request=self._call.request))

    def _look_later(self) -> None:
        if not self._is_over:
            self._look = self._desk.clock.call_later(max(self._interval, LOOK_INTERVAL), self._take_look)

    def _take_look(self) -> None:
        self._look = None
        self._desk.transmit(Call("tasks/get", {"taskId": self.task}, request=self._call.request), _Look(self))

    def looked(self, outcome: Result | RpcError | Fault) -> None:
        """A task that is at work is a sign of life; one that has ended has a result on its way, or never."""
        if self._is_over:
            return
        if isinstance(outcome, Result):
            fields = jsonrpc.decode_fields(outcome.raw)
            if jsonrpc.decode_value(fields.get("status", b"null")) not in _RUNNING:
                return
            self._note_interval(fields)
            self.alive()
        elif isinstance(outcome, RpcError):
            return
        self._look_later()

    def _note_interval(self, fields: Fields) -> None:
        self._interval = tasks.seconds(fields.get("pollInterval"), INTERVAL_MAX) or self._interval

    def _give_up(self, reason: str) -> None:
        """The call was cancelled, and no task has begun of it."""
        self._timer = None
        self.stop()
        self.cancel_turn(reason)

    def _finish(self, outcome: Result | RpcError) -> None:
        self._is_over = True
        self.stop()
        self._exchange.answered(outcome)

    def _fail(self, fault: Fault) -> None:
        self._is_over = True
        self.stop()
        self._exchange.failed(fault)


class _Look(Ears):
    """A look at a task that is waited for."""

    def __init__(self, awaited: AwaitedTask) -> None:
        super().__init__(awaited)
        self.task = awaited.task
        self._awaited = awaited

    def answered(self, outcome: Answered) -> None:
        if isinstance(outcome, InputRequired):
            self._awaited.looked(Fault(FaultKind.INVALID, _NOT_OF_THIS_ERA))
        else:
            self._awaited.looked(outcome)

    def failed(self, fault: Fault) -> None:
        self._awaited.looked(fault)


def _unrelated(update: Fields) -> Fields:
    meta = {
        name: value
        for name, value in jsonrpc.decode_fields(update.get("_meta", b"{}")).items()
        if name != tasks.RELATED
    }
    kept = {name: value for name, value in update.items() if name != "_meta"}
    return {**kept, "_meta": Raw(jsonrpc.encode(meta))} if meta else kept


def _code(outcome: RpcError) -> object:
    return jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("code", b"null"))
