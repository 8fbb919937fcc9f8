"""What is measured: how each gateway is started before a server, and where it is then found.

A new peer is one more function with a line in `GATEWAYS`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.compile import BENCH, BUILD
from bench.processes import Missing, free_port, start, wait_for_port
from bench.workloads import Workload

NGINX: Final = "nginx"
HOLDFAST: Final = "holdfast"
MODERN: Final = "holdfast, 2026-07-28"


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


def start_direct(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """No gateway: what the load generator and the server can do."""
    del stack
    assert upstream.port is not None
    return Endpoint("direct", upstream.port)


def start_nginx(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """A relay of bytes, with kept-alive connections on both sides: the floor for a proxy."""
    # Debian keeps it in /usr/sbin, which is not on every user's path.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Missing("nginx is not installed")
    port = free_port()
    folder = BUILD / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "nginx.conf"
    template = (BENCH / "nginx.conf").read_text()
    configuration.write_text(template.format(folder=folder, port=port, upstream_port=upstream.port))
    command: list[str | Path] = [program, "-e", folder / "nginx-error.log", "-p", folder, "-c", configuration]
    child = stack.enter_context(start(command, log=BUILD / "nginx.log"))
    wait_for_port(child, port)
    return Endpoint(NGINX, port, pid=child.pid, large_path="/large")


def holdfast_command(server: Sequence[str], port: int, options: Sequence[str] = ()) -> list[str]:
    """The command line of `holdfast run` for a URL, or for `--` and a command."""
    return [sys.executable, "-m", "holdfast", "run", "--port", str(port), "--log-level", "warning", *options, *server]


def run_holdfast(stack: ExitStack, server: Sequence[str], options: Sequence[str] = ()) -> Endpoint:
    """Holdfast with its defaults, but for `options`."""
    port = free_port()
    child = stack.enter_context(start(holdfast_command(server, port, options), log=BUILD / "holdfast.log"))
    wait_for_port(child, port)
    return Endpoint(HOLDFAST, port, pid=child.pid)


def start_holdfast(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """Holdfast with its defaults: each client's session has a session of its own with the server."""
    if upstream.port is not None:
        return run_holdfast(stack, [upstream.url])
    return replace(run_holdfast(stack, ["--", *upstream.command]), server=upstream.program)


def start_modern(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """As `start_holdfast`, for clients of 2026-07-28: each connection names a chat, which has a session."""
    return replace(start_holdfast(stack, upstream), name=MODERN, is_modern=True)


SCRIPTED_SERVER: Final = (sys.executable, "-m", "holdfast.testing.server")
"""A server in Python, with the habits of real ones; it prints its URL."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """How a gateway is started, and what it is asked to do."""

    start: Callable[[ExitStack, Upstream], Endpoint]
    over_http: bool = True
    """It can stand before a server that listens."""
    over_stdio: bool = False
    """It can start its server."""

    def can_serve(self, workload: Workload) -> bool:
        """Whether it can be measured with this."""
        return self.over_stdio if workload.is_stdio else self.over_http


GATEWAYS: Final[dict[str, Gateway]] = {
    "direct": Gateway(start_direct),
    NGINX: Gateway(start_nginx),
    HOLDFAST: Gateway(start_holdfast, over_stdio=True),
    MODERN: Gateway(start_modern),
}
"""In the order of each round."""
