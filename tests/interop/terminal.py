"""A program on a terminal at which a test types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from interop.programs import without_colours
from processes import ROOT

PATIENCE: Final = 120.0


class Terminal:
    """The person's side: what is on the screen, and the keys. The waits fail after `PATIENCE` seconds."""

    def __init__(self, child: subprocess.Popen[bytes], master: int) -> None:
        self._child = child
        self._master = master
        self._written = b""

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._child.pid

    @property
    def raw(self) -> str:
        """All that was written so far, with what moves the cursor."""
        return self._written.decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was written so far, without colours."""
        return without_colours(self.raw)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in what was written; a prompt need not end its line."""
        end = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.text)) is None:
            assert self._read(end), f"{pattern!r} was not written:\n{self.raw}"
        return found

    def type(self, keys: str) -> None:
        """Press keys; a line ends with `\\n`, and `\\x04` is Ctrl-D, `\\x03` Ctrl-C."""
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        """The exit status, once the program has ended and all was read."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        return self._child.wait(max(0.1, end - time.monotonic()))

    def _read(self, end: float) -> bool:
        """Read what is written next; False at the end of the program or of patience."""
        if not select.select([self._master], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # how the kernel says that nobody has the terminal open any more
            return False
        self._written += chunk
        return bool(chunk)


@contextlib.contextmanager
def at_terminal(*command: str | Path, columns: int = 100) -> Generator[Terminal]:
    """Run `command` with a terminal that controls it, so that Ctrl-C is a signal to it; ended with the block."""
    master, slave = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    environment = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
    child = subprocess.Popen(
        [str(part) for part in command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 (one system call, and this process has no threads that hold locks)
    )
    os.close(slave)
    try:
        yield Terminal(child, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        os.close(master)
