"""What a person at a terminal sees while servers connect: one live line per server."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from holdfast import events
from holdfast.observe.log import log_event


@dataclass(slots=True)
class _Line:
    style: str
    words: str
    started_at: float
    is_settled: bool = False


class StatusBoard:
    """Shows each server's way from `connecting…` to `ready` or the reason it failed.

    On a terminal the lines change in place until every server has settled; elsewhere each change
    is a line of its own. After that, events go to the log only.
    """

    def __init__(self, console: Console, servers: list[str]) -> None:
        self._console = console
        now = time.monotonic()
        self._lines = {name: _Line("yellow", "connecting…", now) for name in servers}
        self._width = max(map(len, servers), default=0)
        self._live: Live | None = None

    def start(self) -> None:
        """Show that every server is being connected."""
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=8)
            self._live.start()
        else:
            for name in self._lines:
                self._print(name)

    def stop(self) -> None:
        """Leave the lines as they stand."""
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()
            self._live = None

    def take(self, event: events.Event) -> None:
        """Show an event, and log it."""
        match event:
            case events.ListsLearned(server, tools):
                ms = (time.monotonic() - self._lines[server].started_at) * 1000
                self._settle(server, "green", f"ready in {ms:.0f} ms, {tools} tool{'' if tools == 1 else 's'}")
            case events.SessionFailed(server, _, reason) if not self._lines[server].is_settled:
                self._settle(server, "red", f"failed: {reason} (trying again behind)")
                return
            case _:
                pass
        log_event(event)

    def _settle(self, server: str, style: str, words: str) -> None:
        line = self._lines[server]
        if line.words == words:
            return
        line.style, line.words, line.is_settled = style, words, True
        if self._live is None:
            self._print(server)
        elif all(line.is_settled for line in self._lines.values()):
            self.stop()
        else:
            self._live.update(self._table())

    def _print(self, server: str) -> None:
        self._console.print(self._text(server), soft_wrap=True)

    def _text(self, server: str) -> Text:
        line = self._lines[server]
        return Text.assemble("  ", (server.ljust(self._width), "bold"), "  ", (line.words, line.style))

    def _table(self) -> Table:
        table = Table.grid()
        for server in self._lines:
            table.add_row(self._text(server))
        return table


def set_up_logging(console: Console, level: str) -> None:
    """Send the log of Holdfast and of its HTTP server to `console`."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(console.file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("holdfast").setLevel(level.upper())
