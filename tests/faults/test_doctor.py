"""`holdfast doctor` and servers that hang, close, talk nonsense or keep to no rule: each ends in a sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from faults.odd_server import NO_GET, OddServer, result_of
from holdfast.config import ServerSettings
from holdfast.doctor.advice import advise, remarks
from holdfast.doctor.examine import examine
from holdfast.doctor.findings import Findings
from holdfast.doctor.named import Named, Wanted
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock
from requirements import requirement
from unit.scripted_http import Peer, SeenRequest, plain, scripted

LONG: Final = 6000.0
"""Seconds for an examination, on a clock that moves only where a server hangs."""
HANG: Final = 31.0
"""As many pass where a server hangs: more than it is waited for."""
SHORT: Final = 1.6
"""Real seconds, where nobody is there to move a clock."""
Answer = Callable[[SeenRequest, Peer], Awaitable[None]]


def of(request: SeenRequest) -> tuple[str, str]:
    """The HTTP method and, of a POST, that of its message."""
    message: dict[str, Any] = json.loads(request.body) if request.method == "POST" else {}
    return request.method, message.get("method", "")


class Peculiar(OddServer):
    """An odd server of which a test says which requests it answers in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.peculiar: dict[tuple[str, str], bytes | None] = {}
        """By what `of` says: what is written; None leaves the request without an answer."""
        self.odd = self.knows_no_more
        self.tools = ("count", "fragile", "endless", "long")
        self.clock = ManualClock()
        self.hangs_for = HANG

    async def answer(self, request: SeenRequest, peer: Peer) -> None:
        what = of(request)
        if what not in self.peculiar:
            await super().answer(request, peer)
        elif (written := self.peculiar[what]) is not None:
            peer.write(written)
        else:
            await self.hang(peer)

    async def hang(self, peer: Peer) -> None:
        """Leave a request without an answer, for longer than it is waited for."""
        self.clock.advance(self.hangs_for)
        await peer.gone()

    async def knows_no_more(self, message: dict[str, Any], peer: Peer) -> None:
        error = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}}
        peer.write(plain(json.dumps(error).encode(), "200 OK", "application/json"))

    @property
    def deleted(self) -> list[str]:
        """The sessions that were ended, in order."""
        return [request.headers["mcp-session-id"] for request in self.http.seen("DELETE")]


@asynccontextmanager
async def peculiar(**answers: bytes | None) -> AsyncGenerator[Peculiar]:
    """Such a server; `answers` by `METHOD` or `POST_method`, with `_` for `/`."""
    server = Peculiar()
    for name, written in answers.items():
        method, _, rest = name.partition("_")
        server.peculiar[method, rest.replace("_", "/")] = written
    async with scripted(server.answer) as server.http:
        yield server


async def examined(server: Peculiar, wanted: Wanted | None = None) -> Findings:
    return await examined_at(server.url, server.clock, wanted)


async def examined_at(url: str, clock: ManualClock, wanted: Wanted | None = None) -> Findings:
    async with asyncio.timeout(120):
        return await examine(ServerSettings(name="it", url=url), wanted or Wanted(), total=LONG, clock=clock)


def settings(findings: Findings) -> dict[str, str | int]:
    return {one.setting: one.value for one in advise(findings)}


# Those that cannot be talked to.


