"""Starts a gateway and shows it to the person who did: what `run` and `serve` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.text import Text

from holdfast import __version__, events
from holdfast.cli import serving
from holdfast.config import GatewaySettings
from holdfast.gateway import Gateway
from holdfast.observe.log import EventLog, logger
from holdfast.observe.terminal import StatusBoard, print_words, set_up_logging

if TYPE_CHECKING:
    from holdfast.cli.reload import Follow  # which brings YAML


def start(
    settings: GatewaySettings,
    log_level: str | None,
    warnings: Sequence[str],
    *,
    instead: str = "choose another with --port",
    follow: Follow | None = None,
) -> None:
    """Serve until a signal, after a greeting with the addresses and `warnings`. Raises `ConfigError`.

    `log_level` comes before the settings' own. `instead` says how to choose another address. `follow`
    keeps the gateway to its settings file.
    """
    console = Console(stderr=True, highlight=False)
    set_up_logging(console, log_level or settings.log.level, settings.log.format)
    listener = serving.bind(settings.host, settings.port, instead)
    greeting: Greeting = _Logged() if settings.log.format == "json" else _Shown(console, settings)
    gateway = Gateway(settings, emit=greeting.take, emit_passing=greeting.take_passing)

    def started() -> None:
        host, port = listener.getsockname()[:2]
        greeting.started(_addresses(settings, f"[{host}]" if ":" in host else host, port), warnings)

    def reload(settings: GatewaySettings, notes: Sequence[str]) -> None:
        gateway.reload(settings, notes)
        log = gateway.settings.log
        set_up_logging(console, log_level or log.level, log.format)

    follower = None if follow is None else follow(reload, gateway.tell)
    try:
        serving.run(settings, gateway, listener, started, greeting.stopping, follower)
    finally:
        greeting.ended()


class Greeting(Protocol):
    """What whoever started the gateway sees of it."""

    def started(self, addresses: Sequence[str], warnings: Sequence[str]) -> None:
        """Clients can connect."""

    def take(self, event: events.Event) -> None:
        """Something happened."""

    def take_passing(self, event: events.Event) -> None:
        """A call or an HTTP request has ended, of which there are many."""

    def stopping(self) -> None:
        """The first signal to end has come."""

    def ended(self) -> None:
        """It is over."""


class _Shown:
    """For people: where the servers are, and a line for each on its way to be ready."""

    def __init__(self, console: Console, settings: GatewaySettings) -> None:
        self._console = console
        self._board = StatusBoard(console, [server.name for server in settings.servers])
        self.take, self.take_passing = self._board.take, self._board.log.take
        self.ended = self._board.stop

    def started(self, addresses: Sequence[str], warnings: Sequence[str]) -> None:
        greet(self._console, addresses, warnings)
        self._board.start()

    def stopping(self) -> None:
        self._board.stop()
        if self._console.is_terminal:
            self._console.print("\nEnding; Ctrl-C once more ends it at once.", style="dim")


def greet(console: Console, addresses: Sequence[str], warnings: Sequence[str]) -> None:
    """Print where clients can connect, and what the operator may not have meant."""
    console.print(f"Holdfast {__version__}", style="bold")
    for line in addresses:
        console.print(f"  {line}", soft_wrap=True)
    for warning in warnings:
        print_words(console, Text(warning, "yellow"))


class _Logged:
    """For programs: the log alone."""

    def __init__(self) -> None:
        self.take = self.take_passing = EventLog().take

    def started(self, addresses: Sequence[str], warnings: Sequence[str]) -> None:
        logger.info("Holdfast %s serves %s", __version__, ", ".join(addresses))
        for warning in warnings:
            logger.warning("%s", warning)

    def stopping(self) -> None:
        logger.info("ending")

    def ended(self) -> None: ...


def _addresses(settings: GatewaySettings, host: str, port: int) -> list[str]:
    """Where each server is reached."""
    # Nobody can call 0.0.0.0 by that name: say those under which clients are answered.
    is_any = host in {"0.0.0.0", "[::]"}  # noqa: S104 (compared, not bound)
    roots = [f"http://{name}:{port}/mcp" for name in (("127.0.0.1", *settings.allowed_hosts) if is_any else (host,))]
    if len(settings.servers) == 1 and settings.merged == "several":
        return [f"{root} and {root}/{settings.servers[0].name}" for root in roots]
    return [line for root in roots for line in (root, *(f"{root}/{server.name}" for server in settings.servers))]
