"""A tool that must be a task, called as if it were none, over a link that the test holds in its hands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from msgspec import Raw

from holdfast.call import Abilities, Ask, Call, Fields, Result, RpcError
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock, settle
from holdfast.upstream.awaited_task import INTERVAL_MAX, LOOK_INTERVAL, MAX_RETRIES, PATIENCE
from holdfast.upstream.handshake import HandshakeUpstream
from holdfast.upstream.tasks import CANCELLING, MAX_TOOLS, TaskTools
from holdfast.upstream.transport import Fault, FaultKind, Sent
from requirements import requirement
from unit.recorded_upstream import RecordedExchange, RecordedLink, RecordedListener

CAPABILITIES: Final[dict[str, Any]] = {"tools": {}, "tasks": {"requests": {"tools": {"call": {}}}}}
RELATED: Final = "io.modelcontextprotocol/related-task"
TOOL: Final = {"name": "errand", "execution": {"taskSupport": "required"}}
ENOUGH: Final = 100.0


class Link(RecordedLink):
    """Keeps the messages as well."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Any] = []

    def request(self, request_id: int, message: bytes) -> Sent:
        self.messages.append(json.loads(message))
        return super().request(request_id, message)


class Listener(RecordedListener):
    """Keeps what it is told of the session."""

    def __init__(self) -> None:
        super().__init__()
        self.suspicions: list[Fault] = []

    def suspected(self, fault: Fault) -> None:
        self.suspicions.append(fault)


class Exchange(RecordedExchange):
    """Keeps what came before the outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.abilities = Abilities(elicitation_form=True)
        self.signs = 0
        self.told: list[Any] = []
        self.asks: list[Ask] = []

    def alive(self) -> None:
        self.signs += 1

    def progress(self, update: Fields) -> None:
        self.told.append({name: json.loads(bytes(raw)) for name, raw in update.items()})

    def notify(self, method: str, params: Raw | None) -> None:
        self.told.append((method, json.loads(bytes(params or b"{}"))))

    def ask(self, ask: Ask) -> None:
        self.asks.append(ask)


class World:
    """A conversation with a server that lists one tool, which must be a task."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.link = Link()
        self.listener = Listener()
        self.tools = TaskTools()
        self.upstream = HandshakeUpstream(self.link, self.listener, {}, tools=self.tools, clock=self.clock)

    def answer(self, result: Any, request: Any = None) -> None:
        """Answer a request, the last by default."""
        number = (request or self.link.messages[-1])["id"]
        self.say({"id": number, "result": result}, number)

    def refuse(self, code: int) -> None:
        number = self.link.messages[-1]["id"]
        self.say({"id": number, "error": {"code": code, "message": "no"}}, number)

    def say(self, message: dict[str, Any], stream: int | None = None) -> None:
        self.upstream.received(json.dumps({"jsonrpc": "2.0", **message}).encode(), stream)

    def fail(self, kind: FaultKind) -> None:
        self.upstream.failed(self.link.messages[-1]["id"], Fault(kind, "it failed"))

    def call(self, name: str = "errand") -> tuple[Exchange, Sent]:
        exchange = Exchange()
        return exchange, self.upstream.send(Call("tools/call", {"name": name}, wants_progress=True), exchange)

    def begun(self, interval: int = 2000) -> tuple[Exchange, Sent]:
        """A call whose task has begun."""
        exchange, sent = self.call()
        self.answer({"task": {"taskId": "t", "status": "working", "pollInterval": interval}})
        assert self.methods[-2:] == ["tools/call", "tasks/result"]
        return exchange, sent

    @property
    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [message["method"] for message in self.link.messages]


