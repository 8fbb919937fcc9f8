"""Ten thousand random steps of an application: who acquires, calls, cancels, releases, invalidates, in any order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import pytest

from holdfast.errors import CallFailed, Code
from holdfast.library.lease import PooledSession
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
        self.invalidated: set[str] = set()
        """Whose calls may have been cut off since they began."""
        self.foreign = 0
        self.failures: list[str] = []
        self.answers = 0

    def start(self, group: asyncio.TaskGroup) -> None:
        principal, chat, session = self.rng.choice(self.leases)
        if principal not in self.calls.values():
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
                if what < 0.15 or not application.leases:
                    principal, chat = f"p{rng.randrange(PRINCIPALS)}", f"c{rng.randrange(CHATS)}"
                    named = chat if rng.random() < 0.9 else None
                    session = await pool.acquire(NAME, principal=principal, chat=named, warm=rng.random() < 0.5)
                    application.leases.append((principal, chat if named else f"own{step}", session))
                elif what < 0.70:
                    application.start(group)
                elif what < 0.80 and application.calls:
                    rng.choice(list(application.calls)).cancel()
                elif what < 0.97:
                    _, _, session = application.leases.pop(rng.randrange(len(application.leases)))
                    pool.release(session)
                else:
                    principal = f"p{rng.randrange(PRINCIPALS)}"
                    application.invalidated.add(principal)
                    pool.invalidate(principal=principal)
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
