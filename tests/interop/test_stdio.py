"""`holdfast stdio` as desktop clients and scripts meet it."""

# pyright: reportDeprecated=false
# The handshake era is what is tested.

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interop.programs import (
    HOLDFAST,
    PATIENCE,
    TEST_SERVER_STDIO,
    descendants,
    living,
    sdk_client_of,
    shipped_server,
    text_of,
    wait_for_the_end_of,
)
from processes import ROOT
from requirements import requirement

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


def tool(number: int, name: str, **arguments: Any) -> bytes:
    """A call of a tool, as a line."""
    params = {"name": name, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode() + b"\n"


def answers(output: bytes) -> dict[int, Any]:
    """The results and errors of a script, by id; there is nothing else."""
    messages = [json.loads(line) for line in output.splitlines()]
    return {message["id"]: message.get("result", message.get("error")) for message in messages}


def run(
    *arguments: str, given: bytes = b"", stdin: int | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """The end of `holdfast stdio`, which reads `given`, or the descriptor `stdin`."""
    command = [str(HOLDFAST), "stdio", *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin is None else stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        try:
            out, err = process.communicate(given if stdin is None else None, PATIENCE)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@contextlib.contextmanager
def started(*arguments: str) -> Generator[subprocess.Popen[bytes]]:
    """A process that waits for lines, in a session of its own; whatever is left of it is killed at the end."""
    process = subprocess.Popen(
        [str(HOLDFAST), "stdio", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    family: set[int] = set()
    try:
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(tool(1, "count"))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["result"]["content"][0]["text"] == "1"
            family = {process.pid, *descendants(process.pid)}
            assert len(family) >= 3, "the server and the watchdog"
            yield process
            process.stdin.close()
            process.wait(PATIENCE)
    finally:
        for pid in living(family):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def settings(tmp_path: Path) -> Generator[Path]:
    with shipped_server() as url:
        path = tmp_path / "holdfast.yaml"
        servers = {"local": {"command": list(TEST_SERVER_STDIO)}, "remote": {"url": url}}
        clients = {"host": {"key": "sesame", "servers": ["remote"]}}
        path.write_text(yaml.safe_dump({"listen": "127.0.0.1:1", "clients": clients, "servers": servers}))
        yield path


@requirement("interop:stdio:sdk")
async def test_the_servers_of_a_file_are_one_to_the_client_that_starts_it(settings: Path) -> None:
    async with sdk_client_of("stdio", settings) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"local__count", "remote__count"} <= names
        for count in ("1", "2"):
            assert text_of(await client.call_tool("local__count", {})) == count
            assert text_of(await client.call_tool("remote__count", {})) == count


@requirement("stdio:end:what-was-asked-is-answered")
@requirement("stdio:wire:stdout-is-for-messages")
def test_a_script_pipes_requests_in_and_gets_the_answers() -> None:
    with shipped_server() as url:
        for target in ((url,), ("--", *TEST_SERVER_STDIO)):
            done = run(*target, given=tool(1, "count") + tool(2, "count").rstrip())
            assert done.returncode == 0
            assert [answer["content"][0]["text"] for _, answer in sorted(answers(done.stdout).items())] == ["1", "2"]
            assert b"on stdin and stdout" in done.stderr


@requirement("stdio:end:what-was-asked-is-answered")
def test_files_do_for_pipes(tmp_path: Path) -> None:
    given, got = tmp_path / "in", tmp_path / "out"
    given.write_bytes(PING + tool(2, "big", bytes=100_000))
    with given.open("rb") as stdin, got.open("wb") as stdout:
        done = run("--", *TEST_SERVER_STDIO, stdin=stdin.fileno(), stdout=stdout.fileno())
    assert done.returncode == 0
    assert answers(got.read_bytes()).keys() == {1, 2}
    with Path(os.devnull).open("rb") as stdin:
        assert run("--", *TEST_SERVER_STDIO, stdin=stdin.fileno()).stdout == b""


@requirement("stdio:end:what-was-asked-is-answered")
def test_a_result_of_16_mib_passes_to_a_reader_who_takes_its_time() -> None:
    size = 16 * 1024 * 1024 - 1000  # with what is around it, the most that one message may be
    with started("--", *TEST_SERVER_STDIO) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(tool(2, "big", bytes=size) + PING)
        process.stdin.close()
        first, second = sorted((process.stdout.readline(), process.stdout.readline()), key=len)
        assert answers(first) == {1: {}}
        assert len(answers(second)[2]["content"][0]["text"]) == size
        assert process.stdout.read() == b""
        assert process.wait(PATIENCE) == 0


@requirement("stdio:wire:stdout-is-for-messages")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a server"),
        (("absent.yaml",), "absent.yaml: cannot be read"),
        (("absent",), "a server's command comes after --"),
        (("a", "b"), "one word too many"),
        (("--", "no-such-program"), "command not found"),
        (("--scope", "all", "http://127.0.0.1:1/mcp"), "--scope takes"),
        (("--header", "x=y", "--", "cat"), "--header is for servers at a URL"),
        (("--log-level", "loud", "--", "cat"), "--log-level is"),
        (("--port", "1", "--", "cat"), "no such option: --port"),
        (("ftp://127.0.0.1/mcp",), "no http:// or https:// URL"),
    ],
)
def test_a_mistake_is_a_line_on_stderr(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_options_of_one_server_do_not_go_with_a_file(settings: Path) -> None:
    done = run("--scope", "user", str(settings))
    assert (done.returncode, done.stdout) == (2, b"")
    assert "the file says it" in done.stderr.decode()


@requirement("stdio:end:in-order-and-soon")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("server", [TEST_SERVER_STDIO, (*TEST_SERVER_STDIO, "--stubborn")], ids=["", "stubborn"])
def test_a_signal_ends_it_and_answers_what_runs(number: signal.Signals, server: tuple[str, ...]) -> None:
    with started("--", *server) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        family = descendants(process.pid)
        process.stdin.write(tool(2, "slow", gate="never") + PING)
        process.stdin.flush()
        assert answers(process.stdout.readline()) == {1: {}}
        process.send_signal(number)
        assert answers(process.stdout.readline())[2]["code"] in {-31001, -31002}
        assert process.wait(PATIENCE) == 0
        wait_for_the_end_of(family)


@requirement("stdio:end:in-order-and-soon")
def test_a_client_that_is_killed_leaves_no_child() -> None:
    script = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen({[str(HOLDFAST), 'stdio', '--', *TEST_SERVER_STDIO]!r}, stdin=-1, stdout=-1)\n"
        f"p.stdin.write({tool(1, 'count')!r}); p.stdin.flush()\n"
        "p.stdout.readline()\n"
        f"p.stdin.write({tool(2, 'slow', gate='never')!r}); p.stdin.flush()\n"
        "print('asked', flush=True); sys.stdin.read()\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    family: set[int] = set()
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"asked\n"
        family = descendants(client.pid)
        assert len(family) >= 3
        client.kill()
        wait_for_the_end_of(family)
    finally:
        for pid in living(family):
            os.kill(pid, signal.SIGKILL)
        with client:
            client.kill()


@requirement("stdio:end:in-order-and-soon")
def test_it_ends_when_nobody_reads_its_output_any_more() -> None:
    with started("--", *TEST_SERVER_STDIO) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        family = descendants(process.pid)
        process.stdin.write(tool(2, "slow", gate="never"))
        process.stdin.flush()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        wait_for_the_end_of(family)


@requirement("stdio:end:in-order-and-soon")
def test_killed_itself_it_leaves_no_child() -> None:
    with started("--", *TEST_SERVER_STDIO, "--stubborn") as process:
        family = descendants(process.pid)
        process.kill()
        wait_for_the_end_of(family)
