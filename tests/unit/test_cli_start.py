"""What a command loads before it does anything: all of it is time that a person waits."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import holdfast
from holdfast.cli import garbage
from processes import start
from requirements import requirement

SCRIPT: Final = """
import gc, json, linecache, sys
from holdfast.cli.main import main
sys.argv[0] = "holdfast"
try:
    main()
finally:
    print("LOADED", json.dumps({
        "modules": list(sys.modules), "sources": list(linecache.cache), "frozen": gc.get_freeze_count(),
    }), flush=True)
"""
"""Holdfast, and at its end what there is in the process."""

SOURCES: Final = str(Path(holdfast.__file__).parent)
NOWHERE: Final = "http://127.0.0.1:1/mcp"
"""Nothing listens there."""


@dataclass(frozen=True, slots=True)
class Loaded:
    modules: frozenset[str]
    sources: frozenset[str]
    """Files of which Python read the source, as for a traceback or `inspect.getsource`."""
    frozen: int
    """Objects that are never walked for garbage."""

    @classmethod
    def of(cls, output: str) -> Loaded:
        found: dict[str, Any] = json.loads(output.rpartition("LOADED ")[2].partition("\n")[0])
        return cls(frozenset(found["modules"]), frozenset(found["sources"]), found["frozen"])


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"], ["run", "--log-level", "loud"]])
@requirement("command:start:help-loads-only-the-parser")
def test_help_version_and_mistakes_load_nothing_but_what_reads_the_command_line(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    loaded = Loaded.of(done.stdout)
    assert done.returncode == (2 if "loud" in arguments else 0)
    assert "typer" in loaded.modules
    own = {name for name in loaded.modules if name.startswith("holdfast.")} - {"holdfast.cli", "holdfast.errors"}
    assert all(name.startswith("holdfast.cli.") for name in own)
    heavy = {"asyncio", "msgspec", "prometheus_client", "rich", "ssl", "uvicorn", "yaml"}
    if arguments[0] != "run":
        heavy.add("pydantic")  # with which typer reads numbers
    assert heavy & loaded.modules == set()


@requirement("command:start:loads-what-it-needs")
def test_a_gateway_starts_without_what_it_may_never_need() -> None:
    with start(sys.executable, "-c", SCRIPT, "run", NOWHERE, "--port", "0") as process:
        process.wait_for_line("connecting")
        process.send(signal.SIGTERM)
        assert process.wait() == 0
        loaded = Loaded.of(process.output)
    assert "holdfast.upstream.streamable_http" in loaded.modules
    never = {"yaml", "prometheus_client", "mcp", "mcp_types", "http.server", "urllib.request", "holdfast.testing"}
    assert never & loaded.modules == set()
    assert {source for source in loaded.sources if source.startswith(SOURCES)} == set(), "sources are no settings"
    assert loaded.frozen > 0


def test_garbage_is_ignored_until_the_program_is_loaded() -> None:
    before = gc.get_threshold()
    try:
        with garbage.ignored():
            assert not gc.isenabled()
            garbage.settle()
            assert gc.isenabled()
            assert gc.get_freeze_count() > 0
            assert gc.get_threshold() == (garbage.YOUNG_OBJECTS, *garbage.OLDER)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_garbage_is_looked_for_again_after_a_mistake() -> None:
    with pytest.raises(ValueError, match="a mistake"), garbage.ignored():
        raise ValueError("a mistake")
    assert gc.isenabled()
