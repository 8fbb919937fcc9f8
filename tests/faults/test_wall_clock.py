"""Somebody sets the clock of the machine (threats, row 47): nothing expires early, for nothing looks at it."""

from __future__ import annotations

import ast
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import holdfast
from faults.rig import call, gateway_to, text_of
from holdfast.session.lifecycle import State
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

HOUR: Final = 3600.0
JUMPS: Final = (HOUR, -HOUR, 24 * HOUR, -24 * HOUR)
CHATS: Final = 20
SOURCES: Final = Path(holdfast.__file__).parent
WALL_CLOCK: Final = {"time", "time_ns", "localtime", "gmtime", "now", "utcnow", "today", "ctime"}
SHOW_TIME: Final = {"observe", "testing"}
"""Rooms that show the time of day, and decide nothing by it."""
SIGNED_TIMES: Final = "identity/tokens.py"
"""Another machine has signed when a token expires, by the time of day (RFC 7519, section 4.1.4)."""


@row(47)
@requirement("faults:time:monotonic")
@pytest.mark.parametrize("jump", JUMPS)
async def test_a_clock_that_jumps_ends_no_session(jump: float, monkeypatch: pytest.MonkeyPatch, figure: Figure) -> None:
    readers: set[str] = set()
    offset = 0.0

    def jumping(original: Callable[[], Any], per_second: int) -> Callable[[], Any]:
        def read() -> Any:
            frame = inspect.currentframe()
            assert frame is not None
            assert frame.f_back is not None
            readers.add(frame.f_back.f_globals["__name__"])
            return original() + type(original())(offset * per_second)

        return read

    monkeypatch.setattr(time, "time", jumping(time.time, 1))
    monkeypatch.setattr(time, "time_ns", jumping(time.time_ns, 10**9))
    async with ScriptedServer() as server, gateway_to(server.url) as rig:
        clients = [await rig.opened() for _ in range(CHATS)]
        for number in range(1, 4):
            for client in clients:
                assert text_of(await call(client, "count")) == str(number)
            await rig.at_rest()
            offset += jump
            assert rig.pool.reap() == []
        assert rig.pool.count(State.IDLE) >= CHATS
        assert len(server.sessions) >= CHATS
    assert [name for name in readers if name.startswith("holdfast.") and name.split(".")[1] not in SHOW_TIME] == []
    figure(f"the clock set by {jump / HOUR:+.0f} h, three times: 0 of {CHATS} sessions expired")


@row(47)
def test_no_source_that_decides_anything_reads_the_time_of_day() -> None:
    ours = {path.relative_to(SOURCES): path for path in SOURCES.rglob("*.py")}
    paths = [path for name, path in ours.items() if name.parts[0] not in SHOW_TIME and str(name) != SIGNED_TIMES]
    assert len(paths) > 50
    assert {str(path): reads for path in paths if (reads := wall_clock_reads(path.read_text()))} == {}


def test_a_read_of_the_time_of_day_would_be_found() -> None:
    assert wall_clock_reads("import time\ntime.time()\nx = clock.now()") == ["time.time"]
    assert wall_clock_reads("from datetime import datetime\ndatetime.now()") == ["datetime.now"]


def wall_clock_reads(source: str) -> list[str]:
    """The reads of the wall clock in a Python source."""
    return [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"time", "datetime", "date"}
        and node.attr in WALL_CLOCK
    ]
