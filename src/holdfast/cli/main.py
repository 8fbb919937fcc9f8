"""The `holdfast` command: what can be typed.

What a command does is in a file of its own, imported when that command runs: --help, --version and
mistakes are answered at once, and no command waits for what only another one needs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast import __version__
from holdfast.cli import garbage
from holdfast.cli.dashes import DashedCommand, PlainCommand, after_dashes
from holdfast.cli.options import (
    BENCH_EXAMPLES,
    CALL_EXAMPLES,
    DOCTOR_EXAMPLES,
    IMPORT_EXAMPLES,
    STDIO_EXAMPLES,
    TOOLS_EXAMPLES,
    TOP_EXAMPLES,
    ChatOption,
    ConfigOption,
    HeaderOption,
    KeyOption,
    TimeoutOption,
    check_limit,
)
from holdfast.errors import ConfigError

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_COMMANDS: Final = frozenset(
    {"run", "serve", "stdio", "check", "schema", "import", "tools", "call", "bench", "doctor", "top"}
)
DEFAULT_FILE: Final = Path("holdfast.yaml")
SettingsFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The settings: YAML, or the mcpServers JSON of a desktop client.")
]

EXAMPLES: Final = """\b
Examples:
  holdfast run http://127.0.0.1:3000/mcp
  holdfast run -- npx -y @playwright/mcp --headless --isolated
  holdfast run --trust openwebui --key '${OPEN_WEBUI_KEY}' -- uvx mcp-server-git
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


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


@app.command(cls=PlainCommand, epilog=EXAMPLES)
def run(
    target: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URL | -- COMMAND ARG…",
            help="The MCP server: where it is, or how it is started.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(metavar="PORT", help="Where to listen; 0 takes any free port.")] = 8790,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to bind; beyond loopback, clients need --key.")
    ] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The server's name in URLs and logs.")] = None,
    scope: Annotated[
        str, typer.Option(metavar="SCOPE", help="Whom a session belongs to: chat, user or shared.")
    ] = "chat",
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Sent to the server; ${ENV} is filled in. May be repeated."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Clients must send it as a bearer token; ${ENV} is filled in.")
    ] = None,
    trust: Annotated[
        str | None,
        typer.Option(metavar="openwebui | user=HEADER,chat=HEADER", help="Headers that name users and chats."),
    ] = None,
    jwt_secret: Annotated[
        str | None,
        typer.Option(
            metavar="SECRET", help="With it Open WebUI signs who its user is, and no other is believed; ${ENV} too."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name by which clients call the gateway. May be repeated."),
    ] = None,
    max_sessions: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Sessions with the server at once.  [default: 1000 for a URL, 64 for a command]"
        ),
    ] = None,
    handles: Annotated[
        bool, typer.Option("--handles", help="Let callers open sessions by a tool, and name them in their calls.")
    ] = False,
    idle_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Until an unused session is closed.")] = 1800.0,
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = "info",
) -> None:
    """Keep the sessions of one MCP server, at /mcp and /mcp/NAME."""
    _check_log_level(log_level)
    from holdfast.cli import run as command  # noqa: PLC0415

    settings = command.find_settings(
        target or [],
        port=port,
        host=host,
        name=name,
        scope=scope,
        headers=header or (),
        key=key,
        trust=trust,
        jwt_secret=jwt_secret,
        allowed_hosts=allow_host or (),
        max_sessions=max_sessions,
        handles=handles,
        idle_timeout=idle_timeout,
    )
    command.run(settings, log_level)


@app.command(cls=PlainCommand, short_help="Keep the sessions of the servers in a settings file.")
def serve(
    file: SettingsFile = DEFAULT_FILE,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help=f"What the log holds: {', '.join(LOG_LEVELS)}.  [default: the file's]"),
    ] = None,
) -> int:
    """Keep the sessions of the servers in a settings file, each at /mcp/NAME, all at /mcp."""
    from holdfast.cli import serve as command  # noqa: PLC0415

    if log_level is not None:
        _check_log_level(log_level)
    return command.serve(_named(file), log_level)


