"""How a gateway stands, as lines that fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from holdfast.cli.api import Overview
from holdfast.cli.columns import Column, lay_out
from holdfast.observe.log import one_line
from holdfast.views import ServerView, SessionView

_STYLES: Final = {
    "ready": "green",
    "active": "green",
    "connecting": "yellow",
    "opening": "yellow",
    "starting": "yellow",
    "half-open": "yellow",
    "draining": "yellow",
    "failed": "bold red",
    "lost": "red",
    "open": "bold red",
    "closed": "dim",
}
_LEAST_SESSIONS: Final = 4
"""Lines that many servers leave to the sessions: their head and the busiest three."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown."""

    overview: Overview
    peer: str
    trouble: str = ""
    """Why there was no newer answer."""
    silence: float = 0.0
    """Seconds since the last answer."""
    hint: str = ""
    """What the person may do, at the end of the first line."""


def draw(picture: Picture, width: int, height: int | None = None) -> list[Text]:
    """At most `height` lines, none wider than `width`."""
    overview = picture.overview
    lines = [_heading(picture, width)]
    if picture.trouble:
        words = f"{one_line(picture.trouble)}; no answer for {span(picture.silence)}, trying again"
        lines.append(Text(words, "bold red", no_wrap=True))
    lines.append(Text())
    room = None if height is None else height - len(lines) - 1
    left = None if room is None else max(0, room - min(_LEAST_SESSIONS, 1 + overview.total))
    lines += _servers(overview.servers, width, left)
    if overview.total:
        lines.append(Text())
        lines += _sessions(overview, width, None if height is None else height - len(lines))
    elif height is None or len(lines) + 2 <= height:
        lines += [Text(), Text("no sessions", "dim")]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    if picture.trouble:
        for line in lines[2:]:
            line.stylize("dim")
    return lines if height is None else lines[:height]


def _heading(picture: Picture, width: int) -> Text:
    overview = picture.overview
    status = one_line(overview.status)
    line = Text.assemble(
        ("Holdfast", "bold"),
        f" {one_line(overview.version)} at {one_line(picture.peer)}  ",
        (status, _STYLES.get(status, "")),
        f"   {_counted(len(overview.servers), 'server')}, {_counted(overview.total, 'session')}",
        f", {_counted(overview.client_sessions, 'client')}",
        no_wrap=True,
    )
    free = width - line.cell_len - len(picture.hint)
    if picture.hint and free >= 2:
        line.append(" " * free + picture.hint, "dim")
    return line


def _servers(servers: Sequence[ServerView], width: int, room: int | None) -> list[Text]:
    """The table of servers; where there is no room for all, those with trouble or work come first."""
    shown = list(servers)
    if room is not None and _height(shown) > room:
        shown.sort(key=lambda view: (not _is_troubled(view), -view.sent - view.queued - view.waiting))
        while shown and _height(shown) + 1 > room:
            shown.pop()
    head, *rows = lay_out(_SERVER_COLUMNS, shown, width)
    lines = [head]
    for view, row in zip(shown, rows, strict=True):
        lines.append(row)
        if view.reason:
            lines.append(Text(f"  {one_line(view.reason)}", "red", no_wrap=True))
    hidden = len(servers) - len(shown)
    if hidden:
        failed = sum(_is_troubled(view) for view in servers) - sum(map(_is_troubled, shown))
        note = f", {failed:,} of them in trouble" if failed else ""
        lines.append(Text(f"and {hidden:,} more{note}", "dim"))
    return lines


def _height(servers: Sequence[ServerView]) -> int:
    return 1 + sum(2 if view.reason else 1 for view in servers)


def _is_troubled(view: ServerView) -> bool:
    return view.state == "failed" or view.circuit != "closed"


def _sessions(overview: Overview, width: int, room: int | None) -> list[Text]:
    shown = overview.sessions
    if room is not None and 1 + len(shown) + (overview.total > len(shown)) > room:
        shown = shown[: max(0, room - 2)]
    lines = lay_out(_SESSION_COLUMNS, shown, width)
    hidden = overview.total - len(shown)
    return [*lines, Text(f"and {hidden:,} more", "dim")] if hidden > 0 else lines


def span(seconds: float) -> str:
    """A duration in one unit, as a column of them is read."""
    for unit, size, until in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < until:
            return f"{max(0.0, seconds) // size:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _word(word: str | None) -> Text:
    return Text(one_line(word)) if word else Text("-", "dim")


def _state(word: str) -> Text:
    return Text(one_line(word), _STYLES.get(word, ""))


def _number(number: int | None, style: str = "") -> Text:
    """A count; nothing to see is dim."""
    if number is None:
        return Text("-", "dim")
    return Text(f"{number:,}", style if number else "dim")


def _in_states(view: ServerView, *states: str) -> int:
    return sum(view.sessions.get(state, 0) for state in states)


_SERVER_COLUMNS: Final[tuple[Column[ServerView], ...]] = (
    Column("server", lambda view: Text(one_line(view.name), "bold"), 99, widest=28),
    Column("state", lambda view: _state(view.state), 98),
    Column("protocol", lambda view: _word(view.protocol), 20),
    Column("scope", lambda view: _word(view.scope), 10),
    Column("tools", lambda view: _number(view.tools), 40, is_number=True),
    Column("active", lambda view: _number(_in_states(view, "active"), "green"), 90, is_number=True),
    Column("idle", lambda view: _number(_in_states(view, "idle")), 70, is_number=True),
    Column("opening", lambda view: _number(_in_states(view, "new", "opening"), "yellow"), 50, is_number=True),
    Column("ending", lambda view: _number(_in_states(view, "draining", "lost"), "yellow"), 15, is_number=True),
    Column("most", lambda view: Text(f"{view.max_sessions:,}", "dim"), 12, is_number=True),
    Column("in flight", lambda view: _number(view.sent), 80, is_number=True),
    Column("queued", lambda view: _number(view.queued, "yellow"), 60, is_number=True),
    Column("waiting", lambda view: _number(view.waiting, "yellow"), 55, is_number=True),
    Column("circuit", lambda view: _state(view.circuit), 65),
)

_SESSION_COLUMNS: Final[tuple[Column[SessionView], ...]] = (
    Column("session", lambda view: Text(one_line(view.id), "bold"), 99),
    Column("server", lambda view: _word(view.server), 90, widest=20),
    Column("state", lambda view: _state(view.state), 95),
    Column("scope", lambda view: _word(view.scope), 20),
    Column("client", lambda view: _word(view.client), 60, widest=20),
    Column("user", lambda view: _word(view.user), 70, widest=28),
    Column("age", lambda view: Text(span(view.age)), 50, is_number=True),
    Column("idle", lambda view: Text(span(view.idle)) if view.idle else Text("-", "dim"), 65, is_number=True),
    Column("calls", lambda view: _number(view.calls, "green"), 80, is_number=True),
    Column("remembers", lambda view: Text("yes") if view.is_dirty else Text("-", "dim"), 40),
)
