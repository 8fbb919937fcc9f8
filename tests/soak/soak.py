"""The course of a soak: warm up, settle, take the yardstick, work, settle again, compare."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from soak.house import KEY, House
from soak.load import Load, ticks
from soak.measure import Reading, Slope, cpu_seconds, memory_slope, open_files, read
from soak.peer import Tally

logger = logging.getLogger("soak")

WARM_UP: Final = 0.4
WORK: Final = 0.5
"""Shares of the whole; the rest is for settling."""
MAX_WARM_UP: Final = 240.0
"""Seconds in which a gateway has taken all the memory that this load wants."""
READ_INTERVAL: Final = 3.0
RESTART_INTERVAL: Final = 20.0
SETTLED: Final = 7
"""So many equal readings in a row are rest: they span more than the longest idle time of a session."""
SETTLE_TIMEOUT: Final = 120.0


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen."""

    before: Reading
    after: Reading
    left: list[str]
    """The descriptors at the end."""
    slope: Slope
    seconds: float
    """How long the work took that the slope is taken from."""
    cpu: float
    """The gateway's share of a core meanwhile."""
    sessions: int
    """Upstream sessions over HTTP that were opened in all."""
    tally: Tally

    def __str__(self) -> str:
        after = self.after.counts
        counts = ", ".join(f"{what} {number} → {after[what]}" for what, number in self.before.counts.items())
        return (
            f"{self.seconds:.0f} s at {self.cpu:.0%} of a core: {self.tally.answers:,} answers, "
            f"{self.sessions:,} sessions; {counts}; {self.after.rss / 2**20:.0f} MiB, {self.slope}"
        )


class Soak:
    """One soak of one house."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._pid = house.gateway.pid
        self._load = Load(house.port, KEY)

    async def run(self, seconds: float) -> Report:
        """Soak for about so long."""
        loop = asyncio.get_running_loop()
        warm_up = min(seconds * WARM_UP, MAX_WARM_UP)
        await self._work(warm_up)
        before = await self._settled()
        used, started = cpu_seconds(self._pid), loop.time()
        readings = await self._work(seconds * (WARM_UP + WORK) - warm_up)
        used, elapsed = cpu_seconds(self._pid) - used, loop.time() - started
        after = await self._settled(before)
        report = Report(
            before=before,
            after=after,
            left=open_files(self._pid),
            slope=memory_slope(readings),
            seconds=elapsed,
            cpu=used / elapsed,
            sessions=self._house.initializes,
            tally=self._load.tally,
        )
        logger.info("%s", report)
        return report

    async def _work(self, seconds: float) -> list[Reading]:
        """Readings of a gateway at work."""
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load.run(seconds))
            group.create_task(self._restart(until))
            return [await self._read() async for _ in ticks(READ_INTERVAL, until, 0)]

    async def _restart(self, until: float) -> None:
        """Restart the servers over HTTP in turn, while the load goes on."""
        servers = [self._house.alpha, self._house.beta]
        async for _ in ticks(RESTART_INTERVAL, until - RESTART_INTERVAL / 2, 1):
            await servers[0].restart()
            servers.reverse()

    async def _settled(self, goal: Reading | None = None) -> Reading:
        """A reading at rest, and of no more than `goal`; the last one where it does not come to that."""
        until = asyncio.get_running_loop().time() + SETTLE_TIMEOUT
        last: list[Reading] = []
        async for _ in ticks(READ_INTERVAL, until, 1):
            last = [*last[1 - SETTLED :], await self._read()]
            is_at_rest = len(last) == SETTLED and all(reading.counts == last[0].counts for reading in last)
            if is_at_rest and (goal is None or not last[-1].beyond(goal)):
                break
        return last[-1]

    async def _read(self) -> Reading:
        reading = read(self._pid, asyncio.get_running_loop().time(), await self._house.sessions())
        logger.info("%s, %s answers", reading, self._load.tally.answers)
        return reading
