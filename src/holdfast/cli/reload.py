"""Follows a settings file: on SIGHUP, and when it or a secret that it names has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from holdfast import events
from holdfast.clock import Clock, LoopClock, timeout
from holdfast.config import GatewaySettings
from holdfast.config.file import Loaded, load
from holdfast.errors import ConfigError

POLL_INTERVAL: Final = 1.0
"""Seconds between looks at the files; asking beats being told, which no two file systems do alike."""

Stamp: TypeAlias = tuple[int, int, int] | None
"""What tells two editions of a file apart; None where there is none."""


class Reloadable(Protocol):
    """What is told of new settings: the gateway."""

    def reload(self, settings: GatewaySettings, notes: list[str]) -> None:
        """Go by `settings` from now on."""


class SettingsFollower:
    """Loads a settings file anew when there is reason to, and hands on what is valid.

    A file with mistakes changes nothing; each of them is told as a line of `SettingsRefused`.
    """

    def __init__(
        self, path: Path, loaded: Loaded, gateway: Reloadable, emit: events.Emit, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._paths = loaded.paths
        self._stamps = _stamps(loaded.paths)
        self._gateway = gateway
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
            await self._reload()

    async def _reason(self) -> None:
        """Return when asked, or when the files have changed and then stayed the same for a moment."""
        seen = self._stamps
        while True:
            try:
                async with timeout(self._clock, POLL_INTERVAL):
                    await self._is_asked.wait()
            except TimeoutError:
                stamps = await asyncio.to_thread(_stamps, self._paths)
                if stamps not in (self._stamps, None) and stamps == seen:
                    return
                seen = stamps
            else:
                self._is_asked.clear()
                return

    async def _reload(self) -> None:
        stamps = await asyncio.to_thread(_stamps, self._paths)
        try:
            loaded = await asyncio.to_thread(load, self._path)
        except ConfigError as error:
            self._stamps = stamps
            self._emit(events.SettingsRefused(str(error)))
            return
        self._paths = loaded.paths
        self._stamps = await asyncio.to_thread(_stamps, loaded.paths)
        self._gateway.reload(loaded.settings, loaded.notes)


def _stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


Follow: TypeAlias = Callable[[Reloadable, events.Emit], SettingsFollower]
"""Makes what follows the file of a gateway."""
