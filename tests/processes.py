"""Processes that a test starts, and that are gone when the test is over."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""The checkout."""

_POLL_INTERVAL: Final = 0.02
_END_TIMEOUT: Final = 5.0
_OUTPUT_TIMEOUT: Final = 60.0
"""For the last words of a program that has ended, and of whoever it started and left."""
_PORTS: Final = iter(random.sample(range(10_000, 30_000), 20_000))
"""Each is given out once. Connections and port 0 get theirs from above: Linux from 32768 on, others from 49152."""


def free_port() -> int:
    """A loopback port that nobody listens on, nor gets by chance before a program that is told it does."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port was given out")


def wait_until(holds: Callable[[], bool], what: str, within: float = 120.0) -> None:
    """Return once `holds` does: for what another process does in its own time, and tells nobody.

    Fails after `within` seconds, saying `what` did not come true.
    """
    end = time.monotonic() + within
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end, f"not so within {within:g} s: {what}"
        pause.wait(_POLL_INTERVAL)


class Process:
    """A running program in a process group of its own; its output is kept, stderr included.

    Made by `start`, which ends it. The waits raise `AssertionError` with the output so far when
    the program ends or `within` seconds pass before they are over.
    """

    def __init__(self, child: subprocess.Popen[str], stdout: IO[str]) -> None:
        self._child = child
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._is_drained = False
        self._reader = threading.Thread(target=self._read, args=(stdout,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The program's process id, which is its group's too."""
        return self._child.pid

    @property
    def output(self) -> str:
        """What the program has written so far."""
        with self._news:
            return "".join(self._lines)

    def is_running(self) -> bool:
        """Whether the program itself has not ended."""
        return self._child.poll() is None

    def has_closed_output(self) -> bool:
        """Whether nobody can write to the output any more: the program and all that it started have ended."""
        with self._news:
            return self._is_drained

    def wait_for_line(self, pattern: str, within: float = 120.0) -> re.Match[str]:
        """The first match of `pattern` in a line of the output, earlier lines included."""
        wanted = re.compile(pattern)
        end = time.monotonic() + within
        seen = 0
        with self._news:
            while True:
                for line in self._lines[seen:]:
                    if match := wanted.search(line):
                        return match
                seen = len(self._lines)
                left = end - time.monotonic()
                if self._is_drained or left <= 0:
                    raise AssertionError(f"no line matched {pattern!r} in:\n{''.join(self._lines)}")
                self._news.wait(left)

    def wait_for_port(self, port: int, within: float = 120.0) -> None:
        """Return once something listens on the loopback `port`."""
        end = time.monotonic() + within
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if not self.is_running() or time.monotonic() > end:
                self._reader.join(
                    0.0 if self.is_running() else _OUTPUT_TIMEOUT
                )  # its last words are still on their way
                raise AssertionError(f"nothing listens on port {port}; the program wrote:\n{self.output}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_POLL_INTERVAL)

    def wait(self, within: float = 120.0) -> int:
        """The exit status of the program, once it has ended and its output is complete."""
        try:
            status = self._child.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within} s; the program wrote:\n{self.output}") from None
        self._reader.join(_OUTPUT_TIMEOUT)
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        self._child.send_signal(number)

    def end(self) -> None:
        """End the whole group: SIGTERM, and SIGKILL for whoever is left after 5 seconds. Idempotent."""
        if self.is_running():
            self._signal_group(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_END_TIMEOUT)
        self._signal_group(signal.SIGKILL)
        self._child.wait()
        self._reader.join(_OUTPUT_TIMEOUT)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._is_drained = True
            self._news.notify_all()


@contextlib.contextmanager
def start(*command: str | Path, environment: Mapping[str, str] | None = None) -> Generator[Process]:
    """Run `command` from the checkout, with `environment` added to our own, until the block is left."""
    argv: Sequence[str] = [str(part) for part in command]
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    assert child.stdout is not None
    process = Process(child, child.stdout)
    try:
        yield process
    finally:
        process.end()