@asynccontextmanager
async def world(*, is_listed: bool = True) -> AsyncGenerator[World]:
    w = World()
    async with asyncio.timeout(60), TaskScope() as scope:

        async def opening() -> None:
            await w.upstream.open()

        opened = scope.start(opening(), "open")
        while not w.link.messages:
            await settle()
        w.answer({"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES})
        await opened
        if is_listed:
            w.upstream.send(Call("tools/list"), RecordedExchange())
            w.answer({"tools": [TOOL, {"name": "plain"}]})
        yield w
        w.upstream.terminate()
        assert w.clock.pending == 0


def outcome_of(exchange: RecordedExchange) -> Any:
    assert isinstance(exchange.outcome, Result)
    return json.loads(bytes(exchange.outcome.raw))


@requirement("tasks:awaited:every-caller")
async def test_a_call_becomes_a_task_and_its_result_is_the_tasks() -> None:
    async with world() as w:
        exchange, _ = w.begun()
        w.answer({"content": [], "_meta": {RELATED: {"taskId": "t"}, "own": 1}})
        assert outcome_of(exchange) == {"content": [], "_meta": {"own": 1}}


@requirement("tasks:awaited:time")
async def test_an_interval_that_is_no_time_anybody_would_wait_is_the_longest() -> None:
    async with world() as w:
        exchange, _ = w.begun(10**400)
        w.fail(FaultKind.CUT)
        await w.clock.advance_settled(INTERVAL_MAX)
        assert w.methods[-1] == "tasks/result"
        w.answer({"content": []})
        assert outcome_of(exchange) == {"content": []}


@requirement("tasks:awaited:every-caller")
async def test_tools_that_need_no_task_are_called_as_ever() -> None:
    async with world() as w:
        exchange, _ = w.call("plain")
        assert "task" not in w.link.messages[-1]["params"]
        w.answer({"content": []})
        assert outcome_of(exchange) == {"content": []}


@requirement("tasks:awaited:every-caller")
async def test_a_server_that_answers_at_once_is_taken_at_its_word() -> None:
    async with world() as w:
        exchange, _ = w.call()
        w.answer({"content": [], "isError": True})
        assert outcome_of(exchange) == {"content": [], "isError": True}


@requirement("tasks:awaited:every-caller")
async def test_a_tool_that_was_not_listed_is_tried_both_ways_and_remembered() -> None:
    async with world(is_listed=False) as w:
        exchange, _ = w.call()
        assert "task" not in w.link.messages[-1]["params"]
        w.refuse(-32601)
        assert "task" in w.link.messages[-1]["params"]
        w.answer({"task": {"taskId": "t"}})
        w.answer({"content": []})
        assert outcome_of(exchange) == {"content": []}
        w.call()
        assert "task" in w.link.messages[-1]["params"]
        unknown, _ = w.call("nonsense")
        w.refuse(-32601)
        w.refuse(-32601)
        assert isinstance(unknown.outcome, RpcError)
        assert w.tools.requires("nonsense") is None


@requirement("tasks:awaited:lost")
@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.NOT_SENT, FaultKind.UNAVAILABLE])
async def test_a_result_whose_fetching_is_cut_off_is_fetched_again_and_not_for_ever(kind: FaultKind) -> None:
    async with world() as w:
        exchange, _ = w.begun()
        for _ in range(MAX_RETRIES):
            w.fail(kind)
            asked = len(w.methods)
            assert exchange.outcome is None
            w.clock.advance(2.0)
            assert w.methods[asked:] == ["tasks/result"]
        w.fail(kind)
        assert isinstance(exchange.outcome, Fault)
        assert exchange.outcome.kind is FaultKind.CUT
        assert w.methods.count("tools/call") == 1


@requirement("tasks:awaited:lost")
@pytest.mark.parametrize("kind", [FaultKind.REFUSED, FaultKind.UNAUTHORIZED])
async def test_a_refusal_after_the_beginning_does_not_say_that_nothing_was_executed(kind: FaultKind) -> None:
    async with world() as w:
        exchange, _ = w.begun()
        w.fail(kind)
        assert isinstance(exchange.outcome, Fault)
        assert exchange.outcome.kind is FaultKind.CUT
        assert bool(w.listener.suspicions) == (kind is FaultKind.REFUSED)


@requirement("tasks:awaited:lost")
@pytest.mark.parametrize("kind", [FaultKind.NOT_SENT, FaultKind.REFUSED, FaultKind.CUT])
async def test_a_failure_before_the_beginning_is_that_of_any_call(kind: FaultKind) -> None:
    async with world() as w:
        exchange, _ = w.call()
        w.fail(kind)
        assert exchange.outcome == Fault(kind, "it failed")


@requirement("tasks:awaited:lost")
async def test_a_session_that_is_lost_between_two_requests_ends_the_call() -> None:
    async with world() as w:
        exchange, _ = w.begun()
        w.fail(FaultKind.CUT)
        gone = Fault(FaultKind.GONE, "the process ended")
        w.upstream.lost(gone)
        assert exchange.outcome == gone


