"""What a request of revision 2026-07-28 says of itself, in its headers and in `_meta`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from holdfast.call import LOG_LEVELS, NOBODY, Abilities, Json
from holdfast.catalog.mirrored import Mirrored
from holdfast.downstream.client import abilities_of
from holdfast.downstream.post import CHAT_KEY
from holdfast.downstream.refusal import Refusal
from holdfast.wire import jsonrpc
from holdfast.wire.headers import mirrored_value
from holdfast.wire.jsonrpc import ClientRequest
from holdfast.wire.revisions import (
    CAPABILITIES_KEY,
    ENVELOPE_KEYS,
    LOG_LEVEL_KEY,
    MODERN,
    MODERN_VERSION_KEY,
)
from holdfast.wire.tasks import EXTENSION, undeclared

HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

DISCOVER: Final = "server/discover"
LISTEN: Final = "subscriptions/listen"
LISTS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})
ASKING: Final[Mapping[str, str]] = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The methods during which a server may ask, and the parameter that `Mcp-Name` mirrors."""
TASKS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
"""What the extension for tasks adds."""
NAMED: Final[Mapping[str, str]] = {**ASKING, **dict.fromkeys(TASKS, "taskId")}
METHODS: Final = frozenset({DISCOVER, LISTEN, "completion/complete", *LISTS, *ASKING, *TASKS})

NO_TASKS: Final = "This is about tasks, and the client does not declare that it knows any."
NEEDS_TASKS: Final[Mapping[str, Any]] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}

_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_OF_THE_RETRY: Final = frozenset({"inputResponses", "requestState"})
NOT_ASKED_FOR: Final = _OF_THE_RETRY | {"task"}
"""What a server of the handshake era must not see: no client of this revision says whether there is a task."""
_OURS: Final = ENVELOPE_KEYS | {LOG_LEVEL_KEY, CHAT_KEY}
"""The `_meta` keys that go no further."""


class Envelope(Struct, frozen=True):
    """A request that may be taken: its headers say what its body says, and its parameters can be read."""

    abilities: Abilities
    """What may be asked while it runs."""
    capabilities: Mapping[str, Json]
    """The same and more, as the client says it."""
    level: str | None
    """The lowest level of the log messages that it wants; None for none at all."""
    responses: dict[str, dict[str, Json]] | None
    """The answers to what was asked on an earlier leg of the same call."""
    state: str | None
    """The `requestState` of that leg."""


def read_envelope(
    request: ClientRequest, headers: Mapping[str, str] | None, offered: Callable[[], Sequence[str]]
) -> Envelope:
    """Check a request in the order in which its sender can mend it. Raises `Refusal`.

    `headers` are None where the wire has none; `offered` gives the revisions that its sender may turn to.
    """
    meta = request.params.get("_meta")
    said: dict[str, Json] = meta if isinstance(meta, dict) else {}
    version, capabilities = said.get(MODERN_VERSION_KEY), said.get(CAPABILITIES_KEY)
    if not isinstance(version, str):
        raise bad_params(request, f"_meta lacks {MODERN_VERSION_KEY}, a string.")
    if not isinstance(capabilities, dict):
        raise bad_params(request, f"_meta lacks {CAPABILITIES_KEY}, an object.")
    _must_mirror(request, headers, "MCP-Protocol-Version", version)
    if version != MODERN:
        supported = offered()
        raise _refused(
            request,
            UNSUPPORTED_VERSION,
            f"Revision {version} is not served in this way; supported are {', '.join(supported)}.",
            data={"supported": supported, "requested": version},
        )
    _must_mirror(request, headers, "Mcp-Method", request.method)
    if request.method not in METHODS:
        raise _refused(request, jsonrpc.METHOD_NOT_FOUND, f"{request.method} is not part of {MODERN}.", status=404)
    has_tasks = _has_tasks(capabilities)
    if request.method in ASKING or (request.method in TASKS and has_tasks):
        field = NAMED[request.method]
        name = request.params.get(field)
        if not isinstance(name, str):
            raise bad_params(request, f"{request.method} needs {field}, a string.")
        _must_mirror(request, headers, "Mcp-Name", name)
    if not has_tasks and _listens_for_tasks(request):
        raise _refused(request, MISSING_CAPABILITY, NO_TASKS, data=NEEDS_TASKS)
    _check_params(request)
    level = said.get(LOG_LEVEL_KEY)
    if level is not None and level not in LOG_LEVELS:
        raise bad_params(request, f"{LOG_LEVEL_KEY} is one of {', '.join(LOG_LEVELS)}.")
    abilities = NOBODY
    if capabilities and request.method in NAMED:
        abilities = replace(abilities_of(capabilities), other=False, tasks=has_tasks)
    again = (None, None) if request.method in TASKS else _retry(request)
    return Envelope(abilities, capabilities, level if isinstance(level, str) else None, *again)


