"""The isolation suite at the size that threats-and-faults asks for (rows 1, 2, 3 and 9)."""

from __future__ import annotations

import pytest

from crossings import colliding_ids
from isolation import IDS, run_world
from requirements import requirement
from rows import Figure, row


@row(1, 3, 9)
@requirement("isolation:nobody-gets-anothers")
@pytest.mark.timeout(1800)
async def test_no_foreign_canary_in_a_hundred_thousand_calls_of_two_hundred_users(figure: Figure) -> None:
    report = await run_world(125_000, users=200, seed=11)  # some of what is done is no call
    assert report.leaks == []
    assert report.errors == []
    calls = sum(number for what, number in report.seen.items() if what.startswith(("result of ", "error ")))
    assert calls >= 100_000
    figure(f"{calls:,} calls of 200 users: 0 foreign canaries")


@row(2)
@requirement("isolation:colliding-ids")
@pytest.mark.timeout(1800)
async def test_no_misroute_in_a_hundred_thousand_calls_with_colliding_ids(figure: Figure) -> None:
    report = await colliding_ids(500, 50)
    assert report.leaks == []
    assert report.errors == []
    assert report.seen["result of shared"] == 500 * 50 * len(IDS)
    figure("100,000 calls of 500 clients with equal ids: 0 misrouted")
