"""`holdfast import FILE`: the settings of another gateway as a settings file of ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from holdfast.config.hosts import is_of_host
from holdfast.config.litellm import Imported, convert, is_of_litellm
from holdfast.config.source import Findings, Item, find_halves, parse_yaml, read_text
from holdfast.errors import ConfigError

_SEPARATOR: Final = "MCP_TOOL_PREFIX_SEPARATOR"
"""LiteLLM's own variable for what stands between the names of a server and its tool."""


def import_file(path: Path, output: Path | None) -> int:
    """Write what the file comes to, and say on stderr what does not come along.

    Nothing is written over a file that is there. Returns the status: 0, or 2 where it has mistakes, which are printed
    to stderr.
    """
    try:
        imported = _import(path)
        if output is not None:
            _write(output, imported.text)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for remark in imported.remarks:
        print(remark, file=sys.stderr)
    if output is None:
        print(imported.text, end="")
    else:
        print(f"{output}: {_summary(imported)}; see holdfast check {output}", file=sys.stderr)
    return 0


def _import(path: Path) -> Imported:
    problems = Findings(str(path))
    root = parse_yaml(read_text(path), problems)
    if root is not None and not problems and not find_halves(root, problems):
        if is_of_litellm(root):
            return convert(root, path, os.environ.get(_SEPARATOR) or "-")
        problems.add(root.line, (), _foreign(root))
    elif not problems:
        problems.add(1, (), "is empty")
    raise problems.error([path])


def _foreign(root: Item) -> str:
    """What to do with a file that has none of LiteLLM's servers."""
    if is_of_host(root, is_json=False):
        return "needs no import: holdfast serve reads it as it is"
    if root.get("servers") is not None:
        return "has servers, as Holdfast's own files do: see holdfast check"
    include = root.get("include")
    if include is not None:
        return "has no mcp_servers; import the file of those that it includes (include) which has them"
    return "has no mcp_servers, so it is no config file of LiteLLM's proxy with MCP servers"


def _write(path: Path, text: str) -> None:
    """Make the file, for its owner's eyes alone: secrets may stand in it. Raises `ConfigError`."""
    try:
        path.touch(0o600, exist_ok=False)
        path.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigError(f"{path}: is there already, and nothing was written; name another file with -o") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from None


def _summary(imported: Imported) -> str:
    servers = "1 server" if imported.servers == 1 else f"{imported.servers} servers"
    return servers + (f", {imported.left_out} left out" if imported.left_out else "")
