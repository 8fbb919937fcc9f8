"""What the tools, prompts and resources of one server are called where all servers are one. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

MAX_NAME: Final = 64
"""Characters of a name that every model provider takes; MCP allows 128. A longer name that a server chose itself stays
as it is as long as the prefix makes no difference to it."""
_CUT: Final = re.compile(r"_[0-9a-f]{8}")
_EXPRESSION: Final = re.compile(r"\{[^{}]*\}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class Names:
    """The public names of one server's tools, or prompts, and the way back.

    A public name is an alias, or prefix, separator and own name. Where that is longer than
    `MAX_NAME`, it is cut and ends in a digest of the own name, so that it is the same every time.
    """

    def __init__(self, prefix: str, separator: str, aliases: Mapping[str, str]) -> None:
        self._start = prefix + separator
        self._aliases = dict(aliases)
        self._own = {alias: own for own, alias in aliases.items()}
        """By alias, and by those public names that were cut."""

    def public(self, own: str) -> str:
        """What the server's `own` name is outside."""
        alias = self._aliases.get(own)
        if alias is not None:
            return alias
        whole = self._start + own
        if len(whole) <= MAX_NAME:
            return whole
        cut = f"{whole[: MAX_NAME - 9]}_{hashlib.sha256(own.encode()).hexdigest()[:8]}"
        self._own[cut] = own
        return cut

    def own(self, public: str) -> str | None:
        """What the server calls it; None where this name cannot be the server's, or `needs_list` is true."""
        known = self._own.get(public)
        if known is not None:
            return known
        if not public.startswith(self._start) or self.needs_list(public):
            return None
        own = public.removeprefix(self._start)
        return own if self.public(own) == public else None

    def needs_list(self, public: str) -> bool:
        """Whether only the server's list can tell what was cut from this name."""
        return (
            len(public) == MAX_NAME
            and public.startswith(self._start)
            and public not in self._own
            and _CUT.fullmatch(public[-9:]) is not None
        )


def scheme_of(uri: str) -> str:
    """The scheme of a URI in lower case; empty where it has none."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else ""


def qualified(prefix: str, uri: str) -> str:
    """A URI that another server has as well, marked as this server's."""
    return f"{prefix}+{uri}"


def unqualified(prefix: str, uri: str) -> str | None:
    """The URI that `qualified` marked; None where this one is not marked with `prefix`."""
    return uri.removeprefix(f"{prefix}+") if uri.startswith(f"{prefix}+") and scheme_of(uri) else None


def fits(template: str, uri: str) -> bool:
    """Whether `uri` can be of this template (RFC 6570): an expression stands for one character or more.

    Takes linear time, whatever a server calls a template: literals are looked for from left to right.
    """
    first, *others = _EXPRESSION.split(template)
    if not others:
        return uri == template
    *middle, last = others
    end = len(uri) - len(last)
    position = len(first)
    if not uri.startswith(first) or not uri.endswith(last):
        return False
    for literal in middle:
        found = uri.find(literal, position + 1, end)
        if found < 0:
            return False
        position = found + len(literal)
    return end > position
