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

_FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


def compile_program(name: str, folder: Path = BUILD) -> Path:
    """The program made of `bench/NAME.c`, compiled unless it is newer than its source. Raises `BenchError`."""
    source, program = BENCH / f"{name}.c", folder / name
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BenchError("a C compiler is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [compiler, *_FLAGS, "-o", program, source], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise BenchError(f"{source.name} does not compile:\n{done.stderr}")
    return program
