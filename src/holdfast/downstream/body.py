"""The body of a request: how large it may be, and how long it may take to come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from holdfast.clock import Bound, Clock, Deadlines
from holdfast.downstream import http
from holdfast.downstream.http import AsgiResponder, Message, Receive
from holdfast.downstream.refusal import Refusal, refuse

BODY_TIMEOUT: Final = 30.0
"""Seconds for a request's body to arrive: who sends it drop by drop holds nothing for longer."""
_CLOSE: Final = ((b"connection", b"close"),)


class Disconnected(Exception):
    """The client left before its request was whole."""


class Overdue(Bound):
    """Around the rest of a body that was not there at once: in all it has `BODY_TIMEOUT`."""

    __slots__ = ("_timer",)

    def __init__(self, reader: asyncio.Task[object], clock: Clock) -> None:
        super().__init__()
        self._task = reader
        self._cancelled_before = reader.cancelling()
        self._timer = clock.call_later(BODY_TIMEOUT - http.WATCH_AFTER, self.end)

    def leave(self, error: BaseException | None) -> None:
        """The body is whole, or `error` ended it. Raises `Refusal` if that was the deadline's doing."""
        self._timer.cancel()
        try:
            self._leave(None if error is None else type(error), error)
        except TimeoutError:
            raise too_slow() from None


def lasting(clock: Clock) -> Deadlines[AsgiResponder]:
    """Where requests through ASGI are while they run: those that last for a moment are looked after from then on."""

    def due(responder: AsgiResponder) -> None:
        responder.watch()
        if responder.reader is not None:
            responder.on_read = Overdue(responder.reader, clock).leave

    return Deadlines(clock, http.WATCH_AFTER, due)


def check_length(headers: Mapping[str, str], limit: int) -> None:
    """Whether the body may come, as far as its head says. Raises `Refusal`."""
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise Refusal(400, "The Content-Length is no number.")
    if int(length) > limit:
        raise too_large(limit)


async def receive_body(receive: Receive, responder: AsgiResponder, limit: int) -> bytes | None:
    """The whole body from ASGI; None where there is an answer before it, which may be a refusal.

    `responder` is one of `lasting`, which ends what takes too long. Raises `Disconnected`.
    """
    responder.reader = asyncio.current_task()
    ended_by: asyncio.CancelledError | None = None
    try:
        try:
            message = await receive()
            if message["type"] == "http.disconnect" or message.get("more_body", False):
                body = await _receive_rest(message, receive, limit)
            else:
                body = message.get("body", b"")
        except asyncio.CancelledError as error:
            ended_by = error
            raise
        finally:
            responder.reader = None
            if responder.on_read is not None:
                responder.on_read(ended_by)
        if len(body) > limit:
            raise too_large(limit)
    except Refusal as refusal:
        refuse(responder, refusal)
        return None
    return None if responder.is_gone else body


async def _receive_rest(message: Message, receive: Receive, limit: int) -> bytes:
    """A body of which `message` is the first piece."""
    chunks: list[bytes] = []
    size = 0
    while message["type"] != "http.disconnect":
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
    raise Disconnected


def too_large(limit: int) -> Refusal:
    """Who has been refused need not send the rest, so the connection ends."""
    return Refusal(413, f"The body is larger than {limit} bytes.", headers=_CLOSE)


def too_slow() -> Refusal:
    """The rest of the body would be read as the next request, so the connection ends."""
    return Refusal(408, f"The body did not arrive within {BODY_TIMEOUT:g} s.", headers=_CLOSE)
