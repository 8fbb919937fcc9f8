"""What the scripted server answers to each method of the handshake era."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from holdfast import __version__
from holdfast.call import LOG_LEVELS, Json
from holdfast.testing import server_tasks
from holdfast.testing.server_core import LedgerEntry, Outlet, RpcFailure, ServerCore, Session
from holdfast.testing.server_tools import APPS, NOTE_URI, TOOLS, VIEW, VIEW_URI, ToolCall
from holdfast.wire import jsonrpc

ITEM_URI: Final = "memo://item/{id}"
ITEMS: Final = tuple(str(number) for number in range(1, 21))
NAMES: Final = ("Ada", "Alan", "Alonzo", "Barbara", "Edsger", "Grace")
RESOURCE_NOT_FOUND: Final = -32002

_Params = dict[str, Json]


def initialize_result(session: Session) -> dict[str, Any]:
    """What `initialize` is answered with."""
    return {
        "protocolVersion": session.version,
        "capabilities": {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
            "prompts": {"listChanged": True},
            "logging": {},
            "completions": {},
            "tasks": server_tasks.CAPABILITY,
            "extensions": APPS,
        },
        "serverInfo": {"name": "holdfast-test-server", "version": __version__},
        "instructions": "A server for tests: it does what it is told.",
    }


def receive(
    core: ServerCore,
    session: Session,
    message: jsonrpc.ClientMessage,
    outlet: Outlet,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Take one message of a session; a request is answered through `outlet` from a task of its own."""
    match message:
        case jsonrpc.ClientReply():
            session.answered(message)
        case jsonrpc.ClientNotification(method, params):
            core.record(session, "notification", method, params).outcome = "executed"
            if method == "notifications/cancelled":
                session.cancel(params.get("requestId"))
            elif method == "notifications/initialized":
                session.is_initialized = True
        case jsonrpc.ClientRequest(request_id, method, params):
            entry = core.record(session, "request", method, params)
            args, meta = params.get("arguments"), params.get("_meta")
            call = ToolCall(
                core,
                session,
                args=args if isinstance(args, dict) else {},
                meta=meta if isinstance(meta, dict) else {},
                headers=headers or {},
                outlet=outlet,
            )
            work = _serve(message, entry, call)
            session.calls[jsonrpc.id_bytes(request_id)] = core.scope.start(work, f"{method} of {session.id}")


async def _serve(request: jsonrpc.ClientRequest, entry: LedgerEntry, call: ToolCall) -> None:
    key = jsonrpc.id_bytes(request.id)
    calls = call.session.calls
    reply: bytes | None = None
    try:
        with call.core.executing(entry):
            if request.method == "tools/call" and "task" in request.params:
                result: Mapping[str, Any] = server_tasks.begin(call.core, call, request.params)
            elif request.method == "tools/call":
                result = await call_tool(request.params, call)
            elif request.method in server_tasks.METHODS:
                result = await server_tasks.answer(call.core, call, request.method, request.params)
            else:
                result = answer(call.core, call.session, request.method, request.params)
        reply = jsonrpc.result(key, jsonrpc.encode(result))
    except RpcFailure as failure:
        reply = jsonrpc.error(key, jsonrpc.error_object(failure.code, failure.message, failure.data))
    finally:
        if calls.get(key) is asyncio.current_task():
            del calls[key]
        call.outlet.answer(reply, call.then)


async def call_tool(params: _Params, call: ToolCall) -> dict[str, Any]:
    """Run a tool. Raises `RpcFailure`."""
    name = params.get("name")
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None or (name == "extra" and not call.core.has_extra_tool):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, f"Unknown tool: {name}")
    if not isinstance(params.get("arguments", {}), dict):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "The arguments of a tool are an object.")
    if "execution" in tool.declaration:
        raise RpcFailure(jsonrpc.METHOD_NOT_FOUND, f"{name} must be called as a task.")
    return await tool.run(call)


def answer(core: ServerCore, session: Session, method: str, params: _Params) -> Mapping[str, Any]:
    """The result of any other method. Raises `RpcFailure`."""
    known = _METHODS.get(method)
    if known is None:
        raise RpcFailure(jsonrpc.METHOD_NOT_FOUND, f"Method not found: {method}")
    return known(core, session, params)


def _empty(_core: ServerCore, _session: Session, _params: _Params) -> Mapping[str, Any]:
    return {}


