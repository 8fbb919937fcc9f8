"""What a whole gateway shows of itself, in the log, the feed and the metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator

import pytest

from holdfast import events
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.config.settings import Trust
from holdfast.gateway import Gateway
from holdfast.observe.feed import EventFeed, Taker, encode, fan_out
from holdfast.observe.log import EventLog
from holdfast.observe.metrics import Metrics
from holdfast.observe.terminal import StatusBoard, set_up_logging
from processes import free_port
from requirements import requirement
from rig import NAME, rig
from unit.screens import Screen, kept_logging


class Shown:
    """Everything that shows events, at its most talkative."""

    def __init__(self) -> None:
        self.log, self._board, self.metrics = Screen(), Screen(), Metrics()
        self.kinds: list[object] = []
        self._encoded: list[str] = []
        feed = EventFeed()
        feed.subscribe(lambda entry: self._encoded.append(json.dumps(encode(entry))))
        feed.subscribe(lambda entry: self.kinds.append(encode(entry)["event"]))
        board = StatusBoard(self._board.console, [NAME])
        self.emit = fan_out(*map(Taker, (self.metrics.take, EventLog().take, board.take, feed.take)))
        set_up_logging(self.log.console, "debug", "json")

    @property
    def text(self) -> str:
        return "\n".join([self.log.text, self._board.text, *self._encoded, self.metrics.render((), 0, {}).decode()])


@pytest.fixture
def shown() -> Generator[Shown]:
    with kept_logging():
        yield Shown()


@requirement("observe:log:no-secret-and-no-foreign-id")
async def test_what_is_shown_holds_no_secret_and_no_session_id_of_a_client_or_server(shown: Shown) -> None:
    """The ids of the client's session and the server's, headers both ways, who asks in which chat, and arguments."""
    local = ClientSettings(name="local", trust=Trust(user="x-user", chat="x-chat"))
    async with rig(emit=shown.emit, clients=(local,), headers={"x-secret": "canary-header"}) as running:
        client = running.client(x_user="canary-user", x_chat="canary-chat", cookie="canary-cookie")
        await client.open()
        foreign = {client.headers["mcp-session-id"]}
        await client.tool_text("remember", key="word", value="canary-argument")
        foreign |= running.upstream.sessions.keys()
        for session in list(running.upstream.sessions):
            running.upstream.forget_session(session)
        lost = await client.ask(client.tool("recall", key="word"))
        assert lost["error"]["code"] == -31006
        await client.tool_text("recall", key="word")
        foreign |= running.upstream.sessions.keys()
        assert any("x-secret" in headers for headers in running.upstream.received_headers), "it was there to be shown"
    assert len(foreign) >= 3, "the client's own, the session that was lost, and the one after it"
    assert {"session_opening", "session_ready", "session_lost", "session_closed"} <= set(shown.kinds)
    assert '"event": "session_lost"' in shown.log.text
    assert [secret for secret in ("canary", *foreign) if secret in shown.text] == []


@requirement("observe:log:no-secret-and-no-foreign-id")
async def test_the_query_of_a_server_that_cannot_be_reached_is_not_shown(shown: Shown) -> None:
    failed = asyncio.Event()

    def emit(event: events.Event) -> None:
        shown.emit(event)
        if isinstance(event, events.SessionFailed):
            failed.set()

    server = ServerSettings(name=NAME, url=f"http://127.0.0.1:{free_port()}/mcp?token=canary-query")
    async with asyncio.timeout(60), Gateway(GatewaySettings(servers=(server,)), emit=emit):
        await failed.wait()
    assert "refused" in shown.text
    assert "canary" not in shown.text
