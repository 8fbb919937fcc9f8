#!/usr/bin/env python3
"""Draws docs/images: what a person sees of a gateway that is made up, and of a server that was real."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from holdfast import events
from holdfast.cli.api import Overview
from holdfast.cli.doctor import draw as draw_findings
from holdfast.cli.doctor import title_of
from holdfast.cli.start import greet
from holdfast.cli.top_view import Picture, draw
from holdfast.config import ServerSettings
from holdfast.doctor.advice import advise
from holdfast.doctor.findings import Findings
from holdfast.doctor.pasted import paste
from holdfast.observe.terminal import StatusBoard
from holdfast.views import ServerView, SessionView

FINDINGS: Final = Path(__file__).with_name("doctor.json")
FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "images"
WIDTH: Final = 100
HEIGHT: Final = 22

SERVERS: Final = [
    ServerView(
        name="browser",
        transport="stdio",
        scope="chat",
        state="ready",
        reason="",
        title="Playwright 0.0.50",
        protocol="2025-06-18",
        tools=21,
        max_sessions=64,
        max_concurrency=64,
        sessions={"active": 3, "idle": 24, "opening": 1},
        sent=3,
        waiting=1,
    ),
    ServerView(
        name="notebook",
        transport="http",
        scope="chat",
        state="ready",
        reason="",
        title="Jupyter 1.4.0",
        protocol="2025-11-25",
        tools=14,
        max_sessions=1000,
        max_concurrency=64,
        sessions={"active": 64, "idle": 214},
        sent=64,
        queued=12,
    ),
    ServerView(
        name="search",
        transport="http",
        scope="shared",
        state="failed",
        reason="connection to 127.0.0.1:3000 refused",
        title="",
        protocol="",
        tools=None,
        max_sessions=1,
        max_concurrency=64,
        circuit="open",
    ),
    ServerView(
        name="files",
        transport="stdio",
        scope="user",
        state="connecting",
        reason="",
        title="",
        protocol="",
        tools=None,
        max_sessions=64,
        max_concurrency=64,
        sessions={"opening": 1},
    ),
]


def _session(
    number: int, server: str, user: str, *, state: str = "idle", age: float, idle: float = 0.0, calls: int = 0
) -> SessionView:
    return SessionView(
        id=f"s{number}",
        server=server,
        key=f"{number:016x}",
        state=state,
        scope="chat",
        client="open-webui",
        user=user,
        age=age,
        idle=idle,
        calls=calls,
        watchers=0,
        subscriptions=0,
        is_dirty=age > 60,
    )


SESSIONS: Final = [
    _session(12, "notebook", "ada", state="active", age=5040, calls=3),
    _session(31, "browser", "ada", state="active", age=840, calls=1),
    _session(8, "browser", "grace", state="active", age=192, calls=1),
    _session(40, "browser", "edsger", state="active", age=4, calls=1),
    _session(29, "notebook", "barbara", state="active", age=62, calls=1),
    _session(41, "browser", "barbara", state="opening", age=1),
    _session(17, "notebook", "grace", age=7300, idle=5),
    _session(22, "browser", "alan", age=660, idle=41),
    _session(3, "notebook", "alan", age=180_000, idle=1260),
]


def top() -> str:
    """The picture of `holdfast top`."""
    console = _console(HEIGHT)
    overview = Overview("0.1.0", "ready", 41, SERVERS, 307, SESSIONS)
    for line in draw(Picture(overview, "127.0.0.1:8790", hint="q ends"), WIDTH, HEIGHT):
        console.print(line, soft_wrap=True, highlight=False)
    return _drawn(console, "holdfast top")


def start() -> str:
    """The picture of `holdfast serve` once every server has settled."""
    console = _console(12)
    names = [server.name for server in SERVERS]
    root = "http://127.0.0.1:8790/mcp"
    greet(console, [root, *(f"{root}/{name}" for name in names)], ())
    seconds = iter([0.0] * len(names) + [0.23, 0.31])
    board = StatusBoard(Console(file=io.StringIO()), names, lambda: next(seconds, 1.4))
    board.take(events.ListsLearned("browser", 21))
    board.take(events.ListsLearned("notebook", 14))
    board.take(events.SessionFailed("search", "s3", SERVERS[2].reason, "start it, or correct the URL"))
    board.take(events.ServerAdded("files", is_lazy=True))
    console.print(board.table())
    return _drawn(console, "holdfast serve")


def doctor() -> str:
    """The picture of `holdfast doctor` at mcp-searxng 0.10.5: doctor.json is what a run has found (`--json`)."""
    console = _console(42)
    server = ServerSettings(name="mcp-searxng", url="http://127.0.0.1:3000/mcp")
    findings = msgspec.json.decode(FINDINGS.read_bytes(), type=Findings)
    advice = advise(findings)
    draw_findings(console, title_of(server, findings), findings, advice, paste(server, advice, {}), [])
    console.print()  # the last line of a picture is cut below its letters
    return _drawn(console, "holdfast doctor http://127.0.0.1:3000/mcp")


def _console(height: int) -> Console:
    return Console(
        record=True,
        highlight=False,
        width=WIDTH,
        height=height,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )


def _drawn(console: Console, title: str) -> str:
    """What was printed as SVG, without the fonts that rich would have browsers load from elsewhere."""
    drawn = console.export_svg(title=title, unique_id=title.split()[1])
    drawn = re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


IMAGES: Final = {"top.svg": top, "start.svg": start, "doctor.svg": doctor}

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, image in IMAGES.items():
        (FOLDER / name).write_text(image())
