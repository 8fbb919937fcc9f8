"""`holdfast doctor SERVER`: how a server treats sessions, and which settings suit it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.cli import failures
from holdfast.cli.arguments import parse_arguments
from holdfast.cli.loop import run
from holdfast.cli.settings import name_of
from holdfast.config import ServerSettings
from holdfast.config.servers import legal_name
from holdfast.doctor.advice import Advice, advise, remarks
from holdfast.doctor.examine import examine
from holdfast.doctor.findings import Findings
from holdfast.doctor.named import Named, UnknownTool, Wanted
from holdfast.doctor.pasted import paste, variables
from holdfast.doctor.report import report
from holdfast.doctor.words import Mark, Row, rows
from holdfast.errors import ConfigError
from holdfast.observe.log import one_line

WIDEST: Final = 100
LONGEST_NAME: Final = 32
"""A longer one could not stand before the names of its tools."""
_STYLES: Final = {Mark.GOOD: "green", Mark.NEUTRAL: "dim", Mark.BAD: "red"}
_TRANSPORTS: Final = {"http": "Streamable HTTP", "sse": "HTTP+SSE of 2024-11-05", "stdio": "stdio"}


def parse_wanted(call: str | None, write: str | None, read: str | None) -> Wanted:
    """The values of `--call`, `--write` and `--read`. Raises `ConfigError`."""
    if (write is None) != (read is None):
        raise ConfigError("--write and --read go together: one tool that writes, and one that reads what it wrote")
    named = [None if word is None else _parse_named(word) for word in (call, write, read)]
    return Wanted(*named)


def _parse_named(word: str) -> Named:
    tool, separator, text = word.partition("=")
    if not tool:
        raise ConfigError(f"{word!r} names no tool; write TOOL or TOOL={{JSON}}")
    return Named(tool, parse_arguments([text], bytes) if separator else {})


def headers_as_written(headers: Sequence[str], key: str | None) -> dict[str, str]:
    """The headers as they were typed, with the names of variables and not their values."""
    pairs = [header.partition("=") for header in headers]
    written = {name: value for name, _, value in pairs}
    return written if key is None else {**written, "Authorization": f"Bearer {key}"}


def doctor(server: ServerSettings, wanted: Wanted, *, total: float, written: Mapping[str, str], is_json: bool) -> int:
    """Examine `server` and print what was found out; returns the status."""
    logging.getLogger("holdfast").setLevel(logging.CRITICAL)  # what the transports would log is found out and said
    return run(_doctor(server, wanted, total, written, is_json))


async def _doctor(
    server: ServerSettings, wanted: Wanted, total: float, written: Mapping[str, str], is_json: bool
) -> int:
    with ExitStack() as stack:
        on_step = _on_step(server.name, stack)
        try:
            findings = await examine(server, wanted, total=total, on_step=on_step)
        except ValueError as error:
            return failures.fail(f"{server.name}: {error}", failures.MISUSED)
        except UnknownTool as error:
            sentence = failures.unknown_tool(error.tool, error.server or server.name, error.known)
            return failures.fail(sentence, failures.MISUSED)
    server = server.model_copy(update={"name": _name_of(server, findings)})
    advice = advise(findings)
    yaml = "" if findings.problem else paste(server, advice, written, moved_to=findings.moved_to)
    if is_json:
        sys.stdout.write(report(server.name, findings, advice, remarks(findings), yaml).decode() + "\n")
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        needed = [] if findings.problem else variables(server, written)
        with console.capture() as captured:
            draw(console, title_of(server, findings), findings, advice, yaml, needed)
        sys.stdout.write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))
    if findings.problem:
        named = findings.problem if server.name in findings.problem else f"{server.name}: {findings.problem}"
        return failures.fail(named, failures.UNREACHABLE)
    return 0


def _name_of(server: ServerSettings, findings: Findings) -> str:
    """Where it would be called by its host, what it calls itself."""
    if server.url is None or server.name != name_of(server.url, None):
        return server.name
    words = called(findings).rpartition(" ")[0] or called(findings)
    return legal_name(words.rpartition("/")[2].lower())[:LONGEST_NAME].rstrip("-._") or server.name


def _on_step(name: str, stack: ExitStack) -> Callable[[str], None]:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        return lambda _: None
    status = stack.enter_context(console.status(Text(name, "dim")))
    return lambda step: status.update(Text(f"{name}: {step}", "dim"))


def called(findings: Findings) -> str:
    """What the server calls itself, with its version."""
    opened, modern = findings.opened, findings.modern
    return one_line(opened.server if opened is not None else modern.server if modern is not None else "")


def title_of(server: ServerSettings, findings: Findings) -> str:
    """Which server it is, and how it is reached; without the query of its URL."""
    where = one_line(server.url.partition("?")[0]) if server.url is not None else "a process of its own"
    return f"{called(findings) or server.name}: {_TRANSPORTS[findings.transport]}, {where}"


def draw(
    console: Console, title: str, findings: Findings, advice: Sequence[Advice], yaml: str, needed: Sequence[str]
) -> None:
    """Print the findings, the advice, and the settings to paste."""
    width = min(console.width, WIDEST)
    console.print(Text(title, "bold"), width=width)
    console.print(_table(rows(findings)), width=width)
    if not advice:
        return
    console.print(_heading("settings that suit it"))
    settings = Table.grid(padding=(0, 2, 0, 0), expand=True)
    settings.add_column(no_wrap=True)
    settings.add_column(ratio=1)
    for one in advice:
        settings.add_row(Text(f"  {one.setting}: {one.value}"), Text(one.reason))
    console.print(settings, width=width)
    if told := remarks(findings):
        console.print(_heading("to know"))
        notes = Table.grid(padding=(0, 1, 0, 0), expand=True)
        notes.add_column(no_wrap=True)
        notes.add_column(ratio=1)
        for remark in told:
            notes.add_row("  ·", Text(remark))
        console.print(notes, width=width)
    console.print(_heading("for the settings file"))
    console.print(Text(yaml.rstrip()), soft_wrap=True)
    if needed:
        console.print(
            Text(f"\nSet {', '.join(needed)} in the environment; secrets are not printed.", "dim"), width=width
        )


def _heading(text: str) -> Text:
    return Text(f"\n{text}", "dim")


def _table(found: Sequence[Row]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    group = ""
    for row in found:
        if row.group != group:
            group = row.group
            table.add_row("", "", "", "")
            table.add_row("", Text(group, "dim"), "", "")
        mark = Text(f"  {row.mark.value}", _STYLES[row.mark])
        says = Text(one_line(row.says), "" if row.mark is not Mark.NEUTRAL else "dim")
        table.add_row(mark, row.subject, says, Text(readable_time(row.seconds), "dim"))
    return table


def readable_time(seconds: float | None) -> str:
    """How long it took, in a few characters; empty where that means nothing."""
    if seconds is None:
        return ""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "<1 ms"
