"""The pipes between us and a stdio server: what the server gets, and what is left of them."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack
from typing import Protocol

import pytest

from holdfast.errors import OpenFailed
from holdfast.upstream.stdio_pipes import pipe_from_child, pipe_to_child
from stdio_rig import Inbox, descriptors, link_to, on_both_loops, python, reaped, running

AWAITS_OF_A_START = 12
"""More turns of the loop than a start takes until the process runs."""


@on_both_loops
async def test_a_server_can_open_its_input_and_output_by_name() -> None:
    # It could not if they were sockets, as those of the loops' own subprocesses are.
    script = """
with open("/dev/stdin", "rb", 0) as stdin, open("/dev/stdout", "wb", 0) as stdout:
    stdout.write(stdin.read(9))
    stdin.read()
"""
    async with running(*python(script)) as (link, inbox):
        link.post(b'{"id":1}')
        assert await inbox.messages.get() == b'{"id":1}'


@on_both_loops
async def test_what_a_server_writes_as_it_starts_comes_in_order() -> None:
    script = """
import sys
for number in range(2000):
    print('{"n":%d}' % number, flush=number % 7 == 0)
sys.stdout.flush()
input()
"""
    async with running(*python(script)) as (_, inbox):
        for number in range(2000):
            assert await inbox.messages.get() == b'{"n":%d}' % number


@on_both_loops
async def test_a_message_larger_than_a_pipe_comes_and_goes_whole() -> None:
    script = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
"""
    message = b'{"text":"' + bytes(range(ord("a"), ord("z"))) * 40_000 + b'"}'
    async with running(*python(script)) as (link, inbox):
        for number in range(3):
            link.request(number, message)
        for _ in range(3):
            assert await inbox.messages.get() == message


@on_both_loops
async def test_a_message_that_fails_us_costs_no_other() -> None:
    script = r"""print('{"n":1}\n{"n":2}', flush=True); input(); print('{"n":3}', flush=True); input()"""
    link, inbox = link_to(*python(script)), Inbox()
    inbox.on_received = _fail_at_first
    log = _Log()
    logger = logging.getLogger("holdfast.stdio")
    logger.addHandler(log)
    try:
        await link.start(inbox)
        assert [await inbox.messages.get() for _ in range(2)] == [b'{"n":1}', b'{"n":2}']
        link.post(b"{}")
        assert await inbox.messages.get() == b'{"n":3}'
        assert inbox.losses == []
        [record] = log.records
        assert record.levelno == logging.ERROR
        assert record.getMessage().endswith("could not be handled")
    finally:
        logger.removeHandler(log)
        await link.close()


def _fail_at_first(message: bytes) -> None:
    if message == b'{"n":1}':
        raise RuntimeError("a mistake")


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@on_both_loops
async def test_wherever_a_start_is_cancelled_nothing_stays_open() -> None:
    async with running(*python("input()")):
        pass  # opens what the loop needs for all children
    before = descriptors()
    for turns in range(AWAITS_OF_A_START):
        link = link_to(*python("input()"))
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(link.start(Inbox()))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
        link.terminate()
        await link.close()
        if link.pid is not None:
            await reaped(link.pid)
        assert descriptors() <= before


@on_both_loops
async def test_of_a_program_that_cannot_be_started_nothing_stays_open() -> None:
    async with running(*python("input()")):
        pass
    before = descriptors()
    link = link_to("no-such-command")
    with pytest.raises(OpenFailed):
        await link.start(Inbox())
    await link.close()
    assert descriptors() <= before


@on_both_loops
async def test_an_end_of_a_pipe_is_closed_once_and_another_file_of_its_number_never() -> None:
    await _ends_after_use()  # opens what the loop needs for all pipes
    before = descriptors()
    ends = await _ends_after_use()
    assert descriptors() == before
    with ExitStack() as stack:
        others = {os.open(os.devnull, os.O_RDONLY) for _ in range(8)}
        for other in others:
            stack.callback(os.close, other)  # raises where it is closed already
        assert {end.fileno() for end in ends} <= others
        for end in ends:
            end.close()


async def test_a_file_of_another_file_system_is_no_end_of_a_pipe_though_its_inode_has_the_number() -> None:
    transport, theirs = await pipe_to_child(asyncio.BaseProtocol())
    end: _End = transport.get_extra_info("pipe")
    try:
        pipe = os.fstat(end.fileno())
        elsewhere = os.stat_result((*pipe[:2], pipe.st_dev + 1, *pipe[3:10]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fstat", {end.fileno(): elsewhere}.__getitem__)
            end.close()
        assert os.path.samestat(os.fstat(end.fileno()), pipe), "it is open still"
    finally:
        transport.close()
        os.close(theirs)


async def _ends_after_use() -> list[_End]:
    lost = [asyncio.Event(), asyncio.Event()]
    writing, to_read = await pipe_to_child(_Ending(lost[0]))
    reading, to_write = await pipe_from_child(_Ending(lost[1]))
    os.close(to_read)
    os.close(to_write)
    writing.close()
    reading.close()
    for over in lost:
        await over.wait()
    return [transport.get_extra_info("pipe") for transport in (writing, reading)]


class _End(Protocol):
    """A file as a transport knows it."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class _Ending(asyncio.Protocol):
    def __init__(self, over: asyncio.Event) -> None:
        self._over = over

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()
