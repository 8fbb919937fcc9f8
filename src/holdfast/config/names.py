"""What servers and tools are called at `/mcp`, where the lists of all servers are one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

Place = tuple[str, ...]
"""The keys that lead to a value of the settings, from the top."""


class Aliases(Protocol):
    """The tools of a server, as far as their names go."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """By a tool's name, the whole name that it has at `/mcp`."""
        ...


class Prefixed(Protocol):
    """A server, as far as names go."""

    @property
    def name(self) -> str:
        """Its own."""
        ...

    @property
    def prefix(self) -> str | None:
        """What its tools' names are to begin with, if that was said."""
        ...

    @property
    def public_prefix(self) -> str:
        """What its tools' names begin with."""
        ...

    @property
    def tools(self) -> Aliases:
        """Its tools."""
        ...


_NOT_IN_TOOLS: Final = re.compile(r"[^A-Za-z0-9_-]")


def tool_prefix(name: str) -> str:
    """A server's name as it may stand before the names of its tools."""
    return _NOT_IN_TOOLS.sub("_", name)


def is_split_at(prefix: str, separator: str) -> bool:
    """Whether the first `separator` in `prefix` + `separator` + any tool's name is the one that was put there."""
    return (prefix + separator).find(separator) == len(prefix)


def name_clashes(
    servers: Sequence[Prefixed], separator: str, at: Callable[[Place], str]
) -> Iterator[tuple[Place, str]]:
    """Every place where two tools might be called the same at `/mcp`, and what is wrong there.

    `at` says in a few words where a place is, for the sentences that name a second one. No sentence quotes the value at
    a place: whoever shows it decides whether it may be seen.
    """
    owners: dict[str, Place] = {}
    for server in servers:
        place = _place_of_prefix(server)
        prefix = server.public_prefix
        other = owners.setdefault(prefix, place)
        if separator in server.name:
            what = f"a server's name has no {separator}, which ends it in the names of tools"
            near = server.name.replace(separator, "_" if "-" in separator else "-")
            yield ("servers", server.name), what + ("" if separator in near else f": {near}")
        elif not is_split_at(prefix, separator):
            yield place, _ambiguous(server, separator)
        elif other != place:
            what = f"its tools begin with {prefix}{separator} at /mcp, as do those of {other[1]}{at(other)}"
            if server.prefix is not None:
                what = f"is also what the tools of {other[1]}{at(other)} begin with at /mcp"
            yield place, f"{what}; give one of the two another prefix"
    yield from _alias_clashes(servers, separator, owners, at)


def _place_of_prefix(server: Prefixed) -> Place:
    return ("servers", server.name) if server.prefix is None else ("servers", server.name, "prefix")


def _ambiguous(server: Prefixed, separator: str) -> str:
    if server.prefix is not None:
        how = "has" if separator in server.prefix else "ends like the beginning of"
        return f"{how} {separator}, which ends it in the names of tools"
    what = f"would begin its tools' names with {server.public_prefix}{separator} at /mcp"
    return f"{what}, where the first {separator} ends the server's part; give it a prefix or another name"


def _alias_clashes(
    servers: Sequence[Prefixed], separator: str, prefixes: dict[str, Place], at: Callable[[Place], str]
) -> Iterator[tuple[Place, str]]:
    owners: dict[str, Place] = {}
    for server in servers:
        for tool, alias in server.tools.aliases.items():
            place = ("servers", server.name, "tools", "aliases", tool)
            other = owners.setdefault(alias, place)
            if other != place:
                yield place, f"is already what {other[-1]} of {other[1]} is called{at(other)}"
            for prefix, owner in prefixes.items():
                if alias.startswith(prefix + separator):
                    what = f"begins like the tools of {owner[1]}{at(owner)}"
                    yield place, f"{what}; an alias is a whole name, without a server's prefix"
