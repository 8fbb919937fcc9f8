"""The command `holdfast run` as a person meets it: what it says, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from bare_client import BareClient, Response
from interop.programs import (
    BIN,
    EVERYTHING_STDIO,
    HOLDFAST,
    NODE,
    PACKAGES,
    PATIENCE,
    READY,
    TEST_SERVER_STDIO,
    descendants,
    holdfast,
    shipped_server,
    start_on_terminal,
    wait_for_the_end_of,
    without_colours,
)
from processes import Process, free_port, start
from requirements import requirement

ATTEMPTS: Final = 5
AT_ONCE: Final = 1.5
"""Seconds: in order, a stubborn server takes three."""
WITH_MORE_GRACE: Final = """
import sys
from holdfast.cli import main, serving
serving.GRACE = serving._CUT = 300
sys.argv[0] = "holdfast"
main.main()
"""
"""Holdfast, but calls under way may take longer than a busy machine does."""


@contextmanager
def answering(status: int, content_type: str, body: bytes) -> Generator[str]:
    """The URL of a web server that knows one answer."""

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/mcp"
        server.shutdown()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


# What it says at the start.


@requirement("command:start:says-where-and-when-ready")
def test_on_a_pipe_each_step_is_a_line() -> None:
    with holdfast("--name", "notes", "--", *TEST_SERVER_STDIO) as (url, process):
        lines = process.output.splitlines()
        assert re.fullmatch(r"Holdfast \d+\.\d+\.\d+\S*", lines[0])
        assert lines[1] == f"  {url} and {url}/notes"
        assert lines[2] == "  notes  connecting…"
        assert re.fullmatch(r"  notes  ready in \d+ ms, \d+ tools", lines[3])
        assert len(lines) == 4


def test_on_a_terminal_the_line_changes_in_place() -> None:
    port = str(free_port())
    with start_on_terminal(HOLDFAST, "run", "--port", port, "--name", "notes", "--", *TEST_SERVER_STDIO) as process:
        process.wait_for_line(READY)
        assert "\x1b[" in process.output, "it is coloured"
        said = without_colours(process.output)
        assert f"http://127.0.0.1:{port}/mcp and http://127.0.0.1:{port}/mcp/notes" in said
        assert said.count("Holdfast ") == 1
        process.send(signal.SIGINT)
        assert process.wait() == 0
        assert "Traceback" not in process.output


def test_help_and_version_are_answered_at_once() -> None:
    for arguments, words in ((["--version"], "holdfast "), ([], "run"), (["run", "--help"], "--scope")):
        with start(HOLDFAST, *arguments) as process:
            assert process.wait(PATIENCE) == 0
            assert words in process.output


# Mistakes.

MISTAKES: Final[dict[str, tuple[list[str], str]]] = {
    "no-server": ([], "name a server"),
    "no-such-command": (["--", "no-such-command-here"], "command not found"),
    "not-a-program": (["--", "./README.md"], "no program"),
    "no-url": (["ftp://127.0.0.1/mcp"], "no http:// or https:// URL"),
    "url-without-host": (["http:///mcp"], "URL"),
    "url-with-bad-port": (["http://127.0.0.1:port/mcp"], "port"),
    "url-with-password": (["http://u:hidden-in-url@127.0.0.1/mcp"], "credentials"),
    "two-urls": (["http://127.0.0.1:1/mcp", "x"], "too many"),
    "reachable-without-key": (["--host", "0.0.0.0", "http://127.0.0.1:1/mcp"], "--key"),
    "address-of-others": (["--host", "192.0.2.1", "--key", "k", "http://127.0.0.1:1/mcp"], "cannot listen"),
    "unset-variable": (["--header", "X-Key=${HOLDFAST_TEST_UNSET}", "http://127.0.0.1:1/mcp"], "HOLDFAST_TEST_UNSET"),
    "unset-key": (["--key", "${HOLDFAST_TEST_UNSET}", "http://127.0.0.1:1/mcp"], "HOLDFAST_TEST_UNSET"),
    "empty-key": (["--key", "${HOLDFAST_TEST_EMPTY}", "http://127.0.0.1:1/mcp"], "--key is empty"),
    "header-without-value": (["--header", "X-Key", "http://127.0.0.1:1/mcp"], "NAME=VALUE"),
    "header-for-a-command": (["--header", "X-Key=v", "--", *TEST_SERVER_STDIO], "--header is for servers at a URL"),
    "bad-trust": (["--trust", "everyone", "http://127.0.0.1:1/mcp"], "--trust takes"),
    "bad-scope": (["--scope", "everyone", "http://127.0.0.1:1/mcp"], "--scope takes 'chat', 'user' or 'shared'"),
    "bad-name": (["--name", "a/b", "http://127.0.0.1:1/mcp"], "--name takes letters"),
    "bad-port": (["--port", "99999", "http://127.0.0.1:1/mcp"], "--port takes a number up to 65535"),
    "no-number": (["--port", "many", "http://127.0.0.1:1/mcp"], "--port"),
    "no-sessions": (["--max-sessions", "0", "http://127.0.0.1:1/mcp"], "--max-sessions takes a number from 1 on"),
    "no-time": (["--idle-timeout", "0", "http://127.0.0.1:1/mcp"], "--idle-timeout takes a number above 0"),
    "bad-level": (["--log-level", "loud", "http://127.0.0.1:1/mcp"], "--log-level"),
    "unknown-option": (["--sope", "chat", "http://127.0.0.1:1/mcp"], "--scope"),
    "options-of-the-server": (["npx", "-y", "some-server"], "come after --"),
}


def assert_is_a_mistake(process: Process, words: str) -> None:
    assert process.wait(PATIENCE) == 2
    assert re.fullmatch(r"holdfast: [^\n]+\n", process.output), process.output
    assert words in process.output


@requirement("command:mistakes:one-line-and-exit-2")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_line(mistake: str) -> None:
    arguments, words = MISTAKES[mistake]
    environment = {"HOLDFAST_TEST_EMPTY": "", "COLUMNS": "60"}
    port = [] if "--port" in arguments else ["--port", "0"]
    with start(HOLDFAST, "run", *port, *arguments, environment=environment) as process:
        assert_is_a_mistake(process, words)
        assert "hidden-in-url" not in process.output


def test_a_port_that_is_taken_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with start(HOLDFAST, "run", "--port", port, "http://127.0.0.1:1/mcp") as process:
            assert_is_a_mistake(process, f"cannot listen on 127.0.0.1 port {port}: address already in use")


# Servers that are not there.


@requirement("command:server:down-is-no-end")
async def test_a_server_that_is_down_is_awaited() -> None:
    port = free_port()
    with holdfast(f"http://127.0.0.1:{port}/mcp", ready=r"failed: connection to .* refused") as (url, process):
        client = BareClient(port_of(url))
        async with asyncio.timeout(PATIENCE):
            answer = await client.answer(client.tool("echo"))
        assert answer["error"]["code"] == -31001
        assert "refused" in answer["error"]["message"]
        assert process.is_running()
        with shipped_server("--port", str(port)):
            process.wait_for_line(r"ready after \d+\.\d s, \d+ tools")
            async with asyncio.timeout(PATIENCE):
                assert "result" in await client.answer(client.tool("echo"))
        assert process.output.count("refused") == 1, "the reason is said once, not at every attempt"


@pytest.mark.parametrize(
    ("status", "reason"), [(200, "text/html"), (404, "404"), (502, "502")], ids=["ok", "not-found", "bad-gateway"]
)
def test_a_server_that_answers_with_a_web_page_is_none(status: int, reason: str) -> None:
    page = b"<!doctype html>\n<html><body><h1>It works!</h1></body></html>\n"
    with answering(status, "text/html", page) as server, holdfast(server, ready="failed: .*") as (_, process):
        failed = process.wait_for_line(r"failed: (.*)")[1]
        assert reason in failed
        assert "<" not in failed
        assert process.is_running()


def test_a_command_that_ends_at_once_is_quoted() -> None:
    script = "console.error('no license key\\u001b[2J\\nforged line'); process.exit(3)"
    with holdfast("--", NODE, "-e", script, ready="failed: .*") as (_, process):
        failed = process.wait_for_line(r"failed: (.*)")[1]
        assert "code 3" in failed
        assert "forged line" in failed
        assert "\x1b" not in process.output
        assert not re.search(r"(?m)^forged", process.output)


# While it runs.


async def test_how_to_name_a_chat_is_said_once() -> None:
    with holdfast("--", *TEST_SERVER_STDIO) as (url, process):
        client = BareClient(port_of(url))
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                assert "result" in await client.answer(client.tool("echo"))
        process.wait_for_line("a call named no chat")
        assert process.output.count("named no chat") == 1
        assert "--trust chat=HEADER" in process.output


async def test_a_missing_user_is_said_once_too_and_lists_are_no_reason() -> None:
    with holdfast("--trust", "user=x-user", "--", *TEST_SERVER_STDIO) as (url, process):
        client = BareClient(port_of(url))
        async with asyncio.timeout(PATIENCE):
            assert "result" in await client.answer(client.call("tools/list"))
            assert "no user" not in process.output
            for _ in range(2):
                assert "result" in await client.answer(client.tool("echo"))
        process.wait_for_line("a call named no user")
        assert process.output.count("named no user") == 1


@requirement("command:secrets:never-in-the-output")
async def test_a_header_reaches_the_server_and_no_secret_the_log() -> None:
    header, key = "s3cr3t-for-the-server", "s3cr3t-of-the-client"
    options = ("--header", "X-Api-Key=${HOLDFAST_TEST_HEADER}", "--key", "${HOLDFAST_TEST_KEY}", "--log-level", "debug")
    environment = {"HOLDFAST_TEST_HEADER": header, "HOLDFAST_TEST_KEY": key}
    with shipped_server() as server, holdfast(*options, server, environment=environment) as (url, process):
        client = BareClient(port_of(url))
        client.headers["authorization"] = f"Bearer {key}"
        async with asyncio.timeout(PATIENCE):
            await client.open()
            session = client.headers["mcp-session-id"]
            seen = await client.answer(client.tool("whoami"))
        assert json.loads(seen["result"]["content"][0]["text"])["headers"]["x-api-key"] == header
        process.send(signal.SIGTERM)
        assert process.wait() == 0
        assert "DEBUG" in process.output
        assert not [secret for secret in (header, key, session) if secret in process.output]


# How it ends.

NPX_STDIO: Final = ("npx", "--offline", "--prefix", str(PACKAGES.parent), "mcp-server-everything", "stdio")


@pytest.fixture(params=["node", "npx"])
def everything_command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Two ways to start server-everything; npx runs it as a grandchild."""
    if request.param == "npx":
        assert (BIN / "npx").exists()
        return NPX_STDIO
    return EVERYTHING_STDIO