@asynccontextmanager
async def accepting(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncGenerator[str]:
    """The URL of something that takes connections; `serve` has each of them until the block is left."""
    async with TaskScope() as scope:

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async def served() -> None:
                try:
                    await serve(reader, writer)
                finally:
                    writer.close()

            scope.start(served(), "serve")

        async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"


@requirement("doctor:bounded")
async def test_a_server_that_never_answers_ends_in_a_sentence() -> None:
    clock = ManualClock()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        clock.advance(HANG)
        await asyncio.Event().wait()

    async with accepting(hang) as url:
        it = await examined_at(url, clock)
    assert it.problem.startswith("no answer within")
    assert it.opened is None
    assert advise(it) == []


@requirement("doctor:bounded")
@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "closed the connection|was lost"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "plain text “hello”"),
        (
            b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 11\r\n\r\n<p>Nope</p>",
            "404 an HTML page",
        ),
        (b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "--key or --header"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "such as localhost"),
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", "ask again later"),
        (b"HTTP/1.1 302 Found\r\nlocation: https://example.org/\r\ncontent-length: 0\r\n\r\n", "302"),
    ],
)
async def test_what_is_no_mcp_server_ends_in_a_sentence(written: bytes, said: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(written)
        await writer.drain()

    async with accepting(answer) as url:
        it = await examined_at(url, ManualClock())
    assert any(word in it.problem for word in said.split("|")), it.problem
    assert it.opened is None


@requirement("doctor:bounded")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("false",), "false exited with code 1"),
        (("cat",), "as an MCP server does"),
        (("sh", "-c", "echo no licence >&2; exit 3"), "no licence"),
    ],
)
async def test_a_command_that_is_no_mcp_server_ends_in_a_sentence(command: tuple[str, ...], said: str) -> None:
    async with asyncio.timeout(120):
        it = await examine(ServerSettings(name="it", command=command), Wanted(), total=LONG)
    assert said in it.problem


@requirement("doctor:bounded")
async def test_a_process_that_hangs_ends_in_a_sentence_and_is_ended() -> None:
    async with asyncio.timeout(120):
        it = await examine(ServerSettings(name="it", command=("sleep", "600")), Wanted(), total=SHORT)
    assert "within" in it.problem or "time was over" in it.problem


# Those that are peculiar.


@requirement("doctor:bounded")
async def test_a_server_that_knows_only_the_bare_minimum_is_examined_whole() -> None:
    async with peculiar() as server:
        it = await examined(server)
        assert server.methods("tools/call") == []
        assert set(server.deleted) == {"odd-1", "odd-2"}
    assert (it.problem, it.is_cut, it.left_behind) == ("", False, 0)
    assert it.push_stream is not None
    assert (it.push_stream.is_open, it.push_stream.answer.status) == (False, 405)
    assert it.end is not None
    assert it.end.is_gone is False, "it answers a ping after the DELETE"
    assert it.unknown_id is not None
    assert not it.unknown_id.is_refused
    assert any("lost cannot be noticed" in remark for remark in remarks(it))


