"""`make demo`, as it is run."""

from __future__ import annotations

import sys

import processes


def test_the_demo_shows_what_it_claims() -> None:
    with processes.start(sys.executable, "-m", "holdfast.testing.demo") as demo:
        assert demo.wait(within=150) == 0, demo.output
    assert "Did not hold" not in demo.output
    assert "✓ 1, 2, harbour" in demo.output


def test_an_option_that_makes_no_sense_is_named() -> None:
    with processes.start(sys.executable, "-m", "holdfast.testing.demo", "--open-delay", "soon") as demo:
        assert demo.wait(within=150) == 2
    assert "--open-delay" in demo.output
