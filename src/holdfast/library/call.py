"""One call of an application: what comes back is heard in the task that waits for it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from mcp_types import (
    CreateMessageRequest,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequest,
    ElicitResult,
    ListRootsRequest,
    ListRootsResult,
    LoggingMessageNotificationParams,
)
from msgspec import Raw

from holdfast.call import (
    NOBODY,
    Abilities,
    Ask,
    AskId,
    Call,
    Caller,
    Fields,
    Json,
    Outcome,
    Reply,
    Result,
    RpcError,
    Running,
    Status,
)
from holdfast.errors import CallFailed
from holdfast.library.errors import server_error
from holdfast.session.watch import answer_for_nobody
from holdfast.tasks import TaskScope
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import BadMessage

logger = logging.getLogger("holdfast.library")

Question: TypeAlias = ElicitRequest | CreateMessageRequest | ListRootsRequest
Response: TypeAlias = ElicitResult | CreateMessageResult | CreateMessageResultWithTools | ListRootsResult
AskKind: TypeAlias = Literal["elicitation", "sampling", "roots"]

OnStatus: TypeAlias = Callable[[Status], Awaitable[None] | None]
OnProgress: TypeAlias = Callable[[float, float | None, str | None], Awaitable[None] | None]
"""Progress, total and message, as the server counts."""
OnLog: TypeAlias = Callable[[LoggingMessageNotificationParams], Awaitable[None] | None]
OnAsk: TypeAlias = Callable[[Question], Awaitable[Response | None]]
"""Answers a question; None where nobody can, and the server is told so."""
Start: TypeAlias = Callable[[Call, Caller], Running | None]

EVERYTHING: Final[Collection[AskKind]] = ("elicitation", "sampling", "roots")
_QUESTIONS: Final[Mapping[str, type[Question]]] = {
    "elicitation/create": ElicitRequest,
    "sampling/createMessage": CreateMessageRequest,
    "roots/list": ListRootsRequest,
}


@dataclass(frozen=True, slots=True)
class Hears:
    """Who hears what a call yields before its answer."""

    status: OnStatus | None = None
    progress: OnProgress | None = None
    log: OnLog | None = None
    ask: OnAsk | None = None
    asks: Collection[AskKind] = EVERYTHING
    """What `ask` can be asked."""

    @property
    def abilities(self) -> Abilities:
        """The same, as calls know it."""
        if self.ask is None:
            return NOBODY
        has_elicitation, has_sampling = "elicitation" in self.asks, "sampling" in self.asks
        return Abilities(
            elicitation_form=has_elicitation,
            elicitation_url=has_elicitation,
            sampling=has_sampling,
            sampling_tools=has_sampling,
            sampling_context=has_sampling,
            roots="roots" in self.asks,
        )


async def run(start: Start, call: Call, hears: Hears) -> Raw:
    """Run `call` and return its result; callbacks run in this task, in order, and questions beside it.

    Cancelled, or when a callback raises, the call is cancelled at the server. Raises `ServerError`
    and `CallFailed`.
    """
    async with AsyncExitStack() as stack:
        scope = await stack.enter_async_context(TaskScope()) if hears.ask is not None else None
        inbox = _Inbox(hears, scope)
        inbox.running = start(call, inbox)
        try:
            outcome = await inbox.outcome()
        except BaseException:
            inbox.give_up()
            raise
    if isinstance(outcome, CallFailed):
        raise outcome
    if isinstance(outcome, RpcError):
        raise server_error(outcome.raw)
    return outcome.raw


class _Inbox:
    """The `Caller`: keeps what comes until the task that waits takes it."""

    def __init__(self, hears: Hears, scope: TaskScope | None) -> None:
        self.running: Running | None = None
        self._hears = hears
        self._abilities = hears.abilities
        self._scope = scope
        self._heard: asyncio.Queue[Callable[[], Awaitable[None] | None] | Outcome] = asyncio.Queue()
        self._asking: dict[AskId, asyncio.Task[None]] = {}
        self._is_over = False

    async def outcome(self) -> Outcome:
        """Call back what comes, in order, and return what ends the call."""
        while True:
            item = await self._heard.get()
            if isinstance(item, Result | RpcError | CallFailed):
                return item
            if not callable(item):  # `abilities` takes no input_required, so none comes
                raise TypeError(item)
            heard = item()
            if inspect.isawaitable(heard):
                await heard

    def give_up(self) -> None:
        """Nobody waits any more."""
        if not self._is_over and self.running is not None:
            self.running.cancel("the application gave up")

    # Caller

    @property
    def abilities(self) -> Abilities:
        return self._abilities

    def status(self, status: Status) -> None:
        if (then := self._hears.status) is not None:
            self._heard.put_nowait(lambda: then(status))

    def progress(self, update: Fields) -> None:
        if (then := self._hears.progress) is not None:
            progress, total, message = (jsonrpc.decode_value(update.get(name, b"null")) for name in _PROGRESS)
            if isinstance(progress, int | float):
                self._heard.put_nowait(lambda: then(progress, _number(total), _text(message)))

    def log(self, params: Raw) -> None:
        if (then := self._hears.log) is not None:
            try:
                message = LoggingMessageNotificationParams.model_validate_json(bytes(params))
            except ValueError:
                logger.warning("a log message of the server is malformed")
                return
            self._heard.put_nowait(lambda: then(message))

    def notify(self, method: str, params: Raw | None) -> None: ...

    def ask(self, ask: Ask) -> None:
        if self._scope is None or self._hears.ask is None:
            return  # cannot be: nobody can be asked
        self._asking[ask.id] = self._scope.start(self._put(ask, self._hears.ask), f"answer {ask.method}")

    def withdraw(self, ask_id: AskId) -> None:
        task = self._asking.pop(ask_id, None)
        if task is not None:
            task.cancel()

    def suspend(self) -> None: ...

    def answer(self, outcome: Outcome) -> None:
        self._is_over = True
        self.running = None  # it holds us
        self._heard.put_nowait(outcome)

    async def _put(self, ask: Ask, on_ask: OnAsk) -> None:
        reply = answer_for_nobody(ask)
        try:
            response = await on_ask(_question(ask))
            if response is not None:
                reply = Reply(result=Raw(response.model_dump_json(by_alias=True, exclude_none=True).encode()))
        except Exception:
            logger.exception("the application's on_ask failed: %s is answered as where nobody can be asked", ask.method)
        self._asking.pop(ask.id, None)
        if self.running is not None:
            self.running.reply(ask.id, reply)


def as_json(params: Mapping[str, Any]) -> dict[str, Json]:
    """`params` as they can be sent. Raises `ValueError` for what JSON, or a server, cannot take."""
    try:
        value = jsonrpc.decode_checked(jsonrpc.encode(params))
    except (TypeError, BadMessage) as error:
        raise ValueError(f"the arguments cannot be sent as JSON: {error}") from None
    return value if isinstance(value, dict) else {}


_PROGRESS: Final = ("progress", "total", "message")


def _question(ask: Ask) -> Question:
    params: Any = {} if ask.params is None else jsonrpc.decode_value(ask.params)
    return _QUESTIONS[ask.method].model_validate({"method": ask.method, "params": params})


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
