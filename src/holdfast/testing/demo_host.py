"""A chat host that opens a new MCP client for every message, and a script that has no session at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlsplit

from holdfast.testing.demo_processes import CHAT_HEADER, USER_HEADER, DemoFailed
from holdfast.wire.headers import EVENT_STREAM, JSON, media_type
from holdfast.wire.sse import SseParser

TIMEOUT: Final = 20.0
"""Seconds that one request may take; the demonstration fails after that."""
STEPS: Final = 3
"""Progress reports that the script's call asks for."""

_BOTH: Final = f"{JSON}, {EVENT_STREAM}"
_MAX_EVENT_BYTES: Final = 1_000_000


@dataclass(slots=True)
class Chat:
    """One conversation, and what its messages brought back."""

    user: str
    name: str
    secret: str
    """What its first message has the server remember."""
    counts: list[str] = field(default_factory=list[str])
    recalled: str | None = None
    """None where the server remembered nothing."""
    seconds: list[float] = field(default_factory=list[float])
    """How long each message took, from connecting to disconnecting."""

    @property
    def messages(self) -> Sequence[tuple[str, dict[str, str]]]:
        """The tool that each message has called, with its arguments."""
        return (
            ("remember", {"key": "secret", "value": self.secret}),
            ("count", {}),
            ("count", {}),
            ("recall", {"key": "secret"}),
        )

    @property
    def is_kept(self) -> bool:
        """Whether its state lasted from message to message, and was its own."""
        return self.counts == ["1", "2"] and self.recalled == self.secret

    @property
    def is_forgotten(self) -> bool:
        """Whether each message met a server that knew nothing."""
        return self.counts == ["1", "1"] and self.recalled is None


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """What a client without a session got for one tool call."""

    status: int
    has_result: bool
    progress: int


def chats() -> list[Chat]:
    """Two chats of one person and one of another."""
    return [
        Chat("ada", "chat A1", "harbour"),
        Chat("ada", "chat A2", "lantern"),
        Chat("ben", "chat B1", "compass"),
    ]


def play(url: str, conversations: Sequence[Chat]) -> None:
    """Send the messages of all chats in turn, each through a client of its own."""
    for number in range(len(conversations[0].messages)):
        for chat in conversations:
            started = time.perf_counter()
            _send(url, chat, *chat.messages[number])
            chat.seconds.append(time.perf_counter() - started)


def _send(url: str, chat: Chat, tool: str, arguments: dict[str, str]) -> None:
    """One message as hosts send it: connect, initialize, list the tools, call one, disconnect."""
    with closing(_Client(url, {USER_HEADER: chat.user, CHAT_HEADER: chat.name})) as client:
        client.initialize()
        client.request("tools/list", {})
        result = client.request("tools/call", {"name": tool, "arguments": arguments})
        client.delete()
    text: str = result["content"][0]["text"]
    if tool == "count":
        chat.counts.append(text)
    elif tool == "recall" and not result.get("isError"):
        chat.recalled = text


class _Client:
    """A minimal MCP client: one connection, one session."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        self._headers = {"Accept": _BOTH, "Content-Type": JSON, **headers}
        self._next_id = 0

    def initialize(self) -> None:
        """Open a session."""
        client = {"name": "demo-host", "version": "1"}
        self.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self._exchange("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})

    def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a request. Raises `DemoFailed` where there is none."""
        self._next_id += 1
        for message in self._exchange("POST", _request(self._next_id, method, params)):
            if message.get("id") == self._next_id and "result" in message:
                result: dict[str, Any] = message["result"]
                return result
        raise DemoFailed(f"{method} brought no result")

    def delete(self) -> None:
        """End the session."""
        self._exchange("DELETE")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _exchange(self, verb: str, message: object = None) -> list[dict[str, Any]]:
        body = None if message is None else json.dumps(message).encode()
        self._connection.request(verb, self._path, body, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise DemoFailed(f"{verb} was answered {response.status}: {content.decode(errors='replace')[:300]}")
        session_id = response.headers.get("mcp-session-id")
        if session_id is not None:
            self._headers["Mcp-Session-Id"] = session_id
        return list(_messages(content, response.headers.get("content-type")))


def has_curl() -> bool:
    """Whether the script is run by curl itself."""
    return shutil.which("curl") is not None


def run_script(url: str) -> ScriptRun:
    """Call a tool that reports progress, in one POST without a session: by curl if there is one."""
    params = {"name": "progress", "arguments": {"steps": STEPS}, "_meta": {"progressToken": "steps"}}
    body = json.dumps(_request(1, "tools/call", params)).encode()
    curl = shutil.which("curl")
    status, content, content_type = _post(url, body) if curl is None else _post_by_curl(curl, url, body)
    received = list(_messages(content, content_type)) if status == 200 else []
    return ScriptRun(
        status,
        has_result=any(message.get("id") == 1 and "result" in message for message in received),
        progress=sum(_is_step(message) for message in received),
    )


def _is_step(message: Mapping[str, Any]) -> bool:
    """Whether it is a progress report of the tool; that a session is being opened has no total."""
    return message.get("method") == "notifications/progress" and "total" in message["params"]


def _post_by_curl(curl: str, url: str, body: bytes) -> tuple[int, bytes, str | None]:
    headers = ["--header", f"Content-Type: {JSON}", "--header", f"Accept: {_BOTH}"]
    says = ["--write-out", "\n%{http_code} %{content_type}"]
    limits = ["--silent", "--no-buffer", "--noproxy", "*", "--max-time", f"{TIMEOUT:g}"]
    done = subprocess.run(  # noqa: S603 - curl, by its full path
        [curl, *limits, *headers, *says, "--data-binary", "@-", url], input=body, capture_output=True, check=False
    )
    content, _, trailer = done.stdout.rpartition(b"\n")
    status, _, content_type = trailer.decode().partition(" ")
    return int(status or "0"), content, content_type


def _post(url: str, body: bytes) -> tuple[int, bytes, str | None]:
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)) as connection:
        connection.request("POST", parts.path, body, {"Content-Type": JSON, "Accept": _BOTH})
        response = connection.getresponse()
        return response.status, response.read(), response.headers.get("content-type")


def handshakes(url: str) -> int:
    """How often the test server at `url` was asked to initialize."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)) as connection:
        connection.request("GET", "/ledger")
        report: dict[str, Any] = json.loads(connection.getresponse().read())
    count: int = report["initializes"]
    return count


def _request(request_id: int, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def _messages(content: bytes, content_type: str | None) -> Iterator[dict[str, Any]]:
    """The JSON-RPC messages of a response."""
    if media_type(content_type) == EVENT_STREAM:
        for event in SseParser(_MAX_EVENT_BYTES).feed(content):
            if event.data:
                yield json.loads(event.data)
    elif content:
        yield json.loads(content)
