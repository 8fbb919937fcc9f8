"""A client's streams: primed, read, resumed, taken over, kept alive."""

from __future__ import annotations

import pytest

from holdfast.downstream.clients import PUSH_KEEP_ALIVE
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rig import REVISIONS, next_message, rig, text_of
from rows import row


@requirement("exchange:sessions:priming-from-2025-11-25")
@pytest.mark.parametrize("revision", REVISIONS)
async def test_only_clients_of_the_latest_revision_get_priming_events(revision: str) -> None:
    async with rig() as running:
        client = await running.connected(revision)
        primes = revision == "2025-11-25"
        async with client.stream() as pushed:
            if primes:
                event = await pushed.event()
                assert event is not None
                assert event.data == b""
                assert event.id
            running.push(client, 1)
            event = await pushed.event()
            assert event is not None
            assert event.data != b""
            assert event.id
        async with client.request("POST", client.tool("progress", steps=1), accept="text/event-stream") as answer:
            event = await answer.event()
            assert event is not None
            assert (event.data == b"") is primes


@row(40)
@requirement("exchange:sessions:resumption")
async def test_a_push_stream_is_resumed_after_the_last_event_seen() -> None:
    async with rig() as running:
        client = await running.connected("2025-06-18")
        async with client.stream() as pushed:
            for number in (1, 2, 3):
                running.push(client, number)
            first = await pushed.event()
            assert first is not None
        assert await client.tool_text("count") == "1"
        async with client.stream(last_event_id=first.id) as pushed:
            assert [(await next_message(pushed))["params"]["number"] for _ in range(2)] == [2, 3]
            running.push(client, 4)
            assert (await next_message(pushed))["params"]["number"] == 4


@requirement("exchange:sessions:resumption")
async def test_a_new_push_stream_begins_with_what_nobody_has_read_and_repeats_nothing() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected()
        running.push(client, 1)
        async with client.stream() as pushed:
            assert (await next_message(pushed))["params"]["number"] == 1
            await running.passing(1)
        await running.until_unread(client)
        running.push(client, 2)
        async with client.stream() as pushed:
            assert (await next_message(pushed))["params"]["number"] == 2


@row(40)
@requirement("exchange:sessions:resumption")
async def test_an_answer_can_be_fetched_after_the_connection_was_lost() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected()
        await client.tool_text("count")
        call = client.tool("slow", gate="g")
        async with client.request("POST", call, accept="text/event-stream") as answer:
            primed = await answer.event()
            assert primed is not None
            await running.passing(1)
        await running.until(lambda: running.session_of(client).requests == 0)
        running.upstream.open_gate("g")
        await running.until_idle()
        assert running.upstream.calls("slow")[0].outcome == "executed"
        for _ in range(2):  # until it is forgotten, as often as it takes
            async with client.stream(last_event_id=primed.id) as resumed:
                message = await next_message(resumed)
                assert message["id"] == call["id"]
                assert text_of(message) == "done"
                assert await resumed.event() is None
        await running.passing(running.gateway.settings.client_idle_timeout / 2)
        assert len(running.session_of(client).streams) == 1


@row(40)
@requirement("exchange:sessions:resumption")
async def test_a_running_answer_is_resumed_where_it_was_lost() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected("2025-03-26")
        call = client.tool("progress", steps=3, gate="g")
        call["params"]["_meta"] = {"progressToken": 1}
        async with client.request("POST", call) as answer:
            event = await answer.event()
            assert event is not None
            await running.passing(1)
        await running.until(lambda: running.session_of(client).requests == 0)
        async with client.stream(last_event_id=event.id) as resumed:
            running.upstream.open_gate("g")
            assert [(await next_message(resumed))["params"]["progress"] for _ in range(2)] == [2, 3]
            assert text_of(await next_message(resumed)) == "done"


@row(5)
@requirement("exchange:sessions:one-push-stream")
async def test_a_second_get_is_refused_and_the_first_keeps_flowing() -> None:
    async with rig() as running:
        client = await running.connected()
        async with client.stream() as pushed:
            assert await client.status("GET", accept="text/event-stream") == 409
            running.push(client, 1)
            assert (await next_message(pushed))["params"]["number"] == 1
            assert await client.status("GET", accept="text/event-stream", last_event_id="0.1.made-up") == 409
            running.push(client, 2)
            assert (await next_message(pushed))["params"]["number"] == 2


@row(5)
@requirement("exchange:sessions:one-push-stream")
async def test_a_valid_last_event_id_takes_the_push_stream_over() -> None:
    async with rig() as running:
        client = await running.connected()
        async with client.stream() as old:
            running.push(client, 1)
            event = await old.event()
            while event is not None and not event.data:
                event = await old.event()
            assert event is not None
            async with client.stream(last_event_id=event.id) as new:
                assert await old.event() is None
                running.push(client, 2)
                assert (await next_message(new))["params"]["number"] == 2


@row(6)
@requirement("exchange:sessions:event-ids-are-proofs")
async def test_event_ids_of_another_session_and_made_up_ones_replay_nothing() -> None:
    async with rig() as running:
        owner, thief = await running.connected(), await running.connected()
        async with owner.stream() as pushed:
            running.push(owner, 1)
            running.push(owner, 2)
            event = await pushed.event()
            assert event is not None
            assert event.id is not None
        genuine = event.id
        for foreign in (genuine, "0.0." + "0" * 24, genuine[:-1] + "~", "1", "..", "0.1", "x.y.z", "-1.1.0", "٣.1.0"):
            async with thief.stream(last_event_id=foreign) as stolen:
                running.push(thief, 9)
                assert (await next_message(stolen))["params"]["number"] == 9
            await running.until_unread(thief)


@requirement("exchange:sessions:heartbeat")
async def test_a_get_stream_shows_that_it_lives() -> None:
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = await running.connected("2025-06-18")
        async with client.stream() as pushed:
            for _ in range(3):
                await running.passing(PUSH_KEEP_ALIVE)
                assert await pushed.chunk() == b": keep-alive\n\n"
            await running.passing(1)
        await running.until_unread(client)
        assert running.session_of(client).heartbeat is None
