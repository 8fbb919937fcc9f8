"""Commands that know what stood before `--` and what after it."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperCommand

_AFTER_DASHES: Final = "holdfast.after_dashes"


class DashedCommand(TyperCommand):
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
