"""Tables of a given width: what is worth least is left out first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rich.text import Text

Row = TypeVar("Row")

GAP: Final = 2
NARROWEST: Final = 8
"""Cells to which a name may be cut before a column is left out."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One thing that is told of each row."""

    title: str
    cell: Callable[[Row], Text]
    worth: int
    """Columns of little worth are left out first."""
    is_number: bool = False
    """Aligned to the right."""
    widest: int = 12
    """Cells after which longer words are cut."""


@dataclass(slots=True)
class _Laid(Generic[Row]):
    column: Column[Row]
    cells: list[Text]
    width: int

    @property
    def is_quiet(self) -> bool:
        """It says nothing that stands out: every cell is dim."""
        return all(cell.style == "dim" for cell in self.cells)

    @property
    def is_flexible(self) -> bool:
        return not self.column.is_number and self.width > max(NARROWEST, len(self.column.title))


def lay_out(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> list[Text]:
    """The head and a line for each row, none of them wider than `width`.

    Where there is no room for all columns, those that say nothing at the moment are left out, then
    words are cut, then the columns of least worth are left out.
    """
    laid = [_measure(column, rows) for column in columns]
    while (excess := sum(one.width + GAP for one in laid) - GAP - width) > 0 and laid:
        room = sum(one.width - max(NARROWEST, len(one.column.title)) for one in laid if one.is_flexible)
        quiet = [one for one in laid if one.is_quiet]
        if room >= excess and not quiet:
            max((one for one in laid if one.is_flexible), key=lambda one: one.width).width -= 1
        else:
            laid.remove(min(quiet or laid, key=lambda one: one.column.worth))
    head = _join([(Text(one.column.title, "dim"), one) for one in laid])
    return [head, *(_join([(one.cells[index], one) for one in laid]) for index in range(len(rows)))]


def _measure(column: Column[Row], rows: Sequence[Row]) -> _Laid[Row]:
    cells = [column.cell(row) for row in rows]
    longest = max((cell.cell_len for cell in cells), default=0)
    return _Laid(column, cells, max(len(column.title), min(longest, column.widest)))


def _join(cells: Sequence[tuple[Text, _Laid[Row]]]) -> Text:
    line = Text(no_wrap=True)
    for index, (cell, one) in enumerate(cells):
        cell = cell.copy()
        cell.truncate(one.width, overflow="ellipsis")
        padding = " " * (one.width - cell.cell_len)
        line.append(" " * (GAP if index else 0))
        line.append_text(Text.assemble(padding, cell) if one.column.is_number else Text.assemble(cell, padding))
    line.rstrip()
    return line
