"""The programs of the soak: one `holdfast serve`, two servers over HTTP that can be restarted, one over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import yaml

from bare_client import BareClient
from interop.programs import HOLDFAST, TEST_SERVER_STDIO
from processes import Process, free_port, start

KEY: Final = "sesame"
IDLE: Final = 5.0
"""Seconds after which sessions with servers end, so that hundreds come and go."""
CLIENT_IDLE: Final = 15.0
"""As much for those of clients: longer than a busy machine may keep a client from its next request."""


class Server:
    """A test server over HTTP, always at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.initializes = 0
        """How often it was asked to initialize, as far as `sessions` has heard."""
        self.process: Process
        self._running: AbstractContextManager[Process]
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        self._running = start(sys.executable, "-m", "holdfast.testing.server", "--port", str(self.port))
        self.process = self._running.__enter__()
        self.process.wait_for_line(r"http://\S+/mcp")

    def stop(self) -> None:
        """End it, by SIGTERM: its sessions are forgotten and its connections cut."""
        self._running.__exit__(None, None, None)

    async def restart(self) -> None:
        """End it and start it again; the clients go on meanwhile."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)

    async def sessions(self) -> int:
        """How many it holds now; 0 while it is restarted. Its ledger is emptied, so that it stays small."""
        http = BareClient(self.port)
        try:
            async with asyncio.timeout(60), http.request("GET", None, "/ledger") as response:
                report = json.loads(await response.body())
            async with asyncio.timeout(60), http.request("POST", None, "/ledger/reset"):
                pass
        except (OSError, asyncio.IncompleteReadError):
            return 0
        self.initializes += report["initializes"]
        return len(report["sessions"])


class House:
    """All of them, running."""

    def __init__(self, gateway: Process, port: int, alpha: Server, beta: Server) -> None:
        self.gateway = gateway
        self.port = port
        self.alpha = alpha
        self.beta = beta

    @property
    def initializes(self) -> int:
        """How many sessions the gateway opened over HTTP."""
        return self.alpha.initializes + self.beta.initializes

    async def sessions(self) -> int:
        """What the servers over HTTP hold for the gateway."""
        return await self.alpha.sessions() + await self.beta.sessions()


@contextmanager
def house(folder: Path) -> Generator[House]:
    """Start all; end all when the block is left."""
    port = free_port()
    alpha, beta = Server(), Server()
    settings = {
        "listen": f"127.0.0.1:{port}",
        "client_idle_timeout": CLIENT_IDLE,
        "clients": {"host": {"key": KEY, "trust": {"user": "x-user", "chat": "x-chat"}}},
        "servers": {
            # Trusted: calls that only read leave no marker behind, so chats may be new without end.
            "alpha": {"url": alpha.url, "trusted": True, "idle_timeout": IDLE, "ask_timeout": IDLE},
            "beta": {"url": beta.url, "scope": "user", "idle_timeout": IDLE, "spares": 1},
            "gamma": {"command": list(TEST_SERVER_STDIO), "idle_timeout": IDLE, "max_sessions": 3},
        },
    }
    file = folder / "holdfast.yaml"
    file.write_text(yaml.safe_dump(settings))
    try:
        with start(HOLDFAST, "serve", file) as gateway:
            for name in ("alpha", "beta", "gamma"):
                gateway.wait_for_line(rf"{name} +ready in")
            yield House(gateway, port, alpha, beta)
    finally:
        alpha.stop()
        beta.stop()
