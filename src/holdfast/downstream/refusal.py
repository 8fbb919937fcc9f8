"""What is refused before it is admitted: an HTTP status, with a JSON-RPC error for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from holdfast.downstream.http import Headers, Responder
from holdfast.events import Denial
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import BadMessage, RequestId

SESSION_NOT_FOUND: Final = -32001
"""The code that common servers and clients use beside a 404."""


class Refusal(Exception):
    """A request that is not admitted; the message says what to do."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: int = jsonrpc.INVALID_REQUEST,
        request_id: RequestId | None = None,
        headers: Headers = (),
        data: Mapping[str, Any] | None = None,
        denial: Denial | None = None,
    ) -> None:
        """`denial`: whoever sent it is not let in, which the operator is told."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.headers = headers
        self.data = data
        self.denial = denial


def bad_message(error: BadMessage) -> Refusal:
    """A body that is no acceptable JSON-RPC."""
    return Refusal(400, error.message, code=error.code, request_id=error.request_id)


def session_not_found() -> Refusal:
    """The same for a session that never was, has ended, or is another's."""
    return Refusal(404, "No such session: initialize again, without a session id.", code=SESSION_NOT_FOUND)


def refuse(responder: Responder, refusal: Refusal) -> None:
    """Write a refusal."""
    error = jsonrpc.error_object(refusal.code, refusal.message, refusal.data)
    body = jsonrpc.error(jsonrpc.id_bytes(refusal.request_id), error)
    responder.answer(refusal.status, ((b"content-type", b"application/json"), *refusal.headers), (body,))
