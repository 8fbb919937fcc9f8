"""What a call yields, written as JSON-RPC messages into an `Answer`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Raw

from holdfast.call import LOG_LEVELS, Fields, InputRequired, Outcome, Result, RpcError, Running, Status, StatusWord
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.session.running import UNDELIVERABLE
from holdfast.wire import jsonrpc

logger = logging.getLogger("holdfast.http")

_PROGRESS: Final = b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}'
_STEP: Final = 1e-6
"""Of the progress that status lines make: below what any server counts in."""
_NONE: Final = Raw(b"null")
_WELL: Final = frozenset({StatusWord.READY, StatusWord.RESTORED})


class Outlet(Protocol):
    """Where the messages of one request go."""

    def event(self, message: bytes, *, droppable: bool) -> bool:
        """Send what is not the result; False if it cannot reach the client from here."""
        ...

    def remark(self, whose: bytes, say: Callable[[], None]) -> None:
        """Call `say` once the request has lasted; of one request (`whose`) only the last remark counts."""

    def hush(self, whose: bytes) -> None:
        """A remark that was not made is not worth making any more."""

    def result(self, message: bytes | None) -> None:
        """The answer; None where a cancelled request gets none."""


Way = TypeVar("Way", bound=Outlet)


class AnswerCaller(Generic[Way]):
    """What every caller has in common; the dialects add who can be asked, and how."""

    running: Running | None = None
    is_cancelled = False
    """The client cancelled the request and expects no answer to it."""
    _is_answered = False
    _has_remarked = False
    """There may be a remark that was not made yet."""
    _shown = 0
    """Status lines that the client was sent."""
    _reached: float | None = None
    """How far our own progress went; None once the server's is beyond it."""
    _last = _NONE
    """The server's progress, as it was when it was last heard."""

    def __init__(self, answer: Way, message_id: bytes, token: Raw | None) -> None:
        self._answer = answer
        self._message_id = message_id
        self._token = token

    @property
    def way(self) -> Way:
        """Where its messages go."""
        return self._answer

    @property
    def floor(self) -> str | None:
        """The lowest log level that the client wants; None for all."""
        return None

    def status(self, status: Status) -> None:
        """Shown once it has lasted; that all is well is news only to whom something else was shown."""
        if status.word in _WELL and not self._shown:
            self._answer.hush(self._message_id)
        else:
            self._has_remarked = True
            self._answer.remark(self._message_id, lambda: self._show(status))

    def _show(self, status: Status) -> None:
        """Say it as a log message, and as progress that the server's own can follow."""
        self._shown += 1
        if wants_log("info", self.floor):
            line = {"level": "info", "logger": "holdfast", "data": {"status": status.word, "message": status.sentence}}
            self._answer.event(jsonrpc.notification("notifications/message", line), droppable=True)
        if self._token is None:
            return
        last = self._reached if self._reached is not None else number(self._last)
        following = beyond(0.0 if last is None else last)
        if following is not None:
            self._reached, self._last = following, _NONE
            update = {"progressToken": self._token, "progress": following, "message": status.sentence}
            self._answer.event(jsonrpc.notification("notifications/progress", update), droppable=True)

    def progress(self, update: Fields) -> None:
        if self._token is None:
            return
        fields = {**update, "progressToken": self._token}
        self._last = update.get("progress", _NONE)
        if self._reached is not None and not self._follow_on(fields, self._reached):
            return
        self._answer.event(_PROGRESS % jsonrpc.one_line(jsonrpc.encode(fields)), droppable=True)

    def _follow_on(self, fields: Fields, reached: float) -> bool:
        """Progress must grow (MCP 2025-11-25, Progress): lift the server's above ours, if that can be."""
        value = number(self._last)
        if value is None or value > reached:
            self._reached = None
            return True
        following = beyond(reached)
        if following is not None:
            self._reached = following
            fields["progress"] = Raw(jsonrpc.encode(following))
        return following is not None

    def log(self, params: Raw) -> None:
        if wants_log(level_of(params), self.floor):
            self.notify("notifications/message", params)

    def notify(self, method: str, params: Raw | None) -> None:
        self._answer.event(jsonrpc.one_line(jsonrpc.notification(method, params)), droppable=True)

    def begin(self, running: Running | None) -> None:
        """Hold the call that is under way; it may have been answered before this is known."""
        if not self._is_answered:
            self.running = running

    def answer(self, outcome: Outcome) -> None:
        self._is_answered = True
        self.running = None  # it holds us: a cycle per call would keep the garbage collector busy
        if self._has_remarked:
            self._answer.hush(self._message_id)
        message = put_in_words(self._message_id, outcome, self.worded)
        self._answer.result(None if self.is_cancelled else message)

    def worded(self, outcome: Outcome) -> bytes:
        """The answer as the client gets it."""
        return encode_outcome(self._message_id, outcome)


def number(raw: Raw) -> float | None:
    """A number of a server; None where it is none."""
    value = jsonrpc.decode_value(raw)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def beyond(value: float) -> float | None:
    """The next progress after `value`; None where JSON has none."""
    if isinstance(value, int) and abs(value) >= 2**52:  # floats are too coarse from here on
        return value + 1 if value < 2**63 - 1 else None
    following = max(value + _STEP, math.nextafter(value, math.inf))
    return following if following < 2**63 else None


def put_in_words(message_id: bytes, outcome: Outcome, worded: Callable[[Outcome], bytes]) -> bytes:
    """The answer to the request `message_id`; that we failed, where `worded` raises."""
    try:
        return worded(outcome)
    except Exception:
        logger.exception("an answer could not be put in words")
        return jsonrpc.error(message_id, UNDELIVERABLE.raw)


def encode_outcome(message_id: bytes, outcome: Outcome) -> bytes:
    """An outcome as the JSON-RPC answer to the request `message_id`."""
    if type(outcome) is Result:
        return jsonrpc.result(message_id, outcome.raw)
    if isinstance(outcome, Result | InputRequired):
        return jsonrpc.result(message_id, outcome.raw)
    if isinstance(outcome, RpcError):
        return jsonrpc.error(message_id, outcome.raw)
    return jsonrpc.error(message_id, encode_failure(outcome))


def stand_in(message: bytes, server: str) -> bytes | None:
    """What is kept of an answer of `server` that is too large to keep: an error with its id; None for no answer."""
    fields = jsonrpc.decode_fields(message)
    if "method" in fields:
        return None
    failure = CallFailed(
        Code.OVERLOADED,
        "The answer was too large to keep for a client that was away.",
        server=server,
        delivery=Delivery.DELIVERED if "result" in fields else Delivery.UNKNOWN,
        retryable=False,
    )
    return jsonrpc.error(bytes(fields["id"]), encode_failure(failure))


def encode_failure(failure: CallFailed) -> bytes:
    """A failure of ours as a JSON-RPC error object."""
    data = {"delivery": failure.delivery.value, "retryable": failure.retryable, "upstream": failure.server}
    return jsonrpc.error_object(failure.code, failure.message, {"holdfast": data})


def level_of(params: Raw) -> str:
    """The level of a log message."""
    level = jsonrpc.decode_value(jsonrpc.decode_fields(params).get("level", b"null"))
    return level if isinstance(level, str) else ""


def wants_log(level: str, floor: str | None) -> bool:
    """Whether a message of `level` passes; one of an unknown level does."""
    return floor is None or level not in LOG_LEVELS or LOG_LEVELS.index(level) >= LOG_LEVELS.index(floor)
