"""The servers of a settings file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from holdfast.config.headers import HEADER_NAME, OWN_HEADERS, PER_REQUEST
from holdfast.config.names import name_clashes
from holdfast.config.rules import read_rules
from holdfast.config.settings import (
    CLOSER,
    NAME_PATTERN,
    OPENER,
    GatewaySettings,
    ServerSettings,
    ServerTools,
    url_fault,
)
from holdfast.config.source import Item
from holdfast.config.values import Values, Where, shown, shown_url

KEYS: Final = tuple(name for name in ServerSettings.model_fields if name != "name")
"""What a server may be given; its name is its key."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SHELL: Final = frozenset({"&&", "||", "|", ";", ">", ">>", "<", "2>&1", "&"})
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")

_ARGS: Final = "put the arguments into the command: [PROGRAM, ARGUMENT, …]"
_BEARER: Final = 'write headers: {Authorization: "Bearer ${TOKEN}"}'
_TRANSPORT: Final = "leave it out, or write transport: sse for a url of the old kind; a command is stdio"
_HINTS: Final[Mapping[str, str]] = {
    "args": _ARGS,
    "arguments": _ARGS,
    "type": _TRANSPORT,
    "timeout": "write call_timeout, open_timeout, acquire_timeout or idle_timeout",
    "environment": "write env",
    "working_dir": "write cwd",
    "working_directory": "write cwd",
    "token": _BEARER,
    "auth": _BEARER,
    "authorization": _BEARER,
    "api_key": _BEARER,
    "bearer": _BEARER,
    "key": f"a key is what clients bear; towards a server {_BEARER}",
    "name": "a server's name is its key: servers: {NAME: …}",
    "disabled": "put # before the server's lines to leave it out",
    "enabled": "put # before the server's lines to leave it out",
    "port": "write the port into the url",
    "host": "write the host into the url",
    "endpoint": "write url",
    "shared": "write scope: shared",
    "allow": "belongs into tools: {allow: […]}",
    "deny": "belongs into tools: {deny: […]}",
    "aliases": "belongs into tools: {aliases: {TOOL: NAME}}",
    "forward_headers": "write pass_headers: [NAME, …]",
}


def legal_name(name: str) -> str:
    """A server's name made of `name`; empty where nothing of it can stay."""
    words = _NOT_IN_NAMES.sub("-", name)
    return re.sub(r"__+", "_", words).strip("-._")[:64].rstrip("-._")


def read_servers(item: Item | None, line: int, separator: str, values: Values) -> list[ServerSettings]:
    """Every server that could be read; what could not is noted. `line` is the file's first."""
    where: Where = ("servers",)
    if values.problems.has(where):
        return []
    example = "servers: {NAME: {url: http://127.0.0.1:3000/mcp}}"
    if item is None:
        values.problems.add(line, where, f"is missing; write {example}")
        return []
    if isinstance(item.value, list):
        values.problems.add(item.line, where, "takes names, not a list: write NAME: instead of - name: NAME")
        return []
    if not item.value:
        values.problems.add(item.line, where, f"names no server; write {example}")
        return []
    entries = values.mapping(item, where, "names, each with its server")
    read = [_read_server(name, entry, (*where, name), values) for name, entry in entries.items()]
    servers = [server for server in read if server is not None]
    for place, what in name_clashes(servers, separator, lambda place: f" (line {item.nearest(place[1:]).line})"):
        found = item.nearest(place[1:])
        subject = "" if isinstance(found.value, dict) else f"{shown(found)} "
        values.problems.add(found.line, place, f"{subject}{what}")
    return servers