def _echo(_core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    return params


def _page(core: ServerCore, params: _Params, key: str, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
    """One page of a list. A cursor is the letter p and a position."""
    cursor = params.get("cursor", "p0")
    if not isinstance(cursor, str) or not cursor[1:].isdecimal() or cursor[0] != "p" or int(cursor[1:]) > len(entries):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "The cursor is not one of ours.")
    start = int(cursor[1:])
    end = start + (core.options.page_size or len(entries))
    page: dict[str, Any] = {key: entries[start:end]}
    if end < len(entries):
        page["nextCursor"] = f"p{end}"
    return page


def _list_tools(core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    listed = [tool.declaration for name, tool in TOOLS.items() if name != "extra" or core.has_extra_tool]
    return _page(core, params, "tools", listed)


def _list_resources(core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    note = {"uri": NOTE_URI, "name": "note", "mimeType": "text/plain"}
    return _page(core, params, "resources", [note, VIEW])


def _list_templates(core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    templates = [{"uriTemplate": ITEM_URI, "name": "item", "mimeType": "text/plain"}]
    return _page(core, params, "resourceTemplates", templates)


def _list_prompts(core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    arguments = [{"name": "name", "description": "Whom to greet.", "required": True}]
    return _page(core, params, "prompts", [{"name": "greet", "description": "A greeting.", "arguments": arguments}])


def _resource_text(core: ServerCore, uri: Json) -> tuple[str, str]:
    prefix = ITEM_URI.removesuffix("{id}")
    if uri == NOTE_URI:
        return NOTE_URI, core.note
    if isinstance(uri, str) and uri.startswith(prefix) and uri.removeprefix(prefix) in ITEMS:
        return uri, f"item {uri.removeprefix(prefix)}"
    raise RpcFailure(RESOURCE_NOT_FOUND, "Resource not found", {"uri": uri})


def _read_resource(core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    if params.get("uri") == VIEW_URI:
        about = {name: value for name, value in VIEW.items() if name != "name"}
        return {"contents": [{**about, "text": "<!doctype html><p>seen</p>"}]}
    uri, text = _resource_text(core, params.get("uri"))
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]}


def _subscribe(core: ServerCore, session: Session, params: _Params) -> Mapping[str, Any]:
    session.subscriptions.add(_resource_text(core, params.get("uri"))[0])
    return {}


def _unsubscribe(core: ServerCore, session: Session, params: _Params) -> Mapping[str, Any]:
    session.subscriptions.discard(_resource_text(core, params.get("uri"))[0])
    return {}


def _get_prompt(_core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    arguments = params.get("arguments")
    who = arguments.get("name") if isinstance(arguments, dict) else None
    if params.get("name") != "greet" or not isinstance(who, str):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "The only prompt is 'greet', with the argument 'name'.")
    text = {"type": "text", "text": f"Greet {who}."}
    return {"description": "A greeting.", "messages": [{"role": "user", "content": text}]}


def _complete(_core: ServerCore, _session: Session, params: _Params) -> Mapping[str, Any]:
    ref, argument = params.get("ref"), params.get("argument")
    if not isinstance(ref, dict) or not isinstance(argument, dict):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "A completion needs 'ref' and 'argument'.")
    match ref, argument:
        case {"type": "ref/prompt", "name": "greet"}, {"name": "name", "value": str(start)}:
            known: tuple[str, ...] = NAMES
        case {"type": "ref/resource", "uri": uri}, {"name": "id", "value": str(start)} if uri == ITEM_URI:
            known = ITEMS
        case _:
            raise RpcFailure(jsonrpc.INVALID_PARAMS, "There is nothing to complete there.")
    values = [value for value in known if value.startswith(start)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


def _set_level(_core: ServerCore, session: Session, params: _Params) -> Mapping[str, Any]:
    level = params.get("level")
    if not isinstance(level, str) or level not in LOG_LEVELS:
        raise RpcFailure(jsonrpc.INVALID_PARAMS, f"{level!r} is no log level.")
    session.log_level = level
    return {}


_METHODS: Final[dict[str, Callable[[ServerCore, Session, _Params], Mapping[str, Any]]]] = {
    "ping": _empty,
    "tools/list": _list_tools,
    "resources/list": _list_resources,
    "resources/templates/list": _list_templates,
    "resources/read": _read_resource,
    "resources/subscribe": _subscribe,
    "resources/unsubscribe": _unsubscribe,
    "prompts/list": _list_prompts,
    "prompts/get": _get_prompt,
    "completion/complete": _complete,
    "logging/setLevel": _set_level,
    "holdfast.test/echo": _echo,
}