@asynccontextmanager
async def at_work(command: tuple[str, ...]) -> AsyncGenerator[tuple[Process, set[int]]]:
    """A gateway with a client's stream open and calls running, and all the processes that it started."""
    with holdfast("--", *command) as (url, process):
        client = BareClient(port_of(url))
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(PATIENCE):
                await client.open()
                await stack.enter_async_context(client.request("GET"))
                for token in ("with a session", "without one"):
                    call = client.tool("trigger-long-running-operation", duration=60, steps=600)
                    call["params"]["_meta"] = {"progressToken": token}
                    running = await stack.enter_async_context(client.request("POST", call))
                    while not ((event := await running.event()) and b"progress" in event.data):
                        assert event is not None, "the call ended"
                    client.headers.clear()
            yield process, descendants(process.pid)


@requirement("command:end:nothing-is-left-within-5-s")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_all_it_started(everything_command: tuple[str, ...], number: signal.Signals) -> None:
    async with at_work(everything_command) as (process, started):
        assert len(started) >= 3, "the watchdog and a server for each session"
        process.send(number)
        assert await asyncio.to_thread(process.wait) == 0
        await asyncio.to_thread(wait_for_the_end_of, started)
        assert "Traceback" not in process.output
        assert "never awaited" not in process.output


@asynccontextmanager
async def under_way(client: BareClient, gate: str) -> AsyncGenerator[Response]:
    """A call that the server has begun to work on, and that waits at its `gate`."""
    call = client.tool("progress", steps=2, gate=gate)
    call["params"]["_meta"] = {"progressToken": "t"}
    async with client.request("POST", call) as running:
        while not ((event := await running.event()) and b"progress" in event.data):
            assert event is not None, "the call ended"
        yield running