@app.command(
    cls=DashedCommand,
    epilog=STDIO_EXAMPLES,
    options_metavar="[OPTIONS]",
    short_help="Keep sessions for a client that starts this as its server.",
)
def stdio(
    context: typer.Context,
    target: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE | URL | -- COMMAND ARG…",
            help="A settings file, or the MCP server: where it is, or how it is started.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The server's name in logs.")] = None,
    scope: Annotated[
        str | None,
        typer.Option(metavar="SCOPE", help="Whom a session belongs to: chat, user or shared.  [default: chat]"),
    ] = None,
    header: HeaderOption = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help=f"What the log holds: {', '.join(LOG_LEVELS)}.  [default: info, or the file's]"
        ),
    ] = None,
) -> int:
    """Keep sessions for the program that starts this, as an MCP server on its stdin and stdout."""
    from holdfast.cli import stdio as command  # noqa: PLC0415

    if log_level is not None:
        _check_log_level(log_level)
    options = command.Options(name=name, scope=scope, headers=header or ())
    return command.stdio(target or [], after_dashes(context), options, log_level)


@app.command(cls=PlainCommand)
def check(
    file: SettingsFile = DEFAULT_FILE,
) -> int:
    """Say what is wrong with a settings file, without starting anything."""
    from holdfast.cli import check as command  # noqa: PLC0415

    return command.check(_named(file))


@app.command()
def schema() -> None:
    """Print the JSON Schema of settings files, for editors."""
    from holdfast.cli import schema as command  # noqa: PLC0415

    print(command.schema())


@app.command(
    name="import",
    cls=PlainCommand,
    epilog=IMPORT_EXAMPLES,
    short_help="Turn LiteLLM's MCP servers into a settings file.",
)
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The config file of LiteLLM's proxy.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; it must not exist.  [default: stdout]"),
    ] = None,
) -> int:
    """Turn the MCP servers of another gateway's file into a settings file."""
    from holdfast.cli import importing as command  # noqa: PLC0415

    return command.import_file(file, output)


@app.command(cls=DashedCommand, epilog=TOOLS_EXAMPLES, options_metavar="[OPTIONS]")
def tools(
    context: typer.Context,
    server: Annotated[
        list[str] | None,
        typer.Argument(metavar="URL | NAME | -- COMMAND ARG…", help="The MCP server.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    header: HeaderOption = None,
    key: KeyOption = None,
    chat: ChatOption = None,
    timeout: TimeoutOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tools as the server sent them.")] = False,
) -> int:
    """List the tools of a server."""
    from holdfast.cli.target import find_only_server  # noqa: PLC0415

    found = find_only_server(server or [], after_dashes(context), config=config, headers=header or (), key=key)
    from holdfast.cli import tools as command  # noqa: PLC0415

    return command.tools(found, chat=chat or None, limit=check_limit(timeout), is_json=as_json)


@app.command(cls=DashedCommand, epilog=CALL_EXAMPLES, options_metavar="[OPTIONS]")
def call(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URL | NAME  TOOL  ARGUMENT…  -- COMMAND ARG…",
            help="The MCP server, its tool, and the tool's arguments.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    header: HeaderOption = None,
    key: KeyOption = None,
    chat: ChatOption = None,
    timeout: TimeoutOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as the server sent it.")] = False,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Show the server's log messages from this level on.")
    ] = None,
) -> int:
    """Call a tool of a server, and show its progress and its result."""
    from holdfast.cli.target import find_server  # noqa: PLC0415

    found, rest = find_server(words or [], after_dashes(context), config=config, headers=header or (), key=key)
    if not rest:
        raise ConfigError(f"name a tool of {found.name}; holdfast tools lists them")
    from holdfast.cli import call as command  # noqa: PLC0415
    from holdfast.cli.arguments import parse_arguments  # noqa: PLC0415

    arguments = parse_arguments(rest[1:], sys.stdin.buffer.read)
    wanted = command.Wanted(rest[0], arguments, chat or None, check_limit(timeout), as_json, log_level)
    return command.call(found, wanted)


