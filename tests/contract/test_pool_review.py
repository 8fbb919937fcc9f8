"""What a careful reader found: each of these once went wrong."""

from __future__ import annotations

from holdfast import events
from holdfast.call import ANYBODY, NOBODY, Call
from holdfast.errors import OpenFailed
from holdfast.session.lifecycle import State
from holdfast.testing.clock import settle
from holdfast.upstream.transport import FaultKind
from pool_rig import EVERYTHING, FakeCaller, FakeWatcher, pool_rig
from requirements import requirement
from rows import row


@requirement("pool:cancel:ends-once")
async def test_hundreds_of_calls_that_cannot_be_sent_are_all_answered() -> None:
    """Each failed while it was sent, and so sent the next from within itself."""
    async with pool_rig(max_concurrency=1, max_queue=500) as rig:
        first = await rig.call()
        waiting = [rig.start() for _ in range(500)]
        rig.fake.answers["tools/call"] = lambda request: request.fail(FaultKind.NOT_SENT, "its input is full")
        rig.fake.session.call.text("done")
        await rig.passes(1.0)
        assert first.is_over
        assert {caller.code for caller in waiting} == {-31001}
        rig.fake.answers.pop("tools/call")
        assert not (await rig.call()).is_over, "no slot is lost"


@requirement("pool:loss:refused-ping-is-the-proof")
async def test_a_refusal_without_proof_that_the_session_is_lost_is_no_proof_that_the_call_did_not_run() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["ping"] = lambda request: request.fail(FaultKind.UNAVAILABLE, "503 Service Unavailable")
        caller = await rig.call()
        rig.fake.session.call.fail(
            FaultKind.REFUSED, "400 Bad Request", {"code": -32000, "message": "it ran and failed"}
        )
        await rig.passes(1.0)
        assert caller.code == -31002
        assert "could not be asked" in caller.failure.message
        assert len(rig.fake.calls) == 1


@requirement("pool:loss:refused-ping-is-the-proof")
async def test_a_read_whose_refusal_nobody_can_explain_is_sent_once_more() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["ping"] = lambda request: request.fail(FaultKind.UNAVAILABLE, "503 Service Unavailable")
        caller = await rig.read()
        rig.fake.session.got("resources/read")[-1].fail(FaultKind.REFUSED, "400 Bad Request")
        await rig.passes(1.0)
        rig.fake.session.got("resources/read")[-1].result({"contents": []})
        await settle()
        assert caller.result == {"contents": []}
        assert len(rig.fake.sessions) == 2


@requirement("pool:loss:dirty-is-told-once")
async def test_one_loss_is_told_once_although_a_read_was_in_flight() -> None:
    async with pool_rig() as rig:
        await rig.answered()
        reading = await rig.read()
        rig.fake.is_known = False
        rig.fake.session.suspect()
        await settle()
        told = await rig.call()
        assert told.code == -31006
        rig.fake.sessions[0].got("resources/read")[-1].result({"contents": []})
        await rig.passes(3.0)
        assert reading.is_over
        rig.fake.is_known = True
        assert not (await rig.call()).is_over


async def test_what_a_server_asks_while_it_is_asked_for_its_lists_is_answered() -> None:
    for over_link in (False, True):
        async with pool_rig(over_link=over_link) as rig:
            rig.fake.answers.pop("tools/list")
            listing = await rig.listed()
            request = rig.fake.session.got("tools/list")[-1]
            ask = request.ask("roots/list")
            await settle()
            assert rig.fake.session.replies == [(ask, {"roots": []})]
            request.result({"tools": []})
            await settle()
            assert listing.result == {"tools": []}


async def test_no_list_is_taken_from_a_private_session() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        await rig.call(key=rig.private_key())
        await rig.listed()
        assert [session.declares for session in rig.fake.sessions] == [NOBODY, ANYBODY]
        for session in rig.fake.sessions:
            session.let_open()
        await settle()
        assert rig.fake.sessions[0].got("tools/list") == []
        assert len(rig.fake.sessions[1].got("tools/list")) == 1


async def test_who_ends_the_session_that_a_list_waits_for_takes_no_list_from_others() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        key = rig.key(ends_with_client=True)
        watcher = FakeWatcher()
        rig.pool.attach(key, watcher)
        await rig.call(key=key, watcher=watcher)
        listing = await rig.listed(key=rig.key(user="bob"))
        assert len(rig.fake.sessions) == 1
        rig.pool.detach(key, watcher)
        await settle()
        rig.fake.session.let_open()
        await settle()
        assert listing.result == rig.fake.lists["tools/list"]


