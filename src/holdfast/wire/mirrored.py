"""Headers of revision 2026-07-28 that repeat what a request's body says, for those who read no bodies.

Source: <https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http>.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from holdfast.call import Json

ANNOTATION: Final = "x-mcp-header"
"""The keyword of an input schema's property that names the header of its argument."""

Annotations: TypeAlias = Mapping[tuple[str, ...], str]
"""The header's name behind `Mcp-Param-`, by the path of the argument."""

_NAMED_BY: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_ENCODED: Final = re.compile(r"=\?base64\?.*\?=")

_SCHEMA: Final = frozenset(
    {
        "items",
        "contains",
        "unevaluatedItems",
        "additionalProperties",
        "propertyNames",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
        "contentSchema",
    }
)
_SCHEMAS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS: Final = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})
"""The keywords of JSON Schema 2020-12 below which other schemas stand, by the form of their value."""


def header_value(text: str) -> str:
    """`text` as it stands in a header: as it is, or in base64 where it would not arrive unchanged."""
    if _PLAIN.fullmatch(text) and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="


def request_headers(method: str, params: Mapping[str, Json]) -> list[tuple[str, str]]:
    """`Mcp-Method`, and `Mcp-Name` where the method has a target."""
    headers = [("mcp-method", header_value(method))]
    named_by = _NAMED_BY.get(method)
    target = None if named_by is None else params.get(named_by)
    if isinstance(target, str):
        headers.append(("mcp-name", header_value(target)))
    return headers


def argument_headers(annotations: Annotations, arguments: Json) -> list[tuple[str, str]]:
    """`Mcp-Param-…` for each annotated argument that is given and not null."""
    headers: list[tuple[str, str]] = []
    for path, name in annotations.items():
        value = arguments
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, bool):
            headers.append((f"mcp-param-{name}", "true" if value else "false"))
        elif isinstance(value, int | float):
            headers.append((f"mcp-param-{name}", str(int(value) if value == value // 1 else value)))
        elif isinstance(value, str):
            headers.append((f"mcp-param-{name}", header_value(value)))
    return headers


def annotations_of(schema: Json) -> Annotations | None:
    """The annotated arguments of an input schema; None where one is wrong, and the tool must not be offered."""
    found: dict[tuple[str, ...], str] = {}
    taken: set[str] = set()
    for path, node in _schemas(schema):
        if ANNOTATION not in node:
            continue
        name = node[ANNOTATION]
        if not path or not isinstance(name, str) or not _TOKEN.fullmatch(name) or name.lower() in taken:
            return None
        kind = node.get("type")
        if not isinstance(kind, str) or kind not in _TYPES:
            return None
        taken.add(name.lower())
        found[path] = name
    return found


def _schemas(root: Json) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Json]]]:
    """Every schema within `root`, with its path where only `properties` lead to it; no recursion, no references."""
    waiting: list[tuple[tuple[str, ...] | None, Json]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            if keyword in _SCHEMA:
                waiting.append((None, value))
            elif keyword in _SCHEMAS and isinstance(value, list):
                waiting += [(None, below) for below in value]
            elif isinstance(value, dict) and keyword == "properties":
                waiting += [(None if path is None else (*path, name), below) for name, below in value.items()]
            elif isinstance(value, dict) and keyword in _NAMED_SCHEMAS:
                waiting += [(None, below) for below in value.values()]
