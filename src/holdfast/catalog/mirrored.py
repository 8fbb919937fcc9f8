"""Which arguments of tools their clients repeat in headers (`x-mcp-header`, MCP 2026-07-28)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from msgspec import Raw

from holdfast.call import Json
from holdfast.wire import jsonrpc

Mirrored: TypeAlias = Mapping[str, tuple[str, ...]]
"""By the header's name in lower case, where in the arguments its value stands."""

PREFIX: Final = "mcp-param-"
_KEY: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TYPES: Final = frozenset({"string", "integer", "boolean"})


def mirrored_arguments(page: Raw) -> Iterator[tuple[str, Mirrored]]:
    """The tools of a `tools/list` result that have such arguments."""
    if _KEY.encode() not in bytes(page):
        return
    for raw in jsonrpc.decode_items(jsonrpc.decode_fields(page).get("tools", b"[]")):
        tool = jsonrpc.decode_value(raw)
        if isinstance(tool, dict) and isinstance(name := tool.get("name"), str):
            found = dict(_of_schema(tool.get("inputSchema")))
            if found:
                yield name, found


def _of_schema(schema: Json) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Those that can be reached through `properties` alone; others are none."""
    level: list[tuple[tuple[str, ...], Json]] = [((), schema)]
    while level:
        path, node = level.pop()
        if not isinstance(node, dict):
            continue
        header = node.get(_KEY)
        if path and isinstance(header, str) and _TOKEN.fullmatch(header) and node.get("type") in _TYPES:
            yield PREFIX + header.lower(), path
        properties = node.get("properties")
        if isinstance(properties, dict):
            level.extend(((*path, name), below) for name, below in properties.items())
