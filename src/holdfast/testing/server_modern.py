"""The scripted server of revision 2026-07-28: what it asks of a request, and what it answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, Final, cast

from msgspec import Raw

from holdfast import __version__
from holdfast.call import LOG_LEVELS, Json
from holdfast.testing import server_modern_tasks
from holdfast.testing.server_core import Outlet, RpcFailure, ServerCore, Session
from holdfast.testing.server_methods import answer, call_tool
from holdfast.testing.server_tools import APPS, TOOLS, Tool, ToolCall, text_result
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import MODERN, MODERN_VERSION_KEY
from holdfast.wire.tasks import CHANGED

HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

STATUSES: Final[Mapping[int, int]] = {
    jsonrpc.INVALID_REQUEST: 400,
    jsonrpc.METHOD_NOT_FOUND: 404,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
}
"""The HTTP status of an error that comes before anything else; 200 for any other."""

CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
CLIENT_KEY: Final = "io.modelcontextprotocol/clientInfo"
LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"
SERVER_KEY: Final = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"

KINDS: Final[Mapping[str, str]] = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}

_QUESTIONS: Final = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
_CACHED: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
HINTS: Final[dict[str, Any]] = {"ttlMs": 1000, "cacheScope": "private"}
"""What results say that may be kept."""
_GONE: Final = frozenset({"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
_SECRET: Final = secrets.token_bytes(32)

_REGION: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "number": {"type": "integer", "x-mcp-header": "Number"},
        "is_urgent": {"type": "boolean", "x-mcp-header": "Urgent"},
    },
}


async def _region(call: ToolCall) -> dict[str, Any]:
    """Return the headers that repeat the arguments."""
    mirrored = {name: value for name, value in call.headers.items() if name.startswith("mcp-param-")}
    return text_result(jsonrpc.encode(mirrored).decode())


async def _poll(call: ToolCall) -> dict[str, Any]:
    """Ask to be called again, `times` times, without a question."""
    turn = cast("Request", call.session)
    done = turn.rounds
    if done < int(call.number("times")):
        raise InputRequired({}, turn.seal({"rounds": done + 1}))
    return text_result(f"done after {done}")


async def _badger(call: ToolCall) -> dict[str, Any]:
    """Ask for ever."""
    turn = cast("Request", call.session)
    raise InputRequired({"again": {"method": "roots/list"}}, turn.seal({"rounds": turn.rounds + 1}))


async def _measure(_call: ToolCall) -> dict[str, Any]:
    """Return structured content that is no object."""
    return {"content": [], "structuredContent": [1, 2, 3], "isError": False}


MODERN_TOOLS: Final[dict[str, Tool]] = {
    "region": Tool(
        _region, {"name": "region", "description": "Its arguments stand in headers.", "inputSchema": _REGION}
    ),
    "poll": Tool(
        _poll,
        {
            "name": "poll",
            "description": "Is not done at once.",
            "inputSchema": {"type": "object", "properties": {"times": {"type": "integer"}}},
        },
    ),
    "badger": Tool(_badger, {"name": "badger", "description": "Asks for ever.", "inputSchema": {"type": "object"}}),
    "measure": Tool(
        _measure,
        {
            "name": "measure",
            "description": "Returns an array.",
            "inputSchema": {"type": "object"},
            "outputSchema": {"type": "array", "items": {"type": "integer"}},
        },
    ),
    "errand": Tool(
        server_modern_tasks.errand,
        {name: value for name, value in TOOLS["errand"].declaration.items() if name != "execution"},
    ),
    "misnamed": Tool(
        _measure,
        {
            "name": "misnamed",
            "description": "Names a header that cannot be.",
            "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "no header"}}},
        },
    ),
}
"""What this era has beyond the tools of the other."""


class InputRequired(Exception):
    """The request is answered with questions."""

    def __init__(self, requests: Mapping[str, Any], state: str) -> None:
        super().__init__("input required")
        self.requests = requests
        self.state = state


class Request(Session):
    """A request as its tool sees it: a conversation that ends with the answer."""

    rounds: int
    params: dict[str, Json]
    _known: dict[str, Json]
    _questions: int

    def begin(self, params: dict[str, Json]) -> None:
        """Take up what earlier requests left in their state. Raises `RpcFailure`."""
        self.params = params
        self._questions = 0
        state = self._unseal(params.get("requestState"))
        rounds, known = state.get("rounds"), state.get("answers")
        self.rounds = rounds if isinstance(rounds, int) else 0
        self._known = dict(known) if isinstance(known, dict) else {}
        responses = params.get("inputResponses")
        if isinstance(responses, dict):
            self._known |= responses

    async def ask(self, outlet: Outlet, method: str, params: Mapping[str, Any] | None) -> jsonrpc.ClientReply:
        """The answer, where it came with the request. Raises `InputRequired` where it did not."""
        del outlet
        self._questions += 1
        name = f"q{self._questions}"
        if name in self._known:
            return jsonrpc.ClientReply(self._questions, Raw(jsonrpc.encode(self._known[name])), None)
        needed = _QUESTIONS[method]
        if needed not in self.client_capabilities:
            raise RpcFailure(MISSING_CAPABILITY, "A capability is missing", {"requiredCapabilities": {needed: {}}})
        question: dict[str, Any] = {"method": method}
        if params is not None:
            question["params"] = {key: value for key, value in params.items() if key != "elicitationId"}
        raise InputRequired({name: question}, self.seal({"rounds": self.rounds + 1, "answers": self._known}))

    def seal(self, state: Mapping[str, Any]) -> str:
        """`state` as a client may carry it: it can be read, but not changed, nor used for another request."""
        body = base64.b64encode(jsonrpc.encode(state)).decode()
        return f"{body}.{self._digest(body)}"

    def _unseal(self, sealed: Json) -> dict[str, Json]:
        if sealed is None:
            return {}
        body, _, digest = sealed.partition(".") if isinstance(sealed, str) else ("", "", "")
        if not hmac.compare_digest(digest.encode(), self._digest(body).encode()):
            raise RpcFailure(jsonrpc.INVALID_PARAMS, "The request state is not of this request.")
        state = jsonrpc.decode_value(base64.b64decode(body))
        return state if isinstance(state, dict) else {}

    def _digest(self, body: str) -> str:
        about = jsonrpc.encode([self.params.get("name"), self.params.get("arguments")])
        return hmac.new(_SECRET, about + body.encode(), hashlib.sha256).hexdigest()


class Subscription(Session):
    """A `subscriptions/listen`: hears what it asked for, and nothing else."""

    wire_id: Json
    kinds: frozenset[str]
    task_ids: list[str]

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        fields = dict(params or {})
        is_followed = method == CHANGED and fields.get("taskId") in self.task_ids
        if is_followed or method in self.kinds or method == "notifications/resources/updated":
            self.tell(method, fields)

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a frame of the stream."""
        if self.push is not None:
            self.push.send(jsonrpc.notification(method, {**params, "_meta": {SUBSCRIPTION_KEY: self.wire_id}}))


