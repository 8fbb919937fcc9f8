"""Starts a gateway and shows it to the person who did: what `run` and `serve` have in common."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from holdfast import __version__
from holdfast.cli import serving
from holdfast.cli.reload import Follow
from holdfast.config import GatewaySettings
from holdfast.gateway import Gateway
from holdfast.observe.terminal import StatusBoard, print_words, set_up_logging


def start(
    settings: GatewaySettings, log_level: str | None, warnings: Sequence[str], follow: Follow | None = None
) -> None:
    """Serve until a signal, after a greeting with the addresses and `warnings`. Raises `ConfigError`.

    `log_level` comes before the settings' own. `follow` keeps the gateway to its settings file.
    """
    console = Console(stderr=True, highlight=False)
    set_up_logging(console, log_level or settings.log.level, settings.log.format)
    listener = serving.bind(settings.host, settings.port)
    board = StatusBoard(console, [server.name for server in settings.servers])

    def started() -> None:
        host, port = listener.getsockname()[:2]
        console.print(f"Holdfast {__version__}", style="bold")
        for line in _addresses(settings, f"[{host}]" if ":" in host else host, port):
            console.print(f"  {line}", soft_wrap=True)
        for warning in warnings:
            print_words(console, Text(warning, "yellow"))
        board.start()

    def stopping() -> None:
        board.stop()
        if console.is_terminal:
            console.print("\nEnding; Ctrl-C once more ends it at once.", style="dim")

    gateway = Gateway(settings, emit=board.take)

    def reload(settings: GatewaySettings, notes: Sequence[str]) -> None:
        gateway.reload(settings, notes)
        log = gateway.settings.log
        set_up_logging(console, log_level or log.level, log.format)

    follower = None if follow is None else follow(reload, board.take)
    try:
        serving.run(settings, gateway, listener, started, stopping, follower)
    finally:
        board.stop()


def _addresses(settings: GatewaySettings, host: str, port: int) -> list[str]:
    """Where each server is reached."""
    # Nobody can call 0.0.0.0 by that name: say those under which clients are answered.
    is_any = host in {"0.0.0.0", "[::]"}  # noqa: S104 (compared, not bound)
    roots = [f"http://{name}:{port}/mcp" for name in (("127.0.0.1", *settings.allowed_hosts) if is_any else (host,))]
    if len(settings.servers) == 1:
        return [f"{root} and {root}/{settings.servers[0].name}" for root in roots]
    return [line for root in roots for line in (root, *(f"{root}/{server.name}" for server in settings.servers))]
