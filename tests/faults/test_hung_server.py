"""A server that hangs, with as many calls as may wait for it (threats, row 39): the others are as fast as ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from faults.rig import call, code_of, together
from faults.twins import Twin, compared, twins
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

SENT: Final = 64
QUEUED: Final = 256
CALLS: Final = 1_000
"""To the other server, and as many to the one that hangs."""
HUNG: Final = "/mcp/hung/chats/c"
OTHER: Final = "/mcp/other/chats/c"
SETTINGS: Final = """
listen: 127.0.0.1:{port}
servers:
  hung: {{url: "{hung}", acquire_timeout: 300}}
  other: {{url: "{other}"}}
"""


@row(39)
@requirement("faults:overload:one-server")
async def test_a_server_that_hangs_slows_down_no_other(tmp_path: Path, figure: Figure) -> None:
    def arguments(port: int) -> Sequence[str | Path]:
        settings = tmp_path / f"{port}.yaml"
        settings.write_text(SETTINGS.format(port=port, hung=hung.url, other=other.url))
        return ("serve", settings)

    codes: Counter[int | None] = Counter()

    async def waiting(twin: Twin) -> None:
        codes[code_of(await call(twin.client, "slow", HUNG, gate="gate"))] += 1

    async def measured(hurt: Twin, spared: Twin) -> None:
        await hung.entered("gate", SENT)
        while f'holdfast_calls_queued{{server="hung"}} {QUEUED:.1f}' not in await hurt.metrics():
            pass
        for _ in range(CALLS):
            await hurt.call(OTHER)
            await spared.call(OTHER)
            codes[code_of(await call(hurt.client, "count", HUNG))] += 1
        hung.open_gate("gate")

    async with ScriptedServer() as hung, ScriptedServer() as other, twins(arguments, warm=OTHER) as (hurt, spared):
        async with asyncio.timeout(200):
            await together(measured(hurt, spared), *(waiting(hurt) for _ in range(SENT + QUEUED)))
        assert codes == {None: SENT + QUEUED, -31005: CALLS}
        figure(f"beside a server that hangs, with {SENT} calls sent and {QUEUED} waiting: {compared(hurt, spared)}")
