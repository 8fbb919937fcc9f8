"""A settings file in a folder of its own, loaded, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from holdfast.config.file import Loaded, load
from holdfast.errors import ConfigError

Load = Callable[..., Loaded]
Complaint = Callable[..., list[str]]


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)

    def run(text: str, environment: Mapping[str, str] | None = None) -> Loaded:
        Path("holdfast.yaml").write_text(text)
        return load("holdfast.yaml", environment or {})

    return run


@pytest.fixture
def complaints(loads: Load) -> Complaint:
    def run(text: str, environment: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loads(text, environment)
        return str(caught.value).split("\n")

    return run
