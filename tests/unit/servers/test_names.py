"""What tools and resources are called where all servers are one, and the way back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.names import is_split_at
from holdfast.servers import names
from holdfast.servers.names import MAX_NAME, Names, fits, mark_of, qualified, scheme_of, unqualified
from requirements import requirement

PREFIXES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)
SEPARATORS = st.sampled_from(["__", "_", "-", "--", "x", "_-_0"])
OWN = st.one_of(
    st.text(min_size=1, max_size=90),
    st.from_regex(r"[a-z_]{1,80}", fullmatch=True),
    st.from_regex(r"[a-z]{0,60}_[0-9a-f]{8}", fullmatch=True),
)
"""Names that servers might give, among them some that look as if they had been cut."""


@requirement("merged:names:round-trip")
@given(PREFIXES, SEPARATORS, st.lists(OWN, unique=True, max_size=8), st.data())
def test_every_listed_name_leads_back_and_no_two_are_the_same(
    prefix: str, separator: str, owns: list[str], data: st.DataObject
) -> None:
    aliased = data.draw(st.lists(st.sampled_from(owns), unique=True, max_size=3)) if owns else []
    aliases = {own: f"alias{number}" for number, own in enumerate(aliased)}
    known = Names(prefix, separator, aliases)
    public = {own: known.listed(own) for own in owns}
    assert len(set(public.values())) == len(owns)
    for own, name in public.items():
        assert known.own(name) == own
        assert not known.needs_list(name)
        assert len(name) <= MAX_NAME
        assert name == aliases.get(own, name)
    stranger = Names(prefix, separator, aliases)
    for own, name in public.items():
        assert stranger.own(name) == own or stranger.needs_list(name), "called before a list was seen"


@requirement("merged:names:round-trip")
@given(st.lists(PREFIXES, min_size=2, max_size=2, unique=True), SEPARATORS, OWN)
def test_a_name_of_one_server_is_never_one_of_another(prefixes: list[str], separator: str, own: str) -> None:
    one, other = prefixes
    if is_split_at(one, separator) and is_split_at(other, separator):
        public = Names(one, separator, {}).listed(own)
        beside = Names(other, separator, {})
        beside.listed(own)
        assert beside.own(public) is None


@requirement("merged:names:round-trip")
def test_a_name_of_64_characters_that_only_looks_cut_can_be_called() -> None:
    known = Names("s", "__", {})
    own = "t" * 52 + "_0123abcd"
    assert len("s__" + own) == MAX_NAME
    assert known.needs_list("s__" + own), "it might stand for another"
    assert known.listed(own) == "s__" + own
    assert known.own("s__" + own) == own


@requirement("merged:names:round-trip")
def test_an_aliased_tool_has_no_other_name() -> None:
    known = Names("s", "__", {"a": "alias", "long" * 20: "short"})
    assert known.own("alias") == "a"
    assert known.own("s__a") is None
    assert known.own("short") == "long" * 20
    assert known.public("long" * 20) == "short"
    assert known.own("a") is None


@requirement("merged:names:cut")
def test_servers_that_begin_alike_have_cut_names_of_their_own() -> None:
    one, two = (Names("p" * 60 + last, "__", {}) for last in "12")
    assert one.public("tool") != two.public("tool")
    assert two.own(one.listed("tool")) is None


@requirement("merged:names:bounded")
def test_names_that_a_client_makes_up_are_not_remembered_and_those_of_a_server_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "MAX_CUT", 3)
    known = Names("s", "__", {})
    made_up = "s__" + "x" * 100
    assert known.own(made_up) is None
    cut = known.public("x" * 100)
    assert known.own(cut) is None
    assert known.needs_list(cut)
    public = [known.listed(f"{'x' * 100}{number}") for number in range(5)]
    assert [known.own(name) is not None for name in public] == [False, False, True, True, True]


@requirement("merged:resources:marked")
@given(PREFIXES, st.from_regex(r"[a-z][a-z0-9+.-]{0,10}:[ -~]{0,40}", fullmatch=True))
def test_a_marked_uri_is_a_uri_and_leads_back_whatever_case_a_client_makes_of_its_scheme(prefix: str, uri: str) -> None:
    marked = qualified(prefix, uri)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", marked.partition(":")[0])
    assert unqualified(prefix, marked) == uri
    scheme, _, rest = marked.partition(":")
    assert (unqualified(prefix, f"{scheme.lower()}:{rest}") or "").lower() == uri.lower()


@requirement("merged:resources:marked")
@given(st.lists(PREFIXES, min_size=2, max_size=2, unique=True))
def test_no_two_prefixes_make_the_same_mark(prefixes: list[str]) -> None:
    one, other = prefixes
    assert mark_of(one) != mark_of(other)


def test_what_is_not_marked_is_nobodys() -> None:
    assert unqualified("git", "gitx+https://a") is None
    assert unqualified("git", "git://a") is None
    assert unqualified("git", "git+") is None
    assert unqualified("git", "git+https://a") == "https://a"
    assert (scheme_of("Memo://x"), scheme_of("no scheme"), scheme_of("1a:b")) == ("memo", "", "")


@pytest.mark.parametrize(
    ("template", "uri", "expected"),
    [
        ("memo://note", "memo://note", True),
        ("memo://note", "memo://notes", False),
        ("memo://item/{id}", "memo://item/7", True),
        ("memo://item/{id}", "memo://item/", False),
        ("memo://item/{id}", "memo://items/7", False),
        ("memo://{a}/{b}", "memo://x/y", True),
        ("memo://{a}/{b}", "memo://x/", False),
        ("memo://{a}/{b}", "memo:///y", False),
        ("memo://{a}{b}", "memo://xy", True),
        ("memo://{a}{b}", "memo://x", False),
        ("file://{+path}", "file:///a/b/c.txt", True),
        ("file://{+path}.md", "file:///a.md/b.md", True),
        ("file://{+path}.md", "file:///a.md/b.txt", False),
        ("find://all{?q,limit}", "find://all", True),
        ("find://all{?q,limit}", "find://all?q=x&limit=3", True),
        ("find://all{?q}", "find://al", False),
        ("doc://{name}{/part*}", "doc://a", True),
        ("doc://{name}{/part*}", "doc://a/b/c", True),
        ("doc://{name}{#section}", "doc://a#b", True),
        ("{+any}", "x", True),
        ("{+any}", "", False),
        ("x{a}x", "xx", False),
        ("x{a}x", "xxx", True),
        ("{a}-{b}-{c}", "1-2-3", True),
        ("{a}-{b}-{c}", "1-2", False),
        ("a{b", "a{b", True),
        ("{}", "x", True),
    ],
)
def test_a_uri_fits_a_template_if_it_can_be_made_from_it(template: str, uri: str, expected: bool) -> None:
    assert fits(template, uri) is expected


@given(
    st.lists(st.from_regex(r"[a-z/:.]{0,5}", fullmatch=True), min_size=1, max_size=5),
    st.lists(st.from_regex(r"[a-z/:.?=]{1,6}", fullmatch=True), min_size=5, max_size=5),
)
def test_whatever_a_template_expands_to_fits_it(literals: list[str], values: list[str]) -> None:
    template, uri = literals[0], literals[0]
    for literal, value in zip(literals[1:], values, strict=False):
        template += "{+x}" + literal
        uri += value + literal
    assert fits(template, uri)


@requirement("merged:names:bounded")
def test_a_hostile_template_costs_linear_time() -> None:
    """Backtracking over 2,000 expressions would never end."""
    assert not fits("a{x}" * 2000 + "b", "a" * 20_000)
