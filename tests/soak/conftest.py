"""The soak runs after everything else, so that what fails at once is known at once."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "soak" in item.path.parts)
