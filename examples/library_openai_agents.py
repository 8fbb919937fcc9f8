"""An agent of the OpenAI Agents SDK whose MCP sessions are kept.

    HOLDFAST_SETTINGS=holdfast.yaml OPENAI_API_KEY=... python examples/library_openai_agents.py gpt-5
    alice c42 remember that my colour is blue
    alice c42 which colour is mine?

It needs the package `openai-agents`, and `holdfast` itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from agents import Agent, AgentBase, Model, RunContextWrapper, Runner
from agents.mcp import MCPServer
from mcp_types import CallToolResult, GetPromptResult, ListPromptsResult, Tool

from holdfast import PooledSession, SessionPool

SERVER = "notes"


class KeptServer(MCPServer):
    """A leased session, as agents see a server."""

    def __init__(self, session: PooledSession) -> None:
        super().__init__()
        self._session = session

    @property
    def name(self) -> str:
        """The server's name in the settings."""
        return self._session.server

    async def connect(self) -> None:
        """Nothing: the lease is there."""

    async def cleanup(self) -> None:
        """Nothing: whoever took the lease gives it back."""

    async def list_tools(
        self, run_context: RunContextWrapper[Any] | None = None, agent: AgentBase[Any] | None = None
    ) -> list[Tool]:
        """The tools, from what is kept."""
        return await self._session.list_tools()

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """Call a tool in the session of the chat."""
        return await self._session.call_tool(tool_name, arguments, meta=meta)

    async def list_prompts(self) -> ListPromptsResult:
        """The prompts, from what is kept."""
        return ListPromptsResult(prompts=await self._session.list_prompts())

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> GetPromptResult:
        """Get a prompt."""
        return await self._session.get_prompt(name, arguments)


async def reply(pool: SessionPool, model: Model | str, user: str, chat: str, text: str) -> str:
    """What the agent answers to one message; the server remembers the messages of this chat before it."""
    async with pool.lease(SERVER, principal=user, chat=chat) as session:
        agent = Agent(name="assistant", model=model, mcp_servers=[KeptServer(session)])
        result = await Runner.run(agent, text)
    return str(result.final_output)


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
        sys.exit("usage: python examples/library_openai_agents.py MODEL    (a model such as gpt-5)")
    asyncio.run(main(sys.argv[1]))
