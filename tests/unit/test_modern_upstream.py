"""A conversation of 2026-07-28 over a link that the test speaks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
from msgspec import Raw
from msgspec.structs import replace

from holdfast.call import NOBODY, Abilities, Ask, Call, Declared, InputRequired, Reply, Result, RpcError
from holdfast.errors import OpenFailed
from holdfast.testing.clock import ManualClock, settle
from holdfast.upstream.discovery import AskAgain, NotModern
from holdfast.upstream.modern import ModernUpstream
from holdfast.upstream.modern_answer import MirroredArguments
from holdfast.upstream.polled_task import INTERVAL_MAX
from holdfast.upstream.transport import Fault, FaultKind, Hello, Receiver, Sent
from requirements import requirement
from unit.recorded_upstream import RecordedExchange, RecordedListener

DISCOVERY: Final[dict[str, Any]] = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}},
    "instructions": "Be kind.",
    "ttlMs": 1,
    "cacheScope": "public",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
}
ALL: Final = Abilities(elicitation_form=True, elicitation_url=True, sampling=True, roots=True)
FORM: Final = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object"}}}
URL: Final = {"method": "elicitation/create", "params": {"mode": "url", "message": "?", "url": "https://a.test/"}}


class Line:
    """A `ModernLink` that keeps what was sent; the test answers in the server's place."""

    def __init__(self) -> None:
        self.receiver: Receiver
        self.sent: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled: list[int] = []
        self.discovery: dict[str, Any] | None = {"result": DISCOVERY}
        """What the discovery is answered with."""
        self.agrees_to: dict[str, bool] | None = {"toolsListChanged": True}
        """What a subscription is acknowledged with; None: the test does it."""

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def request(self, request_id: int, message: bytes, headers: Iterable[tuple[str, str]]) -> Sent:
        self.sent.append(json.loads(message))
        self.raw.append(message)
        self.headers.append(dict(headers))
        soon = asyncio.get_running_loop().call_soon
        if self.last["method"] == "server/discover" and self.discovery is not None:
            soon(partial(self.say, request_id, **self.discovery))
        elif self.last["method"] == "subscriptions/listen" and self.agrees_to is not None:
            soon(partial(self.acknowledge, **self.agrees_to))
        return _Cancellable(self, request_id)

    def established(self, protocol_version: str) -> None: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...

    @property
    def last(self) -> dict[str, Any]:
        return self.sent[-1]

    def ids(self, method: str) -> list[int]:
        return [message["id"] for message in self.sent if message["method"] == method]

    def say(self, request_id: int, **fields: Any) -> None:
        """Answer a request."""
        self.receiver.received(json.dumps({"jsonrpc": "2.0", "id": request_id, **fields}).encode(), request_id)

    def tell(self, request_id: int, method: str, **params: Any) -> None:
        """Send a notification on a request's stream."""
        self.receiver.received(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode(), request_id)

    def acknowledge(self, *uris: str, **kinds: bool) -> int:
        """Agree to the last subscription."""
        request_id = self.ids("subscriptions/listen")[-1]
        honoured = {**kinds, **({"resourceSubscriptions": uris} if uris else {})}
        self.tell(request_id, "notifications/subscriptions/acknowledged", notifications=honoured)
        return request_id


class _Cancellable:
    def __init__(self, line: Line, request_id: int) -> None:
        self._line = line
        self._request_id = request_id

    def cancel(self, reason: str) -> None:
        self._line.cancelled.append(self._request_id)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Asked(RecordedExchange):
    """An exchange whose caller can be asked anything, and keeps the questions."""

    def __init__(self, abilities: Abilities = ALL) -> None:
        super().__init__()
        self.abilities = abilities
        self.asks: list[Ask] = []

    def ask(self, ask: Ask) -> None:
        self.asks.append(ask)


class Conversation:
    """An open conversation and its surroundings."""

    def __init__(self, *, declares: bool = True) -> None:
        self.line = Line()
        self.clock = ManualClock()
        self.listener = RecordedListener()
        self.upstream = ModernUpstream(
            self.line,
            self.listener,
            declares=declares,
            mirrored=MirroredArguments(),
            clock=self.clock,
            jitter=lambda: 1.0,
        )
        self.hello: Hello

    def call(self, exchange: RecordedExchange, method: str = "tools/call", **params: Any) -> Sent:
        return self.upstream.send(Call(method, params or {"name": "t", "arguments": {}}), exchange)

    def declare(self, exchange: RecordedExchange, log_level: str | None = None, **said: Any) -> Sent:
        """A call of a caller of the same revision."""
        call = Call("tools/call", {"name": "t"}, declared=Declared(**said), log_level=log_level)
        return self.upstream.send(call, exchange)

    def require(self, state: str | None = "s", **requests: Any) -> None:
        """Answer the last request with questions."""
        fields = {} if state is None else {"requestState": state}
        self.line.say(
            self.line.last["id"], result={"resultType": "input_required", "inputRequests": requests, **fields}
        )


