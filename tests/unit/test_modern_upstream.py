"""What passes between a call and a server of 2026-07-28."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import pytest
from msgspec import Raw
from msgspec.structs import replace

from holdfast.call import NOBODY, Abilities, InputRequired, Reply, Result, RpcError
from holdfast.errors import OpenFailed
from holdfast.testing.clock import settle
from holdfast.upstream.discovery import AskAgain, NotModern
from holdfast.upstream.polled_task import INTERVAL_MAX
from holdfast.upstream.transport import Fault, FaultKind
from requirements import requirement
from unit.modern_line import ALL, DISCOVERY, Asked, Conversation, conversing
from unit.recorded_upstream import RecordedExchange

FORM: Final = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object"}}}
URL: Final = {"method": "elicitation/create", "params": {"mode": "url", "message": "?", "url": "https://a.test/"}}


@requirement("modern-servers:calls")
async def test_a_discovery_reads_as_an_introduction_of_the_handshake_era() -> None:
    async with conversing() as c:
        hello = json.loads(bytes(c.hello.raw))
        assert hello == {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}},
            "serverInfo": {"name": "s", "version": "1"},
            "instructions": "Be kind.",
        }
        assert c.hello.is_stateless
        assert c.hello.protocol_version == "2026-07-28"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"result": {}}, NotModern),
        ({"result": {"supportedVersions": "2026-07-28"}}, NotModern),
        ({"result": {"supportedVersions": ["2025-06-18"]}}, NotModern),
        ({"result": {"supportedVersions": ["2027-01-01"]}}, OpenFailed),
        ({"error": {"code": -32601, "message": "?"}}, NotModern),
        ({"error": {"code": -32022, "message": "?", "data": {"supported": ["2025-11-25"]}}}, NotModern),
        ({"error": {"code": -32022, "message": "?", "data": {"supported": ["2027-01-01"]}}}, OpenFailed),
        ({"error": {"code": -32022, "message": "?", "data": {"supported": ["2026-07-28"]}}}, AskAgain),
        ({"error": {"code": -32022, "message": "?", "data": []}}, OpenFailed),
        ({"error": {"code": -32020, "message": "?"}}, OpenFailed),
        ({"error": {"code": -32021, "message": "?"}}, OpenFailed),
        ({}, NotModern),
    ],
)
async def test_only_an_answer_of_its_own_makes_a_server_modern(answer: dict[str, Any], error: type[Exception]) -> None:
    conversation = Conversation()
    conversation.line.discovery = answer
    with pytest.raises(OpenFailed) as raised:
        async with asyncio.timeout(60):
            await conversation.upstream.open()
    assert type(raised.value) is error


@requirement("modern-servers:probe")
async def test_a_server_that_refuses_the_revision_and_names_it_is_asked_once_more() -> None:
    conversation = Conversation()
    line = conversation.line
    line.discovery = None
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        opening = group.create_task(conversation.upstream.open())
        await settle()
        data = {"supported": ["2026-07-28"], "requested": "2026-07-28"}
        line.say(line.last["id"], error={"code": -32022, "message": "?", "data": data})
        await settle()
        line.say(line.last["id"], result=DISCOVERY)
        assert (await opening).protocol_version == "2026-07-28"
    assert line.ids("server/discover") == [0, 1]
    conversation.upstream.terminate()


@requirement("modern-servers:rounds")
async def test_the_state_of_a_server_goes_back_byte_for_byte() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange, name="t", arguments={"a": 1}, _meta={"dev.x": 1, "progressToken": 9})
        first = c.line.last
        raw = b'{"jsonrpc":"2.0","id":%d,"result":{"resultType":"input_required","requestState":"\\u00e9\\/\\n",'
        raw += b'"inputRequests":{"q":{"method":"roots/list"}}}}'
        c.line.receiver.received(raw % first["id"], first["id"])
        (ask,) = exchange.asks
        c.upstream.reply(ask.id, Reply(result=Raw(b'{"roots":[]}')))
        second = c.line.last
        assert b'"requestState":"\\u00e9\\/\\n"' in c.line.raw[-1]
        assert second["id"] != first["id"]
        assert second["params"]["inputResponses"] == {"q": {"roots": []}}
        for message in (first, second):
            assert message["params"]["arguments"] == {"a": 1}
            meta = message["params"]["_meta"]
            assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
            assert meta["dev.x"] == 1
            assert "progressToken" not in meta
        c.line.say(second["id"], result={"content": [], "resultType": "complete"})
        assert isinstance(exchange.outcome, Result)
        assert bytes(exchange.outcome.raw) == b'{"content":[]}'


@requirement("modern-servers:rounds")
async def test_all_answers_of_a_round_go_back_together() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange)
        before = len(c.line.sent)
        c.require(state=None, a=FORM, b={"method": "roots/list"})
        a, b = exchange.asks
        c.upstream.reply(b.id, Reply(result=Raw(b'{"roots":[]}')))
        c.upstream.reply(b.id, Reply(result=Raw(b'{"roots":[1]}')))
        assert len(c.line.sent) == before, "one is open"
        c.upstream.reply(a.id, Reply(error=Raw(b'{"code":-1,"message":"no"}')))
        assert c.line.last["params"]["inputResponses"] == {"a": {"action": "cancel"}, "b": {"roots": []}}
        assert "requestState" not in c.line.last["params"]


@requirement("modern-servers:rounds")
async def test_a_url_that_was_accepted_is_not_asked_for_again() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange)
        c.require(sign_in=URL)
        (ask,) = exchange.asks
        assert ask.is_url_elicitation
        assert ask.params is not None
        assert json.loads(bytes(ask.params))["elicitationId"] == ask.elicitation_id
        c.upstream.reply(ask.id, Reply(result=Raw(b'{"action":"accept"}')))
        for _ in range(15):  # it may take a person longer than ten rounds
            sent = len(c.line.sent)
            c.require(sign_in=URL)
            assert len(c.line.sent) == sent, "not at once"
            c.clock.advance(10)
            assert c.line.last["params"]["inputResponses"] == {"sign_in": {"action": "accept"}}
        assert len(exchange.asks) == 1
        c.line.say(c.line.last["id"], result={"content": []})
        assert isinstance(exchange.outcome, Result)


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "task", "taskId": "1"},
        {"resultType": 7},
        {"resultType": "input_required"},
        {"resultType": "input_required", "inputRequests": {}},
        {"resultType": "input_required", "inputRequests": []},
        {"resultType": "input_required", "inputRequests": {"q": 1}},
        {"resultType": "input_required", "inputRequests": {"q": {"method": "tools/call"}}},
        {"resultType": "input_required", "inputRequests": {"q": {"method": 3}}},
    ],
)
async def test_what_is_no_mcp_ends_the_call_as_such(result: dict[str, Any]) -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange)
        c.line.say(c.line.last["id"], result=result)
        assert isinstance(exchange.outcome, Fault)
        assert exchange.outcome.kind is FaultKind.INVALID
        assert exchange.asks == []


@requirement("modern-servers:cancel")
async def test_a_cancelled_call_hears_nothing_more() -> None:
    async with conversing() as c:
        exchange = Asked()
        sent = c.call(exchange)
        sent.cancel("enough")
        assert c.line.cancelled == [c.line.last["id"]]
        c.line.say(c.line.last["id"], result={"content": []})
        assert exchange.outcome is None
        sent = c.call(exchange)
        c.require(a=FORM)
        sent.cancel("enough")
        before = len(c.line.sent)
        c.upstream.reply(exchange.asks[-1].id, Reply(result=Raw(b"{}")))
        assert len(c.line.sent) == before
        assert len(c.line.cancelled) == 1, "nothing was under way"
        sent = c.call(exchange)
        c.require()
        sent.cancel("enough")
        assert c.clock.pending == 0


@requirement("modern-servers:rounds")
async def test_answers_that_cannot_be_brought_leave_the_outcome_open() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange)
        c.require(a=FORM)
        c.upstream.reply(exchange.asks[0].id, Reply(result=Raw(b'{"action":"decline"}')))
        c.line.receiver.failed(c.line.last["id"], Fault(FaultKind.NOT_SENT, "refused"))
        assert isinstance(exchange.outcome, Fault)
        assert exchange.outcome.kind is FaultKind.CUT, "it had begun"


@requirement("modern-servers:headers")
async def test_a_mismatch_of_headers_is_mended_once() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange, name="t", arguments={"where": "eu"})
        mismatch = {"code": -32020, "message": "header"}
        c.line.say(c.line.last["id"], error=mismatch)
        assert c.line.last["method"] == "tools/list"
        c.line.say(c.line.last["id"], result={"tools": [], "nextCursor": "2"})
        assert c.line.last["params"]["cursor"] == "2"
        schema = {"type": "object", "properties": {"where": {"type": "string", "x-mcp-header": "Where"}}}
        c.line.say(c.line.last["id"], result={"tools": [{"name": "t", "inputSchema": schema}]})
        assert c.line.last["method"] == "tools/call"
        assert c.line.headers[-1]["mcp-param-Where"] == "eu"
        c.line.say(c.line.last["id"], error=mismatch)
        assert isinstance(exchange.outcome, RpcError)
        assert len(c.line.ids("tools/call")) == 2


async def test_a_list_that_cannot_be_had_leaves_the_refusal_as_it_was() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange)
        c.line.say(c.line.last["id"], error={"code": -32020, "message": "header"})
        c.line.receiver.failed(c.line.last["id"], Fault(FaultKind.CUT, "cut"))
        assert isinstance(exchange.outcome, RpcError)


@requirement("modern-servers:envelope")
async def test_a_private_conversation_offers_nothing_and_listens_to_nothing() -> None:
    async with conversing(declares=False) as c:
        c.call(Asked(ALL))
        assert c.line.last["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}
        assert c.line.ids("subscriptions/listen") == []
        exchange = RecordedExchange()
        c.call(exchange, "resources/subscribe", uri="a:b")
        assert isinstance(exchange.outcome, RpcError)


@requirement("modern-servers:envelope")
async def test_each_call_says_what_its_own_caller_can_be_asked() -> None:
    async with conversing() as c:
        said: tuple[tuple[Abilities, dict[str, Any]], ...] = (
            (NOBODY, {}),
            (Abilities(elicitation_url=True), {"elicitation": {"url": {}}}),
            (Abilities(roots=True, sampling=True), {"roots": {}, "sampling": {}}),
            (Abilities(sampling=True, sampling_tools=True), {"sampling": {"tools": {}}}),
            (Abilities(sampling=True, sampling_context=True), {"sampling": {"context": {}}}),
        )
        for abilities, expected in said:
            c.call(Asked(abilities))
            capabilities = c.line.last["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
            assert capabilities == expected


@requirement("modern-servers:log")
async def test_what_is_gone_from_the_protocol_is_answered_here() -> None:
    async with conversing() as c:
        before = len(c.line.sent)
        for method, params in (("ping", {"_": 1}), ("logging/setLevel", {"level": "error"})):
            exchange = RecordedExchange()
            c.call(exchange, method, **params)
            assert exchange.outcome == Result(Raw(b"{}"))
        c.upstream.notify("notifications/roots/list_changed", None)
        assert len(c.line.sent) == before
        c.call(Asked())
        assert c.line.last["params"]["_meta"]["io.modelcontextprotocol/logLevel"] == "error"


@requirement("modern-servers:stateless")
async def test_a_process_that_ends_fails_what_waits_for_a_person_too() -> None:
    async with conversing() as c:
        waiting, parked = Asked(), Asked()
        c.call(parked)
        c.require(a=FORM)
        c.call(waiting)
        c.line.receiver.lost(Fault(FaultKind.GONE, "it exited"))
        for exchange in (waiting, parked):
            assert isinstance(exchange.outcome, Fault)
            assert exchange.outcome.kind is FaultKind.GONE


@requirement("both-modern:questions")
@pytest.mark.parametrize("declares", [True, False])
async def test_a_modern_caller_takes_the_question_and_brings_the_answer_itself(declares: bool) -> None:
    async with conversing(declares=declares) as c:
        exchange = Asked(replace(ALL, tasks=True))
        declared: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}, "x/y": {}}}
        c.declare(exchange, capabilities=declared)
        meta = c.line.last["params"]["_meta"]
        assert meta["io.modelcontextprotocol/clientCapabilities"] == declared
        assert "io.modelcontextprotocol/logLevel" not in meta
        c.require(a=FORM, b={"method": "of/another/extension"})
        assert isinstance(exchange.outcome, InputRequired)
        assert json.loads(bytes(exchange.outcome.raw))["inputRequests"].keys() == {"a", "b"}
        assert exchange.asks == []
        state = 'é"\\ \U0001f511'
        brought: dict[str, Any] = {"inputResponses": {"a": 1}, "requestState": state}
        c.declare(Asked(), input=brought, log_level="debug")
        assert c.line.last["params"].items() >= brought.items()
        assert c.line.last["params"]["_meta"]["io.modelcontextprotocol/logLevel"] == "debug"


@requirement("both-modern:results")
async def test_a_modern_caller_is_given_any_kind_of_result() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.declare(exchange)
        result = {"resultType": "x/y", "structuredContent": [1], "ttlMs": 3}
        c.line.say(c.line.last["id"], result=result)
        assert isinstance(exchange.outcome, Result)
        assert exchange.outcome.modern is not None
        assert json.loads(bytes(exchange.outcome.modern)) == result


@requirement("both-modern:questions")
@pytest.mark.parametrize(
    "said", [{}, {"requestState": 7}, {"inputRequests": {}}, {"inputRequests": [], "requestState": {}}]
)
async def test_a_question_that_is_none_does_not_reach_a_modern_caller(said: dict[str, Any]) -> None:
    async with conversing() as c:
        exchange = Asked()
        c.declare(exchange)
        c.line.say(c.line.last["id"], result={"resultType": "input_required", **said})
        assert isinstance(exchange.outcome, Fault)
        assert exchange.outcome.kind is FaultKind.INVALID


@requirement("modern-servers:rounds")
async def test_a_question_that_is_relayed_keeps_the_servers_name_for_it() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange)
        c.require(user_name=FORM, page=URL, roots={"method": "roots/list"})
        assert [ask.name for ask in exchange.asks] == ["user_name", "page", "roots"]


async def asked_by_a_task(c: Conversation, exchange: Asked) -> None:
    """Call a tool that must be a task, which asks; its question is answered, and the server is told."""
    c.call(exchange)
    needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
    c.line.say(c.line.last["id"], error={"code": -32021, "message": "no", "data": needed})
    c.line.say(c.line.last["id"], result={"resultType": "task", "taskId": "m1", "status": "working"})
    await c.clock.advance_settled(1)
    c.line.say(c.line.last["id"], result={"taskId": "m1", "status": "input_required", "inputRequests": {"q": FORM}})
    (ask,) = exchange.asks
    c.upstream.reply(ask.id, Reply(result=Raw(b'{"action":"decline"}')))
    assert c.line.last["method"] == "tasks/update"


@requirement("tasks:modern:awaited")
async def test_an_answer_to_a_tasks_question_that_was_lost_on_its_way_is_given_again() -> None:
    async with conversing() as c:
        exchange = Asked()
        await asked_by_a_task(c, exchange)
        first = c.line.last
        c.line.receiver.failed(first["id"], Fault(FaultKind.CUT, "gone"))
        await c.clock.advance_settled(1)
        assert c.line.last["method"] == "tasks/update"
        assert c.line.last["params"]["inputResponses"] == first["params"]["inputResponses"]
        c.line.say(c.line.last["id"], result={})
        await c.clock.advance_settled(1)
        given: dict[str, Any] = {"content": [], "structuredContent": [1]}
        c.line.say(c.line.last["id"], result={"taskId": "m1", "status": "completed", "result": given})
        assert isinstance(exchange.outcome, Result)
        assert "structuredContent" not in json.loads(bytes(exchange.outcome.raw)), "as older revisions have it"
        assert json.loads(bytes(exchange.outcome.modern or b"{}")) == given


@requirement("tasks:modern:awaited")
async def test_a_server_that_refuses_the_answer_to_a_tasks_question_ends_the_call_and_is_told_to_stop() -> None:
    async with conversing() as c:
        exchange = Asked()
        await asked_by_a_task(c, exchange)
        c.line.say(c.line.last["id"], error={"code": -32602, "message": "not such an answer"})
        assert isinstance(exchange.outcome, RpcError)
        assert c.line.last["method"] == "tasks/cancel"
        c.line.say(c.line.last["id"], result={})


@requirement("tasks:modern:awaited")
async def test_an_interval_that_is_no_time_anybody_would_wait_is_the_longest() -> None:
    async with conversing() as c:
        exchange = Asked()
        c.call(exchange)
        needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
        c.line.say(c.line.last["id"], error={"code": -32021, "message": "no", "data": needed})
        task = {"resultType": "task", "taskId": "m1", "status": "working", "pollIntervalMs": 10**400}
        c.line.say(c.line.last["id"], result=task)
        await c.clock.advance_settled(INTERVAL_MAX)
        assert c.line.last["method"] == "tasks/get"
        c.line.say(c.line.last["id"], error={"code": -32602, "message": "it is gone"})
        assert isinstance(exchange.outcome, RpcError)
