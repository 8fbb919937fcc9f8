"""Follows a settings file: on SIGHUP, and when it or a secret that it names has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from holdfast import events
from holdfast.clock import Clock, LoopClock, timeout
from holdfast.config import GatewaySettings
from holdfast.config.file import Loaded, load
from holdfast.errors import ConfigError

logger = logging.getLogger("holdfast.settings")

POLL_INTERVAL: Final = 1.0
"""Seconds between looks at the files; asking beats being told, which no two file systems do alike."""

Stamp: TypeAlias = tuple[int, int, int, int] | None
"""What tells two editions of a file apart; None where there is none."""
Stamps: TypeAlias = dict[Path, Stamp]


Take: TypeAlias = Callable[[GatewaySettings, Sequence[str]], None]
"""Goes by new settings from now on; the notes are for the operator."""


class SettingsFollower:
    """Loads a settings file anew when there is reason to, and hands on what is valid.

    A file with mistakes changes nothing; each of them is told as a line of `SettingsRefused`, once for
    each edition of the file, and again when asked.
    """

    def __init__(self, path: Path, loaded: Loaded, take: Take, emit: events.Emit, clock: Clock | None = None) -> None:
        self._path = path
        self._stamps = _stamps(loaded.paths)
        """Of the files as they were when they were last read."""
        self._take = take
        self._emit = emit
        self._given_clock = clock
        self._is_asked = asyncio.Event()

    def ask(self) -> None:
        """Load the file soon, whether it has changed or not: SIGHUP."""
        self._is_asked.set()

    async def run(self) -> None:
        """Follow the file until cancelled."""
        self._clock = self._given_clock if self._given_clock is not None else LoopClock()
        while True:
            await self._reason()
            try:
                await self._reload()
            except Exception:  # what fails once may go well after the next change
                logger.exception("the settings could not be taken up")

    async def _reason(self) -> None:
        """Return when asked, or when the files have changed and then stayed the same for a moment."""
        seen = self._stamps
        while True:
            try:
                async with timeout(self._clock, POLL_INTERVAL):
                    await self._is_asked.wait()
            except TimeoutError:
                stamps = await asyncio.to_thread(_stamps, self._stamps)
                if stamps == seen != self._stamps:
                    return
                seen = stamps
            else:
                return

    async def _reload(self) -> None:
        self._is_asked.clear()
        self._stamps = await asyncio.to_thread(_stamps, self._stamps)  # even if what follows fails
        self._stamps, found = await asyncio.to_thread(_read, self._path, self._stamps)
        if isinstance(found, ConfigError):
            self._emit(events.SettingsRefused(str(found)))
        else:
            self._take(found.settings, found.notes)


def _read(path: Path, known: Iterable[Path]) -> tuple[Stamps, Loaded | ConfigError]:
    """What the file says, and the stamps of the files that decide it.

    The stamps are older than what was read, so that no change after it goes unseen.
    """
    paths = dict.fromkeys(known)
    while True:
        stamps = _stamps(paths)
        found = _load(path)
        if stamps.keys() >= set(found.paths):
            # A mistake may be mended where it was made, or by returning to what was there before.
            return stamps if isinstance(found, ConfigError) else {each: stamps[each] for each in found.paths}, found
        paths |= dict.fromkeys(found.paths)


def _load(path: Path) -> Loaded | ConfigError:
    try:
        return load(path)
    except ConfigError as error:
        return error


def _stamps(paths: Iterable[Path]) -> Stamps:
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


Follow: TypeAlias = Callable[[Take, events.Emit], SettingsFollower]
"""Makes what follows a settings file."""
