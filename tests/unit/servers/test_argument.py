"""One more argument in an input schema: what was valid stays valid, and nothing else differs."""

from __future__ import annotations

import json
from collections import ChainMap
from functools import partial
from itertools import islice, product
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.servers import argument
from holdfast.servers.argument import names_like, with_argument
from requirements import requirement

jsonschema: Any = pytest.importorskip("jsonschema")  # comes with mcp

DEFINITION: Final = {"type": "string", "description": "d"}
A: Final = {"a": {"type": "integer"}}
DRAFT_7: Final = "http://json-schema.org/draft-07/schema#"


def extended(schema: Any) -> tuple[str, Any] | None:
    found = with_argument(Raw(json.dumps(schema).encode()), "session", DEFINITION)
    return None if found is None else (found[0], json.loads(bytes(found[1])))


def accepts(schema: Any, arguments: Any) -> bool:
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    valid: bool = validator(schema).is_valid(arguments)
    return valid


TAKES: Final[dict[str, tuple[Any, str, list[Any]]]] = {
    "nothing said": ({}, "session", [{}, {"x": 1}]),
    "an object": ({"type": "object"}, "session", [{}, {"x": 1}]),
    "one type of several": ({"type": ["object", "null"]}, "session", [{}]),
    "properties": ({"type": "object", "properties": A, "required": ["a"]}, "session", [{"a": 1}]),
    "no properties": ({"type": "object", "properties": {}, "additionalProperties": False}, "session", [{}]),
    "closed": ({"type": "object", "properties": A, "additionalProperties": False}, "session", [{}, {"a": 1}]),
    "closed without properties": ({"type": "object", "additionalProperties": False}, "session", [{}]),
    "others are integers": ({"type": "object", "additionalProperties": {"type": "integer"}}, "session", [{"x": 1}]),
    "closed by what is not evaluated": (
        {"type": "object", "allOf": [{"properties": A}], "unevaluatedProperties": False},
        "session",
        [{}, {"a": 1}],
    ),
    "properties that are booleans": ({"properties": {"a": True, "b": False}}, "session", [{"a": []}]),
    "session is the tool's own": (
        {"type": "object", "properties": {"session": {"type": "integer"}}},
        "holdfast_session",
        [{}, {"session": 4}],
    ),
    "both names are the tool's own": (
        {"properties": {"session": {}, "holdfast_session": {}}},
        "holdfast_session_2",
        [{"session": 4, "holdfast_session": None}],
    ),
    "only required": ({"required": ["session"]}, "holdfast_session", [{"session": 1}]),
    "the tool's own in a branch": (
        {"anyOf": [{"properties": {"session": {"type": "integer"}}}, {"required": ["a"]}]},
        "holdfast_session",
        [{"session": 1}, {"a": 1}],
    ),
    "the tool's own by dependence": (
        {"dependentRequired": {"a": ["session"]}, "dependentSchemas": {"b": {"required": ["holdfast_session"]}}},
        "holdfast_session_2",
        [{"a": 1, "session": 2}],
    ),
    "dependencies of draft 7": (
        {"$schema": DRAFT_7, "dependencies": {"a": ["session"], "b": {"properties": A}}},
        "holdfast_session",
        [{"b": 1, "a": 1, "session": 0}],
    ),
    "all of open ones": ({"allOf": [{"properties": A}, {"required": ["b"]}]}, "session", [{"a": 1, "b": 2}]),
    "one of open ones": ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, "session", [{"a": 1}, {"b": 1}]),
    "a condition": (
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": True},
        "session",
        [{}, {"a": 1, "b": 1}],
    ),
    "not": ({"not": {"required": ["a"]}}, "session", [{}]),
    "a reference to an open one": (
        {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "object", "properties": A}}},
        "session",
        [{"a": 1}],
    ),
    "a reference into a list": ({"allOf": [{}, {"$ref": "#/allOf/0"}]}, "session", [{}]),
    "a reference to itself": ({"properties": {"child": {"$ref": "#"}}}, "session", [{"child": {}}]),
    "closed values": (
        {"properties": {"o": {"type": "object", "additionalProperties": False, "maxProperties": 0}}},
        "session",
        [{"o": {}}],
    ),
    "at least one": ({"minProperties": 1}, "session", [{"a": 1}]),
    "patterns and names that say nothing": ({"patternProperties": {}, "propertyNames": True}, "session", [{}]),
    "an id": (
        {"$id": "https://example.test/s", "$schema": "https://json-schema.org/draft/2020-12/schema"},
        "session",
        [{}],
    ),
    "closed, with a definition that nobody applies": (
        {"$defs": {"x": {"maxProperties": 0}}, "additionalProperties": False},
        "session",
        [{}],
    ),
}
"""Schemas that take an argument more: what it is called, and arguments that are valid before."""

