"""docs/eras.md prints the table that tests/exchange/test_pairs.py runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tools import eras

from pairs import CELLS, CLIENTS, NOTES, ROWS, SERVERS, Feature, Group, Outcome
from requirements import requirement

TEXT = eras.PAGE.read_text()
COLUMNS = [(group, is_modern) for group in Group for is_modern in (False, True)]


@requirement("eras:pairs:printed")
def test_the_page_is_up_to_date() -> None:
    assert eras.page(TEXT) == TEXT, "run make docs"


@requirement("eras:pairs:printed")
@pytest.mark.parametrize("feature", Feature)
def test_a_row_is_what_the_youngest_of_each_group_get(feature: Feature) -> None:
    starts = (f"| {feature.value} |", f"| {feature.value} (since ")
    (line,) = (line for line in eras.section().splitlines() if line.startswith(starts))
    printed = [Outcome(cell.split(" ")[0]) for cell in line.strip("| ").split(" | ")[1:]]
    for (group, is_modern), outcome in zip(COLUMNS, printed, strict=True):
        revision = max(client.revision for client in CLIENTS if client.group is group)
        of_group = [c for c in CELLS if c.feature is feature and c.client.group is group]
        youngest = max(c.server.revision for c in of_group if c.server.is_modern is is_modern)
        expected = {c.expected for c in of_group if (c.client.revision, c.server.revision) == (revision, youngest)}
        assert expected == {outcome}


def test_every_pair_has_a_cell_for_every_feature() -> None:
    assert len(CELLS) == len(set(CELLS)) == len(set(map(str, CELLS))) == len(CLIENTS) * len(SERVERS) * len(Feature)


def test_every_note_is_used_and_every_outcome_without_a_way_says_why() -> None:
    cells = [row.cell(group, is_modern=is_modern) for row in ROWS.values() for group, is_modern in COLUMNS]
    assert {note for _, note in cells} - {""} == NOTES.keys()
    assert [note for outcome, note in cells if outcome in {Outcome.NONE, Outcome.DECLINED} and not note] == []


def test_check_notices_an_old_page_and_writing_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "eras.md"
    page.write_text(TEXT.replace("| completion | yes |", "| completion | none |").replace("# Eras", "# By hand"))
    monkeypatch.setattr(eras, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["eras.py", "--check"])
    assert eras.main() == 1
    assert "| completion | none |" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["eras.py"])
    assert eras.main() == 0
    assert page.read_text() == TEXT.replace("# Eras", "# By hand")
    monkeypatch.setattr(sys, "argv", ["eras.py", "--check"])
    assert eras.main() == 0


def test_a_page_without_a_place_for_the_table_is_no_page() -> None:
    with pytest.raises(ValueError, match="no one place for the table"):
        eras.page(TEXT.replace("<!-- pairs -->", ""))
