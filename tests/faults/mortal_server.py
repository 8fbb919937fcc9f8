"""An MCP server that is killed in mid-call, again and again: `python -I -S mortal_server.py --help`.

Over HTTP the parent holds the port and forks a child that serves; when the child dies the next one
takes over, in a millisecond. A child kills itself with SIGKILL at a point that its random numbers
choose: before a tool ran or after, with half of the answer written or all of it. Sessions die with
it; the ledger is a file. With `--stdio` others kill it, and its tool `progress` never ends.

Without site-packages, so nothing of the project or beyond the standard library is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import selectors
import signal
import socket
import sys
from typing import Any, Final

POINTS: Final = ("read", "executed", "head", "half", "answered")
"""Where a child may die: `executed` and later come after the line in the ledger."""
TOOLS: Final = [
    {"name": "count", "inputSchema": {"type": "object"}},
    {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
]


class Child:
    """Serves until it is time to die."""

    def __init__(self, listener: socket.socket, ledger: int, rng: random.Random, calls: int) -> None:
        self._listener = listener
        self._ledger = ledger
        self._calls_left = rng.randint(1, calls) if calls else 0
        self._point = rng.choice(POINTS)
        self._selector = selectors.DefaultSelector()
        self._received: dict[socket.socket, bytes] = {}
        self._counts: dict[str, int] = {}

    def serve(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                if peer is self._listener:
                    self._accept()
                else:
                    self._read(peer)

    def _accept(self) -> None:
        peer, _ = self._listener.accept()
        self._received[peer] = b""
        self._selector.register(peer, selectors.EVENT_READ)

    def _read(self, peer: socket.socket) -> None:
        try:
            chunk = peer.recv(65536)
        except OSError:
            chunk = b""
        if not chunk:
            self._selector.unregister(peer)
            del self._received[peer]
            peer.close()
            return
        received = self._received[peer] + chunk
        while (request := _split(received)) is not None:
            head, body, received = request
            self._answer(peer, head, body)
        self._received[peer] = received

    def _answer(self, peer: socket.socket, head: str, body: bytes) -> None:
        method = head.partition(" ")[0]
        if method != "POST":
            _send(peer, "405 Method Not Allowed" if method == "GET" else "204 No Content")
            return
        message: dict[str, Any] = json.loads(body)
        session = next((line[16:] for line in head.split("\r\n") if line.lower().startswith("mcp-session-id: ")), None)
        if message["method"] == "initialize":
            session = os.urandom(8).hex()
            self._counts[session] = 0
            _send(peer, "200 OK", _result(message, _hello()), f"mcp-session-id: {session}")
        elif session not in self._counts:
            _send(peer, "404 Not Found")
        elif "id" not in message:
            _send(peer, "202 Accepted")
        else:
            self._act(peer, session, message)

    def _act(self, peer: socket.socket, session: str, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        is_call = message["method"] == "tools/call"
        self._calls_left -= is_call
        point = self._point if is_call and self._calls_left == 0 else ""
        _die(point, "read")
        if is_call:
            canary = params.get("arguments", {}).get("canary")
            os.write(self._ledger, json.dumps([params["name"], canary]).encode() + b"\n")
            self._counts[session] += params["name"] == "count"
        _die(point, "executed")
        answer = _response("200 OK", _result(message, self._outcome(session, message["method"])))
        end = answer.index(b"\r\n\r\n") + 4
        for place, upto in (("head", end), ("half", (end + len(answer)) // 2), ("answered", len(answer))):
            if point == place:
                peer.sendall(answer[:upto])
            _die(point, place)
        peer.sendall(answer)

    def _outcome(self, session: str, method: str) -> dict[str, Any]:
        match method:
            case "tools/call":
                return {"content": [{"type": "text", "text": str(self._counts[session])}]}
            case "tools/list":
                return {"tools": TOOLS}
            case _:
                return {}


def _split(received: bytes) -> tuple[str, bytes, bytes] | None:
    """The first request, as its head and body, and what follows it; None while it is not whole."""
    head, found, rest = received.partition(b"\r\n\r\n")
    if not found:
        return None
    text = head.decode()
    length = next((int(line[16:]) for line in text.split("\r\n") if line.lower().startswith("content-length: ")), 0)
    return (text, rest[:length], rest[length:]) if len(rest) >= length else None


def _hello() -> dict[str, Any]:
    return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "m", "version": "1"}}


def _result(message: dict[str, Any], result: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()


def _response(status: str, body: bytes, *headers: str) -> bytes:
    kind = ["content-type: application/json"] if body else []
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *kind, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _send(peer: socket.socket, status: str, body: bytes = b"", *headers: str) -> None:
    peer.sendall(_response(status, body, *headers))


def _die(point: str, place: str) -> None:
    if point == place:
        os.kill(os.getpid(), signal.SIGKILL)


def serve_stdio(ledger: int) -> None:
    """Answer the lines of standard input; a call of `progress` gets one report and no answer."""
    count = 0
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        if "id" not in message:
            continue
        result: dict[str, Any] = {}
        if message["method"] == "initialize":
            result = _hello()
        elif message["method"] == "tools/list":
            result = {"tools": TOOLS}
        elif message["method"] == "tools/call":
            params = message["params"]
            os.write(ledger, json.dumps([params["name"], params["arguments"].get("canary")]).encode() + b"\n")
            count += 1
            result = {"content": [{"type": "text", "text": str(count)}]}
            if params["name"] == "progress":
                report = {"progressToken": params["_meta"]["progressToken"], "progress": 1}
                _print({"jsonrpc": "2.0", "method": "notifications/progress", "params": report})
                continue
        _print({"jsonrpc": "2.0", "id": message["id"], "result": result})


def _print(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the port, then a line per child; end with standard input or SIGTERM."""
    parser = argparse.ArgumentParser(description="An MCP server that is killed in mid-call, again and again.")
    parser.add_argument("--ledger", required=True, help="the file to which each executed call is appended")
    parser.add_argument("--calls", type=int, default=0, help="the most calls that a child takes; 0: it is immortal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stdio", action="store_true", help="serve standard input and output, and do not die")
    flags = parser.parse_args()
    ledger = os.open(flags.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    if flags.stdio:
        serve_stdio(ledger)
        return
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    rng = random.Random(flags.seed)
    sys.stdout.write(f"port {listener.getsockname()[1]}\n")
    while True:
        seed = rng.random()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            Child(listener, ledger, random.Random(seed), flags.calls).serve()
        sys.stdout.write(f"child {child}\n")
        sys.stdout.flush()
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