DECLINES: Final[dict[str, Any]] = {
    "true": True,
    "false": False,
    "null": None,
    "a list": [],
    "a text": "x",
    "of no objects": {"type": "array"},
    "of no type": {"type": 5},
    "properties that are none": {"properties": [1]},
    "a pattern": {"patternProperties": {".*": {"type": "integer"}}},
    "a pattern that would take for ever": {"patternProperties": {"(s+)+$": {}}},
    "names": {"propertyNames": {"maxLength": 3}},
    "no names": {"propertyNames": False},
    "at most": {"maxProperties": 1},
    "one value": {"const": {}},
    "some values": {"enum": [{}, {"a": 1}]},
    "all of a closed one": {"allOf": [{"properties": A, "additionalProperties": False}]},
    "any of a closed one": {"anyOf": [{"properties": A, "additionalProperties": {"type": "integer"}}]},
    "one of closed ones": {"oneOf": [{"unevaluatedProperties": False}]},
    "a branch that counts": {"not": {"minProperties": 2}},
    "a branch with a base of its own": {"allOf": [{"$id": "https://example.test/b"}]},
    "branches that are none": {"anyOf": {}},
    "a branch that is none": {"allOf": [7]},
    "dependent on a closed one": {"dependentSchemas": {"a": {"additionalProperties": False}}},
    "dependent on a number": {"dependencies": {"a": 1}},
    "a reference to a closed one": {"$ref": "#/$defs/x", "$defs": {"x": {"additionalProperties": False}}},
    "a reference to a reference to a closed one": {
        "$ref": "#/$defs/x",
        "$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"maxProperties": 1}},
    },
    "a reference to nothing": {"$ref": "#/$defs/x"},
    "a reference past a list": {"$ref": "#/allOf/7", "allOf": []},
    "a reference through a text": {"$ref": "#/title/x", "title": "t"},
    "a reference to elsewhere": {"$ref": "https://example.test/schema"},
    "an anchor": {"$ref": "#x", "$defs": {"x": {"$anchor": "x"}}},
    "a reference that is none": {"$ref": 5},
    "a reference that hangs on who asks": {"$dynamicRef": "#"},
}
"""Schemas to which an argument more may matter, or that cannot be read: they stay as they are."""


@requirement("handles:schemas")
@pytest.mark.parametrize("what", TAKES)
def test_a_schema_that_can_takes_the_argument(what: str) -> None:
    schema, name, before = TAKES[what]
    found = extended(schema)
    assert found is not None
    assert found[0] == name
    wanted = {**schema, "properties": {**schema.get("properties", {}), name: DEFINITION}}
    assert found[1] == wanted, "all else is as it was"
    for arguments in before:
        assert accepts(schema, arguments), "or the row is wrong"
        assert accepts(found[1], arguments)
        assert accepts(found[1], {**arguments, name: "hs_1"})
        assert not accepts(found[1], {**arguments, name: 7})


@requirement("handles:schemas")
@pytest.mark.parametrize("what", DECLINES)
def test_a_schema_to_which_it_may_matter_stays_as_it_is(what: str) -> None:
    assert extended(DECLINES[what]) is None


