"""`holdfast serve FILE`: the servers and clients of a settings file."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from holdfast.cli.reload import SettingsFollower
from holdfast.cli.start import start
from holdfast.config.file import load
from holdfast.errors import ConfigError


def serve(path: Path, log_level: str | None) -> int:
    """Serve what the settings file says, until a signal. Raises `ConfigError` where the address is taken.

    Returns the status: 0, or 2 where the file has mistakes, which are printed to stderr.
    """
    try:
        loaded = load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    start(
        loaded.settings,
        log_level,
        loaded.notes,
        instead=f"choose another with listen: HOST:PORT in {path}",
        follow=partial(SettingsFollower, path, loaded),
    )
    return 0
