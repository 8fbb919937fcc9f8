"""The register and the tests name the same requirements."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from requirements import REQUIREMENTS, requirement

TESTS: Final = Path(__file__).resolve().parent
SKIPPED: Final = {"conformance", "node_modules", "__pycache__"}


def modules_with_tests() -> list[Path]:
    files = (path for path in TESTS.rglob("test_*.py") if not SKIPPED & set(path.relative_to(TESTS).parts))
    return sorted(path for path in files if path != Path(__file__).resolve())


def name_of(called: ast.expr) -> str:
    """The name of what is called, without what it belongs to."""
    match called:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


@cache
def named_ids(source: str) -> tuple[set[str], list[int]]:
    """The ids of a module's `@requirement("…")` decorators, and the lines of those that give no plain string."""
    ids: set[str] = set()
    unreadable: list[int] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and name_of(node.func) == "requirement":
            match node.args:
                case [ast.Constant(value=str(requirement_id))]:
                    ids.add(requirement_id)
                case _:
                    unreadable.append(node.lineno)
    return ids, unreadable


def test_every_requirement_that_a_test_names_is_in_the_register() -> None:
    unknown = {
        f"{path.relative_to(TESTS)}: {requirement_id}"
        for path in modules_with_tests()
        for requirement_id in named_ids(path.read_text())[0] - REQUIREMENTS.keys()
    }
    assert unknown == set()


def test_every_requirement_of_the_register_has_a_test() -> None:
    named = {requirement_id for path in modules_with_tests() for requirement_id in named_ids(path.read_text())[0]}
    assert sorted(REQUIREMENTS.keys() - named) == []


def test_every_requirement_is_named_by_a_plain_string() -> None:
    unreadable = [
        f"{path.relative_to(TESTS)}:{line}" for path in modules_with_tests() for line in named_ids(path.read_text())[1]
    ]
    assert unreadable == []


def test_ids_are_paths_of_words_and_sentences_are_sentences() -> None:
    for requirement_id, (sentence, source) in REQUIREMENTS.items():
        assert re.fullmatch(r"[a-z0-9]+(?:[:-][a-z0-9]+)+", requirement_id), requirement_id
        assert re.fullmatch(r"[A-Z`].*\.", sentence), requirement_id
        assert source, requirement_id


def test_a_decorator_with_an_unknown_id_is_refused_at_import() -> None:
    with pytest.raises(KeyError, match="no:such:thing"):
        requirement("no:such:thing")


def test_ids_are_found_in_sources() -> None:
    source = '@requirement("a:b")\ndef test_a(): ...\n\n@requirement(NAME)\ndef test_b(): ...\n'
    assert named_ids(source) == ({"a:b"}, [4])
    assert named_ids('@pytest.mark.requirement("c:d")\ndef test_c(): ...') == ({"c:d"}, [])
