"""Ten thousand random steps of an application: who acquires, calls, cancels, releases, invalidates, in any order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import pytest

from holdfast import CallFailed, Code, PooledSession, SessionPool
from library_rig import NAME, library, text
from requirements import requirement

STEPS: Final = 10_000
PRINCIPALS: Final = 20
CHATS: Final = 3

pytestmark = pytest.mark.timeout(300)


class Application:
    """Keeps leases and calls of many principals, and knows what each of its sessions may remember."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.leases: list[tuple[str, str, PooledSession]] = []
        self.calls: dict[asyncio.Task[None], str] = {}
        self.acquiring: dict[asyncio.Task[None], str] = {}
        self.invalidated: set[str] = set()
        """Whose calls may have been cut off since they began."""
        self.foreign = 0
        self.failures: list[str] = []
        self.answers = 0

    @property
    def cancellable(self) -> list[asyncio.Task[None]]:
        """Whatever is waited for."""
        return [*self.calls, *self.acquiring]

    def acquire(self, group: asyncio.TaskGroup, pool: SessionPool, step: int) -> None:
        principal, chat = f"p{self.rng.randrange(PRINCIPALS)}", f"c{self.rng.randrange(CHATS)}"
        named, warm = chat if self.rng.random() < 0.9 else None, self.rng.random() < 0.5
        task = group.create_task(self._acquire(pool, principal, named, f"own{step}", warm=warm))
        self.acquiring[task] = principal
        task.add_done_callback(self.acquiring.pop)

    async def _acquire(self, pool: SessionPool, principal: str, chat: str | None, own: str, *, warm: bool) -> None:
        try:
            session = await pool.acquire(NAME, principal=principal, chat=chat, warm=warm)
        except CallFailed as failure:
            if principal not in self.invalidated:
                self.failures.append(f"{principal} acquires: {failure.code!r} {failure}")
        else:
            self.leases.append((principal, chat or own, session))

    def start(self, group: asyncio.TaskGroup) -> None:
        principal, chat, session = self.rng.choice(self.leases)
        if principal not in {*self.calls.values(), *self.acquiring.values()}:
            self.invalidated.discard(principal)
        task = group.create_task(self._call(principal, f"{principal}/{chat}", session))
        self.calls[task] = principal
        task.add_done_callback(self.calls.pop)

    async def _call(self, principal: str, canary: str, session: PooledSession) -> None:
        try:
            await session.call_tool("remember", {"key": "canary", "value": canary})
            found = text(await session.call_tool("recall", {"key": "canary"}))
        except CallFailed as failure:
            allowed = {Code.OUTCOME_UNKNOWN} if principal in self.invalidated else set[Code]()
            if failure.code not in allowed:
                self.failures.append(f"{canary}: {failure.code!r} {failure}")
        except RuntimeError as error:  # released meanwhile
            if "released" not in str(error):
                self.failures.append(f"{canary}: {error}")
        else:
            self.answers += 1
            was_forgotten = "nothing" in found and principal in self.invalidated
            self.foreign += found != canary and not was_forgotten


@requirement("library:interleavings")
async def test_ten_thousand_random_steps_leave_nothing_and_mix_nothing(figure: Callable[[str], None]) -> None:
    rng = random.Random(20261120)
    application = Application(rng)
    async with asyncio.timeout(240), library(max_sessions=200, leaves_none=False) as (pool, upstream):
        async with asyncio.TaskGroup() as group:
            for step in range(STEPS):
                what = rng.random()
                if what < 0.18 or not application.leases:
                    application.acquire(group, pool, step)
                elif what < 0.70:
                    application.start(group)
                elif what < 0.80 and application.cancellable:
                    rng.choice(application.cancellable).cancel()
                elif what < 0.97:
                    _, _, session = application.leases.pop(rng.randrange(len(application.leases)))
                    pool.release(session)
                else:
                    principal = f"p{rng.randrange(PRINCIPALS)}"
                    application.invalidated.add(principal)
                    pool.invalidate(server=rng.choice((None, NAME)), principal=principal)
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
        for _, _, session in application.leases:
            session.release()
        stats = pool.stats()
        assert stats.leases == 0
        assert all(session.calls == 0 for session in stats.sessions)
        assert (application.foreign, application.failures) == (0, [])
        assert application.answers > STEPS / 10
        figure(
            f"{STEPS:,} random steps of {PRINCIPALS} principals: 0 leases left, 0 foreign canaries, 0 siblings failed"
        )
        assert len(upstream.calls()) >= application.answers
