"""Outcomes of servers of either era, in the words of revision 2026-07-28."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Raw, Struct

from holdfast.call import Abilities, Ask, Fields, InputRequired, Outcome, Result, RpcError
from holdfast.downstream.envelope import (
    DISCOVER,
    HEADER_MISMATCH,
    LISTS,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from holdfast.servers.service import Service
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import MODERN, SERVER_INFO_KEY
from holdfast.wire.tasks import without_extension, without_support

RESOURCE_NOT_FOUND: Final = -32002
URL_NEEDED: Final = -32042
"""Codes of the handshake era that this revision says in other ways."""

STATUSES: Final[Mapping[int, int]] = {
    jsonrpc.METHOD_NOT_FOUND: 404,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
}
"""The HTTP statuses of errors that come as JSON; others are answers like any."""

_CACHED: Final = LISTS | {"resources/read", DISCOVER}
_COMPLETE: Final = Raw(b'"complete"')
_NOTHING: Final = Raw(b"{}")
_HINTS: Final[Fields] = {"ttlMs": Raw(b"0"), "cacheScope": Raw(b'"private"')}
"""Nothing may be kept: a server of the handshake era may change what it lists within any session, and
a client that does not listen would not hear of it. The same where a server gives none."""
_LONGEST: Final = 2**53
"""Milliseconds: the largest integer that every client reads; what is larger may be too large to reckon with."""
_ADDED: Final = frozenset({"resultType", "_meta"})
_ADDED_BYTES: Final = frozenset(name.encode() for name in _ADDED)
_PLAIN: Final = b'{"jsonrpc":"2.0","id":%b,"result":'
_BEGINNING: Final = (
    b'{"jsonrpc":"2.0","id":%%b,"result":{"resultType":"complete","_meta":{"%b":%%b},' % SERVER_INFO_KEY.encode()
)
"""How an answer begins, by its id and the server's `serverInfo`, before what its result says behind its first brace."""
_WITH_HINTS: Final = b'{"jsonrpc":"2.0","id":%b,"result":{"ttlMs":%d,"cacheScope":"%b",'
_LARGE: Final = 4096
"""Bytes of a result from which on it is worth it to look for quotes first."""
_FEW: Final = 32
_LONGEST_KEY: Final = 6 * max(map(len, _ADDED))
"""Bytes of a name of which each character is escaped."""
_BACKSLASH: Final = ord("\\")
_UNUSABLE: Final = frozenset({"tasks"})
"""Capabilities of the handshake era that this revision knows nothing of."""


def in_parts(message_id: bytes, method: str, result: Result, service: Service) -> tuple[bytes, ...]:
    """The answer to the request `message_id`: what the server said, as a client of this revision must get it.

    Joined, the parts are JSON, with line breaks where the server wrote any.
    """
    server_info = service.server_info
    if method in _CACHED:
        return _with_hints(message_id, method, result, service)
    if result.modern is not None:
        said = {"resultType": _COMPLETE, **jsonrpc.decode_fields(result.modern)}
    else:
        text = bytes(result.raw)
        fields = {} if len(text) > _LARGE and _has_but_few_strings(text) else jsonrpc.decode_fields(text)
        if server_info is not None and text.startswith(b'{"') and _ADDED.isdisjoint(fields):
            return (_BEGINNING % (message_id, server_info), text[1:], b"}")
        said = {**jsonrpc.decode_fields(text), "resultType": _COMPLETE}
    return (_PLAIN % message_id, encode_result(said, server_info), b"}")


def shaped(outcome: Outcome, abilities: Abilities, service: Service) -> Outcome:
    """Whatever ended a call but a result, as a client of this revision must get it."""
    return _error(outcome, abilities, service.server_info) if isinstance(outcome, RpcError) else outcome


def discovered(hello: Hello, revisions: Sequence[str]) -> Result:
    """What a server said when it was initialized, as the answer to `server/discover` that names `revisions`."""
    said = jsonrpc.decode_fields(hello.raw)
    is_modern = hello.protocol_version == MODERN
    capabilities = hello.capabilities if is_modern else without_extension(hello.capabilities)
    offered = {name: raw for name, raw in capabilities.items() if name not in _UNUSABLE}
    fields: dict[str, Any] = {
        "resultType": _COMPLETE,
        "supportedVersions": revisions,
        "capabilities": {**offered, "logging": offered.get("logging", _NOTHING)},  # ours, if not the server's
        **_HINTS,
    }
    if "instructions" in said:
        fields["instructions"] = said["instructions"]
    return Result(encode_result(fields, said.get("serverInfo")))


def input_required(asks: Mapping[str, Ask], state: str, server_info: Raw | None) -> InputRequired:
    """The questions of a server, as the result that ends a leg of the call."""
    requests = {key: _request(ask.method, ask.params) for key, ask in asks.items()}
    return _input_required({"inputRequests": requests, "requestState": state}, server_info)


def code_of(outcome: Outcome) -> int:
    """The code of a server's error; 0 where it is none."""
    if not isinstance(outcome, RpcError):
        return 0
    code = jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("code", b"0"))
    return code if isinstance(code, int) else 0


