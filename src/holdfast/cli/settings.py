"""The options of `holdfast run` as settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from holdfast.config import TRUST_PRESETS, Trust, expand
from holdfast.errors import ConfigError

_LAUNCHERS: Final = frozenset({"npx", "bunx", "uvx", "pipx", "uv", "npm", "pnpm", "docker", "deno", "bun"})
_INTERPRETERS: Final = re.compile(r"(python[\d.]*|node|sh|bash|ruby|perl)$")
_SUBCOMMANDS: Final = frozenset({"run", "exec", "dlx", "tool", "x"})
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")


def split_target(target: Sequence[str]) -> tuple[str | None, tuple[str, ...] | None]:
    """The URL or the command that the arguments of `run` mean. Raises `ConfigError`."""
    if not target:
        raise ConfigError("name a server: holdfast run URL, or holdfast run -- COMMAND ARG…")
    if re.match(r"https?://", target[0]):
        if len(target) > 1:
            raise ConfigError(f"after the URL {target[0]} there is one argument too many: {target[1]!r}")
        return target[0], None
    if len(target) == 1 and "://" in target[0]:
        raise ConfigError(f"{target[0]!r} is no http:// or https:// URL")
    return None, tuple(target)


def name_of(url: str | None, command: Sequence[str] | None) -> str:
    """What a server is called where nothing else is said: its package or program, or its host."""
    word = (urlsplit(url or "").hostname or "server") if command is None else _package(command)
    word = _NOT_IN_NAMES.sub("-", word).strip("-._")[:64]
    return word or "server"


def _package(command: Sequence[str]) -> str:
    program = PurePath(command[0]).name
    words = [word for word in command[1:] if not word.startswith("-")]
    if program in _LAUNCHERS:
        words = [word for word in words if word not in _SUBCOMMANDS]
    elif not _INTERPRETERS.match(program):
        words = []
    word = words[0] if words else program
    if program in _LAUNCHERS:
        scope, _, package = word.lstrip("@").rpartition("/")
        package = re.split(r"[@=]", package)[0]
        return scope if package == "mcp" and scope else package
    if "-m" in command:
        return word.rpartition(".")[2]
    return PurePath(word).stem


def parse_headers(values: Sequence[str]) -> dict[str, SecretStr]:
    """`NAME=VALUE` pairs, with `${ENV}` in values. Raises `ConfigError`, without the value."""
    headers: dict[str, SecretStr] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ConfigError(f"--header takes NAME=VALUE, and {name!r} is no such name")
        expanded = expand(text)
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", expanded):
            raise ConfigError(f"--header {name}: the value has a control character")
        headers[name] = SecretStr(expanded)
    return headers


def parse_trust(value: str | None) -> Trust:
    """A preset's name, or `user=HEADER,chat=HEADER`. Raises `ConfigError`."""
    if value is None:
        return Trust()
    if value in TRUST_PRESETS:
        return TRUST_PRESETS[value]
    names: dict[str, str] = {}
    for part in value.split(","):
        what, separator, header = part.partition("=")
        if what not in {"user", "chat"} or not separator or not header or what in names:
            presets = ", ".join(TRUST_PRESETS)
            raise ConfigError(f"--trust takes {presets}, or user=HEADER,chat=HEADER; not {value!r}")
        names[what] = header.strip().lower()
    return Trust(user=names.get("user"), chat=names.get("chat"))
