"""`holdfast bench SERVER`: how fast a server answers, directly and through Holdfast."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from msgspec import Raw
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from holdfast.call import Json
from holdfast.cli import failures
from holdfast.cli.arguments import parse_arguments
from holdfast.cli.bench_calls import Connections, Request, Tally, call_for, fault_of, send_message
from holdfast.cli.bench_gateway import GatewayFailed, GatewayProcess
from holdfast.cli.bench_view import SAID, Calls, Message, Report, Way, as_json, draw
from holdfast.cli.loop import run
from holdfast.cli.peer import Peer
from holdfast.clock import Clock, LoopClock
from holdfast.config import ServerSettings
from holdfast.errors import ConfigError, OpenFailed
from holdfast.observe.log import advised, one_line
from holdfast.observe.terminal import set_up_logging
from holdfast.wire import jsonrpc

ROUNDS: Final = 3
"""In which all take turns, so that what the machine does meanwhile meets all of them."""
MAX_CONNECTIONS: Final = 256
MAX_SECONDS: Final = 600.0
FEWEST_MESSAGES: Final = 3
MOST_MESSAGES: Final = 200
WIDTH_ELSEWHERE: Final = 160
"""Columns where the output is no terminal: nothing is left out."""
_CHAT: Final = "bench"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured, and how it is shown."""

    request: Request = field(default_factory=Request)
    connections: tuple[int, ...] = (1, 8)
    seconds: float = 3.0
    """Of calls, for each way and number of connections; and of messages, for each way."""
    is_json: bool = False


def parse_wanted(tool: str | None, arguments: str | None, connections: str, seconds: float, *, is_json: bool) -> Wanted:
    """What the options mean. Raises `ConfigError`."""
    if arguments is not None and tool is None:
        raise ConfigError("--arguments are those of a tool, and --tool names none")
    if not re.fullmatch(r"\d{1,4}(,\d{1,4}){0,7}", connections):
        raise ConfigError(f"--connections takes numbers with commas between them, as 1,8; not {connections!r}")
    counts = tuple(sorted({int(count) for count in connections.split(",")}))
    if counts[0] < 1 or counts[-1] > MAX_CONNECTIONS:
        raise ConfigError(f"--connections takes numbers from 1 to {MAX_CONNECTIONS}, not {connections!r}")
    if not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(f"--seconds takes more than 0 and at most {MAX_SECONDS:g}, not {seconds:g}")
    given: dict[str, Json] = {} if arguments is None else parse_arguments([arguments], bytes)
    return Wanted(Request(tool, given), counts, seconds, is_json)


def bench(server: ServerSettings, wanted: Wanted) -> int:
    """Measure `server`, print what was found, and return the status."""
    console = Console(stderr=True, highlight=False)
    set_up_logging(console, "error")
    return run(_bench(server, wanted, console))


async def _bench(server: ServerSettings, wanted: Wanted, console: Console) -> int:
    try:
        with _shown(console, 2 + ROUNDS * len(wanted.connections) * len(Way) + 1) as steps:
            report = await measure(server, wanted, steps)
    except OpenFailed as error:
        return failures.not_opened(server.name, error)
    except GatewayFailed as error:
        return failures.fail(str(error))
    except Unfit as error:
        return failures.fail(str(error), error.status)
    if wanted.is_json:
        print(json.dumps(as_json(report), indent=2))
    else:
        _print(report)
    return failures.FAILED if report.has_failed else 0


def _print(report: Report) -> None:
    console = Console(highlight=False)
    for line in draw(report, console.width if console.is_terminal else WIDTH_ELSEWHERE):
        console.print(line, soft_wrap=not console.is_terminal)


