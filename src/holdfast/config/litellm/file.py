"""The whole file: LiteLLM's servers, its key, and what of it has no place here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.config.gateway import DEFAULT_LISTEN
from holdfast.config.litellm import server as servers
from holdfast.config.litellm.reading import Reading, Reference, Remark
from holdfast.config.names import is_split_at, tool_prefix
from holdfast.config.settings import NAME_PATTERN, PREFIX_PATTERN
from holdfast.config.source import Findings, Item
from holdfast.config.values import Where
from holdfast.config.written import Page, Written

SEPARATOR: Final = "-"
"""What LiteLLM puts between a server's name and its tool's."""

_SEPARATORS: Final = re.compile(r"[_-]{1,4}")
_KEY: Final = re.compile(r"[\x21-\x7e]+")
_MASTER_KEY: Final = "LITELLM_MASTER_KEY"
_CLIENT: Final = "master"
_ADMISSION: Final = re.compile(r"auth|jwt|sso|key_header|allowed_ips|user_header|public_routes")
_READ: Final = frozenset({"mcp_servers", "general_settings", "litellm_settings", "environment_variables"})
_LOST: Final = {
    "mcp_tools": "is not carried over: functions of Python are no MCP server; serve them as one",
    "guardrails": "is not carried over: LiteLLM's guardrails see no call that passes here",
    "include": "is not read: import each file that has mcp_servers by itself",
}


@dataclass(frozen=True, slots=True)
class Imported:
    """A settings file of ours, and what its operator is to know."""

    text: str
    remarks: Sequence[str]
    """One line each, with file, line and key; they stand as comments in the text, too."""
    servers: int
    left_out: int
    variables: Sequence[str]
    """The environment variables that the settings refer to."""


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    where: Where
    imported: servers.Imported


def is_of_litellm(root: Item) -> bool:
    """Whether a file is one of LiteLLM's proxy that says something of MCP."""
    return root.get("mcp_servers") is not None


def convert(root: Item, path: Path, separator: str = SEPARATOR) -> Imported:
    """The settings that LiteLLM's file at `path` comes to; a variable of the environment stays a reference.

    `separator` is what LiteLLM puts between the names of a server and its tool. Raises `ConfigError`, whose text has a
    line for each mistake.
    """
    problems = Findings(str(path))
    reading = Reading(problems)
    if not _SEPARATORS.fullmatch(separator):
        what = (
            "MCP_TOOL_PREFIX_SEPARATOR holds something else than up to 4 dashes and underscores, which is no separator"
        )
        problems.add(root.line, (), what)
        raise problems.error()
    named = _servers(root, separator, reading)
    key = _key(root, reading)
    _remark_on_settings(root, reading)
    _remark_on_sections(root, reading)
    if not named and not problems:
        for remark in reading.remarks:
            problems.add(remark.line, remark.where, remark.what)
        problems.add(root.line, ("mcp_servers",), "holds no server that can be carried over")
    if problems:
        raise problems.error()
    found = Findings(str(path))
    for remark in reading.remarks:
        found.add(remark.line, remark.where, remark.what)
    text = _page(path, named, key, separator, reading)
    entries = root.nearest(("mcp_servers",)).value
    total = len(entries) if isinstance(entries, dict) else 0
    return Imported(text, found.lines(), len(named), total - len(named), tuple(reading.variables))


# Servers.


def _servers(root: Item, separator: str, reading: Reading) -> list[_Named]:
    where: Where = ("mcp_servers",)
    item = root.nearest(where)
    entries = reading.mapping(item, where)
    aliases = _aliases(root, entries, reading)
    named: list[_Named] = []
    taken: set[str] = set()
    """Names, and what the names of tools begin with."""
    if not entries and not reading.problems:
        reading.problems.add(item.line, where, "names no server")
    for key, entry in entries.items():
        place = (*where, key)
        alias = _alias(entry, place, reading) or aliases.get(key)
        prefix = (alias or key).replace(" ", "_")
        imported = servers.read_server(entry, place, (f"{known}{separator}" for known in {prefix, key}), reading)
        if imported is None:
            continue
        name = _free_name(key, separator, taken)
        settings: dict[str, Written] = {}
        if prefix != tool_prefix(name):
            is_fit = re.search(PREFIX_PATTERN, prefix) is not None and not prefix.endswith("\n")
            if is_fit and is_split_at(prefix, separator) and prefix not in taken:
                settings["prefix"] = prefix
            else:
                what = (
                    f"its tools begin with {tool_prefix(name)}{separator} at /mcp, as the old beginning is not possible"
                )
                reading.remark(entry, place, what)
        if name != key:
            reading.remark(entry, place, f"is called {name} here, in URLs")
        taken |= {name, str(settings.get("prefix", tool_prefix(name)))}
        whole = servers.Imported(imported.settings | settings, imported.description)
        named.append(_Named(name, place, whole))
    return named


def _aliases(root: Item, entries: Mapping[str, Item], reading: Reading) -> dict[str, str]:
    """By a server's name, its alias in `litellm_settings.mcp_aliases`; says which are of none of `entries`."""
    where: Where = ("litellm_settings", "mcp_aliases")
    settings = root.get("litellm_settings")
    item = settings.get("mcp_aliases") if settings is not None else None
    aliases: dict[str, str] = {}
    for alias, server in reading.mapping(item, where).items() if item is not None else ():
        aliases.setdefault(server.text, alias)
    absent = [alias for server, alias in aliases.items() if server not in entries and alias.isprintable()]
    if item is not None and absent:
        are, their = ("is", "its server is") if len(absent) == 1 else ("are", "their servers are")
        reading.remark(item, where, f"{', '.join(absent)} {are} left out: {their} not in this file")
    return aliases


