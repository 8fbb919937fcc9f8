"""One answer of a server, taken in as it comes: whatever it is, it ends as a `Reply`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from holdfast.config import MAX_MESSAGE_BYTES
from holdfast.doctor.findings import Answer, Kind
from holdfast.upstream.http1 import HttpFault
from holdfast.upstream.quotation import is_readable, phrase, quotation
from holdfast.wire import jsonrpc
from holdfast.wire.headers import EVENT_STREAM, is_session_id, media_type
from holdfast.wire.jsonrpc import ServerMessage
from holdfast.wire.sse import EventTooLarge, SseParser

SESSION_HEADER: Final = "mcp-session-id"
_WORDS: Final = 80
_MAX_REFUSAL_BYTES: Final = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Reply:
    """What came back for one request, and how long it took."""

    kind: Kind = "nothing"
    status: int | None = None
    code: int | None = None
    words: str = ""
    result: Raw | None = None
    session_id: str | None = None
    event_id: str | None = None
    """Of the last event of its stream that had one."""
    tokens: tuple[object, ...] = ()
    """Of the progress notifications that came with it, in order."""
    seconds: float = 0.0
    limit: int | None = None
    left: int | None = None
    location: str = ""
    """Where a redirection points to."""
    is_unsent: bool = False
    """The server was not reached: no byte of the request was written."""

    @property
    def answer(self) -> Answer:
        """What of it is told."""
        return Answer(kind=self.kind, status=self.status, code=self.code, words=self.words)

    @property
    def is_served(self) -> bool:
        """There is a result."""
        return self.kind == "result"


def short(text: str) -> str:
    """The first words of a text of the server, on one line."""
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return plain if len(plain) <= _WORDS else f"{plain[: _WORDS - 1].rstrip()}…"


def settle(reply: Reply, envelope: ServerMessage) -> None:
    """Put the answer of the server into `reply`."""
    if envelope.result:
        reply.kind, reply.result = "result", envelope.result.copy()
        return
    fields = jsonrpc.decode_fields(envelope.error) if envelope.error else {}
    code = jsonrpc.decode_value(fields.get("code", b"null"))
    reply.kind = "error"
    reply.code = code if isinstance(code, int) else None
    reply.words = short(jsonrpc.error_message(envelope.error)) if envelope.error else "an answer that is no MCP"


Heard = Callable[[ServerMessage], None]
"""Takes a request or a notification of the server."""


class Taking:
    """A `ResponseSink` that makes a `Reply` of an answer, which may be a stream.

    `request_id` is the request whose answer is awaited; None where none will come, and the head of
    the answer is all that is wanted. `done` is set once it is there.
    """

    def __init__(self, request_id: int | None, secrets: frozenset[str], heard: Heard) -> None:
        self.reply = Reply()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """The last byte has come, too."""
        self._request_id = request_id
        self._secrets = secrets
        self._heard = heard
        self._parser: SseParser | None = None
        self._body = bytearray()
        self._headers: Mapping[str, str] = {}
        self._tokens: list[object] = []

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        reply = self.reply
        reply.status, self._headers = status, headers
        session_id = headers.get(SESSION_HEADER)
        reply.session_id = session_id if session_id is not None and is_session_id(session_id) else None
        reply.limit, reply.left = _allowance(headers)
        reply.location = headers.get("location", "") if 300 <= status < 400 else ""
        if status < 300 and media_type(headers.get("content-type")) == EVENT_STREAM:
            reply.kind = "stream"
            self._parser = SseParser(MAX_MESSAGE_BYTES)
            if self._request_id is None:
                self._finish()

    def body(self, chunk: bytes) -> None:
        if self._parser is None:
            limit = MAX_MESSAGE_BYTES if (self.reply.status or 0) < 300 else _MAX_REFUSAL_BYTES
            if len(self._body) < limit:
                self._body += chunk
            return
        try:
            for event in self._parser.feed(chunk):
                if event.id and event.id.isprintable():  # another could not be sent back
                    self.reply.event_id = event.id
                if event.data:
                    self._take(event.data)
        except EventTooLarge:
            self._give_up("an event that is too large")

    def end(self) -> None:
        if self._parser is None:
            self._read_body()
        elif not self.done.done():
            self._give_up("its stream ended without the answer")
        self._finish()
        _set(self.ended)

    def failed(self, fault: HttpFault) -> None:
        if not self.done.done():
            self.reply.is_unsent = not fault.is_sent
            self._give_up(fault.detail)
        _set(self.ended)

    def _read_body(self) -> None:
        body = bytes(self._body)
        for message in jsonrpc.decode_items(body) or ([Raw(body)] if body.lstrip()[:1] == b"{" else []):
            self._take(bytes(message))
        reply = self.reply
        if reply.kind != "nothing" or self.done.done():
            return
        if not body.strip():
            reply.kind, reply.words = "empty", phrase(reply.status or 0)
            return
        is_html = media_type(self._headers.get("content-type")) == "text/html" or body.lstrip()[:1] == b"<"
        reply.kind = "html" if is_html else "text"
        quoted = quotation(body, self._secrets) if is_readable(self._headers) else ""
        reply.words = short(quoted if len(quoted) < _WORDS - 2 else f"{quoted} …")  # it was cut without a word

    def _take(self, message: bytes) -> None:
        try:
            envelope = jsonrpc.decode_server(message)
        except ValueError:
            return
        if envelope.method is not None:
            self._note(envelope)
            self._heard(envelope)
        elif self._is_answer(envelope) and not self.done.done():
            settle(self.reply, envelope)
            self.reply.words = _without(self.reply.words, self._secrets)
            self._finish()

    def _is_answer(self, envelope: ServerMessage) -> bool:
        # A refusal by status often has the id null, or none: the request was not read that far.
        is_refusal = bool(envelope.error) and (self.reply.status or 0) >= 400
        return is_refusal or (envelope.own_id is not None and envelope.own_id == self._request_id)

    def _note(self, envelope: ServerMessage) -> None:
        if envelope.method == "notifications/progress" and envelope.params:
            token = jsonrpc.decode_fields(envelope.params).get("progressToken", Raw(b"null"))
            self._tokens.append(jsonrpc.decode_value(token))
            self.reply.tokens = tuple(self._tokens)

    def _give_up(self, why: str) -> None:
        self.reply.kind, self.reply.words = "nothing", why
        self._finish()

    def _finish(self) -> None:
        _set(self.done)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _without(text: str, secrets: frozenset[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _allowance(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The limit and what is left of it, as the older `RateLimit-…` headers say it."""
    found = [
        headers.get(f"ratelimit-{word}", headers.get(f"x-ratelimit-{word}", "")).partition(",")[0].strip()
        for word in ("limit", "remaining")
    ]
    limit, left = (int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None for text in found)
    return limit, left
