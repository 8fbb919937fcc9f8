"""A gateway at work for minutes, or an hour (`make soak`), holds in the end what it held at the start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from requirements import requirement
from rows import Figure, row
from soak.house import house
from soak.measure import MIB, Reading, memory_slope
from soak.soak import Soak

IN_CI: Final = 300.0
SECONDS: Final = max(float(os.environ.get("SOAK_SECONDS", IN_CI)), IN_CI if os.environ.get("CI") else 0.0)
"""CI takes no less than its five minutes."""
CODES: Final = {"result", "-31001", "-31002", "-31003", "-31005", "-31006"}
"""What calls may be answered while servers are restarted, crash, forget and are left."""
LEAK: Final = 1.0
"""MiB per hour."""
SLACK: Final = 4.0
"""MiB that the allocator may still take on after the warm-up of a run that is too short to tell it from a leak."""


@pytest.mark.timeout(SECONDS * 2 + 600)
@row(50)
@requirement("soak:back-to-where-it-was")
async def test_after_a_soak_everything_is_back_to_where_it_was(tmp_path: Path, figure: Figure) -> None:
    with house(tmp_path) as running:
        report = await Soak(running).run(SECONDS)
        log = running.gateway.output
    figure(str(report))
    assert report.tally.surprises == {}
    assert set(report.tally.outcomes) <= CODES
    assert report.tally.outcomes["result"] > report.tally.answers * 0.8, report.tally.outcomes
    assert "Traceback" not in log, log
    assert report.after.beyond(report.before) == {}, report.left
    is_long = report.seconds > 3000
    assert not report.slope.exceeds(LEAK if is_long else SLACK * 3600 / report.seconds), str(report)


def reading(at: float, rss: float, fds: int = 16) -> Reading:
    return Reading(at=at, rss=int(rss * MIB), fds=fds, threads=1, children=1, sessions=1)


def test_a_leak_is_told_from_what_merely_goes_up_and_down() -> None:
    leaking = memory_slope([reading(second, 50 + second / 60 + second % 7) for second in range(0, 3600, 3)])
    assert leaking.per_hour == pytest.approx(60, abs=2)
    assert leaking.exceeds(50)
    level = memory_slope([reading(second, 50 + second % 7) for second in range(0, 3600, 3)])
    assert not level.exceeds(LEAK)


def test_what_is_left_over_is_named() -> None:
    assert reading(0, 50, fds=17).beyond(reading(0, 50)) == {"fds": "16 → 17"}
    assert reading(0, 50, fds=15).beyond(reading(0, 50)) == {}
