"""Reading and writing whatever standard input and output are."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from holdfast.downstream.pipes import QUEUE_LENGTH, QUEUE_LIMIT, LineWriter, read_from, written_to
from requirements import requirement

FULL = Path("/dev/full")
MESSAGE = b'{"jsonrpc":"2.0","id":1,"result":{}}'


class Page:
    """A `Reader` that keeps what it is fed."""

    def __init__(self) -> None:
        self.text = b""
        self.news = asyncio.Event()
        self.has_ended = asyncio.Event()

    def feed(self, chunk: bytes) -> None:
        self.text += chunk
        self.news.set()

    def end_of_input(self) -> None:
        self.has_ended.set()

    async def until(self, text: bytes) -> None:
        while text not in self.text:
            self.news.clear()
            await self.news.wait()


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    near, far = os.pipe()
    yield near, far
    for descriptor in (near, far):
        with contextlib.suppress(OSError):  # the test may have closed it
            os.close(descriptor)


async def test_a_pipe_is_read_to_its_end_and_left_as_it_was(pipe: tuple[int, int]) -> None:
    near, far = pipe
    page = Page()
    async with asyncio.timeout(60), read_from(near, page):
        assert not os.get_blocking(near)
        os.write(far, b"one\n")
        await page.until(b"one\n")
        os.write(far, b"two")
        os.close(far)
        await page.has_ended.wait()
    assert page.text == b"one\ntwo"
    assert os.get_blocking(near)


async def test_nothing_is_read_while_it_is_paused(pipe: tuple[int, int]) -> None:
    near, far = pipe
    page = Page()
    async with asyncio.timeout(60), read_from(near, page) as intake:
        intake.pause()
        os.write(far, b"one\n")
        os.write(far, b"two\n")
        for _ in range(20):
            await asyncio.sleep(0)
        assert page.text == b""
        intake.resume()
        await page.until(b"two\n")
        os.close(far)
        await page.has_ended.wait()
        intake.pause()
        intake.resume()


@pytest.mark.parametrize("length", [0, 10, 300_000])
async def test_a_file_is_read_like_a_pipe(tmp_path: Path, length: int) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"x" * length)
    page = Page()
    with file.open("rb") as source:
        async with asyncio.timeout(60), read_from(source.fileno(), page):
            await page.has_ended.wait()
    assert page.text == file.read_bytes()


async def test_lines_are_written_whole_to_a_pipe_that_is_full_at_first(pipe: tuple[int, int]) -> None:
    near, far = pipe
    writer = LineWriter()
    large = b'"' + b"x" * 1_000_000 + b'"'
    async with asyncio.timeout(60), written_to(far, writer):
        writer.emit(large, droppable=False)
        writer.emit(b'{"a":\n"\xe2\x80\xa8"}', droppable=False)
        page = Page()
        async with read_from(near, page):
            await writer.flush()
            await page.until(b'{"a":"\\u2028"}\n')
    assert page.text == large + b'\n{"a":"\\u2028"}\n'
    assert os.get_blocking(far)


async def test_a_reader_who_is_gone_is_noticed_before_anything_is_written(pipe: tuple[int, int]) -> None:
    near, far = pipe
    writer = LineWriter()
    gone = asyncio.Event()
    writer.on_gone = gone.set
    async with asyncio.timeout(60), written_to(far, writer):
        os.close(near)
        await gone.wait()
        writer.emit(MESSAGE, droppable=False)
        await writer.flush()


async def test_a_file_is_written_at_once(tmp_path: Path) -> None:
    writer = LineWriter()
    with (tmp_path / "lines").open("wb") as file:
        async with asyncio.timeout(60), written_to(file.fileno(), writer):
            writer.emit(MESSAGE, droppable=True)
            await writer.flush()
    assert (tmp_path / "lines").read_bytes() == MESSAGE + b"\n"


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
async def test_a_full_disk_is_a_reader_who_is_gone() -> None:
    writer = LineWriter()
    descriptor = os.open(FULL, os.O_WRONLY)
    async with asyncio.timeout(60), written_to(descriptor, writer):
        writer.emit(MESSAGE, droppable=False)
        assert writer.is_gone
    os.close(descriptor)


class Stuck:
    """A `Sink` that takes one line, and then no more for a while."""

    def __init__(self, writer: LineWriter) -> None:
        self.lines: list[bytes] = []
        self._writer = writer

    def write(self, data: bytes) -> None:
        self.lines.append(data)
        self._writer.pause_writing()


@requirement("stdio:flow:slow-readers-lose-no-answer")
@pytest.mark.parametrize(("size", "count"), [(1, QUEUE_LENGTH + 2), (QUEUE_LIMIT // 4, 6)])
def test_who_is_behind_is_slow_until_half_of_it_is_read(size: int, count: int) -> None:
    writer = LineWriter()
    writer.connect(sink := Stuck(writer))
    said: list[str] = []
    writer.on_slow, writer.on_drained = lambda: said.append("slow"), lambda: said.append("drained")
    for _ in range(count):
        writer.emit(b"x" * size, droppable=False)
    assert said == ["slow"]
    writer.emit(b"progress", droppable=True)
    writer.emit(b"result", droppable=False)
    for _ in range(3):
        writer.signal(b"changed")
    while writer.is_slow:
        writer.resume_writing()
    assert said == ["slow", "drained"]
    while sink.lines[-1] != b"changed\n":
        writer.resume_writing()
    assert sink.lines[-2:] == [b"result\n", b"changed\n"]
    assert b"progress\n" not in sink.lines
    assert writer.dropped == 1
    writer.signal(b"changed")
    writer.resume_writing()
    assert sink.lines[-2:] == [b"changed\n", b"changed\n"]