@requirement("handles:schemas")
@pytest.mark.parametrize("text", [b"{", b"", b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"title":"\\ud800"}'])
def test_what_cannot_be_read_stays_as_it_is(text: bytes) -> None:
    assert with_argument(Raw(text), "session", DEFINITION) is None


@requirement("handles:schemas")
def test_a_schema_of_too_many_parts_stays_as_it_is() -> None:
    parts = argument.MAX_PARTS
    assert extended({"allOf": [{} for _ in range(parts - 1)]}) is not None
    assert extended({"allOf": [{} for _ in range(parts)]}) is None
    assert extended({"allOf": [{"$ref": "#/allOf/0"} for _ in range(parts - 1)]}) is not None, "each is looked at once"


@requirement("handles:schemas")
def test_what_is_there_keeps_its_bytes_and_its_order() -> None:
    properties = b'{"b":{"default": 1.50, "x-mcp-header":"B"},"a":{"enum":[1e2]}}'
    sent = b'{"required":["b"],"properties":' + properties + b',"title":"\\u00e9"}'
    found = with_argument(Raw(sent), "session", {"type": "string"})
    assert found is not None
    assert bytes(found[1]) == sent.replace(b'"a":{"enum":[1e2]}', b'"a":{"enum":[1e2]},"session":{"type":"string"}')


def test_names_come_always_in_the_same_order() -> None:
    wanted = ["session", "holdfast_session", "holdfast_session_2", "holdfast_session_3"]
    assert list(islice(names_like("session"), 4)) == wanted


NAMES: Final = ("a", "b", "session")
TRIED: Final[list[dict[str, Any]]] = [
    {name: value for name, value in zip(NAMES, values, strict=True) if value is not None}
    for values in product((None, 1, "x"), repeat=len(NAMES))
]
"""Every way to give three arguments, or to leave them out."""


def keywords(below: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """What may stand behind each keyword of a schema."""
    names, some = st.sampled_from(NAMES), st.lists(below, min_size=1, max_size=2)
    types: list[dict[str, Any]] = [{"type": "string"}, {"type": "integer"}]
    return {
        "properties": st.dictionaries(names, st.sampled_from(types), max_size=2),
        "required": st.lists(names, max_size=2, unique=True),
        "additionalProperties": st.sampled_from([False, {"type": "integer"}]),
        "unevaluatedProperties": st.just(value=False),
        "minProperties": st.integers(1, 3),
        "maxProperties": st.integers(0, 2),
        "propertyNames": st.sampled_from([True, {"maxLength": 2}]),
        "patternProperties": st.sampled_from([{}, {"^s": {"type": "integer"}}]),
        "dependentRequired": st.dictionaries(names, st.lists(names, max_size=1), max_size=1),
        "dependentSchemas": st.dictionaries(names, below, max_size=1),
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": below,
        "if": below,
        "then": below,
        "else": below,
        "enum": st.lists(st.sampled_from(TRIED), min_size=1, max_size=3),
        "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y"]),
    }


def schemas(below: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of one, two or three keywords."""
    each = [value.map(partial(_keyword, keyword)) for keyword, value in keywords(below).items()]
    return st.lists(st.one_of(each), min_size=1, max_size=3).map(_merged)


def _merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(ChainMap(*parts))


def _keyword(keyword: str, value: Any) -> dict[str, Any]:
    return {keyword: value}


def _leaf(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "$ref": "#/$defs/z"} if "$ref" in schema else schema


def _whole(schema: dict[str, Any], x: dict[str, Any], y: object) -> dict[str, Any]:
    return {**schema, "$defs": {"x": x, "y": y, "z": {"required": ["a"]}}}


LEAVES: Final = schemas(st.booleans()).map(_leaf)
WHOLE: Final = st.builds(_whole, schemas(st.booleans() | LEAVES), LEAVES, st.booleans())


@requirement("handles:schemas")
@settings(max_examples=500)
@given(WHOLE)
def test_whatever_is_valid_before_is_valid_after_with_the_argument_and_without(schema: dict[str, Any]) -> None:
    found = extended(schema)
    if found is None:
        return
    name, after = found
    for arguments in TRIED:
        own = {key: value for key, value in arguments.items() if key != name}
        is_valid = accepts(schema, own)
        assert accepts(after, own) == is_valid, "neither more nor less is valid without it"
        assert not is_valid or accepts(after, {**own, name: "hs_1"})
