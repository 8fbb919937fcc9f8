"""The files in which hosts list their MCP servers: Claude, Cursor, Windsurf, Cline, VS Code and their kin.

They are turned into the tree of our own form, with their lines and their names of keys.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from holdfast.config.gateway import TOP_LEVEL
from holdfast.config.names import is_split_at, tool_prefix
from holdfast.config.servers import KEYS, is_command_line, legal_name
from holdfast.config.settings import NAME_PATTERN, SEPARATOR
from holdfast.config.source import Item
from holdfast.config.values import Values, Where, guess, shown

_OWN_ONLY: Final = {*TOP_LEVEL} - {"servers"}
_TYPES: Final = {
    **dict.fromkeys(("stdio", "local"), "command"),
    **dict.fromkeys(("http", "streamablehttp", "streamable", "remote", "sse"), "url"),
}
_URLS: Final = ("url", "httpUrl", "serverUrl")
_READ: Final = frozenset({"command", "args", "type", "transport", "transportType", "disabled", "enabled", *_URLS})
_FOR_THE_HOST: Final = frozenset(
    {
        *("alwaysAllow", "autoApprove", "description", "dev", "gallery", "icon", "iconPath", "id", "label", "metadata"),
        *("name", "timeout", "title", "trust", "version"),
    }
)
"""How the host itself uses a server; nothing is lost without them."""
_NARROWS: Final = frozenset(
    {"disabledTools", "enabledTools", "excludeTools", "includeTools", "allowedTools", "tools", "toolFilter"}
)
_EDITORS_FOLDERS: Final = frozenset({".vscode", ".cursor", ".idea", ".roo", ".windsurf"})


def is_of_host(root: Item, *, is_json: bool) -> bool:
    """Whether the file is a host's rather than in our own form."""
    keys: set[str] = set(root.value) if isinstance(root.value, dict) else set()
    if "mcpServers" in keys or ("servers" in keys and "inputs" in keys) or _of_settings_json(root) is not None:
        return True
    return is_json and not keys & _OWN_ONLY


def _of_settings_json(root: Item) -> Item | None:
    """`mcp` in the settings of VS Code."""
    mcp = root.get("mcp")
    return mcp if mcp is not None and mcp.get("servers") is not None else None


def translate(root: Item, values: Values) -> tuple[Item, Values]:
    """The file in our own form, and how its values are read."""
    home, key = _list_of(root)
    listed = home.get(key[-1]) or Item(root.line, None)
    for findings in (values.problems, values.notes):
        findings.rename(("servers",), key)
    values = dataclasses.replace(
        values,
        folder=_workspace(values.folder),
        variables=dataclasses.replace(
            values.variables, places=_places(values.folder), answers=_answers(home.get("inputs")), is_editors=True
        ),
    )
    items = root.value if isinstance(root.value, dict) else {}
    own = {name: item for name, item in items.items() if name in _OWN_ONLY}
    if not listed.value:
        example = '{"mcpServers": {"NAME": {"command": "PROGRAM", "args": []}}}'
        values.problems.add(listed.line, ("servers",), f"names no server; a host's file has {example}")
    if isinstance(listed.value, dict):
        listed = dataclasses.replace(listed, value=_servers(listed.value, key, values))
    return Item(root.line, {**own, "servers": listed}), values


def _list_of(root: Item) -> tuple[Item, Where]:
    """The mapping that holds the list of servers, and the list's key from the top."""
    settings = _of_settings_json(root)
    if root.get("mcpServers") is not None:
        return root, ("mcpServers",)
    if settings is not None:
        return settings, ("mcp", "servers")
    return root, ("servers" if root.get("servers") is not None else "mcpServers",)


def _workspace(folder: Path) -> Path:
    return folder.parent if folder.name in _EDITORS_FOLDERS else folder


def _places(folder: Path) -> dict[str, str]:
    workspace = _workspace(folder)
    return {
        "workspaceFolder": str(workspace),
        "workspaceFolderBasename": workspace.name,
        "userHome": str(Path.home()),
        "pathSeparator": os.sep,
        "/": os.sep,
    }


def _answers(inputs: Item | None) -> dict[str, str]:
    """What an editor takes where nothing is typed."""
    answers: dict[str, str] = {}
    for each in inputs.value if inputs is not None and isinstance(inputs.value, list) else ():
        asked, default = each.get("id"), each.get("default")
        if asked is not None and default is not None:
            answers[asked.text] = default.text
    return answers


def _servers(entries: dict[str, Item], key: Where, values: Values) -> dict[str, Item]:
    servers: dict[str, Item] = {}
    legal_names = _legal_names(list(entries))
    for name, item in entries.items():
        legal = legal_names[name]
        for findings in (values.problems, values.notes):
            findings.rename(("servers", legal), (*key, name))
        server = _server(item, ("servers", legal), (*key, name), values)
        if server is not None:
            servers[legal] = server
            if legal != name:
                values.notes.add(item.line, ("servers", legal), f"is called {legal} here, in URLs and names of tools")
    if entries and not servers:
        line = next(iter(entries.values())).line
        values.problems.add(line, ("servers",), "every server in it is disabled, so none is left to serve")
    return servers


