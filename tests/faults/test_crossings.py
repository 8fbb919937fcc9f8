"""Nobody comes by what is another's, however often it is tried: rows 3 and 5 to 9, with figures."""

from __future__ import annotations

import crossings
from isolation import Report
from requirements import requirement
from rows import Figure, row


def check(report: Report) -> None:
    assert report.leaks[:5] == []
    assert report.errors == []


@row(3)
@requirement("isolation:nobody-gets-anothers")
async def test_what_belongs_to_a_call_reaches_its_caller_whatever_else_goes_on(figure: Figure) -> None:
    calls = 10_000
    report = await crossings.interleaved_calls(calls)
    check(report)
    for what in ("progress", "message"):
        assert report.seen[f"notifications/{what} on a session's POST"] == calls
    assert report.seen["elicitation/create on a session's POST"] == calls
    assert report.seen["question answered"] == calls
    assert sum(report.seen[f"result of {server}"] for server in ("chats", "users", "shared")) == calls
    figure(f"{calls:,} calls, each with progress, log and question: 0 astray")


@row(3)
@requirement("isolation:nobody-gets-anothers")
async def test_a_question_to_somebody_who_left_is_answered_for_them_and_put_to_nobody_else(figure: Figure) -> None:
    report = await crossings.departed_callers(1000)
    check(report)
    assert report.seen["question answered for somebody"] == 500
    assert report.seen["question answered"] == 500
    figure("500 askers gone: 500 questions answered for them, 0 put to another")


@row(5)
@requirement("exchange:sessions:one-push-stream")
async def test_of_a_stream_that_is_read_nothing_is_lost_or_moved_by_a_second_get(figure: Figure) -> None:
    report = await crossings.second_streams(1000)
    check(report)
    assert report.seen["GET got 409"] + report.seen["GET got 404"] == 1000
    assert report.seen["taken over"] == 1
    figure("1,000 second GETs: 0 events lost or moved")


@row(6)
@requirement("exchange:sessions:event-ids-are-proofs")
async def test_event_ids_that_are_foreign_or_made_up_replay_nothing(figure: Figure) -> None:
    report = await crossings.event_ids(10_000)
    check(report)
    assert report.seen["foreign"] + report.seen["made up"] == 10_000
    assert report.seen["replayed by a genuine id"] == 5 * 3
    figure("10,000 event ids: 0 replayed")


@row(7)
@requirement("exchange:chats:users")
async def test_callers_who_are_left_unnamed_have_a_session_each(figure: Figure) -> None:
    report = await crossings.nameless_callers(50)
    check(report)
    ways = [f"sessions of {server} {how}" for server in ("chats", "users") for how in ("without", "with a session")]
    assert [report.seen[way] for way in ways] == [50, 50, 50, 50]
    assert report.seen["ended"] == 200
    figure("50 callers: 50 sessions, in each of 4 ways")


@row(8)
@requirement("catalog:lists-per-session-are-not-shared")
async def test_lists_that_differ_by_session_are_each_users_own(figure: Figure) -> None:
    report = await crossings.lists_of_two(10_000)
    check(report)
    assert report.seen.total() == 10_000
    assert min(report.seen.values()) > 1000
    figure("10,000 lists of 2 users: 0 foreign")


@row(9)
@requirement("exchange:relay:cancel")
async def test_a_cancellation_ends_the_senders_own_call_and_no_other_of_that_id(figure: Figure) -> None:
    report = await crossings.cancellations(500, 5)
    check(report)
    assert report.seen["cancellation sent"] == 10_000
    assert report.seen["cancelled"] == 2500
    assert report.seen["result of shared"] == 2500
    figure("10,000 cancellations of equal ids: 0 foreign")
