"""A seeded grammar of requests that no honest client sends, each said to be whole or not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Any, Final

from faults.raw_http import PING, post

Fields = list[tuple[str, str | bytes]]

CHATS: Final[tuple[Any, ...]] = ("c1", "c2", "", 7, None, [], {}, "x" * 2000)
"""The chats that a mutation may name: few, since each is a session of the server."""

BASES: Final[tuple[dict[str, Any], ...]] = (
    {"method": "ping"},
    {"method": "tools/list", "params": {"cursor": "1"}},
    {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x", "list": [1, {"a": None}]}}},
    {"method": "tools/call", "params": {"name": "echo", "arguments": {}, "_meta": {"progressToken": 1}}},
    {
        "method": "tools/call",
        "params": {"name": "progress", "arguments": {"steps": 2}, "_meta": {"progressToken": "p"}},
    },
    {"method": "resources/read", "params": {"uri": "memo://note"}},
    {"method": "resources/subscribe", "params": {"uri": "memo://note"}},
    {"method": "resources/unsubscribe", "params": {"uri": "memo://note"}},
    {"method": "prompts/get", "params": {"name": "greeting", "arguments": {"name": "Ada"}}},
    {
        "method": "completion/complete",
        "params": {"ref": {"type": "ref/prompt", "name": "greeting"}, "argument": {"name": "name", "value": "A"}},
    },
    {"method": "logging/setLevel", "params": {"level": "error"}},
    {
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"roots": {}, "sampling": {}, "elicitation": {}},
            "clientInfo": {"name": "hostile", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
    {"method": "notifications/cancelled", "params": {"requestId": 1, "reason": "no"}},
    {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}},
    {"method": "notifications/roots/list_changed"},
    {"result": {"action": "accept", "content": {}}},
    {"error": {"code": -1, "message": "no"}},
)
IDS: Final[tuple[Any, ...]] = (
    0,
    1,
    -1,
    2**53 + 1,
    2**63,
    1.5,
    1e300,
    "",
    "1",
    "x" * 5000,
    "\x00",
    None,
    True,
    [],
    {},
    [1],
    {"id": 1},
)
ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 2**53 + 1, 2**64 - 1, 1.5, -0.0, 1e308, "", "x", "\x00\x1b[2J\r\n", "\u2028", "é" * 99),
    *([], {}, [[]], [None], {"": {}}, {"__proto__": {"a": 1}}, {"constructor": 1}, ["x"] * 300, {"a": {"b": ["c"]}}),
    *("ping", "tools/call", "initialize", "server/discover", "rpc.discover", "../../etc/passwd", "notifications/x"),
)
RAW: Final = (
    *(b"NaN", b"Infinity", b"-Infinity", b"undefined", b"'x'", b"01", b"+1", b".5", b"1.", b"1e", b"0x1", b"--1"),
    *(
        b"1e999",
        b"-1e999",
        b"9" * 20,
        b"9" * 400,
        b"9" * 5000,
        b"1" + b"0" * 400,
        b"0." + b"1" * 400,
        b"18446744073709551616",
    ),
    *(rb'"\ud800"', rb'"\udc00\ud800"', rb'"\u12"', rb'"\q"', rb'"\u0000"', b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"'),
    *(b'"\x00"', b'"\n"', b'"\x7f"', b'"', b"[", b"{", b"]", b"}", b",", b":", b"", b"/**/1", b"1,1", b'{"a":1,"a":2}'),
    *(
        b"[" * 100 + b"]" * 100,
        b"[" * 129 + b"]" * 129,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b"[" * 5000,
        b"[" * 100_000,
    ),
    *(b"[" * 5000 + b"]" * 5000, b'{"":{}, "":[]}', b'[{"a":1}{"b":2}]', b"1 2", b"truefalse", b"nul"),
)
STRAY: Final = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xfe\xff",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b"\r\n",
    b"\x1b",
)
PLACE: Final = "\ue000"
"""Stands in a message where bytes that are no JSON are to go."""

HEADERS: Final[tuple[tuple[str, tuple[str | bytes, ...]], ...]] = (
    (
        "content-type",
        (
            *("", "application/json; charset=utf-16", "APPLICATION/JSON", "text/plain", "application/jsonx", "/", ";"),
            *("application/json, text/plain", "multipart/form-data; boundary=x", b"\xff\xfe", "a" * 3000),
        ),
    ),
    (
        "accept",
        (
            *("", "*/*", "text/html", "application/json", "text/event-stream", "application/json;q=nan", ";;;,,,"),
            *(
                "application/json;q=0, text/event-stream;q=0",
                "text/event-stream;q=1e9",
                "*/*;q=-1",
                b"\xff",
                "a," * 2000,
            ),
        ),
    ),
    (
        "mcp-protocol-version",
        ("", "2025-06-18", "2024-11-05", "2026-07-28", "1999-01-01", "null", "2025-11-25 ", b"\xff", "v" * 3000),
    ),
    (
        "mcp-session-id",
        ("", "none", "a b", b"\xff", "../..", "0" * 32, "x" * 3000, "%00", "null", "'; drop table sessions; --"),
    ),
    ("last-event-id", ("", "1.1.x", "0.0.0", b"\xff", "9" * 3000, "1.999999999999999.0", "a.b.c")),
    ("host", ("", "evil.example", "localhost:99999", "[::1", "localhost,localhost", b"\xff", "a" * 3000)),
    (
        "origin",
        (
            "",
            "null",
            "http://",
            "http://[",
            "http://[::1",
            "http://[::1]x",
            "http://[x]",
            "https://evil.example",
            "://",
            "http://localhost:1:2",
            b"\xff",
            "o" * 3000,
        ),
    ),
    ("authorization", ("", "Bearer", "Bearer x", "Basic eDp4", "Bearer " + "x" * 3000, b"\xff")),
    ("cookie", ("a=b", "x" * 3000)),
    ("x-forwarded-for", ("127.0.0.1", "'")),
    ("expect", ("100-continue", "200-nothing")),
    ("content-encoding", ("gzip", "identity", "br")),
    ("upgrade", ("websocket", "h2c")),
    ("connection", ("keep-alive", "close", "upgrade", "x")),
    ("te", ("trailers",)),
)
METHODS: Final = ("GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND")
PATHS: Final = (
    *(
        "/",
        "//mcp",
        "/mcp/",
        "/mcp//",
        "/mcp?x=%00",
        "/mcp#x",
        "/mcp/other",
        "/mcp/upstream/chats/",
        "/mcp/upstream/chats/c1",
    ),
    *(
        "/mcp/%ff",
        "/mcp/upstream/chats/%00",
        "/mcp/upstream/chats/%ff%fe",
        "/../mcp",
        "/mcp/../mcp",
        "/mcp/%2e%2e",
        "/MCP",
    ),
    *("http://localhost/mcp", "http://evil.example/mcp", "*", "/mcp;x", "/mcp/" + "x" * 3000, "/%", "/mcp/%zz", "/sse"),
)
GARBAGE: Final = (
    *(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\x00" * 64,
    ),
    *(
        b"GET\r\n\r\n",
        b"POST /mcp\r\n\r\n",
        b"POST /mcp HTTP/9.9\r\n\r\n",
        b"POST  /mcp HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ),
    *(b"POST /m\xffcp HTTP/1.1\r\nhost: localhost\r\n\r\n", b"post /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n folded: x\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nhost : localhost\r\ncontent-length: 0\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nhost: local\x00host\r\n\r\n",
    b"POST /mcp HTTP/1.1\nhost: localhost\ncontent-length: 0\n\n",
    b"CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n',
)
LENGTHS: Final = ("-1", "+5", "0x10", "1e3", "5 5", "5, 5", "", "abc", "9" * 30, "9" * 5000, "5;x", "\u0665")


class Kind(Enum):
    """What the gateway owes to what it was sent."""

    WHOLE = auto()
    """One answer for each request in it."""
    BROKEN = auto()
    """An answer or a closed connection, once the client has ended its side."""
    LEFT = auto()
    """Nothing: the client is gone."""


@dataclass(frozen=True)
class Shot:
    """What is sent at once on a connection."""

    kind: Kind
    data: bytes
    requests: int = 1
    content: bytes = b""
    """The body, where an answer of it must bear the ids of its requests."""
    method: str = "POST"


def shot(rng: Random, session: str) -> Shot:
    """One shot of any sort; about half of the requests bear `session`."""
    fields: Fields = [("mcp-session-id", session)] if rng.random() < 0.5 else []
    draw = rng.random()
    if draw < 0.70:
        content = body(rng)
        return Shot(Kind.WHOLE, post(content, fields), content=content)
    if draw < 0.85:
        return _odd_head(rng, fields)
    if draw < 0.89:
        count = rng.randint(2, 6)
        return Shot(Kind.WHOLE, b"".join(post(body(rng), fields) for _ in range(count)), count)
    if draw < 0.93:
        return _chunked(rng, fields)
    if draw < 0.97:
        return _broken(rng, fields)
    whole = post(body(rng) or PING, fields)
    return Shot(Kind.LEFT, whole[: rng.randrange(1, len(whole))])


def body(rng: Random) -> bytes:
    """A message, or an array, or neither."""
    draw = rng.random()
    if draw < 0.03:
        return rng.choice((b"", b" ", b"null", b"7", b'"x"', b"[]", b"{}", b"[[]]", b"[null]", PING + PING))
    if draw < 0.06:
        return rng.randbytes(rng.randint(1, 200))
    if draw < 0.16:
        parts = [_mutated(rng) for _ in range(rng.randint(1, 5))]
        return b"[" + rng.choice((b",", b", ", b",,", b" "))[:].join(parts) + rng.choice((b"]", b"]", b"]", b"", b",]"))
    return _mutated(rng)


def message(rng: Random) -> dict[str, Any]:
    """A message as a client could send it."""
    made: dict[str, Any] = {"jsonrpc": "2.0", **copy.deepcopy(rng.choice(BASES))}
    if not str(made.get("method", "")).startswith("notifications/"):
        made["id"] = rng.randint(1, 1 << 40)
    return made


def _mutated(rng: Random) -> bytes:
    made = message(rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(VALUE_MUTATIONS)(rng, made)
    text = json.dumps(made, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    marker = (
        json.dumps(PLACE).encode()
        if json.dumps(PLACE).encode() in text
        else json.dumps(PLACE, ensure_ascii=False).encode()
    )
    while marker in text:
        text = text.replace(marker, rng.choice(RAW), 1)
    if rng.random() < 0.15:
        text = rng.choice(TEXT_MUTATIONS)(rng, text)
    return text


def _spot(rng: Random, value: Any) -> tuple[Any, Any]:
    """A container somewhere in `value`, and a key in it; mostly below the envelope, which is broken soon enough."""
    container: Any = value
    if rng.random() < 0.7 and _is_container(value.get("params")):
        container = value["params"]
    while True:
        key: Any = rng.choice(list(container.keys() if hasattr(container, "keys") else range(len(container))))
        if not _is_container(container[key]) or rng.random() < 0.4:
            return container, key
        container = container[key]


def _is_container(value: Any) -> bool:
    return bool(value) and isinstance(value, dict | list)


def _replace(rng: Random, made: dict[str, Any]) -> None:
    container, key = _spot(rng, made)
    container[key] = copy.deepcopy(rng.choice(ODD))


def _break(rng: Random, made: dict[str, Any]) -> None:
    container, key = _spot(rng, made)
    container[key] = PLACE


def _remove(rng: Random, made: dict[str, Any]) -> None:
    container, key = _spot(rng, made)
    if container is not made or len(made) > 1:
        del container[key]


def _odd_id(rng: Random, made: dict[str, Any]) -> None:
    made["id"] = copy.deepcopy(rng.choice(IDS))


def _odd_version(rng: Random, made: dict[str, Any]) -> None:
    made["jsonrpc"] = rng.choice(("1.0", "2", 2.0, 2, None, "", ["2.0"], "2.0 "))


def _odd_params(rng: Random, made: dict[str, Any]) -> None:
    made["params"] = copy.deepcopy(rng.choice(ODD))


def _odd_meta(rng: Random, made: dict[str, Any]) -> None:
    params = made.setdefault("params", {})
    if isinstance(params, dict):
        chat = rng.choice(CHATS)
        name = rng.choice(("dev.holdfast/chat", "progressToken", "io.modelcontextprotocol/protocolVersion", "x"))
        value = chat if name == "dev.holdfast/chat" else rng.choice(ODD)
        params["_meta"] = copy.deepcopy(rng.choice((value, {name: value})))


def _odd_key(rng: Random, made: dict[str, Any]) -> None:
    container, key = _spot(rng, made)
    if hasattr(container, "keys"):
        odd = rng.choice(("", "\x00", "\r\n", "\x1b[0m", "a" * 3000, "\ud800", "Method", "__proto__", key + " "))
        value: Any = container[key]
        del container[key]
        container[odd] = value


def _both(rng: Random, made: dict[str, Any]) -> None:
    made |= copy.deepcopy(
        rng.choice(({"result": {}}, {"error": {}}, {"error": None, "result": None}, {"method": "ping"}))
    )


VALUE_MUTATIONS: Final[tuple[Callable[[Random, dict[str, Any]], None], ...]] = (
    *(
        _replace,
        _replace,
        _replace,
        _break,
        _remove,
        _odd_id,
        _odd_version,
        _odd_params,
        _odd_meta,
        _odd_meta,
        _odd_key,
        _both,
    ),
)


def _truncate(rng: Random, text: bytes) -> bytes:
    return text[: rng.randrange(len(text))]


def _insert(rng: Random, text: bytes) -> bytes:
    place = rng.randint(0, len(text))
    return text[:place] + rng.choice(STRAY) + text[place:]


def _flip(rng: Random, text: bytes) -> bytes:
    place = rng.randrange(len(text))
    return text[:place] + rng.randbytes(1) + text[place + 1 :]


def _twice(rng: Random, text: bytes) -> bytes:
    key = rng.choice((b'"id"', b'"method"', b'"params"', b'"jsonrpc"', b'"result"'))
    return b"{" + key + b":" + rng.choice((b"1", b'"ping"', b"{}", b"null", b'"2.0"')) + b"," + text[1:]


def _wrap(rng: Random, text: bytes) -> bytes:
    before, behind = rng.choice(
        ((b"\xef\xbb\xbf", b""), (b"", b"\x00"), (b")]}'\n", b""), (b"x(", b")"), (b"", b"\n" + PING))
    )
    return before + text + behind


def _recode(rng: Random, text: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-le", "utf-32")), "replace")


TEXT_MUTATIONS: Final[tuple[Callable[[Random, bytes], bytes], ...]] = (
    _truncate,
    _insert,
    _flip,
    _twice,
    _wrap,
    _recode,
)


def _odd_head(rng: Random, fields: Fields) -> Shot:
    """A whole request with headers, a method or a path that do not fit."""
    method, path = "POST", "/mcp"
    odd: Fields = []
    for name, values in rng.sample(HEADERS, rng.choice((1, 1, 2, 3))):
        odd += [(name, value) for value in rng.choices(values, k=rng.choice((1, 1, 1, 2)))]
    draw = rng.random()
    if draw < 0.2:
        method, fields = rng.choice(METHODS), [] if draw < 0.1 else fields
    elif draw < 0.4:
        path = rng.choice(PATHS)
    if method == "DELETE":
        fields = []
    named = {name for name, _ in odd}
    sent = odd + [field for field in fields if field[0] not in named]
    return Shot(Kind.WHOLE, post(json.dumps(message(rng)).encode(), sent, method=method, path=path), method=method)


def _chunked(rng: Random, fields: Fields) -> Shot:
    """A body in chunks, honest or not."""
    content = body(rng)
    head: Fields = [*fields, ("transfer-encoding", "chunked")]
    if rng.random() < 0.5:
        cut = rng.randint(0, len(content))
        parts = b"".join(b"%x;ext=%d\r\n%b\r\n" % (len(p), len(p), p) for p in (content[:cut], content[cut:]) if p)
        return Shot(Kind.WHOLE, post(parts + b"0\r\n" + rng.choice((b"", b"trailer: x\r\n")) + b"\r\n", head))
    size = rng.choice((b"-1", b"zz", b"ffffffffffffffffff", b"", b"5 5", b"0x5", b"%x" % (len(content) + 9)))
    if rng.random() < 0.2:
        head.append(("content-length", str(len(content))))
    return Shot(Kind.BROKEN, post(size + b"\r\n" + content + b"\r\n0\r\n\r\n", head))


def _broken(rng: Random, fields: Fields) -> Shot:
    """What is no HTTP request, or lies about where it ends."""
    draw = rng.random()
    if draw < 0.4:
        return Shot(Kind.BROKEN, rng.choice(GARBAGE))
    if draw < 0.7:
        return Shot(Kind.BROKEN, post(PING, [*fields, ("content-length", rng.choice(LENGTHS))]))
    if draw < 0.8:
        return Shot(Kind.BROKEN, post(PING, [*fields, ("content-length", "40"), ("content-length", "4")]))
    if draw < 0.9:
        return Shot(Kind.BROKEN, post(PING, [*fields, ("x-many", "y" * 70_000)]))
    whole = bytearray(post(PING, fields))
    for _ in range(rng.randint(1, 4)):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    return Shot(Kind.BROKEN, bytes(whole))
