"""One server of LiteLLM in our own form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.config.litellm.credentials import NO_TOKENS, OF_TOKENS, is_beyond, read_headers, read_passed, token_keys
from holdfast.config.litellm.reading import Reading, is_reference, literal
from holdfast.config.servers import is_command_line
from holdfast.config.settings import url_fault
from holdfast.config.source import Item
from holdfast.config.values import Where
from holdfast.config.written import Written

_REVISIONS: Final = ("auto", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
_OF_A_CALLER: Final = re.compile(r"\$\{X-[^}]+\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_TARGET: Final = frozenset({"url", "transport", "command", "args", "env", "spec_path"})
_CREDENTIAL: Final = frozenset(
    {"auth_type", "auth_value", "authentication_token", "upstream_token_header", "static_headers", "extra_headers"}
)
_MAPPED: Final = _TARGET | _CREDENTIAL | {"alias", "env_vars", "allowed_tools", "disallowed_tools"}
_READ: Final = _MAPPED | {"timeout", "max_concurrent_requests", "protocol_version", "mcp_info", "description"}
_NO_LOSS: Final = frozenset({"server_id", "allow_all_keys"})
"""LiteLLM's name for the server in its own records, and what is so for every server here."""
_LOST: Final = {
    "access_groups": "is not carried over: which client sees which server stands in clients: {NAME: {servers: […]}}",
    "allowed_params": "is not carried over: every argument of a tool is passed on",
    "pinned_tools": "is not carried over: tools are listed as the server describes them",
    "rpm": "is not carried over: there are rates for clients and users (limits), and max_concurrency for a server",
    "instructions": "is not carried over: clients are given the server's own",
    "available_on_public_internet": "is not carried over: listen, allowed_hosts and keys decide who can call",
    "allow_sampling": "is not carried over: who can be asked is asked",
    "allow_elicitation": "is not carried over: who can be asked is asked",
    "spec_version": "is not carried over: the revision is agreed on with the server",
}
_HARMLESS: Final = {
    "available_on_public_internet": True,
    "allow_sampling": True,
    "allow_elicitation": True,
}
"""With this value, nothing is lost."""
_INFO_READ: Final = frozenset({"server_name", "description", "tool_allowlist_enforced", "protocol_version"})


@dataclass(frozen=True, slots=True)
class Imported:
    """A server in our own form, under a name that is still to be found."""

    settings: dict[str, Written]
    description: str | None


def read_server(item: Item, where: Where, names: Iterable[str], reading: Reading) -> Imported | None:
    """One server. None where it is left out, or a problem was noted. `names` are what its tools' names begin with."""
    entries = reading.mapping(item, where)
    if item.value is None or item.value == {}:
        reading.problems.add(item.line, where, "has no settings")
    target = _target(item, entries, where, reading) if entries else None
    if target is None:
        return None
    settings = target
    if "url" in target:
        headers = read_headers(entries, where, reading)
        settings |= {"headers": headers} if headers else {}
        passed = read_passed(entries, headers, where, reading)
        settings |= {"pass_headers": passed} if passed else {}
    else:
        _leave(entries, (*sorted(_CREDENTIAL), "env_vars"), "is for a url, and left out", where, reading)
    settings |= _era(entries, target, where, reading)
    settings |= _tools(entries, where, [*names], reading)
    settings |= _limits(entries, where, reading)
    if "url" not in target or not is_beyond(entries):
        _remark_on_tokens(entries, where, reading)
    for key, entry in entries.items():
        if key not in OF_TOKENS:
            _remark(key, entry, where, reading)
    return Imported(settings, _description(entries))


def _target(item: Item, entries: dict[str, Item], where: Where, reading: Reading) -> dict[str, Written] | None:
    if entries.get("spec_path") is not None and entries["spec_path"].value:
        what = "is left out: LiteLLM makes tools of an OpenAPI description, and no MCP server stands behind them"
        reading.remark(item, where, what)
        return None
    kind = entries.get("transport")
    usual = "stdio" if entries.get("command") is not None and entries.get("url") is None else "http"
    transport = usual
    if kind is not None and kind.value is not None:
        transport = reading.choice(kind, (*where, "transport"), ("http", "sse", "stdio")) or usual
    if transport == "stdio":
        _leave(entries, ("url",), "is not used: the transport is stdio", where, reading)
        return _command(item, entries, where, reading)
    _leave(entries, ("command", "args", "env"), f"is not used: the transport is {transport}", where, reading)
    url = _url(item, entries.get("url"), where, reading)
    if url is None:
        return None
    return {"url": url, **({"transport": "sse"} if transport == "sse" else {})}


def _url(item: Item, url: Item | None, where: Where, reading: Reading) -> str | None:
    if url is None or not url.value:
        reading.problems.add(item.line, where, "has no url")
        return None
    written = reading.text(url, (*where, "url"))
    fault = None if written is None or is_reference(url) else url_fault(url.text)
    if fault is not None:
        reading.problems.add(url.line, (*where, "url"), fault)
    return written if fault is None else None


