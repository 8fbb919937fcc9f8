"""What the kernel says of a running gateway, and what a row of such readings says of its memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path
from statistics import fmean, median
from typing import Final

from interop.programs import descendants

MIB: Final = 1024 * 1024
BLOCKS: Final = 12
"""Neighbouring readings are no independent ones; the medians of so many stretches nearly are."""
_TWO_SIDED_95: Final = 2.23
"""Student's t for `BLOCKS` - 2 degrees of freedom."""
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the gateway."""

    at: float
    rss: int
    """Resident memory of the gateway alone, in bytes."""
    fds: int
    threads: int
    children: int
    """Its descendants, the watchdog among them."""
    sessions: int
    """What the servers over HTTP say they hold for it."""

    @property
    def counts(self) -> dict[str, int]:
        """What must be back to where it was."""
        return {name: getattr(self, name) for name in ("fds", "threads", "children", "sessions")}

    def beyond(self, other: Reading) -> dict[str, str]:
        """Of what there is more than in `other`."""
        theirs = other.counts
        return {name: f"{theirs[name]} → {number}" for name, number in self.counts.items() if number > theirs[name]}


def read(pid: int, at: float, sessions: int) -> Reading:
    """Look at the process `pid` now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Reading(
        at=at,
        rss=int(status["VmRSS"].split()[0]) * 1024,
        fds=len(open_files(pid)),
        threads=int(status["Threads"]),
        children=len(descendants(pid)),
        sessions=sessions,
    )


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process lead to, for a person to read."""
    found: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(f"{entry.name} -> {entry.readlink()}")
        except FileNotFoundError:
            continue  # closed since it was listed
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, and its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Slope:
    """How memory grew, in MiB per hour."""

    per_hour: float
    uncertainty: float
    """Half of the 95 % interval."""

    def exceeds(self, allowed: float) -> bool:
        """Whether memory surely grew by more than so many MiB per hour."""
        return self.per_hour - self.uncertainty > allowed

    def __str__(self) -> str:
        return f"{self.per_hour:+.1f} ± {self.uncertainty:.1f} MiB/h"


def memory_slope(readings: Sequence[Reading]) -> Slope:
    """The line through the medians of `BLOCKS` stretches of equally many readings."""
    size = len(readings) // BLOCKS
    assert size > 0, f"{len(readings)} readings are too few"
    blocks = [readings[number * size : (number + 1) * size] for number in range(BLOCKS)]
    hours = [fmean(reading.at for reading in block) / 3600 for block in blocks]
    mebibytes = [median(reading.rss for reading in block) / MIB for block in blocks]
    return slope(hours, mebibytes)


def slope(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """The least-squares slope of `BLOCKS` points."""
    x_mean, y_mean = fmean(xs), fmean(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    if not spread:
        return Slope(0.0, inf)
    steepness = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    residual = sum((y - y_mean - steepness * (x - x_mean)) ** 2 for x, y in zip(xs, ys, strict=True))
    return Slope(steepness, _TWO_SIDED_95 * sqrt(residual / (len(xs) - 2) / spread))
