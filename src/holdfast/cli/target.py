"""Which server `tools` and `call` are about, in the one grammar that both have.

What follows `--` is the server: a command, as for `run`. Without `--`, the first word is: a URL,
or a name in a settings file. What is left belongs to the command line's own command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from holdfast.cli.settings import check_command, described, name_of, parse_headers, parse_key, split_target
from holdfast.config import ServerSettings
from holdfast.errors import ConfigError

DEFAULT_FILE: Final = Path("holdfast.yaml")


def find_server(
    words: Sequence[str],
    dashed: Sequence[str] | None,
    *,
    config: Path | None,
    headers: Sequence[str],
    key: str | None,
) -> tuple[ServerSettings, list[str]]:
    """The server that is meant, and the words that are left.

    Raises `ConfigError`.
    """
    with described():
        return _find_server(words, dashed, config, headers, key)


def find_only_server(
    words: Sequence[str],
    dashed: Sequence[str] | None,
    *,
    config: Path | None,
    headers: Sequence[str],
    key: str | None,
) -> ServerSettings:
    """The server that is meant, where nothing else is said.

    Raises `ConfigError`.
    """
    server, rest = find_server(words, dashed, config=config, headers=headers, key=key)
    if rest:
        raise ConfigError(f"there is one word too many: {rest[0]!r}")
    return server


def _find_server(
    words: Sequence[str], dashed: Sequence[str] | None, config: Path | None, headers: Sequence[str], key: str | None
) -> tuple[ServerSettings, list[str]]:
    extra = parse_headers(headers)
    if (secret := parse_key(key)) is not None:
        if any(name.lower() == "authorization" for name in extra):
            raise ConfigError("--key is sent as Authorization, and --header has another; give one of them")
        extra["Authorization"] = SecretStr(f"Bearer {secret}")
    if dashed is not None:
        return _after(words, dashed, config, extra), list(words)
    if not words:
        raise ConfigError("name a server: a URL, a NAME of --config FILE, or -- COMMAND ARG… at the end")
    first, *rest = words
    if "://" in first:
        url, _ = split_target([first])
        return ServerSettings(name=name_of(url, None), url=url, headers=extra), rest
    return _named(first, config, extra), rest


def _after(
    words: Sequence[str], dashed: Sequence[str], config: Path | None, extra: dict[str, SecretStr]
) -> ServerSettings:
    if not dashed:
        raise ConfigError("after -- a command is missing")
    if config is not None:
        raise ConfigError("--config goes with a NAME of that file as the first word, not with --")
    if words and re.match(r"https?://", words[0]):
        raise ConfigError(f"there are two servers: {words[0]}, and what follows --")
    url, command = split_target(dashed)
    if command is not None:
        if extra:
            raise ConfigError(
                "--header and --key are for servers at a URL; a command takes its credentials from the environment"
            )
        check_command(command)
    return ServerSettings(name=name_of(url, command), url=url, command=command, headers=extra)


def _named(name: str, config: Path | None, extra: dict[str, SecretStr]) -> ServerSettings:
    path = config if config is not None else DEFAULT_FILE
    if config is None and not path.exists():
        raise ConfigError(
            f"{name!r} is no URL; for a server of a settings file add --config FILE, for a command end with -- COMMAND"
        )
    from holdfast.config.file import load  # noqa: PLC0415 (YAML, which the other forms do without)

    try:
        servers = {server.name: server for server in load(path).settings.servers}
    except ConfigError as error:
        raise ConfigError(f"the settings cannot be used:\n{error}") from None
    if name not in servers:
        raise ConfigError(f"{path} has no server {name!r}; it has {', '.join(servers)}")
    server = servers[name]
    if not extra:
        return server
    if server.command is not None:
        raise ConfigError(f"--header and --key are for servers at a URL, and {name} is a command")
    added = {header.lower() for header in extra}
    kept = {header: value for header, value in server.headers.items() if header.lower() not in added}
    return server.model_copy(update={"headers": {**kept, **extra}})
