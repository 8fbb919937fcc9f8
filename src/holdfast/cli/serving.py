"""Runs a gateway's application on an HTTP server until a signal."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from holdfast.cli import garbage
from holdfast.config import GatewaySettings
from holdfast.downstream.connection import Connection
from holdfast.errors import ConfigError
from holdfast.gateway import Gateway
from holdfast.tasks import TaskScope

if TYPE_CHECKING:
    from holdfast.cli.reload import SettingsFollower  # which brings YAML

GRACE: Final = 1.0
"""Seconds that answers under way may still take after the signal to end."""
_CUT: Final = 2
"""Seconds after the signal at which whoever has not read its answer is cut off."""
BACKLOG: Final = 2048


class _HttpServer(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before sessions and children have ended."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def bind(host: str, port: int, instead: str) -> socket.socket:
    """A listening address. Raises `ConfigError` where it cannot be had; `instead` says how to choose another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        other = instead if error.errno in {errno.EADDRINUSE, errno.EACCES} else "is the host right?"
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; {other}") from None
    listener.setblocking(False)
    return listener


async def serve(
    gateway: Gateway,
    listener: socket.socket,
    started: Callable[[], None],
    stopping: Callable[[], None],
    follower: SettingsFollower | None = None,
) -> None:
    """Serve `gateway`, which is entered here, until SIGINT or SIGTERM; a second signal ends at once.

    `started` is called once clients can connect, `stopping` at the first signal. `follower` is asked to
    load the settings anew at SIGHUP, and runs meanwhile.

    Calls under way get `GRACE` seconds; then the sessions end, and with them the calls, answered with
    an error.
    """
    async with gateway, TaskScope() as scope:
        server = _HttpServer(
            uvicorn.Config(
                gateway.app,
                http=Connection,
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_CUT,
            )
        )

        def stop() -> None:
            if server.should_exit:
                server.force_exit = True
                gateway.terminate()
                return
            server.should_exit = True
            stopping()
            gateway.drain()
            ending.append(loop.call_later(GRACE, gateway.close_sessions))

        ending: list[asyncio.TimerHandle] = []
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        if follower is not None:
            loop.add_signal_handler(signal.SIGHUP, follower.ask)
            scope.start(follower.run(), "follow the settings file")
        garbage.settle()
        started()
        await server.serve(sockets=[listener])
        for timer in ending:
            timer.cancel()


def run(
    settings: GatewaySettings,
    gateway: Gateway,
    listener: socket.socket,
    started: Callable[[], None],
    stopping: Callable[[], None],
    follower: SettingsFollower | None = None,
) -> None:
    """As `serve`, in an event loop of its own: uvloop, or asyncio where upstreams speak TLS.

    asyncio's TLS costs 28 microseconds of CPU per call where uvloop's costs 39.
    """
    has_tls = any((server.url or "").startswith("https://") for server in settings.servers)
    with asyncio.Runner(loop_factory=None if has_tls else _uvloop()) as runner:
        runner.run(serve(gateway, listener, started, stopping, follower))


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 (absent on some platforms)
    except ImportError:
        return None
    return uvloop.new_event_loop