def receive(
    core: ServerCore, message: jsonrpc.ClientRequest, outlet: Outlet, headers: Mapping[str, str] | None
) -> Session:
    """Take a request, answered through `outlet` from a task of its own; `headers` is None on stdio.

    Raises `RpcFailure` for what is refused before it is looked at.
    """
    params = message.params
    meta = params.get("_meta")
    envelope = meta if isinstance(meta, dict) else {}
    capabilities = _check_envelope(message, envelope)
    if headers is not None:
        _check_headers(message, headers)
    if message.method in _GONE:
        raise RpcFailure(jsonrpc.METHOD_NOT_FOUND, f"Method not found: {message.method}")
    level = envelope.get(LEVEL_KEY)
    kind = Subscription if message.method == "subscriptions/listen" else Request
    session = kind(
        id=f"r{next(core.request_numbers)}",
        version=MODERN,
        client_info=envelope.get(CLIENT_KEY),
        client_capabilities=capabilities,
        log_level=level if isinstance(level, str) and level in LOG_LEVELS else "none",
        memory=core.memory,
    )
    if isinstance(session, Subscription):
        _listen(core, session, message, outlet)
        return session
    session.begin(params)
    entry = core.record(session, "request", message.method, params)
    args = params.get("arguments")
    call = ToolCall(
        core, session, args=args if isinstance(args, dict) else {}, meta=envelope, headers=headers or {}, outlet=outlet
    )

    async def serve() -> None:
        reply: bytes | None = None
        key = jsonrpc.id_bytes(message.id)
        try:
            with core.executing(entry):
                try:
                    result = await _result(call, message)
                except InputRequired as needed:
                    wanted = {"inputRequests": needed.requests} if needed.requests else {}
                    result = {"resultType": "input_required", "requestState": needed.state, **wanted}
            reply = jsonrpc.result(key, jsonrpc.encode(result))
        except RpcFailure as failure:
            reply = jsonrpc.error(key, jsonrpc.error_object(failure.code, failure.message, failure.data))
        finally:
            session.calls.clear()
            outlet.answer(reply, call.then)

    session.calls[jsonrpc.id_bytes(message.id)] = core.scope.start(serve(), f"{message.method} of {session.id}")
    return session


def close_subscription(core: ServerCore, session: Session) -> None:
    """The client has gone from a subscription."""
    if core.sessions.pop(session.id, None) is not None:
        core.changes.touch()


