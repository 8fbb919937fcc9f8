"""What an application is told, beside `CallFailed`."""

from __future__ import annotations

from msgspec import Raw

from holdfast.call import Json
from holdfast.errors import HoldfastError
from holdfast.wire import jsonrpc


class ServerError(HoldfastError):
    """The server answered with a JSON-RPC error: an answer, so the session is as it was."""

    def __init__(self, code: int, message: str, data: Json = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class UnknownServer(HoldfastError, LookupError):
    """The settings have no server of that name."""


class InvalidAnswer(HoldfastError):
    """The server's result is not what the specification says; `raw` is what came."""

    def __init__(self, message: str, raw: bytes) -> None:
        super().__init__(message)
        self.raw = raw


def server_error(raw: Raw) -> ServerError:
    """The error that a server's JSON-RPC error object says."""
    value = jsonrpc.decode_value(raw)
    fields = value if isinstance(value, dict) else {}
    code = fields.get("code")
    return ServerError(
        code if isinstance(code, int) else jsonrpc.INTERNAL_ERROR, jsonrpc.error_message(raw), fields.get("data")
    )
