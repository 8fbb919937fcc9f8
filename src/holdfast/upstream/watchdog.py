"""What ends the stdio servers when the gateway cannot: a small process at the far end of a pipe.

PR_SET_PDEATHSIG reaches only direct children, and servers are mostly grandchildren, of `npx` or
`sh`. The watchdog outlives a SIGKILL of the gateway, sees its pipe break, and ends every group
that was registered, then every process that bears the gateway's marker in its environment:
those that left their group, and those that were started but not registered yet.

The gateway imports this module; the watchdog runs it as a script without site-packages, so it
may import nothing at run time but light parts of the standard library.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.clock import Clock

MARKER: Final = "HOLDFAST_WATCHDOG"
"""The environment variable by which the children of one gateway are recognised."""

_TERM_GRACE: Final = 0.3
"""Seconds between SIGTERM and SIGKILL; servers have seen the end of their input by then as well."""
_SCAN_INTERVAL: Final = 0.05
_SCAN_TIMEOUT: Final = 1.5
"""With the grace before it, everything is over within 2 seconds."""
_CLOSE_TIMEOUT: Final = 3.0
_POLL_INTERVAL: Final = 0.01

logger = logging.getLogger("holdfast.watchdog")


class Watchdog:
    """The gateway's side: one per gateway, started with its first child, owned by the gateway.

    It is a second line: where it cannot be started or dies, one warning is logged and servers
    run without it. Not tied to a task; `add` and `discard` take effect at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._id = os.urandom(16).hex()
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()
        self._has_warned = False

    @property
    def marker(self) -> tuple[str, str]:
        """The name and value to put into the environment of every child."""
        return MARKER, self._id

    @property
    def pid(self) -> int | None:
        """The process id of the watchdog, while one was started."""
        return None if self._process is None else self._process.pid

    async def ensure(self) -> None:
        """Start the watchdog unless it runs; one that died is replaced and told of every group."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._warn(f"it ended with status {self._process.returncode}")
            self._release()
        try:
            self._process = self._spawn()
        except (OSError, ValueError) as error:
            self._warn(str(error))
            return
        for group in self._groups:
            self._tell(b"+%d\n" % group)

    def add(self, pgid: int) -> None:
        """Have the process group `pgid` killed when the gateway dies."""
        self._groups.add(pgid)
        self._tell(b"+%d\n" % pgid)

    def discard(self, pgid: int) -> None:
        """Forget `pgid`, whose leader has been reaped: its number may soon be another's."""
        if pgid in self._groups:
            self._groups.discard(pgid)
            self._tell(b"-%d\n" % pgid)

    async def aclose(self) -> None:
        """End the watchdog, which first kills what is left of the children; at most 3 seconds.

        Called when the servers are closed. Cancelled, it leaves the watchdog to end by itself.
        """
        process, self._process = self._process, None
        if process is None:
            return
        _close_input(process)
        end = self._clock.now() + _CLOSE_TIMEOUT
        while process.poll() is None:
            if self._clock.now() >= end:
                process.kill()
                process.wait()
                return
            await self._clock.sleep(_POLL_INTERVAL)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Without our marker: where this gateway is itself a child of another one, that one's
        # watchdog must not kill ours before it is done.
        environment = {name: value for name, value in os.environ.items() if name != MARKER}
        return subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-I", "-S", __file__, self._id],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
        )

    def _tell(self, line: bytes) -> None:
        """Write at once, so that nothing is lost where the gateway is killed in the same instant."""
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line)  # shorter than PIPE_BUF: whole or not at all
        except OSError as error:
            self._warn(str(error))

    def _release(self) -> None:
        if self._process is not None:
            _close_input(self._process)
            self._process = None

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("no watchdog (%s): if the gateway is killed, stdio servers may live on", why)


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


# What follows runs in the watchdog's own process.


def _main(marker_value: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends the whole service must not end us first
    groups = _follow(0)
    _end_groups(groups)
    _end_marked(f"{MARKER}={marker_value}".encode())


def _follow(pipe: int) -> set[int]:
    """Return the groups that are registered when the pipe's other end is gone."""
    groups: set[int] = set()
    rest = b""
    while chunk := os.read(pipe, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line[:1] == b"+":
                groups.add(int(line[1:]))
            else:
                groups.discard(int(line[1:]))
    return groups


def _end_groups(groups: set[int]) -> None:
    alive = _signal_groups(groups, signal.SIGTERM)
    end = time.monotonic() + _TERM_GRACE
    while alive and time.monotonic() < end:
        _wait(_SCAN_INTERVAL)
        alive = _signal_groups(alive, 0)
    _signal_groups(alive, signal.SIGKILL)


def _signal_groups(groups: Iterable[int], number: int) -> set[int]:
    """Signal each group and return those that exist."""
    found: set[int] = set()
    for group in groups:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass  # it exists, but none in it is ours any more
        found.add(group)
    return found


def _end_marked(entry: bytes) -> None:
    """Kill what bears the marker until two scans in a row find nothing.

    Two, because a process shows its marker only from its exec on, a moment after our pipe broke.
    """
    end = time.monotonic() + _SCAN_TIMEOUT
    empty_scans = 0
    while empty_scans < 2 and time.monotonic() < end:
        empty_scans += 1
        for pid in _marked(entry):
            empty_scans = 0
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        _wait(_SCAN_INTERVAL)


def _marked(entry: bytes) -> Iterator[int]:
    """The processes whose environment holds `entry`; none where there is no /proc."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - pathlib would double what the watchdog imports
    except OSError:
        return
    own = os.getpid()
    for name in names:
        if not name.isdigit() or int(name) == own:
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123 - as above
                environment = file.read()
        except OSError:
            continue  # gone, or not ours
        if entry in environment.split(b"\0"):
            yield int(name)


def _wait(seconds: float) -> None:
    select.select((), (), (), seconds)


if __name__ == "__main__":
    _main(sys.argv[1])
