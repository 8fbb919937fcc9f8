"""The rows of the threat table: which tests hold each, and the figure that they reached.

A test says `@row(23)`; one that counts takes the fixture `figure` and tells it what it saw. The
table stands at the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

Figure: TypeAlias = Callable[[str], None]
"""Called once with what was counted, such as `10,000 requests: 0 crashes, 0 unanswered`."""


def row(*numbers: int) -> pytest.MarkDecorator:
    """Name the rows of the threat table that a test holds."""
    return pytest.mark.row(*numbers)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Takes what a test counted into the table at the end of the run."""
    return lambda text: request.node.user_properties.append(("figure", text))