def _alias(entry: Item, where: Where, reading: Reading) -> str | None:
    item = entry.get("alias")
    if item is None or item.value in (None, ""):
        return None
    if isinstance(item.value, dict | list):
        reading.problems.add(item.line, (*where, "alias"), f"takes a text; {reading.stands(item)}")
    return item.text


def _free_name(key: str, separator: str, taken: AbstractSet[str]) -> str:
    """`key` where that can be a server's name and nothing else is called like its tools, or a name near it."""
    near = re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip("-._")[:60]
    for name in (key, near, near.replace(separator, "_" if "-" in separator else "-")):
        if _is_name(name, separator) and not {name, tool_prefix(name)} & taken:
            return name
    number = 1
    while not _is_name(f"server{number}", separator) or f"server{number}" in taken:
        number += 1
    return f"server{number}"


def _is_name(name: str, separator: str) -> bool:
    is_legal = re.search(NAME_PATTERN, name) is not None and not name.endswith("\n")
    return is_legal and separator not in name and is_split_at(tool_prefix(name), separator)


# The rest.


def _key(root: Item, reading: Reading) -> str | None:
    """What the one client bears; None where LiteLLM lets everybody in."""
    where: Where = ("general_settings", "master_key")
    settings = root.get("general_settings") or Item(root.line, {})
    item = settings.get("master_key")
    if item is None or item.value in (None, ""):
        weak = settings.get("dangerously_permit_weak_or_unset_master_key")
        if weak is not None and weak.value is True:
            reading.remark(settings, where, "is not set: every program on this machine may call, and no other machine")
            return None
        what = f"is not set, and LiteLLM takes it from {_MASTER_KEY}: so does {_CLIENT} here"
        reading.remark(settings, where, what)
        return reading.refer(Reference(_MASTER_KEY))
    reading.guard(item, where)
    written = reading.text(item, where)
    if written is not None and not _KEY.fullmatch(item.text):
        reading.problems.add(item.line, where, "has a character that no Authorization header can carry")
    if written is None:
        return reading.refer(Reference(_MASTER_KEY))
    what = f"is the key of {_CLIENT}, borne as Authorization: Bearer KEY; LiteLLM's virtual keys are not in this file"
    reading.remark(item, where, f"{what}: give each program that has one a client of its own")
    return written


def _remark_on_settings(root: Item, reading: Reading) -> None:
    general, own = root.get("general_settings"), root.get("litellm_settings")
    for name, entry in _entries(general).items():
        place = ("general_settings", name)
        if name in {"database_url", "store_model_in_db"} and entry.value:
            reading.remark(entry, place, "servers and keys that LiteLLM keeps in its database are not in this file")
        elif name.startswith("mcp_"):
            reading.remark(entry, place, "is not carried over")
        elif _ADMISSION.search(name) and entry.value:
            reading.remark(entry, place, "is not carried over: clients prove themselves by keys")
    for name, entry in _entries(own).items():
        if name.startswith("mcp_") and name != "mcp_aliases":
            reading.remark(
                entry, ("litellm_settings", name), "is not carried over: clients see all tools that tools admits"
            )
        elif name == "guardrails":
            reading.remark(entry, ("litellm_settings", name), _LOST[name])


def _remark_on_sections(root: Item, reading: Reading) -> None:
    sections = _entries(root)
    variables = sections.get("environment_variables")
    names = [name for name in _entries(variables) if name.isprintable()]
    if variables is not None and names:
        what = f"is not carried over: give Holdfast its variables itself, where they are needed: {', '.join(names)}"
        reading.remark(variables, ("environment_variables",), what)
    others = {name: item for name, item in sections.items() if name not in _READ}
    for name in [name for name in others if name in _LOST]:
        item = others.pop(name)
        if item.value:
            reading.remark(item, (name,), _LOST[name])
    if others:
        first, *more = others
        rest = f", as do {', '.join(name for name in more if name.isprintable())}" if more else ""
        reading.remark(others[first], (first,), f"is not about MCP and stays with LiteLLM{rest}")


def _entries(item: Item | None) -> Mapping[str, Item]:
    return item.value if item is not None and isinstance(item.value, dict) else {}


def _page(path: Path, named: Sequence[_Named], key: str | None, separator: str, reading: Reading) -> str:
    page = Page()
    page.comment(f"Made of {path.name} by holdfast import. What could not be carried over stands in comments.")
    if reading.variables:
        page.comment(f"It needs these environment variables: {', '.join(reading.variables)}")
    own = {each.where for each in named}
    _comments(page, (each for each in reading.remarks if each.where[:2] not in own), 0)
    page.blank()
    page.entry("listen", DEFAULT_LISTEN)
    page.comment("Tools keep the names that they have at LiteLLM's /mcp:")
    page.entry("separator", separator)
    page.entry("merged", "always")
    if key is not None:
        page.key("clients")
        page.key(_CLIENT, 1)
        page.entry("key", key, 2)
    page.key("servers")
    for each in named:
        if each.imported.description is not None:
            page.comment(each.imported.description, 1)
        page.key(each.name, 1)
        _comments(page, (remark for remark in reading.remarks if remark.where[:2] == each.where), 2)
        for name, value in each.imported.settings.items():
            if isinstance(value, Mapping) and name != "tools":
                page.key(name, 2)
                for inner, text in value.items():
                    page.entry(inner, text, 3)
            else:
                page.entry(name, value, 2)
    return page.text()


def _comments(page: Page, remarks: Iterable[Remark], depth: int) -> None:
    for remark in remarks:
        page.comment(str(remark), depth)
