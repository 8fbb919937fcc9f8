"""The programs of the demonstration: the shipped test server, and `holdfast run` in front of it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

USER_HEADER: Final = "x-demo-user"
CHAT_HEADER: Final = "x-demo-chat"

_START_TIMEOUT: Final = 20.0
_END_TIMEOUT: Final = 6.0
"""Seconds: both programs end by themselves within 5."""


class DemoFailed(Exception):
    """The demonstration could not be given; the text says why."""


@contextmanager
def stateful_server(open_delay: float) -> Generator[str]:
    """A server that remembers per session and takes `open_delay` seconds to open one; yields its URL."""
    with _program("holdfast.testing.server", "--open-delay", str(open_delay)) as child:
        yield _wait_for(child, r"(http://\S+)")


@contextmanager
def gateway(url: str) -> Generator[str]:
    """`holdfast run` in front of the server at `url`, once it knows what that offers; yields its URL."""
    trust = f"user={USER_HEADER},chat={CHAT_HEADER}"
    options = ("--name", "demo", "--port", "0", "--trust", trust, "--log-level", "error")
    with _program("holdfast", "run", url, *options) as child:
        found = _wait_for(child, r"(http://\S+/mcp) ")
        _wait_for(child, r"(ready) in ")
        yield found


@contextmanager
def _program(module: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run a Python module until the block is left."""
    child = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(_END_TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()


def _wait_for(child: subprocess.Popen[str], pattern: str) -> str:
    """What the first line that matches `pattern` says. Raises `DemoFailed` with the lines before it."""
    said: list[str] = []
    # A program that never says it is ended, and the reading sees the end of its output.
    timer = threading.Timer(_START_TIMEOUT, child.kill)
    timer.start()
    try:
        for line in child.stdout or ():
            if match := re.search(pattern, line):
                return match.group(1)
            said.append(line)
    finally:
        timer.cancel()
    raise DemoFailed(f"a program of the demo did not start; it said:\n{''.join(said)}")
