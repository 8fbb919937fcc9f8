"""`holdfast tools SERVER`: what tools a server has."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from typing import Final

from msgspec import Raw
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.cli import failures
from holdfast.cli.loop import run
from holdfast.cli.peer import Peer
from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.observe.log import one_line
from holdfast.wire import jsonrpc

_SENTENCE: Final = re.compile(r"(.+?(?<!e\.g)(?<!i\.e)[.!?])\s+[A-Z`\"'(*#-]", re.DOTALL)


def tools(server: ServerSettings, *, chat: str | None, limit: float | None, is_json: bool) -> int:
    """Print the tools of `server`; returns the status."""
    return run(_tools(server, chat, limit, is_json))


async def _tools(server: ServerSettings, chat: str | None, limit: float | None, is_json: bool) -> int:
    try:
        async with asyncio.timeout(limit), Peer(server, chat) as peer:
            listed = await peer.list_tools()
            name = peer.server_name
    except OpenFailed as error:
        return failures.not_opened(server.name, error)
    except TimeoutError:
        return failures.fail(f"{server.name}: no list of tools within {limit:g} s", failures.UNREACHABLE)
    if not isinstance(listed, list):
        return failures.unanswered(server.name, listed)
    if is_json:
        print(jsonrpc.array(bytes(tool) for tool in listed).decode())
        return 0
    if not listed:
        print(f"{one_line(name)} has no tools.", file=sys.stderr)
    elif sys.stdout.isatty():
        _print_table(name, listed)
    else:
        for tool in listed:
            print("\t".join(describe(tool)))
    return 0


def _print_table(name: str, listed: Sequence[Raw]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("tool", no_wrap=True)
    table.add_column("arguments")
    table.add_column("what it does")
    for tool in listed:
        title, arguments, sentence = describe(tool)
        table.add_row(Text(title, "bold"), _emphasized(arguments), Text(sentence))
    console = Console(highlight=False)
    console.print(Text(one_line(name), "dim"))
    console.print(table)
    console.print(Text("* must be given", "dim"))


def _emphasized(arguments: str) -> Text:
    text = Text(arguments)
    text.highlight_regex(r"\*", "bold yellow")
    return text


def describe(tool: Raw) -> tuple[str, str, str]:
    """A tool's name, its arguments (required ones first, with an asterisk) and the first sentence on it."""
    fields = jsonrpc.decode_fields(tool)
    name, title, text, schema = (
        jsonrpc.decode_value(fields.get(key, b"null")) for key in ("name", "title", "description", "inputSchema")
    )
    said = text if isinstance(text, str) else title if isinstance(title, str) else ""
    shape = schema if isinstance(schema, dict) else {}
    properties, required = shape.get("properties"), shape.get("required")
    must = [str(key) for key in required] if isinstance(required, list) else []
    may = [key for key in properties if key not in must] if isinstance(properties, dict) else []
    arguments = " ".join([*(f"{key}*" for key in must), *may])
    return one_line(name if isinstance(name, str) else "?"), one_line(arguments), first_sentence(said)


def first_sentence(text: str) -> str:
    """The first sentence of a description, on one line."""
    paragraph = one_line(text.strip().partition("\n\n")[0])
    found = _SENTENCE.match(paragraph)
    return paragraph if found is None else found.group(1)