@row(8)
@requirement("catalog:resources:nobodys-or-ones-own")
async def test_resources_are_listed_from_ones_own_session_or_from_one_that_nobody_used() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["resources/list"] = lambda request: request.result(
            {"resources": [{"uri": f"memo://{rig.fake.sessions.index(request.session)}", "name": "m"}]}
        )
        await rig.answered(rig.key(user="alice"))
        mine = await rig.call(Call("resources/list"), rig.key(user="alice"))
        others = await rig.call(Call("resources/list"), rig.key(user="bob"))
        await settle()
        assert mine.result["resources"][0]["uri"] == "memo://0"
        assert others.result["resources"][0]["uri"] == "memo://1"
        assert rig.fake.sessions[1].calls == []


async def test_a_server_that_cannot_list_its_tools_is_not_ready() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["tools/list"] = lambda request: request.fail(FaultKind.FAILED, "500 Internal Server Error")
        failed: list[str] = []

        async def learning() -> None:
            try:
                await rig.server.learn()
            except OpenFailed as error:
                failed.append(str(error))

        rig.scope.start(learning(), "learn")
        await rig.passes(1.0)
        assert failed == ["tools/list got no answer: 500 Internal Server Error"]
        assert [event.reason for event in rig.events if isinstance(event, events.SessionFailed)] == failed
        assert not any(isinstance(event, events.ListsLearned) for event in rig.events)


async def test_a_list_that_the_end_of_the_gateway_cuts_off_is_no_failure_of_the_server() -> None:
    async with pool_rig() as rig:
        rig.fake.answers["tools/list"] = lambda request: None
        failed: list[str] = []

        async def learning() -> None:
            try:
                await rig.server.learn()
            except OpenFailed as error:
                failed.append(str(error))

        rig.scope.start(learning(), "learn")
        await settle()
        await rig.pool.aclose()
        await settle()
        assert failed == ["tools/list got no answer: the gateway is shutting down"]
        assert rig.seen(events.SessionFailed) == []


async def test_more_than_a_thousand_calls_that_wait_for_a_person_take_slots() -> None:
    async with pool_rig(max_concurrency=2, max_queue=5) as rig:
        callers: list[FakeCaller] = []
        for _ in range(1002):
            caller = await rig.call(caller=FakeCaller(EVERYTHING))
            rig.fake.session.call.ask(message="?")
            callers.append(caller)
        await settle()
        assert len(rig.fake.calls) == 1002
        late = [rig.start() for _ in range(6)]
        await settle()
        assert len(rig.fake.calls) == 1002
        assert late[-1].code == -31005


async def test_more_than_a_thousand_callers_do_not_wait_for_one_introduction() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        callers = [rig.start(Call("tools/list"), rig.private_key()) for _ in range(1001)]
        await settle()
        assert callers[-1].code == -31005
        assert sum(caller.is_over for caller in callers) == 1


async def test_a_session_that_is_closed_while_it_opens_is_ended_in_order() -> None:
    async with pool_rig() as rig:
        rig.fake.holds_openings = True
        key = rig.key(ends_with_client=True)
        watcher = FakeWatcher()
        rig.pool.attach(key, watcher)
        await rig.call(key=key, watcher=watcher)
        session = rig.fake.session
        rig.pool.detach(key, watcher)
        await settle()
        assert session.is_closed
        assert rig.pool.count(State.OPENING) == 0


@requirement("pool:loss:dirty-is-told-once")
async def test_a_call_that_was_cut_off_by_what_proves_to_be_a_loss_was_the_word_for_it() -> None:
    """Over HTTP the connection breaks first, and only the next call finds the session gone."""
    async with pool_rig() as rig:
        await rig.answered()
        cut = await rig.call()
        rig.fake.session.call.fail(FaultKind.CUT, "the connection was lost")
        await settle()
        assert cut.code == -31002
        rig.fake.is_known = False
        following = await rig.call()
        rig.fake.session.call.fail(FaultKind.REFUSED, "404 Not Found")
        await rig.passes(1.0)
        assert not following.is_over
        rig.fake.session.call.text("in the new session")
        await settle()
        assert following.outcome


async def test_a_session_that_answers_after_a_cut_is_dirty_as_before() -> None:
    async with pool_rig() as rig:
        await rig.answered()
        await rig.call()
        rig.fake.session.call.fail(FaultKind.CUT, "the connection was lost")
        await settle()
        await rig.answered()
        rig.fake.is_known = False
        refused = await rig.call()
        rig.fake.session.call.fail(FaultKind.REFUSED, "404 Not Found")
        await rig.passes(1.0)
        assert refused.code == -31006


# A second reader.