def without_tasks(envelope: Envelope) -> Envelope:
    """The envelope of the same caller, if it did not know of tasks."""
    abilities = replace(envelope.abilities, tasks=False)
    return replace(envelope, abilities=abilities, capabilities=undeclared(envelope.capabilities))


def without_envelope(request: ClientRequest) -> ClientRequest:
    """The request as a server of the handshake era may see it."""
    dropped = frozenset[str]() if request.method in TASKS else NOT_ASKED_FOR
    params = {name: value for name, value in request.params.items() if name not in dropped}
    meta = params.get("_meta")
    if isinstance(meta, dict):
        kept = {name: value for name, value in meta.items() if name not in _OURS}
        if kept:
            params["_meta"] = kept
        else:
            del params["_meta"]
    return ClientRequest(request.id, request.method, params)


def check_mirrored(request: ClientRequest, headers: Mapping[str, str], mirrored: Mirrored) -> None:
    """The arguments that a tool wants in headers must stand there as in the body. Raises `Refusal`."""
    for header, path in mirrored.items():
        value: Json = request.params.get("arguments")
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        sent = headers.get(header)
        if value is None and sent is None:
            continue
        if sent is None:
            raise _refused(request, HEADER_MISMATCH, f"The header {header} is missing.")
        if not _says(mirrored_value(sent), value):
            raise _refused(request, HEADER_MISMATCH, f"The header {header} does not say what the body says.")


def _says(sent: str | None, value: Json) -> bool:
    """Whether a header says what an argument says; integers are compared as numbers."""
    if isinstance(value, bool):
        return sent == ("true" if value else "false")
    if isinstance(value, int | float) and sent is not None:
        return _INTEGER.fullmatch(sent) is not None and int(sent) == value
    return isinstance(value, str) and sent == value


def bad_params(request: ClientRequest, message: str) -> Refusal:
    """What the request says cannot be meant."""
    return _refused(request, jsonrpc.INVALID_PARAMS, message)


def _check_params(request: ClientRequest) -> None:
    params = request.params
    if not isinstance(params.get("arguments", {}), dict):
        raise bad_params(request, "arguments must be an object.")
    if request.method in LISTS and not isinstance(params.get("cursor", ""), str):
        raise bad_params(request, "The cursor must be a string.")


def _retry(request: ClientRequest) -> tuple[dict[str, dict[str, Json]] | None, str | None]:
    """The answers and the state that a later leg of a call bears."""
    state, responses = request.params.get("requestState"), request.params.get("inputResponses")
    if state is not None and not isinstance(state, str):
        raise bad_params(request, "requestState must be the string that was given.")
    if responses is None:
        return None, state
    if not isinstance(responses, dict):
        raise bad_params(request, "inputResponses must be an object of results.")
    results = {key: value for key, value in responses.items() if isinstance(value, dict)}
    if len(results) < len(responses):
        raise bad_params(request, "Each of inputResponses must be an object.")
    return results, state


def _has_tasks(capabilities: Mapping[str, Json]) -> bool:
    extensions = capabilities.get("extensions")
    return isinstance(extensions, dict) and EXTENSION in extensions


def _listens_for_tasks(request: ClientRequest) -> bool:
    wanted = request.params.get("notifications") if request.method == LISTEN else None
    return isinstance(wanted, dict) and "taskIds" in wanted


def _must_mirror(request: ClientRequest, headers: Mapping[str, str] | None, header: str, value: str) -> None:
    """Whoever routes by the headers must see what the body says."""
    if headers is None:
        return
    sent = headers.get(header.lower())
    if sent is None:
        raise _refused(request, HEADER_MISMATCH, f"The header {header} is missing.")
    if mirrored_value(sent) != value:
        raise _refused(request, HEADER_MISMATCH, f"The header {header} does not say what the body says.")


def _refused(
    request: ClientRequest, code: int, message: str, *, status: int = 400, data: Mapping[str, Any] | None = None
) -> Refusal:
    return Refusal(status, message, code=code, request_id=request.id, data=data)
