"""LiteLLM's proxy as it is installed into .hosts, and the guide by which it is set up."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml
from mcp import Client
from mcp.client.client import ConnectMode

from hosts.fake_model import MODEL
from interop.programs import sdk_client
from processes import ROOT, Process, free_port, start

PROGRAM: Final = ROOT / ".hosts" / "litellm" / "bin" / "litellm"
GUIDE: Final = (ROOT / "docs" / "litellm.md").read_text()
MASTER_KEY: Final = "sk-0123456789abcdef0123456789abcdef"
ENVIRONMENT: Final = {
    "LITELLM_MASTER_KEY": MASTER_KEY,
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_ENABLE_MCP_STDIO": "true",
    "LITELLM_MODE": "PRODUCTION",
    "DO_NOT_TRACK": "1",
}
"""It fetches nothing from elsewhere, and needs no database."""
STARTS_WITHIN: Final = 300.0


def blocks(language: str, heading: str) -> list[str]:
    """The blocks of code of one part of the guide."""
    part = re.split(rf"^## {heading}$", GUIDE, flags=re.MULTILINE)[1].split("\n## ")[0]
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return found


@contextmanager
def litellm(config: Mapping[str, Any], folder: Path, model: str, **environment: str) -> Generator[tuple[str, Process]]:
    """The proxy with `config`, in front of the model at the URL `model`: its own URL, and its process."""
    assert PROGRAM.exists(), "LiteLLM is not installed: run `make .hosts/litellm/.ready`"
    own = {"model_name": MODEL, "litellm_params": {"model": f"openai/{MODEL}", "api_base": model, "api_key": "none"}}
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump({**config, "model_list": [own]}, sort_keys=False))
    port = free_port()
    command = (PROGRAM, "--config", path, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False")
    with start(*command, environment={**ENVIRONMENT, **environment}) as process:
        process.wait_for_line(r"Uvicorn running on", STARTS_WITHIN)
        yield f"http://127.0.0.1:{port}", process


class Remembering:
    """Our own server in a process, which can be ended and started anew at its URL."""

    def __init__(self) -> None:
        self._port = free_port()
        self._running: Generator[None] | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._port}/mcp"

    def serve(self) -> Generator[None]:
        """Run until the generator is closed."""
        with start(sys.executable, "-m", "holdfast.testing.server", "--port", str(self._port)) as process:
            process.wait_for_port(self._port)
            yield

    def restart(self) -> None:
        """Forget everything: a new process takes the place of the one that may run."""
        self.close()
        self._running = self.serve()
        next(self._running)

    def close(self) -> None:
        """End it, if it runs."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def ledger(self) -> list[Mapping[str, Any]]:
        """Every request and notification that this process of it got."""
        entries: list[Mapping[str, Any]] = httpx2.get(f"http://127.0.0.1:{self._port}/ledger").json()["entries"]
        return entries

    def methods(self) -> list[str]:
        """What it was asked so far."""
        return [entry["method"] for entry in self.ledger()]


@asynccontextmanager
async def chat_client(
    url: str, *, user: str | None = None, chat: str | None = None, mode: ConnectMode = "legacy", **callbacks: Any
) -> AsyncGenerator[Client]:
    """The official SDK's client with LiteLLM's key, as one message of a chat host uses it."""
    headers = {"Authorization": f"Bearer {MASTER_KEY}"}
    headers |= {} if user is None else {"x-user-id": user}
    headers |= {} if chat is None else {"x-chat-id": chat}
    async with sdk_client(url, mode=mode, headers=headers, **callbacks) as client:
        yield client
