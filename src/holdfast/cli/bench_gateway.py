"""The gateway that `holdfast bench` measures: a process of its own, whose CPU time is thus Holdfast's alone.

Both ends of the pipe between the two are here. The settings come on standard input, so that no secret stands in a
command line; each further line is answered with what the process has used; the end of the input ends it, also when
whoever started it was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from types import TracebackType
from typing import Final, Self

import msgspec
from rich.console import Console

from holdfast import events
from holdfast.cli import serving
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.gateway import Gateway
from holdfast.observe.terminal import set_up_logging

START_TIMEOUT: Final = 30.0
END_TIMEOUT: Final = 6.0
"""Seconds; a gateway ends within five."""
_SECRETS: Final = ("headers", "env")


class GatewayFailed(Exception):
    """The gateway did not start, or ended while it was measured."""


class Usage(msgspec.Struct, frozen=True):
    """What a gateway has used since it started."""

    cpu: float
    """Seconds, user and system, without those of a server that it started."""
    opened: int
    """Sessions with the server."""


class GatewayProcess:
    """A gateway in front of `server`, within its async context; entering raises `GatewayFailed`.

    Leaving ends it and its sessions in order, and by force where that takes more than `END_TIMEOUT`.
    """

    def __init__(self, server: ServerSettings) -> None:
        self._server = server

    async def __aenter__(self) -> Self:
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, and we end it
        )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                self._port = int(await self._ask(encode(self._server)))
        except BaseException as error:
            await self._end()
            if isinstance(error, TimeoutError):
                raise GatewayFailed(f"the gateway did not start within {START_TIMEOUT:g} s") from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def url(self) -> str:
        """Its MCP endpoint."""
        return f"http://127.0.0.1:{self._port}/mcp"

    async def usage(self) -> Usage:
        """What it has used until now. Raises `GatewayFailed`."""
        return msgspec.json.decode(await self._ask(b""), type=Usage)

    async def _ask(self, line: bytes) -> bytes:
        stdin, stdout = self._child.stdin, self._child.stdout
        if stdin is None or stdout is None:
            raise GatewayFailed("there are no pipes to the gateway")
        with contextlib.suppress(ConnectionError):  # what it has written before says more
            stdin.write(line + b"\n")
            await stdin.drain()
        if not (answer := await stdout.readline()):
            raise GatewayFailed("the gateway has ended; what it wrote stands above")
        return answer

    async def _end(self) -> None:
        try:
            if self._child.stdin is not None:
                self._child.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT):
                    await self._child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
        await self._child.wait()


def encode(server: ServerSettings) -> bytes:
    """A server's settings as one line, secrets included."""
    fields = server.model_dump(mode="json", exclude=set(_SECRETS))
    for name in _SECRETS:
        fields[name] = {key: value.get_secret_value() for key, value in getattr(server, name).items()}
    # Half surrogate pairs, which stand for bytes that are no UTF-8, pass as escapes.
    return json.dumps(fields).encode()


def decode(line: bytes) -> ServerSettings:
    """The settings that `encode` made a line of."""
    return ServerSettings.model_validate(json.loads(line))


class _Counted:
    """Counts the sessions that were opened."""

    def __init__(self) -> None:
        self.opened = 0

    def take(self, event: events.Event) -> None:
        if isinstance(event, events.SessionReady):
            self.opened += 1


def _say(line: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the end of the input comes, too
        os.write(sys.stdout.fileno(), line + b"\n")


def main() -> None:
    """Serve what standard input says, on any free port of this machine, until it ends."""
    server = decode(sys.stdin.buffer.readline())
    set_up_logging(Console(stderr=True, highlight=False), "error")
    settings = GatewaySettings(port=0, clients=(ClientSettings(name="local"),), servers=(server,))
    counted = _Counted()
    listener = serving.bind(settings.host, settings.port, "")

    def asked() -> None:
        lines = os.read(sys.stdin.fileno(), 4096)
        for _ in range(lines.count(b"\n")):
            _say(msgspec.json.encode(Usage(time.process_time(), counted.opened)))
        if not lines:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            signal.raise_signal(signal.SIGTERM)

    def started() -> None:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), asked)
        _say(b"%d" % listener.getsockname()[1])

    serving.run(settings, Gateway(settings, emit=counted.take), listener, started, lambda: None)


if __name__ == "__main__":
    main()
