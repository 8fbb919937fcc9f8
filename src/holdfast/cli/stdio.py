"""`holdfast stdio`: sessions kept for the program that starts it, on standard input and output."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from holdfast import __version__, events
from holdfast.cli import garbage
from holdfast.cli.settings import check_command, described, name_of, parse_headers, split_target
from holdfast.clock import LoopClock
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.downstream.pipes import LineWriter, read_from, written_to
from holdfast.downstream.stdio import LOCAL, Stdio
from holdfast.errors import ConfigError
from holdfast.gateway import Gateway
from holdfast.observe.log import EventLog, logger
from holdfast.observe.terminal import StatusBoard, print_words, set_up_logging
from holdfast.tasks import TaskScope

IDLE_TIMEOUT: Final = 24 * 3600.0
"""Seconds: a client keeps the process for as long as it wants its state, and half an hour without a call is nothing."""
FLUSH_TIMEOUT: Final = 1.0
"""Seconds for the last answers to be read once the sessions have ended."""
_STDIN, _STDOUT, _STDERR = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of one server; None and nothing where it says nothing."""

    name: str | None
    scope: str | None
    headers: Sequence[str]

    @property
    def is_given(self) -> bool:
        """Whether anything was said."""
        return self.name is not None or self.scope is not None or bool(self.headers)


def stdio(words: Sequence[str], dashed: Sequence[str] | None, options: Options, log_level: str | None) -> int:
    """Serve whoever started us until there is nothing more to answer, or a signal; returns the status.

    Raises `ConfigError`.
    """
    settings, notes = find_settings(words, dashed, options)
    output = _take_output()
    console = Console(stderr=True, highlight=False, force_terminal=False)
    set_up_logging(console, log_level or settings.log.level, settings.log.format)
    names = [server.name for server in settings.servers]
    greeting = f"Holdfast {__version__} serves {', '.join(names)} on stdin and stdout"
    if settings.log.format == "json":
        take: events.Emit = EventLog().take
        logger.info("%s", greeting)
        for note in notes:
            logger.warning("%s", note)
    else:
        board = StatusBoard(console, names)
        take = board.take
        console.print(greeting, soft_wrap=True)
        for note in notes:
            print_words(console, Text(note))
        board.start()
    if os.isatty(_STDIN):
        console.print("  It waits for JSON-RPC, one message a line; clients start it themselves. Ctrl-D ends it.")
    asyncio.run(serve(settings, _STDIN, output, take))
    return 0


def find_settings(
    words: Sequence[str], dashed: Sequence[str] | None, options: Options
) -> tuple[GatewaySettings, Sequence[str]]:
    """The settings that the command line means, for one client, and what the operator may want to know of them.

    Raises `ConfigError`.
    """
    client = ClientSettings(name=LOCAL.principal.client)
    if dashed is not None:
        if words:
            raise ConfigError(f"there are two servers: {words[0]}, and what follows --")
        if not dashed:
            raise ConfigError("after -- a command is missing")
        url, command = split_target(dashed)
    elif not words:
        raise ConfigError("name a server: holdfast stdio FILE, holdfast stdio URL, or holdfast stdio -- COMMAND ARG…")
    elif len(words) > 1:
        raise ConfigError(f"there is one word too many: {words[1]!r}; a command comes after --")
    elif "://" in words[0]:
        url, command = split_target(words)
    else:
        settings, notes = _read_file(Path(words[0]), options)
        return settings.model_copy(update={"clients": (client,)}), notes
    with described():
        server = _server(url, command, options)
        return GatewaySettings(clients=(client,), servers=(server,)), ()


def _read_file(path: Path, options: Options) -> tuple[GatewaySettings, Sequence[str]]:
    if not path.suffix and not path.exists():
        raise ConfigError(f"{path}: no such file; a server's command comes after --")
    if options.is_given:
        raise ConfigError("--name, --scope and --header are for one server; for those of a file, the file says it")
    from holdfast.config.file import load  # noqa: PLC0415 (YAML, which the other forms do without)

    try:
        loaded = load(path)
    except ConfigError as error:
        raise ConfigError(f"the settings cannot be used:\n{error}") from None
    return loaded.settings, loaded.notes


def _server(url: str | None, command: tuple[str, ...] | None, options: Options) -> ServerSettings:
    if command is not None:
        if options.headers:
            raise ConfigError("--header is for servers at a URL; a command takes its credentials from the environment")
        check_command(command)
    return ServerSettings.model_validate(
        {
            "name": options.name or name_of(url, command),
            "url": url,
            "command": command,
            "headers": parse_headers(options.headers),
            "scope": options.scope or "chat",
            "idle_timeout": IDLE_TIMEOUT,
        }
    )


def _take_output() -> int:
    """Standard output, for messages alone: whatever else is printed goes to stderr from now on."""
    try:
        output = os.dup(_STDOUT)
        os.fstat(_STDIN)
    except OSError:
        raise ConfigError("standard input or output is closed, and they are where the client is") from None
    with suppress(OSError):
        os.dup2(_STDERR, _STDOUT)
    return output


async def serve(settings: GatewaySettings, stdin: int, stdout: int, emit: events.Emit) -> None:
    """Serve the client at these two descriptors until it has left and been answered, or SIGINT or SIGTERM.

    A reader who is gone ends it as a signal does: calls under way are answered with an error, and
    all sessions end in order. A second signal drops them at once.
    """
    stopped = asyncio.Event()
    writer = LineWriter()
    writer.on_gone = stopped.set
    async with written_to(stdout, writer):
        async with Gateway(settings, emit=emit) as gateway, TaskScope() as scope:

            def stop() -> None:
                if stopped.is_set():
                    gateway.terminate()
                stopped.set()

            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop)
            garbage.settle()
            service = gateway.servers.whole(LOCAL)
            if service is None:
                raise ConfigError("there is no server that this client may see")
            dialect = Stdio(service, writer, LoopClock(), settings.limits, emit=emit)
            async with read_from(stdin, dialect) as intake:
                writer.on_slow, writer.on_drained = intake.pause, intake.resume
                scope.start(_finish(dialect, writer, stopped), "answer what is left")
                await stopped.wait()
                writer.on_slow = writer.on_drained = None
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await writer.flush()


async def _finish(dialect: Stdio, writer: LineWriter, stopped: asyncio.Event) -> None:
    """There is nothing more to do once everything is answered, and the answers are read."""
    await dialect.ended.wait()
    await writer.flush()
    stopped.set()
