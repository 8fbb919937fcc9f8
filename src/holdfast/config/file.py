"""Reads a settings file: YAML of our own, or the JSON of a host that lists MCP servers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.config.expand import Variables
from holdfast.config.gateway import read_gateway
from holdfast.config.hosts import is_of_host, translate
from holdfast.config.jsonc import parse_jsonc
from holdfast.config.settings import GatewaySettings
from holdfast.config.source import Findings, find_halves, parse_yaml, read_text
from holdfast.config.values import Values

_EMPTY: Final = "is empty; it needs at least servers: {NAME: {url: http://127.0.0.1:3000/mcp}}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings from a file, and what the operator may want to know of it: lines of file, line, key and sentence."""

    settings: GatewaySettings
    notes: list[str]
    paths: tuple[Path, ...]
    """Every file that was read: the settings themselves, then secrets. Absolute, and as named: links are not followed,
    so that a link which is pointed elsewhere is seen to change."""


def load(path: Path | str, environment: Mapping[str, str] | None = None) -> Loaded:
    """The settings of a file, with variables filled in from `environment` (the process's own without it).

    It keeps nothing, so it may be called in a thread. Raises `ConfigError`, whose text has one line for each problem,
    in the order of the file's lines.
    """
    path = Path(path)
    text = read_text(path)
    is_json = path.suffix.lower() in {".json", ".jsonc"} or (
        path.suffix.lower() not in {".yaml", ".yml"} and text.lstrip().startswith(("{", "//", "/*"))
    )
    return read(text, path, environment, is_json=is_json)


def read(
    text: str,
    path: Path,
    environment: Mapping[str, str] | None = None,
    *,
    is_json: bool,
    may_be_editors: bool = True,
) -> Loaded:
    """As `load`, for the text of a file at `path`, by which problems are named and its own paths found.

    JSON that has `servers` and nothing else may be an editor's, in which unknown keys are left aside;
    `may_be_editors` false takes it to be in our own form.
    """
    problems, notes = Findings(str(path)), Findings(str(path))
    root = parse_jsonc(text, problems) if is_json else parse_yaml(text, problems)
    if root is None or not isinstance(root.value, dict):
        if root is not None:
            problems.add(root.line, (), f"takes names and values, such as servers: …; {root.kind} stands here")
        elif not problems:
            problems.add(1, (), _EMPTY)
        raise problems.error([path.absolute()])
    if find_halves(root, problems):
        raise problems.error([path.absolute()])
    variables = Variables(os.environ if environment is None else environment)
    values = Values(path.absolute().parent, variables, problems, notes)
    if is_of_host(root, is_json=is_json and may_be_editors):
        root, values = translate(root, values)
    settings = read_gateway(root, values)
    paths = tuple(dict.fromkeys([path.absolute(), *values.files]))
    if settings is None or problems:
        raise problems.error(paths)
    return Loaded(settings, notes.lines(), paths)
