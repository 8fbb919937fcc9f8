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

from bench.compile import BUILD
from bench.processes import BenchError, free_port, start, wait_for_port

HOLDFAST: Final = "holdfast"
MODERN: Final = "holdfast, 2026-07-28"

NGINX_CONFIGURATION: Final = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
    upstream server {{
        server 127.0.0.1:{upstream_port};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running gateway, or the server itself where there is no gateway (`pid` is None)."""

    name: str
    port: int
    path: str = "/mcp"
    pid: int | None = None
    is_modern: bool = False
    """It is called in revision 2026-07-28, without sessions."""


def start_direct(stack: ExitStack, upstream_port: int) -> Endpoint:
    """No gateway: what the load generator and the server can do."""
    del stack
    return Endpoint("direct", upstream_port)


def start_nginx(stack: ExitStack, upstream_port: int) -> Endpoint:
    """A relay of bytes, with kept-alive connections on both sides: the floor for a proxy."""
    # Debian keeps it in /usr/sbin, which is not on every user's path.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchError("nginx is not installed")
    port = free_port()
    folder = BUILD / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX_CONFIGURATION.format(folder=folder, port=port, upstream_port=upstream_port))
    command: list[str | Path] = [program, "-e", folder / "nginx-error.log", "-p", folder, "-c", configuration]
    child = stack.enter_context(start(command, log=BUILD / "nginx.log"))
    wait_for_port(child, port)
    return Endpoint("nginx", port, pid=child.pid)


def holdfast_command(url: str, port: int, options: Sequence[str] = ()) -> list[str]:
    """The command line of `holdfast run`."""
    return [sys.executable, "-m", "holdfast", "run", url, "--port", str(port), "--log-level", "warning", *options]


def start_holdfast(stack: ExitStack, upstream_port: int, options: Sequence[str] = ()) -> Endpoint:
    """Holdfast with its defaults: each client's session has a session of its own with the server."""
    port = free_port()
    command = holdfast_command(f"http://127.0.0.1:{upstream_port}/mcp", port, options)
    child = stack.enter_context(start(command, log=BUILD / "holdfast.log"))
    wait_for_port(child, port)
    return Endpoint(HOLDFAST, port, pid=child.pid)


def start_modern(stack: ExitStack, upstream_port: int) -> Endpoint:
    """As `start_holdfast`, for clients of 2026-07-28: each connection names a chat, which has a session."""
    return replace(start_holdfast(stack, upstream_port), name=MODERN, is_modern=True)


SCRIPTED_SERVER: Final = (sys.executable, "-m", "holdfast.testing.server")
"""A server in Python, with the habits of real ones; it prints its URL."""

GATEWAYS: Final[dict[str, Callable[[ExitStack, int], Endpoint]]] = {
    "direct": start_direct,
    "nginx": start_nginx,
    HOLDFAST: start_holdfast,
    MODERN: start_modern,
}
"""In the order of each round."""
