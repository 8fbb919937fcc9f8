"""Settings files as a person would write them: YAML with comments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import yaml

Written = str | int | float | bool | Sequence["Written"] | Mapping[str, "Written"]

_PLAIN: Final = re.compile(r"-{0,2}[A-Za-z0-9_./][A-Za-z0-9_./@+-]*(?::[A-Za-z0-9_./@+-]+)*")
_INDENT: Final = "  "


class Page:
    """The lines of a file."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def blank(self) -> None:
        """Leave a line empty."""
        self._lines.append("")

    def comment(self, text: str, depth: int = 0) -> None:
        """Write `text` as a comment of one line, whatever it holds."""
        shown = text if text.isprintable() else text.encode("unicode_escape").decode()
        self._lines.append(f"{_INDENT * depth}# {shown}")

    def key(self, key: str, depth: int = 0) -> None:
        """Begin a mapping, whose entries are one level deeper."""
        self._lines.append(f"{_INDENT * depth}{_scalar(key)}:")

    def entry(self, key: str, value: Written, depth: int = 0) -> None:
        """Write a key with its value in one line; `$` and braces stand as they are given."""
        self._lines.append(f"{_INDENT * depth}{_scalar(key)}: {_flow(value)}")

    def text(self) -> str:
        """The whole file."""
        return "\n".join(self._lines) + "\n"


def _flow(value: Written) -> str:
    match value:
        case str():
            return _scalar(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Mapping():
            return "{" + ", ".join(f"{_scalar(key)}: {_flow(each)}" for key, each in value.items()) + "}"
        case _:
            return "[" + ", ".join(_flow(each) for each in value) + "]"


def _scalar(text: str) -> str:
    """Without quotes only where no reader could take it for anything but this text."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(f"[{text}]") == [text]:
        return text
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf")).strip()
