"""What is asked of gateways: each workload is a closed loop of one kind of request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FEW_TOOLS: Final = 10
MANY_TOOLS: Final = 200
RESULT_BYTES: Final = 100_000
PROGRESS_EVENTS: Final = 5


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request, sent again on each connection as soon as it is answered."""

    name: str
    title: str
    connections: int
    options: tuple[str, ...] = ()
    """The load generator's."""
    tools: int = FEW_TOOLS
    """That the server has."""
    is_stdio: bool = False
    """The server is a child of the gateway."""
    is_basic: bool = False
    """It is done by all gateways, however slow."""
    is_large: bool = False
    """Answers outgrow the buffers that a relay has by default."""
    asks_server: bool = True
    """A gateway that keeps lists may answer without asking the server."""


WORKLOADS: Final[dict[str, Workload]] = {
    workload.name: workload
    for workload in (
        Workload("call-1", "small call, 1 connection", 1, is_basic=True),
        Workload("call-32", "small call, 32 connections", 32, is_basic=True),
        Workload("result", "100 KB result", 8, ("--size", str(RESULT_BYTES)), is_large=True),
        Workload("progress", "event stream with 5 reports of progress", 8, ("--events", str(PROGRESS_EVENTS))),
        Workload(
            "slow-progress",
            "event stream with 5 reports of progress, 1 ms apart",
            32,
            ("--events", str(PROGRESS_EVENTS), "--pause", "1"),
        ),
        Workload(
            "list",
            "list of 200 tools",
            8,
            ("--tools", str(MANY_TOOLS)),
            tools=MANY_TOOLS,
            is_large=True,
            asks_server=False,
        ),
        Workload("stdio-1", "small call of a stdio server, 1 connection", 1, is_stdio=True),
        Workload("stdio-32", "small call of a stdio server, 32 connections", 32, is_stdio=True),
    )
}
"""In the order of each round. Those that differ in the server have gateways of their own."""

IDLE: Final = "idle"
RECONNECTING: Final = "reconnecting"
START: Final = "start"
ALL: Final = (*WORKLOADS, IDLE, RECONNECTING, START)
