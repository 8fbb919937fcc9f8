"""What a settings file says of the gateway as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from holdfast.config.clients import KEY_FORMS, read_clients, read_key
from holdfast.config.servers import read_servers
from holdfast.config.settings import (
    SEPARATOR,
    SEPARATOR_PATTERN,
    ClientSettings,
    GatewaySettings,
    Limits,
    LogSettings,
    ServerSettings,
    is_loopback,
)
from holdfast.config.source import Item
from holdfast.config.values import PATTERNS_IN_WORDS, Values, origin_fault, shown

WRITTEN_AS: Final[Mapping[str, str]] = {
    "host": "listen",
    "port": "listen",
    "operator_key_digest": "operator_key",
}
"""The keys of the YAML form that are other than the setting's own name."""
TOP_LEVEL: Final = tuple(dict.fromkeys(WRITTEN_AS.get(name, name) for name in GatewaySettings.model_fields))
"""The keys of the YAML form."""
DEFAULT_LISTEN: Final = "127.0.0.1:8790"

_CLIENTS_KEY: Final = 'a key belongs to a client: clients: {NAME: {key: "${KEY}"}}; the operator\'s is operator_key'
_LOG_LEVEL: Final = "write log: {level: info}"
_LIMIT: Final = "belongs to limits: {NAME: NUMBER}"
_HINTS: Final[Mapping[str, str]] = {
    "host": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "port": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "bind": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "address": f"write listen: HOST:PORT, such as {DEFAULT_LISTEN}",
    "mcp_servers": "write servers",
    "key": _CLIENTS_KEY,
    "api_key": _CLIENTS_KEY,
    "trust": "belongs to a client: clients: {NAME: {trust: openwebui}}",
    "operator_key_digest": "write operator_key: a digest is made of it",
    "admin_key": "write operator_key",
    "log_level": _LOG_LEVEL,
    "log_format": "write log: {format: json}",
    "logging": _LOG_LEVEL,
    "level": _LOG_LEVEL,
    **dict.fromkeys(Limits.model_fields, _LIMIT),
}
_LISTEN: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
_SECTIONS: Final[Mapping[str, tuple[type[BaseModel], str]]] = {
    "limits": (Limits, "limits, such as {sessions: 10000}"),
    "log": (LogSettings, "settings, such as {level: info, format: json}"),
}


def read_gateway(root: Item, values: Values) -> GatewaySettings | None:
    """The whole; None after problems were noted."""
    items = root.value if isinstance(root.value, dict) else {}
    values.unknown(Item(root.line, _without_extensions(items)), (), TOP_LEVEL, _HINTS, _elsewhere(items))
    given: dict[str, Any] = {}
    for key in ("client_idle_timeout", "merged"):
        if key in items:
            given[key] = values.plain(items[key], (key,))
    given |= _listen(items.get("listen"), values)
    for key, fault in (("allowed_hosts", _host_fault), ("allowed_origins", origin_fault)):
        if key in items:
            given[key] = _names(items[key], key, fault, values)
    for key, (model, what) in _SECTIONS.items():
        if key in items:
            given |= _section(items[key], key, model, what, values)
    separator = given["separator"] = _separator(items.get("separator"), values)
    servers = read_servers(items.get("servers"), root.line, separator, values)
    clients = read_clients(items.get("clients"), items.get("servers"), values)
    if clients:
        given["clients"] = clients
        _note_aliases(items["clients"], clients, servers, values)
    given |= _operator_key(items, clients, values)
    _check_reach(items, given, values)
    return _validated(given | {"servers": servers}, root, values)


def _without_extensions(items: Mapping[str, Item]) -> dict[str, Item]:
    """Without `x-…`, which holds what aliases repeat."""
    return {key: item for key, item in items.items() if not key.startswith("x-")}


def _elsewhere(items: Mapping[str, Item]) -> dict[str, str]:
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


def _section(item: Item, key: str, model: type[BaseModel], what: str, values: Values) -> dict[str, Any]:
    """A mapping of numbers and words. Nothing in it is not the same as no limit, so it is no empty value."""
    fields = model.model_fields
    values.mapping(item, (key,), what)
    values.unknown(item, (key,), tuple(fields), {}, {})
    if not isinstance(item.value, dict):
        return {}
    given = {name: values.plain(entry, (key, name)) for name, entry in item.value.items() if name in fields}
    try:
        return {key: model.model_validate(given)}
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        values.refused(errors, item, (key,), lambda name: fields[name].default if name in fields else None)
        return {}


def _separator(item: Item | None, values: Values) -> str:
    """The separator; the usual one after a problem was noted."""
    words = PATTERNS_IN_WORDS[SEPARATOR_PATTERN]
    text = None if item is None else values.text(item, ("separator",), words)
    if item is None or text is None:
        return SEPARATOR
    if re.fullmatch(SEPARATOR_PATTERN, text) and not text.endswith("\n"):
        return text
    values.problems.add(item.line, ("separator",), f"{shown(item)} does not fit; it takes {words}")
    return SEPARATOR


def _operator_key(items: Mapping[str, Item], clients: list[ClientSettings], values: Values) -> dict[str, bytes]:
    item, where = items.get("operator_key"), ("operator_key",)
    if item is None:
        return {}
    secret = values.secret(item, where)
    digest = None if secret is None else read_key(secret, item, where, values)
    for client in clients:
        if digest in client.key_digests:
            what = f"is also a key of {client.name}, so that client may do what the operator may"
            values.notes.add(item.line, where, what)
    return {} if digest is None else {"operator_key_digest": digest}


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


def _note_aliases(item: Item, clients: list[ClientSettings], servers: list[ServerSettings], values: Values) -> None:
    """Rules are of the servers' own names for their tools, so an alias among them matches nothing."""
    for client in clients:
        for server in servers:
            seen = (client.servers or {}).get(server.name)
            own = {alias: tool for tool, alias in server.tools.aliases.items()}
            for key in ("allow", "deny") if seen is not None else ():
                for number, pattern in enumerate(getattr(seen, key), 1):
                    if pattern in own:
                        place = (client.name, "servers", server.name, "tools", key, str(number))
                        found = item.nearest(place)
                        what = f"{shown(found)} is an alias; rules are of the server's own names: {own[pattern]}"
                        values.notes.add(found.line, ("clients", *place), what)


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
