"""What a pool does while nobody uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from holdfast import PooledSession, SessionPool
from holdfast.config import GatewaySettings, ServerSettings
from holdfast.testing.clock import ManualClock, settle
from holdfast.testing.server import ScriptedServer
from library_rig import NAME, text
from requirements import requirement
from rig import no_errors_logged

SESSIONS: Final = 100


class CountingClock(ManualClock):
    """Counts what it wakes."""

    def __init__(self) -> None:
        super().__init__()
        self.fired = 0

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        def fire() -> None:
            self.fired += 1
            callback()

        return super().call_later(delay, fire)


@requirement("library:idle")
async def test_a_hundred_idle_sessions_wake_nobody() -> None:
    clock = CountingClock()
    async with asyncio.timeout(60), ScriptedServer() as upstream:
        settings = GatewaySettings(servers=(ServerSettings(name=NAME, url=upstream.url, start="lazy"),))
        with no_errors_logged(restarts=False):
            async with SessionPool(settings, clock=clock) as pool:
                leases: list[PooledSession] = []
                for number in range(SESSIONS):
                    leases.append(await pool.acquire(NAME, principal=f"p{number}", chat="c"))
                    await leases[-1].call_tool("count")
                for lease in leases[: SESSIONS // 2]:
                    lease.release()
                await settle()
                clock.fired = 0
                for _ in range(60):
                    clock.advance(1)
                    await settle()
                assert clock.fired <= 20, "in a minute, whatever the number of sessions"
                assert len(pool.stats().sessions) == SESSIONS
                assert text(await leases[-1].call_tool("count")) == "2"
                for lease in leases:
                    lease.release()
