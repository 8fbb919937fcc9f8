"""`holdfast call SERVER TOOL …`: calls one tool and shows what comes of it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from holdfast.call import LOG_LEVELS, Json, Result, RpcError
from holdfast.cli import failures
from holdfast.cli.contents import describe_result, for_terminal
from holdfast.cli.elicitation import Questions
from holdfast.cli.loop import run
from holdfast.cli.peer import Answer, Peer, sent
from holdfast.cli.progress import CallView
from holdfast.clock import LoopClock
from holdfast.config import ServerSettings
from holdfast.errors import ConfigError, OpenFailed
from holdfast.observe.terminal import set_up_logging
from holdfast.wire import jsonrpc

_LIST_TIMEOUT: Final = 5.0
"""For the names of a server's tools, once a call has failed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is called, and how it is shown."""

    tool: str
    arguments: dict[str, Json]
    chat: str | None = None
    limit: float | None = None
    """Seconds in all."""
    is_json: bool = False
    log_level: str | None = None


def call(server: ServerSettings, wanted: Wanted) -> int:
    """Call a tool of `server`, print its result, and return the status. Raises `ConfigError`."""
    if wanted.log_level is not None and wanted.log_level not in LOG_LEVELS:
        known = f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}"
        raise ConfigError(f"--log-level is {known}, not {wanted.log_level!r}")
    console = Console(stderr=True, highlight=False)
    set_up_logging(console, "error")
    return run(_call(server, wanted, console))


async def _call(server: ServerSettings, wanted: Wanted, console: Console) -> int:
    view = CallView(console, wanted.tool, LoopClock(), wanted.log_level)
    peer = Peer(server, wanted.chat)
    peer.hearer = view
    known: list[str] | None = None
    answer: Answer | None = None
    has_opened = False
    try:
        async with asyncio.timeout(wanted.limit):
            view.start()
            async with peer:
                has_opened = True
                if sys.stdin.isatty() and console.is_terminal:
                    peer.elicit = Questions(console, peer.server_name, view)
                if wanted.log_level is not None and "logging" in peer.hello.capabilities:
                    await peer.request("logging/setLevel", {"level": wanted.log_level})
                answer = await peer.request("tools/call", {"name": wanted.tool, "arguments": wanted.arguments})
                view.end()
                if _has_failed(answer):
                    known = await _tool_names(peer)
    except OpenFailed as error:
        view.end()
        return failures.not_opened(server.name, error)
    except TimeoutError:
        # Once there is an answer, only the farewell was cut short.
        view.end()
        if not has_opened:
            return failures.fail(f"{server.name}: no session within {wanted.limit:g} s", failures.UNREACHABLE)
    finally:
        view.end()
    if answer is None:
        return failures.fail(f"{server.name}: no answer within {wanted.limit:g} s; the call was cancelled")
    if known and wanted.tool not in known:
        return failures.fail(failures.unknown_tool(wanted.tool, peer.server_name, known), failures.MISUSED)
    if not isinstance(answer, Result):
        return failures.unanswered(server.name, answer)
    return _show(answer, is_json=wanted.is_json)


def _show(result: Result, *, is_json: bool) -> int:
    fields = jsonrpc.decode_value(result.raw)
    has_failed = isinstance(fields, dict) and fields.get("isError") is True
    if is_json:
        print(bytes(sent(result)).decode(errors="replace"))
        return failures.FAILED if has_failed else 0
    text = describe_result(fields if isinstance(fields, dict) else {})
    stream = sys.stderr if has_failed else sys.stdout
    if text or has_failed:
        shown = text or "holdfast: the tool failed, and does not say why"
        print(for_terminal(shown) if stream.isatty() else shown, file=stream)
    return failures.FAILED if has_failed else 0


def _has_failed(answer: Answer) -> bool:
    """The server says that the call failed: perhaps it has no such tool."""
    if not isinstance(answer, Result):
        return isinstance(answer, RpcError) and not failures.is_of_gateway(answer)
    return jsonrpc.decode_value(jsonrpc.decode_fields(answer.raw).get("isError", b"false")) is True


async def _tool_names(peer: Peer) -> list[str] | None:
    """The names of all tools; None where they cannot be learned: the first failure is the one to tell."""
    try:
        async with asyncio.timeout(_LIST_TIMEOUT):
            listed = await peer.list_tools()
    except TimeoutError:
        return None
    if not isinstance(listed, list):
        return None
    names = (jsonrpc.decode_value(jsonrpc.decode_fields(tool).get("name", b"null")) for tool in listed)
    return [name for name in names if isinstance(name, str)]
