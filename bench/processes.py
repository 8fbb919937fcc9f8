"""Programs that a measurement starts, and what the kernel says of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, TypeAlias

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_END_TIMEOUT: Final = 5.0
_POLL_INTERVAL: Final = 0.002


Command: TypeAlias = "list[str | Path]"


class BenchError(Exception):
    """A measurement cannot be made."""


class Missing(BenchError):
    """A gateway is not there to be measured."""


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def start(
    command: Sequence[str | Path], *, log: Path, stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> Generator[subprocess.Popen[str]]:
    """Run `command`, and what it starts, until the block is left; what it does not write to a pipe goes to `log`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("a") as file:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=stdin,
            stdout=file if stdout is None else stdout,
            stderr=file,
            text=True,
            start_new_session=True,  # some gateways leave what they have started behind
            env=environment,  # with it unset: who compiles at each start looks slower than it is
        )
    try:
        yield child
    finally:
        _end_group(child)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _end_group(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_END_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def wait_for_port(child: subprocess.Popen[str], port: int, *, within: float = 15.0) -> None:
    """Return once something listens on the loopback `port`. Raises `BenchError`."""
    end = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if has_ended(child, within=_POLL_INTERVAL) or time.monotonic() > end:
            raise BenchError(f"nothing listens on port {port}: {child.args!r}")


def has_ended(child: subprocess.Popen[str], *, within: float) -> bool:
    """Whether the program has ended, or does so `within` seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(within)
        return True
    return False


def read_line(pipe: IO[str] | None, program: str) -> str:
    """The next line that `program` writes. Raises `BenchError` where it has ended instead."""
    if pipe is None or not (line := pipe.readline()):
        raise BenchError(f"{program} ended early; see its log in bench/build")
    return line.strip()


def cpu_seconds(pid: int, *, without: Path | None = None) -> float:
    """CPU time, user and system, of a process, of those it started, and of those it started that have ended.

    Living processes of the program `without` do not count.
    """
    processes = _processes()
    members = _members(pid, processes, without)
    return sum(processes[member].ticks for member in members) / _TICKS_PER_SECOND


def rss_bytes(pid: int, *, without: Path | None = None) -> int:
    """Resident memory of a process and of those it started; pages that they share count for each.

    Processes of the program `without` do not count.
    """
    total = 0
    for member in _members(pid, _processes(), without):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int(Path(f"/proc/{member}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE")


class Stat:
    """What /proc/PID/stat says: the parent, and the CPU ticks of the process and of its ended children."""

    __slots__ = ("parent", "ticks")

    def __init__(self, line: str) -> None:
        # The second field, the name in parentheses, may itself contain spaces and parentheses.
        fields = line.rpartition(")")[2].split()
        self.parent = int(fields[1])
        self.ticks = sum(int(ticks) for ticks in fields[11:15])


def family(pid: int, processes: Mapping[int, Stat]) -> set[int]:
    """`pid` and all its living descendants."""
    if pid not in processes:
        raise BenchError(f"process {pid} has ended")
    members = {pid}
    while True:
        children = {child for child, stat in processes.items() if stat.parent in members}
        if children <= members:
            return members
        members |= children


def _members(pid: int, processes: Mapping[int, Stat], without: Path | None) -> set[int]:
    members = family(pid, processes)
    return members if without is None else {member for member in members if not _runs(member, without)}


def _runs(pid: int, program: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/exe").readlink() == program
    return False


def _processes() -> dict[int, Stat]:
    found: dict[int, Stat] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 (names, some hundred, while others are measured)
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[int(entry)] = Stat(Path(f"/proc/{entry}/stat").read_text())
    return found
