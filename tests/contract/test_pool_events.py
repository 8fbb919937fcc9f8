"""What the pool tells those who only watch: events of sessions and calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from holdfast import events
from holdfast.call import Call
from holdfast.testing.clock import settle
from holdfast.upstream.transport import FaultKind
from pool_rig import FakeCaller, PoolRig, pool_rig
from requirements import requirement


def tool(request: str = "r1") -> Call:
    return Call("tools/call", {"name": "tool"}, request=request)


def ended(rig: PoolRig) -> list[str]:
    return [event.outcome for event in rig.seen(events.CallEnded)]


@requirement("pool:events:every-call-ends-in-one")
async def test_a_call_ends_in_one_event_that_says_how_after_how_long_and_for_which_request() -> None:
    async with pool_rig() as rig:
        await rig.call(tool("r7"))
        await rig.passes(2.5)
        assert rig.seen(events.CallEnded) == []
        rig.fake.calls[-1].text("done")
        assert rig.seen(events.CallEnded) == [events.CallEnded("srv", "tools/call", "result", 2.5, "r7")]


ENDS: dict[str, Callable[[PoolRig, FakeCaller], None]] = {
    "result": lambda rig, caller: rig.fake.calls[-1].text("ok"),
    "error": lambda rig, caller: rig.fake.calls[-1].error(-32000),
    "outcome_unknown": lambda rig, caller: rig.fake.calls[-1].fail(FaultKind.CUT),
    "upstream_invalid": lambda rig, caller: rig.fake.calls[-1].fail(FaultKind.INVALID),
    "upstream_unauthorized": lambda rig, caller: rig.fake.calls[-1].fail(FaultKind.UNAUTHORIZED),
    "timeout": lambda rig, caller: rig.clock.advance(301.0),
    "cancelled": lambda rig, caller: caller.running.cancel("the client left"),
}


@pytest.mark.parametrize("outcome", ENDS)
async def test_the_event_names_the_outcome(outcome: str) -> None:
    async with pool_rig() as rig:
        caller = await rig.call()
        ENDS[outcome](rig, caller)
        await settle()
        assert caller.is_over
        assert ended(rig) == [outcome]


async def test_a_call_that_was_never_sent_ends_in_an_event_too() -> None:
    async with pool_rig(max_sessions=1, acquire_timeout=5.0) as rig:
        await rig.call(key=rig.key("a"))
        late = await rig.call(tool("r2"), rig.key("b"))
        left = await rig.call(tool("r3"), rig.key("c"))
        left.running.cancel("the client left")
        await rig.passes(5.0)
        assert late.is_over
        assert [(e.outcome, e.seconds, e.request) for e in rig.seen(events.CallEnded)] == [
            ("cancelled", 0.0, "r3"),
            ("overloaded", 5.0, "r2"),
        ]
        assert [event.request for event in rig.seen(events.CallRefused)] == ["r2"]


async def test_a_call_that_is_told_of_a_lost_session_ends_in_an_event() -> None:
    async with pool_rig() as rig:
        await rig.answered()
        rig.fake.session.die()
        await settle()
        await rig.call()
        assert ended(rig) == ["result", "session_lost"]


async def test_a_call_whose_session_is_ended_was_not_cancelled_by_its_caller() -> None:
    async with pool_rig() as rig:
        await rig.call(key=rig.private_key())
        rig.scope.start(rig.pool.aclose(), "close")
        await settle()
        assert ended(rig) == ["outcome_unknown"]


async def test_a_repetition_is_an_event_for_its_request_and_no_end() -> None:
    async with pool_rig() as rig:
        await rig.call(replace(tool("r9"), method="resources/read", params={"uri": "file:///a"}))
        rig.fake.requests[-1].fail(FaultKind.CUT, "the connection was lost")
        await rig.passes(0.1)
        assert rig.seen(events.CallRepeated) == [
            events.CallRepeated("srv", "resources/read", "the connection was lost", "r9")
        ]
        assert ended(rig) == []
        rig.fake.requests[-1].result({})
        assert ended(rig) == ["result"]


async def test_events_of_a_session_bear_the_digest_of_its_key() -> None:
    async with pool_rig() as rig:
        key = rig.key()
        await rig.answered(key)
        rig.fake.session.die()
        await settle()
        await rig.read(rig.key("b"))
        rig.fake.requests[-1].result({})
        await rig.passes(1900.0)
        told = [
            (type(event), event.key)
            for event in rig.events
            if isinstance(
                event, events.SessionOpening | events.SessionReady | events.SessionLost | events.SessionClosed
            )
        ]
        assert told == [
            (events.SessionOpening, key.digest),
            (events.SessionReady, key.digest),
            (events.SessionLost, key.digest),
            (events.SessionOpening, rig.key("b").digest),
            (events.SessionReady, rig.key("b").digest),
            (events.SessionClosed, rig.key("b").digest),
        ]


async def test_events_of_a_spare_name_nobody_until_it_is_somebodys() -> None:
    async with pool_rig(spares=1) as rig:
        await settle()
        assert [event.key for event in rig.seen(events.SessionReady)] == [""]
        caller = await rig.call(key=rig.private_key())
        key = rig.pool.sessions[0].key
        assert key is not None
        rig.fake.sessions[0].call.text("ok")
        await settle()
        assert caller.is_over
        assert [event.key for event in rig.seen(events.SessionClosed)] == [key.digest]
