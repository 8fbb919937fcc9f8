"""Callers that give up at any moment (threats, rows 40 and 41): nothing is left behind, and everything goes on."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sized
from typing import Any, Final

import pytest

from faults.rig import Rig, call, code_of, gateway_to, text_of, until
from holdfast.downstream.http import Message
from holdfast.session.lifecycle import State
from holdfast.testing.clock import settle
from holdfast.testing.server import ScriptedServer
from requirements import requirement

STEPS: Final = 120
"""Turns of the event loop after which a caller gives up: opening and call take about 60."""
SETTLED: Final = 200
"""Turns within which nothing that was begun still needs the network of one process."""


class Request:
    """One request straight to the ASGI application, so that every turn of the loop can be counted."""

    def __init__(self, rig: Rig, method: str, body: Any = None, session: str | None = None, path: str = "/mcp") -> None:
        headers = {"host": "localhost", "accept": "application/json, text/event-stream"}
        headers |= {"content-type": "application/json"} if body is not None else {}
        headers |= {"mcp-session-id": session} if session is not None else {}
        self.session = session
        self.id = None if body is None else body.get("id")
        self._app = rig.gateway.app
        self._scope: Message = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self._body = b"" if body is None else json.dumps(body).encode()
        self._is_read = False
        self.has_left = asyncio.Event()
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body}
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.sent.append(message)

    async def run(self) -> None:
        await self._app(self._scope, self.receive, self.send)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


GiveUp = Callable[[Rig, Request, "asyncio.Task[None]"], Awaitable[None]]


async def cancel_the_task(rig: Rig, request: Request, task: asyncio.Task[None]) -> None:
    """What an ASGI server does that is shutting down."""
    task.cancel()


async def disconnect(rig: Rig, request: Request, task: asyncio.Task[None]) -> None:
    request.has_left.set()


async def end_the_session(rig: Rig, request: Request, task: asyncio.Task[None]) -> None:
    await Request(rig, "DELETE", session=request.session).run()


async def cancel_the_call(rig: Rig, request: Request, task: asyncio.Task[None]) -> None:
    params = {"requestId": request.id, "reason": "changed my mind"}
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
    while not task.done():  # one that comes before its request concerns nothing
        await Request(rig, "POST", message, request.session).run()
        await settle(1)


def slow(id_: int) -> dict[str, Any]:
    params = {"name": "slow", "arguments": {"gate": "never", "canary": id_}}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}


async def busy_turns(count: int, is_over: Callable[[], bool]) -> None:
    """Let the loop take `count` turns, not counting those before `is_over` in which there was nothing to run.

    On a busy machine the kernel delivers what is sent over loopback some hundred turns later.
    """
    ready: Sized = vars(asyncio.get_running_loop())["_ready"]
    while count > 0:
        await asyncio.sleep(0)
        if ready or is_over():
            count -= 1


async def given_up(rig: Rig, server: ScriptedServer, request: Request, steps: int, give_up: GiveUp) -> None:
    """Run `request` for `steps` turns of the loop, then give it up."""
    async with asyncio.timeout(60):
        task = asyncio.get_running_loop().create_task(request.run())
        gate = server.core.gate("never")
        before = gate.entered
        await busy_turns(steps, lambda: task.done() or gate.entered > before)
        await give_up(rig, request, task)
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None


async def nothing_runs(rig: Rig, server: ScriptedServer) -> None:
    """Return once neither the gateway nor the server has anything under way."""
    async with asyncio.timeout(60):
        await rig.at_rest()
        await server.until(lambda: all(entry.outcome != "running" for entry in server.calls()))
    for session in rig.pool.sessions:
        assert session.state is State.IDLE
        assert session.leases == 0
        assert not session.calls


async def names_of_tasks() -> list[str]:
    """The tasks of the gateway; those of the server that watch its streams are left out."""
    await settle(SETTLED)
    names = [task.get_name() for task in asyncio.all_tasks()]
    return sorted(name for name in names if not re.match(r"Task-\d|watch s\d", name))


async def executed(server: ScriptedServer, times: int) -> None:
    """Return once the server has executed `slow` that often."""
    await server.until(lambda: sum(entry.outcome == "executed" for entry in server.calls("slow")) == times)


@pytest.fixture(autouse=True)
def _watch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.downstream.http.WATCH_AFTER", 0.0)


@requirement("faults:cancel:nothing-is-left")
@pytest.mark.parametrize("give_up", [cancel_the_task, disconnect])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/upstream/chats/{}"], ids=["private", "chat"])
async def test_a_client_without_a_session_may_leave_at_every_turn(give_up: GiveUp, path: str) -> None:
    async with ScriptedServer() as server, gateway_to(server.url, max_concurrency=1) as rig:
        assert text_of(await call(rig.client(), "count")) == "1"
        await nothing_runs(rig, server)
        before = await names_of_tasks()
        for steps in range(STEPS):
            await given_up(rig, server, Request(rig, "POST", slow(steps), path=path.format(steps)), steps, give_up)
            assert text_of(await call(rig.client(), "count")) == "1", steps
        await nothing_runs(rig, server)
        assert len(server.calls("slow")) > STEPS // 4, "most came as far as the server"
        if path == "/mcp":
            await until(lambda: not rig.pool.sessions)
            assert await names_of_tasks() == before


@requirement("faults:cancel:nothing-is-left")
@pytest.mark.parametrize("is_warm", [False, True], ids=["opening", "open"])
@pytest.mark.parametrize("give_up", [cancel_the_call, end_the_session])
async def test_a_client_with_a_session_may_give_up_at_every_turn(give_up: GiveUp, is_warm: bool) -> None:
    async with ScriptedServer() as server, gateway_to(server.url, max_concurrency=1) as rig:
        await (await rig.opened()).status("DELETE")
        await until(lambda: not any(session.key for session in rig.pool.sessions))
        before = await names_of_tasks()
        for steps in range(STEPS):
            client = await rig.opened()
            session = client.headers["mcp-session-id"]
            if is_warm:
                assert text_of(await call(client, "count")) == "1"
            request = Request(rig, "POST", slow(7), session)
            await given_up(rig, server, request, steps, give_up)
            if give_up is cancel_the_call:
                client.next_id = 6
                assert text_of(await call(client, "count")) == str(1 + is_warm), "under the same id"
            await client.status("DELETE")
            newcomer = rig.client()
            assert text_of(await call(newcomer, "count")) == "1"
        await nothing_runs(rig, server)
        await until(lambda: not any(session.key for session in rig.pool.sessions))
        assert await names_of_tasks() == before
        assert len(rig.gateway.app.sessions) == 0


async def test_a_session_client_that_disconnects_has_its_answer_kept_at_every_turn() -> None:
    async with ScriptedServer() as server, gateway_to(server.url) as rig:
        server.open_gate("never")
        for steps in range(STEPS):
            client = await rig.opened()
            request = Request(rig, "POST", slow(7), client.headers["mcp-session-id"])
            await given_up(rig, server, request, steps, disconnect)
            client.next_id = 7
            assert text_of(await call(client, "count")) == "1"
            await executed(server, steps + 1)
            await client.status("DELETE")
        await nothing_runs(rig, server)
        assert len(server.calls("slow")) == STEPS, "a client with a session that leaves cancels nothing"


async def test_an_initialize_may_be_left_at_every_turn() -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    for give_up in (cancel_the_task, disconnect):
        for steps in range(0, STEPS, 2):
            async with ScriptedServer() as server, gateway_to(server.url) as rig:
                await given_up(rig, server, Request(rig, "POST", body), steps, give_up)
                client = await rig.opened()
                assert text_of(await call(client, "count")) == "1"
                assert code_of(await call(client, "fail")) is None
                assert server.initializes <= 2
