"""Outcomes of servers of either era, in the words of revision 2026-07-28."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Raw

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
_UNUSABLE: Final = frozenset({"tasks"})
"""Capabilities of the handshake era that this revision knows nothing of."""


def shaped(method: str, outcome: Outcome, abilities: Abilities, service: Service) -> Outcome:
    """What the server said, as a client of this revision must get it."""
    if isinstance(outcome, Result):
        hints = _HINTS if method in _CACHED else {}
        if outcome.modern is None:
            said = jsonrpc.decode_fields(without_support(outcome.raw) if method == "tools/list" else outcome.raw)
            return Result(encode_result({**said, "resultType": _COMPLETE, **hints}, service.server_info))
        said = {"resultType": _COMPLETE, **hints, **jsonrpc.decode_fields(outcome.modern)}
        if hints:
            said |= _true_hints(said, outcome.age, is_common=service.is_common)
        return Result(encode_result(said, service.server_info))
    if isinstance(outcome, RpcError):
        return _error(outcome, abilities, service.server_info)
    return outcome


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


def _true_hints(said: Fields, age: float, *, is_common: bool) -> Fields:
    """A server's hints as far as they hold here: for what is left of the time, and for whom we serve the same."""
    ttl = jsonrpc.decode_value(said["ttlMs"])
    left = int(max(0.0, min(ttl, _LONGEST) - age * 1000)) if isinstance(ttl, int) else 0
    is_public = is_common and jsonrpc.decode_value(said["cacheScope"]) == "public"
    return {"ttlMs": Raw(b"%d" % left), "cacheScope": Raw(b'"public"') if is_public else _HINTS["cacheScope"]}


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