def _read_server(name: str, item: Item, where: Where, values: Values) -> ServerSettings | None:
    _check_name(name, item, where, values)
    if not isinstance(item.value, dict):
        key = "url" if item.text.startswith(("http://", "https://")) else "command"
        what = f"takes settings, not a value alone: write {key}: before it, in a line of its own"
        unspaced = re.match(r"(\w+):\S", item.text)
        if item.value is None:
            what = "has no settings; give it a url or a command"
        elif unspaced is not None and unspaced.group(1) in KEYS:
            what = f"a space is missing after {unspaced.group(1)}:"
        values.problems.add(item.line, where, what)
        return None
    elsewhere = dict.fromkeys(("listen", *GatewaySettings.model_fields), "the top level of the file")
    values.unknown(item, where, KEYS, _HINTS, elsewhere)
    given: dict[str, Any] = {"name": "placeholder", **_target(item, where, values)}
    for key, entry in item.value.items():
        if key in KEYS and key not in {"url", "command"}:
            given |= _setting(key, entry, (*where, key), values)
    try:
        checked = ServerSettings.model_validate(given)
    except ValidationError as error:
        fields = ServerSettings.model_fields
        errors = error.errors(include_url=False, include_input=False)
        values.refused(errors, item, where, lambda key: fields[key].default if key in fields else None)
        return None
    if checked.max_sessions == 1 and checked.scope != "shared":
        what = f"may have one session, and each {checked.scope} wants its own: they take turns, and lose state"
        values.notes.add(item.value["max_sessions"].line, where, f"{what}; scope: shared lets all use the one")
    if checked.handles and not (checked.tools.admits(OPENER) and checked.tools.admits(CLOSER)):
        what = f"adds {OPENER} and {CLOSER}, which tools leaves out: let it admit them"
        values.notes.add(item.value["handles"].line, (*where, "handles"), what)
    _note_headers(checked, item, where, values)
    return checked.model_copy(update={"name": name})


def _setting(key: str, item: Item, where: Where, values: Values) -> dict[str, Any]:
    """One setting of a server, for the model to check; nothing after a problem was noted."""
    match key:
        case "headers" | "env":
            return {key: _secrets(item, where, values)}
        case "cwd":
            return {key: _folder(item, where, values)}
        case "tools":
            return {key: read_rules(item, where, values, ServerTools)}
        case "prefix":
            text = values.text(item, where, "what its tools' names begin with at /mcp")
            return {} if text is None else {key: text}
        case "pass_headers":
            names = values.texts(item, where, "a list of headers, such as [X-Tenant]")
            return {} if names is None else {key: names}
        case _:
            return {key: values.plain(item, where)}


def _note_headers(server: ServerSettings, item: Item, where: Where, values: Values) -> None:
    for number, name in enumerate(server.pass_headers, 1):
        if name in PER_REQUEST:
            what = f"{name} is another with each request, so that no call would find the session of the one before"
            place = ("pass_headers", str(number))
            values.notes.add(item.nearest(place).line, (*where, *place), what)


def _check_name(name: str, item: Item, where: Where, values: Values) -> None:
    if re.search(NAME_PATTERN, name) is None or name.endswith("\n"):
        legal = legal_name(name)
        what = "a server's name has letters, digits, dots, dashes and underscores, 64 at most"
        values.problems.add(item.line, where, what + (f": {legal}" if legal else ""))


def _target(item: Item, where: Where, values: Values) -> dict[str, Any]:
    """The url or the command; a stand-in where it is wrong, so that the rest can be checked."""
    stand_in = {"url": "http://stand-in"}
    url, command = item.get("url"), item.get("command")
    if url is not None and command is not None:
        later = max(url, command, key=lambda each: each.line)
        values.problems.add(later.line, where, "has a url and a command; a server is reached in one way")
        return stand_in
    if url is None and command is None:
        what = "needs a url (Streamable HTTP) or a command (stdio)"
        values.problems.add(item.line, where, what)
        return stand_in
    for key, other in (("headers", url), ("env", command), ("cwd", command)):
        misplaced = item.get(key)
        if misplaced is not None and other is None:
            what = (
                "is for a url; a command takes its credentials from env"
                if key == "headers"
                else "is for a command, not a url"
            )
            values.problems.add(misplaced.line, (*where, key), what)
    if url is not None:
        return {"url": _url(url, (*where, "url"), values) or stand_in["url"]}
    words = _command(command, (*where, "command"), values) if command is not None else None
    return {"command": words} if words else stand_in