def _command(item: Item, entries: dict[str, Item], where: Where, reading: Reading) -> dict[str, Written] | None:
    command, args, env = (entries.get(key) for key in ("command", "args", "env"))
    if command is None or not command.value or not command.text.strip():
        reading.problems.add(item.line, where, "has no command")
        return None
    program = reading.text(command, (*where, "command"))
    rest = [literal(word) for word in reading.texts(args, (*where, "args"))] if args is not None else []
    if program is None:
        return None
    if not rest and is_command_line(program):
        what = "is a program's name with spaces in it; what follows the program belongs into args"
        reading.problems.add(command.line, (*where, "command"), what)
    settings: dict[str, Written] = {"command": [program, *rest]}
    variables = _environment(env, (*where, "env"), reading) if env is not None else {}
    return settings | ({"env": variables} if variables else {})


def _environment(env: Item, where: Where, reading: Reading) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, entry in reading.mapping(env, where).items():
        place = (*where, name)
        if not name or "=" in name or "\0" in name:
            reading.problems.add(entry.line, place, "is no name of a variable")
        elif _OF_A_CALLER.fullmatch(entry.text.strip()):
            what = "is not carried over: it is filled in from a header of each caller, and a process serves its chat"
            reading.remark(entry, place, what)
        elif "\0" in entry.text:
            reading.problems.add(entry.line, place, "holds a zero character")
        elif (value := reading.text(entry, place)) is not None:
            reading.guard(entry, place)
            variables[name] = value
    return variables


def _era(entries: dict[str, Item], target: dict[str, Written], where: Where, reading: Reading) -> dict[str, Written]:
    place, item = (*where, "protocol_version"), entries.get("protocol_version")
    info = entries.get("mcp_info")
    if item is None and info is not None:
        place, item = (*where, "mcp_info", "protocol_version"), info.get("protocol_version")
    if item is None or item.value is None:
        return {}
    revision = reading.choice(item, place, _REVISIONS)
    if revision is None or revision == "auto":
        return {}
    if revision == "2026-07-28" and target.get("transport") == "sse":
        reading.problems.add(item.line, place, "is not spoken over sse")
        return {}
    if revision == "2026-07-28":
        return {"era": "modern"}
    reading.remark(item, place, "becomes era: handshake; which of its revisions is agreed on with the server")
    return {"era": "handshake"}


def _tools(entries: dict[str, Item], where: Where, names: list[str], reading: Reading) -> dict[str, Written]:
    rules: dict[str, Written] = {}
    for key, ours in (("allowed_tools", "allow"), ("disallowed_tools", "deny")):
        item = entries.get(key)
        patterns = [*_patterns(reading.texts(item, (*where, key)), names)] if item is not None else []
        if patterns:
            rules[ours] = list(dict.fromkeys(patterns))
    info = entries.get("mcp_info")
    enforced = info.get("tool_allowlist_enforced") if info is not None else None
    if enforced is not None and enforced.value is True and "allow" not in rules:
        rules["deny"] = ["*"]
    return {"tools": rules} if rules else {}


def _patterns(tools: Iterable[str], names: list[str]) -> Iterator[str]:
    """A tool's name counts for LiteLLM with the server's prefix and without."""
    for tool in tools:
        for prefix in ("", *names):
            bare = tool.removeprefix(prefix)
            if bare and (not prefix or bare != tool):
                yield literal(re.sub(r"([*?[])", r"[\1]", bare))


def _limits(entries: dict[str, Item], where: Where, reading: Reading) -> dict[str, Written]:
    limits: dict[str, Written] = {}
    timeout, calls = entries.get("timeout"), entries.get("max_concurrent_requests")
    if timeout is not None and (seconds := reading.number(timeout, (*where, "timeout"))) is not None:
        limits["call_deadline"] = seconds
    if calls is not None and (number := reading.number(calls, (*where, "max_concurrent_requests"))) is not None:
        limits["max_concurrency"] = max(1, int(number))
    return limits


def _description(entries: dict[str, Item]) -> str | None:
    info = entries.get("mcp_info")
    item = entries.get("description") or (info.get("description") if info is not None else None)
    if item is None or not isinstance(item.value, str):
        return None
    return " ".join(item.value.split()) or None


def _leave(entries: dict[str, Item], keys: Iterable[str], what: str, where: Where, reading: Reading) -> None:
    """Say `what` of those keys that are there."""
    for key in keys:
        item = entries.get(key)
        if item is not None and item.value not in (None, "", [], {}) and item.text != "none":
            reading.remark(item, (*where, key), what)


def _remark_on_tokens(entries: dict[str, Item], where: Where, reading: Reading) -> None:
    """Say in one line what would fetch or exchange a token."""
    first, *more = token_keys(entries) or [""]
    if first:
        rest = f", nor {', '.join(more)}" if more else ""
        reading.remark(entries[first], (*where, first), f"is not carried over{rest}: {NO_TOKENS}")


def _remark(key: str, entry: Item, where: Where, reading: Reading) -> None:
    """Say of a key that is not carried over what that means."""
    if entry.value in (None, "", [], {}):
        return
    if key == "mcp_info":
        for name, each in reading.mapping(entry, (*where, key)).items():
            if name not in _INFO_READ and each.value not in (None, "", [], {}):
                reading.remark(
                    each, (*where, key, name), "is not carried over: it is for LiteLLM's own pages and bills"
                )
    elif key not in _READ and key not in _NO_LOSS and entry.value != _HARMLESS.get(key, ()):
        reading.remark(entry, (*where, key), _LOST.get(key, "is not known here, and left out"))
