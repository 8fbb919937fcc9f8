"""`python -m holdfast.testing.demo`: what a chat host gets from a server that remembers, without Holdfast and with it.

Everything in the table is measured in the run. The exit status is 1 where something that the table
claims did not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.testing.demo_host import STEPS, Chat, ScriptRun, chats, handshakes, has_curl, play, run_script
from holdfast.testing.demo_processes import DemoFailed, gateway, stateful_server

OPEN_DELAY: Final = 0.3
"""Seconds: a browser or a process started by `npx` takes longer, a server in one process less."""
_WIDTH: Final = 84


@dataclass(frozen=True, slots=True)
class Observation:
    """One way to the server, as it was measured."""

    chats: Sequence[Chat]
    handshakes: int
    """That the server did for the messages of all chats."""
    seconds: float
    """All messages together."""
    script: ScriptRun

    @property
    def median_ms(self) -> float:
        """Half of the messages took less."""
        return statistics.median(second * 1000 for chat in self.chats for second in chat.seconds)

    @property
    def first_ms(self) -> list[float]:
        """The first message of each chat."""
        return [chat.seconds[0] * 1000 for chat in self.chats]


def observe(url: str, server_url: str) -> Observation:
    """Play all chats against `url`, then the script; handshakes are counted at the server."""
    conversations = chats()
    started = time.perf_counter()
    play(url, conversations)
    seconds = time.perf_counter() - started
    count = handshakes(server_url)
    return Observation(conversations, count, seconds, run_script(url))


def broken_claims(without: Observation, through: Observation) -> list[str]:
    """What the table is meant to show and does not."""
    claims = {
        "without Holdfast every chat is forgotten from message to message": all(c.is_forgotten for c in without.chats),
        "with Holdfast every chat keeps its own state": all(c.is_kept for c in through.chats),
        "with Holdfast the server opens one session per chat": through.handshakes <= len(through.chats) + 1,
        "with Holdfast a message is faster": through.median_ms < without.median_ms,
        "without Holdfast the server refuses a client without a session": not without.script.has_result,
        "with Holdfast a client without a session gets its result": through.script.has_result,
        "with Holdfast a client without a session gets its progress": through.script.progress == STEPS,
    }
    return [claim for claim, holds in claims.items() if not holds]


def table(without: Observation, through: Observation) -> Table:
    """The comparison."""
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    rows.add_column("")
    rows.add_column("without Holdfast", no_wrap=True)
    rows.add_column("with Holdfast", no_wrap=True, style="bold")

    def add(name: str, cell: Callable[[Observation], Text | str]) -> None:
        rows.add_row(name, cell(without), cell(through))

    for one, other in zip(without.chats, through.chats, strict=True):
        rows.add_row(f"{one.user.capitalize()}, {one.name}: gets back", _state(one), _state(other))
    rows.add_section()
    messages = sum(len(chat.seconds) for chat in through.chats)
    add(f"handshakes for {messages} messages", lambda seen: str(seen.handshakes))
    add("time of a message, median", lambda seen: f"{seen.median_ms:.0f} ms")
    add("first message of each chat", lambda seen: ", ".join(f"{ms:.0f}" for ms in seen.first_ms) + " ms")
    add(f"all {messages} messages", lambda seen: f"{seen.seconds:.1f} s")
    rows.add_section()
    add("curl, no session: tool call" if has_curl() else "no session: tool call", _script)
    return rows


def _state(chat: Chat) -> Text:
    mark = ("✓ ", "green") if chat.is_kept else ("✗ ", "red")
    return Text.assemble(mark, ", ".join([*chat.counts, chat.recalled or "nothing"]))


def _script(seen: Observation) -> Text:
    if not seen.script.has_result:
        return Text.assemble(("✗ ", "red"), f"refused, HTTP {seen.script.status}")
    return Text.assemble(("✓ ", "green"), f"result, {seen.script.progress} of {STEPS} progress")


def show(console: Console, open_delay: float, without: Observation, through: Observation) -> int:
    """Print the table and what to try next; the exit status."""
    console.print(
        f"A server that remembers, and takes {open_delay:g} s to open a session (set for this demo; a browser takes"
        " longer). A chat host that opens a new MCP client for every message, as Open WebUI does. Three chats send"
        " four messages each, in turn: remember a word, count, count, recall the word."
    )
    console.print()
    console.print(table(without, through))
    console.print()
    broken = broken_claims(without, through)
    for claim in broken:
        console.print(Text(f"Did not hold: {claim}.", style="bold red"))
    if broken:
        return 1
    console.print(
        "Measured just now. A new chat waits once, for its own session; the first was given the one that"
        " Holdfast had opened at its start to learn the tools.",
        style="dim",
    )
    console.print()
    console.print(
        Text.assemble("Try it    ", (f"{_command()} run -- npx -y @playwright/mcp --headless --isolated", "bold"))
    )
    console.print("          then http://127.0.0.1:8790/mcp in your client: see docs/hosts.md")
    return 0


def _command() -> str:
    """How the reader starts Holdfast from here."""
    program = Path(sys.executable).with_name("holdfast")
    if not program.exists():
        return "python -m holdfast"
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else "holdfast"


def main(arguments: Sequence[str] | None = None) -> int:
    """Give the demonstration; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.testing.demo", description="Show what Holdfast is for.")
    parser.add_argument("--open-delay", type=float, default=OPEN_DELAY, metavar="SECONDS")
    open_delay: float = parser.parse_args(arguments).open_delay
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a terminal's encoding may have no check mark
    console = Console(highlight=False)
    if not console.is_terminal or console.width > _WIDTH:
        console.width = _WIDTH
    try:
        with console.status("Twelve messages straight to the server …"), stateful_server(open_delay) as url:
            without = observe(url, url)
        with (
            console.status("The same messages through holdfast run …"),
            stateful_server(open_delay) as url,
            gateway(url) as front,
        ):
            through = observe(front, url)
    except (DemoFailed, OSError, HTTPException) as error:
        console.print(Text(f"The demo failed: {error}", style="bold red"))
        return 1
    return show(console, open_delay, without, through)


if __name__ == "__main__":
    sys.exit(main())
