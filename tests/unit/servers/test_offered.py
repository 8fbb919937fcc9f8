"""What a list of tools shows of explicit sessions, and what a call then means."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from msgspec import Raw

from holdfast.call import Call, Json
from holdfast.config import ServerSettings
from holdfast.servers import offered
from holdfast.servers.offered import OfferedTools, may_concern_sessions, tools_of
from requirements import requirement

TOOL: Final = {"name": "remember", "inputSchema": {"type": "object", "properties": {"key": {"type": "string"}}}}
OWN: Final = {"name": "seat", "inputSchema": {"type": "object", "properties": {"session": {"type": "integer"}}}}
CLOSED: Final = {"name": "closed", "inputSchema": {"maxProperties": 1}}
BARE: Final = {"name": "bare"}
HANDLE: Final = "hs_0"


def made(**settings: Any) -> OfferedTools:
    return OfferedTools(ServerSettings(name="s", url="http://127.0.0.1/mcp", handles=True, **settings))


def page(*tools: Any, **fields: Any) -> Raw:
    return Raw(json.dumps({"tools": tools, **fields}).encode())


def shown(tools: OfferedTools, sent: Raw, public: Any = str) -> Any:
    return json.loads(bytes(tools.shown(sent, public)))


def names(result: Any) -> list[str]:
    return [tool["name"] for tool in result["tools"]]


@requirement("handles:lists")
def test_two_tools_come_last_and_the_others_have_one_more_argument() -> None:
    result = shown(made(), page(TOOL, OWN, CLOSED, BARE, _meta={"x": 1}))
    assert names(result) == ["remember", "seat", "closed", "bare", "open_session", "close_session"]
    by_name = {tool["name"]: tool.get("inputSchema") for tool in result["tools"]}
    assert [*by_name["remember"]["properties"]] == ["key", "session"]
    assert [*by_name["seat"]["properties"]] == ["session", "holdfast_session"]
    assert (by_name["closed"], by_name["bare"]) == (CLOSED["inputSchema"], None)
    assert by_name["open_session"] == {"type": "object", "additionalProperties": False}
    assert by_name["close_session"]["required"] == ["session"]
    assert result["_meta"] == {"x": 1}


@requirement("handles:lists")
def test_a_model_is_told_for_how_long_a_session_lives_and_which_tools_to_use() -> None:
    told: dict[float, str] = {1800: "30 minutes", 60: "1 minute", 90: "90 seconds", 1: "1 second", 0.5: "0.5 seconds"}
    for seconds, words in told.items():
        *_, opener, closer = shown(made(idle_timeout=seconds), page(TOOL), "p__{}".format)["tools"]
        assert f"A session ends with p__close_session, or after {words} without a call." in opener["description"]
        assert "that p__open_session opened" in closer["description"]
    argument = shown(made(), page(TOOL), "p__{}".format)["tools"][0]["inputSchema"]["properties"]["session"]
    assert "as p__open_session returned it" in argument["description"]


@requirement("handles:lists")
def test_what_is_not_ours_keeps_its_bytes() -> None:
    sent = Raw(
        b'{"tools":[{"name":"bare", "x": 1.50},{"name":"r","inputSchema":{"a":1e2},"y":"\\u00e9"}],"_meta":{"z": 1.0}}'
    )
    result = bytes(made().shown(sent, str))
    assert result.startswith(b'{"tools":[{"name":"bare", "x": 1.50},{"name":"r","inputSchema":{"a":1e2,"properties":{')
    assert b'"y":"\\u00e9"}' in result
    assert result.endswith(b'],"_meta":{"z": 1.0}}')


@requirement("handles:lists")
def test_the_same_page_is_shown_as_the_same_bytes() -> None:
    tools, sent = made(), page(TOOL)
    first = tools.shown(sent, str)
    assert tools.shown(sent, str) is first
    elsewhere = tools.shown(sent, "p__{}".format)
    assert (tools.shown(sent, str), tools.shown(sent, "p__{}".format)) == (first, elsewhere)
    tools.reconfigure(ServerSettings(name="s", url="http://127.0.0.1/mcp", handles=True, idle_timeout=60))
    assert tools.shown(sent, str) != first


def test_pages_that_never_come_again_are_not_kept() -> None:
    tools, sent = made(pass_headers=("x-tenant",)), page(TOOL)
    assert tools.shown(sent, str) is not tools.shown(sent, str)


@requirement("handles:lists")
def test_ours_stand_on_the_last_page_alone() -> None:
    tools = made()
    assert names(shown(tools, page(TOOL, nextCursor="2"))) == ["remember"]
    assert names(shown(tools, page(OWN, nextCursor=None))) == ["seat", "open_session", "close_session"]


@requirement("handles:lists")
@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], ("open_session", "close_session")),
        (["open_session"], ("holdfast_open_session", "holdfast_close_session")),
        (["close_session"], ("holdfast_open_session", "holdfast_close_session")),
        (["close_session", "holdfast_open_session"], ("holdfast_open_session_2", "holdfast_close_session_2")),
        (["holdfast_close_session"], ("open_session", "close_session")),
    ],
)
def test_ours_are_called_otherwise_where_the_server_has_such_a_tool(taken: list[str], expected: Any) -> None:
    tools = made()
    first, last = page(*({"name": name} for name in taken), nextCursor="2"), page(TOOL)
    shown(tools, first)
    assert names(shown(tools, last))[-2:] == list(expected)
    assert (tools.opener, tools.closer) == expected
    again = made()
    again.learn([*tools_of(last), *tools_of(first)])
    assert (again.opener, again.closer) == expected, "whatever the order"


@requirement("handles:lists")
def test_a_page_that_was_shown_under_other_names_is_shown_anew() -> None:
    tools, sent = made(), page(TOOL)
    shown(tools, sent)
    tools.learn(tools_of(page({"name": "open_session"})))
    assert names(shown(tools, sent))[-2:] == ["holdfast_open_session", "holdfast_close_session"]


@requirement("handles:the-server-sees-nothing")
def test_which_argument_names_the_session_is_what_the_list_said() -> None:
    tools = made()
    tools.learn(tools_of(page(TOOL, OWN, CLOSED, BARE)))
    both: dict[str, Json] = {"session": 4, "holdfast_session": HANDLE}
    assert tools.argument_of("remember", both) == "session"
    assert tools.argument_of("remember", {"key": "k"}) is None
    assert tools.argument_of("seat", both) == "holdfast_session"
    assert tools.argument_of("seat", {"session": HANDLE}) is None, "it is the tool's own"
    assert tools.argument_of("closed", {"session": HANDLE}) is None
    assert tools.argument_of("bare", {"session": HANDLE}) is None


@requirement("handles:the-server-sees-nothing")
def test_of_a_tool_that_was_never_listed_a_handle_is_told_by_its_looks() -> None:
    tools = made()
    assert tools.argument_of("hidden", {"session": HANDLE}) == "session"
    assert tools.argument_of("hidden", {"holdfast_session": HANDLE}) == "holdfast_session"
    assert tools.argument_of("hidden", {"session": "mine", "other": HANDLE, "holdfast_session": 4}) is None
    assert tools.argument_of(None, {"session": "x"}) is None


def test_what_is_remembered_of_tools_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered, "MAX_TOOLS", 2)
    tools = made()
    tools.learn(tools_of(page(OWN, TOOL, CLOSED)))
    assert tools.argument_of("seat", {"holdfast_session": "x"}) is None, "forgotten"
    assert tools.argument_of("remember", {"session": "x"}) == "session"


@pytest.mark.parametrize("odd", [b"null", b"7", b'"x"', b"{}", b"[1,null,[],{}]", b'[{"name":7,"inputSchema":{}}]'])
def test_a_list_that_is_none_breaks_nothing(odd: bytes) -> None:
    result = shown(made(), Raw(b'{"tools":' + odd + b"}"))
    assert names({"tools": result["tools"][-2:]}) == ["open_session", "close_session"]


def test_most_calls_cannot_concern_sessions() -> None:
    def call(name: Any, **arguments: Any) -> Call:
        return Call("tools/call", {"name": name, "arguments": arguments})

    assert may_concern_sessions(Call("tools/list"))
    ours = ["open_session", "close_session", "holdfast_open_session", "holdfast_close_session_12"]
    assert all(may_concern_sessions(call(name)) for name in ours)
    assert all(
        may_concern_sessions(call("x", **{name: 1})) for name in ("session", "holdfast_session", "holdfast_session_2")
    )
    assert not any(map(may_concern_sessions, (call("x"), call("x", sessions=1), call(7), call("my_open_session"))))
    assert not may_concern_sessions(Call("tools/call", {"name": "x", "arguments": [1]}))