@asynccontextmanager
async def conversing(*, declares: bool = True) -> AsyncGenerator[Conversation]:
    """A conversation that was opened; the server agreed to announce changes of its tools."""
    conversation = Conversation(declares=declares)
    async with asyncio.timeout(60):
        conversation.hello = await conversation.upstream.open()
        conversation.line.agrees_to = None
        yield conversation
    conversation.upstream.terminate()
    assert conversation.clock.pending == 0


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


@requirement("modern-servers:changes")
async def test_one_stream_follows_another_without_a_gap() -> None:
    async with conversing() as c:
        (first,) = c.line.ids("subscriptions/listen")
        one, two = RecordedExchange(), RecordedExchange()
        c.call(one, "resources/subscribe", uri="a:1")
        c.call(two, "resources/subscribe", uri="a:2")
        assert c.line.last["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]}
        c.line.tell(first, "notifications/tools/list_changed")
        assert c.listener.pushes == ["notifications/tools/list_changed"], "the old one is heard until the new one is"
        second = c.line.acknowledge("a:1", toolsListChanged=True)
        assert one.outcome == Result(Raw(b"{}"))
        assert c.line.cancelled == [first]
        assert c.line.last["params"]["notifications"]["resourceSubscriptions"] == ["a:1", "a:2"]
        c.line.acknowledge("a:1", toolsListChanged=True)
        assert isinstance(two.outcome, RpcError), "the server did not agree to it"
        assert c.line.cancelled == [first, second]
        three = RecordedExchange()
        c.call(three, "resources/subscribe", uri="a:1")
        assert three.outcome == Result(Raw(b"{}")), "it is heard already"


@requirement("modern-servers:changes")
async def test_a_stream_that_is_lost_is_opened_again_and_all_may_have_changed() -> None:
    async with conversing() as c:
        (first,) = c.line.ids("subscriptions/listen")
        c.line.receiver.failed(first, Fault(FaultKind.CUT, "cut"))
        for lost in range(3):
            c.clock.advance(2**lost)
            assert len(c.line.ids("subscriptions/listen")) == 2 + lost
            if lost < 2:
                c.line.receiver.failed(c.line.last["id"], Fault(FaultKind.NOT_SENT, "refused"))
        assert c.listener.pushes == []
        c.line.acknowledge(toolsListChanged=True)
        assert c.listener.pushes == ["notifications/tools/list_changed"]


def refuse(c: Conversation) -> None:
    """Refuse what was asked last."""
    c.line.say(c.line.last["id"], error={"code": -32601, "message": "?"})


def subscribed(c: Conversation, uri: str) -> RecordedExchange:
    """An exchange that asks to hear of `uri`."""
    exchange = RecordedExchange()
    c.call(exchange, "resources/subscribe", uri=uri)
    return exchange


def asked_for(c: Conversation) -> Any:
    """The resources of the last subscription."""
    return c.line.last["params"]["notifications"].get("resourceSubscriptions", [])


AGREED: Final = Result(Raw(b"{}"))


@requirement("modern-servers:changes")
async def test_a_server_that_refuses_from_the_start_to_be_listened_to_is_not_asked_again() -> None:
    conversation = Conversation()
    conversation.line.agrees_to = None
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        opening = group.create_task(conversation.upstream.open())
        await settle()
        refuse(conversation)
    assert json.loads(bytes(opening.result().raw))["capabilities"]["tools"] == {}
    late = subscribed(conversation, "a:1")
    refuse(conversation)
    assert isinstance(late.outcome, RpcError)
    assert conversation.clock.pending == 0
    conversation.upstream.terminate()


@requirement("modern-servers:heard-again")
async def test_a_server_that_refuses_what_it_agreed_to_is_asked_again_ever_more_rarely() -> None:
    async with conversing() as c:
        subscribed(c, "a:1")
        c.line.say(c.line.acknowledge("a:1", toolsListChanged=True), result={"resultType": "complete"})
        for refused in range(3):
            c.clock.advance(2**refused)
            assert len(c.line.ids("subscriptions/listen")) == 3 + refused
            refuse(c)
        c.clock.advance(8)
        assert c.listener.pushes == []
        c.line.acknowledge("a:1", toolsListChanged=True)
        assert c.listener.pushes == ["notifications/tools/list_changed", "notifications/resources/updated"]


@requirement("modern-servers:heard-again")
async def test_what_a_server_agrees_to_no_more_is_asked_for_again_and_looked_at_when_it_is_back() -> None:
    async with conversing() as c:
        subscribed(c, "a:1")
        subscribed(c, "a:2")
        c.line.acknowledge("a:1", toolsListChanged=True)
        first = c.line.acknowledge("a:1", "a:2", toolsListChanged=True)
        c.line.say(first, result={"resultType": "complete"})
        c.clock.advance(1)
        c.line.acknowledge("a:1")
        assert c.listener.pushes == ["notifications/resources/updated"], "of a:1 alone"
        assert not c.listener.has_push, "the lists are not announced"
        c.clock.advance(2)
        assert asked_for(c) == ["a:1", "a:2"]
        c.line.acknowledge("a:1", "a:2", toolsListChanged=True)
        assert c.listener.pushes[1:] == ["notifications/tools/list_changed", "notifications/resources/updated"]
        assert c.listener.has_push
        assert c.clock.pending == 0


@requirement("modern-servers:heard-again")
async def test_who_subscribes_again_while_the_server_is_told_to_forget_is_told_once_it_is_heard() -> None:
    async with conversing() as c:
        subscribed(c, "a:1")
        c.line.acknowledge("a:1", toolsListChanged=True)
        c.call(RecordedExchange(), "resources/unsubscribe", uri="a:1")
        again = subscribed(c, "a:1")
        assert (again.outcome, asked_for(c)) == (None, [])
        c.line.acknowledge(toolsListChanged=True)
        assert (again.outcome, asked_for(c)) == (None, ["a:1"])
        c.line.acknowledge("a:1", toolsListChanged=True)
        assert again.outcome == AGREED


@requirement("modern-servers:heard-again")
async def test_where_the_server_could_not_be_told_to_forget_a_resource_is_still_heard() -> None:
    async with conversing() as c:
        subscribed(c, "a:1")
        c.line.acknowledge("a:1", toolsListChanged=True)
        c.call(RecordedExchange(), "resources/unsubscribe", uri="a:1")
        again = subscribed(c, "a:1")
        refuse(c)
        assert again.outcome == AGREED
        before = len(c.line.sent)
        c.call(RecordedExchange(), "resources/unsubscribe", uri="a:1")
        refuse(c)
        assert len(c.line.sent) == before + 1, "more is announced than is wanted, which harms nobody"


@requirement("modern-servers:heard-again")
async def test_who_subscribes_while_another_is_refused_is_asked_for_then() -> None:
    async with conversing() as c:
        one, two = subscribed(c, "a:1"), subscribed(c, "a:2")
        refuse(c)
        assert isinstance(one.outcome, RpcError)
        assert (two.outcome, asked_for(c)) == (None, ["a:2"])
        c.line.acknowledge("a:2", toolsListChanged=True)
        assert two.outcome == AGREED


@requirement("modern-servers:heard-again")
async def test_who_leaves_while_it_waits_takes_nothing_from_the_others() -> None:
    async with conversing() as c:
        leaving = c.call(RecordedExchange(), "resources/subscribe", uri="a:1")
        staying = subscribed(c, "a:1")
        leaving.cancel("the client left")
        c.call(RecordedExchange(), "resources/unsubscribe", uri="a:1")
        c.line.acknowledge("a:1", toolsListChanged=True)
        assert staying.outcome == AGREED
        assert asked_for(c) == ["a:1"]
        alone = c.call(RecordedExchange(), "resources/subscribe", uri="a:2")
        alone.cancel("the client left")
        c.line.acknowledge("a:1", "a:2", toolsListChanged=True)
        assert asked_for(c) == ["a:1"], "nobody wants the other any more"


async def test_a_server_that_acknowledges_nothing_holds_nobody_up() -> None:
    conversation = Conversation()
    conversation.line.agrees_to = None
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        opening = group.create_task(conversation.upstream.open())
        await settle()
        assert conversation.line.ids("subscriptions/listen")
        await conversation.clock.advance_settled(6)
    assert json.loads(bytes(opening.result().raw))["capabilities"]["tools"] == {}
    conversation.upstream.terminate()


async def test_over_a_pipe_changes_and_progress_are_told_apart_by_what_they_name() -> None:
    async with conversing() as c:
        listen = c.line.ids("subscriptions/listen")[0]
        meta = {"io.modelcontextprotocol/subscriptionId": listen}
        pushed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": meta}}
        c.line.receiver.received(json.dumps(pushed).encode(), None)
        assert c.listener.pushes == ["notifications/tools/list_changed"]
        stray = {**pushed, "params": {"_meta": {**meta, "io.modelcontextprotocol/subscriptionId": 999}}}
        c.line.receiver.received(json.dumps({**stray, "method": "notifications/progress"}).encode(), None)
        for junk in (b"{", b"[]", b'{"jsonrpc":"2.0","id":77,"result":{}}', b'{"jsonrpc":"2.0","id":1,"method":"x"}'):
            c.line.receiver.received(junk, None)
        assert len(c.listener.pushes) == 1


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