@app.command(cls=DashedCommand, epilog=BENCH_EXAMPLES, options_metavar="[OPTIONS]")
def bench(
    context: typer.Context,
    server: Annotated[
        list[str] | None,
        typer.Argument(metavar="URL | NAME | -- COMMAND ARG…", help="The MCP server.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    header: HeaderOption = None,
    key: KeyOption = None,
    tool: Annotated[
        str | None, typer.Option(metavar="NAME", help="The tool to call.  [default: none, but ping]")
    ] = None,
    arguments: Annotated[
        str | None, typer.Option(metavar="JSON", help="The tool's arguments: an object, or one KEY=VALUE.")
    ] = None,
    connections: Annotated[str, typer.Option(metavar="N,N", help="Calls under way at once.")] = "1,8",
    seconds: Annotated[float, typer.Option(metavar="SECONDS", help="For each way and number of connections.")] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> int:
    """Measure a server, directly and through Holdfast."""
    from holdfast.cli import bench as command  # noqa: PLC0415
    from holdfast.cli.target import find_only_server  # noqa: PLC0415

    wanted = command.parse_wanted(tool, arguments, connections, seconds, is_json=as_json)
    found = find_only_server(server or [], after_dashes(context), config=config, headers=header or (), key=key)
    return command.bench(found, wanted)


@app.command(cls=DashedCommand, epilog=DOCTOR_EXAMPLES, options_metavar="[OPTIONS]")
def doctor(
    context: typer.Context,
    server: Annotated[
        list[str] | None,
        typer.Argument(metavar="URL | NAME | -- COMMAND ARG…", help="The MCP server.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    header: HeaderOption = None,
    key: KeyOption = None,
    to_call: Annotated[
        str | None, typer.Option("--call", metavar="TOOL[=JSON]", help="Call this tool: alone, and three at once.")
    ] = None,
    write: Annotated[
        str | None, typer.Option(metavar="TOOL[=JSON]", help="Call this tool to have the server remember something,")
    ] = None,
    read: Annotated[
        str | None, typer.Option(metavar="TOOL[=JSON]", help="and this one, in several sessions, to look for it.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Ask no more after this; what was opened is ended in 5 more.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings and the advice as one object.")] = False,
) -> int:
    """Find out how a server treats sessions, and which settings suit it."""
    from holdfast.cli import doctor as command  # noqa: PLC0415
    from holdfast.cli.target import find_only_server  # noqa: PLC0415

    found = find_only_server(server or [], after_dashes(context), config=config, headers=header or (), key=key)
    wanted = command.parse_wanted(to_call, write, read)
    check_limit(timeout)
    written = command.headers_as_written(header or (), key)
    return command.doctor(found, wanted, total=timeout, written=written, is_json=as_json)


@app.command(cls=PlainCommand, epilog=TOP_EXAMPLES)
def top(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The gateway, or one of its MCP endpoints.")
    ] = "http://127.0.0.1:8790",
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The operator's key (operator_key); ${ENV} is filled in.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once, as where stdout is no terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the gateway's API says, once.")] = False,
) -> int:
    """Watch the servers and the busiest sessions of a running gateway."""
    from holdfast.cli import top as command  # noqa: PLC0415
    from holdfast.cli.api import parse_address  # noqa: PLC0415
    from holdfast.cli.settings import parse_key  # noqa: PLC0415

    return command.top(parse_address(url), parse_key(key), is_once=once, is_json=as_json)


def _named(file: Path) -> Path:
    """A settings file; who named none is told how to, where there is none of the usual name."""
    if file == DEFAULT_FILE and not file.exists():
        raise ConfigError(f"there is no {file} here; name a settings file, or one server: holdfast run URL")
    return file


def _check_log_level(level: str) -> None:
    if level not in LOG_LEVELS:
        raise ConfigError(f"--log-level is {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}, not {level!r}")


def main() -> None:
    """Run the command; the operator's mistakes are answered in one line, with status 2."""
    arguments = sys.argv[1:] or ["--help"]
    try:
        with garbage.ignored():
            status: object = app(arguments, standalone_mode=False)
    except ConfigError as error:
        _fail(str(error))
    except typer.TyperException as error:
        words = " ".join(error.format_message().split()).rstrip(".")
        is_for_server = (
            arguments[0] in {"run", "stdio"} and "--" not in arguments and words.startswith("No such option")
        )
        hint = "; the server's own options come after --" if is_for_server else ""
        command = f" {arguments[0]}" if arguments[0] in _COMMANDS else ""
        _fail(f"{words[:1].lower()}{words[1:]}{hint} (see holdfast{command} --help)")
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str) -> None:
    print(f"holdfast: {message}", file=sys.stderr)
    sys.exit(2)
