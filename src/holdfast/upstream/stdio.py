"""A stdio server as a link: one process is one session of the handshake era.

The process leads a group of its own, so that what `npx` or `sh` started ends with it. Its
group is signalled only until its exit is noticed, and once at that moment: while members are
left the group's number cannot be another's, and later nobody could know.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Final, cast

from holdfast.clock import Clock, Timer
from holdfast.config import MAX_MESSAGE_BYTES
from holdfast.errors import OpenFailed
from holdfast.upstream.stdio_output import STDERR_BYTES, Output, SkippedLines, StderrRing
from holdfast.upstream.stdio_pipes import pipe_from_child, pipe_to_child
from holdfast.upstream.transport import Fault, FaultKind, Receiver, Sent
from holdfast.upstream.watchdog import Watchdog
from holdfast.wire.lines import LineSplitter, Oversized, whole_line

MAX_UNREAD_BYTES: Final = 16 * 1024 * 1024
"""Written and not read by the server; beyond it the server counts as one that does not read."""

_OUTPUTS: Final = frozenset({1, 2})
_DRAIN_TIMEOUT: Final = 0.25
"""For the last answers, where a process that left the group holds the pipe open (threats, row 34)."""
_TERM_TIMEOUT: Final = 1.0
_KILL_TIMEOUT: Final = 1.0
"""SIGKILL takes effect at once unless the process hangs in the kernel; then nobody can help."""

logger = logging.getLogger("holdfast.stdio")


class _State(Enum):
    NEW = auto()
    RUNNING = auto()
    ENDING = auto()
    """The end was noticed; `lost` follows when the last output has been read."""
    SILENT = auto()
    """Closed, terminated or reported lost: the receiver is not called any more."""


_RUNNING: Final = _State.RUNNING


class _Written:
    """What can be done about a request that went into the pipe: nothing.

    All answers of the session share one stdout. To pause it for one slow reader would hold up
    every other call, and the server.
    """

    def cancel(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


_WRITTEN: Final = _Written()


class _Input(asyncio.BaseProtocol):
    """The protocol of stdin, which tells when the process reads no more."""

    def __init__(self, closed: Callable[[], None]) -> None:
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # the exit status says more
        self._closed()


class _ProcessEvents(asyncio.SubprocessProtocol):
    """Hands the loop's callbacks on, so that they are no public methods of the link; the only pipe is stderr."""

    def __init__(
        self,
        *,
        spawned: Callable[[asyncio.SubprocessTransport], None],
        stderr_read: Callable[[bytes], None],
        stderr_closed: Callable[[], None],
        exited: Callable[[], None],
        released: Callable[[], None],
    ) -> None:
        self._spawned = spawned
        self._stderr_read = stderr_read
        self._stderr_closed = stderr_closed
        self._exited = exited
        self._released = released

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._spawned(cast("asyncio.SubprocessTransport", transport))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        del fd
        self._stderr_read(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        del fd, exc
        self._stderr_closed()

    def process_exited(self) -> None:
        self._exited()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._released()


class StdioLink:
    """A `Link` to a process that is started for it; not reusable. Owned by its conversation.

    `env` is added to our own environment, and its values are kept out of every sentence. `lost`
    is reported after the last output was read, at most 0.25 seconds after the end was noticed.
    """

    is_stateless = False

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None,
        clock: Clock,
        watchdog: Watchdog,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        close_timeout: float = 2.0,
    ) -> None:
        self._command = tuple(command)
        self._name = Path(command[0]).name
        self._env = env
        self._cwd = cwd
        self._clock = clock
        self._watchdog = watchdog
        self._close_timeout = close_timeout
        self._state = _State.NEW
        self._receiver: Receiver | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._stdout: asyncio.ReadTransport | None = None
        self._output = Output(self._name, max_message_bytes, partial(self._on_pipe_closed, 1))
        self._open: set[int] = set()
        """The pipes that are open, by their number for the process."""
        self._has_process = False
        """It was started, and neither reaped nor given up."""
        self._released: asyncio.Future[None] | None = None  # done when there is neither
        self._has_served = False
        self._drain_timer: Timer | None = None
        self._stderr = StderrRing(tuple(env.values()))
        self._stderr_lines = LineSplitter(STDERR_BYTES)

    @property
    def skipped(self) -> SkippedLines:
        """The lines of stdout that were no messages."""
        return self._output.skipped

    @property
    def pid(self) -> int | None:
        """The process id, which is its group's too; None before it was started."""
        return None if self._transport is None else self._transport.get_pid()

    @property
    def stderr_tail(self) -> str:
        """The last lines that the process wrote to stderr, without secrets of `env`."""
        return self._stderr.tail

    async def start(self, receiver: Receiver) -> None:
        """Start the process. Raises `OpenFailed`; cancelled or failed, it leaves no process behind."""
        self._receiver = receiver
        await self._watchdog.ensure()
        loop = asyncio.get_running_loop()
        self._released = loop.create_future()
        events = _ProcessEvents(
            spawned=self._on_spawned,
            stderr_read=self._on_stderr,
            stderr_closed=partial(self._on_pipe_closed, 2),
            exited=self._on_exited,
            released=self._on_reaped,
        )
        marker, marker_value = self._watchdog.marker
        environment = {**os.environ, **self._env, marker: marker_value}
        try:
            with ExitStack() as theirs:  # the process has its own by the end of this
                self._stdin, stdin = await pipe_to_child(_Input(partial(self._on_pipe_closed, 0)))
                theirs.callback(os.close, stdin)
                self._open.add(0)
                self._stdout, stdout = await pipe_from_child(self._output)
                theirs.callback(os.close, stdout)
                self._open.add(1)
                self._has_process = True
                await loop.subprocess_exec(
                    lambda: events,
                    *self._command,
                    stdin=stdin,
                    stdout=stdout,
                    env=environment,
                    cwd=self._cwd,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            self.terminate()
            self._on_reaped()  # there is no process to wait for
            raise OpenFailed(_why_not_started(self._command[0], self._cwd, environment, error)) from error
        except BaseException:
            self.terminate()
            raise

    def established(self, protocol_version: str) -> None:
        del protocol_version  # only HTTP has a place for it
        self._has_served = True
        if self._receiver is not None:
            self._receiver.push_stream(True)

    def request(self, request_id: int, message: bytes) -> Sent:
        problem = self._write(message)
        if problem is not None and self._receiver is not None and not self._dies_as_it_starts:
            self._receiver.failed(request_id, Fault(FaultKind.NOT_SENT, problem))
        return _WRITTEN

    def answered_elsewhere(self, request_id: int) -> None: ...

    def post(self, message: bytes) -> None:
        problem = self._write(message)
        if problem is not None:
            logger.debug("a message was dropped: %s", problem)

    async def close(self) -> None:
        """Close stdin, then SIGTERM after `close_timeout` and SIGKILL a second later; all are gone after.

        Cancelled, it kills at once. Never raises anything else.
        """
        self._fall_silent()
        try:
            if self._stdin is not None and self._transport is not None:
                self._stdin.close()
                if not await self._is_released_within(self._close_timeout):
                    self._signal_group(signal.SIGTERM)
                    await self._is_released_within(_TERM_TIMEOUT)
        finally:
            self._drop()
        await self._is_released_within(_KILL_TIMEOUT)

    def terminate(self) -> None:
        self._fall_silent()
        self._drop()

    # Sending.

    def _write(self, message: bytes) -> str | None:
        """Write one line, or return why not."""
        stdin = self._stdin
        if self._state is not _RUNNING or stdin is None:
            return f"{self._name} is not running"
        if stdin.get_write_buffer_size() > MAX_UNREAD_BYTES:
            return f"{self._name} does not read its input"
        try:
            stdin.write(whole_line(message))
        except RuntimeError:  # uvloop's, where its end was seen and is not reported yet; asyncio ignores the write
            return f"{self._name} has ended"
        return None

    # What the loop reports.

    def _on_spawned(self, transport: asyncio.SubprocessTransport) -> None:
        self._transport = transport
        self._watchdog.add(transport.get_pid())
        self._open.add(2)
        if self._state is _State.NEW and self._stdout is not None:
            self._state = _RUNNING
            self._output.report_to(self._receiver)
            self._stdout.resume_reading()
        else:  # terminated while it started
            self._drop()

    def _on_stderr(self, chunk: bytes) -> None:
        self._stderr.feed(chunk)
        if logger.isEnabledFor(logging.DEBUG):
            self._log_stderr(chunk)

    def _log_stderr(self, chunk: bytes) -> None:
        for line in self._stderr_lines.feed(chunk):
            text = self._stderr.readable(line.head if isinstance(line, Oversized) else line)
            logger.debug("%s: %s", self._name, text)

    def _on_pipe_closed(self, fd: int) -> None:
        self._open.discard(fd)
        if fd != 2 or self._state is _State.ENDING:  # a server may close its stderr and serve on
            self._end()
        self._check_released()

    def _on_exited(self) -> None:
        transport = self._transport
        if transport is None:
            return
        pid = transport.get_pid()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._watchdog.discard(pid)
        self._end()

    def _on_reaped(self) -> None:
        self._has_process = False
        self._check_released()

    def _check_released(self) -> None:
        if self._is_released and self._released is not None and not self._released.done():
            self._released.set_result(None)

    # Ending.

    def _end(self) -> None:
        """Take note of a sign of the end, and report it when there is nothing left to read."""
        match self._state:
            case _State.NEW:
                return
            case _State.SILENT:
                if self._has_exited:
                    self._drop()
                return
            case _State.RUNNING:
                self._state = _State.ENDING
                self._drain_timer = self._clock.call_later(_DRAIN_TIMEOUT, self._lose)
            case _State.ENDING:
                pass
        if self._has_exited and self._open.isdisjoint(_OUTPUTS):
            self._lose()

    def _lose(self) -> None:
        if self._state is not _State.ENDING:
            return
        fault = self._obituary()
        self.terminate()
        if self._receiver is not None:
            self._receiver.lost(fault)

    def _obituary(self) -> Fault:
        """Why the process ended. Once it has served somebody, its own words are for the operator alone."""
        status = None if self._transport is None else self._transport.get_returncode()
        if status is None:
            what = f"{self._name} closed its {'output' if 1 not in self._open else 'input'} and was ended"
        elif status < 0:
            what = f"{self._name} was killed by {_signal_name(-status)}"
        else:
            what = f"{self._name} exited with code {status}"
        words = self._stderr.telling_line
        if self._has_served or not words:
            return Fault(FaultKind.GONE, what, remark=words)
        return Fault(FaultKind.GONE, f"{what}: {words}")

    @property
    def _dies_as_it_starts(self) -> bool:
        """`lost` will follow and say why, which is of more use than that nothing could be written."""
        if self._has_served or self._stdin is None:
            return False
        return self._state is _State.ENDING or (self._state is _State.RUNNING and self._stdin.is_closing())

    @property
    def _has_exited(self) -> bool:
        return self._transport is not None and self._transport.get_returncode() is not None

    def _fall_silent(self) -> None:
        if self._state is not _State.SILENT and self.skipped.has_repeats:
            logger.info("%s: lines of stdout that were skipped in this session: %s", self._name, self.skipped)
        self._state = _State.SILENT
        self._output.report_to(None)
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None

    def _drop(self) -> None:
        """Kill the group unless its leader has exited, and close the pipes; the loop reaps it."""
        self._signal_group(signal.SIGKILL)
        stdin = self._stdin
        if stdin is not None and (not stdin.is_closing() or stdin.get_write_buffer_size() > 0):
            stdin.abort()  # a second time, asyncio's fails
        if self._stdout is not None:
            self._stdout.close()
        if self._transport is None:
            return
        stderr = self._transport.get_pipe_transport(2)
        if stderr is not None:
            stderr.close()
        if self._has_exited:  # before that, asyncio's close would take the exit status from its own watcher
            self._transport.close()

    def _signal_group(self, number: signal.Signals) -> None:
        if self._transport is not None and not self._has_exited:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), number)

    @property
    def _is_released(self) -> bool:
        return not self._open and not self._has_process

    async def _is_released_within(self, seconds: float) -> bool:
        released = self._released
        if released is None or self._is_released:
            return True
        over = asyncio.Event()
        timer = self._clock.call_later(seconds, over.set)
        released.add_done_callback(lambda _: over.set())
        try:
            await over.wait()
        finally:
            timer.cancel()
        return released.done()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _why_not_started(program: str, cwd: str | None, environment: Mapping[str, str], error: Exception) -> str:
    """One plain sentence that says what to do."""
    if cwd is not None and not Path(cwd).is_dir():
        return f"{cwd}: the working directory does not exist; create it or correct cwd"
    if isinstance(error, FileNotFoundError):
        if shutil.which(program, path=environment.get("PATH")) is not None:
            return f"{program}: the interpreter in its first line was not found; install it or correct the line"
        return f"{program}: command not found; install it or give its full path"
    if isinstance(error, PermissionError):
        return f"{program}: not executable; make it executable (chmod +x) or name its interpreter first"
    if isinstance(error, OSError):
        if error.errno == errno.ENOEXEC:
            return f"{program}: not a program; name its interpreter first or add a #! line"
        return f"{program}: could not be started: {error.strerror or error}"
    return f"{program}: could not be started: {error}; correct the command or env"