def encode_result(fields: Mapping[str, Any], server_info: Raw | None) -> Raw:
    """A result that says whose it is."""
    if server_info is None:
        return Raw(jsonrpc.encode(fields))
    meta = jsonrpc.decode_fields(fields["_meta"]) if "_meta" in fields else {}
    return Raw(jsonrpc.encode({**fields, "_meta": {**meta, SERVER_INFO_KEY: server_info}}))


class _Shaped(Struct, frozen=True):
    """A result that may be kept, in the words of this revision but for the hints, which depend on the moment."""

    rest: bytes
    """What follows them."""
    server_info: Raw | None
    """Who is said there to have said it."""
    ttl_ms: int
    is_public: bool


def _with_hints(message_id: bytes, method: str, result: Result, service: Service) -> tuple[bytes, ...]:
    """A server's hints hold as far as they do here: for what is left of the time, and for whom we serve the same."""
    page = result.page
    shaped = None if page is None else page.shaped
    if type(shaped) is not _Shaped or shaped.server_info is not service.server_info:
        shaped = _shape(method, result, service.server_info)
        if page is not None:
            page.shaped = shaped
    left = int(max(0.0, shaped.ttl_ms - result.age * 1000)) if shaped.ttl_ms else 0
    scope = b"public" if shaped.is_public and service.is_common else b"private"
    return (_WITH_HINTS % (message_id, left, scope), shaped.rest, b"}")


def _shape(method: str, result: Result, server_info: Raw | None) -> _Shaped:
    if result.modern is None:
        said = jsonrpc.decode_fields(without_support(result.raw) if method == "tools/list" else result.raw)
        said["resultType"] = _COMPLETE
        hints = _HINTS
    else:
        said = {"resultType": _COMPLETE, **jsonrpc.decode_fields(result.modern)}
        hints = _HINTS | said
    for name in _HINTS:
        said.pop(name, None)
    ttl = jsonrpc.decode_value(hints["ttlMs"])
    return _Shaped(
        bytes(encode_result(said, server_info))[1:],
        server_info,
        min(ttl, _LONGEST) if isinstance(ttl, int) else 0,
        jsonrpc.decode_value(hints["cacheScope"]) == "public",
    )


def _has_but_few_strings(text: bytes) -> bool:
    """Whether the strings of `text`, which is JSON, are few and none of them may be one of `_ADDED`.

    To look for the quotes of a large text costs less than to look at all of it: the most of it is often one string,
    such as an image. Where there are many quotes, or escaped ones, nothing is said.
    """
    end = 0
    for _ in range(_FEW):
        start = text.find(b'"', end) + 1
        if not start:
            return True
        end = text.find(b'"', start)
        if text[end - 1] == _BACKSLASH:
            return False
        if end - start <= _LONGEST_KEY and (b"\\" in (key := text[start:end]) or key in _ADDED_BYTES):
            return False
        end += 1
    return False


def _error(error: RpcError, abilities: Abilities, server_info: Raw | None) -> Outcome:
    code = code_of(error)
    if code == URL_NEEDED:
        return _urls(error, abilities, server_info)
    if code != RESOURCE_NOT_FOUND:
        return error
    fields = {**jsonrpc.decode_fields(error.raw), "code": Raw(b"%d" % jsonrpc.INVALID_PARAMS)}
    return RpcError(Raw(jsonrpc.encode(fields)))


def _urls(error: RpcError, abilities: Abilities, server_info: Raw | None) -> Outcome:
    """A server that wants pages visited first; to come again is a call like the first, so there is no state."""
    fields = jsonrpc.decode_fields(error.raw)
    wanted = jsonrpc.decode_items(jsonrpc.decode_fields(fields.get("data", b"{}")).get("elicitations", b"[]"))
    if not wanted:
        return RpcError(Raw(jsonrpc.encode({**fields, "code": Raw(b"%d" % jsonrpc.INVALID_PARAMS)})))
    if not abilities.elicitation_url:
        data: dict[str, Any] = {"requiredCapabilities": {"elicitation": {"url": {}}}}
        return RpcError(Raw(jsonrpc.error_object(MISSING_CAPABILITY, jsonrpc.error_message(error.raw), data)))
    requests = {str(number): _request("elicitation/create", raw) for number, raw in enumerate(wanted, 1)}
    return _input_required({"inputRequests": requests}, server_info)


def _request(method: str, params: Raw | None) -> dict[str, Any]:
    """A question without what only a session could refer to."""
    if params is None:
        return {"method": method}
    fields: dict[str, Any] = dict(jsonrpc.decode_fields(params))
    fields.pop("elicitationId", None)
    meta = jsonrpc.decode_fields(fields.pop("_meta", b"{}"))
    meta.pop("progressToken", None)
    return {"method": method, "params": {**fields, "_meta": meta} if meta else fields}


def _input_required(fields: Mapping[str, Any], server_info: Raw | None) -> InputRequired:
    return InputRequired(encode_result({"resultType": "input_required", **fields}, server_info))
