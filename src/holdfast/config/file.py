"""Reads a settings file: YAML of our own, or the JSON of a host that lists MCP servers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from holdfast.config.clients import KEY_FORMS, read_clients
from holdfast.config.expand import Variables
from holdfast.config.hosts import is_of_host, translate
from holdfast.config.jsonc import parse_jsonc
from holdfast.config.servers import read_servers
from holdfast.config.settings import GatewaySettings, ServerSettings, is_loopback
from holdfast.config.source import Findings, Item, parse_yaml, read_text
from holdfast.config.values import Values, origin_fault, shown

TOP_LEVEL: Final = ("listen", *(name for name in GatewaySettings.model_fields if name not in {"host", "port"}))
"""The keys of the YAML form."""
DEFAULT_LISTEN: Final = "127.0.0.1:8790"

_HINTS: Final[Mapping[str, str]] = {
    "host": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "port": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "bind": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "address": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "mcp_servers": "write servers",
    "key": 'a key belongs to a client: clients: {NAME: {key: "${KEY}"}}',
    "api_key": 'a key belongs to a client: clients: {NAME: {key: "${KEY}"}}',
    "trust": "belongs to a client: clients: {NAME: {trust: openwebui}}",
}
_LISTEN: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
_EMPTY: Final = "is empty; it needs at least servers: {NAME: {url: http://127.0.0.1:3000/mcp}}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings from a file, and what the operator may want to know of it: lines of file, line, key and sentence."""

    settings: GatewaySettings
    notes: list[str]


def load(path: Path | str, environment: Mapping[str, str] | None = None) -> Loaded:
    """The settings of a file, with variables filled in from `environment` (the process's own without it).

    Raises `ConfigError`, whose text has one line for each problem, in the order of the file's lines.
    """
    path = Path(path)
    problems, notes = Findings(str(path)), Findings(str(path))
    text = read_text(path)
    is_json = path.suffix.lower() in {".json", ".jsonc"} or (
        path.suffix.lower() not in {".yaml", ".yml"} and text.lstrip().startswith(("{", "//", "/*"))
    )
    root = parse_jsonc(text, problems) if is_json else parse_yaml(text, problems)
    if root is None or not isinstance(root.value, dict):
        if root is not None:
            problems.add(root.line, (), f"takes names and values, such as servers: …; {root.kind} stands here")
        elif not problems:
            problems.add(1, (), _EMPTY)
        raise problems.error()
    variables = Variables(os.environ if environment is None else environment)
    values = Values(path.absolute().parent, variables, problems, notes)
    if is_of_host(root, is_json=is_json):
        root, values = translate(root, values)
    settings = _gateway(root, values)
    if settings is None or problems:
        raise problems.error()
    return Loaded(settings, notes.lines())


def _gateway(root: Item, values: Values) -> GatewaySettings | None:
    """The whole; None after problems were noted."""
    items = root.value if isinstance(root.value, dict) else {}
    values.unknown(Item(root.line, _without_extensions(items)), (), TOP_LEVEL, _HINTS, _of_a_server(items))
    given: dict[str, Any] = {}
    for key, item in items.items():
        if key in TOP_LEVEL and key not in {"listen", "clients", "servers", "allowed_hosts", "allowed_origins"}:
            given[key] = values.plain(item, (key,))
    given |= _listen(items.get("listen"), values)
    for key, fault in (("allowed_hosts", _host_fault), ("allowed_origins", origin_fault)):
        if key in items:
            given[key] = _names(items[key], key, fault, values)
    servers = read_servers(items.get("servers"), root.line, values)
    clients = read_clients(items.get("clients"), values)
    if clients:
        given["clients"] = clients
    _check_reach(items, given, values)
    return _validated(given | {"servers": servers}, root, values)


def _without_extensions(items: Mapping[str, Item]) -> dict[str, Item]:
    """Without `x-…`, which holds what aliases repeat."""
    return {key: item for key, item in items.items() if not key.startswith("x-")}


