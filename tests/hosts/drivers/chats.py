"""Runs an example with a model that is none: it calls the tool that the message names, and says what came.

    python DRIVER.py SETTINGS MESSAGES

SETTINGS is what a settings file says, and MESSAGES a list of [user, chat, text]; both are JSON. The
answers are printed, as JSON too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from holdfast import SessionPool

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))


def call_in(text: str) -> tuple[str, dict[str, Any]]:
    """The tool and the arguments that `TOOL {ARGUMENTS}` names."""
    tool, _, arguments = text.partition(" ")
    return tool, json.loads(arguments)


def answer(reply: Callable[[SessionPool, str, str, str], Awaitable[str]]) -> None:
    """Print what `reply` gives for each message."""

    async def run() -> list[str]:
        async with SessionPool.open(json.loads(sys.argv[1])) as pool:
            return [await reply(pool, *message) for message in json.loads(sys.argv[2])]

    print(json.dumps(asyncio.run(run())))  # noqa: T201 (the test reads it)
