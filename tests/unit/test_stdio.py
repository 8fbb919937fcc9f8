"""A stdio server as a link: framing, faults and endings, with real processes on both event loops."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import OpenFailed
from holdfast.upstream.stdio_output import STDERR_BYTES, StderrRing
from holdfast.upstream.transport import FaultKind
from holdfast.wire.lines import LineSplitter, Oversized
from stdio_rig import (
    Inbox,
    PatientClock,
    descriptors,
    is_alive,
    link_to,
    none_alive,
    on_both_loops,
    python,
    reaped,
    running,
)

ECHO = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
"""

STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"pid":%d}' % os.getpid(), flush=True)
while True:
    signal.pause()
"""


# Lines


@given(
    st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    st.lists(st.integers(1, 7), min_size=1),
)
def test_lines_are_the_same_however_the_bytes_arrive(lines: list[bytes], sizes: list[int]) -> None:
    splitter = LineSplitter(12)
    stream = b"".join(line + b"\n" for line in lines)
    found: list[bytes | Oversized] = []
    for chunk in _chunks(stream, sizes):
        found += splitter.feed(chunk)
    assert [line if isinstance(line, bytes) else None for line in found] == [
        line if len(line) <= 12 else None for line in lines
    ]


def _chunks(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = turn = 0
    while start < len(stream):
        size = sizes[turn % len(sizes)]
        yield stream[start : start + size]
        start, turn = start + size, turn + 1


@pytest.mark.timeout(20)  # copying the line at every chunk would move 256 GiB
def test_a_line_in_very_many_chunks_is_put_together_once() -> None:
    splitter = LineSplitter(1 << 23)
    for _ in range(1 << 18):
        splitter.feed(b"x" * 8)
    assert splitter.feed(b"\n") == [b"x" * (1 << 21)]


@pytest.mark.parametrize("size", [1, 5000, 1 << 20])
def test_the_edges_of_a_dropped_line_are_kept(size: int) -> None:
    line = b"a" * 5000 + b"-" * 100_000 + b"z" * 5000
    splitter = LineSplitter(16384)
    found = [part for chunk in _chunks(line + b"\n[]\n", [size]) for part in splitter.feed(chunk)]
    assert found == [Oversized(b"a" * 4096, b"z" * 4096), b"[]"]


@pytest.mark.parametrize(
    ("head", "tail", "answered"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"content":[', b"]}}", 7),
        (b'{"id": 7, "jsonrpc": "2.0", "error": {"message":"', b'"}}', 7),
        (b'{"result":{"id":3,', b'"id":4},"jsonrpc":"2.0","id":7}', 7),
        (b'{"jsonrpc":"2.0","result":{"', b'x"},"id":7}\r', 7),
        (b'{"jsonrpc":"2.0","id":7,"result":{"method":"GET",', b"}}", 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{', b"}}", None),
        (b'{"method":"sampling/createMessage","params":{', b'},"jsonrpc":"2.0","id":7}', None),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":{"id":7,', b"}}", None),
        (b'{"jsonrpc":"2.0","id":"7","result":{', b"}}", None),
        (b'{"jsonrpc":"2.0","id":7.5,"result":{', b"}}", None),
        (b'{"result":{"', b'","id":7}}', None),
        (b'{"result":{"text":"', b'\\"id\\":7}"}', None),
        (b"no json at all", b'"id":7}', None),
    ],
)
def test_a_dropped_answer_is_known_by_its_envelope_only(head: bytes, tail: bytes, answered: int | None) -> None:
    assert Oversized(head, tail).answered_id == answered


def test_stderr_is_kept_up_to_its_bound_without_secrets_and_control_characters() -> None:
    ring = StderrRing(["hunter2-hunter2", "1"])
    for _ in range(100):
        ring.feed(b"x" * 5000)
    assert ring.tail == "x" * STDERR_BYTES
    ring.feed(b"\n\x1b[31mError 1:\x07 key hunter2-hunter2 \xff\x1b[0m\r\n\n")
    assert ring.telling_line == "Error 1:  key *** \N{REPLACEMENT CHARACTER}"


# The pipe


@on_both_loops
async def test_what_is_sent_comes_back() -> None:
    async with running(*python(ECHO)) as (link, inbox):
        link.established("2025-11-25")
        sent = link.request(1, b'{"id":1,\r\n"method":"a"}')
        sent.pause()
        link.post(b'{"method":"b"}')
        assert await inbox.messages.get() == b'{"id":1,"method":"a"}'
        assert await inbox.messages.get() == b'{"method":"b"}'
        assert inbox.pushes == [True]


@on_both_loops
async def test_what_is_sent_is_one_line_to_every_reader() -> None:
    async with running(*python(ECHO)) as (link, inbox):
        link.post('{"method":"a\u2028b\u2029c\u2027"}'.encode())
        assert await inbox.messages.get() == rb'{"method":"a\u2028b\u2029c' + '\u2027"}'.encode()


@on_both_loops
async def test_extra_environment_marker_and_own_group_reach_the_process() -> None:
    script = """
