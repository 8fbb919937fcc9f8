"""A server made with the official Python SDK over its SSE transport: `python sdk_sse_server.py PORT`."""

from __future__ import annotations

import sys
from collections import Counter

from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel
from starlette.requests import Request

server = MCPServer("old-sse")
counts: Counter[str] = Counter()


class Answer(BaseModel):
    """What a person says."""

    word: str


@server.tool()
async def count(ctx: Context) -> str:
    """How often this session has asked."""
    request = ctx.request_context.request
    assert isinstance(request, Request)
    session_id = request.query_params["session_id"]
    counts[session_id] += 1
    return str(counts[session_id])


@server.tool()
async def steps(number: int, ctx: Context) -> str:
    """Progress in so many steps."""
    for step in range(1, number + 1):
        await ctx.report_progress(step, number)
    return "done"


@server.tool()
async def ask(ctx: Context) -> str:
    """Ask the person."""
    answer = await ctx.elicit("which word?", Answer)
    return answer.data.word if answer.action == "accept" else answer.action


if __name__ == "__main__":
    server.run("sse", port=int(sys.argv[1]))
