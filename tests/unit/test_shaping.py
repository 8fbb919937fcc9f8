"""Results of servers, in the words of revision 2026-07-28."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.call import Page, Result
from holdfast.downstream import shaping
from holdfast.servers.introduction import SERVER_INFO
from holdfast.servers.merged import Merged
from holdfast.testing.clock import ManualClock
from holdfast.wire.revisions import SERVER_INFO_KEY
from requirements import requirement

SERVICE: Final = Merged("__", ManualClock())
INFO: Final = json.loads(bytes(SERVER_INFO))
KEYS: Final = st.sampled_from(["resultType", "_meta", "content", "isError", "a", ""]) | st.text(max_size=5)
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10) | st.just("y" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS: Final = st.dictionaries(KEYS, VALUES | st.just({"x": 1}), max_size=4)


def escaped(text: str, key: str) -> str:
    """JSON in which a name is spelled with an escape."""
    return text.replace(f'"{key}"', f'"\\u{ord(key[0]):04x}{key[1:]}"')


def expected(said: dict[str, Any]) -> dict[str, Any]:
    meta = said.get("_meta")
    return {
        **said,
        "resultType": "complete",
        "_meta": {**(meta if isinstance(meta, dict) else {}), SERVER_INFO_KEY: INFO},
    }


def answered(text: bytes, method: str = "tools/call") -> Any:
    """What a client reads, which must not say anything twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    parts = shaping.in_parts(b"7", method, Result(Raw(text)), SERVICE)
    answer = json.loads(b"".join(parts), object_pairs_hook=once)
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
    return answer["result"]


@requirement("modern:units:shaped")
@given(said=OBJECTS, size=st.sampled_from([0, 5000]), indent=st.sampled_from([None, 1]), escapes=st.booleans())
def test_what_every_result_says_is_said_once_whatever_the_server_said(
    said: dict[str, Any], size: int, indent: int | None, escapes: bool
) -> None:
    if size:
        said["z"] = "x" * size
    text = json.dumps(said, indent=indent, separators=None if indent else (",", ":"))
    if escapes:
        text = escaped(escaped(text, "_meta"), "resultType")
    assert answered(text.encode()) == expected(said)


@requirement("modern:units:shaped")
@pytest.mark.parametrize(
    "said",
    [
        {"z": "x" * 5000, "_meta": {"a": 1}},
        {"_meta": {"a": 1}, "z": "x" * 5000},
        {"resultType": "mine", "z": "x" * 5000},
        {"z": "x" * 5000, "resultType": "mine"},
        {"z": "x" * 5000 + '"_meta":1', "b": ["\\", '"', '\\"']},
        {"z": "x" * 5000 + "\\", "_meta": {}},
        {"z": "\\" * 5001, "_meta": {}},
        {"z": ["_meta", "x" * 5000]},
        {"z": {"_meta": {"k": "x" * 5000}}},
        {"z": "x" * 5000, **{str(number): number for number in range(100)}, "_meta": {}},
        {"": "x" * 5000, "a": ""},
    ],
)
def test_nothing_is_said_twice_in_a_large_result(said: dict[str, Any]) -> None:
    for spelled in (json.dumps(said), escaped(json.dumps(said), "_meta"), escaped(json.dumps(said), "resultType")):
        compact = json.dumps(json.loads(spelled), separators=(",", ":"))
        assert answered(spelled.encode()) == answered(compact.encode()) == expected(said)
        squeezed = spelled.replace(": ", ":").replace(", ", ",") if "\\" not in spelled else spelled
        assert answered(squeezed.encode()) == expected(said)


@requirement("modern:units:shaped")
def test_a_list_that_is_kept_is_put_in_these_words_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[bytes] = []
    genuine = shaping._shape  # pyright: ignore[reportPrivateUsage]

    def shape(method: str, result: Result, server_info: Raw | None) -> Any:
        shapes.append(bytes(result.raw))
        return genuine(method, result, server_info)

    monkeypatch.setattr(shaping, "_shape", shape)
    page, text = Page(), Raw(b'{"tools":[]}')
    modern = Raw(b'{"tools":[],"resultType":"complete","ttlMs":5000,"cacheScope":"public"}')
    for age, left in ((0.0, 5000), (1.0, 4000), (9.0, 0)):
        kept = Result(text, modern, page=page).aged(age)
        answer = json.loads(b"".join(shaping.in_parts(b"1", "tools/list", kept, SERVICE)))
        hints = {"ttlMs": left, "cacheScope": "private"}  # as the service has something for each of its clients
        assert answer["result"] == {**expected({"tools": []}), **hints}
    assert len(shapes) == 1
    shaping.in_parts(b"1", "tools/list", Result(text), SERVICE)
    shaping.in_parts(b"1", "tools/list", Result(text), SERVICE)
    assert len(shapes) == 3, "what is not kept is not remembered"