import json, os
env = os.environ
print(json.dumps([env["EXTRA"], env["PATH"], "HOLDFAST_WATCHDOG" in env, os.getpgrp() == os.getpid()]), flush=True)
input()
"""
    async with running(*python(script), env={"EXTRA": "here"}) as (_, inbox):
        assert await inbox.messages.get() == f'["here", "{os.environ["PATH"]}", true, true]'.encode()


@on_both_loops
async def test_an_answer_over_the_limit_fails_its_request_alone() -> None:
    script = """
import sys
big = b"x" * 300_000
sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":1,"result":{"text":"' + big + b'"}}\\n')
sys.stdout.buffer.write(b'{"result":{"text":"' + big + b'"},"jsonrpc":"2.0","id":2}\\n')
sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"text":"' + big + b'"}}\\n')
sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":3,"result":{}}\\n')
sys.stdout.buffer.flush()
input()
"""
    async with running(*python(script), max_message_bytes=200_000) as (link, inbox):
        assert await inbox.messages.get() == b'{"jsonrpc":"2.0","id":3,"result":{}}'
        failures = [inbox.failures.get_nowait() for _ in range(inbox.failures.qsize())]
        assert [(request_id, fault.kind) for request_id, fault in failures] == [
            (1, FaultKind.INVALID),
            (2, FaultKind.INVALID),
        ]
        assert "too large" in failures[0][1].detail
        assert link.skipped.oversized == 3
        assert inbox.losses == []


@on_both_loops
async def test_an_answer_that_is_no_utf8_fails_its_request_at_once() -> None:
    script = """
import sys
sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":1,"result":{"text":"\\xff"}}\\n{"method":"\\xff","id":2}\\n[1]\\n')
sys.stdout.buffer.flush()
input()
"""
    async with running(*python(script)) as (link, inbox):
        assert await inbox.messages.get() == b"[1]"
        request_id, fault = inbox.failures.get_nowait()
        assert (request_id, fault.kind) == (1, FaultKind.INVALID)
        assert "no UTF-8" in fault.detail
        assert inbox.failures.empty()
        assert link.skipped.undecodable == 2


@on_both_loops
async def test_junk_and_broken_utf8_are_skipped_and_counted() -> None:
    script = """
import sys
out = sys.stdout.buffer
out.write(b"Server listening...\\n\\n \\r\\n" + b"debug\\n" * 3)
out.write(b'{"text":"\\xff"}\\n{"text":"\\xc3\\xa9"}\\r\\n  [1]\\n')
out.flush()
input()
"""
    async with running(*python(script)) as (link, inbox):
        assert await inbox.messages.get() == '{"text":"é"}'.encode()
        assert await inbox.messages.get() == b"[1]"
        assert (link.skipped.junk, link.skipped.undecodable) == (4, 1)


def test_the_first_skipped_line_of_a_kind_is_logged_and_a_summary_follows(caplog: pytest.LogCaptureFixture) -> None:
    script = """
