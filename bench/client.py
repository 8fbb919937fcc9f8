"""An MCP client of plain sockets, so that its own time hardly counts."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from types import TracebackType
from typing import Any, Final, Self

from bench.processes import BenchError

_TIMEOUT: Final = 10.0
_VERSION: Final = "2025-11-25"


class Client:
    """One kept-alive connection, and at most one MCP session at a time on it. Close it, or use it as a context."""

    def __init__(self, port: int, path: str = "/mcp", headers: dict[str, str] | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")
        self._path = path
        self._headers = {"Host": f"127.0.0.1:{port}", "Accept": "application/json, text/event-stream"} | (headers or {})
        self._ids = itertools.count(1)
        self.session: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, not the session."""
        self._reader.close()
        self._socket.close()

    def initialize(self) -> None:
        """Open a session: two requests."""
        self.session = None
        params = {
            "protocolVersion": _VERSION,
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        }
        headers, _ = self._ask("initialize", params)
        self.session = headers.get("mcp-session-id")
        status, _, _ = self._exchange("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
        if status != 202:
            raise BenchError(f"notifications/initialized was answered with {status}")

    def list_tools(self) -> list[str]:
        """The names of the tools."""
        _, result = self._ask("tools/list", {})
        return [tool["name"] for tool in result["tools"]]

    def call(self, text: str) -> None:
        """Call `echo`, and check its answer."""
        _, result = self._ask("tools/call", {"name": "echo", "arguments": {"text": text}})
        if text not in result["content"][0]["text"]:
            raise BenchError(f"the answer to {text!r} says {result!r}")

    def delete(self) -> None:
        """End the session."""
        self._exchange("DELETE", None)
        self.session = None

    def open_stream(self) -> bool:
        """Use this connection for the session's push stream, from now on; False where the server has none."""
        self._send("GET", b"")
        status, _ = self._head()
        return status == 200

    def get(self, path: str) -> Any:
        """What the server says at another path, as JSON."""
        self._path = path
        return json.loads(self._exchange("GET", None)[2])

    def _ask(self, method: str, params: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        number = next(self._ids)
        status, headers, body = self._exchange(
            "POST", {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        )
        if status != 200:
            raise BenchError(f"{method} was answered with {status}: {body[:200]!r}")
        is_stream = headers.get("content-type", "").startswith("text/event-stream")
        for text in _events(body) if is_stream else (body,):
            message = json.loads(text)
            if message.get("id") == number and "result" in message:
                return headers, message["result"]
        raise BenchError(f"{method} was not answered: {body[:200]!r}")

    def _exchange(self, method: str, message: object | None) -> tuple[int, dict[str, str], bytes]:
        self._send(method, b"" if message is None else json.dumps(message).encode())
        status, headers = self._head()
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, self._chunks()
        return status, headers, self._reader.read(int(headers.get("content-length", "0")))

    def _send(self, method: str, body: bytes) -> None:
        lines = [f"{method} {self._path} HTTP/1.1", *(f"{name}: {value}" for name, value in self._headers.items())]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if self.session is not None:
            lines += [f"Mcp-Session-Id: {self.session}", f"MCP-Protocol-Version: {_VERSION}"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def _head(self) -> tuple[int, dict[str, str]]:
        first = self._reader.readline()
        if not first:
            raise BenchError("the connection was closed")
        headers: dict[str, str] = {}
        while line := self._reader.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(first.split()[1]), headers

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._reader.readline(), 16):
            body += self._reader.read(size)
            self._reader.readline()
        self._reader.readline()
        return body


def _events(body: bytes) -> list[bytes]:
    return [line[5:] for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()]


def stats(upstream_port: int) -> dict[str, int]:
    """The counters of the server of `upstream.c`."""
    with Client(upstream_port) as client:
        found: dict[str, int] = client.get("/stats")
        return found


def answers_a_call(port: int, path: str = "/mcp") -> bool:
    """Whether a client that comes now gets a session and an answer."""
    with contextlib.suppress(OSError), Client(port, path) as client:
        client.initialize()
        client.call("ready")
        client.delete()
        return True
    return False
