"""FastMCP's proxy as a program: `fastmcp_proxy.py URL PORT [shared]`.

As it comes it opens a session with the server for each request. `shared`: one client, and so one session, for all.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from contextlib import AsyncExitStack
from typing import Any


async def main(url: str, port: int, *, is_shared: bool) -> None:
    """Serve until a signal."""
    fastmcp: Any = importlib.import_module("fastmcp")  # not among Holdfast's packages
    server: Any = importlib.import_module("fastmcp.server")
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(fastmcp.Client(url)) if is_shared else url
        proxy = server.create_proxy(target, name="bench")
        await proxy.run_async("http", show_banner=False, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), is_shared=sys.argv[3:] == ["shared"]))
