"""docs/configuration.md is what the settings are."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from tools import configuration

from holdfast.config.clients import KEYS as CLIENT_KEYS
from holdfast.config.gateway import TOP_LEVEL
from holdfast.config.servers import KEYS as SERVER_KEYS

TEXT = configuration.PAGE.read_text()


def rows(model: type[BaseModel]) -> dict[str, list[str]]:
    """By a setting's name, the cells of its row."""
    section = TEXT.partition(f"<!-- {model.__name__} -->")[2].partition("<!-- /")[0]
    cells = [re.split(r" *(?<!\\)\| *", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].split("`")[1]: row for row in cells}


def test_the_page_is_up_to_date() -> None:
    assert configuration.page(TEXT) == TEXT, "run make docs"


@pytest.mark.parametrize("model", configuration.MODELS.values())
def test_every_setting_has_a_row_with_its_default(model: type[BaseModel]) -> None:
    documented = rows(model)
    for name, field in model.model_fields.items():
        if name not in documented and model.__mro__[1] in configuration.MODELS.values():
            continue  # stands in the table of what it extends
        _, takes, default, meaning = documented[name]
        assert takes
        assert meaning.endswith((".", ")"))
        if isinstance(field.default, bool):
            assert default == f"`{str(field.default).lower()}`"
        elif isinstance(field.default, int | float | str):
            assert default.startswith(
                f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"
            )
        else:
            assert f"`{field.default}`" not in default


def test_units_are_named() -> None:
    servers, limits = (rows(configuration.MODELS[name]) for name in ("ServerSettings", "Limits"))
    assert servers["idle_timeout"][1:3] == ["seconds", "`1800`"]
    assert servers["max_age"][1:3] == ["seconds", "none"]
    assert servers["max_sessions"][1:3] == ["a count", "1,000 for HTTP, 64 for stdio"]
    assert servers["scope"][1:3] == ["`chat`, `user` or `shared`", "`chat`"]
    assert servers["spares"][1:3] == ["a count, or 0", "`0`"]
    assert limits["client_rate"][1:3] == ["requests per second", "no limit"]
    assert limits["request_bytes"][1:3] == ["bytes", "`4194304` (4 MiB)"]


@pytest.mark.parametrize("key", sorted({*CLIENT_KEYS, *SERVER_KEYS, *TOP_LEVEL}))
def test_every_key_of_a_file_is_on_the_page(key: str) -> None:
    assert re.search(rf"^\| [^|]*`{key}`", TEXT, re.MULTILINE)


def test_check_notices_an_old_page_and_writing_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "configuration.md"
    page.write_text(TEXT.replace("seconds | `1800`", "seconds | `1801`").replace("## A server", "## A server, by hand"))
    monkeypatch.setattr(configuration, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["configuration.py", "--check"])
    assert configuration.main() == 1
    assert "`1801`" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["configuration.py"])
    assert configuration.main() == 0
    assert page.read_text() == TEXT.replace("## A server", "## A server, by hand")
    monkeypatch.setattr(sys, "argv", ["configuration.py", "--check"])
    assert configuration.main() == 0


def test_a_page_without_a_place_for_a_table_is_no_page() -> None:
    with pytest.raises(ValueError, match="no one place for Limits"):
        configuration.page(TEXT.replace("<!-- Limits -->", ""))
