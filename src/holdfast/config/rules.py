"""Which tools there are, as a settings file says it: `tools` of a server, and of a server as one client sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from holdfast.config.settings import ServerTools, ToolRules
from holdfast.config.source import Item
from holdfast.config.values import Values, Where, guess, shown

_ALLOW: Final = "write allow: [PATTERN, …]"
_DENY: Final = "write deny: [PATTERN, …]"
_ALIASES: Final = "write aliases: {TOOL: NAME}"
_HINTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("allowed", "enable", "enabled", "include", "included", "only", "whitelist", "allowlist"), _ALLOW),
    **dict.fromkeys(("block", "blocked", "denied", "disable", "disabled", "exclude", "excluded", "hide"), _DENY),
    **dict.fromkeys(("blacklist", "denylist", "blocklist"), _DENY),
    **dict.fromkeys(("rename", "names", "as"), _ALIASES),
}
_IN_TOOLS: Final[Mapping[str, str]] = {
    "allow": "belongs into tools: {allow: […]}",
    "deny": "belongs into tools: {deny: […]}",
}
_OF_A_SERVER: Final = "a server: servers: {NAME: {tools: {aliases: …}}}"


def read_rules(item: Item, where: Where, values: Values, model: type[ToolRules]) -> dict[str, Any]:
    """What stands in `tools`, for `model` to check; what cannot be read is noted and left out."""
    if isinstance(item.value, list):
        what = "takes {allow: […], deny: […]}, and a list stands here: write allow: before it"
        values.problems.add(item.line, where, what)
        return {}
    entries = values.mapping(item, where, "{allow: […], deny: […]}")
    elsewhere = {} if model is ServerTools else {"aliases": _OF_A_SERVER}
    values.unknown(item, where, tuple(model.model_fields), _HINTS, elsewhere)
    given: dict[str, Any] = {}
    for key in ("allow", "deny"):
        if key in entries:
            patterns = values.texts(entries[key], (*where, key), "a list of patterns, such as [search, browser_*]")
            given |= {} if patterns is None else {key: patterns}
    if "aliases" in entries and model is ServerTools:
        given["aliases"] = _aliases(entries["aliases"], (*where, "aliases"), values)
    return given


def _aliases(item: Item, where: Where, values: Values) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for tool, entry in values.mapping(item, where, "tools and their names, such as {web_search: search}").items():
        alias = values.text(entry, (*where, tool), "the tool's name at /mcp")
        if alias is not None:
            aliases[tool] = alias
    return aliases


def read_servers_seen(item: Item, where: Where, known: Sequence[str], values: Values) -> dict[str, ToolRules]:
    """The servers that a client may see, with its tools there; what is wrong is noted and left out."""
    if item.value in ([], {}):
        what = "sees no server; name those that it may see, or leave servers out for all"
        values.problems.add(item.line, where, what)
        return {}
    match item.value:
        case list():
            return _listed(item.value, where, known, values)
        case str():
            what = f"takes a list; a text stands here: write servers: [{shown(item)[1:-1]}]"
            values.problems.add(item.line, where, what)
            return {}
        case _:
            entries = values.mapping(item, where, "a list of servers, or {SERVER: {tools: {allow: […]}}}")
    seen: dict[str, ToolRules] = {}
    for name, entry in entries.items():
        if name in known:
            seen[name] = _rules(entry, (*where, name), values)
        else:
            values.problems.add(entry.line, (*where, name), _unknown(f"'{name}'", name, known))
    return seen


def _listed(items: Sequence[Item], where: Where, known: Sequence[str], values: Values) -> dict[str, ToolRules]:
    seen: dict[str, ToolRules] = {}
    for number, each in enumerate(items, 1):
        place = (*where, str(number))
        name = values.text(each, place, "the name of a server; with rules, write NAME: without the dash before it")
        if name is not None and name not in known:
            values.problems.add(each.line, place, _unknown(shown(each), each.text, known))
        elif name in seen:
            values.problems.add(each.line, place, f"{shown(each)} stands twice")
        elif name is not None:
            seen[name] = ToolRules()
    return seen


def _unknown(written: str, text: str, known: Sequence[str]) -> str:
    near = guess(text, known) or (f"; there are {', '.join(known)}" if known else "")
    return f"{written} is no server of this file{near}"


def _rules(item: Item, where: Where, values: Values) -> ToolRules:
    """What stands behind a server's name: nothing for all of its tools, or `tools`."""
    if item.value is None:
        return ToolRules()
    values.mapping(item, where, "{tools: {allow: […], deny: […]}}, or nothing for all of its tools")
    values.unknown(item, where, ("tools",), _IN_TOOLS, {})
    tools = item.get("tools")
    if tools is None:
        return ToolRules()
    where = (*where, "tools")
    try:
        return ToolRules.model_validate(read_rules(tools, where, values, ToolRules))
    except ValidationError as error:
        values.refused(error.errors(include_url=False, include_input=False), tools, where, lambda _: None)
        return ToolRules()
