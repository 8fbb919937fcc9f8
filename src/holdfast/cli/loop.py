"""The event loop of a command that talks to one server and ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from holdfast.cli import garbage


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run `work` and return its status; Ctrl-C and SIGTERM cancel it, with the status that shells give them."""

    async def watched() -> int:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        garbage.settle()
        return await work

    try:
        return asyncio.run(watched())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
