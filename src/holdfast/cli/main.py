"""The `holdfast` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from holdfast import __version__
from holdfast.cli.settings import name_of, parse_headers, parse_trust, split_target
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, describe, expand, key_digest
from holdfast.errors import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep MCP sessions alive between the programs that chat and the servers that remember."""


@app.command()
def run(
    target: Annotated[list[str], typer.Argument(metavar="URL | -- COMMAND ARG…", help="The MCP server.")],
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes any free port.")] = 8790,
    host: Annotated[str, typer.Option(help="Address to bind; beyond loopback, clients need --key.")] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(help="The server's name in URLs and logs.")] = None,
    scope: Annotated[str, typer.Option(help="Whom a session belongs to: chat, user or shared.")] = "chat",
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Sent to the server; ${ENV} is filled in.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Clients must bear it; ${ENV} is filled in.")] = None,
    trust: Annotated[
        str | None,
        typer.Option(metavar="openwebui | user=HEADER,chat=HEADER", help="Headers that name users and chats."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name by which clients may address the gateway.")
    ] = None,
    max_sessions: Annotated[int | None, typer.Option(help="Sessions with the server at once.")] = None,
    idle_timeout: Annotated[float, typer.Option(help="Seconds until an unused session is closed.")] = 1800.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Keep the sessions of one MCP server, at /mcp and /mcp/NAME."""
    url, command = split_target(target)
    if log_level not in {"debug", "info", "warning", "error"}:
        raise ConfigError(f"--log-level is debug, info, warning or error, not {log_level!r}")
    server = ServerSettings.model_validate(
        {
            "name": name or name_of(url, command),
            "url": url,
            "command": command,
            "headers": parse_headers(header or []),
            "scope": scope,
            "max_sessions": max_sessions,
            "idle_timeout": idle_timeout,
        }
    )
    secret = expand(key) if key is not None else None
    client = ClientSettings(
        name="local" if secret is None else "client",
        key_digest=key_digest(secret) if secret else None,
        trust=parse_trust(trust),
    )
    if command is not None and header:
        raise ConfigError("--header is for servers at a URL; a command takes its credentials from the environment")
    settings = GatewaySettings(
        host=host, port=port, allowed_hosts=tuple(allow_host or ()), clients=(client,), servers=(server,)
    )
    _serve(settings, log_level)


def _serve(settings: GatewaySettings, log_level: str) -> None:
    # The rest of the program is loaded only now, so that --help and mistakes are answered at once.
    from holdfast.cli import serving  # noqa: PLC0415
    from holdfast.gateway import Gateway  # noqa: PLC0415
    from holdfast.observe.terminal import StatusBoard, set_up_logging  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    set_up_logging(console, log_level)
    listener = serving.bind(settings.host, settings.port)
    board = StatusBoard(console, [server.name for server in settings.servers])

    def started() -> None:
        host, port = listener.getsockname()[:2]
        _greet(console, settings, f"[{host}]" if ":" in host else host, port)
        board.start()

    try:
        serving.run(settings, Gateway(settings, emit=board.take), listener, started)
    finally:
        board.stop()


def _greet(console: Console, settings: GatewaySettings, host: str, port: int) -> None:
    console.print(f"Holdfast {__version__}", style="bold")
    for server in settings.servers:
        console.print(f"  http://{host}:{port}/mcp and http://{host}:{port}/mcp/{server.name}", soft_wrap=True)
        if server.scope != "shared" and server.max_sessions == 1:
            console.print(
                f"  {server.name} may have one session, and each {server.scope} wants its own: they will take turns,"
                " and lose state. --scope shared lets all use the one.",
                style="yellow",
                soft_wrap=True,
            )
    trusts = any(client.trust.user or client.trust.chat for client in settings.clients)
    if trusts and any(client.key_digest is None for client in settings.clients):
        console.print(
            "  Without --key any program on this machine may name any user and chat.", style="yellow", soft_wrap=True
        )


def main() -> None:
    """Run the command; the operator's mistakes are answered in one line."""
    try:
        app()
    except ConfigError as error:
        _fail(str(error))
    except ValidationError as error:
        _fail(describe(error))


def _fail(message: str) -> None:
    print(f"holdfast: {message}", file=sys.stderr)
    sys.exit(2)
