"""How messages name tasks: those of 2025-11-25, and those of the extension for 2026-07-28. Pure.

Sources: <https://modelcontextprotocol.io/specification/2025-11-25/basic/utilities/tasks> and SEP-2663.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Raw

from holdfast.call import Fields, Json
from holdfast.wire import jsonrpc

EXTENSION: Final = "io.modelcontextprotocol/tasks"
RELATED: Final = "io.modelcontextprotocol/related-task"
"""The `_meta` key of 2025-11-25 by which a message says that it belongs to a task."""
STATUS: Final = "notifications/tasks/status"
"""How a task of 2025-11-25 is."""
CHANGED: Final = "notifications/tasks"
"""How a task of the extension is, to who follows it."""

_MENTION: Final = b"related-task"
"""In whatever belongs to a task, however the slash before it is escaped."""


def task_of(method: str, params: Raw | None) -> str | None:
    """The task that a request or notification of a server belongs to; None where it belongs to none."""
    if params is None or (method != STATUS and _MENTION not in bytes(params)):
        return None
    fields = jsonrpc.decode_fields(params)
    return _text(fields.get("taskId")) if method == STATUS else _related(fields)


def begun(result: Raw, *, is_flat: bool = False) -> str | None:
    """The task that a `tools/call` was answered with; None where with something else.

    `is_flat`: in the way of the extension, whose result is the task; else of 2025-11-25, whose result holds it.
    """
    return task_id(jsonrpc.decode_fields(result) if is_flat else task_in(result))


def task_in(result: Raw) -> Fields:
    """The task that a `CreateTaskResult` of 2025-11-25 holds."""
    return jsonrpc.decode_fields(jsonrpc.decode_fields(result).get("task", b"{}"))


def task_id(fields: Fields) -> str | None:
    """The `taskId` among `fields`."""
    return _text(fields.get("taskId"))


def seconds(interval: Raw | None, most: float) -> float | None:
    """An interval in milliseconds as seconds, `most` at most; None where it is none."""
    value = None if interval is None else jsonrpc.decode_value(interval)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        return None
    return min(value, most * 1000) / 1000  # an integer may be too large to be divided


def unrelated(raw: Raw) -> Raw:
    """A result or params, without the word of which task they belong to."""
    if _MENTION not in bytes(raw):
        return raw
    fields = jsonrpc.decode_fields(raw)
    meta = {name: value for name, value in jsonrpc.decode_fields(fields.get("_meta", b"{}")).items() if name != RELATED}
    kept = {name: value for name, value in fields.items() if name != "_meta"}
    return Raw(jsonrpc.encode({**kept, "_meta": meta} if meta else kept))


def related(result: Raw, task: str) -> Raw:
    """A reply with the word of which task it belongs to."""
    fields = jsonrpc.decode_fields(result)
    meta = jsonrpc.decode_fields(fields.get("_meta", b"{}"))
    return Raw(jsonrpc.encode({**fields, "_meta": {**meta, RELATED: {"taskId": task}}}))


def must_be_task(tool: Fields) -> bool:
    """Whether a tool, as a list of 2025-11-25 shows it, must be called as a task."""
    execution = jsonrpc.decode_value(tool.get("execution", b"null"))
    return isinstance(execution, dict) and execution.get("taskSupport") == "required"


def runs_tools(capabilities: Json) -> bool:
    """Whether a server's `tasks` capability says that its tools can be called as tasks."""
    requests = capabilities.get("requests") if isinstance(capabilities, dict) else None
    tools = requests.get("tools") if isinstance(requests, dict) else None
    return isinstance(tools, dict) and isinstance(tools.get("call"), dict)


def has_extension(capabilities: Fields) -> bool:
    """Whether capabilities of 2026-07-28, of a server or a client, declare the extension."""
    return EXTENSION in jsonrpc.decode_fields(capabilities.get("extensions", b"{}"))


def without_extension(capabilities: Fields) -> Fields:
    """A server's capabilities for a client to which the extension means nothing."""
    extensions = jsonrpc.decode_fields(capabilities.get("extensions", b"{}"))
    if EXTENSION not in extensions:
        return capabilities
    kept = {name: value for name, value in extensions.items() if name != EXTENSION}
    others = {name: value for name, value in capabilities.items() if name != "extensions"}
    return {**others, "extensions": Raw(jsonrpc.encode(kept))} if kept else others


def with_extension(declared: Mapping[str, Json]) -> Mapping[str, Json]:
    """A client's capabilities, and the extension among them."""
    extensions = declared.get("extensions")
    return {**declared, "extensions": {**(extensions if isinstance(extensions, dict) else {}), EXTENSION: {}}}


def undeclared(declared: Mapping[str, Json]) -> Mapping[str, Json]:
    """A client's capabilities, as one declares them that knows nothing of the extension."""
    extensions = declared.get("extensions")
    if not isinstance(extensions, dict) or EXTENSION not in extensions:
        return declared
    return {**declared, "extensions": {name: each for name, each in extensions.items() if name != EXTENSION}}


def without_support(page: Raw) -> Raw:
    """A `tools/list` result for a client that cannot begin a task: nothing is said of tasks there."""
    if b"taskSupport" not in bytes(page):
        return page
    fields = jsonrpc.decode_fields(page)
    tools = [tool_without_support(tool) for tool in jsonrpc.decode_items(fields.get("tools", b"[]"))]
    return Raw(jsonrpc.encode({**fields, "tools": tools}))


def tool_without_support(tool: Raw) -> Raw:
    """One tool of such a list."""
    fields = jsonrpc.decode_fields(tool)
    execution = jsonrpc.decode_fields(fields.get("execution", b"{}"))
    if "taskSupport" not in execution:
        return tool
    del execution["taskSupport"]
    kept = {name: value for name, value in fields.items() if name != "execution"}
    return Raw(jsonrpc.encode({**kept, "execution": execution} if execution else kept))


def _related(fields: Fields) -> str | None:
    meta = jsonrpc.decode_fields(fields.get("_meta", b"{}"))
    return _text(jsonrpc.decode_fields(meta.get(RELATED, b"{}")).get("taskId"))


def _text(raw: Raw | None) -> str | None:
    value = None if raw is None else jsonrpc.decode_value(raw)
    return value if isinstance(value, str) else None
