#!/usr/bin/env python3
"""Writes the table of docs/eras.md from what tests/pairs.py expects, or says with --check that it is old.

It stands between `<!-- pairs -->` and `<!-- /pairs -->`; everything else of the page is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from itertools import groupby
from pathlib import Path
from typing import Final

from pairs import CELLS, CLIENTS, MEANINGS, NOTES, ROWS, SERVERS, ClientKind, Feature, Group, Row, ServerKind

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "eras.md"

_BEGIN: Final = "<!-- pairs -->\n"
_END: Final = "<!-- /pairs -->"
_ERAS: Final = ("handshake", "2026-07-28")
_GROUPS: Final = {Group.SESSION: "session", Group.SESSIONLESS: "no session", Group.MODERN: "2026-07-28"}


def section() -> str:
    """The table, with what its words mean and what was run."""
    heads = ["client → server", *(f"{_GROUPS[group]} → {era}" for group in Group for era in _ERAS)]
    lines = [_line(heads), _line(["---"] * len(heads))]
    lines += [_line([_name(feature, row), *_cells(row)]) for feature, row in ROWS.items()]
    lines += ["", *(f"- `{outcome}`: {meaning}" for outcome, meaning in MEANINGS.items())]
    lines += ["", *(f"- ({letter}) {note}" for letter, note in NOTES.items())]
    clients = [kind for kind in CLIENTS if not kind.is_merged]
    merged = [kind for kind in CLIENTS if kind.is_merged]
    ran = (
        f"Each of {len(CELLS):,} cells is run by the tests. Clients: {_kinds(clients)}; and at `/mcp`, where all "
        f"servers are one, {_kinds(merged)}. Servers: {_kinds(SERVERS)}."
    )
    return "\n".join([*lines, "", ran])


def _name(feature: Feature, row: Row) -> str:
    """What the row is about; where it is not as old as MCP, since when, and what an older client gets."""
    return f"{feature.value} (since {row.since}; older clients: {row.unable})" if row.since else feature.value


def _cells(row: Row) -> list[str]:
    cells = [row.cell(group, is_modern=is_modern) for group in Group for is_modern in (False, True)]
    return [f"{outcome} ({note})" if note else str(outcome) for outcome, note in cells]


def _line(cells: Collection[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _kinds(kinds: Collection[ClientKind] | Collection[ServerKind]) -> str:
    """Those of one transport together."""
    named = sorted({(kind.transport, kind.spoken) for kind in kinds})
    return ", ".join(
        f"{transport} ({', '.join(spoken or 'no session' for _, spoken in group)})"
        for transport, group in groupby(named, lambda pair: pair[0])
    )


def page(text: str) -> str:
    """The page with the table as it is expected now. Raises `ValueError` where it has no place."""
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(f"the page has no one place for the table, between {_BEGIN.strip()} and {_END}")
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{section()}\n\n{_END}{rest.partition(_END)[2]}"


def main() -> int:
    """Write the page, or with --check compare it; the status is 1 where it was old."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where the page is old")
    arguments = parser.parse_args()
    before = PAGE.read_text()
    after = page(before)
    if before != after and arguments.check:
        sys.stderr.write(f"{PAGE}: is not what tests/pairs.py expects; run make docs\n")
        return 1
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
