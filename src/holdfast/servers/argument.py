"""One more optional argument in the input schema of a tool (JSON Schema 2020-12 and what came before). Pure.

An argument may be added only where it cannot matter to anything that the schema says already: what
was valid before must stay so, with the new argument and without. Where that cannot be seen, the
schema stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import count
from typing import Any, Final
from urllib.parse import unquote

from msgspec import Raw

from holdfast.call import Json
from holdfast.wire import jsonrpc

MAX_PARTS: Final = 10_000
"""Subschemas of one schema that are looked at."""

_ANYTHING: Final[tuple[Json, ...]] = (True, {})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf"})
_SINGLE: Final = frozenset({"not", "if", "then", "else"})
_BY_NAME: Final = frozenset({"properties", "dependentSchemas", "dependentRequired", "dependencies"})
_BARRING: Final = frozenset({"maxProperties", "const", "enum", "$dynamicRef", "$recursiveRef", "extends"})
"""Keywords to which an argument more may matter, whatever they say; or of which that is not known."""
_NAMING: Final = frozenset({"patternProperties", "propertyNames"})
"""Keywords that speak of arguments by the look of their names. No pattern of a server is ever run here."""
_CLOSING: Final = frozenset({"additionalProperties", "unevaluatedProperties"})
"""Keywords about the arguments that `properties` beside them does not name, as it will name the new one."""
_BARRING_BELOW: Final = frozenset({"minProperties", "$id", "id"})
"""Barring everywhere but in the schema itself, where one argument more is never too few."""


def with_argument(schema: Raw, wanted: str, definition: Mapping[str, Any]) -> tuple[str, Raw] | None:
    """`schema` with an optional argument that is called `wanted`, or nearly so, and its name.

    None where it cannot take one. What stands in the schema keeps its bytes.
    """
    root = jsonrpc.decode_value(schema)
    if not isinstance(root, dict) or not _is_of_objects(root):
        return None
    spoken_of = _names_in(root)
    if spoken_of is None:
        return None
    name = next(free for free in names_like(wanted) if free not in spoken_of)
    fields = jsonrpc.decode_fields(schema)
    properties = jsonrpc.decode_fields(fields.get("properties", b"{}"))
    added = Raw(jsonrpc.encode({**properties, name: definition}))
    return name, Raw(jsonrpc.encode({**fields, "properties": added}))


def names_like(wanted: str) -> Iterator[str]:
    """`wanted`, and what it is called instead where that is taken: always in the same order."""
    yield wanted
    yield f"holdfast_{wanted}"
    for number in count(2):
        yield f"holdfast_{wanted}_{number}"


def _is_of_objects(root: Mapping[str, Json]) -> bool:
    kind = root.get("type", "object")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _names_in(root: dict[str, Json]) -> Collection[str] | None:
    """The arguments that `root` names; None where one that it does not name might matter to it.

    Follows what is applied to the arguments object itself, references within the schema included;
    not what is applied to the arguments' values.
    """
    names: set[str] = set()
    seen: set[int] = set()
    waiting: list[Json] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, bool) or id(node) in seen:
            continue
        if not isinstance(node, dict) or len(seen) >= MAX_PARTS:
            return None
        seen.add(id(node))
        for keyword, value in node.items():
            below = _applied(keyword, value, root, names)
            if below is None or _matters(keyword, value, is_root=node is root):
                return None
            waiting += below
    return names


def _matters(keyword: str, value: Json, *, is_root: bool) -> bool:
    """Whether an argument that a schema does not name may matter to what it says under `keyword`."""
    if keyword in _BARRING:
        return True
    if keyword in _NAMING:
        return value not in _ANYTHING
    if is_root:
        return False
    return keyword in _BARRING_BELOW or (keyword in _CLOSING and value not in _ANYTHING)


def _applied(keyword: str, value: Json, root: dict[str, Json], names: set[str]) -> list[Json] | None:
    """The schemas that `keyword` applies to the same object; adds the arguments that it names to `names`.

    None where it cannot be read.
    """
    if keyword in _LISTS:
        return value if isinstance(value, list) else None
    if keyword in _SINGLE:
        return [value]
    if keyword == "$ref":
        target = _resolved(value, root)
        return None if target is None else [target]
    if keyword == "required" and isinstance(value, list):
        names.update(name for name in value if isinstance(name, str))
        return []
    if keyword not in _BY_NAME:
        return []
    if not isinstance(value, dict):
        return None
    names.update(value)
    if keyword == "properties":
        return []
    lists = [name for each in value.values() if isinstance(each, list) for name in each]
    names.update(name for name in lists if isinstance(name, str))
    return [each for each in value.values() if not isinstance(each, list)]


def _resolved(reference: Json, root: dict[str, Json]) -> Json:
    """What a reference within the schema points to; None for any other."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    node: Json = root
    for part in reference[1:].split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node
