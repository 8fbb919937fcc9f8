"""What a person at a terminal sees: one live line per server while it connects, then the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from holdfast import events
from holdfast.observe.feed import PASSING
from holdfast.observe.fields import clipped
from holdfast.observe.json_lines import JsonFormatter
from holdfast.observe.log import EventLog, advised, count, duration, one_line, printable

REFRESHES_PER_SECOND: Final = 4
_SAY_SECONDS_AFTER: Final = 2.0
"""Seconds of connecting after which a person begins to wonder; `npx` may install for a minute."""

_INDENT: Final = (0, 0, 0, 2)
_LEVEL_STYLES: Final = {"warning": "yellow", "error": "bold red", "critical": "bold red", "debug": "dim"}


@dataclass(slots=True)
class _Line:
    since: float
    """When it began to be connected."""
    style: str = "yellow"
    words: str = "connecting…"
    reason: str | None = None
    """Why the server could not be reached, where it was tried and not."""
    is_settled: bool = False
    """It is ready, or failed once: not worth a live line any more."""
    tools: int | None = None
    """How many tools it has, once it is ready."""


class StatusBoard:
    """Shows each server's way from `connecting…` to `ready`, or the reason why it failed.

    On a terminal the lines change in place until every server has settled; elsewhere each change
    is a line of its own. A server that failed is tried again behind, and said to be ready once it
    is. After that, its events go to the log only. A server that comes later gets its line then.
    """

    def __init__(self, console: Console, servers: list[str], now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now = now
        self._lines: Mapping[str, _Line] = {name: _Line(now()) for name in servers}
        """Replaced and never changed, since the live lines are drawn in a thread of their own."""
        self._live: Live | None = None
        self.log = EventLog(now)
        """Where whatever is no line of the board goes."""

    def start(self) -> None:
        """Show that every server is being connected."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self.table, refresh_per_second=REFRESHES_PER_SECOND)
            self._live.start()
        else:
            for name in self._lines:
                self._print(name)

    def stop(self) -> None:
        """Leave the lines as they stand."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def take(self, event: events.Event) -> None:
        """Show an event, or log it."""
        if type(event) in PASSING:  # first, since there are many
            self.log.take(event)
            return
        match event:
            case events.ListsLearned(server, tools) if (line := self._unready(server)) is not None:
                self._learned(line, event, server, tools)
            case events.SessionFailed(server, _, reason, advice) if (line := self._unready(server)) is not None:
                self._failed(line, server, one_line(advised(clipped(reason), advice)))
            case events.ServerAdded(server, is_lazy):
                self._added(server, is_lazy=is_lazy)
            case events.ServerRemoved(server):
                self._removed(event, server)
            case _:
                self.log.take(event)

    def _unready(self, server: str) -> _Line | None:
        """The line of a server that was not reached yet; none once it was, and for one that was removed."""
        line = self._lines.get(server)
        return line if line is not None and line.tools is None else None

    def _learned(self, line: _Line, event: events.ListsLearned, server: str, tools: int) -> None:
        line.tools = tools
        self.log.knows(event)
        elapsed = self._now() - line.since
        words = f"ready in {duration(elapsed)}" if line.reason is None else f"ready after {elapsed:.1f} s"
        self._settle(server, "green", f"{words}, {count(tools)}")

    def _failed(self, line: _Line, server: str, reason: str) -> None:
        if line.reason != reason:
            line.reason = reason
            self._settle(server, "red", f"failed: {reason}; it is tried again until it answers")

    def _added(self, server: str, *, is_lazy: bool) -> None:
        is_new = server not in self._lines
        line = _Line(self._now())
        if is_lazy:
            line.style, line.words, line.is_settled = "dim", "waits for its first call", True
        if is_new or is_lazy:
            self._lines = {**self._lines, server: line}
        if is_new and self._live is None:
            self._print(server)

    def _removed(self, event: events.ServerRemoved, server: str) -> None:
        self._lines = {name: line for name, line in self._lines.items() if name != server}
        self.log.take(event)
        self._stop_if_settled()

    def _settle(self, server: str, style: str, words: str) -> None:
        line = self._lines[server]
        line.style, line.words, line.is_settled = style, words, True
        if self._live is None:
            self._print(server)
        self._stop_if_settled()

    def _stop_if_settled(self) -> None:
        if all(line.is_settled for line in self._lines.values()):
            self.stop()

    def _print(self, server: str) -> None:
        width = max(map(len, self._lines))
        print_words(self._console, self._text(server.ljust(width), self._lines[server]))

    def _text(self, name: str, line: _Line) -> Text:
        text = Text.assemble((name, "bold"), "  ", (line.words, line.style))
        elapsed = self._now() - line.since
        if not line.is_settled and elapsed >= _SAY_SECONDS_AFTER:
            text.append(f" {elapsed:.0f} s", "dim")
        return text

    def table(self) -> RenderableType:
        """Every line as it stands."""
        lines = self._lines
        width = max(map(len, lines), default=0)
        return Group(*(Padding(self._text(name.ljust(width), line), _INDENT) for name, line in lines.items()))


def print_words(console: Console, text: Text) -> None:
    """Print an indented line; on a terminal it wraps between words, elsewhere it stays one line."""
    if console.is_terminal:
        console.print(Padding(text, _INDENT))
    else:
        console.print(Text.assemble("  ", text), soft_wrap=True)


class _TerminalHandler(logging.Handler):
    """Log records as time, level and message in columns."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = record.levelname.lower()
            row = Table.grid(padding=(0, 2, 0, 0))
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            row.add_row(
                Text(clock, "dim"), Text(level, _LEVEL_STYLES.get(level, "")), Text(printable(self.format(record)))
            )
            self._console.print(row)
        except Exception:  # noqa: BLE001 (what logging asks of handlers: a broken terminal ends no call)
            self.handleError(record)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out the requests that were cut off at the end: the HTTP server reports them as failures."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def _on_one_line(record: logging.LogRecord) -> bool:
    """Let a record through, its message on one line; a traceback keeps its own."""
    record.msg, record.args = one_line(record.getMessage()), None
    return True


def set_up_logging(console: Console, level: str, log_format: Literal["text", "json"] = "text") -> None:
    """Send the log of Holdfast and of its HTTP server to `console`; `json` is one object a line, terminal or not."""
    if log_format == "json":
        handler: logging.Handler = logging.StreamHandler(console.file)
        handler.setFormatter(JsonFormatter())
    elif console.is_terminal:
        handler = _TerminalHandler(console)
    else:
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(_on_one_line)
    handler.addFilter(_is_news)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("holdfast").setLevel(level.upper())
