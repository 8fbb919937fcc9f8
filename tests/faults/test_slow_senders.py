"""Clients that send their requests drop by drop (threats, row 29): given up in time, and in nobody's way."""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import Final

from faults.raw_http import RawConnection, post, raw_connection
from faults.twins import compared, running, twins
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

DRIPPERS: Final = 1_000
"""Half of them drip heads, half bodies."""
KIB: Final = 1024
HEAD: Final = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nx-drip: "
BODY: Final = post(b"", [("content-length", "1000")])


class Dripper:
    """A client that begins a request, goes on with it byte by byte, and begins another when it is given up."""

    def __init__(self, port: int, beginning: bytes) -> None:
        self.given_up = 0
        self._port = port
        self._beginning = beginning
        self._connection: RawConnection | None = None

    def drip(self) -> None:
        """Send a byte."""
        if self._connection is not None:
            self._connection.write(b"x")

    async def run(self) -> None:
        """Begin again and again, for good."""
        while True:
            async with raw_connection(self._port) as connection:
                connection.write(self._beginning)
                self._connection = connection
                answer = await connection.answer()
                self._connection = None
                assert (answer.status, answer.closes) == (408, True)
                self.given_up += 1


@row(29)
@requirement("faults:slow:senders")
async def test_a_thousand_who_send_drop_by_drop_are_given_up_and_slow_down_nobody(figure: Figure) -> None:
    async with ScriptedServer() as server, twins(running(server.url)) as (hurt, spared), asyncio.TaskGroup() as group:
        before = hurt.resident()
        drippers = [Dripper(hurt.port, HEAD if number % 2 else BODY) for number in range(DRIPPERS)]
        dripping = [group.create_task(dripper.run()) for dripper in drippers]
        grown = 0
        for dripper in cycle(drippers):
            await hurt.call()
            await spared.call()
            dripper.drip()
            if dripper is drippers[-1]:
                grown = max(grown, hurt.resident() - before)
                if all(each.given_up for each in drippers):
                    break
        for task in dripping:
            task.cancel()
        assert grown < DRIPPERS * 64 * KIB
        refused = sum(dripper.given_up for dripper in drippers)
        figure(
            f"{DRIPPERS:,} connections that drip heads and bodies, {refused:,} times given up:"
            f" {compared(hurt, spared)}; {grown / DRIPPERS / KIB:.0f} KiB each"
        )
