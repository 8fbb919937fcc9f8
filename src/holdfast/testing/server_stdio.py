"""The scripted server over stdio: the process is the session, a message is a line."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Final

from holdfast.testing.server_core import ServerCore, Session
from holdfast.testing.server_methods import initialize_result, receive
from holdfast.testing.server_modern_faces import is_modern, take_line
from holdfast.wire import jsonrpc

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
SESSION_ID: Final = "stdio"


class Pipe:
    """The `Outlet` of everything: standard output."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    @property
    def has_reader(self) -> bool:
        return not self._transport.is_closing()

    def send(self, message: bytes) -> None:
        self._transport.writelines((jsonrpc.one_line(message), b"\n"))

    def answer(self, message: bytes | None, then: list[Callable[[], None]]) -> None:
        if message is not None:
            self.send(message)
        for callback in then:
            callback()

    def hang_up(self) -> None:
        """Do nothing: a pipe cannot be resumed."""


async def serve(core: ServerCore) -> None:
    """Serve one client until standard input ends; `stubborn`, until the process is killed."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, sys.stdout)
    if core.options.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe = Pipe(transport)
    running: dict[bytes, Session] = {}
    while line := await lines.readline():
        if not line.strip():
            continue
        if is_modern(core, line):
            take_line(core, line, pipe, running)
        else:
            await _take(core, line, pipe)
    if core.options.stubborn:
        await asyncio.Event().wait()


async def _take(core: ServerCore, line: bytes, pipe: Pipe) -> None:
    try:
        received = jsonrpc.decode_client(line)
    except jsonrpc.BadMessage as bad:
        pipe.send(jsonrpc.error(jsonrpc.id_bytes(bad.request_id), jsonrpc.error_object(bad.code, bad.message)))
        return
    for message in received if isinstance(received, list) else [received]:
        session = core.sessions.get(SESSION_ID)
        if isinstance(message, jsonrpc.ClientRequest) and message.method == "initialize":
            await _initialize(core, message, pipe)
        elif session is not None:
            receive(core, session, message, pipe)
        elif isinstance(message, jsonrpc.ClientRequest):
            refusal = jsonrpc.error_object(jsonrpc.INVALID_REQUEST, "Not initialized")
            pipe.send(jsonrpc.error(jsonrpc.id_bytes(message.id), refusal))


async def _initialize(core: ServerCore, request: jsonrpc.ClientRequest, pipe: Pipe) -> None:
    session: Session = await core.open_session(request.params, SESSION_ID)
    session.push = pipe
    core.record(session, "request", request.method, request.params).outcome = "executed"
    pipe.send(jsonrpc.result(jsonrpc.id_bytes(request.id), jsonrpc.encode(initialize_result(session))))
