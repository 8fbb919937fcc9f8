"""The options of `holdfast run` as settings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from holdfast.config import MIN_JWT_SECRET, TRUST_PRESETS, Trust, expand
from holdfast.errors import ConfigError

_LAUNCHERS: Final = frozenset({"npx", "bunx", "uvx", "pipx", "uv", "npm", "pnpm", "docker", "podman", "deno", "bun"})
_INTERPRETERS: Final = re.compile(r"(python[\d.]*|node|sh|bash|ruby|perl)$")
_SUBCOMMANDS: Final = frozenset({"run", "exec", "dlx", "tool", "x"})
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LAUNCHER_VALUES: Final = re.compile(
    r"-[ceplmuvw]|--(package|call|prefix|registry|cache|from|with|python|directory|project|spec|env|env-file|volume"
    r"|mount|name|network|net|workdir|user|entrypoint|platform|add-host|label|memory|cpus|pull)"
)
"""Options of launchers whose next argument is their value, and so not the package."""
_INTERPRETER_VALUES: Final = re.compile(r"-[XWr]|--(require|import|loader)")
_CODE_OPTIONS: Final = frozenset({"-c", "-e", "-p", "--eval", "--print"})
_SAYS_NOTHING: Final = re.compile(r"index|main|cli|app|server|__main__|dist|build|out|src|lib|bin|/")
"""Files and folders that are called the same in every package."""


def split_target(target: Sequence[str]) -> tuple[str | None, tuple[str, ...] | None]:
    """The URL or the command that the arguments of `run` mean. Raises `ConfigError`."""
    if not target:
        raise ConfigError("name a server: holdfast run URL, or holdfast run -- COMMAND ARG…")
    if re.match(r"https?://", target[0]):
        if len(target) > 1:
            raise ConfigError(f"after the URL {target[0]} there is one argument too many: {target[1]!r}")
        try:
            _ = urlsplit(target[0]).port
        except ValueError:
            raise ConfigError(f"{target[0]!r} is no URL: its port is no number up to 65535") from None
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
    if program in _LAUNCHERS:
        words = [word for word in _words(command[1:], _LAUNCHER_VALUES) if word not in _SUBCOMMANDS]
        return _launched(words[0]) if words else program
    if not _INTERPRETERS.match(program):
        return PurePath(program).stem
    if "-m" in command[:-1]:
        return _telling(command[command.index("-m") + 1].split("."))
    if _CODE_OPTIONS & set(command):
        return program
    words = _words(command[1:], _INTERPRETER_VALUES)
    if not words:
        return program
    script = PurePath(words[0])
    return _telling([*script.parent.parts, script.stem])


def _words(arguments: Sequence[str], with_value: re.Pattern[str]) -> list[str]:
    """The arguments that are no option, and no option's value."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [word for before, word in pairs if not word.startswith("-") and not with_value.fullmatch(before)]


def _launched(package: str) -> str:
    """The last word of a package or image, without its version."""
    scope, _, last = package.lstrip("@").rpartition("/")
    last = re.sub(r"[@=:].*|\.(py|m?[jt]s)$", "", last)
    return scope.rpartition("/")[2] if last == "mcp" and scope else last


def _telling(parts: Sequence[str]) -> str:
    """The last part that tells one server from another."""
    return next((part for part in reversed(parts) if not _SAYS_NOTHING.fullmatch(part)), parts[-1])


def check_command(command: Sequence[str]) -> None:
    """Raise `ConfigError` where there is no such program: trying again would not help."""
    program = command[0]
    if shutil.which(program) is not None:
        return
    if Path(program).name != program and Path(program).exists():
        raise ConfigError(f"{program} is no program that may be run")
    if len(command) == 1 and re.match(r"[\w.-]+:\d+(/|$)", program):
        raise ConfigError(f"{program} is no program; for a server at a URL, write http://{program}")
    raise ConfigError(f"{program}: command not found; install it or give its full path")


def parse_key(value: str | None) -> str | None:
    """The key that clients must bear. Raises `ConfigError`: an empty one would admit everybody."""
    if value is None:
        return None
    key = expand(value)
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError("--key is empty or has a character that no Authorization header can carry")
    return key


def parse_headers(values: Sequence[str]) -> dict[str, SecretStr]:
    """`NAME=VALUE` pairs, with `${ENV}` in values. Raises `ConfigError`, without the value."""
    headers: dict[str, SecretStr] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not _HEADER_NAME.fullmatch(name):
            hint = "; write = instead of :" if ":" in name else ""
            raise ConfigError(f"--header takes NAME=VALUE, and {name.partition(':')[0]!r} has no value{hint}")
        expanded = expand(text)
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", expanded):
            raise ConfigError(f"--header {name}: the value has a control character")
        headers[name] = SecretStr(expanded)
    return headers


def parse_trust(value: str | None, jwt_secret: str | None = None) -> Trust:
    """A preset's name, or `user=HEADER,chat=HEADER`; with a secret, users are believed as a token proves them.

    Raises `ConfigError`, without the secret.
    """
    trust = _headers_trusted(value)
    if jwt_secret is None:
        return trust
    if not trust.headers:
        raise ConfigError("--jwt-secret is for the headers of a host: give --trust openwebui, too")
    secret = expand(jwt_secret).strip()  # as Open WebUI does
    if len(secret.encode()) < MIN_JWT_SECRET:
        what = f"is shorter than {MIN_JWT_SECRET} bytes, so it can be guessed"
        raise ConfigError(f"--jwt-secret {what}: openssl rand -hex 32 makes a good one, for both sides")
    return trust.model_copy(update={"jwt_secret": SecretStr(secret)})


def _headers_trusted(value: str | None) -> Trust:
    if value is None:
        return Trust()
    if value in TRUST_PRESETS:
        return TRUST_PRESETS[value]
    names: dict[str, str] = {}
    for part in value.split(","):
        what, separator, header = part.partition("=")
        header = header.strip()
        if what not in {"user", "chat"} or not separator or not _HEADER_NAME.fullmatch(header) or what in names:
            presets = ", ".join(TRUST_PRESETS)
            raise ConfigError(f"--trust takes {presets}, or user=HEADER,chat=HEADER; not {value!r}")
        names[what] = header.lower()
    return Trust(user=names.get("user"), chat=names.get("chat"))


_OPTIONS: Final = {
    "name": "--name",
    "scope": "--scope",
    "max_sessions": "--max-sessions",
    "handles": "--handles",
    "idle_timeout": "--idle-timeout",
    "host": "--host",
    "port": "--port",
}


@contextmanager
def described() -> Generator[None]:
    """Options that cannot be are told as a `ConfigError`, in the words of the command line."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError(describe_options(error)) from None


def describe_options(error: ValidationError) -> str:
    """What is wrong with the options, in one readable line."""
    problems: list[str] = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"])
        limits = item.get("ctx", {})
        match item["type"]:
            case "literal_error":
                what = f"takes {limits['expected']}"
            case "greater_than":
                what = f"takes a number above {limits['gt']:g}"
            case "greater_than_equal":
                what = f"takes a number from {limits['ge']:g} on"
            case "less_than_equal":
                what = f"takes a number up to {limits['le']:g}"
            case "string_pattern_mismatch":
                what = "takes letters, digits, dots, dashes and underscores, 64 at most"
            case _:
                what = item["msg"].removeprefix("Value error, ")
        problems.append(f"{_OPTIONS.get(where, where)} {what}".strip())
    return "; ".join(problems)
