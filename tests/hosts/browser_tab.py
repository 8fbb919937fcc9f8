"""A page of Open WebUI without the page: holds its socket open, prints every event, and answers what is asked.

Runs in Open WebUI's own environment, which has the client for it: browser_tab.py URL. The token, and what is
answered to questions, come as lines of JSON on stdin; each event goes out as one on stdout, the socket's id first.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from typing import Any

socketio: Any = import_module("socketio")  # of the environment that runs this, not of the one that checks its types


def tell(event: Any) -> None:
    """Write a line for the test."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def main(url: str, token: str, answer: Any) -> None:
    """Stay until stdin ends."""
    client = socketio.AsyncClient()

    async def events(event: Any) -> Any:
        tell(event)
        return answer if event["data"]["type"] == "request:elicitation" else None

    client.on("events", events)
    await client.connect(
        url, auth={"token": token}, socketio_path="/ws/socket.io", transports=["websocket"], wait_timeout=60
    )
    await client.emit("user-join", {"auth": {"token": token}})
    tell({"sid": client.get_sid()})
    await asyncio.to_thread(sys.stdin.read)
    await client.disconnect()


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    asyncio.run(main(sys.argv[1], given["token"], given["answer"]))
