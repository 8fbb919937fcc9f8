"""What differs between two editions of the settings, as a reload sees it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, ServerTools, ToolRules, Trust
from holdfast.config.change import Change

ALL: Final = ToolRules()


def settings(*names: str, **clients: dict[str, Any]) -> GatewaySettings:
    servers = tuple(ServerSettings(name=name, url=f"http://127.0.0.1:3000/{name}") for name in names)
    return GatewaySettings(
        servers=servers,
        clients=tuple(ClientSettings(name=name, key_digests=(name.encode(),), **c) for name, c in clients.items()),
    )


def test_servers_come_differ_and_go() -> None:
    before = settings("a", "b", "c")
    after = settings("b", "c", "d")
    b, c, d = after.servers
    changed = c.model_copy(update={"tools": ServerTools(deny=("x",))})
    change = Change(before, after.model_copy(update={"servers": (b, changed, d)}))
    assert (change.added, change.changed, change.removed) == (("d",), ("c",), ("a",))
    assert change.tools_differ == {"c"}


def test_handles_and_how_long_they_live_are_what_a_list_of_tools_says() -> None:
    def told(before: dict[str, Any], after: dict[str, Any]) -> bool:
        (server,) = settings("a").servers
        editions = [
            settings("a").model_copy(update={"servers": (server.model_copy(update=fields),)})
            for fields in (before, after)
        ]
        return "a" in Change(*editions).tools_differ

    assert told({}, {"handles": True})
    assert told({"handles": True}, {"handles": True, "idle_timeout": 5.0})
    assert not told({}, {"idle_timeout": 5.0})
    assert not told({"handles": True}, {"handles": True, "call_timeout": 5.0})


def test_nothing_differs_from_itself() -> None:
    same = settings("a", host={"servers": {"a": ToolRules(deny=("x",))}}, guest={"trust": Trust(user="x-user")})
    change = Change(same, same)
    assert (change.added, change.changed, change.removed) == ((), (), ())
    assert not change.clients_gone | change.clients_narrowed | change.clients_widened | change.barred_from("a")


def rules(allow: tuple[str, ...] = ("*",), deny: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"servers": {"a": ToolRules(allow=allow, deny=deny)}}


NARROWED: Final[list[tuple[dict[str, Any], dict[str, Any]]]] = [
    ({}, rules()),  # b may be seen no more
    ({"servers": {"a": ALL, "b": ALL}}, rules()),
    (rules(), rules(deny=("x",))),
    (rules(), rules(allow=("x*",))),
    (rules(allow=("x", "y")), rules(allow=("x",))),
    (rules(allow=("x",)), rules(allow=("y",))),
    (rules(deny=("x",)), rules(deny=("y",))),
    (rules(deny=("x",)), {"servers": {"a": ToolRules(deny=("x", "y")), "b": ALL}}),
    ({}, {"trust": Trust(chat="x-chat")}),
    ({"trust": Trust(user="x-user")}, {"trust": Trust(user="x-name")}),
]


@pytest.mark.parametrize(("was", "now"), NARROWED)
def test_a_client_that_may_see_less_or_name_others_is_narrowed(was: dict[str, Any], now: dict[str, Any]) -> None:
    change = Change(settings("a", "b", host=was, other={}), settings("a", "b", host=now, other={}))
    assert (change.clients_narrowed, change.clients_widened) == (frozenset({"host"}), frozenset[str]())


WIDENED: Final[list[tuple[dict[str, Any], dict[str, Any]]]] = [
    (rules(), {}),
    (rules(), {"servers": {"a": ALL, "b": ToolRules(allow=("x",))}}),
    (rules(allow=("x",)), rules()),
    (rules(allow=("x",)), rules(allow=("x", "y"))),
    (rules(deny=("x", "y")), rules(deny=("x",))),
    ({}, {"servers": {"a": ALL, "b": ALL}}),  # the same in other words
]


@pytest.mark.parametrize(("was", "now"), WIDENED)
def test_a_client_that_may_see_more_is_widened(was: dict[str, Any], now: dict[str, Any]) -> None:
    change = Change(settings("a", "b", host=was, other={}), settings("a", "b", host=now, other={}))
    assert (change.clients_narrowed, change.clients_widened) == (frozenset[str](), frozenset({"host"}))


def test_what_goes_with_its_server_or_comes_with_one_narrows_nobody() -> None:
    both, one = {"servers": {"a": ALL, "b": ALL}}, {"servers": {"a": ALL}}
    gone = Change(settings("a", "b", host=both), settings("a", host=one))
    assert not gone.clients_narrowed
    assert not gone.barred_from("b")  # what runs there may end
    assert not Change(settings("a", host=one), settings("a", "b", host=one)).clients_narrowed


def test_who_is_barred_from_a_server() -> None:
    before = settings("a", "b", gone={}, less={}, renamed={"trust": Trust(user="x-user")}, same={})
    after = settings("a", "b", less={"servers": {"a": ALL}}, renamed={"trust": Trust(user="x-name")}, same={})
    change = Change(before, after)
    assert change.clients_gone == {"gone"}
    assert change.barred_from("a") == {"gone", "renamed"}
    assert change.barred_from("b") == {"gone", "renamed", "less"}
    assert change.barred_from("removed") == {"gone", "renamed"}
