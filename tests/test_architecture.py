"""The walls of the house: who may import whom, and what no file of the project may contain."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydantic import BaseModel

from holdfast.config import (
    ClientSettings,
    GatewaySettings,
    Limits,
    LogSettings,
    ServerSettings,
    ServerTools,
    ToolRules,
    Trust,
)

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "src" / "holdfast"

GROUND: Final = frozenset({"call", "clock", "config", "errors", "events", "tasks", "views"})
"""Known to every room but the wire."""

BESIDE: Final = frozenset({"catalog", "cluster", "identity", "observe", "store"})
"""Stand beside `session`, which knows none of them; wired in by the gateway."""

MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "errors": frozenset(),
    "clock": frozenset(),
    "tasks": frozenset(),
    "call": frozenset({"errors"}),
    "config": frozenset({"errors"}),
    "events": frozenset({"call", "errors"}),
    "views": frozenset(),
    "wire": frozenset({"call", "errors"}),
    "upstream": GROUND | {"wire"},
    "session": GROUND | {"wire", "upstream.transport"},
    "catalog": GROUND | {"wire", "session", "upstream.transport"},
    "cluster": GROUND | {"wire", "store"},
    "identity": GROUND | {"wire", "session.key"},
    "observe": GROUND,
    "store": GROUND,
    "servers": GROUND | BESIDE | {"wire", "session", "upstream.transport"},
    "downstream": GROUND | BESIDE | {"wire", "session", "servers", "upstream.transport"},
    "dashboard": GROUND | {"wire", "downstream.http", "downstream.refusal", "observe"},
    "doctor": GROUND | {"wire", "upstream"},
    "library": GROUND | {"wire", "session", "servers", "identity", "gateway"},
    "library.sdk": GROUND | {"wire.revisions", "downstream.pipes", "downstream.stdio", "identity.asker", "servers"},
    "operations": GROUND | {"observe", "servers"},
    "gateway": GROUND | BESIDE | {"wire", "session", "servers", "upstream", "downstream", "dashboard", "operations"},
    "testing": GROUND | BESIDE | {"wire", "session", "servers", "upstream", "gateway"},
    "cli": GROUND | {"wire", "gateway", "observe"},
    "cli.call": GROUND | {"wire", "observe"},
    "cli.peer": GROUND | {"wire", "upstream"},
    "cli.api": GROUND | {"upstream.http1"},
    "cli.serving": GROUND | {"cli", "gateway", "downstream.connection"},
    "cli.doctor": GROUND | {"doctor", "observe"},
    "cli.failures": GROUND | {"wire", "observe", "upstream.transport"},
    "cli.stdio": GROUND | {"gateway", "observe", "downstream.pipes", "downstream.stdio"},
    "cli.demo": GROUND | {"gateway", "testing"},
    "__main__": frozenset({"cli"}),
    "": GROUND | {"session", "gateway", "library"},
}
"""For each room, or file of a room, the rooms or files that it may import besides its own."""


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "node_modules" not in path.parts)


def module_name(path: Path) -> str:
    """`session.pool` for src/holdfast/session/pool.py; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source: str, module: str) -> Iterator[str]:
    """The modules of the package that `source` imports, without the leading `holdfast.`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["holdfast", *module.split(".")][: -node.level]
                base = ".".join([*above, base]).rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("holdfast.") for name in names if name.startswith("holdfast."))


def is_inside(module: str, place: str) -> bool:
    return module == place or module.startswith(place + ".")


def forbidden_imports(source: str, module: str) -> list[str]:
    room = module.partition(".")[0]
    allowed = MAY_IMPORT[module] if module in MAY_IMPORT else MAY_IMPORT[room]
    own = {room} if room else set[str]()
    known = {name for name in imported_modules(source, module) if not name.startswith("__")}
    return sorted(name for name in known if not any(is_inside(name, place) for place in allowed | own))


@pytest.mark.parametrize("path", python_files(PACKAGE), ids=lambda path: module_name(path) or "holdfast")
def test_imports_run_one_way(path: Path) -> None:
    module = module_name(path)
    assert module.partition(".")[0] in MAY_IMPORT, "a new room needs its place in MAY_IMPORT"
    assert forbidden_imports(path.read_text(), module) == []


def test_the_arrows_would_notice_a_step_aside() -> None:
    assert forbidden_imports("from holdfast.upstream import stdio", "session.pool") == ["upstream.stdio"]
    assert forbidden_imports("from holdfast.upstream.transport import Link", "session.pool") == []
    assert forbidden_imports("from ..gateway import Gateway", "downstream.app") == ["gateway.Gateway"]
    assert forbidden_imports("import holdfast.downstream.app", "cli.run") == ["downstream.app"]
    assert forbidden_imports("from holdfast.clock import Clock", "wire.sse") == ["clock.Clock"]
    assert forbidden_imports("from holdfast.testing import server", "gateway") == ["testing.server"]


def test_the_wire_is_pure() -> None:
    for path in python_files(PACKAGE / "wire"):
        tree = ast.parse(path.read_text())
        waits = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
        assert not waits, path.name
        imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not imports & {"asyncio", "socket", "time", "os", "threading"}, path.name


def test_no_source_file_is_longer_than_600_lines() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in python_files(PACKAGE)}
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def project_files() -> list[Path]:
    """What belongs to the project: tracked files, and new ones that git does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in listing.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def texts() -> Iterator[tuple[str, str]]:
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT).as_posix(), content.decode()


def test_every_ignored_type_error_says_which() -> None:
    bare = re.compile(r"#\s*type:\s*ignore(?!\[)|#\s*pyright:\s*ignore(?!\[)|#\s*noqa(?!:)", re.IGNORECASE)
    own = Path(__file__).relative_to(ROOT).as_posix()
    found = [name for name, text in texts() if name.endswith(".py") and name != own and bare.search(text)]
    assert found == []


MACHINE: Final = re.compile(
    # A folder below a home or work folder; the checkout's own place; a registry that pip or npm could be pointed at.
    r"(?<![\w.}/-])/(?:work|home|root|Users)/\w"
    rf"|{re.escape(str(ROOT))}"
    r"|registry\.npm" + r"js\.org|pypi\." + r"org|files\.python" + r"hosted\.org"
)


def test_no_file_names_a_place_on_one_machine_or_a_package_registry() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        if name != "tests/test_architecture.py"
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert found == []


def test_the_machine_pattern_finds_what_it_is_for() -> None:
    assert MACHINE.search(f"cd {ROOT}")
    assert MACHINE.search('"resolved": "https://registry.npm' + 'js.org/yaml"')
    assert MACHINE.search("open('/home/someone/file')")
    assert not MACHINE.search("POST /mcp/tmpfiles/chats")


SETTINGS: Final[list[type[BaseModel]]] = [
    *(GatewaySettings, Limits, LogSettings, ClientSettings, Trust, ServerSettings, ServerTools, ToolRules),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_is_documented(settings: type[BaseModel]) -> None:
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE))
    assert settings.model_fields.keys() - documented == set()