def _of_a_server(items: Mapping[str, Item]) -> dict[str, str]:
    """Where top-level keys belong that are settings of a server, or servers."""
    elsewhere = {name: f"a server: servers: {{NAME: {{{name}: …}}}}" for name in ServerSettings.model_fields}
    for key, item in items.items():
        if item.get("url") is not None or item.get("command") is not None:
            elsewhere[key] = f"the servers: servers: {{{key}: …}}"
    return elsewhere


def _validated(given: dict[str, Any], root: Item, values: Values) -> GatewaySettings | None:
    try:
        return GatewaySettings.model_validate(given)
    except ValidationError as error:
        fields = GatewaySettings.model_fields
        found = error.errors(include_url=False, include_input=False)
        # What concerns the whole was said with its line by those who read the parts.
        parts = [each for each in found if each["loc"]] if values.problems else found
        values.refused(parts, root, (), lambda key: fields[key].default if key in fields else None)
        return None


def _listen(item: Item | None, values: Values) -> dict[str, Any]:
    if item is None:
        return {}
    text = values.text(item, ("listen",), f"HOST:PORT, such as {DEFAULT_LISTEN}")
    if text is None:
        return {}
    match = _LISTEN.fullmatch(text.strip())
    if match is not None and int(match["port"]) <= 65535:
        return {"host": match["v6"] or match["host"], "port": int(match["port"])}
    values.problems.add(item.line, ("listen",), f"{shown(item)} is not HOST:PORT; {_listen_hint(item.text.strip())}")
    return {}


def _listen_hint(text: str) -> str:
    """What was probably meant by a text as written."""
    if re.fullmatch(r"\d+", text):
        return f"write 127.0.0.1:{text}, or 0.0.0.0:{text} for every address of the machine"
    port = re.fullmatch(r"\*?:(\d+)", text)
    if port is not None:
        return f"write 127.0.0.1:{port.group(1)}, or 0.0.0.0:{port.group(1)} for every address of the machine"
    if "://" in text:
        return f"write it without http:// and path, such as {DEFAULT_LISTEN}"
    if text.count(":") > 1:
        return "an IPv6 address stands in brackets and quotes: '[::1]:8790'"
    if re.fullmatch(r"[A-Za-z0-9._-]+:\d+", text):
        return "ports go up to 65535"
    return f"write {text}:8790" if re.fullmatch(r"[A-Za-z0-9._-]+", text) else f"write {DEFAULT_LISTEN}"


def _names(item: Item, key: str, fault: Callable[[str], str | None], values: Values) -> list[str]:
    example = "[holdfast.internal]" if key == "allowed_hosts" else "[https://chat.example.org]"
    names = values.texts(item, (key,), f"a list, such as {example}") or []
    items = item.value if isinstance(item.value, list) else []
    for number, (name, each) in enumerate(zip(names, items, strict=False), 1):
        wrong = fault(name)
        if wrong is not None:
            values.problems.add(each.line, (key, str(number)), f"{shown(each)} {wrong}")
    return names


def _host_fault(text: str) -> str | None:
    if "*" in text:
        return "would admit names that others made up; write each name out"
    if "://" in text or "/" in text:
        return "is no name; write it alone, such as holdfast.internal"
    return None if text.strip() else "is empty"


def _check_reach(items: Mapping[str, Item], given: Mapping[str, Any], values: Values) -> None:
    """A gateway that others can reach wants a key of every client, and names by which it is called."""
    listen, clients = items.get("listen"), items.get("clients")
    if listen is None or "host" not in given or is_loopback(given["host"]):
        return
    entries = clients.value if clients is not None and isinstance(clients.value, dict) else {}
    if not entries:
        what = 'can be reached from other machines, so every client needs a key: clients: {NAME: {key: "${KEY}"}}'
        values.problems.add(listen.line, ("listen",), f"{shown(listen)} {what}; or listen on 127.0.0.1")
    for name, item in entries.items():
        if isinstance(item.value, dict) and not set(KEY_FORMS) & item.value.keys():
            what = f"has no key, but other machines can reach {shown(listen)} (line {listen.line}); write key: ${{KEY}}"
            values.problems.add(item.line, ("clients", name), what)
    if not given.get("allowed_hosts"):
        what = "clients on other machines are refused until allowed_hosts says by which name they call"
        values.notes.add(listen.line, ("listen",), what)
