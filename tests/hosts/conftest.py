"""What the tests with real hosts share. `make test-hosts` installs the hosts and runs them."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from hosts.fake_model import FakeModel


@pytest.fixture(scope="session")
def model() -> Generator[FakeModel]:
    """The model that every host of the run asks."""
    with FakeModel() as running:
        yield running
