"""What the parts of a Streamable HTTP server's answer mean: pure functions of `streamable_request.py`."""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin, urlsplit

from msgspec import Raw

from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.transport import FaultKind
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ServerMessage

_MAX_EVENT_ID: Final = 1024


def resumable(event_id: str) -> str | None:
    """`event_id` where a stream can be resumed after it: it must fit into a header."""
    return event_id if event_id.isprintable() and 0 < len(event_id) <= _MAX_EVENT_ID else None


def is_response(message: bytes, request_id: int) -> bool:
    """Whether `message` is, or as an array holds, the response to the request. Raises `ValueError`.

    Invalid UTF-8 is an error too: the result goes on as it is, and clients could not read it.
    """
    if jsonrpc.is_too_long_an_array(message):
        raise ValueError("an array of too many messages")
    if not jsonrpc.is_utf8(message):
        raise ValueError("no UTF-8")
    if message[:64].lstrip()[:1] == b"[":
        return any(_responds(part, request_id) for part in jsonrpc.decode_array(message))
    return _responds(message, request_id)


def single(message: bytes) -> ServerMessage | None:
    """The envelope of `message`; None where it is an array. Raises `ValueError` as `is_response`."""
    if message[:1] != b"{":
        return None
    if not message.isascii() and not jsonrpc.is_utf8(message):
        raise ValueError("no UTF-8")
    return jsonrpc.decode_server(message)


def _responds(message: bytes | Raw, request_id: int) -> bool:
    return answers(jsonrpc.decode_server(message), request_id)


def answers(envelope: ServerMessage, request_id: int) -> bool:
    """Whether `envelope` is the response to the request."""
    if envelope.method is not None:
        return False
    own_id = envelope.own_id
    return own_id == request_id or (own_id is None and bytes(envelope.id) in {b"", b"null"} and bool(envelope.error))


def response_of(body: bytes, request_id: int) -> ServerMessage | None:
    """The envelope of `body` where it is the response to the request; None for anything else, an array too."""
    try:
        envelope = single(body)
    except ValueError:
        return None
    return envelope if envelope is not None and answers(envelope, request_id) else None


def has_response(body: bytes, request_id: int) -> bool:
    """As `is_response`, and False for what is no JSON-RPC."""
    try:
        return is_response(body, request_id)
    except ValueError:
        return False


def error_of(body: bytes) -> Raw | None:
    """The `error` object where `body` is a JSON-RPC refusal; its id is not asked for, many servers cannot tell it."""
    if not jsonrpc.is_utf8(body):
        return None
    try:
        envelope = jsonrpc.decode_server(body)
    except ValueError:
        return None
    if envelope.method is not None or not envelope.error:
        return None
    return envelope.error.copy()


def refusal_kind(status: int) -> FaultKind | None:
    """What an HTTP status alone says of a request; None where it depends on what was asked."""
    if status in {401, 403}:
        return FaultKind.UNAUTHORIZED
    if status in {502, 503}:
        return FaultKind.UNAVAILABLE
    return FaultKind.FAILED if status >= 500 else None


def same_origin_target(client: HttpClient, target: str, location: str) -> str | None:
    """Path and query of `location` where it stays at the client's origin; None otherwise."""
    try:
        url = urlsplit(urljoin(f"{client.scheme}://{client.peer}{target}", location))
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return None
    if not location or (url.scheme, url.hostname, port) != (client.scheme, client.host, client.port):
        return None
    path = url.path or "/"
    new = f"{path}?{url.query}" if url.query else path
    return new if new.isascii() and new.isprintable() and " " not in new else None


def readable_path(location: str) -> str:
    """The host and path of `location` alone, for a sentence: a query may hold secrets, and so may a user's part."""
    try:
        parts = urlsplit(location)
        host = f"{parts.scheme}://{parts.hostname}" if parts.hostname else ""
    except ValueError:
        return "nowhere"
    where = f"{host}{parts.path}"
    return repr(where[:200]) if where else "nowhere"
