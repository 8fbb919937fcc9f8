"""Tasks that callers begin in sessions that they share: each has its own, and hears of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Final

import pytest

from holdfast.call import Call, Reply
from holdfast.session.key import Principal, SessionKey, TaskOwner
from holdfast.session.tasks import MAX_TASKS
from holdfast.testing.clock import settle
from pool_rig import EVERYTHING, FakeCaller, FakeWatcher, PoolRig, pool_rig
from requirements import requirement
from rows import row

RELATED: Final = "io.modelcontextprotocol/related-task"
TASKS: Final[dict[str, Any]] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


@pytest.fixture(params=[False, True], ids=["upstream", "handshake"])
async def rig(request: pytest.FixtureRequest) -> AsyncGenerator[PoolRig]:
    async with pool_rig(over_link=request.param, scope="shared") as made:
        made.fake.capabilities["tasks"] = TASKS
        yield made


def owned(rig: PoolRig, user: str, chat: str = "c") -> SessionKey:
    """The key of a request of `user`; all of them share the session."""
    return replace(rig.key(scope="shared", user=user), owner=TaskOwner(Principal("host", user), chat))


async def begun(rig: PoolRig, user: str, task_id: str, watcher: FakeWatcher | None = None) -> None:
    """Begin a task for `user`."""
    call = Call(
        "tools/call", {"name": "tool", "task": {}, "_meta": {"progressToken": f"{user}'s"}}, wants_progress=True
    )
    caller = await rig.call(call, owned(rig, user), watcher=watcher)
    rig.fake.calls[-1].result({"task": {"taskId": task_id, "status": "working"}})
    assert caller.result["task"]["taskId"] == task_id


async def fetching(rig: PoolRig, user: str, task_id: str) -> FakeCaller:
    """A call of `user` that waits for the result of a task."""
    call = Call("tasks/result", {"taskId": task_id})
    return await rig.call(call, owned(rig, user), FakeCaller(EVERYTHING))


def of(task_id: str, **params: Any) -> dict[str, Any]:
    """Params of what belongs to a task."""
    return {**params, "_meta": {RELATED: {"taskId": task_id}}}


@row(3)
@requirement("tasks:owners")
async def test_a_question_goes_to_whoever_waits_for_the_result_of_its_task_whatever_stream_it_came_on(
    rig: PoolRig,
) -> None:
    await begun(rig, "alice", "t")
    alices = await fetching(rig, "alice", "t")
    bobs = await rig.call(key=owned(rig, "bob"), caller=FakeCaller(EVERYTHING))
    rig.fake.session.call.ask(**of("unknown", message="of a task that nobody here began"))
    await settle()
    assert [reply["action"] for _, reply in rig.fake.session.replies] == ["cancel"]
    rig.fake.session.replies.clear()
    asked = [rig.fake.session.call.ask(**of("t", message="1")), rig.fake.session.ask(**of("t", message="2"))]
    await settle()
    assert (len(alices.asks), bobs.asks) == (2, [])
    for ask in list(alices.asks):
        alices.say({"action": "accept"}, ask)
    await settle()
    answered = [(ask, reply["action"]) for ask, reply in rig.fake.session.replies]
    assert sorted(answered, key=str) == sorted([(ask, "accept") for ask in asked], key=str)


@row(3)
@requirement("tasks:owners")
async def test_a_question_that_no_call_waits_for_goes_to_the_client_that_began_its_task_or_to_nobody(
    rig: PoolRig,
) -> None:
    alice, bob = FakeWatcher(EVERYTHING, "alice"), FakeWatcher(EVERYTHING, "bob")
    rig.pool.attach(owned(rig, "bob"), bob)
    await begun(rig, "alice", "t", alice)
    rig.fake.session.ask(**of("t", message="nobody is there"))
    await settle()
    assert [reply["action"] for _, reply in rig.fake.session.replies] == ["cancel"]
    rig.pool.attach(owned(rig, "alice"), alice)
    rig.fake.session.ask(**of("t", message="?"))
    rig.fake.session.ask(**of("unknown", message="whose?"))
    await settle()
    assert (len(alice.asks), bob.asks) == (1, [])
    alice.asks[0][1](Reply(result=None))
    await settle()
    assert len(rig.fake.session.replies) == 3


@row(3)
@requirement("tasks:owners")
async def test_what_is_told_of_a_task_is_told_to_its_caller_alone(rig: PoolRig) -> None:
    alice, bob = FakeWatcher(user="alice"), FakeWatcher(user="bob")
    for user, watcher in (("alice", alice), ("bob", bob)):
        rig.pool.attach(owned(rig, user), watcher)
    await begun(rig, "alice", "t", alice)
    bobs = await rig.call(key=owned(rig, "bob"), watcher=bob)
    told = {
        "notifications/tasks/status": {"taskId": "t", "status": "working"},
        "notifications/message": of("t", level="info", data="secret"),
        "test/event": of("t"),
    }
    for method, params in told.items():
        rig.fake.session.call.notify(method, params)
        rig.fake.session.push(method, params)
    rig.fake.session.push("notifications/tasks/status", {"taskId": "unknown", "status": "working"})
    rig.fake.session.call.notify("test/event", of("unknown"))
    assert alice.methods == [method for method in told for _ in range(2)]
    assert (bob.pushed, bobs.notified, bobs.logs) == ([], [], [])
    alices = await fetching(rig, "alice", "t")
    rig.fake.session.push("notifications/message", told["notifications/message"])
    assert alices.logs == ["secret"]


@requirement("tasks:handshake:pass")
async def test_progress_of_a_task_bears_the_token_of_the_call_that_began_it() -> None:
    async with pool_rig(over_link=True, scope="shared") as rig:
        rig.fake.capabilities["tasks"] = TASKS
        alice = FakeWatcher(user="alice")
        rig.pool.attach(owned(rig, "alice"), alice)
        await begun(rig, "alice", "t", alice)
        token = rig.fake.calls[-1].params["_meta"]["progressToken"]
        rig.fake.session.push("notifications/progress", of("t", progressToken=token, progress=1))
        ((method, params),) = alice.pushed
        assert (method, params["progressToken"], params["progress"]) == ("notifications/progress", "alice's", 1)


@row(4)
@requirement("tasks:owners")
async def test_the_same_id_in_the_next_session_is_another_task(rig: PoolRig) -> None:
    await begun(rig, "alice", "t")
    rig.fake.session.die()
    await settle()
    lost = await rig.call(Call("tasks/get", {"taskId": "t"}), owned(rig, "alice"))
    assert lost.failure.code.name == "SESSION_LOST"
    await begun(rig, "bob", "t")
    assert (await rig.call(Call("tasks/get", {"taskId": "t"}), owned(rig, "alice"))).error["code"] == -32602
    bobs = await rig.call(Call("tasks/get", {"taskId": "t"}), owned(rig, "bob"))
    rig.fake.requests[-1].result({"taskId": "t", "status": "working"})
    assert bobs.result["status"] == "working"


@requirement("tasks:owners")
async def test_the_tasks_of_one_principal_are_bounded_and_push_out_nobody_elses(rig: PoolRig) -> None:
    await begun(rig, "alice", "hers")
    for number in range(MAX_TASKS + 1):
        await begun(rig, "bob", f"t{number}")
    (session,) = rig.pool.sessions
    assert len(session.tasks) == MAX_TASKS + 1
    for user, task_id, is_known in (("alice", "hers", True), ("bob", "t0", False), ("bob", "t1", True)):
        caller = await rig.call(Call("tasks/get", {"taskId": task_id}), owned(rig, user))
        assert caller.is_over is not is_known
        caller.running.cancel("enough") if is_known else None


@requirement("tasks:owners")
async def test_a_request_about_a_task_opens_no_session(rig: PoolRig) -> None:
    await rig.answered(owned(rig, "alice"))
    held = len(rig.fake.sessions)
    rig.fake.session.die()
    await settle()
    for _ in range(2):
        await rig.call(Call("tasks/get", {"taskId": "t"}), owned(rig, "alice"))
    listed = await rig.call(Call("tasks/list"), owned(rig, "alice"))
    assert listed.result == {"tasks": []}
    assert len(rig.fake.sessions) == held
