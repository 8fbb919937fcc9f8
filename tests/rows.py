"""The rows of the threat table: which tests hold each, and the figure that they reached.

A test says `@row(23)`; one that counts takes the fixture `figure` and tells it what it saw. The
table stands at the end of the run. This module is a plugin of pytest, named in conftest.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pytest

ROWS: Final[dict[int, str]] = {
    1: "a pool key lacks user or chat",
    2: "equal ids collide",
    3: "a server's message reaches the wrong user",
    4: "a foreign session id",
    5: "a second GET steals the stream",
    6: "replay crosses sessions",
    7: "nameless users share an owner",
    8: "a list leaks from a cache",
    9: "a cancellation hits another user",
    10: "the isolation suite is blind",
    11: "an error of authentication is swallowed",
    12: "a token is passed through",
    13: "a revoked token keeps its stream",
    14: "a hidden tool can be called",
    15: "an internal header is forged",
    16: "a command is injected by settings",
    17: "discovery reaches inner hosts",
    18: "DNS rebinding, Host confusion",
    19: "confused deputy, mix-up",
    20: "header and body disagree",
    21: "secrets in logs",
    22: "a flood of sessions",
    23: "malformed JSON or JSON-RPC",
    24: "parsers read a message differently",
    25: "an id that is in flight comes again",
    26: "oversize",
    27: "event stream framing",
    28: "a schema bomb",
    29: "slow senders",
    30: "a server dies amid a call",
    31: "connection refused, stale keep-alive",
    32: "a session expired, 404",
    33: "a half-open peer",
    34: "a stdio server crashes",
    35: "stderr flood, junk, bad UTF-8",
    36: "the gateway is killed",
    37: "a herd reconnects, a server flaps",
    38: "slow readers",
    39: "a saturated server",
    40: "what a disconnect means",
    41: "cancellation leaks",
    42: "a worker is killed",
    43: "a rolling restart",
    44: "Redis is down",
    45: "Redis comes back empty",
    46: "partition, stale owner",
    47: "the clock steps an hour",
    48: "descriptors run out",
    49: "reload under load",
    50: "soak and hygiene",
}
"""What each row is about, in a few words."""

Figure: TypeAlias = Callable[[str], None]
"""Called once with what was counted, such as `10,000 requests: 0 crashes, 0 unanswered`."""


def row(*numbers: int) -> pytest.MarkDecorator:
    """Name the rows of the threat table that a test holds."""
    assert ROWS.keys() >= set(numbers) != set(), numbers
    return pytest.mark.row(*numbers)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Takes what a test counted into the table at the end of the run."""
    return lambda text: request.node.user_properties.append(("figure", text))


@dataclass
class Standing:
    """What a run knows of one row."""

    collected: int = 0
    passed: int = 0
    failed: int = 0
    figures: dict[str, None] = field(default_factory=dict[str, None])

    @property
    def state(self) -> str:
        if self.failed:
            return "FAILED"
        if not self.passed:
            return "not run"
        return "held" if self.passed == self.collected else "held in part"


def standings(collected: Iterable[Properties], reports: Iterable[pytest.TestReport]) -> dict[int, Standing]:
    """How each row stands, given the properties of all tests collected and the reports of those that ran."""
    found: dict[int, Standing] = {}
    for properties in collected:
        for number in rows_of(properties):
            found.setdefault(number, Standing()).collected += 1
    for report in reports:
        is_verdict = report.when == "call" or report.failed  # the call, or a fixture that went wrong
        for number in rows_of(report.user_properties) if is_verdict else ():
            standing = found.setdefault(number, Standing())
            standing.passed += report.passed
            standing.failed += report.failed
            standing.figures |= {str(value): None for name, value in report.user_properties if name == "figure"}
    return found


def table(found: dict[int, Standing]) -> list[str]:
    """The lines of the table; rows that no test of the run holds share one."""
    cells = [("row", "threat", "tests", "state", "figures")]
    for number, standing in sorted(found.items()):
        share = f"{standing.passed} of {standing.collected}"
        cells.append((str(number), ROWS[number], share, standing.state, "; ".join(standing.figures)))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        "  ".join(
            [line[0].rjust(widths[0]), *(c.ljust(w) for c, w in zip(line[1:4], widths[1:], strict=True)), line[4]]
        )
        for line in cells
    ]
    missing = spans([number for number in ROWS if number not in found])
    return [line.rstrip() for line in lines] + ([f"not run: {missing}"] if missing else [])


def spans(numbers: list[int]) -> str:
    """`1-3, 5` for 1, 2, 3, 5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


# The plugin.

Properties: TypeAlias = list[tuple[str, Any]]
_COLLECTED: Final = pytest.StashKey[list[Properties]]()


def rows_of(properties: Properties) -> list[int]:
    return [int(value) for name, value in properties if name == "row"]


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        numbers = {number for mark in item.iter_markers("row") for number in mark.args}
        item.user_properties += [("row", number) for number in sorted(numbers)]
    session.config.stash[_COLLECTED] = [list(item.user_properties) for item in session.items]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, in a run of at least one test that holds a row."""
    collected = config.stash.get(_COLLECTED, list[Properties]())
    reports = [r for kind in terminalreporter.stats.values() for r in kind if isinstance(r, pytest.TestReport)]
    found = standings(collected, reports)
    if found:
        terminalreporter.section("rows of the threat table")
        for line in table(found):
            terminalreporter.write_line(line)
