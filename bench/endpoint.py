"""The two ends of a gateway: the server behind it, and where clients find it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Upstream:
    """The server of `c/upstream.c`: one that listens, or, where `port` is None, one for each gateway to start."""

    program: Path
    tools: int
    port: int | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def command(self) -> list[str]:
        """How it is started as a child."""
        return [str(self.program), "--stdio", "--tools", str(self.tools)]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running gateway, or the server itself where there is no gateway (`pid` is None)."""

    name: str
    port: int
    path: str = "/mcp"
    pid: int | None = None
    is_modern: bool = False
    """It is called in revision 2026-07-28, without sessions."""
    large_path: str | None = None
    """Where large answers are asked for, if they need another configuration."""
    server: Path | None = None
    """The program of the server that the gateway has started, whose time is not the gateway's."""
