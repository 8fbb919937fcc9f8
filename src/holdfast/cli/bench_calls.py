"""What `holdfast bench` does to a server: calls on kept connections, and messages of a host that keeps none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from holdfast.call import Json, Result, RpcError
from holdfast.cli import failures
from holdfast.cli.peer import Answer, Peer
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.tasks import TaskScope
from holdfast.wire import jsonrpc

CALL_TIMEOUT: Final = 60.0
"""Seconds after which an answer is counted as one that did not come."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is called: a tool, or `ping`, which does nothing."""

    tool: str | None = None
    arguments: dict[str, Json] = field(default_factory=dict[str, Json])

    @property
    def name(self) -> str:
        """The tool's name, or the method's."""
        return "ping" if self.tool is None else self.tool

    async def ask(self, peer: Peer) -> Answer:
        """Send it, and wait for the answer. Raises `TimeoutError`."""
        if self.tool is None:
            return await peer.request("ping", within=CALL_TIMEOUT)
        params: dict[str, Json] = {"name": self.tool, "arguments": self.arguments}
        return await peer.request("tools/call", params, within=CALL_TIMEOUT)


@dataclass(slots=True)
class Tally:
    """What came of some calls, or of some messages; times in seconds."""

    latencies: list[float] = field(default_factory=list[float])
    """Of what was answered, with an error perhaps."""
    errors: int = 0
    first_error: str = ""
    seconds: float = 0.0
    """In all."""
    cpu: float | None = None
    """Of the gateway; None without one."""
    initializes: int = 0
    """Sessions with the server that were opened meanwhile."""

    def failed(self, reason: str) -> None:
        """Count an error."""
        self.errors += 1
        self.first_error = self.first_error or reason

    def take(self, answer: Answer, latency: float) -> None:
        """Count an answer, or that there was none."""
        if is_answered(answer):
            self.latencies.append(latency)
        if (reason := fault_of(answer)) is not None:
            self.failed(reason)

    def add(self, other: Tally) -> None:
        """Add what another stretch found."""
        self.latencies += other.latencies
        self.errors += other.errors
        self.first_error = self.first_error or other.first_error
        self.seconds += other.seconds
        if other.cpu is not None:
            self.cpu = (self.cpu or 0.0) + other.cpu
        self.initializes += other.initializes

    def percentile(self, share: float) -> float | None:
        """The latency that this share of the answers did not exceed; None without an answer."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None

    @property
    def calls_per_second(self) -> float:
        """Answers in a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def cpu_per_call(self) -> float | None:
        """Seconds of the gateway for one answer."""
        return None if self.cpu is None or not self.latencies else self.cpu / len(self.latencies)


def is_answered(answer: Answer) -> bool:
    """Whether the server said anything at all."""
    return isinstance(answer, Result | RpcError)


def fault_of(answer: Answer) -> str | None:
    """Why an answer is a failure; None where it is not."""
    if isinstance(answer, RpcError):
        return failures.refusal(answer)
    if not isinstance(answer, Result):
        return answer.detail
    if jsonrpc.decode_value(jsonrpc.decode_fields(answer.raw).get("isError", b"false")) is True:
        return "the tool failed (isError)"
    return None


class Connections:
    """Up to `count` sessions with a server, each on a connection of its own, opened and ended side by side.

    Used as an async context manager; `peers` are those that could be opened, and `problem` says why others could not.
    """

    def __init__(self, server: ServerSettings, count: int) -> None:
        self._server = server
        self._count = count
        self._scope = TaskScope()
        self.peers: list[Peer] = []
        self.problem: OpenFailed | None = None

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        try:
            loop = asyncio.get_running_loop()
            tries: list[asyncio.Future[None]] = [loop.create_future() for _ in range(self._count)]
            for number, tried in enumerate(tries, 1):
                self._scope.start(self._hold(tried), f"connection {number}")
            await asyncio.wait(tries)
        except BaseException as error:
            await self._scope.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.__aexit__(kind, error, trace)

    async def _hold(self, tried: asyncio.Future[None]) -> None:
        try:
            async with Peer(self._server) as peer:
                self.peers.append(peer)
                tried.set_result(None)
                await asyncio.Event().wait()  # until the scope ends
        except OpenFailed as error:
            self.problem = self.problem or error
        finally:
            if not tried.done():
                tried.set_result(None)


async def call_for(peers: Sequence[Peer], request: Request, seconds: float, clock: Clock) -> Tally:
    """Call on each connection, again as soon as there is an answer, for `seconds`; once at least.

    A connection on which no answer comes is not used again in this stretch.
    """
    tally = Tally()
    began = clock.now()

    async def caller(peer: Peer) -> None:
        is_answering = True
        while is_answering:
            sent_at = clock.now()
            try:
                answer = await request.ask(peer)
            except TimeoutError:
                tally.failed(f"no answer within {CALL_TIMEOUT:g} s")
                return
            tally.take(answer, clock.now() - sent_at)
            is_answering = is_answered(answer) and clock.now() < began + seconds

    async with asyncio.TaskGroup() as group:
        for peer in peers:
            group.create_task(caller(peer))
    tally.seconds = clock.now() - began
    return tally


async def send_message(server: ServerSettings, request: Request, chat: str | None, clock: Clock) -> Tally:
    """One message of a host that connects for each: connect, initialize, list the tools, call, and end the session.

    The time is that until the answer, for which a person waits.
    """
    tally = Tally()
    began = clock.now()
    with suppress(TimeoutError):
        try:
            async with Peer(server, chat) as peer:
                listed = await peer.list_tools()
                answer = listed if not isinstance(listed, list) else await request.ask(peer)
                tally.take(answer, clock.now() - began)
        except OpenFailed as error:
            tally.failed(str(error))
    if not tally.latencies and not tally.errors:
        tally.failed(f"no answer within {CALL_TIMEOUT:g} s")
    tally.seconds = clock.now() - began
    return tally
