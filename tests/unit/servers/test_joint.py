"""A list of all servers together, whatever the servers say."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.call import Call, Caller, Outcome, Result, RpcError, Running
from holdfast.config import ServerSettings, ServerTools
from holdfast.errors import CallFailed
from holdfast.servers import joint, member
from holdfast.servers.gathering import MAX_PAGES, Deaf, Gathering
from holdfast.servers.joint import JointList
from holdfast.servers.member import Member, owner_of
from holdfast.session.retry import unavailable
from holdfast.testing.clock import ManualClock
from requirements import requirement

Say = Callable[[Call], Outcome | None]


class Part:
    """A conversation with a server that answers at once, or later with None."""

    def __init__(self, name: str, say: Say, **settings: Any) -> None:
        self.settings = ServerSettings(name=name, url="http://127.0.0.1/mcp", **settings)
        hello = SimpleNamespace(capabilities={"resources": {}})
        self.server = cast(
            "Any", SimpleNamespace(name=name, settings=self.settings, catalog=SimpleNamespace(hello=hello))
        )
        self.is_held = False
        self.asked: list[Call] = []
        self.callers: list[Caller] = []
        self.cancelled = 0
        self._say = say

    def start(self, call: Call, caller: Caller, watcher: object = None) -> Running | None:
        del watcher
        self.asked.append(call)
        self.callers.append(caller)
        outcome = self._say(call)
        if outcome is not None:
            caller.answer(outcome)
            return None
        return cast("Running", self)

    def cancel(self, reason: str) -> None:
        assert reason
        self.cancelled += 1


class House:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.missed: list[str] = []
        self.come: list[str] = []

    def left_out(self, names: Any, watcher: object) -> None:
        del watcher
        self.missed = list(names)

    def has_come(self, name: str) -> None:
        self.come.append(name)


class Asking(Deaf):
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def answer(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    @property
    def value(self) -> Any:
        (outcome,) = self.outcomes
        assert isinstance(outcome, Result)
        return json.loads(bytes(outcome.raw))


def result(**fields: Any) -> Result:
    return Result(Raw(json.dumps(fields).encode()))


def saying(outcome: Outcome | None) -> Say:
    return lambda _: outcome


def tools(*own: Any) -> Say:
    return saying(result(tools=[{"name": name} for name in own]))


class Case:
    def __init__(self, *parts: Part) -> None:
        self.house = House()
        self.parts = {Member(part.server, "__"): cast("Any", part) for part in parts}

    @property
    def members(self) -> list[Member]:
        return list(self.parts)

    def ask(self, method: str = "tools/list", **params: Any) -> tuple[Asking, Running]:
        asking = Asking()
        return asking, JointList(self.house, self.parts, Call(method, params), asking, None).start()

    def listed(self, method: str = "tools/list", key: str = "name") -> list[str]:
        asking, _ = self.ask(method)
        (field,) = [name for name in asking.value if isinstance(asking.value[name], list)]
        return [item[key] for item in asking.value[field]]


@requirement("merged:lists:unavailable")
@pytest.mark.parametrize(
    "said",
    [
        b'{"tools":null}',
        b'{"tools":{"name":"x"}}',
        b'{"tools":[1,null,"x",[],{},{"name":7},{"name":null}]}',
        b"{}",
        b'{"tools":[],"nextCursor":7}',
    ],
)
def test_what_one_server_says_amiss_takes_nothing_from_the_others(said: bytes) -> None:
    case = Case(Part("bad", saying(Result(Raw(said)))), Part("good", tools("a")))
    assert case.listed() == ["good__a"]
    assert case.house.clock.pending == 0


@requirement("merged:lists:unavailable")
def test_why_a_servers_items_are_missing_is_said_and_one_that_offers_none_is_not_missing() -> None:
    none = RpcError(Raw(b'{"code":-32601,"message":"no"}'))
    broken = RpcError(Raw(b'{"code":-32603,"message":"out of order"}'))
    down = unavailable("down", "nobody there")
    case = Case(
        Part("none", saying(none)), Part("broken", saying(broken)), Part("down", saying(down)), Part("good", tools("a"))
    )
    asking, _ = case.ask()
    note = asking.value["_meta"]["dev.holdfast/unavailable"]
    assert note == {"broken": "out of order", "down": down.message}
    assert case.house.missed == ["broken", "down"]


@requirement("merged:lists:unavailable")
@pytest.mark.parametrize(("is_held", "lists", "may_come"), [(False, "session", True), (True, "session", False)])
def test_a_list_that_is_always_slow_is_not_announced_again_and_again(
    lists: str, *, is_held: bool, may_come: bool
) -> None:
    slow = Part("slow", saying(None), lists=lists)
    slow.is_held = is_held
    case = Case(Part("good", tools("a")), slow)
    asking, _ = case.ask()
    case.house.clock.advance(joint.LIST_PATIENCE)
    assert asking.value["_meta"]["dev.holdfast/unavailable"].keys() == {"slow"}
    assert case.house.missed == (["slow"] if may_come else [])
    slow.callers[0].answer(result(tools=[{"name": "late"}]))
    assert case.house.come == ["slow"]
    assert len(asking.outcomes) == 1


@requirement("merged:calls:cancelled")
def test_a_cancelled_list_asks_for_no_further_page() -> None:
    slow = Part("slow", saying(None))
    case = Case(Part("good", tools("a")), slow)
    asking, running = case.ask()
    running.cancel("enough")
    running.cancel("twice")
    assert slow.cancelled == 1
    assert case.house.clock.pending == 0
    slow.callers[0].answer(result(tools=[], nextCursor="more"))
    assert len(slow.asked) == 1
    assert [type(outcome) for outcome in asking.outcomes] == [CallFailed]


@requirement("merged:lists:pages")
def test_cursors_of_a_server_that_lead_in_a_circle_or_nowhere_end() -> None:
    circle = Part("circle", lambda call: result(tools=[{"name": str(call.params.get("cursor"))}], nextCursor="c"))
    endless = Part("endless", lambda call: result(tools=[], nextCursor=str(call.params.get("cursor", "")) + "x"))
    assert Case(circle, endless).listed() == ["circle__None", "circle__c"]
    assert len(endless.asked) == MAX_PAGES


@requirement("merged:lists:pages")
@given(
    st.lists(st.lists(st.text("ab", min_size=1, max_size=3), max_size=12), min_size=1, max_size=3),
    st.integers(1, 6),
)
def test_all_pages_together_hold_every_item_once_and_come_to_an_end(owns: list[list[str]], size: int) -> None:
    """Servers that list a tool twice would lead a client in circles, were a name not listed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "PAGE", size)
        case = Case(*(Part(f"s{number}", tools(*own)) for number, own in enumerate(owns)))
        expected = list(dict.fromkeys(f"s{number}__{name}" for number, own in enumerate(owns) for name in own))
        found: list[str] = []
        params: dict[str, str] = {}
        for _ in range(len(expected) // size + 1):
            asking, _ = case.ask(**params)
            found += [item["name"] for item in asking.value["tools"]]
            if "nextCursor" not in asking.value:
                break
            params = {"cursor": asking.value["nextCursor"]}
        assert found == expected


@requirement("merged:lists:pages")
@given(st.one_of(st.text(max_size=20), st.binary(max_size=20).map(lambda b: base64.urlsafe_b64encode(b).decode())))
def test_a_cursor_of_nobodys_is_refused(cursor: str) -> None:
    case = Case(Part("s", tools("a")))
    asking, _ = case.ask(cursor=cursor)
    (outcome,) = asking.outcomes
    assert isinstance(outcome, RpcError)
    assert b"-32602" in bytes(outcome.raw)


def resources(*uris: str) -> Say:
    return saying(result(resources=[{"uri": uri, "name": "x"} for uri in uris]))


URIS = st.lists(
    st.sampled_from(["m://a", "m://b", "x://a", "s0+m://a", "s1+m://a", "s1+s0+m://a", "git+m://a"]), unique=True
)


@requirement("merged:resources:marked")
@given(st.lists(URIS, min_size=1, max_size=3))
def test_whatever_servers_list_each_resource_is_listed_once_and_read_where_it_is(owns: list[list[str]]) -> None:
    case = Case(*(Part(f"s{number}", resources(*own)) for number, own in enumerate(owns)))
    found = case.listed("resources/list", "uri")
    assert len(set(found)) == len(found) == sum(map(len, owns))
    reached = [(owner[0].server.name, owner[1]) for uri in found if (owner := owner_of(uri, case.members))]
    assert reached == [(f"s{number}", uri) for number, own in enumerate(owns) for uri in own]


@requirement("merged:resources:marked")
def test_what_another_caller_was_shown_does_not_lead_a_resource_astray() -> None:
    """The first server lists a URI in one caller's session alone; in the other's, only the second has it."""
    said = [result(resources=[{"uri": "m://a"}]), result(resources=[])]
    first, second = Part("first", lambda _: said.pop(0), lists="session"), Part("second", resources("m://a"))
    case = Case(first, second)
    assert case.listed("resources/list", "uri") == ["m://a", "second+m://a"]
    (uri,) = case.listed("resources/list", "uri")
    assert owner_of(uri, case.members) == (case.members[1], "m://a")


@requirement("merged:resources:marked")
def test_a_uri_leads_to_who_lists_it_then_whose_template_fits_then_whose_scheme_it_is() -> None:
    case = Case(Part("a", saying(None)), Part("b", saying(None)), Part("c", saying(None)))
    a, b, c = case.members
    a.learn("resources/templates/list", [Raw(b'{"resourceTemplates":[{"uriTemplate":"m://item/{id}"}]}')])
    b.learn("resources/list", [Raw(b'{"resources":[{"uri":"m://item/7"},{"uri":"B://x"}]}')])
    assert owner_of("m://item/7", case.members) == (b, "m://item/7")
    assert owner_of("m://item/8", case.members) == (a, "m://item/8")
    assert owner_of("m://other", case.members) is None, "two have the scheme"
    assert owner_of("b://y", case.members) == (b, "b://y")
    assert owner_of("z://y", case.members) is None
    assert owner_of("z://y", [c]) == (c, "z://y"), "the only one with resources"
    assert owner_of("C+m://item/8", case.members) == (c, "m://item/8")


@requirement("merged:names:bounded")
def test_what_is_remembered_of_resources_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "MAX_URIS", 2)
    case = Case(Part("a", resources("m://1", "m://2", "m://3")))
    assert case.listed("resources/list", "uri") == ["m://1", "m://2", "m://3"]
    assert [case.members[0].lists(f"m://{number}") for number in (1, 2, 3)] == [False, True, True]


def test_what_is_listed_keeps_its_bytes_but_for_its_name() -> None:
    said = Result(Raw(b'{"tools":[{"name":"a","title":"A","inputSchema":{"x": 1.50}}]}'))
    case = Case(Part("s", saying(said), tools=ServerTools(aliases={"a": "b"})))
    asking, _ = case.ask()
    (outcome,) = asking.outcomes
    assert isinstance(outcome, Result)
    assert bytes(outcome.raw) == b'{"tools":[{"name":"b","title":"A","inputSchema":{"x": 1.50}}]}'


def test_a_gathering_is_done_once_whoever_reports_when() -> None:
    clock, done = ManualClock(), list[tuple[dict[str, int], list[str]]]()
    gathering = Gathering[str, int](["a", "b"], clock, 5, lambda reports, late: done.append((dict(reports), late)))
    gathering.report("a", 1)
    gathering.report("a", 2)
    gathering.report("stranger", 3)
    clock.advance(5)
    gathering.report("b", 4)
    assert done == [({"a": 1}, ["b"])]
    assert gathering.is_over
    assert clock.pending == 0
    empty = Gathering[str, int]([], clock, 5, lambda reports, late: done.append((dict(reports), late)))
    empty.settle()
    assert done[1:] == [({}, [])]
