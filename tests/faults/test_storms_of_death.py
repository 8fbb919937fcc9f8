"""A server that is killed in mid-call a thousand times (threats, row 30): one answer each, nothing executed twice."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from bare_client import BareClient
from faults.rig import answer_to, call, code_of, gateway_to, together
from processes import ROOT, start
from requirements import requirement
from rows import Figure, row

KILLS: Final = 1_000
CHATS: Final = 4
ROUND: Final = 25
"""Calls of a chat before it looks how many kills there were."""
CALLS_PER_LIFE: Final = 4
"""Of all chats together, at most."""
MORTAL: Final = ROOT / "tests" / "faults" / "mortal_server.py"


@row(30)
@requirement("faults:death:never-twice")
async def test_a_thousand_kills_in_mid_call_execute_nothing_twice(tmp_path: Path, figure: Figure) -> None:
    ledger = tmp_path / "ledger"
    outcomes: dict[str, int | None] = {}
    slowest = 0.0
    with start(sys.executable, "-I", "-S", MORTAL, "--ledger", ledger, "--calls", str(CALLS_PER_LIFE)) as process:
        port = (await asyncio.to_thread(process.wait_for_line, r"port (\d+)"))[1]

        def kills() -> int:
            return process.output.count("child") - 1

        async with gateway_to(f"http://127.0.0.1:{port}/mcp", within=240, trusted=True) as rig:

            async def calling(chat: int, client: BareClient) -> None:
                nonlocal slowest
                number = 0
                while kills() < KILLS:
                    for _ in range(ROUND):
                        began = time.monotonic()
                        tool = "look" if number % 3 == 0 else "count"
                        canary = f"{chat}/{number}"
                        outcomes[canary] = code_of(await call(client, tool, canary=canary))
                        slowest = max(slowest, time.monotonic() - began)
                        number += 1

            clients = [await rig.opened() for _ in range(CHATS)]
            await answer_to(clients[0], clients[0].call("tools/list"))  # the hints
            await together(*(calling(chat, client) for chat, client in enumerate(clients)))
        killed = kills()
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    executed = Counter(canary for tool, canary in entries if tool == "count")
    looked = Counter(canary for tool, canary in entries if tool == "look")
    ran = executed.keys() | looked.keys()
    codes = Counter(outcomes.values())
    assert set(codes) <= {None, -31001, -31002, -31006}
    assert codes[-31002], "calls were cut off"
    assert max(executed.values()) == 1
    assert max(looked.values()) == 2, "what only reads is sent once more"
    for canary, code in outcomes.items():
        if code is None:
            assert canary in ran
        elif code != -31002:
            assert canary not in executed, "who is told that nothing was executed is told the truth"
    figure(
        f"{killed:,} SIGKILLs in {sum(codes.values()):,} calls: 0 executed twice, one answer each;"
        f" {codes[-31002]} of unknown outcome, {codes[-31006]} told of the loss, {codes[-31001]} not sent,"
        f" {sum(times > 1 for times in looked.values())} reads sent again; slowest {slowest:.2f} s"
    )