import sys
out = sys.stdout.buffer
out.write(b"canary\\n" * 3 + b'{"canary":"\\xff"}\\n' + b'["canary' + b"x" * 9000 + b'"]\\n')
out.write(b"[1]\\ncanary\\n[2]\\n")
out.flush()
input()
"""
    caplog.set_level(logging.INFO, "holdfast.stdio")

    async def run() -> None:
        async with asyncio.timeout(60), running(*python(script), max_message_bytes=8192) as (link, inbox):
            while await inbox.messages.get() != b"[2]":
                pass
            assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
            await link.close()
            link.terminate()

    asyncio.run(run())
    name, no_json = Path(sys.executable).name, "no JSON (a program that speaks MCP over stdio should log to stderr)"
    assert [record.getMessage() for record in caplog.records] == [
        f"{name} wrote a line to stdout that is {no_json}: it was skipped",
        f"{name} wrote a line to stdout that is no UTF-8: it was skipped",
        f"{name} wrote a line to stdout that is larger than 8192 bytes: it was skipped",
        f"{name}: lines of stdout that were skipped in this session: 4 no JSON, 1 no UTF-8, 1 too large",
    ]
    assert "canary" not in caplog.text


def test_a_single_skipped_line_needs_no_summary(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.stdio")

    async def run() -> None:
        async with asyncio.timeout(60), running(*python('print("Hello\\n[1]", flush=True); input()')) as (_, inbox):
            await inbox.messages.get()

    asyncio.run(run())
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@on_both_loops
async def test_a_server_that_does_not_read_fails_requests_unsent() -> None:
    async with running(*python(STUBBORN)) as (link, inbox):
        await inbox.messages.get()
        message = b'{"text":"' + b"x" * (1 << 20) + b'"}'
        for number in range(18):
            link.request(number, message)
        request_id, fault = inbox.failures.get_nowait()
        assert (request_id, fault.kind) == (17, FaultKind.NOT_SENT)
        assert "does not read its input" in fault.detail
        link.post(b'{"method":"a"}')
        assert inbox.failures.empty()
        assert inbox.losses == []


@on_both_loops
async def test_nothing_is_delivered_after_the_receiver_terminated_the_link() -> None:
    script = 'print(\'{"n":1}\\n{"n":2}\', flush=True); input()'
    link, inbox = link_to(*python(script)), Inbox()
    inbox.on_received = lambda _: link.terminate()
    await link.start(inbox)
    assert await inbox.messages.get() == b'{"n":1}'
    await link.close()
    assert inbox.messages.empty()
    assert inbox.losses == []


# The end


@on_both_loops
async def test_a_crash_is_reported_once_with_the_status_and_the_last_words() -> None:
    script = """
import sys
print('{"last":"answer"}', flush=True)
print("loading", file=sys.stderr)
print("boom: token-12345678 is bad", file=sys.stderr)
sys.exit(3)
"""
    async with running(*python(script), env={"TOKEN": "token-12345678"}) as (link, inbox):
        await inbox.is_lost.wait()
        [fault] = inbox.losses
        assert fault.kind is FaultKind.GONE
        assert fault.detail == f"{Path(sys.executable).name} exited with code 3: boom: *** is bad"
        assert link.stderr_tail == "loading\nboom: *** is bad"
        assert inbox.messages.get_nowait() == b'{"last":"answer"}'
        link.request(5, b"{}")
        assert inbox.failures.get_nowait()[1].kind is FaultKind.NOT_SENT
    assert len(inbox.losses) == 1


@on_both_loops
async def test_a_signal_is_named() -> None:
    async with running(*python(STUBBORN)) as (link, inbox):
        await inbox.messages.get()
        assert link.pid is not None
        os.kill(link.pid, signal.SIGKILL)
        await inbox.is_lost.wait()
        assert inbox.losses[0].detail.endswith("was killed by SIGKILL")


@on_both_loops
async def test_a_server_that_closes_its_output_is_lost_and_ended() -> None:
    # uvloop leaves its children a second descriptor of each pipe, above 2.
    script = "import os, signal; os.closerange(3, 256); os.close(1); signal.pause()"
    async with running(*python(script)) as (link, inbox):
        await inbox.is_lost.wait()
        assert "closed its output" in inbox.losses[0].detail
        assert link.pid is not None
        await none_alive(link.pid)


@on_both_loops
async def test_a_server_that_closes_its_stderr_serves_on() -> None:
    script = "import os; os.closerange(2, 256)\n" + ECHO
    async with running(*python(script)) as (link, inbox):
        for message in (b'{"id":1}', b'{"id":2}'):
            link.request(1, message)
            assert await inbox.messages.get() == message
        assert inbox.losses == []


@on_both_loops
async def test_a_grandchild_in_a_session_of_its_own_that_holds_the_pipes_does_not_delay_the_loss() -> None:
    script = """
import os, signal
there, here = os.pipe()
if os.fork() == 0:
    os.setsid()
    print('{"pid":%d}' % os.getpid(), flush=True)
    os.write(here, b".")
    signal.pause()
os.read(there, 1)
os._exit(9)
"""
    async with running(*python(script)) as (_, inbox):
        pid = _pid(await inbox.messages.get())
        try:
            await inbox.is_lost.wait()
            assert is_alive(pid)
            assert "exited with code 9" in inbox.losses[0].detail
        finally:
            os.kill(pid, signal.SIGKILL)


@on_both_loops
async def test_an_answer_that_arrives_after_the_exit_still_counts() -> None:
    script = """
