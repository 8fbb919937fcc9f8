"""Holdfast as one ASGI application among others, on a server that does not know it: `embedded.py URL PORT`."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
import uvloop

from holdfast.config import GatewaySettings, ServerSettings
from holdfast.gateway import Gateway


async def main(url: str, port: int) -> None:
    """Serve until a signal."""
    settings = GatewaySettings(servers=(ServerSettings(name="server", url=url),))
    async with Gateway(settings) as gateway:
        config = uvicorn.Config(
            gateway.app,
            port=port,
            http="httptools",
            ws="none",
            loop="none",
            lifespan="off",
            backlog=2048,
            log_config=None,
            access_log=False,
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2])))
