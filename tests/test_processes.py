"""The helper with which tests start programs: nothing that they start outlives them."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from processes import free_port, start, wait_until

IGNORES_SIGTERM = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
)

WITH_GRANDCHILD = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print("grandchild", child.pid, flush=True)
signal.pause()
"""

LISTENS = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""


def test_a_line_of_output_is_awaited_and_found_again() -> None:
    with start(sys.executable, "-c", "print('one'); print('port 42', flush=True); input()") as process:
        assert process.wait_for_line(r"port (\d+)")[1] == "42"
        assert process.wait_for_line("one")
        assert process.wait() != 0, "input() has nothing to read"
        assert "EOFError" in process.output


def test_a_line_that_never_comes_fails_with_what_came_instead() -> None:
    with (
        start(sys.executable, "-c", "print('no such file')") as process,
        pytest.raises(AssertionError, match="no such file"),
    ):
        process.wait_for_line("ready")


def test_a_free_port_is_given_out_once_and_not_by_the_system() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    first_of_the_system = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < first_of_the_system


def test_what_becomes_true_is_awaited_and_what_does_not_is_named() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), "the third answer")
    with pytest.raises(AssertionError, match="the moon is full"):
        wait_until(lambda: False, "the moon is full", within=0)


def test_a_port_is_awaited() -> None:
    port = free_port()
    with start(sys.executable, "-c", LISTENS, str(port)) as process:
        process.wait_for_port(port)
        assert process.is_running()
        socket.create_connection(("127.0.0.1", port), timeout=60).close()


def test_a_program_that_ends_without_listening_fails_the_wait() -> None:
    with (
        start(sys.executable, "-c", "raise SystemExit('address in use')") as process,
        pytest.raises(AssertionError, match="address in use"),
    ):
        process.wait_for_port(free_port())


def test_an_exit_status_is_awaited() -> None:
    with start(sys.executable, "-c", "raise SystemExit(3)") as process:
        assert process.wait() == 3


def test_a_signal_reaches_the_program() -> None:
    with start(sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()") as process:
        process.wait_for_line("up")
        process.send(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


def test_settings_are_added_to_the_environment() -> None:
    code = "import os; print(os.environ['HOLDFAST_TEST'], 'PATH' in os.environ)"
    with start(sys.executable, "-c", code, environment={"HOLDFAST_TEST": "x"}) as process:
        process.wait_for_line("x True")


def test_nobody_of_the_group_is_left_when_the_block_is() -> None:
    with start(sys.executable, "-c", WITH_GRANDCHILD, IGNORES_SIGTERM) as process:
        process.wait_for_line(r"grandchild \d+")
    assert process.has_closed_output(), "the grandchild still holds the pipe"
