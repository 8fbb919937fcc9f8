"""Headers that repeat what a request's body says."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.call import Json
from holdfast.upstream.http1 import header_block
from holdfast.wire.mirrored import annotations_of, argument_headers, header_value, request_headers
from requirements import requirement


def decoded(value: str) -> str:
    """What a server reads."""
    if value.startswith("=?base64?") and value.endswith("?="):
        return base64.b64decode(value[9:-2], validate=True).decode()
    return value


@requirement("modern-servers:mirrored")
@given(st.text(st.characters(codec="utf-8")))
def test_every_text_arrives_as_it_was_and_forges_no_header(text: str) -> None:
    value = header_value(text)
    assert decoded(value) == text
    assert header_block([("mcp-name", value)]) == f"mcp-name: {value}\r\n".encode()


@pytest.mark.parametrize("text", ["", " a", "a ", "a\tb", "é", "a\r\nb: c", "=?base64?YQ==?="])
def test_what_would_not_survive_is_encoded(text: str) -> None:
    assert header_value(text).startswith("=?base64?")
    assert decoded(header_value(text)) == text


def test_what_survives_stands_as_it_is() -> None:
    assert header_value("memo://note 1") == "memo://note 1"


def test_methods_with_a_target_name_it() -> None:
    assert request_headers("tools/call", {"name": "echo"}) == [("mcp-method", "tools/call"), ("mcp-name", "echo")]
    assert request_headers("resources/read", {"uri": "a:b"})[1] == ("mcp-name", "a:b")
    assert request_headers("tools/list", {"name": "echo"}) == [("mcp-method", "tools/list")]
    assert request_headers("tools/call", {"name": 3}) == [("mcp-method", "tools/call")]


def test_arguments_are_found_below_others() -> None:
    schema: Json = {
        "type": "object",
        "properties": {
            "where": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
            "number": {"type": "integer", "x-mcp-header": "Number"},
            "is_urgent": {"type": "boolean", "x-mcp-header": "Urgent"},
            "note": {"type": "string"},
        },
    }
    annotations = annotations_of(schema)
    assert annotations is not None
    arguments: Json = {"where": {"region": "eu"}, "number": 7.0, "is_urgent": False, "note": "n"}
    assert dict(argument_headers(annotations, arguments)) == {
        "mcp-param-Region": "eu",
        "mcp-param-Number": "7",
        "mcp-param-Urgent": "false",
    }
    nothings: list[Json] = [None, [], {"where": "eu"}, {"where": {"region": None}}, {"number": [1]}]
    for nothing in nothings:
        assert argument_headers(annotations, nothing) == []


@requirement("modern-servers:mirrored")
@pytest.mark.parametrize(
    "schema",
    [
        {"x-mcp-header": "A", "type": "string"},
        {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 1}}},
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": ["string", "null"], "x-mcp-header": "A"}}},
        {"properties": {"a": {"x-mcp-header": "A"}}},
        {"properties": {"a": {"items": {"type": "string", "x-mcp-header": "A"}}}},
        {"anyOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
        {"$defs": {"d": {"type": "string", "x-mcp-header": "A"}}},
        {"properties": {n: {"type": "string", "x-mcp-header": n} for n in ("same", "SAME")}},
    ],
)
def test_an_impossible_header_spoils_its_tool(schema: Json) -> None:
    assert annotations_of(schema) is None


@pytest.mark.parametrize(
    "schema",
    [None, True, [], {}, {"properties": []}, {"properties": {"x-mcp-header": {"type": "string"}}}, {"default": 1}],
)
def test_other_schemas_have_no_headers(schema: Json) -> None:
    assert annotations_of(schema) == {}
