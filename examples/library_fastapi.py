"""A web application with kept MCP sessions, in FastAPI: each chat of each person has its own.

    HOLDFAST_SETTINGS=holdfast.yaml uvicorn library_fastapi:app --app-dir examples
    curl http://127.0.0.1:8000/chats/c42/notes/recall -H 'X-User: alice' --json '{"key": "colour"}'

It needs the packages `fastapi` and `uvicorn`, and `holdfast` itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from mcp_types import CallToolResult, Tool

from holdfast import CallFailed, PooledSession, ServerError, SessionPool, UnknownServer

SETTINGS = os.environ.get("HOLDFAST_SETTINGS", "holdfast.yaml")

User = Annotated[str, Header(alias="X-User", min_length=1)]  # yours: whoever your own authentication says it is


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[Mapping[str, Any]]:
    """One pool for as long as the application runs."""
    async with SessionPool.open(SETTINGS) as pool:
        yield {"pool": pool}


def get_pool(request: Request) -> SessionPool:
    """The application's pool."""
    pool: SessionPool = request.state.pool
    return pool


Pool = Annotated[SessionPool, Depends(get_pool)]


async def get_session(server: str, chat: str, user: User, pool: Pool) -> AsyncGenerator[PooledSession]:
    """A lease for one request; the session stays for the next one of the chat."""
    async with pool.lease(server, principal=user, chat=chat, warm=False) as session:
        yield session


Session = Annotated[PooledSession, Depends(get_session)]

app = FastAPI(lifespan=lifespan)


@app.get("/chats/{chat}/{server}", response_model_exclude_none=True)
async def tools(session: Session) -> list[Tool]:
    """What the server can do."""
    return await session.list_tools()


@app.post("/chats/{chat}/{server}/{tool}", response_model_exclude_none=True)
async def call(session: Session, tool: str, arguments: Annotated[dict[str, Any], Body()]) -> CallToolResult:
    """Call a tool in the session of the chat."""
    return await session.call_tool(tool, arguments)


@app.post("/logout", status_code=204)
async def logout(user: User, pool: Pool) -> None:
    """End all sessions of a person; their calls under way are cancelled."""
    pool.invalidate(principal=user)


@app.exception_handler(UnknownServer)
@app.exception_handler(ServerError)
@app.exception_handler(CallFailed)
async def explain(_: Request, error: Exception) -> JSONResponse:
    """Each of them says in a sentence what is known."""
    status = 404 if isinstance(error, UnknownServer) else 400 if isinstance(error, ServerError) else 502
    return JSONResponse({"detail": str(error)}, status)