def _legal_names(names: list[str]) -> dict[str, str]:
    """What each server is called here: itself where that can be, so that the others make way."""
    legal: dict[str, str] = {}
    prefixes: set[str] = set()
    for name in sorted(names, key=lambda name: not _is_legal(name)):
        legal[name] = name if _is_legal(name) and tool_prefix(name) not in prefixes else _free_name(name, prefixes)
        prefixes.add(tool_prefix(legal[name]))
    return legal


def _is_legal(name: str) -> bool:
    is_name = re.search(NAME_PATTERN, name) is not None and not name.endswith("\n")
    return is_name and SEPARATOR not in name and is_split_at(tool_prefix(name), SEPARATOR)


def _free_name(name: str, prefixes: AbstractSet[str]) -> str:
    """A legal name near `name` whose tools are called like those of no other server."""
    near = legal_name(name)
    name = near = near if near and _is_legal(near) else tool_prefix(near).replace("_", "-") or "server"
    number = 1
    while tool_prefix(name) in prefixes:
        number += 1
        name = f"{near[:60]}-{number}"
    return name


def _server(item: Item, where: Where, written: Where, values: Values) -> Item | None:
    """One server in our own form; None where it is to be left out."""
    entries = item.value
    if not isinstance(entries, dict):
        return item
    for switch, off in (("disabled", True), ("enabled", False)):
        if switch in entries and entries[switch].value is off:
            values.notes.add(item.line, where, f"is {'disabled' if off else 'not enabled'} and left out")
            return None
    taken = {key: entry for key, entry in entries.items() if _is_ours(key, entry)}
    target = _target(entries, where, written, values)
    for key, wanted, other in (
        ("headers", "url", "a url"),
        ("env", "command", "a command"),
        ("cwd", "command", "a command"),
    ):
        if key in taken and (taken[key].value in (None, {}, "") or (target and wanted not in target)):
            spare = taken.pop(key)
            if spare.value not in (None, {}, ""):
                values.notes.add(spare.line, (*where, key), f"is for {other}, and left aside")
    for key, entry in entries.items():
        _remark(key, entry, where, values)
    return dataclasses.replace(item, value={**target, **taken})


def _is_ours(key: str, entry: Item) -> bool:
    """Whether it is a setting of ours; a list of `tools` is a host's."""
    return (
        key in KEYS and key not in {"url", "command", "transport"} and (key != "tools" or isinstance(entry.value, dict))
    )


def _target(entries: dict[str, Item], where: Where, written: Where, values: Values) -> dict[str, Item]:
    """The url or the command; where the type says which, the other is left aside."""
    urls = [key for key in _URLS if key in entries and entries[key].value is not None]
    url = next((key for key in ("httpUrl", *_URLS) if key in urls), None)
    kind = next((entries[key] for key in ("type", "transport", "transportType") if key in entries), None)
    wanted = None
    target: dict[str, Item] = {}
    if kind is not None and kind.value is not None:
        word = re.sub(r"[^a-z]", "", kind.text.lower())
        wanted = _TYPES.get(word)
        key = next(key for key in ("type", "transport", "transportType") if key in entries)
        if wanted is None:
            near = guess(kind.text, ("stdio", "http", "streamable-http", "sse"))
            values.problems.add(
                kind.line, (*where, key), f"{shown(kind)} is not one of stdio, http, streamable-http, sse{near}"
            )
        elif word == "sse":
            target["transport"] = Item(kind.line, "sse", "sse")
    if url is not None and wanted != "command":
        target["url"] = entries[url]
        for findings in (values.problems, values.notes):
            findings.rename((*where, "url"), (*written, url))
    if "command" in entries and wanted != "url":
        target["command"] = _command(entries["command"], entries.get("args"), where, written, values)
    return target


def _command(command: Item, args: Item | None, where: Where, written: Where, values: Values) -> Item:
    """The program and its arguments as one list; a program's name may hold spaces here."""
    words = command.value if isinstance(command.value, list) else [command]
    values.problems.rename((*where, "command", "1"), (*written, "command"))
    if len(words) == 1 and not (args and args.value) and is_command_line(words[0].text or "x"):
        what = "is a program's name with spaces in it; put what follows the program into args"
        values.problems.add(command.line, (*where, "command"), what)
    if args is None or args.value is None:
        rest: list[Item] = []
    elif isinstance(args.value, list):
        rest = args.value
        for number in range(1, len(rest) + 1):
            values.problems.rename((*where, "command", str(len(words) + number)), (*written, "args", str(number)))
    else:
        values.problems.add(args.line, (*where, "args"), f"takes a list of texts; {args.kind} stands here")
        rest = []
    return Item(command.line, [*words, *rest])


def _remark(key: str, entry: Item, where: Where, values: Values) -> None:
    """Say of a key that is not taken over what that means, unless it means nothing."""
    if _is_ours(key, entry) or key in _READ or key in _FOR_THE_HOST or entry.value in (None, {}, [], False):
        return
    if key in _NARROWS:
        what = "is left aside: every tool of the server is served"
    elif key == "envFile":
        what = "is not read; put its variables into env, or into Holdfast's own environment"
    else:
        what = f"is not known here, and left aside{guess(key, KEYS)}"
    values.notes.add(entry.line, (*where, key), what)
