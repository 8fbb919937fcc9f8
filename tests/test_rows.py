"""Every row of the threat table that is ours to hold has a test, and the run's last table tells the truth."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from rows import ROWS, row
from test_requirements import TESTS, modules_with_tests, name_of

REQUIRED: Final = {*range(1, 11), 12, 13, 14, 18, *range(22, 42), 47, 48, 49, 50}
"""What one process without OAuth, cluster and Redis can hold, and does."""


@cache
def named_rows(source: str) -> tuple[set[int], list[int]]:
    """The rows that a module names with `row(…)`, and the lines where one is no plain number."""
    numbers: set[int] = set()
    unreadable: list[int] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and name_of(node.func) == "row":
            for argument in node.args:
                match argument:
                    case ast.Constant(value=int(number)):
                        numbers.add(number)
                    case _:
                        unreadable.append(node.lineno)
    return numbers, unreadable


def modules() -> list[Path]:
    return [path for path in modules_with_tests() if path != Path(__file__).resolve()]


def test_every_row_that_is_ours_to_hold_has_a_test() -> None:
    named = {number for path in modules() for number in named_rows(path.read_text())[0]}
    assert sorted(REQUIRED - named) == []


def test_every_row_is_named_by_a_plain_number() -> None:
    unreadable = [f"{path.relative_to(TESTS)}:{line}" for path in modules() for line in named_rows(path.read_text())[1]]
    assert unreadable == []


def test_rows_are_found_in_sources() -> None:
    source = "@row(1, 2)\ndef test_a(): ...\n\npytestmark = rows.row(3)\n\n@row(NUMBER)\ndef test_b(): ...\n"
    assert named_rows(source) == ({1, 2, 3}, [6])


def test_a_row_that_does_not_exist_is_refused_at_import() -> None:
    for numbers in ((max(ROWS) + 1,), ()):
        with pytest.raises(AssertionError):
            row(*numbers)


SUITE: Final = """
import pytest
from rows import row

@row(1)
@pytest.mark.parametrize("n", range(3))
def test_held(n, figure): figure("all alike")

@row(2)
def test_failed(figure):
    figure("counted before it failed")
    assert False

@row(3)
def test_skipped(): pytest.skip("not today")

@row(4, 5)
def test_two_rows(): ...

@row(5)
def test_skipped_too(): pytest.skip("not today")

@pytest.fixture
def broken(): raise ValueError

@row(6)
def test_with_a_broken_fixture(broken): ...

def test_of_no_row(): ...
"""


def run_suite(folder: Path, *arguments: str) -> list[str]:
    """The lines that pytest prints for `SUITE`."""
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS}\nmarkers = row(numbers): rows\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "rows", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50)
    return done.stdout.splitlines()


def test_the_table_tells_of_each_row_what_became_of_its_tests(tmp_path: Path) -> None:
    lines = run_suite(tmp_path, "--quiet")
    start = next(number for number, line in enumerate(lines) if "rows of the threat table" in line)
    cells = {line[:3].strip(): [cell for cell in line[3:].split("  ") if cell.strip()] for line in lines[start + 1 :]}
    states = {number: [cell.strip() for cell in cells[number][1:]] for number in "123456"}
    assert states == {
        "1": ["3 of 3", "held", "all alike"],
        "2": ["0 of 1", "FAILED", "counted before it failed"],
        "3": ["0 of 1", "not run"],
        "4": ["1 of 1", "held"],
        "5": ["1 of 2", "held in part"],
        "6": ["0 of 1", "FAILED"],
    }
    assert f"not run: 7-{max(ROWS)}" in lines
    assert lines[-1].startswith("1 failed, 5 passed")


def test_the_table_stands_at_the_end_of_a_run_of_some_tests_and_not_of_none(tmp_path: Path) -> None:
    assert any("3 of 3" in line for line in run_suite(tmp_path, "-k", "test_held"))
    assert not any("threat table" in line for line in run_suite(tmp_path, "-k", "test_of_no_row"))