class Unfit(Exception):
    """What is to be called cannot be measured: the server does not have it, or answers with an error."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Steps:
    """Says what is being done: a bar on a terminal, lines elsewhere."""

    def __init__(self, console: Console, bar: Progress | None, count: int) -> None:
        self._console = console
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=count)

    def begin(self, words: str) -> None:
        """The next step begins."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=words)
        else:
            self._console.print(words, soft_wrap=True)

    def done(self) -> None:
        """The step is over."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)


@contextmanager
def _shown(console: Console, count: int) -> Generator[Steps]:
    if not console.is_terminal:
        yield Steps(console, None, count)
        return
    columns = (SpinnerColumn(), BarColumn(bar_width=28), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        yield Steps(console, bar, count)


async def measure(server: ServerSettings, wanted: Wanted, steps: Steps) -> Report:
    """Measure all that is wanted. Raises `OpenFailed`, `Unfit` and `GatewayFailed`."""
    clock = LoopClock()
    steps.begin(f"{server.name}: connecting")
    async with Peer(server) as peer:
        name, tools = one_line(peer.server_name), await _try(peer, wanted.request)
        found = peer.found  # found out once, and not with each connection
    steps.done()
    steps.begin("Holdfast: starting")
    async with GatewayProcess(server) as gateway:
        ways = {Way.DIRECT: found, Way.HOLDFAST: _through(gateway, server)}
        calls = await _measure_calls(ways, gateway, wanted, steps, clock)
        steps.begin("messages of a host that connects for each")
        messages = await _measure_messages(ways, gateway, wanted, clock)
        steps.done()
    return Report(name, wanted.request, calls, messages, [name for name in map(_harmless, tools) if name is not None])


def _through(gateway: GatewayProcess, server: ServerSettings) -> ServerSettings:
    # What waits for the server's session may wait for as long as the gateway does.
    limit = server.open_timeout + server.acquire_timeout
    return ServerSettings(name="holdfast", url=gateway.url, open_timeout=limit)


async def _try(peer: Peer, request: Request) -> list[Raw]:
    """The tools of the server; also finds out whether `request` is answered. Raises `Unfit`."""
    tools = await peer.list_tools()
    if not isinstance(tools, list):
        raise Unfit(f"{peer.server_name}: {fault_of(tools)}", failures.FAILED)
    if request.tool is None and peer.hello.is_modern:
        such = "".join(f", such as {name}" for name in [name for name in map(_harmless, tools) if name][:1])
        raise Unfit(
            f"{peer.server_name} speaks 2026-07-28, which has no ping: name a tool with --tool{such}", failures.MISUSED
        )
    names = [_text(jsonrpc.decode_fields(tool).get("name", b"null")) for tool in tools]
    if request.tool is not None and request.tool not in names:
        raise Unfit(
            failures.unknown_tool(request.tool, peer.server_name, [each for each in names if each]), failures.MISUSED
        )
    try:
        reason = fault_of(await request.ask(peer))
    except TimeoutError:
        reason = "no answer came"
    if reason is not None:
        raise Unfit(f"{request.name}: {reason}; there is nothing to measure", failures.FAILED)
    return tools


def _harmless(tool: Raw) -> str | None:
    """The name of a tool that says that it only reads, and needs no arguments."""
    fields = jsonrpc.decode_fields(tool)
    notes, schema = (jsonrpc.decode_value(fields.get(key, b"null")) for key in ("annotations", "inputSchema"))
    reads = isinstance(notes, dict) and notes.get("readOnlyHint") is True
    needs = isinstance(schema, dict) and bool(schema.get("required"))
    return (_text(fields.get("name", b"null")) or None) if reads and not needs else None


def _text(value: Raw | bytes) -> str:
    text = jsonrpc.decode_value(value)
    return text if isinstance(text, str) else ""


async def _measure_calls(
    ways: dict[Way, ServerSettings], gateway: GatewayProcess, wanted: Wanted, steps: Steps, clock: Clock
) -> list[Calls]:
    rows = [Calls(way, count) for count in wanted.connections for way in Way]
    most = wanted.connections[-1]
    steps.begin(f"opening {2 * most} sessions")
    async with Connections(ways[Way.DIRECT], most) as direct, Connections(ways[Way.HOLDFAST], most) as through:
        opened = {Way.DIRECT: direct, Way.HOLDFAST: through}
        for each in opened.values():
            await call_for(each.peers, wanted.request, 0.0, clock)
        steps.done()
        for number, row in itertools.product(range(1, ROUNDS + 1), rows):
            steps.begin(f"round {number} of {ROUNDS}: {_said(row)}")
            connections = opened[row.way]
            if len(connections.peers) >= row.connections:
                peers = connections.peers[: row.connections]
                row.tally.add(await _stretch(peers, row.way, gateway, wanted, clock))
            else:
                row.problem = _shortage(connections)
            steps.done()
    return rows


async def _stretch(peers: Sequence[Peer], way: Way, gateway: GatewayProcess, wanted: Wanted, clock: Clock) -> Tally:
    before = await gateway.usage()
    tally = await call_for(peers, wanted.request, wanted.seconds / ROUNDS, clock)
    after = await gateway.usage()
    if way is Way.HOLDFAST:
        tally.cpu = after.cpu - before.cpu
        tally.initializes = after.opened - before.opened
    return tally


def _said(row: Calls) -> str:
    return f"{row.connections} at once, {SAID[row.way]}"


def _shortage(connections: Connections) -> str:
    problem = connections.problem
    why = "" if problem is None else f": {advised(str(problem), problem.advice)}"
    return f"{len(connections.peers) or 'no'} sessions could be opened at once{why}"


async def _measure_messages(
    ways: dict[Way, ServerSettings], gateway: GatewayProcess, wanted: Wanted, clock: Clock
) -> dict[Message, Tally]:
    found = {which: Tally() for which in Message}
    began = clock.now()

    async def send(which: Message, way: Way, chat: str | None) -> None:
        before = await gateway.usage()
        tally = await send_message(ways[way], wanted.request, chat, clock)
        after = await gateway.usage()
        if way is Way.HOLDFAST:
            tally.cpu = after.cpu - before.cpu
        tally.initializes = after.opened - before.opened if way is Way.HOLDFAST else len(tally.latencies)
        found[which].add(tally)

    await send(Message.FIRST, Way.HOLDFAST, f"{_CHAT}-0")
    for number in range(1, MOST_MESSAGES + 1):
        await send(Message.DIRECT, Way.DIRECT, None)
        await send(Message.LATER, Way.HOLDFAST, f"{_CHAT}-0")
        if number >= FEWEST_MESSAGES and clock.now() - began >= wanted.seconds:
            break
        if number < FEWEST_MESSAGES:
            await send(Message.FIRST, Way.HOLDFAST, f"{_CHAT}-{number}")
    return found
