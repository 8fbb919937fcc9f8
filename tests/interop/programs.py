"""The real programs of this ring: Holdfast itself, MCP servers in Node, and the official SDK's client."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Collection, Generator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.client import ConnectMode
from mcp.client.session import IncomingMessage
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from processes import ROOT, Process, free_port, start, wait_until

BIN: Final = Path(sys.executable).parent
HOLDFAST: Final = BIN / "holdfast"
PACKAGES: Final = ROOT / "tests" / "interop" / "node" / "node_modules"
NODE: Final = BIN / "node"
EVERYTHING: Final = PACKAGES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
MEMORY: Final = PACKAGES / "@modelcontextprotocol" / "server-memory" / "dist" / "index.js"
NOTION: Final = PACKAGES / "@notionhq" / "notion-mcp-server" / "bin" / "cli.mjs"
EVERYTHING_STDIO: Final = (str(NODE), str(EVERYTHING), "stdio")
NOTION_STDIO: Final = (str(NODE), str(NOTION))
TEST_SERVER_STDIO: Final = (sys.executable, "-m", "holdfast.testing.server", "--stdio")
READY: Final = r"ready in \d+ ms, (\d+) tools"
SMALLEST_STEP: Final = 0.01
"""Of the progress that servers make here."""
PATIENCE: Final = 120.0
"""Seconds within which anything that these programs do on one machine has happened."""


@contextlib.contextmanager
def node(script: str | Path, *arguments: str | Path, port: int, **environment: str) -> Generator[Process]:
    """A server of tests/interop/node, which listens on `port`."""
    program = PACKAGES / script
    assert program.exists(), "the Node packages are not installed: run `make tests/interop/node/node_modules/.ready`"
    with start(NODE, program, *arguments, environment=environment) as process:
        process.wait_for_port(port)
        yield process


@contextlib.contextmanager
def everything() -> Generator[str]:
    """The URL of server-everything over HTTP."""
    port = free_port()
    with node(EVERYTHING, "streamableHttp", port=port, PORT=str(port)):
        yield f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def shipped_server(*arguments: str) -> Generator[str]:
    """The URL of our own scriptable server."""
    with start(sys.executable, "-m", "holdfast.testing.server", *arguments) as process:
        yield process.wait_for_line(r"http://\S+/mcp")[0]


@contextlib.contextmanager
def holdfast(
    *arguments: str | Path, port: int | None = None, ready: str = READY, environment: Mapping[str, str] | None = None
) -> Generator[tuple[str, Process]]:
    """The URL and the process of `holdfast run` with these arguments, once it has printed a line like `ready`."""
    port = port or free_port()
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with start(
        HOLDFAST, "run", "--port", str(port), *arguments, environment={**path, **(environment or {})}
    ) as process:
        process.wait_for_line(ready)
        yield f"http://127.0.0.1:{port}/mcp", process


class Heard:
    """The notifications that a client received outside of its calls' callbacks, in order."""

    def __init__(self) -> None:
        self.messages: list[types.ServerNotification] = []
        self._news = asyncio.Event()

    async def take(self, message: IncomingMessage) -> None:
        """The client's message handler."""
        if not isinstance(message, Exception):
            self.messages.append(message)
            self._news.set()

    async def until(self, kind: type[Any]) -> Any:
        """The first notification of this type; waits for it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for message in self.messages:
                    if isinstance(message, kind):
                        return message
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def sdk_client(
    url: str, *, mode: ConnectMode = "legacy", headers: Mapping[str, str] | None = None, **callbacks: Any
) -> AsyncGenerator[Client]:
    """The official SDK's client, connected; the environment's proxies are left aside."""
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(PATIENCE), trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, cache=None, **callbacks) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def sdk_client_of(
    *arguments: str | Path, mode: ConnectMode = "legacy", **callbacks: Any
) -> AsyncGenerator[Client]:
    """The official SDK's client of a `holdfast` that it starts with these arguments."""
    chosen: ConnectMode = mode
    program = StdioServerParameters(command=str(HOLDFAST), args=[str(part) for part in arguments], cwd=ROOT)
    async with Client(stdio_client(program), mode=chosen, cache=None, **callbacks) as client:
        yield client


def text_of(result: types.CallToolResult) -> str:
    """The text of a tool's result that did not fail."""
    said = "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))
    assert not result.is_error, said
    return said


class Steps:
    """A progress callback that keeps what the server told; status lines of the gateway count in millionths."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float | None]] = []
        self.first = asyncio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        if progress < SMALLEST_STEP:
            return
        self.seen.append((progress, total))
        self.first.set()


class _Screen(io.RawIOBase):
    """What programs write to a terminal; its end is the end of the last of them, which the kernel calls an error."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = os.read(self._descriptor, len(buffer))
        except OSError:
            return 0
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@contextlib.contextmanager
def start_on_terminal(*command: str | Path, columns: int = 100) -> Generator[Process]:
    """As `processes.start`, with a terminal for all three standard streams."""
    master, slave = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
    try:
        argv = [str(part) for part in command]
        child = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    finally:
        os.close(slave)
    screen = io.TextIOWrapper(io.BufferedReader(_Screen(master)), errors="replace")
    process = Process(cast("subprocess.Popen[str]", child), screen)
    try:
        yield process
    finally:
        process.end()


def without_colours(text: str) -> str:
    """`text` without what moves a terminal's cursor or colours it."""
    return re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)


def descendants(pid: int) -> set[int]:
    """The children of a process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        for child in children.get(unseen.pop(), []):
            found.add(child)
            unseen.append(child)
    return found


def living(pids: Collection[int]) -> set[int]:
    """Those of the processes that still run; one that has ended and waits to be reaped does not."""
    states = {pid: _stat(pid) for pid in pids}
    return {pid for pid, fields in states.items() if fields is not None and fields[0] not in "ZX"}


def wait_for_the_end_of(pids: Collection[int]) -> None:
    """Return once none of the processes runs."""
    wait_until(lambda: not living(pids), f"{sorted(pids)} have ended", PATIENCE)


def _stat(pid: int) -> list[str] | None:
    """The state, the parent and more of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
