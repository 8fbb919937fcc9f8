"""What the tools, prompts and resources of one server are called where all servers are one. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

MAX_NAME: Final = 64
"""Characters of a name that every model provider takes; MCP allows 128."""
MAX_CUT: Final = 10_000
"""Cut names of one server that are remembered; the oldest are forgotten, and found again in its list."""
_DIGEST: Final = 8
_HEAD: Final = MAX_NAME - _DIGEST - 1
_CUT: Final = re.compile(rf"_[0-9a-f]{{{_DIGEST}}}")
_EXPRESSION: Final = re.compile(r"\{[^{}]*\}")
_MAY_BE_EMPTY: Final = frozenset("?&#/;.")
"""Operators of expressions that vanish with their values (RFC 6570, section 3.2)."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class Names:
    """The public names of one server's tools, or prompts, and the way back.

    A public name is an alias, or prefix, separator and own name. Where that is longer than
    `MAX_NAME`, it is cut and ends in a digest of the whole, so that it is the same every time.
    """

    def __init__(self, prefix: str, separator: str, aliases: Mapping[str, str]) -> None:
        self._start = prefix + separator
        self._aliases = dict(aliases)
        self._aliased = {alias: own for own, alias in aliases.items()}
        self._cut: dict[str, str] = {}
        """The own names behind public ones that were cut, or look like it."""

    def public(self, own: str) -> str:
        """What the server's `own` name is outside."""
        alias = self._aliases.get(own)
        if alias is not None:
            return alias
        whole = self._start + own
        if len(whole) <= MAX_NAME:
            return whole
        return f"{whole[:_HEAD]}_{hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST]}"

    def listed(self, own: str) -> str:
        """The public name of one that the server lists, which is known from now on."""
        public = self.public(own)
        if self._looks_cut(public) and self._cut.setdefault(public, own) == own and len(self._cut) > MAX_CUT:
            del self._cut[next(iter(self._cut))]
        return public

    def own(self, public: str) -> str | None:
        """What the server calls it; None where this name cannot be the server's, or `needs_list` is true."""
        known = self._aliased.get(public)
        if known is not None:
            return known
        if self._looks_cut(public):
            return self._cut.get(public)
        if not public.startswith(self._start):
            return None
        own = public.removeprefix(self._start)
        return own if self.public(own) == public else None

    def needs_list(self, public: str) -> bool:
        """Whether only the server's list can tell what was cut from this name."""
        return public not in self._aliased and public not in self._cut and self._looks_cut(public)

    def _looks_cut(self, public: str) -> bool:
        return (
            len(public) == MAX_NAME
            and public.startswith(self._start[:_HEAD])
            and _CUT.fullmatch(public, _HEAD) is not None
        )


def scheme_of(uri: str) -> str:
    """The scheme of a URI in lower case; empty where it has none."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else ""


def mark_of(prefix: str) -> str:
    """What the URIs of a server are marked with, such that a URI it remains (RFC 3986, section 3.1).

    A scheme has no underscore and begins with a letter; a prefix has no dot and no plus.
    """
    scheme = prefix.replace("_", ".")
    return f"{scheme}+" if scheme[0].isalpha() else f"n+{scheme}+"


def qualified(prefix: str, uri: str) -> str:
    """A URI that another server has as well, marked as this server's."""
    return mark_of(prefix) + uri


def unqualified(prefix: str, uri: str) -> str | None:
    """The URI that `qualified` marked; None where this one is not marked with `prefix`.

    Clients may have put the scheme into lower case (RFC 3986, section 6.2.2.1).
    """
    mark = mark_of(prefix)
    return uri[len(mark) :] or None if uri[: len(mark)].lower() == mark.lower() else None


def fits(template: str, uri: str) -> bool:
    """Whether `uri` can be of this template (RFC 6570): an expression stands for any text.

    That is one character or more, but for those operators that vanish with their values. Takes
    linear time, whatever a server calls a template: literals are looked for from left to right.
    """
    first, *others = _EXPRESSION.split(template)
    if not others:
        return uri == template
    least = [0 if each[1] in _MAY_BE_EMPTY else 1 for each in _EXPRESSION.findall(template)]
    *middle, last = others
    end = len(uri) - len(last)
    position = len(first)
    if not uri.startswith(first) or not uri.endswith(last):
        return False
    for length, literal in zip(least, middle, strict=False):
        found = uri.find(literal, position + length, end)
        if found < 0:
            return False
        position = found + len(literal)
    return end >= position + least[-1]
