"""The log level that requests of 2026-07-28 ask for, told to the server of their session."""

from __future__ import annotations

import pytest

from fake_upstream import FakeSession
from holdfast.call import Call
from holdfast.session.levels import LEVEL_TIMEOUT
from holdfast.testing.clock import settle
from holdfast.upstream.transport import FaultKind
from pool_rig import FakeCaller, FakeWatcher, PoolRig, pool_rig
from requirements import requirement

both_conversations = pytest.mark.parametrize("over_link", [False, True], ids=["upstream", "handshake"])


def wanting(level: str | None, tool: str = "tool") -> Call:
    return Call("tools/call", {"name": tool}, log_level=level)


def seen(session: FakeSession) -> list[str]:
    """What a session received, levels by their name and calls by their tool's."""
    return [str(r.params.get("level") or r.params.get("name")) for r in session.requests]


async def opened(rig: PoolRig) -> FakeSession:
    """The session of the chat, without a level."""
    await rig.answered()
    return rig.fake.session


@requirement("modern:levels:told-to-the-server")
@both_conversations
async def test_a_session_is_opened_with_the_level_of_the_calls_that_wait_for_it(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        rig.fake.holds_openings = True
        for level, tool in (("error", "a"), ("notice", "b"), (None, "c")):
            await rig.call(wanting(level, tool))
        rig.fake.session.let_open()
        await settle()
        assert seen(rig.fake.session) == ["info", "a", "b", "c"]


@requirement("modern:levels:told-to-the-server")
async def test_a_private_session_has_the_level_of_its_call() -> None:
    async with pool_rig() as rig:
        await rig.call(wanting("debug"), rig.private_key())
        assert seen(rig.fake.session) == ["debug", "tool"]


@requirement("modern:levels:told-to-the-server")
async def test_a_spare_is_set_before_its_first_call() -> None:
    async with pool_rig(spares=1) as rig:
        await settle()
        rig.fake.answers.pop("logging/setLevel")
        await rig.call(wanting("info"))
        assert seen(rig.fake.sessions[0]) == ["info"]
        rig.fake.sessions[0].requests[0].result({})
        await settle()
        assert seen(rig.fake.sessions[0]) == ["info", "tool"]


@requirement("modern:levels:told-to-the-server")
@both_conversations
async def test_a_level_is_lowered_for_who_wants_more_and_never_raised(over_link: bool) -> None:
    async with pool_rig(over_link=over_link) as rig:
        session = await opened(rig)
        for level in ("warning", "error", None, "debug", "warning", "debug"):
            await rig.call(wanting(level))
        calls = ["tool"] * 4
        assert seen(session) == ["tool", "info", "tool", "tool", "tool", "debug", *calls[:3]]


@requirement("modern:levels:told-to-the-server")
async def test_a_call_that_wants_little_of_the_log_takes_nothing_from_who_says_nothing() -> None:
    """As from a client of an older revision in the same chat, who goes by what is usual."""
    async with pool_rig() as rig:
        session = await opened(rig)
        rig.pool.attach(rig.key(), FakeWatcher())
        await rig.call(wanting("emergency"))
        assert seen(session) == ["tool", "info", "tool"]


@requirement("modern:levels:told-to-the-server")
async def test_where_a_client_set_a_level_a_call_that_wants_less_leaves_it() -> None:
    async with pool_rig() as rig:
        session = await opened(rig)
        watcher = FakeWatcher()
        rig.pool.attach(rig.key(), watcher)
        watcher.log_level = "warning"
        rig.server.set_level(rig.key(), "warning", FakeCaller(), watcher)
        await settle()
        await rig.call(wanting("error"))
        await rig.call(wanting("notice"))
        assert seen(session) == ["tool", "warning", "tool", "notice", "tool"]
        rig.server.detach(rig.key(), watcher)
        await settle()
        assert seen(session)[-1] == "info", "who set one has left"


@requirement("modern:levels:told-to-the-server")
async def test_a_client_session_does_not_raise_the_level_that_a_call_asked_for() -> None:
    async with pool_rig() as rig:
        await rig.call(wanting("info"))
        watcher, caller = FakeWatcher(), FakeCaller()
        rig.pool.attach(rig.key(), watcher)
        assert rig.server.set_level(rig.key(), "error", caller, watcher) is None
        assert caller.is_over
        rig.server.set_level(rig.key(), "debug", FakeCaller(), watcher)
        await settle()
        assert seen(rig.fake.session) == ["info", "tool", "debug"]


@requirement("modern:levels:told-to-the-server")
async def test_calls_wait_for_their_own_level_and_no_other_call_waits() -> None:
    async with pool_rig() as rig:
        session = await opened(rig)
        rig.fake.answers.pop("logging/setLevel")
        for level, tool in (("error", "a"), ("debug", "b"), (None, "c")):
            await rig.call(wanting(level, tool))
        assert seen(session) == ["tool", "info", "c"]
        session.got("logging/setLevel")[0].result({})
        await settle()
        assert seen(session) == ["tool", "info", "c", "a", "debug"]
        session.got("logging/setLevel")[1].result({})
        await settle()
        assert seen(session) == ["tool", "info", "c", "a", "debug", "b"]


@requirement("modern:levels:told-to-the-server")
async def test_a_server_that_refuses_its_level_is_asked_once_and_runs_the_calls() -> None:
    async with pool_rig() as rig:
        session = await opened(rig)
        rig.fake.answers["logging/setLevel"] = lambda request: request.error(-32601)
        for _ in range(2):
            await rig.call(wanting("info"))
        assert seen(session) == ["tool", "info", "tool", "tool"]


@requirement("modern:levels:told-to-the-server")
async def test_a_server_that_says_nothing_to_its_level_runs_the_call_after_a_while() -> None:
    async with pool_rig() as rig:
        session = await opened(rig)
        rig.fake.answers.pop("logging/setLevel")
        await rig.call(wanting("info"))
        await rig.passes(LEVEL_TIMEOUT + 0.1)
        assert seen(session) == ["tool", "info", "tool"]
        assert session.got("logging/setLevel")[0].cancelled


@requirement("modern:levels:told-to-the-server")
async def test_a_level_that_cannot_be_delivered_does_not_keep_the_call_back() -> None:
    async with pool_rig() as rig:
        session = await opened(rig)
        rig.fake.answers["logging/setLevel"] = lambda request: request.fail(FaultKind.CUT)
        await rig.call(wanting("info"))
        assert seen(session) == ["tool", "info", "tool"]


@requirement("modern:levels:told-to-the-server")
async def test_a_server_without_a_log_is_told_of_no_level() -> None:
    async with pool_rig() as rig:
        rig.fake.capabilities = {"tools": {}}
        for _ in range(2):
            await rig.call(wanting("debug"))
        assert seen(rig.fake.session) == ["tool", "tool"]


@requirement("modern:levels:told-to-the-server")
async def test_who_gives_up_while_the_level_is_set_is_not_sent() -> None:
    async with pool_rig() as rig:
        session = await opened(rig)
        rig.fake.answers.pop("logging/setLevel")
        caller = await rig.call(wanting("info"))
        caller.running.cancel("it left")
        assert caller.is_over
        session.got("logging/setLevel")[0].result({})
        await settle()
        assert seen(session) == ["tool", "info"]


@requirement("modern:levels:told-to-the-server")
@both_conversations
async def test_a_session_that_dies_while_its_level_is_set_loses_no_call(over_link: bool) -> None:
    async with pool_rig(over_link=over_link, trusted=True) as rig:
        await rig.read()
        rig.fake.session.requests[-1].result({"contents": []})
        await settle()
        rig.fake.answers.pop("logging/setLevel")
        caller = await rig.call(wanting("info"))
        rig.fake.answers["logging/setLevel"] = lambda request: request.result({})
        rig.fake.session.die()
        await settle()
        await rig.passes(1.0)
        assert len(rig.fake.sessions) == 2
        assert seen(rig.fake.session) == ["info", "tool"]
        rig.fake.session.call.text("done")
        await settle()
        assert caller.text == "done"


@requirement("modern:levels:told-to-the-server")
async def test_a_session_that_is_closed_while_its_level_is_set_ends_its_calls() -> None:
    async with pool_rig() as rig:
        await opened(rig)
        rig.fake.answers.pop("logging/setLevel")
        caller = await rig.call(wanting("info"))
        (session,) = rig.pool.sessions
        assert rig.pool.close_session(session.id)
        assert caller.failure.delivery.value == "not_sent"


@requirement("modern:levels:told-to-the-server")
async def test_a_server_that_is_retired_while_a_level_is_set_ends_its_calls() -> None:
    async with pool_rig() as rig:
        await opened(rig)
        rig.fake.answers.pop("logging/setLevel")
        caller = await rig.call(wanting("info"))
        rig.pool.retire()
        assert caller.failure.delivery.value == "not_sent"
