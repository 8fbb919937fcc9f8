"""Which service a path names, for whom."""

from __future__ import annotations

from random import Random
from typing import Any, cast

from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.identity.asker import Asker, next_nonce
from holdfast.identity.caller import Identity
from holdfast.servers.directory import Directory
from holdfast.servers.merged import Merged
from holdfast.servers.server import Server
from holdfast.session.key import Principal
from holdfast.testing.clock import ManualClock
from requirements import requirement

ANYBODY = Identity(Principal("local"), None, lacks_user=False)
SOMEBODY = Identity(Principal("some"), None, lacks_user=False, servers=frozenset({"two"}))


def server(name: str, **settings: Any) -> Server:
    async def connect(*_: Any) -> Any: ...

    chosen = ServerSettings(name=name, url="http://127.0.0.1/mcp", **settings)
    clock: Clock = ManualClock()
    return Server(
        chosen, cast("Any", connect), scope=cast("Any", None), clock=clock, emit=lambda _: None, rng=Random(1)
    )


def directory(*names: str) -> Directory:
    whole = Directory(Merged("__", ManualClock()))
    whole.replace({name: server(name) for name in names}, "__")
    return whole


@requirement("merged:names:one-server-is-untouched")
def test_a_single_server_is_the_whole_and_several_are_merged() -> None:
    single, several = directory("two"), directory("one", "two")
    assert single.whole(ANYBODY) is single["two"]
    assert single.whole(SOMEBODY) is single["two"]
    assert several.whole(SOMEBODY) is several.merged
    assert directory("one").whole(SOMEBODY) is None


def test_a_single_server_is_merged_like_several_where_the_settings_say_so() -> None:
    whole = Directory(Merged("__", ManualClock()))
    whole.replace({"two": server("two")}, "__", "always")
    assert whole.whole(SOMEBODY) is whole.merged
    whole.replace({"two": whole["two"]}, "__")
    assert whole.whole(SOMEBODY) is whole["two"]


@requirement("merged:access:hidden-servers")
def test_what_a_client_may_not_see_is_found_as_little_as_what_is_not_there() -> None:
    whole = directory("one", "two")
    assert whole.one("one", SOMEBODY) is whole.one("three", SOMEBODY) is None
    assert whole.one("two", SOMEBODY) is whole["two"]
    assert whole.visible(SOMEBODY) == ["two"]
    assert whole.visible(ANYBODY) == ["one", "two"]
    assert whole.merged.visible(asker(SOMEBODY)).keys() == {"two"}


def asker(identity: Identity, **more: Any) -> Asker:
    return Asker(identity, next_nonce(), **more)


@requirement("merged:access:passed-headers")
def test_conversations_are_equal_where_all_that_names_them_is() -> None:
    merged = directory("one", "two").merged
    same = [merged.converse(asker(ANYBODY, client="c", passed=(("x-a", "1"),))) for _ in range(2)]
    assert same[0] == same[1]
    assert hash(same[0]) == hash(same[1])
    others = [
        asker(ANYBODY, client="d", passed=(("x-a", "1"),)),
        asker(ANYBODY, client="c", passed=(("x-a", "2"),)),
        asker(ANYBODY, client="c"),
        asker(ANYBODY, path="c", passed=(("x-a", "1"),)),
        asker(SOMEBODY, client="c", passed=(("x-a", "1"),)),
        asker(ANYBODY, passed=(("x-a", "1"),)),
    ]
    assert same[0] not in [merged.converse(other) for other in others]
    unnamed = [merged.converse(asker(ANYBODY)) for _ in range(2)]
    assert unnamed[0] != unnamed[1], "who names nothing is alone"
    assert unnamed[0].is_private
    assert same[0].ends_with_client


@requirement("merged:access:passed-headers")
def test_the_key_of_a_session_does_not_depend_on_the_order_in_which_headers_are_read() -> None:
    passing = server("one", pass_headers=("x-a", "x-b"))
    pairs = (("x-a", "1"), ("x-b", "2"), ("x-c", "3"))
    keys = {passing.key_for(asker(ANYBODY, path="c", passed=passed)) for passed in (pairs, pairs[::-1], pairs[:2])}
    assert len(keys) == 1
