"""Schemas of tools that would cost whoever follows or works them out dearly: they are passed on, and no more."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from faults.odd_server import ACCEPTED, NO_GET, text
from faults.raw_http import Answer, post, raw_connection
from faults.rig import answer_to, gateway_to, text_of
from requirements import requirement
from rows import Figure, row
from unit.scripted_http import Peer, SeenRequest, plain, scripted

SCHEMAS: Final = 100
URLS: Final = (
    *("http://{canary}/schema", "http://{canary}/schema#/definitions/x", "//{canary}/schema", "HTTP://{canary}/SCHEMA"),
    *("http://user:secret@{canary}/x", "http://localhost:{port}/x", "file:///etc/passwd", "ftp://{canary}/x", "urn:x"),
)


def bombs(port: int) -> Iterator[bytes]:
    """Schemas as bytes, each of another size or address; the addresses are the canary's."""
    for size in itertools.count(1):
        url = URLS[size % len(URLS)].format(canary=f"127.0.0.1:{port}", port=port)
        yield dumped({"type": "object", "$schema": url, "$id": url, "properties": {"a": {"$ref": url}}})
        yield dumped(
            {"type": "object", "allOf": [{"$dynamicRef": url}, {"$recursiveRef": url}], "$vocabulary": {url: True}}
        )
        yield dumped(laughs(8 + size))
        yield dumped({"type": "object", "$ref": "#", "properties": {"a": {"$ref": "#/properties/a"}}})
        yield dumped({"type": "object", "properties": {"a": {"pattern": "^(a+)+$" * size, "default": "a" * 99 + "b"}}})
        yield (
            b'{"type":"object","properties":'
            + b'{"a":{"properties":' * (30 * size)
            + b"{}"
            + b"}}" * (30 * size)
            + b"}"
        )
        yield dumped({"type": "object", "properties": {f"p{n}": {"enum": list(range(100))} for n in range(20 * size)}})
        yield b'{"type":"object","maximum":1e999,"minimum":-0,"a":1,"a":2,"multipleOf":%b}' % (b"9" * 100 * size)
        yield dumped({"type": "object", "description": "\u2028<script>\x1b[2J" * 1000 * size})
        yield dumped({"type": "object", "anyOf": [{"not": {"anyOf": [{"const": n}] * 20}} for n in range(20 * size)]})


def laughs(depth: int) -> dict[str, Any]:
    """A schema that doubles with each of its levels where references are replaced by what they name."""
    levels = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(depth)}
    return {"type": "object", "$ref": "#/$defs/l0", "$defs": {**levels, f"l{depth}": {"type": "string"}}}


def dumped(schema: Any) -> bytes:
    return json.dumps(schema).encode()


@asynccontextmanager
async def canary() -> AsyncGenerator[tuple[int, list[object]]]:
    """A port, and a note of each connection to it."""
    seen: list[object] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


class Bomber:
    """A server whose tools have these schemas."""

    def __init__(self, schemas: list[bytes]) -> None:
        tools = (
            b'{"name":"t%d","inputSchema":%b,"outputSchema":%b}' % (number, schema, schema)
            for number, schema in enumerate(schemas)
        )
        self._list = b'{"tools":[%b]}' % b",".join(tools)

    async def answer(self, request: SeenRequest, peer: Peer) -> None:
        message: Any = json.loads(request.body or b'{"method":null}')
        match message["method"]:
            case "initialize":
                hello = {"name": "bomber", "version": "1"}
                capabilities = {"tools": {"listChanged": True}}
                result = dumped({"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": hello})
            case "tools/list":
                result = self._list
            case "tools/call":
                result = dumped(text("called") | {"structuredContent": {"a": "a" * 50 + "b"}})
            case _:
                peer.write(NO_GET if request.method == "GET" else ACCEPTED)
                return
        peer.write(plain(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], result)))


async def listed(port: int, *fields: tuple[str, str]) -> Answer:
    async with asyncio.timeout(60), raw_connection(port) as connection:
        connection.write(post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', fields))
        return await connection.answer()


@row(28)
@requirement("faults:hostile:schemas")
async def test_a_hundred_hostile_schemas_are_passed_on_and_never_followed(figure: Figure) -> None:
    async with canary() as (port, seen):
        schemas = list(itertools.islice(bombs(port), SCHEMAS))
        async with scripted(Bomber(schemas).answer) as server, gateway_to(f"{server.url}/mcp", within=240) as rig:
            client = await rig.opened()
            for fields in ((), (("mcp-session-id", client.headers["mcp-session-id"]),)):
                answer = await listed(rig.port, *fields)
                assert answer.status == 200
                for number, schema in enumerate(schemas):
                    assert b'"inputSchema":%b' % schema in answer.body, number
                    assert b'"outputSchema":%b' % schema in answer.body, number
            for number in range(SCHEMAS):
                body = client.tool(f"t{number}", a="a" * 50 + "b")
                assert text_of(await answer_to(client, body)) == "called"
        assert seen == []
    figure(f"{SCHEMAS} schemas passed on untouched and their tools called: 0 connections to what they name")
