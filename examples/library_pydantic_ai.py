"""An agent of Pydantic AI whose MCP sessions are kept.

    HOLDFAST_SETTINGS=holdfast.yaml python examples/library_pydantic_ai.py openai:gpt-5
    alice c42 remember that my colour is blue
    alice c42 which colour is mine?

It needs the package `pydantic-ai-slim[mcp]`, what Pydantic AI wants for your model, and `holdfast` itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastmcp.client.transports import ClientTransport
from fastmcp.client.transports.base import SessionKwargs, TransportOptions
from mcp import ClientSession
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models import Model
from typing_extensions import Unpack

from holdfast import SessionPool

SERVER = "notes"


class KeptTransport(ClientTransport):
    """A way to a kept session for the client that Pydantic AI's toolset is built on."""

    def __init__(self, transport: AbstractAsyncContextManager[Any]) -> None:
        self._transport = transport

    @asynccontextmanager
    async def connect_session(
        self, *, transport_options: TransportOptions | None = None, **session_kwargs: Unpack[SessionKwargs]
    ) -> AsyncGenerator[ClientSession, None]:
        """A client's end of the session; what the client leaves stays open."""
        options = transport_options or TransportOptions()
        async with (
            self._transport as (read, write),
            options.session_class(read, write, **session_kwargs) as session,
        ):
            yield session


async def reply(pool: SessionPool, model: Model | str, user: str, chat: str, text: str) -> str:
    """What the agent answers to one message; the server remembers the messages of this chat before it."""
    toolset = MCPToolset[object](KeptTransport(pool.transport(SERVER, principal=user, chat=chat)))
    agent = Agent(model, toolsets=[toolset])
    result = await agent.run(text)
    return result.output


async def main(model: str) -> None:
    """Answer the lines of standard input: who says it, in which chat, and what."""
    async with SessionPool.open(os.environ.get("HOLDFAST_SETTINGS", "holdfast.yaml")) as pool:
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.split(maxsplit=2):
                case [user, chat, text]:
                    sys.stdout.write(await reply(pool, model, user, chat, text) + "\n")
                case _:
                    sys.stderr.write("say: USER CHAT MESSAGE\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/library_pydantic_ai.py MODEL    (a model such as openai:gpt-5)")
    asyncio.run(main(sys.argv[1]))
