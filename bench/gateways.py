"""What is measured: how each gateway is started before a server, and where it is then found.

A new peer is one more function with a line in `GATEWAYS`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from bench.compile import BENCH, BUILD
from bench.endpoint import Endpoint, Upstream
from bench.peers import (
    ENVOY,
    FASTMCP,
    FASTMCP_SHARED,
    MCP_PROXY,
    SUPERGATEWAY,
    start_envoy,
    start_fastmcp,
    start_fastmcp_shared,
    start_mcp_proxy,
    start_supergateway,
)
from bench.processes import Command, Missing, free_port, start, wait_for_port
from bench.workloads import Workload

NGINX: Final = "nginx"
HOLDFAST: Final = "holdfast"
MODERN: Final = "holdfast, 2026-07-28"
EMBEDDED: Final = "holdfast, ASGI"


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
    command: Command = [program, "-e", folder / "nginx-error.log", "-p", folder, "-c", configuration]
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


def start_embedded(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """Holdfast as an ASGI application on uvicorn as it comes: the way of one that is mounted in another."""
    port = free_port()
    command: Command = [sys.executable, BENCH / "embedded.py", upstream.url, str(port)]
    child = stack.enter_context(start(command, log=BUILD / "holdfast.log"))
    wait_for_port(child, port)
    return Endpoint(EMBEDDED, port, pid=child.pid)


SCRIPTED_SERVER: Final = (sys.executable, "-m", "holdfast.testing.server")
"""A server in Python, with the habits of real ones; it prints its URL."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """How a gateway is started, and what it is asked to do."""

    start: Callable[[ExitStack, Upstream], Endpoint]
    is_ours: bool = False
    """Without it there is nothing to measure, and its mistakes are ours."""
    is_slow: bool = False
    """It takes part in the first round only, and only with small calls."""
    over_http: bool = True
    """It can stand before a server that listens."""
    over_stdio: bool = False
    """It can start its server."""

    def can_serve(self, workload: Workload) -> bool:
        """Whether it can be measured with this."""
        if self.is_slow and not workload.is_basic:
            return False
        return self.over_stdio if workload.is_stdio else self.over_http

    def takes_part(self, number: int) -> bool:
        """Whether it is measured in this round, counted from 0."""
        return number == 0 or not self.is_slow


GATEWAYS: Final[dict[str, Gateway]] = {
    "direct": Gateway(start_direct, is_ours=True),
    NGINX: Gateway(start_nginx, is_ours=True),
    HOLDFAST: Gateway(start_holdfast, is_ours=True, over_stdio=True),
    MODERN: Gateway(start_modern, is_ours=True),
    EMBEDDED: Gateway(start_embedded, is_ours=True),
    ENVOY: Gateway(start_envoy),
    SUPERGATEWAY: Gateway(start_supergateway, over_http=False, over_stdio=True),
    MCP_PROXY: Gateway(start_mcp_proxy, over_http=False, over_stdio=True),
    FASTMCP_SHARED: Gateway(start_fastmcp_shared, is_slow=True),
    FASTMCP: Gateway(start_fastmcp, is_slow=True),
}
"""In the order of each round."""