@requirement("doctor:calls-what-was-named")
async def test_no_tool_is_called_that_was_not_named() -> None:
    """It offers what would do: `remember` and `recall`, and tools that say that they only read."""
    names = ("remember", "recall", "count", "list_things")
    tools = [{"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}} for name in names]

    async def answer(message: dict[str, Any], peer: Peer) -> None:
        peer.write(plain(result_of(message, {"tools": tools}), "200 OK", "application/json"))

    server = Peculiar()

    async def serve(request: SeenRequest, peer: Peer) -> None:
        if of(request) == ("POST", "tools/list"):
            await answer(json.loads(request.body), peer)
        else:
            await server.answer(request, peer)

    async with scripted(serve) as server.http:
        it = await examined(server)
        assert server.methods("tools/call") == []
    assert it.lists is not None
    assert it.lists.read_only == names
    assert it.state is None


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_that_leaves_discovery_unanswered_is_advised_not_to_be_asked() -> None:
    async with peculiar(POST_server_discover=None) as server:
        it = await examined(server)
    assert it.modern is not None
    assert (it.modern.is_spoken, it.modern.answer.kind) == (False, "nothing")
    assert settings(it)["era"] == "handshake"


@requirement("doctor:nothing-is-left")
async def test_a_session_that_discovery_was_given_is_ended_too() -> None:
    refused = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}'
    given = plain(refused, "400 Bad Request", "application/json", "mcp-session-id: worthless")
    async with peculiar(POST_server_discover=given) as server:
        it = await examined(server)
        assert "worthless" in server.deleted
    assert it.modern is not None
    assert it.modern.opens_session
    assert settings(it)["era"] == "handshake"


@requirement("doctor:findings:as-the-server-is")
@pytest.mark.parametrize("counts_sessions", [False, True])
async def test_a_limit_on_requests_without_a_session_is_told_from_one_on_all(counts_sessions: bool) -> None:
    left = 50
    server = Peculiar()

    async def serve(request: SeenRequest, peer: Peer) -> None:
        nonlocal left
        method = of(request)[1]
        left -= counts_sessions or "mcp-session-id" not in request.headers
        limits = ("ratelimit-limit: 50", f"ratelimit-remaining: {left}")
        if method not in {"server/discover", "tools/list"}:
            await server.answer(request, peer)
            return
        result: dict[str, Any] = (
            {"supportedVersions": ["2026-07-28"], "capabilities": {}} if method == "server/discover" else {"tools": []}
        )
        peer.write(plain(result_of(json.loads(request.body), result), "200 OK", "application/json", *limits))

    async with scripted(serve) as server.http:
        it = await examined(server)
    assert it.allowance is not None
    assert it.allowance.limit == 50
    assert it.modern is not None
    assert (it.modern.is_spoken, it.modern.counts_requests) == (True, not counts_sessions)
    assert settings(it).get("era") == (None if counts_sessions else "handshake")


@requirement("doctor:findings:as-the-server-is")
async def test_a_server_that_does_not_know_delete_keeps_its_sessions_and_that_is_said() -> None:
    async with peculiar(DELETE=NO_GET) as server:
        it = await examined(server)
    assert it.end is not None
    assert it.end.answer.status == 405
    assert it.left_behind == 2
    assert settings(it)["idle_timeout"] == 7200
    assert any("2 sessions could not be ended" in remark for remark in remarks(it))


@requirement("doctor:findings:as-the-server-is")
async def test_a_second_session_that_kills_the_first_is_one_too_many() -> None:
    """As mcp-searxng 0.10.0: it is accepted, and then the first hangs."""
    living: list[str] = []

    async def serve(request: SeenRequest, peer: Peer) -> None:
        session = request.headers.get("mcp-session-id")
        if session is not None and session != living[-1] and request.method == "POST":
            await server.hang(peer)
            return
        if of(request) == ("POST", "initialize"):
            living.append(f"odd-{len(living) + 1}")
        await server.answer(request, peer)

    server = Peculiar()
    async with scripted(serve) as server.http:
        it = await examined(server)
    assert it.second is not None
    assert (it.second.is_accepted, it.second.does_first_survive) == (True, False)
    assert (settings(it)["scope"], settings(it)["max_sessions"]) == ("shared", 1)
    assert any("leave it to Holdfast alone" in remark for remark in remarks(it))


@requirement("doctor:findings:as-the-server-is")
async def test_requests_at_once_that_get_lost_are_counted() -> None:
    busy = asyncio.Event()

    async def odd(message: dict[str, Any], peer: Peer) -> None:
        if message["params"].get("name") != "fragile":
            await server.knows_no_more(message, peer)
        elif message["params"]["_meta"]["progressToken"].endswith(("alone", "0")):
            peer.write(plain(result_of(message, {"content": []}), "200 OK", "application/json"))
        else:
            busy.set()
            peer.reset()

    server = Peculiar()
    server.odd = odd
    async with scripted(server.answer) as server.http:
        it = await examined(server, Wanted(call=Named("fragile")))
    assert busy.is_set()
    assert it.parallel is not None
    assert (it.parallel.sent, it.parallel.answered, it.parallel.pace) == (3, 1, "unknown")
    assert settings(it)["serial"] == "true"


@requirement("doctor:findings:as-the-server-is")
async def test_a_tool_that_never_answers_is_not_called_three_times_more() -> None:
    async with peculiar(POST_tools_call=None) as server:
        it = await examined(server, Wanted(call=Named("endless")))
        assert sum(of(request) == ("POST", "tools/call") for request in server.http.requests) == 1
    assert it.call is not None
    assert it.call.has_failed
    assert it.parallel is not None
    assert it.parallel.sent == 0
    assert "serial" not in settings(it)


@requirement("doctor:findings:as-the-server-is")
async def test_progress_that_comes_on_the_stream_of_another_call_is_noticed() -> None:
    """As supergateway's: whichever call's stream is the oldest has the progress of all."""
    waiting: list[tuple[dict[str, Any], Peer]] = []

    async def odd(message: dict[str, Any], peer: Peer) -> None:
        if message["params"].get("name") != "long":
            await server.knows_no_more(message, peer)
            return
        waiting.append((message, peer))
        is_alone = message["params"]["_meta"]["progressToken"].endswith("alone")
        if is_alone or len(waiting) == 3:
            answer(waiting)
            waiting.clear()
        if not is_alone:
            await peer.gone()

    def answer(calls: list[tuple[dict[str, Any], Peer]]) -> None:
        events: list[list[bytes]] = [[] for _ in calls]
        for number, (message, _) in enumerate(calls):
            params = {"progressToken": message["params"]["_meta"]["progressToken"], "progress": 1}
            update = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            events[0].append(json.dumps(update).encode())
            events[number].append(result_of(message, {"content": []}))
        for (_, peer), said in zip(calls, events, strict=True):
            body = b"".join(b"data: %b\n\n" % line for line in sorted(said, key=lambda line: b"result" in line))
            peer.write(plain(body, "200 OK", "text/event-stream"))

    server = Peculiar()
    server.odd = odd
    async with scripted(server.answer) as server.http:
        it = await examined(server, Wanted(call=Named("long")))
    assert it.call is not None
    assert (it.call.progress, it.call.strayed) == (1, 2)
    assert settings(it)["serial"] == "true"


@requirement("doctor:findings:as-the-server-is")
async def test_a_redirection_is_followed_and_pasted() -> None:
    server = Peculiar()

    async def serve(request: SeenRequest, peer: Peer) -> None:
        if request.target == "/mcp":
            peer.write(plain(b"", "307 Temporary Redirect", "text/plain", "location: /mcp/"))
        else:
            await server.answer(request, peer)

    async with scripted(serve) as server.http:
        it = await examined(server)
    assert (it.problem, it.moved_to) == ("", "/mcp/")


@requirement("doctor:bounded")
async def test_an_event_id_that_no_header_can_carry_is_not_sent_back() -> None:
    server = Peculiar()

    async def serve(request: SeenRequest, peer: Peer) -> None:
        if of(request) == ("POST", "ping"):
            answer = result_of(json.loads(request.body), {})
            peer.write(plain(b"id: a\x01b\ndata: %b\n\n" % answer, "200 OK", "text/event-stream"))
        else:
            await server.answer(request, peer)

    async with scripted(serve) as server.http:
        it = await examined(server)
    assert (it.problem, it.is_cut) == ("", False)
    assert it.resumption is not None
    assert not it.resumption.has_event_ids


@requirement("doctor:nothing-is-left")
async def test_one_that_runs_out_of_time_says_so_and_ends_its_session() -> None:
    async with peculiar(GET=None) as server:
        server.hangs_for = LONG
        it = await examined(server)
        assert server.deleted == ["odd-1"]
    assert it.is_cut
    assert it.problem == ""
    assert any("--timeout" in remark for remark in remarks(it))


@requirement("doctor:bounded")
async def test_an_ending_that_hangs_is_given_up_and_said() -> None:
    async with peculiar(DELETE=None) as server:
        it = await examined(server)
    assert it.left_behind == 2
