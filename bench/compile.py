"""Compiles the server and the load generator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.processes import BenchError

BENCH: Final = Path(__file__).resolve().parent
BUILD: Final = BENCH / "build"
"""Programs, logs and whatever else a run leaves behind; git ignores it."""

_SOURCES: Final = {
    "upstream": ("upstream.c", "http.c", "mcp.c", "json.c", "common.c"),
    "load": ("load.c", "options.c", "request.c", "answer.c", "common.c"),
}
_FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


def compile_program(name: str, folder: Path = BUILD) -> Path:
    """The program of that name in `bench/c`, compiled unless it is newer than all sources. Raises `BenchError`."""
    program = folder / name
    newest = max(source.stat().st_mtime for source in (BENCH / "c").iterdir())
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BenchError("a C compiler is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    sources = [BENCH / "c" / source for source in _SOURCES[name]]
    done = subprocess.run(
        [compiler, *_FLAGS, "-o", program, *sources], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise BenchError(f"{name} does not compile:\n{done.stderr}")
    return program