async def last_message(running: Response) -> dict[str, Any]:
    last: dict[str, Any] = {}
    while (event := await running.event()) is not None:
        last = json.loads(event.data)
    return last


@asynccontextmanager
async def with_a_session_and_without(url: str, gate: str) -> AsyncGenerator[list[Response]]:
    """A call of each kind of client, under way."""
    client = BareClient(port_of(url))
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        await client.open()
        first = await stack.enter_async_context(under_way(client, gate))
        client.headers.clear()
        yield [first, await stack.enter_async_context(under_way(client, gate))]


@requirement("command:end:nothing-is-left-within-5-s")
async def test_calls_that_do_not_end_soon_hear_why() -> None:
    with shipped_server() as server, holdfast(server) as (url, process):
        async with with_a_session_and_without(url, gate="never") as calls:
            process.send(signal.SIGTERM)
            for running in calls:
                error = (await last_message(running))["error"]
                assert error["code"] == -31002
                assert "the gateway is shutting down" in error["message"]
        assert await asyncio.to_thread(process.wait) == 0


@requirement("command:end:nothing-is-left-within-5-s")
async def test_calls_under_way_may_still_end() -> None:
    port = free_port()
    run = ("-c", WITH_MORE_GRACE, "run", "--port", str(port))
    with shipped_server() as server, start_on_terminal(sys.executable, *run, server) as process:
        process.wait_for_line(READY)
        async with with_a_session_and_without(f"http://127.0.0.1:{port}/mcp", gate="soon") as calls:
            process.send(signal.SIGTERM)
            await asyncio.to_thread(process.wait_for_line, "Ctrl-C once more")
            async with BareClient(port_of(server)).request("POST", path="/gates/soon") as opened:
                assert opened.status == 204
            for running in calls:
                assert "result" in await last_message(running)
        assert await asyncio.to_thread(process.wait) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    """In order, it would have to wait: this server ignores the end of its input, and SIGTERM.

    A busy machine only adds to what it takes, so one end at once of several proves it.
    """
    taken: list[float] = []
    while not taken or (min(taken) > AT_ONCE and len(taken) < ATTEMPTS):
        with start_on_terminal(HOLDFAST, "run", "--port", "0", "--", *TEST_SERVER_STDIO, "--stubborn") as process:
            process.wait_for_line(READY)
            started = descendants(process.pid)
            process.send(signal.SIGINT)
            process.wait_for_line("Ctrl-C once more")
            began = time.monotonic()
            process.send(signal.SIGINT)
            assert process.wait() == 0
            taken.append(time.monotonic() - began)
            wait_for_the_end_of(started)
            assert "Traceback" not in process.output
    assert min(taken) <= AT_ONCE


async def test_killed_it_leaves_nothing_behind(everything_command: tuple[str, ...]) -> None:
    async with at_work(everything_command) as (process, started):
        process.send(signal.SIGKILL)
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        await asyncio.to_thread(wait_for_the_end_of, started)
