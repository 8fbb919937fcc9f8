"""Other gateways for MCP, as `packages/install.sh` installs them, each with its defaults."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.compile import BENCH, BUILD
from bench.endpoint import Endpoint, Upstream
from bench.processes import Command, Missing, free_port, start, wait_for_port

PEERS: Final = BUILD / "peers"
"""Their packages; none of them is among Holdfast's."""
ENVOY: Final = "envoy"
SUPERGATEWAY: Final = "supergateway"
MCP_PROXY: Final = "mcp-proxy"
FASTMCP: Final = "fastmcp"
FASTMCP_SHARED: Final = "fastmcp, one client"
_BIN: Final = PEERS / "venv" / "bin"
_SUPERGATEWAY: Final = PEERS / "node_modules" / "supergateway" / "dist" / "index.js"


def start_envoy(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """Envoy's filters for MCP, with one worker and one server."""
    port = free_port()
    configuration = BUILD / "envoy.yaml"
    template = (BENCH / "envoy.yaml").read_text()
    configuration.write_text(template.format(port=port, upstream_port=upstream.port))
    command: Command = [_installed(_BIN / "envoy"), "-c", configuration, "--concurrency", "1"]
    return _run(stack, ENVOY, port, [*command, "--use-dynamic-base-id", "--log-level", "error"])


def start_supergateway(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """A process of the server for each session."""
    port = free_port()
    server = shlex.join(upstream.command)
    options = ["--outputTransport", "streamableHttp", "--stateful", "--port", str(port), "--logLevel", "none"]
    command: Command = [_node(), _installed(_SUPERGATEWAY), "--stdio", server, *options]
    return _run(stack, SUPERGATEWAY, port, command, upstream)


def start_mcp_proxy(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """One process of the server for all sessions."""
    port = free_port()
    command: Command = [_installed(_BIN / "mcp-proxy"), "--port", str(port), "--log-level", "ERROR", "--"]
    return _run(stack, MCP_PROXY, port, [*command, *upstream.command], upstream)


def start_fastmcp(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """As it comes: a session with the server for each request."""
    return _run_fastmcp(stack, FASTMCP, upstream, [])


def start_fastmcp_shared(stack: ExitStack, upstream: Upstream) -> Endpoint:
    """With a client that is connected: one session with the server for everybody."""
    return _run_fastmcp(stack, FASTMCP_SHARED, upstream, ["shared"])


def _run_fastmcp(stack: ExitStack, name: str, upstream: Upstream, options: Sequence[str]) -> Endpoint:
    port = free_port()
    _installed(_BIN / "fastmcp")
    command: Command = [_BIN / "python", BENCH / "packages" / "fastmcp_proxy.py", upstream.url, str(port), *options]
    return _run(stack, name, port, command)


def _run(stack: ExitStack, name: str, port: int, command: Command, upstream: Upstream | None = None) -> Endpoint:
    child = stack.enter_context(start(command, log=BUILD / "peers.log"))
    wait_for_port(child, port, within=60)
    return Endpoint(name, port, pid=child.pid, server=None if upstream is None else upstream.program)


def _installed(program: Path) -> Path:
    if not program.exists():
        raise Missing(f"it is not installed; `make bench` does that, and says why not in {os.path.relpath(PEERS)}")
    return program


def _node() -> str:
    # It comes with a package of the dev group.
    found = shutil.which("node", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        raise Missing("node is not installed")
    return found