async def _result(call: ToolCall, message: jsonrpc.ClientRequest) -> dict[str, Any]:
    about: dict[str, Any] = {"resultType": "complete", "_meta": {SERVER_KEY: _INFO}}
    if message.method in _CACHED:
        about |= HINTS
    match message.method:
        case "server/discover":
            return {**_DISCOVERY, **about}
        case "tools/call":
            name = message.params.get("name")
            modern = MODERN_TOOLS.get(name) if isinstance(name, str) else None
            found = await (call_tool(message.params, call) if modern is None else modern.run(call))
            return {**about, **found, "_meta": {**found.get("_meta", {}), **about["_meta"]}}
        case "tools/list":
            listed = [tool.declaration for tool in (TOOLS | MODERN_TOOLS).values()]
            if not call.core.has_extra_tool:
                listed = [tool for tool in listed if tool["name"] != "extra"]
            return {**_page(call.core, message.params, listed), **about}
        case method if method in server_modern_tasks.METHODS:
            return {**server_modern_tasks.answer(call.core, call.session, method, message.params), **about}
        case method:
            return {**answer(call.core, call.session, method, message.params), **about}


def _page(core: ServerCore, params: Mapping[str, Json], tools: list[dict[str, Any]]) -> dict[str, Any]:
    cursor = params.get("cursor", "p0")
    if not isinstance(cursor, str) or not cursor[1:].isdecimal() or int(cursor[1:]) > len(tools):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "The cursor is not one of ours.")
    start = int(cursor[1:])
    end = start + (core.options.page_size or len(tools))
    return {"tools": tools[start:end], **({"nextCursor": f"p{end}"} if end < len(tools) else {})}


_INFO: Final = {"name": "holdfast-test-server", "version": __version__}
_DISCOVERY: Final[dict[str, Any]] = {
    "supportedVersions": [MODERN],
    "capabilities": {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "prompts": {"listChanged": True},
        "logging": {},
        "completions": {},
        "extensions": server_modern_tasks.CAPABILITY | APPS,
    },
    "instructions": "A server for tests: it does what it is told.",
}


def _check_envelope(message: jsonrpc.ClientRequest, envelope: Mapping[str, Json]) -> dict[str, Json]:
    version, capabilities = envelope.get(MODERN_VERSION_KEY), envelope.get(CAPABILITIES_KEY)
    if version is None and message.method == "initialize":
        version = message.params.get("protocolVersion")
        raise _unsupported(version)
    if not isinstance(version, str) or not isinstance(capabilities, dict):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "The envelope in _meta lacks a required key.")
    if version != MODERN:
        raise _unsupported(version)
    return capabilities


def _unsupported(version: Json) -> RpcFailure:
    data = {"supported": [MODERN], "requested": version}
    return RpcFailure(UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _check_headers(message: jsonrpc.ClientRequest, headers: Mapping[str, str]) -> None:
    params = message.params
    wanted = {"mcp-protocol-version": MODERN, "mcp-method": message.method}
    named_by = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}.get(message.method)
    if message.method in server_modern_tasks.METHODS:
        named_by = "taskId"
    if named_by is not None:
        wanted["mcp-name"] = str(params.get(named_by))
    arguments = params.get("arguments")
    if params.get("name") == "region" and isinstance(arguments, dict):
        for name, schema in _REGION["properties"].items():
            value = arguments.get(name)
            if value is not None:
                text = str(value).lower() if isinstance(value, bool) else str(value)
                wanted[f"mcp-param-{schema['x-mcp-header'].lower()}"] = text
    for name, value in wanted.items():
        if _decoded(headers.get(name)) != value:
            raise RpcFailure(HEADER_MISMATCH, f"The header {name} does not repeat the body.")


def _decoded(value: str | None) -> str | None:
    if value is not None and value.startswith("=?base64?") and value.endswith("?="):
        return base64.b64decode(value[9:-2]).decode()
    return value


def _listen(core: ServerCore, session: Subscription, message: jsonrpc.ClientRequest, outlet: Outlet) -> None:
    wanted = message.params.get("notifications")
    if not isinstance(wanted, dict):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "notifications must be an object.")
    core.record(session, "request", message.method, message.params).outcome = "executed"
    session.wire_id = message.id
    kinds = [kind for kind in KINDS if wanted.get(kind) is True and kind not in core.options.unannounced]
    session.kinds = frozenset(KINDS[kind] for kind in kinds)
    uris = wanted.get("resourceSubscriptions")
    session.subscriptions = {uri for uri in uris if isinstance(uri, str)} if isinstance(uris, list) else set()
    session.task_ids = server_modern_tasks.followed(core, session, wanted.get("taskIds"))
    session.push = outlet
    core.sessions[session.id] = session
    honoured: dict[str, Any] = dict.fromkeys(kinds, True)
    if session.task_ids and "taskIds" not in core.options.unannounced:
        honoured["taskIds"] = session.task_ids
    if session.subscriptions:
        honoured["resourceSubscriptions"] = sorted(session.subscriptions)
    session.tell("notifications/subscriptions/acknowledged", {"notifications": honoured})
    core.changes.touch()


def stop(session: Session) -> None:
    """Stop what runs for a request: its client has gone."""
    for task in session.calls.values():
        asyncio.get_running_loop().call_soon(task.cancel)
