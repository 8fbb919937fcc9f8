"""A seeded grammar of what no honest server sends: messages, event streams and HTTP answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from faults.hostile_requests import ODD, RAW, TEXT_MUTATIONS
from unit.scripted_http import chunk, plain, stream_head

ASKS: Final = ("ping", "roots/list", "sampling/createMessage", "elicitation/create", "tools/call", "x", "")
NOTICES: Final = (
    *("notifications/message", "notifications/progress", "notifications/cancelled", "notifications/resources/updated"),
    *("notifications/tools/list_changed", "notifications/elicitation/complete", "notifications/tasks/status", "x", ""),
)
STATUSES: Final = (
    *("199 Odd", "201 Created", "202 Accepted", "204 No Content", "206 Partial Content", "299 Odd", "300 Choices"),
    *(
        "302 Found",
        "304 Not Modified",
        "307 Temporary Redirect",
        "400 Bad Request",
        "401 Unauthorized",
        "404 Not Found",
    ),
    *(
        "405 No",
        "406 No",
        "409 Conflict",
        "413 Large",
        "418 Teapot",
        "429 Slow",
        "500 Error",
        "501 No",
        "502 Bad",
        "503 No",
    ),
    *("504 Late", "599 Odd", "600 Odd", "999 Odd", "200 " + "x" * 5000, "20", "2000 OK", "abc OK", "-200 OK"),
)
TYPES: Final = (
    *("application/json", "application/json", "application/json; charset=latin-1", "APPLICATION/JSON", "text/html"),
    *("text/event-stream", "text/event-stream;x=y", "application/octet-stream", "", "/", "application/json, text/html"),
)
EXTRAS: Final = (
    *("mcp-session-id: other", "mcp-session-id: a b", "content-encoding: gzip", "content-encoding: identity, gzip"),
    *("connection: close", "connection: upgrade", "upgrade: h2c", "keep-alive: timeout=99999999999", "location: //["),
    *("transfer-encoding: gzip", "transfer-encoding: chunked, chunked", "content-length: 1", "set-cookie: a=b"),
    *("x: " + "y" * 70_000, "x-\x00: y", "no colon", ": empty", " folded: x", "content-type: text/html", "trailer: x"),
)
NO_HTTP: Final = (
    *(
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"\x00" * 100,
        b"\x16\x03\x01\x00",
        b"{}",
        b"\r\n\r\n",
    ),
    *(
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
        b"HTTP/1.0 200 OK\r\n\r\nhi",
    ),
    *(b"ICY 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 40 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: \xd9\xa5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}",
)
CHUNK_LIES: Final = (
    b"zz\r\n",
    b"-1\r\n",
    b"ffffffffffffffffffff\r\n",
    b"5\r\nhello",
    b"5\r\nhelloworld\r\n",
    b"0\r\nx",
    b"\r\n",
)
EVENT_JUNK: Final = (
    *(
        b"data\n\n",
        b"data:\n\n",
        b": x\n\n",
        b"id: \x00\n\n",
        b"id: \xff\xfe\n\n",
        b"id: \x1b[2J\n\n",
        b"retry: -1\n\n",
    ),
    *(
        b"retry: 99999999999999999999\n\n",
        b"retry: 0\n\n",
        b"event: error\ndata: {}\n\n",
        b"event: ping\n\n",
        b"\r\r\r\n\n\n",
    ),
    *(b"data: hello\n\n", b"data: [\n\n", b"data: null\n\n", b"data: []\n\n", b"data: [null]\n\n", b"data: \xff\n\n"),
    *(
        b"\xef\xbb\xbfdata: {}\n\n",
        b"\x00\x00",
        b"data: {}\r\rdata: {}\n\n",
        b"nonsense",
        b"data: " + b"[" * 50_000 + b"\n\n",
    ),
)


class Talk:
    """What a server may say while it owes the answer to one request.

    `others` are the other requests that it has not answered, each with its secret: what it says
    of them bears theirs.
    """

    def __init__(self, rng: Random, request_id: int, secret: str, others: Mapping[int, str]) -> None:
        self.rng = rng
        self.id = request_id
        self.secret = secret
        self.others = others
        self.count = 0
        """How many malformed messages, events or answers were made."""

    def good(self) -> bytes:
        """The answer as it should be."""
        return _dump({"jsonrpc": "2.0", "id": self.id, "result": content(self.secret)})

    def odd(self) -> bytes:
        """Anything but the answer as it should be, though it may be taken for it."""
        self.count += 1
        if self.rng.random() < 0.2:
            return _dump(self._foreign())  # as it is: another message with another's secret would be the server's leak
        made = self.rng.choice((self._answer, self._notice, self._ask))()
        text = _dump(made).replace(b'"@"', self.rng.choice(RAW), 1)
        if self.rng.random() < 0.3:
            text = text.replace(self.secret.encode(), b"nobody")  # it may come to bear the id of another
            text = self.rng.choice(TEXT_MUTATIONS)(self.rng, text)
        if self.rng.random() < 0.1:
            text = b"[" + text + self.rng.choice((b"]", b",]", b",{}]", b"", b"," + text + b"]"))
        return text

    def odds(self, most: int) -> list[bytes]:
        return [self.odd() for _ in range(self.rng.randint(1, most))]

    def _answer(self) -> dict[str, Any]:
        rng = self.rng
        made: dict[str, Any] = {"jsonrpc": "2.0", "id": self.id, "result": content(self.secret)}
        match rng.randrange(7):
            case 0:
                made["id"] = rng.choice((*self._likenesses(), -self.id, True))
            case 1:
                made["result"] = rng.choice((*ODD, "@"))
            case 2:
                made["error"] = rng.choice(
                    (None, "no", [], {}, {"code": "x"}, {"code": 1, "message": self.secret}, "@")
                )
            case 3:
                del made["result"]
                made["error"] = rng.choice((None, "no", 7, {}, {"message": 1}, {"code": 1.5, "message": "x"}, ODD))
            case 4:
                del made[rng.choice(("id", "result", "jsonrpc"))]
            case 5:
                made["method"] = rng.choice((None, "", "tools/call", 7, "@"))
            case _:
                made["result"]["content"] = rng.choice((None, "@", [{"type": "text", "text": self.secret, "x": "@"}]))
        return made

    def _foreign(self) -> dict[str, Any]:
        """Said of another request, on this one's stream."""
        if not self.others or self.rng.random() < 0.2:
            return {"jsonrpc": "2.0", "id": self.rng.choice((0, 10**6, 10**15)), "result": {}}
        request_id = self.rng.choice(list(self.others))
        secret = self.others[request_id]
        if self.rng.random() < 0.5:
            return {"jsonrpc": "2.0", "id": request_id, "result": content(secret)}
        return _progress(request_id, secret)

    def _notice(self) -> dict[str, Any]:
        rng = self.rng
        if rng.random() < 0.3:
            return _progress(rng.choice(self._likenesses()), self.secret)
        params = rng.choice(
            (None, [], [self.secret], self.secret, {}, {"level": 7, "data": self.secret}, {"uri": 7}, "@")
        )
        return {"jsonrpc": rng.choice(("2.0", "1.0", None)), "method": rng.choice(NOTICES), "params": params}

    def _ask(self) -> dict[str, Any]:
        rng = self.rng
        params: Any = rng.choice((None, [], {}, {"mode": "url", "elicitationId": 7}, {"message": self.secret}, 7, "@"))
        ask_id = rng.choice((*self._likenesses(), "a", "x" * 3000, "@"))
        return {"jsonrpc": "2.0", "id": ask_id, "method": rng.choice(ASKS), "params": params}

    def _likenesses(self) -> tuple[Any, ...]:
        """What may be taken for the id, the id too."""
        return self.id, str(self.id), float(self.id), None, [self.id], {}, 10**20, 0

    # Over HTTP.

    def http(self) -> tuple[list[bytes], bool]:
        """The pieces of an answer, and whether the connection is closed behind it."""
        draw = self.rng.random()
        if draw < 0.45:
            return self._stream()
        self.count += 1
        if draw < 0.75:
            return self._json()
        if draw < 0.85:
            return [self.rng.choice(NO_HTTP)], True
        whole = plain(self.good()) if draw < 0.92 else b"".join([stream_head(), chunk(event(self.good(), b"\n"))])
        place = self.rng.randrange(len(whole))
        if draw < 0.97:
            return [whole[:place]], True
        return [whole[:place] + self.rng.randbytes(3) + whole[place:]], True

    def _json(self) -> tuple[list[bytes], bool]:
        rng = self.rng
        body = rng.choice((self.odd(), self.odd(), self.good(), b"", b" ", rng.randbytes(50), b"[" * 100_000))
        status = rng.choice(STATUSES) if rng.random() < 0.4 else "200 OK"
        extra = (rng.choice(EXTRAS),) if rng.random() < 0.4 else ()
        whole = plain(body, status, rng.choice(TYPES) if rng.random() < 0.4 else "application/json", *extra)
        return [whole], status != "200 OK" or bool(extra) or rng.random() < 0.5

    def _stream(self) -> tuple[list[bytes], bool]:
        rng = self.rng
        said = [event(text, rng.choice((b"\n", b"\r", b"\r\n"))) for text in self.odds(5)]
        for _ in range(rng.randint(0, 3)):
            self.count += 1
            said.insert(rng.randint(0, len(said)), rng.choice(EVENT_JUNK))
        if rng.random() < 0.6:
            said.insert(rng.randint(0, len(said)), b"\n\n" + event(self.good(), b"\n"))
        whole = b"".join(said)
        cut = sorted(rng.randint(0, len(whole)) for _ in range(rng.randint(0, 4)))
        edges = [0, *cut, len(whole)]
        pieces = [chunk(whole[a:b]) for a, b in itertools.pairwise(edges) if a != b]
        draw = rng.random()
        ending = b"0\r\n\r\n" if draw < 0.8 else b"" if draw < 0.9 else rng.choice(CHUNK_LIES)
        return [stream_head(), *pieces, ending], draw >= 0.8


def event(text: bytes, end: bytes) -> bytes:
    """`text` as an event, whose line ends are those of data."""
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: " + line + end for line in lines) + end


def content(secret: str) -> dict[str, Any]:
    """A tool's result."""
    return {"content": [{"type": "text", "text": secret}]}


def _progress(token: Any, secret: str) -> dict[str, Any]:
    params = {"progressToken": token, "progress": 1, "message": secret}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def _dump(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()
