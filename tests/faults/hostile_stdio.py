"""A stdio server that surrounds each answer with nonsense: `python -m faults.hostile_stdio`."""

from __future__ import annotations

import json
import sys
from random import Random
from typing import Any, Final

from faults.hostile_messages import Talk, content
from faults.hostile_requests import STRAY

JUNK: Final = (
    *(b"Listening on stdio", b"", b"   ", b"\x1b[31merror\x1b[0m", b"\xff\xfe", b"null", b"7", b'"x"', b"[]", b"{}"),
    *(b"Content-Length: 7\r\n\r\n{}", b'{"jsonrpc":"2.0"', b"\x00" * 50, b"[null]", b"{}{}"),
    *(b"{" * 100_000, b"[" * 999, b"x" * 100_000),
)
HELLO: Final[dict[str, Any]] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "logging": {}},
    "serverInfo": {"name": "hostile", "version": "1"},
}


def main() -> None:
    """Answer the oldest of four waiting calls; the tool `count` tells how much nonsense there was."""
    waiting: dict[int, dict[str, Any]] = {}
    malformed = 0
    for line in sys.stdin.buffer:
        if b'"method"' not in line:
            continue
        message: dict[str, Any] = json.loads(line)
        match message["method"]:
            case "initialize":
                write(result(message, HELLO))
            case "ping":
                write(result(message, {}))
            case "tools/list":
                write(result(message, {"tools": [{"name": "storm", "inputSchema": {"type": "object"}}]}))
            case "tools/call" if message["params"]["name"] == "count":
                write(result(message, content(str(malformed))))
            case "tools/call":
                waiting[message["id"]] = message["params"]["arguments"]
                if len(waiting) >= 4:
                    malformed += storm(waiting)
            case _:
                pass
        if message["method"] == "notifications/cancelled" and message["params"]["requestId"] in waiting:
            del waiting[message["params"]["requestId"]]


def storm(waiting: dict[int, dict[str, Any]]) -> int:
    """Answer the oldest call amid nonsense; how many lines of that."""
    request_id = next(iter(waiting))
    arguments = waiting.pop(request_id)
    rng = Random(arguments["number"])
    secrets = {other: of_other["secret"] for other, of_other in waiting.items()}
    talk = Talk(rng, request_id, arguments["secret"], secrets)
    lines = [text.replace(b"\n", b" ") for text in talk.odds(6)] + rng.choices(JUNK, k=3)
    malformed = len(lines)
    lines.insert(rng.randint(0, malformed), talk.good())
    write(rng.choice((b"\n", b"\r\n", b"\n\n")).join(lines))
    sys.stderr.buffer.write(rng.choice(STRAY) * 9 + b"\n")
    sys.stderr.flush()
    return malformed


def result(message: dict[str, Any], value: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": value}).encode()


def write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
