"""A task of a server of 2026-07-28, for a caller that knows nothing of tasks: looked at until it has ended."""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import Call, Fields, Result, RpcError
from holdfast.clock import Clock, Timer
from holdfast.upstream.transport import Fault, FaultKind, Sent
from holdfast.wire import jsonrpc, tasks

INTERVAL: Final = 1.0
"""Seconds between two looks, where the server names no interval."""
INTERVAL_MAX: Final = 60.0
MAX_RETRIES: Final = 5
"""Looks in a row that may fail."""

MISSING_CAPABILITY: Final = -32021
INTERNAL_ERROR: Final = -32603

_PASSING: Final = frozenset({FaultKind.NOT_SENT, FaultKind.CUT, FaultKind.UNAVAILABLE})


class Tool(Protocol):
    """The call of a tool that has become a task."""

    def request(self, leg: PolledTask, call: Call) -> Sent:
        """Send a request about the task in the name of the call's caller."""
        ...

    def errand(self, call: Call) -> None:
        """Send a request whose answer is of no interest."""

    def works(self) -> None:
        """The server is at work on it."""

    def asks(self, requests: Fields) -> None:
        """The server waits for answers to these."""

    def done(self, outcome: Result | RpcError) -> None:
        """The task has ended, and so has the call."""

    def undone(self, fault: Fault) -> None:
        """The call will get no answer."""


class PolledTask:
    """The `Leg` of each look, and of each answer to a question."""

    def __init__(self, tool: Tool, task: str, clock: Clock) -> None:
        self._tool = tool
        self._task = task
        self._clock = clock
        self._interval = INTERVAL
        self._retries = 0
        self._timer: Timer | None = None
        self._sent: Sent | None = None
        self._asked: set[str] = set()
        self._update: Call | None = None
        """The answers that the server has not said it got."""
        self._is_over = False

    def begin(self, fields: Fields) -> None:
        """Look at it when that is worth while; `fields` is what it was when it began."""
        self._note_interval(fields)
        self._wait()

    def update(self, responses: dict[str, Raw]) -> None:
        """Give the server what it waits for, and look on when it has that: it would wait for ever."""
        answers = {name: jsonrpc.decode_value(raw) for name, raw in responses.items()}
        self._update = Call("tasks/update", {"taskId": self._task, "inputResponses": answers})
        self._ask()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        sent = self._sent
        self.stop()
        self._tool.errand(Call("tasks/cancel", {"taskId": self._task}))
        if sent is not None:
            sent.cancel("no longer needed")

    def stop(self) -> None:
        """Look no more."""
        self._is_over = True
        self._sent = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Leg

    def progress(self, update: Fields) -> None:
        """None: tasks of this revision have no progress."""

    def notify(self, method: str, params: Raw | None) -> None:
        """Nothing that belongs to the call."""

    def answered(self, outcome: Result | RpcError) -> None:
        self._sent = None
        if self._is_over:
            return
        update, self._update = self._update, None
        if update is not None and (isinstance(outcome, Result) or self._retries):
            self._retries = 0
            self._wait()  # answers that are refused when they come again were taken before
        elif isinstance(outcome, RpcError):
            if update is not None:
                self._tool.errand(Call("tasks/cancel", {"taskId": self._task}))
            self._end(outcome)
        else:
            self._retries = 0
            self._show(jsonrpc.decode_fields(outcome.raw))

    def failed(self, fault: Fault) -> None:
        self._sent = None
        if self._is_over:
            return
        if fault.kind in _PASSING and self._retries < MAX_RETRIES:
            self._retries += 1
            self._wait()
            return
        self.stop()
        if fault.kind not in {FaultKind.GONE, FaultKind.INVALID, FaultKind.TIMEOUT}:
            # The task has begun: it must not look as if nothing had been executed.
            fault = Fault(FaultKind.CUT, f"it runs as a task that could not be looked at: {fault.detail}")
        self._tool.undone(fault)

    # Inside.

    def _show(self, fields: Fields) -> None:
        """Go by how the task is now."""
        match jsonrpc.decode_value(fields.get("status", b"null")):
            case "completed" if "result" in fields:
                self._end(Result(fields["result"].copy()))
            case "failed" if "error" in fields:
                self._end(RpcError(fields["error"].copy()))
            case "cancelled":
                message = "The server cancelled the task that the call became."
                self._end(RpcError(Raw(jsonrpc.error_object(INTERNAL_ERROR, message))))
            case "working" | "input_required":
                self._look_on(fields)
            case _:
                self.stop()
                self._tool.undone(Fault(FaultKind.INVALID, "the server showed a task in a way that is not MCP"))

    def _look_on(self, fields: Fields) -> None:
        self._note_interval(fields)
        self._tool.works()
        requests = jsonrpc.decode_fields(fields.get("inputRequests", b"{}"))
        fresh = {name: raw.copy() for name, raw in requests.items() if name not in self._asked}
        if fresh:
            self._asked.update(fresh)  # a name means the same question for as long as the task lives
            self._tool.asks(fresh)
        else:
            self._wait()

    def _wait(self) -> None:
        if not self._is_over and self._timer is None:
            self._timer = self._clock.call_later(self._interval, self._ask)

    def _ask(self) -> None:
        self._timer = None
        sent = self._tool.request(self, self._update or Call("tasks/get", {"taskId": self._task}))
        if not self._is_over and self._timer is None:
            self._sent = sent

    def _end(self, outcome: Result | RpcError) -> None:
        self.stop()
        self._tool.done(outcome)

    def _note_interval(self, fields: Fields) -> None:
        self._interval = tasks.seconds(fields.get("pollIntervalMs"), INTERVAL_MAX) or self._interval


def needs_extension(error: RpcError) -> bool:
    """Whether a server refused a call since its caller declared no tasks: it was not executed."""
    fields = jsonrpc.decode_fields(error.raw)
    if jsonrpc.decode_value(fields.get("code", b"null")) != MISSING_CAPABILITY:
        return False
    data = jsonrpc.decode_fields(fields.get("data", b"{}"))
    return tasks.has_extension(jsonrpc.decode_fields(data.get("requiredCapabilities", b"{}")))
