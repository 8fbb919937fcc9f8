"""Commands that know what stood before `--` and what after, and whose help speaks of words, not of types in Python."""

from __future__ import annotations

import re
from typing import Any, Final

import typer
from typer.core import TyperCommand

_AFTER_DASHES: Final = "holdfast.after_dashes"
_TYPE: Final = re.compile(r" <(?:list\[)?\w+\]?>")


class PlainCommand(TyperCommand):
    """A command whose help names its arguments as they are typed, and nothing besides."""

    def get_help(self, ctx: Any) -> str:
        """The help, with blanks where a type stood."""
        text = _TYPE.sub(lambda found: " " * len(found.group()), super().get_help(ctx))
        return re.sub(r" +$", "", text.replace("]...", "]", 1), flags=re.MULTILINE)


class DashedCommand(PlainCommand):
    """A command that can tell what stood before `--` from what stood after it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the words after the first `--` aside, for `after_dashes`; the rest is parsed as usual."""
        if "--" in args:
            dashes = args.index("--")
            ctx.meta[_AFTER_DASHES] = tuple(args[dashes + 1 :])
            args = args[:dashes]
        return super().parse_args(ctx, args)


def after_dashes(context: typer.Context) -> tuple[str, ...] | None:
    """The words after `--`; None where there was no `--`."""
    words: tuple[str, ...] | None = context.meta.get(_AFTER_DASHES)
    return words
