"""The stream of the tasks that a listener follows, whatever the server says on it and when."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import Raw

from holdfast.call import Result
from holdfast.servers.followed_tasks import ACK_TIMEOUT, FollowedTasks
from holdfast.session.key import Principal, TaskOwner
from holdfast.session.session import Session
from holdfast.testing.clock import ManualClock
from holdfast.upstream.transport import Fault, FaultKind, Inquiry
from holdfast.wire import jsonrpc
from requirements import requirement

OWNER = TaskOwner(Principal("local"), "c")
PONG = Result(Raw(b"{}"))
CHANGED = "notifications/tasks"


class Heard:
    """A `Follower` that writes down what it is told."""

    def __init__(self) -> None:
        self.of: list[str] | None = None
        self.changes: list[str] = []
        self.ends = 0

    def tasks_agreed(self, task_ids: Sequence[str]) -> None:
        assert self.of is None, "it is told once"
        self.of = [*task_ids]

    def task_changed(self, task_id: str, params: Raw) -> None:
        assert self.of is not None
        assert task_id in self.of
        self.changes.append(str(jsonrpc.decode_value(jsonrpc.decode_fields(params)["status"])))

    def tasks_ended(self) -> None:
        self.ends += 1


class Opened:
    """A session with a server of 2026-07-28 that knows tasks, as far as they are asked about."""

    def __init__(self, *, fails_at_once: bool = False, is_modern: bool = True) -> None:
        capabilities = {"extensions": Raw(b'{"io.modelcontextprotocol/tasks":{}}')}
        self.hello = SimpleNamespace(is_modern=is_modern, capabilities=capabilities)
        self.tasks = SimpleNamespace(is_of=self._is_of)
        self.asked: list[Any] = []
        self.cancelled: list[str] = []
        self.stream: Inquiry
        self._fails_at_once = fails_at_once

    def _is_of(self, task_id: str, owner: TaskOwner | None) -> bool:
        return task_id in {"a", "b"} and owner == OWNER

    def decline(self, ask: object) -> None: ...

    def send_inquiry(self, method: str, params: Any, stream: Inquiry) -> Any:
        self.asked.append((method, params))
        self.stream = stream
        if self._fails_at_once:
            stream.failed(Fault(FaultKind.NOT_SENT, "refused"))
        return SimpleNamespace(cancel=self.cancelled.append)

    def say(self, method: str, **params: Any) -> None:
        self.stream.notify(method, Raw(jsonrpc.encode(params)))

    def acknowledge(self, *task_ids: str) -> None:
        self.say("notifications/subscriptions/acknowledged", notifications={"taskIds": task_ids})


def followed(session: Opened | None, heard: Heard, *wanted: str, clock: ManualClock | None = None) -> FollowedTasks:
    def find() -> Session | None:
        return cast("Session | None", session)

    return FollowedTasks(find, OWNER, wanted or ("a", "x", "b"), heard, clock or ManualClock())


@requirement("tasks:modern:followed")
async def test_only_what_was_agreed_to_is_told() -> None:
    session, heard = Opened(), Heard()
    followed(session, heard).answer(PONG)
    assert session.asked == [("subscriptions/listen", {"notifications": {"taskIds": ["a", "b"]}})]
    session.say(CHANGED, taskId="b", status="working")
    session.acknowledge("b", "x", "z")
    assert heard.of == ["b"]
    session.acknowledge("a")
    for task_id in ("a", "b", "z", None):
        session.say(CHANGED, taskId=task_id, status="completed")
    assert heard.changes == ["completed"]
    assert session.stream.abilities.tasks


@requirement("tasks:modern:followed")
@pytest.mark.parametrize("how", ["answer", "fault", "cancelled"])
async def test_the_end_is_told_once_however_it_comes(how: str) -> None:
    session, heard = Opened(), Heard()
    follows = followed(session, heard)
    follows.answer(PONG)
    session.acknowledge("a")
    for _ in range(2):
        match how:
            case "answer":
                session.stream.answered(PONG)
            case "fault":
                session.stream.failed(Fault(FaultKind.CUT, "cut"))
            case _:
                session.say("notifications/cancelled", requestId=1)
    session.say(CHANGED, taskId="a", status="late")
    follows.cancel()
    assert (heard.of, heard.changes, heard.ends) == (["a"], [], 1)


@requirement("tasks:modern:followed")
async def test_a_stream_that_ends_before_it_is_agreed_to_tells_of_nothing() -> None:
    for session in (Opened(fails_at_once=True), Opened(is_modern=False), None):
        heard = Heard()
        followed(session, heard).answer(PONG)
        assert (heard.of, heard.ends) == ([], 0)
    session, heard = Opened(), Heard()
    followed(session, heard, "x", "y").answer(PONG)
    assert (heard.of, session.asked) == ([], [])


@requirement("tasks:modern:followed")
async def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    session, heard, clock = Opened(), Heard(), ManualClock()
    followed(session, heard, clock=clock).answer(PONG)
    clock.advance(ACK_TIMEOUT)
    assert (heard.of, heard.ends) == ([], 0)
    assert session.cancelled == ["no acknowledgement"]
    session.acknowledge("a")


@requirement("tasks:modern:followed")
async def test_who_leaves_hears_nothing_more_whenever_that_is() -> None:
    heard, aborted = Heard(), list[str]()
    before = followed(Opened(), heard)
    before.begin(cast("Any", SimpleNamespace(cancel=aborted.append)))
    before.cancel()
    before.answer(PONG)
    assert aborted == ["the client left"]
    assert heard.of is None
    session, clock = Opened(), ManualClock()
    meanwhile = followed(session, heard, clock=clock)
    meanwhile.answer(PONG)
    meanwhile.cancel()
    assert len(session.cancelled) == 1
    assert session.stream.outcome.done(), "nothing of it is kept by the session"
    session.acknowledge("a")
    clock.advance(ACK_TIMEOUT)
    assert (heard.of, heard.ends) == (None, 0)
