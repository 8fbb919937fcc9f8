"""What a person sees while a call runs: a bar on a terminal, lines elsewhere, and log messages."""

from __future__ import annotations

import json
from typing import Final

from msgspec import Raw
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from holdfast.call import LOG_LEVELS, Fields, Json
from holdfast.clock import Clock, Timer
from holdfast.observe.log import one_line
from holdfast.wire import jsonrpc

SHOW_AFTER: Final = 0.4
"""Seconds until a call without progress gets its bar; most are over by then."""
_REFRESHES_PER_SECOND: Final = 10
_STATUS_LINES: Final = 1e-3
"""A gateway counts what it says while a call waits in millionths: its words are meant, not the numbers."""
_STYLES: Final = {"debug": "dim", "warning": "yellow", "error": "bold red"}


class _Words(ProgressColumn):
    """The latest message, cut where the line ends."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["message"]), "dim", overflow="ellipsis", no_wrap=True)


class CallView:
    """Shows one call to `console`; a `Hearer`. `start` and `end` enclose the call.

    Log messages are shown from `level` on, and none without it.
    """

    def __init__(self, console: Console, tool: str, clock: Clock, level: str | None) -> None:
        self._console = console
        self._clock = clock
        self._lowest = len(LOG_LEVELS) if level is None else LOG_LEVELS.index(level)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeElapsedColumn(),
            _Words(table_column=Column(ratio=1)),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=_REFRESHES_PER_SECOND,
        )
        self._task = self._bar.add_task(one_line(tool), total=None, amount="", message="")
        self._timer: Timer | None = None
        self._is_shown = False
        self._has_ended = False
        self._last_line = ""

    def start(self) -> None:
        """The call begins, or goes on after a question."""
        if self._console.is_terminal and not self._has_ended:
            self._timer = self._clock.call_later(SHOW_AFTER, self._show)

    def pause(self) -> None:
        """Take the bar away until `start`. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_shown:
            self._is_shown = False
            self._bar.stop()

    def end(self) -> None:
        """Take the bar away for good. Idempotent."""
        self._has_ended = True
        self.pause()

    def _show(self) -> None:
        if not self._is_shown:
            self._is_shown = True
            self._bar.start()

    def progress(self, update: Fields) -> None:
        """Show how far the call is; an update that says nothing readable is ignored."""
        done, total, message = (
            jsonrpc.decode_value(update.get(key, b"null")) for key in ("progress", "total", "message")
        )
        words = one_line(message) if isinstance(message, str) else ""
        if not isinstance(done, int | float):
            return
        whole = total if isinstance(total, int | float) and total > 0 else None
        amount = _amount(done, whole)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, total=whole, amount=amount, message=words)
            if self._timer is not None:
                self._show()
        elif (line := f"{amount} {words}".strip()) != self._last_line:
            self._last_line = line
            self._print(Text(line))

    def log(self, params: Raw) -> None:
        """Show a log message, if it is wanted."""
        fields = jsonrpc.decode_fields(params)
        level, logger, data = (jsonrpc.decode_value(fields.get(key, b"null")) for key in ("level", "logger", "data"))
        if not isinstance(level, str) or level not in LOG_LEVELS or LOG_LEVELS.index(level) < self._lowest:
            return
        is_grave = LOG_LEVELS.index(level) > LOG_LEVELS.index("error")
        style = _STYLES["error"] if is_grave else _STYLES.get(level, "")
        source = f"{one_line(logger)}: " if isinstance(logger, str) and logger else ""
        self._print(Text.assemble((level, style), f" {source}{one_line(_plain(data))}"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _amount(done: float, whole: float | None) -> str:
    if whole is not None:
        return f"{min(done / whole, 1.0):.0%}"
    return "" if 0 < done < _STATUS_LINES else f"{done:g}"


def _plain(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
