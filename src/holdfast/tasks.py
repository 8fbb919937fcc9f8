"""The one place where background tasks are made, so that every task has an owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

logger = logging.getLogger("holdfast.tasks")


class TaskScope:
    """Owns background tasks: a child that fails is logged and ends alone; leaving cancels the rest.

    Used as an async context manager. Leaving waits until every child has ended, so children
    must bound what they do when cancelled.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        if isinstance(error, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, trace)
        else:
            # The group would wrap the block's own error; children have none to add to it.
            await self._group.__aexit__(None, None, None)

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` in the background and return its task, which may be cancelled but not awaited for a value.

        Raises `RuntimeError` once the scope has ended.
        """
        alone = self._alone(work, name)
        try:
            task = self._group.create_task(alone, name=name)
        except RuntimeError:
            alone.close()
            work.close()
            raise
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task cancelled before its first step never awaits `work`.
        task.add_done_callback(lambda _: work.close())
        return task

    def cancel(self) -> None:
        """Cancel every child; they end soon, not at once."""
        for task in self._tasks:
            task.cancel()

    async def _alone(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:
            logger.exception("%s failed", name)