def _url(item: Item, where: Where, values: Values) -> str | None:
    url = values.text(item, where, "a URL, such as http://127.0.0.1:3000/mcp")
    fault = None if url is None else url_fault(url)
    if url is None or fault is None:
        return url
    hint = ""
    if "://" not in item.text and re.match(r"[A-Za-z0-9.-]+(:\d+)?(/|$)", item.text):
        hint = "; write http:// before it"
    subject = "" if fault.startswith("credentials") else f"{shown_url(item)} "
    values.problems.add(item.line, where, f"{subject}{fault}{hint}")
    return None


def _command(item: Item, where: Where, values: Values) -> list[str] | None:
    expected = 'a list or a text, such as [npx, "@playwright/mcp", --headless]'
    if isinstance(item.value, list):
        words = values.texts(item, where, expected)
        if values.problems.has(where):
            return None
        if words is not None and len(words) == 1 and is_command_line(words[0]):
            what = "is a program's name with spaces in it; separate the words with commas, or write a text without [ ]"
            values.problems.add(item.line, where, what)
            return None
    else:
        words = _split(item, where, expected, values)
    if words is not None and (not words or not words[0].strip()):
        values.problems.add(item.line, where, f"is empty; it takes {expected}")
        return None
    return words


def is_command_line(word: str) -> bool:
    """Whether a program's name is rather a whole line; a path may have spaces in it."""
    first, _, others = word.strip().partition(" ")
    return bool(others) and "/" not in first and "\\" not in first


def _split(item: Item, where: Where, expected: str, values: Values) -> list[str] | None:
    """The words of a command line. Variables are filled in afterwards, so that a value stays one word."""
    if isinstance(item.value, dict) or item.value is None:
        return [values.text(item, where, expected) or ""] if item.value is None else values.texts(item, where, expected)
    try:
        written = shlex.split(item.text)
    except ValueError:
        values.problems.add(item.line, where, "a quote in it is not closed")
        return None
    if _SHELL & set(written):
        values.problems.add(item.line, where, "is run without a shell; for one, write [sh, -c, 'COMMAND LINE']")
        return None
    if written and re.match(r"[A-Za-z_][A-Za-z0-9_]*=", written[0]):
        values.problems.add(item.line, where, "begins with a variable; variables stand in env: {NAME: VALUE}")
        return None
    read = [values.text(Item(item.line, word, word), where) for word in written]
    return [word for word in read if word is not None] if None not in read else None


def _folder(item: Item, where: Where, values: Values) -> str | None:
    text = values.text(item, where, "a folder")
    if text is None:
        return None
    folder = values.folder / Path(text).expanduser()
    if not folder.is_dir():
        looked = "" if Path(item.text).is_absolute() else "; relative paths start at the settings file"
        values.problems.add(item.line, where, f"{shown(item)} is no folder{looked}")
    return str(folder)


def _secrets(item: Item, where: Where, values: Values) -> dict[str, SecretStr]:
    """Headers or variables: names, and values that are secrets."""
    is_headers = where[-1] == "headers"
    kind = "names and values, such as " + ('{Authorization: "Bearer ${TOKEN}"}' if is_headers else "{NAME: value}")
    found: dict[str, SecretStr] = {}
    seen: dict[str, int] = {}
    for name, entry in values.mapping(item, where, kind).items():
        place = (*where, name)
        fault = _header_fault(name, seen) if is_headers else _variable_fault(name)
        if fault is not None:
            values.problems.add(entry.line, place, fault)
        seen.setdefault(name.lower(), entry.line)
        value = values.secret(entry, place)
        if value is None:
            continue
        if (_CONTROL if is_headers else re.compile("\0")).search(value.get_secret_value()):
            values.problems.add(entry.line, place, "its value holds a line end or another control character")
        found[name] = value
    return found


def _header_fault(name: str, seen: Mapping[str, int]) -> str | None:
    if not HEADER_NAME.fullmatch(name):
        return "is no name of a header: letters, digits and dashes"
    if name.lower() in OWN_HEADERS:
        return "is written by Holdfast itself; leave it out"
    if name.lower() in seen:
        return f"stands twice, since case does not count; the first is in line {seen[name.lower()]}"
    return None


def _variable_fault(name: str) -> str | None:
    return "is no name of a variable" if not name or "=" in name or "\0" in name else None
