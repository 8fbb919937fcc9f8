"""The body of a request: how large it may be, and how long it may take to come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from holdfast.clock import Clock, timeout
from holdfast.downstream.http import Receive
from holdfast.downstream.refusal import Refusal

BODY_TIMEOUT: Final = 30.0
"""Seconds for a request's body to arrive: who sends it drop by drop holds nothing for longer."""
_CLOSE: Final = ((b"connection", b"close"),)


class Disconnected(Exception):
    """The client left before its request was whole."""


def check_length(headers: Mapping[str, str], limit: int) -> None:
    """Whether the body may come, as far as its head says. Raises `Refusal`."""
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise Refusal(400, "The Content-Length is no number.")
    if int(length) > limit:
        raise too_large(limit)


async def receive_body(receive: Receive, clock: Clock, limit: int) -> bytes:
    """The whole body from ASGI. Raises `Refusal` over a limit, `Disconnected` if it never becomes whole."""
    try:
        async with timeout(clock, BODY_TIMEOUT):
            return await _receive(receive, limit)
    except TimeoutError:
        raise too_slow() from None


async def _receive(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(limit: int) -> Refusal:
    """Who has been refused need not send the rest, so the connection ends."""
    return Refusal(413, f"The body is larger than {limit} bytes.", headers=_CLOSE)


def too_slow() -> Refusal:
    """The rest of the body would be read as the next request, so the connection ends."""
    return Refusal(408, f"The body did not arrive within {BODY_TIMEOUT:g} s.", headers=_CLOSE)