@requirement("tasks:awaited:cancel")
async def test_a_call_that_is_cancelled_before_its_task_has_begun_cancels_the_task_once_it_has() -> None:
    async with world() as w:
        exchange, sent = w.call()
        sent.cancel("no longer needed")
        assert w.methods[-1] == "tools/call"
        w.answer({"task": {"taskId": "t"}})
        assert (w.methods[-1], w.link.messages[-1]["params"]) == ("tasks/cancel", {"taskId": "t"})
        assert exchange.outcome is None


@requirement("tasks:awaited:cancel")
async def test_a_call_that_is_cancelled_and_never_begins_is_given_up() -> None:
    async with world() as w:
        _, sent = w.call()
        number = w.link.messages[-1]["id"]
        sent.cancel("no longer needed")
        w.clock.advance(PATIENCE)
        (cancelled,) = [json.loads(post) for post in w.link.posts if b"cancelled" in post]
        assert cancelled["params"]["requestId"] == number


@requirement("tasks:awaited:cancel")
async def test_a_session_ends_when_its_server_knows_which_tasks_are_cancelled_or_had_its_time() -> None:
    async with world() as w, TaskScope() as scope:
        for answers in (True, False):
            _, sent = w.begun()
            sent.cancel("no longer needed")
            cancelling = next(m for m in reversed(w.link.messages) if m["method"] == "tasks/cancel")
            closed: list[bool] = []

            async def closing(closed: list[bool] = closed) -> None:
                await w.upstream.close()
                closed.append(True)

            ended = scope.start(closing(), "close")
            await settle()
            assert closed == []
            if answers:
                w.answer({}, cancelling)
            else:
                await w.clock.advance_settled(CANCELLING)
            await ended
            assert closed == [True]


@requirement("tasks:awaited:time")
async def test_looks_at_a_task_are_signs_of_life_while_it_is_at_work() -> None:
    async with world() as w:
        exchange, _ = w.begun()
        for status, signs in (("working", 1), ("input_required", 2), ("completed", 2)):
            w.clock.advance(LOOK_INTERVAL)
            assert w.methods[-1] == "tasks/get"
            w.answer({"taskId": "t", "status": status})
            assert exchange.signs == signs
        w.clock.advance(ENOUGH)
        assert w.methods.count("tasks/get") == 3


@requirement("tasks:awaited:time")
async def test_a_look_that_fails_is_repeated_and_one_that_is_refused_is_not() -> None:
    async with world() as w:
        w.begun()
        for _ in range(2):
            w.clock.advance(LOOK_INTERVAL)
            w.fail(FaultKind.CUT)
        assert w.methods.count("tasks/get") == 2
        w.clock.advance(LOOK_INTERVAL)
        w.refuse(-32602)
        w.clock.advance(ENOUGH)
        assert w.methods.count("tasks/get") == 3


@requirement("tasks:awaited:relayed")
@pytest.mark.parametrize("stream", [None, "its own", "another"])
async def test_what_belongs_to_a_task_is_its_calls_on_whichever_stream_it_comes(stream: str | None) -> None:
    async with world() as w:
        exchange, _ = w.begun()
        fetching = w.link.messages[-1]["id"]
        other, _ = w.call("plain")
        on = {None: None, "its own": fetching, "another": w.link.messages[-1]["id"]}[stream]
        meta = {"_meta": {RELATED: {"taskId": "t"}}}
        token = next(m for m in w.link.messages if m["method"] == "tools/call")["params"]["_meta"]["progressToken"]
        w.say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1, **meta}}, on)
        w.say({"method": "test/event", "params": {"a": 1, **meta}}, on)
        w.say({"method": "notifications/tasks/status", "params": {"taskId": "t", "status": "working"}}, on)
        w.say({"id": 70, "method": "elicitation/create", "params": {"message": "?", **meta}}, on)
        assert exchange.told == [{"progressToken": token, "progress": 1}, ("test/event", {"a": 1})]
        (ask,) = exchange.asks
        assert json.loads(bytes(ask.params or b"")) == {"message": "?"}
        assert (other.told, other.asks, w.listener.pushes, w.listener.asks) == ([], [], [], [])


@requirement("tasks:awaited:every-caller")
def test_the_tools_that_are_remembered_are_bounded() -> None:
    tools = TaskTools()
    for number in range(MAX_TOOLS + 1):
        tools.note(str(number), is_required=True)
    assert (tools.requires("0"), tools.requires("1")) == (None, True)