@requirement("pool:cancel:ends-once")
async def test_queued_calls_of_a_lost_session_go_on_once_each() -> None:
    async with pool_rig(max_concurrency=2, max_queue=50) as rig:
        await rig.answered()
        running = [await rig.call() for _ in range(2)]
        queued = [rig.start() for _ in range(4)]
        await settle()
        rig.fake.session.die()
        await rig.passes(3.0)
        for request in list(rig.fake.session.calls):
            request.text("done")
        await rig.passes(1.0)
        for request in list(rig.fake.session.calls):
            request.text("done")
        await settle()
        assert [len(caller.outcomes) for caller in (*running, *queued)] == [1] * 6
        assert len(rig.fake.session.calls) == 4, "each of those that waited, once"


async def test_a_spare_that_a_chat_was_given_meanwhile_is_not_lent_as_unused() -> None:
    async with pool_rig(max_sessions=1) as rig:
        rig.fake.holds_openings = True
        listing = await rig.call(Call("resources/list"), rig.key(user="alice"))
        call = await rig.call(key=rig.key(user="bob"))
        rig.fake.session.let_open()
        await settle()
        bobs = rig.fake.sessions[0]
        assert not call.is_over
        assert bobs.got("resources/list") == []
        rig.fake.holds_openings = False
        bobs.call.text("done")
        await rig.passes(40.0)
        assert listing.is_over
        assert bobs.got("resources/list") == []


async def test_who_lists_resources_where_every_room_is_taken_gets_a_session_as_for_a_call() -> None:
    async with pool_rig(max_sessions=1) as rig:
        rig.fake.answers["resources/list"] = lambda request: request.result({"resources": []})
        await rig.answered(rig.key(user="alice"))
        listing = await rig.call(Call("resources/list"), rig.key(user="bob"))
        await rig.passes(1.0)
        assert listing.result == {"resources": []}
        assert len(rig.fake.sessions) == 2


async def test_a_question_that_a_dying_server_put_to_a_watcher_is_taken_back() -> None:
    async with pool_rig() as rig:
        watcher = FakeWatcher(EVERYTHING)
        rig.pool.attach(rig.key(), watcher)
        await rig.answered()
        rig.fake.session.ask(message="?")
        await settle()
        rig.fake.session.die()
        await rig.passes(3.0)
        assert watcher.withdrawn == [watcher.asks[0][0].id]


async def test_a_serial_shared_session_asks_nobody_after_a_call_timed_out() -> None:
    async with pool_rig(serial=True, call_timeout=5) as rig:
        alices, bobs = (rig.key(scope="shared", user=user) for user in ("alice", "bob"))
        await rig.call(key=alices)
        await rig.passes(6.0)
        other = await rig.call(key=bobs, caller=FakeCaller(EVERYTHING))
        rig.fake.session.ask(message="of the call that timed out")
        await settle()
        assert other.asks == []


@requirement("pool:slots:parked-take-none")
async def test_a_question_answered_while_its_call_is_about_to_be_sent_again_gives_no_slot_away() -> None:
    """The question came beside the call, whose own bytes could not be sent."""
    async with pool_rig(max_concurrency=1) as rig:
        first = await rig.call(caller=FakeCaller(EVERYTHING))
        rig.fake.session.ask()
        rig.fake.session.call.fail(FaultKind.NOT_SENT)
        first.say({"action": "accept"})
        await rig.passes(1.0)
        assert len(rig.fake.calls) == 2, "it was sent again"
        second = await rig.call()
        assert len(rig.fake.calls) == 2, "the only slot is taken"
        rig.fake.session.call.text("done")
        await settle()
        rig.fake.session.call.text("done, too")
        assert (first.text, second.text) == ("done", "done, too")


@requirement("pool:asks:nobody-is-answered-for")
async def test_the_questions_of_a_session_that_is_lost_do_not_follow_a_call_into_the_next() -> None:
    async with pool_rig(call_timeout=10.0, ask_timeout=600.0) as rig:
        caller = await rig.call(caller=FakeCaller(EVERYTHING))
        rig.fake.session.ask()
        rig.fake.session.call.fail(FaultKind.NOT_SENT)
        rig.fake.session.die()
        await rig.passes(1.0)
        assert len(rig.fake.sessions) == 2
        assert caller.withdrawn == [ask.id for ask in caller.asks]
        caller.say({"action": "accept"})
        assert rig.fake.session.replies == []
        await rig.passes(11.0)
        assert caller.code == -31003, "its clocks do not stand still for what nobody asks any more"


@requirement("pool:time:silence-ends-a-call")
async def test_a_call_times_out_whichever_way_its_seconds_are_rounded() -> None:
    """Where the clock counts in milliseconds, as uvloop's does, a sum may be due before its difference is."""
    start, timeout, end = 32655.162, 300.0, 32955.162
    assert start + timeout <= end
    assert end - start < timeout
    async with pool_rig(call_timeout=timeout) as rig:
        await rig.passes(start - rig.clock.now())
        assert rig.clock.now() == start
        caller = await rig.call()
        await rig.passes(timeout + 1.0)
        assert "no message for 300 s" in caller.failure.message
