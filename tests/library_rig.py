"""A `SessionPool` in the test's own event loop, in front of a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from mcp_types import CallToolResult, TextContent

from holdfast import SessionPool
from holdfast.config import GatewaySettings, ServerSettings
from holdfast.testing.server import ScriptedServer, ServerOptions
from rig import no_errors_logged

NAME: Final = "notes"


@asynccontextmanager
async def library(
    *, options: dict[str, Any] | None = None, restarts: bool = False, leaves_none: bool = True, **server: Any
) -> AsyncGenerator[tuple[SessionPool, ScriptedServer]]:
    """A pool before one server; `server` are fields of `ServerSettings`. Leaving checks that no lease is left,
    and unless `leaves_none` is false that the server has no session: it may have one whose opening was given up."""
    async with asyncio.timeout(60):
        with no_errors_logged(restarts=restarts):
            async with ScriptedServer(ServerOptions(**(options or {}))) as upstream:
                settings = GatewaySettings(servers=(ServerSettings(name=NAME, url=upstream.url, **server),))
                async with SessionPool.open(settings) as pool:
                    yield pool, upstream
                    assert pool.stats().leases == 0
                if leaves_none:
                    await upstream.until(lambda: not upstream.sessions)


def text(result: CallToolResult) -> str:
    """The text of a tool's result."""
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text
