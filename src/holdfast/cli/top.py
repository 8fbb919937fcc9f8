"""`holdfast top`: a running gateway's servers and busiest sessions, live."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Generator
from typing import Final

from rich.console import Console, Group
from rich.live import Live

from holdfast.cli import failures
from holdfast.cli.api import Address, ApiClient, ApiFailed, Overview
from holdfast.cli.loop import run
from holdfast.cli.top_view import Picture, draw
from holdfast.clock import Clock, LoopClock
from holdfast.tasks import TaskScope

INTERVAL: Final = 1.0
"""Seconds between two looks."""
SESSIONS_ONCE: Final = 20
ALL_SESSIONS: Final = 10_000
"""The most that the API gives."""
WIDTH_ELSEWHERE: Final = 160
"""Columns where the output is no terminal: nothing is left out."""


def top(address: Address, key: str | None, *, is_once: bool, is_json: bool) -> int:
    """Show how the gateway stands until the person has seen enough; returns the status."""
    return run(_top(address, key, is_once=is_once, is_json=is_json))


async def _top(address: Address, key: str | None, *, is_once: bool, is_json: bool) -> int:
    clock = LoopClock()
    async with TaskScope() as scope:
        client = ApiClient(address, key, scope, clock)
        try:
            if is_json:
                print(json.dumps(await client.fields(ALL_SESSIONS)))
            elif is_once or not sys.stdout.isatty():
                _print(await client.overview(SESSIONS_ONCE), client.peer)
            else:
                await _Display(client, scope, clock).show()
        except ApiFailed as error:
            return failures.fail(str(error), failures.MISUSED)
        finally:
            client.close()
    return 0


def _print(overview: Overview, peer: str) -> None:
    console = Console(highlight=False)
    width = console.width if console.is_terminal else WIDTH_ELSEWHERE
    for line in draw(Picture(overview, peer), width):
        console.print(line, soft_wrap=True)


class _Display:
    """The live picture on the terminal, until q or Ctrl-C."""

    def __init__(self, client: ApiClient, scope: TaskScope, clock: Clock) -> None:
        self._client = client
        self._scope = scope
        self._clock = clock
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._trouble = ""

    async def show(self) -> None:
        """Return when the person has seen enough. Raises `ApiFailed` where there is nothing to see from the start."""
        await self._look()
        enough = asyncio.Event()
        reactions: dict[signal.Signals, Callable[[], object]] = {signal.SIGINT: enough.set, signal.SIGWINCH: self._draw}
        with self._live, _on_signals(reactions), _on_key("q", enough.set):
            watching = self._scope.start(self._watch(), "watch the gateway")
            await enough.wait()
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            self._draw()
            await self._clock.sleep(INTERVAL)
            try:
                await self._look()
            except ApiFailed as error:
                self._trouble = str(error)
            else:
                self._trouble = ""

    async def _look(self) -> None:
        self._overview = await self._client.overview(self._console.height)
        self._seen_at = self._clock.now()

    def _draw(self) -> None:
        silence = self._clock.now() - self._seen_at
        picture = Picture(self._overview, self._client.peer, self._trouble, silence, hint="q ends")
        width, height = self._console.size
        self._live.update(Group(*draw(picture, width, height)), refresh=True)


@contextlib.contextmanager
def _on_signals(reactions: dict[signal.Signals, Callable[[], object]]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    for number, reaction in reactions.items():
        loop.add_signal_handler(number, reaction)
    try:
        yield
    finally:
        for number in reactions:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _on_key(key: str, react: Callable[[], object]) -> Generator[None]:
    """Call `react` when `key` is pressed; without a terminal to press it at, never."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        keys = os.read(descriptor, 64)
        if not keys:
            loop.remove_reader(descriptor)
        elif key.encode() in keys.lower():
            react()

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    mode = termios.tcgetattr(descriptor)
    mode[3] |= termios.NOFLSH  # else Ctrl-C throws away a key that is about to be read, and that waits for the next one
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
