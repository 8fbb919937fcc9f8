"""Which handles there are, whose they are, and when they end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Final

import pytest

from holdfast.call import ANYBODY
from holdfast.config import Limits
from holdfast.servers.handles import PREFIX, Handle, Handles
from holdfast.session.key import Principal, SessionKey
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rows import row

ANN: Final = SessionKey("srv", "r1", "c1", "private", Principal("host", "ann"), "17", lacks="chat", declares=None)
BOB: Final = replace(ANN, principal=Principal("host", "bob"))
LOCAL: Final = replace(ANN, principal=Principal("local"))


class Server:
    """Keeps no sessions, and remembers which it was told to end."""

    def __init__(self, idle_timeout: float = 100.0) -> None:
        self.idle_timeout = idle_timeout
        self.ended: list[SessionKey] = []

    def end(self, key: SessionKey) -> None:
        self.ended.append(key)


class Made:
    """Handles with a clock and one server."""

    def __init__(self, **limits: Any) -> None:
        self.clock = ManualClock()
        self.server = Server()
        self.handles = Handles(self.clock, Limits(**limits) if limits else None)

    def opened(self, key: SessionKey = ANN, server: Server | None = None) -> Handle:
        handle = self.handles.open(key, "chat", server or self.server)
        assert handle is not None
        return handle

    def finds(self, handle: Handle, key: SessionKey = ANN, server: Server | None = None) -> bool:
        return self.handles.find(handle.name, key, "chat", server or self.server) is handle


@pytest.fixture
def made() -> Generator[Callable[..., Made]]:
    every: list[Made] = []

    def make(**limits: Any) -> Made:
        every.append(Made(**limits))
        return every[-1]

    yield make
    for each in every:
        assert each.clock.pending == 0, "no timer belongs to handles"


@requirement("handles:names-not-rights")
def test_a_handle_is_found_by_its_owner_alone_whatever_else_the_call_names(made: Callable[..., Made]) -> None:
    m = made()
    handle = m.opened()
    assert handle.name.startswith(PREFIX)
    assert len(handle.name) == len(PREFIX) + 32, "128 bits"
    for key in (ANN, replace(ANN, scope="chat", scope_id="chat:c"), replace(ANN, scope_id="18")):
        assert m.finds(handle, key)
    others = {
        "principal": BOB,
        "client": replace(ANN, principal=Principal("other", "ann")),
        "server": replace(ANN, server="other"),
        "revision": replace(ANN, revision="r2"),
        "credential": replace(ANN, credential="c2"),
        "passed": replace(ANN, passed=(("x-tenant", "t"),)),
    }
    assert [what for what, key in others.items() if m.finds(handle, key)] == []
    assert not m.finds(handle, ANN, Server())
    assert m.handles.find(handle.name, ANN, "user", m.server) is None
    assert m.handles.find(handle.name[:-1], ANN, "chat", m.server) is None
    assert m.handles.owner_of(handle.name) == ANN.principal


def test_the_key_behind_a_handle_is_of_a_session_that_stays(made: Callable[..., Made]) -> None:
    key = made().opened().key
    assert (key.scope, key.is_private, key.lacks, key.declares, key.ends_with_client) == (
        "chat",
        False,
        "",
        ANYBODY,
        False,
    )
    assert made().opened(replace(ANN, ends_with_client=True)).key.ends_with_client is False


@requirement("handles:bounded")
def test_a_handle_ends_when_nobody_has_called_with_it_for_long(made: Callable[..., Made]) -> None:
    m = made()
    first, second = m.opened(), m.opened()
    m.clock.advance(99)
    m.handles.enter(first)
    m.handles.leave(first)
    m.clock.advance(1)
    assert not m.finds(second)
    assert m.server.ended == [second.key]
    assert m.finds(first)
    m.clock.advance(98.5)
    assert m.finds(first)
    m.clock.advance(0.5)
    assert not m.finds(first)
    assert len(m.handles) == 0


@requirement("handles:bounded")
def test_a_handle_with_a_call_under_way_stays(made: Callable[..., Made]) -> None:
    m = made()
    busy, idle = m.opened(), m.opened()
    m.handles.enter(busy)
    m.handles.enter(busy)
    m.handles.leave(busy)
    m.clock.advance(10_000)
    assert m.finds(busy)
    assert not m.finds(idle)
    m.handles.leave(busy)
    m.clock.advance(99)
    assert m.finds(busy)
    m.clock.advance(1)
    assert not m.finds(busy)


@requirement("handles:bounded")
def test_a_call_that_ends_after_its_handle_revives_nothing(made: Callable[..., Made]) -> None:
    m = made()
    handle = m.opened()
    m.handles.enter(handle)
    m.handles.close(handle)
    assert m.server.ended == [handle.key]
    m.handles.leave(handle)
    assert not m.finds(handle)
    assert len(m.handles) == 0


@row(22)
@requirement("handles:bounded")
def test_a_user_who_opens_too_many_loses_its_own_that_is_idle_the_longest(made: Callable[..., Made]) -> None:
    m = made(sessions_per_user=3)
    bobs = m.opened(BOB)
    oldest, busy, used = m.opened(), m.opened(), m.opened()
    m.handles.enter(busy)
    m.handles.enter(oldest)
    m.handles.leave(oldest)
    newest = m.opened()
    assert [m.finds(each) for each in (oldest, busy, used, newest)] == [True, True, False, True]
    m.handles.enter(oldest)
    m.handles.enter(newest)
    assert m.handles.open(ANN, "chat", m.server) is None, "calls run in all"
    assert m.finds(bobs, BOB)
    assert m.server.ended == [used.key]


@row(22)
@requirement("handles:bounded")
def test_the_gateway_has_no_more_handles_than_sessions_and_nobody_loses_anothers(
    made: Callable[..., Made],
) -> None:
    m = made(sessions=3, sessions_per_user=3)
    first, second, bobs = m.opened(LOCAL), m.opened(LOCAL), m.opened(BOB)
    third = m.opened(LOCAL)
    assert [m.finds(each, LOCAL) for each in (first, second, third)] == [False, True, True]
    assert m.finds(bobs, BOB)
    assert m.handles.open(ANN, "chat", m.server) is None, "ann has none that could make way"
    m.clock.advance(100)
    assert m.handles.open(ANN, "chat", m.server) is not None, "all others have expired, at whichever server"
    assert len(m.handles) == 1


@requirement("handles:bounded")
def test_lower_limits_hold_from_the_next_opening_on(made: Callable[..., Made]) -> None:
    m = made(sessions_per_user=5)
    every = [m.opened() for _ in range(5)]
    m.handles.reconfigure(Limits(sessions_per_user=2))
    assert all(map(m.finds, every))
    last = m.opened()
    assert [m.finds(each) for each in (*every, last)] == [False] * 4 + [True, True]


def test_each_server_has_an_idle_timeout_of_its_own(made: Callable[..., Made]) -> None:
    m, patient = made(sessions=2), Server(1000)
    kept = m.opened(ANN, patient)
    m.opened(BOB)
    m.clock.advance(500)
    assert m.handles.open(LOCAL, "chat", patient) is not None
    assert m.finds(kept, ANN, patient)


@requirement("handles:reload")
def test_handles_go_on_with_the_server_that_takes_the_place_of_theirs(made: Callable[..., Made]) -> None:
    m, new = made(), Server()
    handle, other = m.opened(), Server()
    kept = m.opened(BOB, other)
    m.handles.enter(handle)
    m.handles.move(m.server, new, lambda key: replace(key, revision="r2"))
    assert not m.finds(handle)
    assert m.finds(handle, replace(ANN, revision="r2"), new)
    m.handles.leave(handle)
    m.handles.drop(m.server)
    assert m.finds(handle, replace(ANN, revision="r2"), new)
    assert m.finds(kept, BOB, other)
    assert m.server.ended == new.ended == []


@requirement("handles:reload")
def test_a_server_or_a_client_that_goes_takes_its_handles_along(made: Callable[..., Made]) -> None:
    m, other = made(), Server()
    anns, busy, locals_, elsewhere = m.opened(), m.opened(), m.opened(LOCAL), m.opened(ANN, other)
    m.handles.enter(busy)
    m.handles.drop(m.server, "host")
    assert [m.finds(anns), m.finds(busy), m.finds(locals_, LOCAL), m.finds(elsewhere, ANN, other)] == [
        False,
        False,
        True,
        True,
    ]
    assert m.server.ended == [anns.key], "the call under way ends in order"
    m.handles.drop(m.server)
    assert not m.finds(locals_, LOCAL)
    assert len(m.handles) == 1
