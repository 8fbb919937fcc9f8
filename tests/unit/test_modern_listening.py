"""What is heard of a server of 2026-07-28 between calls."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from msgspec import Raw

from holdfast.call import Result, RpcError
from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind
from requirements import requirement
from unit.modern_line import Conversation, conversing
from unit.recorded_upstream import RecordedExchange


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