import os, time
server = os.getpid()
ready, detached = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(detached, b".")
    while os.getppid() == server:
        time.sleep(0.001)
    time.sleep(0.05)
    print('{"last":"answer"}', flush=True)
    os._exit(0)
os.read(ready, 1)
os._exit(0)
"""
    link, inbox = link_to(*python(script), clock=PatientClock()), Inbox()
    try:
        await link.start(inbox)
        await inbox.is_lost.wait()
        assert inbox.messages.get_nowait() == b'{"last":"answer"}'
    finally:
        await link.close()


@on_both_loops
async def test_what_is_left_of_the_group_is_killed_when_its_leader_exits() -> None:
    script = """
import os, signal
pid = os.fork()
if pid == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('{"pid":%d}' % os.getpid(), flush=True)
    while True:
        signal.pause()
input()
"""
    async with running(*python(script)) as (link, inbox):
        pid = _pid(await inbox.messages.get())
        await link.close()
        await none_alive(pid)
        assert inbox.losses == []


@on_both_loops
async def test_close_lets_a_server_end_by_itself() -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder, "done")
        script = f"import sys; sys.stdin.read(); open({str(done)!r}, 'w').close()"
        async with running(*python(script), clock=PatientClock()) as (link, inbox):
            pid = link.pid
            await link.close()
            assert pid is not None
            await reaped(pid)
            assert inbox.losses == []
        assert files_in(folder) == ["done"]


@on_both_loops
async def test_close_ends_a_server_that_ignores_the_end_of_its_input_and_sigterm() -> None:
    async with running(*python(STUBBORN), close_timeout=0.05) as (link, inbox):
        pid = _pid(await inbox.messages.get())
        await link.close()
        await reaped(pid)
        assert inbox.losses == []


@on_both_loops
async def test_close_ends_a_server_that_does_not_read_what_is_buffered() -> None:
    async with running(*python(STUBBORN), close_timeout=0.05) as (link, inbox):
        pid = _pid(await inbox.messages.get())
        link.post(b"x" * (1 << 20))
        await link.close()
        await reaped(pid)


@on_both_loops
async def test_a_cancelled_close_kills_at_once() -> None:
    async with running(*python(STUBBORN), close_timeout=3600) as (link, inbox):
        pid = _pid(await inbox.messages.get())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await link.close()
        await none_alive(pid)


@on_both_loops
async def test_terminate_is_idempotent_and_final() -> None:
    async with running(*python(STUBBORN)) as (link, inbox):
        pid = _pid(await inbox.messages.get())
        link.terminate()
        link.terminate()
        await link.close()
        link.terminate()
        await reaped(pid)
        link.request(1, b"{}")
        assert inbox.failures.get_nowait()[1].kind is FaultKind.NOT_SENT
        assert inbox.losses == []


@on_both_loops
async def test_a_link_that_never_started_can_be_ended() -> None:
    link = link_to("unused")
    link.terminate()
    await link.close()
    assert link.pid is None


@on_both_loops
async def test_a_cancelled_start_leaves_no_process() -> None:
    async with running(*python(ECHO)):
        pass  # opens what the loop needs for all children
    before = descriptors()
    link = link_to(*python(STUBBORN))
    starting = asyncio.Event()

    async def start() -> None:
        starting.set()
        await link.start(Inbox())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(start())
        await starting.wait()
        task.cancel()
    link.terminate()
    await link.close()
    if link.pid is not None:
        await reaped(link.pid)
    assert descriptors() <= before


@on_both_loops
async def test_a_command_that_cannot_be_started_says_what_to_do() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = folder / "plain"
        plain.write_text("#!/bin/sh\n")
        orphan = folder / "orphan"
        orphan.write_text("#!/no/such/interpreter\n")
        orphan.chmod(0o755)
        cases = [
            (("no-such-command",), None, "no-such-command: command not found; install it or give its full path"),
            ((str(plain),), None, f"{plain}: not executable; make it executable (chmod +x)"),
            ((str(orphan),), None, f"{orphan}: the interpreter in its first line was not found"),
            (python(ECHO), folder / "gone", f"{folder / 'gone'}: the working directory does not exist"),
        ]
        for command, cwd, sentence in cases:
            link = link_to(*command, cwd=cwd)
            with pytest.raises(OpenFailed) as failure:
                await link.start(Inbox())
            assert str(failure.value).startswith(sentence)
            await link.close()


def files_in(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


def _pid(message: bytes) -> int:
    return int(message.removeprefix(b'{"pid":').removesuffix(b"}"))
