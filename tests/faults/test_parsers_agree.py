"""What goes on of a client's request is read alike by the JSON parsers of four worlds."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import pydantic_core
import pytest

from faults.raw_http import post, raw_connection
from faults.rig import gateway_to
from requirements import requirement
from rows import Figure, row
from unit.scripted_http import Peer, SeenRequest, plain, scripted

REQUESTS: Final = 5_000
PYTHON: Final[tuple[Callable[[bytes], Any], ...]] = (json.loads, msgspec.json.decode, pydantic_core.from_json)
NODE: Final = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
SCRIPT: Final = """
const read = (line) => { try { return JSON.stringify(JSON.parse(line)); } catch { return '"refused"'; } };
process.stdout.write(require("fs").readFileSync(0, "utf8").split("\\n").map(read).join("\\n"));
"""
NUMBERS: Final = (
    *(
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1",
        "1.0",
        "1e0",
        "1E+2",
        "1e-400",
        "5e-324",
        "2.2250738585072014e-308",
        "1e308",
        "0.1",
    ),
    *("9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551615", "-9223372036854775808", "18446744073709551616", "1e400", "9" * 40),
    *(
        "0.30000000000000004",
        "123456789012345678.9",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "1e22",
        "1e23",
    ),
    *("01", "+1", ".5", "5.", "1e", "0x10", "NaN", "Infinity", "-", "1_000"),
)
STRINGS: Final = (
    *(
        '""',
        '"a"',
        r'"\u0000"',
        r'"\u0041"',
        r'"\/"',
        r'"\b\f\n\r\t"',
        r'"\ud83d\ude00"',
        '"😀"',
        '"\u2028\u2029"',
        '"\x7f"',
    ),
    *(
        r'"\ud800"',
        r'"\udc00"',
        r'"\ud800\ud800"',
        r'"\uD83D\u0041"',
        r'"\uFFFF"',
        r'"\ufeff"',
        '"\ufeff"',
        '"e\u0301"',
    ),
    *(
        r'"\u0022"',
        r'"\\"',
        r'"\x41"',
        r'"\u004"',
        '"\t"',
        '"\n"',
        '"\0"',
        "'a'",
        '"__proto__"',
        r'"\\ud800"',
        '"\uffff"',
    ),
)
KEYS: Final = (
    '"a"',
    '"a"',
    r'"\u0061"',
    '"b"',
    '"1"',
    '"0"',
    '"__proto__"',
    '"constructor"',
    '""',
    r'"\u0000"',
    '"é"',
    '"e\u0301"',
)


def value(rng: Random, depth: int = 0) -> str:
    """A JSON text, or nearly: of what parsers read in different ways, most."""
    draw = rng.random()
    if depth > 4 or draw < 0.3:
        return rng.choice(NUMBERS if rng.random() < 0.7 else NUMBERS[:22])
    if draw < 0.55:
        return rng.choice(STRINGS)
    if draw < 0.6:
        return rng.choice(("null", "true", "false", "True", "undefined", ""))
    space = rng.choice(("", "", " ", "\n", "\r\n\t", "\u00a0"))
    if draw < 0.8:
        pairs = (f"{rng.choice(KEYS)}{space}:{space}{value(rng, depth + 1)}" for _ in range(rng.randint(0, 4)))
        return "{" + space + ",".join(pairs) + space + "}"
    if draw < 0.83:
        levels = rng.choice((100, 124, 125, 126, 130, 300))
        return "[" * levels + "]" * levels
    return "[" + space + f",{space}".join(value(rng, depth + 1) for _ in range(rng.randint(0, 4))) + "]"


def harmless(rng: Random) -> str:
    """As `value`, tried until all three parsers of Python take it: these are to be sent on."""
    while True:
        text = value(rng)
        try:
            for parse in PYTHON:
                parse(text.encode())
        except (ValueError, RecursionError):
            continue
        return text


def request(number: int) -> bytes:
    """A call whose arguments, id and names are such values; duplicate keys everywhere."""
    rng = Random(number)
    some = harmless if rng.random() < 0.7 else value
    doubled = rng.choice(("", '"name":"other",', '"arguments":{"x":1},', r'"argument\u0073":7,', '"_meta":{},'))
    twice = rng.choice(
        ("", '"method":"ping",', '"id":"first",', '"params":{"name":"first"},', r'"\u006dethod":"ping",')
    )
    text = (
        f'{{{twice}"jsonrpc":"2.0","id":{number},"method":"tools/call",'
        f'"params":{{{doubled}"name":"n{number}","arguments":{{"v":{some(rng)},{rng.choice(KEYS)}:{some(rng)}}}}}}}'
    )
    return text.encode("utf-8", "surrogatepass")


def alike(one: Any, other: Any) -> bool:
    """Equal to a reader who has one kind of number, doubles, as JavaScript has."""
    if is_number(one) and is_number(other):
        return float(one) == float(other)
    if one.__class__ is not other.__class__:
        return False
    if hasattr(one, "keys"):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in other)
    if hasattr(one, "append"):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Recorder:
    """A server that keeps the bytes of every call."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    async def answer(self, request: SeenRequest, peer: Peer) -> None:
        body = request.body
        if request.method != "POST" or b'"id"' not in body:
            peer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            return
        message = json.loads(body)
        result: dict[str, Any] = {"content": []}
        if message["method"] == "initialize":
            hello = {"name": "recorder", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": hello}
        elif message["method"] == "tools/call":
            self.calls.append(body)
        else:
            result = {"tools": []}
        peer.write(plain(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()))


def read_by_node(lines: list[bytes]) -> list[Any]:
    """What JavaScript makes of each line."""
    assert NODE is not None
    told = subprocess.run([NODE, "-e", SCRIPT], input=b"\n".join(lines), capture_output=True, timeout=240)
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


@row(24)
@requirement("faults:hostile:parsers")
@pytest.mark.skipif(NODE is None, reason="no node")
async def test_what_is_sent_on_reads_the_same_in_four_parsers(figure: Figure) -> None:
    recorder = Recorder()
    refused = 0
    async with (
        scripted(recorder.answer) as server,
        gateway_to(f"{server.url}/mcp", within=280, scope="shared") as rig,
        raw_connection(rig.port) as connection,
    ):
        for number in range(REQUESTS):
            before = len(recorder.calls)
            connection.write(post(request(number)))
            async with asyncio.timeout(60):
                answer = await connection.answer()
            if answer.status != 200:
                assert answer.status == 400, answer
                refused += 1
                assert len(recorder.calls) == before, "what is refused is not sent on"
                continue
            assert len(recorder.calls) == before + 1
            sent = recorder.calls[-1]
            first, *others = [parse(sent) for parse in PYTHON]
            assert first["params"]["name"] == f"n{number}"
            assert first["method"] == "tools/call"
            for other in others:
                assert repr(other) == repr(first), sent
            assert b"\n" not in sent, "what goes on stands on one line"
    for sent, read in zip(recorder.calls, read_by_node(recorder.calls), strict=True):
        assert alike(read, json.loads(sent)), sent
    passed = len(recorder.calls)
    assert passed > REQUESTS // 4
    assert refused > REQUESTS // 20
    figure(
        f"{passed:,} requests sent on, {refused:,} refused: 0 disagreements among json, msgspec, pydantic_core, node"
    )
