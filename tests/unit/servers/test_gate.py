"""Which tools there are for a client: one rule for the list and for the call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.config import ToolRules
from holdfast.servers.gate import Gate
from requirements import requirement
from rows import row

PATTERNS = st.lists(st.text("ab*?[]", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)
RULES = st.builds(ToolRules, allow=PATTERNS, deny=st.lists(st.text("ab*?", min_size=1, max_size=3)).map(tuple))


def page(*tools: Any, **fields: Any) -> Raw:
    return Raw(json.dumps({"tools": tools, **fields}).encode())


@row(14)
@requirement("merged:access:hidden-tools")
@given(st.lists(RULES, min_size=1, max_size=2), st.lists(st.text("ab", max_size=4)))
def test_what_is_listed_is_what_may_be_called(rules: list[ToolRules], tools: list[str]) -> None:
    gate = Gate(*rules)
    shown = json.loads(bytes(gate.shown(page(*({"name": name} for name in tools)))))
    assert [each["name"] for each in shown["tools"]] == [name for name in tools if gate.admits(name)]
    for name in tools:
        assert gate.admits(name) == all(rule.admits(name) for rule in rules)


@requirement("merged:access:hidden-tools")
def test_what_remains_keeps_its_bytes_and_so_does_the_rest_of_the_page() -> None:
    gate = Gate(ToolRules(deny=("secret*",)))
    sent = Raw(b'{"tools":[{"name":"a", "x": 1.50},{"name":"secret"}],"nextCursor":"c","_meta":{"y": 1e2}}')
    assert bytes(gate.shown(sent)) == b'{"tools":[{"name":"a", "x": 1.50}],"nextCursor":"c","_meta":{"y": 1e2}}'
    assert gate.shown(sent) is gate.shown(sent), "the catalogue answers with the same page again"


@requirement("merged:access:hidden-tools")
@pytest.mark.parametrize(
    "tools", [b"null", b"7", b'"x"', b"{}", b"[1,null,[],{}]", b'[{"name":7}]', b'[{"name":null}]']
)
def test_a_list_that_is_none_hides_everything(tools: bytes) -> None:
    gate = Gate(ToolRules(allow=("a",)))
    assert json.loads(bytes(gate.shown(Raw(b'{"tools":' + tools + b"}"))))["tools"] == []


def test_only_text_is_a_name() -> None:
    gate = Gate(ToolRules())
    odd: tuple[object, ...] = (None, 7, True, [], {})
    assert not any(map(gate.admits, odd))


def test_pages_that_never_come_again_are_not_kept() -> None:
    gate = Gate(ToolRules(), keeps_pages=False)
    sent = page({"name": "a"})
    assert gate.shown(sent) is not gate.shown(sent)
