"""A web application with kept MCP sessions, in Starlette; FastAPI takes the same `lifespan`.

    HOLDFAST_SETTINGS=holdfast.yaml uvicorn library_starlette:app --app-dir examples
    curl http://127.0.0.1:8000/notes/recall -H 'X-User: alice' -H 'X-Chat: c42' --json '{"key": "colour"}'

It needs the packages `starlette` and `uvicorn`, and `holdfast` itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast import CallFailed, ServerError, SessionPool, UnknownServer


async def call(request: Request) -> JSONResponse:
    """Call a tool in the session of the person and the chat that ask; 404 for a server that there is not."""
    pool: SessionPool = request.app.state.pool
    user = request.headers.get("x-user")  # yours: whoever your own authentication says it is
    if not user:
        raise HTTPException(401)
    server, tool = request.path_params["server"], request.path_params["tool"]
    try:
        async with pool.lease(server, principal=user, chat=request.headers.get("x-chat"), warm=False) as session:
            result = await session.call_tool(tool, await request.json())
    except UnknownServer as error:
        raise HTTPException(404, str(error)) from None
    except ServerError as error:
        raise HTTPException(400, error.message) from None
    except CallFailed as failure:  # its sentence says what is known of the call
        raise HTTPException(502, failure.message) from None
    return JSONResponse(result.model_dump(mode="json", by_alias=True, exclude_none=True))


def make_app(settings: Mapping[str, Any] | str) -> Starlette:
    """An application with one pool for as long as it runs."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with SessionPool.open(settings) as pool:
            app.state.pool = pool
            yield

    return Starlette(routes=[Route("/{server}/{tool}", call, methods=["POST"])], lifespan=lifespan)


app = make_app(os.environ.get("HOLDFAST_SETTINGS", "holdfast.yaml"))
