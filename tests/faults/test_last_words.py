"""What a server writes as it dies may speak of anybody's call: it is for the operator alone."""

from __future__ import annotations

import sys
from typing import Final

from bare_client import BareClient
from faults.rig import call, gateway_to, together, until
from holdfast import events
from requirements import requirement

CANARY: Final = "the-secret-of-alice"
SERVER: Final = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    result = {}
    if message.get("method") == "initialize":
        about = {"name": "s", "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about}
    elif message.get("method") == "tools/list":
        result = {"tools": []}
    elif message.get("method") == "tools/call":
        if message["params"]["name"] == "wait":
            continue
        sys.stderr.write("ValueError: cannot parse " + message["params"]["arguments"]["text"])
        sys.stderr.flush()
        sys.exit(3)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@requirement("faults:death:last-words-are-the-operators")
async def test_nobody_hears_the_last_words_of_a_shared_server_but_the_operator() -> None:
    async with gateway_to(command=(sys.executable, "-c", SERVER), scope="shared") as rig:
        alice, bob, carol = [await rig.opened() for _ in range(3)]
        heard: list[str] = []

        async def tells(client: BareClient, tool: str) -> None:
            heard.append(str(await call(client, tool, text=CANARY if client is alice else "")))

        async def dies() -> None:
            await until(lambda: any(session.calls for session in rig.pool.sessions))
            await tells(alice, "die")

        await together(tells(bob, "wait"), dies())
        for _ in range(4):
            await tells(carol, "die")
        assert len(heard) == 6
        assert all("exited with code 3" in words or "-31006" in words for words in heard[:2])
        assert [words for words in heard if CANARY in words] == []
        lost = [event for event in rig.events if isinstance(event, events.SessionLost)]
        assert CANARY in lost[0].reason
