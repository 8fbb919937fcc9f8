"""The conversation of the handshake era over a link that the test holds in its hands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.call import ANYBODY, NOBODY, Abilities, Call
from holdfast.downstream.client import abilities_of
from holdfast.tasks import TaskScope
from holdfast.testing.clock import settle
from holdfast.upstream.handshake import HandshakeUpstream, declared
from holdfast.upstream.transport import Fault, FaultKind
from requirements import requirement
from unit.recorded_upstream import RecordedExchange, RecordedLink, RecordedListener

HELLO = b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}'


@dataclass
class Conversation:
    link: RecordedLink
    listener: RecordedListener
    upstream: HandshakeUpstream

    def call(self) -> tuple[int, RecordedExchange]:
        exchange = RecordedExchange()
        self.upstream.send(Call("tools/call", {}), exchange)
        return self.link.requests[-1], exchange

    def answer(self, request_id: int, stream: int | None) -> None:
        self.upstream.received(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % request_id, stream)


@asynccontextmanager
async def conversation(stream: int | None = 1) -> AsyncGenerator[Conversation]:
    """One whose handshake was answered on `stream`."""
    link = RecordedLink()
    listener = RecordedListener()
    upstream = HandshakeUpstream(link, listener, {}, server="files")
    async with asyncio.timeout(60), TaskScope() as scope:

        async def opening() -> None:
            await upstream.open()

        opened = scope.start(opening(), "open")
        while not link.requests:
            await settle()
        upstream.received(HELLO, stream)
        await opened
        yield Conversation(link, listener, upstream)
        upstream.terminate()


async def test_the_link_learns_which_requests_were_answered_on_another_stream() -> None:
    async with conversation() as c:
        (one, first), (two, second), (three, third) = c.call(), c.call(), c.call()
        c.answer(two, one)
        c.answer(one, two)
        c.answer(three, None)
        assert [first.outcome, second.outcome, third.outcome].count(None) == 0
        assert c.link.answered == [two, one, three]


async def test_a_handshake_that_was_answered_without_a_stream_is_answered_elsewhere_too() -> None:
    async with conversation(stream=None) as c:
        assert c.link.answered == [1]


async def test_an_answer_on_its_own_stream_or_to_nothing_is_not_reported_to_the_link() -> None:
    async with conversation() as c:
        number, _ = c.call()
        c.answer(number, number)
        c.answer(number, None)
        c.upstream.received(b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', 99)
        other, exchange = c.call()
        c.upstream.received(b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', other)
        assert exchange.outcome is not None
        assert c.link.answered == []


async def test_an_answer_that_is_no_json_fails_its_call_where_its_id_can_be_read_for_certain() -> None:
    async with conversation() as c:
        number, exchange = c.call()
        c.upstream.received(b'{"jsonrpc":"2.0","id":%d,"result":{"x":NaN}}' % number, None)
        assert exchange.outcome == Fault(FaultKind.INVALID, "the server's answer is not valid JSON-RPC")


async def test_what_comes_on_the_stream_of_a_call_that_has_ended_is_nobodys() -> None:
    async with conversation() as c:
        number, _ = c.call()
        c.answer(number, number)
        c.upstream.received(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}', number)
        c.upstream.received(b'{"jsonrpc":"2.0","id":7,"method":"roots/list"}', number)
        assert (c.listener.pushes, c.listener.asks, c.listener.late_asks) == ([], [], ["roots/list"])
        changed = "notifications/tools/list_changed"
        c.upstream.received(b'{"jsonrpc":"2.0","method":"%b"}' % changed.encode(), number)
        assert c.listener.pushes == [changed]


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "holdfast.session"]


async def test_the_first_message_that_cannot_be_read_is_logged_and_the_rest_counted_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with conversation() as c:
        number, exchange = c.call()
        for broken in (b'{"canary":', b"[canary]", b'{"id":'):
            c.upstream.received(broken, None)
        first = ("WARNING", "files sent a message that is no JSON-RPC: it was skipped, as others like it will be")
        assert lines(caplog) == [first]
        c.upstream.received(b"{canary", number)
        assert exchange.outcome == Fault(FaultKind.INVALID, "the server's answer is not valid JSON-RPC")
        await c.upstream.close()
        c.upstream.terminate()
        assert lines(caplog) == [first, ("INFO", "files sent 4 messages in this session that are no JSON-RPC")]
    assert "canary" not in caplog.text


@pytest.mark.parametrize("count", [0, 1])
async def test_a_session_without_repeated_nonsense_ends_without_a_summary(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with conversation() as c:
        for _ in range(count):
            c.upstream.received(b"{", None)
        await c.upstream.close()
        assert len(lines(caplog)) == count


@requirement("modern:private:declares")
@pytest.mark.parametrize(
    ("abilities", "capabilities"),
    [
        (NOBODY, {}),
        (Abilities(roots=True), {"roots": {"listChanged": True}}),
        (Abilities(sampling=True), {"sampling": {}}),
        (Abilities(sampling=True, sampling_tools=True), {"sampling": {"tools": {}}}),
        (Abilities(elicitation_form=True), {"elicitation": {"form": {}}}),
        (Abilities(elicitation_url=True), {"elicitation": {"url": {}}}),
        (
            ANYBODY,
            {
                "roots": {"listChanged": True},
                "sampling": {"tools": {}, "context": {}},
                "elicitation": {"form": {}, "url": {}},
                "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}},
            },
        ),
    ],
)
def test_what_is_declared_is_what_can_be_asked(abilities: Abilities, capabilities: dict[str, Any]) -> None:
    assert declared(abilities) == capabilities
    assert abilities_of(capabilities) == replace(abilities, other=True)
