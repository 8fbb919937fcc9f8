"""The options that `tools` and `call` share, and what the help says of servers, arguments and examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.errors import ConfigError

SERVER_GRAMMAR: Final = """\b
The server is the first word: a URL, or a NAME of a settings file.
Or it is a command, which follows -- at the end.
"""
TOOLS_EXAMPLES: Final = f"""{SERVER_GRAMMAR}
\b
Examples:
  holdfast tools http://127.0.0.1:8790/mcp
  holdfast tools --config holdfast.yaml browser
  holdfast tools -- npx @playwright/mcp --headless
"""
IMPORT_EXAMPLES: Final = """\b
Examples:
  holdfast import litellm.yaml -o holdfast.yaml
"""
CALL_EXAMPLES: Final = f"""{SERVER_GRAMMAR}
\b
Arguments are KEY=VALUE, a JSON object, or - for a JSON object from
standard input. A VALUE is JSON where it can be read as JSON, else text.

\b
Examples:
  holdfast call http://127.0.0.1:8790/mcp navigate url=https://example.org
  holdfast call http://127.0.0.1:8790/mcp click '{{"x": 3, "y": 4}}' --chat mine
  holdfast call --config holdfast.yaml browser snapshot --json
  holdfast call git_log max_count=3 repo_path=. -- uvx mcp-server-git
"""
STDIO_EXAMPLES: Final = """\b
A client that starts its servers as processes starts this instead.

\b
Examples:
  holdfast stdio http://127.0.0.1:3000/mcp
  holdfast stdio -- npx -y @playwright/mcp --headless --isolated
  holdfast stdio holdfast.yaml
"""
BENCH_EXAMPLES: Final = f"""{SERVER_GRAMMAR}
\b
Without --tool nothing of the server's is called: pings are measured, which
Holdfast answers itself. Name a tool that may be called thousands of times.

\b
Examples:
  holdfast bench http://127.0.0.1:3000/mcp
  holdfast bench http://127.0.0.1:3000/mcp --tool search --arguments '{{"q": "x"}}'
  holdfast bench --tool git_status --arguments repo_path=. -- uvx mcp-server-git
"""
DOCTOR_EXAMPLES: Final = f"""{SERVER_GRAMMAR}
\b
No tool is called but those that you name, as TOOL or TOOL={{JSON}}.

\b
Examples:
  holdfast doctor http://127.0.0.1:3000/mcp
  holdfast doctor -- npx -y @playwright/mcp --headless --isolated
  holdfast doctor http://127.0.0.1:3000/mcp --call 'search={{"query": "x"}}'
  holdfast doctor http://127.0.0.1:3000/mcp \\
    --write 'remember={{"key": "a", "value": "1"}}' --read 'recall={{"key": "a"}}'
"""
TOP_EXAMPLES: Final = """\b
Examples:
  holdfast top
  holdfast top https://gateway.example.org --key '${OPERATOR_KEY}'
  holdfast top --json
"""

ConfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The settings file that has NAME.  [default: holdfast.yaml, if it is there]"),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Sent to the server; ${ENV} is filled in. May be repeated."),
]
KeyOption = Annotated[
    str | None, typer.Option(metavar="KEY", help="Sent to the server as a bearer token; ${ENV} is filled in.")
]
ChatOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The chat whose state is met, through a Holdfast gateway.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Give up after this, connecting included.  [default: never]"),
]


def check_limit(seconds: float | None) -> float | None:
    """The value of `--timeout`. Raises `ConfigError` where no call could meet it."""
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"--timeout takes seconds, more than 0; not {seconds:g}")
    return seconds
