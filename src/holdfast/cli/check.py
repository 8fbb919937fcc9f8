"""`holdfast check FILE`: says what is wrong with a settings file, without starting anything."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from holdfast.config import GatewaySettings, ServerSettings
from holdfast.config.file import load
from holdfast.errors import ConfigError


def check(path: Path) -> int:
    """Print whether the settings file is valid, and what to know of it.

    Returns the status: 0, or 2 where it has mistakes, which are printed to stderr.
    """
    try:
        loaded = load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{path} is valid: {_contents(loaded.settings)}")
    for note in [*loaded.notes, *_absent_programs(path, loaded.settings)]:
        print(f"note: {note}")
    return 0


def _contents(settings: GatewaySettings) -> str:
    servers = _count(len(settings.servers), "server")
    if "clients" not in settings.model_fields_set:
        return f"{servers}, open to every program on this machine"
    return f"{servers}, {_count(len(settings.clients), 'client')}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _absent_programs(path: Path, settings: GatewaySettings) -> list[str]:
    """Programs that do not run here: no mistake, since the file may be meant for another machine."""
    return [
        f"{path}: servers.{server.name}.command: there is no program {server.command[0]!r} on this machine"
        for server in settings.servers
        if server.command is not None and not _runs_here(server)
    ]


def _runs_here(server: ServerSettings) -> bool:
    program = (server.command or ("",))[0]
    folders = server.env["PATH"].get_secret_value() if "PATH" in server.env else None
    if server.cwd is not None and "/" in program:
        program = str(Path(server.cwd) / program)
    return shutil.which(program, path=folders) is not None
