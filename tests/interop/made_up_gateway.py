"""A gateway of which only the operator's side exists, as a program: `made_up_gateway.py PORT [KEY]`."""

from __future__ import annotations

import asyncio
import sys

import uvicorn

from holdfast.clock import LoopClock
from holdfast.config import GatewaySettings, ServerSettings, key_digest
from holdfast.dashboard.api import Api
from holdfast.downstream.http import AsgiResponder, Message, Receive, Request, Send
from holdfast.tasks import TaskScope
from unit.made_up import MadeUpGateway, server, session


async def main(port: int, key: str | None) -> None:
    settings = GatewaySettings(
        servers=(ServerSettings(name="browser", command=("true",)),),
        operator_key_digest=None if key is None else key_digest(key),
    )
    gateway = MadeUpGateway(
        [server("browser", sessions={"idle": 30}), server("search", state="failed", reason="connection refused")],
        [session(number) for number in range(30)],
    )
    async with TaskScope() as scope:
        clock = LoopClock()
        api = Api(gateway, settings, clock)

        async def app(message: Message, receive: Receive, send: Send) -> None:
            headers = {name.decode(): value.decode() for name, value in message["headers"]}
            responder = AsgiResponder(clock)
            query = message["query_string"].decode()
            api.dispatch(Request(message["method"], message["path"], headers, query=query), responder)
            await responder.run(receive, send, scope)

        config = uvicorn.Config(app, port=port, lifespan="off", log_level="info", timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
