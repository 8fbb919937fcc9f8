"""The event stream parser and writer."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.wire.sse import COMMENT, EventTooLarge, SseEvent, SseParser, format_event, format_priming
from requirements import requirement
from rows import Figure, row

if TYPE_CHECKING:
    from _typeshed import TraceFunction

LIMIT: Final = 1 << 20


def reference(stream: bytes) -> tuple[list[SseEvent], int | None]:
    """The WHATWG algorithm over a whole stream at once, as literally as it can be written.

    With our one addition: an event with a new id is dispatched although it has no data.
    """
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    ended = re.sub(rb"\r\n|\r", b"\n", stream).split(b"\n")[:-1]  # what follows the last line end is incomplete
    events: list[SseEvent] = []
    retry: int | None = None
    data: bytes = b""
    kind = ""
    last_id: str | None = None
    is_worth_it = False
    for line in ended:
        if line == b"":
            if is_worth_it:
                events.append(SseEvent(kind or "message", data.removesuffix(b"\n"), last_id))
            data, kind, is_worth_it = b"", "", False
            continue
        if line.startswith(b":"):
            continue
        field, value = line.split(b":", 1) if b":" in line else (line, b"")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"event":
            kind = value.decode("utf-8", "replace")
        elif field == b"data":
            data += value + b"\n"
            is_worth_it = True
        elif field == b"id" and b"\0" not in value:
            last_id = value.decode("utf-8", "replace")
            is_worth_it = True
        elif field == b"retry" and re.fullmatch(rb"[0-9]{1,9}", value):
            retry = int(value)
    return events, retry


def parse(chunks: Iterable[bytes], limit: int = LIMIT) -> tuple[list[SseEvent], int | None]:
    parser = SseParser(limit)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events, parser.retry_ms


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


PIECES: Final = st.sampled_from(
    [
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r"),
        *(b"data: ", b"data:", b"data", b"data:  x", b"event: ", b"event:ping", b"id: ", b"id", b"id:7", b"id: \0"),
        *(
            b"retry: 250",
            b"retry: 1x",
            b"retry: -1",
            b"retry: 9999999999",
            b": comment",
            b":",
            b"Data: no",
            b"other: 1",
        ),
        *(
            b'{"a":1}',
            b" ",
            b"x",
            b"\xef\xbb\xbf",
            "\u2028".encode(),
            "\u0085".encode(),
            "é😀".encode(),
            b"\xff",
            b"\0",
        ),
        *(b"\x0b", b"\x0c", b"\x1c"),
    ]
)
STREAMS: Final = st.lists(PIECES, max_size=40).map(b"".join)

VARIANTS: Final = {
    "lf": b"event: message\nid: 1\ndata: one\n\ndata: two\n\n",
    "cr": b"event: message\rid: 1\rdata: one\r\rdata: two\r\r",
    "crlf": b"event: message\r\nid: 1\r\ndata: one\r\n\r\ndata: two\r\n\r\n",
    "mixed": b"event: message\r\nid: 1\rdata: one\n\r\ndata: two\r\n\n",
    "bom": b"\xef\xbb\xbfdata: one\n\ndata: \xef\xbb\xbftwo\n\n",
    "line separators": "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
    "split utf-8": "data: é€😀\nid: é€😀\n\n".encode(),
    "many data lines": b"data: a\ndata:b\ndata\ndata:  c\n: note\n\n",
}


@row(27)
@requirement("wire:sse:whatwg-framing-only")
@pytest.mark.parametrize("stream", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_stream_reads_the_same_cut_at_any_byte(stream: bytes, figure: Figure) -> None:
    expected = reference(stream)
    assert expected[0]
    figure(f"{len(VARIANTS)} variants, each cut at every byte: read alike")
    for place in range(len(stream) + 1):
        assert parse([stream[:place], stream[place:]]) == expected
    assert parse(stream[i : i + 1] for i in range(len(stream))) == expected


@requirement("wire:sse:whatwg-framing-only")
@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=8))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10])
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", [1, 2])
@example(b"\r\n\r\r\n", [1, 1])
def test_a_stream_reads_as_the_standard_says_however_it_is_cut(stream: bytes, places: list[int]) -> None:
    assert parse(cut(stream, places)) == reference(stream)


@requirement("wire:sse:whatwg-framing-only")
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_read_as_the_standard_says(stream: bytes, places: list[int]) -> None:
    assert parse(cut(stream, places)) == reference(stream)


def test_an_event_is_dispatched_by_its_empty_line_and_not_before() -> None:
    parser = SseParser(LIMIT)
    assert parser.feed(b"data: x\n") == []
    assert parser.feed(b"\n") == [SseEvent("message", b"x", None)]


def test_an_event_ended_by_a_lone_cr_does_not_wait_for_what_follows() -> None:
    parser = SseParser(LIMIT)
    assert parser.feed(b"data: x\r\r") == [SseEvent("message", b"x", None)]
    assert parser.feed(b"\ndata: y\r\n\r\n") == [SseEvent("message", b"y", None)]


def test_the_type_of_an_event_holds_for_that_event_only() -> None:
    events, _ = parse([b"event: endpoint\ndata: /messages\n\ndata: x\n\n"])
    assert [event.event for event in events] == ["endpoint", "message"]


def test_an_id_holds_until_the_next_one() -> None:
    events, _ = parse([b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n"])
    assert [event.id for event in events] == ["1", "1", "2"]


def test_a_priming_event_is_seen_although_it_has_no_data() -> None:
    parser = SseParser(LIMIT)
    assert parser.feed(format_priming(b"e-1", 500)) == [SseEvent("message", b"", "e-1")]
    assert parser.last_id == "e-1"
    assert parser.retry_ms == 500


def test_an_id_without_a_data_field_is_dispatched_too() -> None:
    assert parse([b"id: 3\n\n\n"])[0] == [SseEvent("message", b"", "3")]


def test_resuming_starts_after_the_last_whole_event() -> None:
    parser = SseParser(LIMIT)
    parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert parser.last_id == "1", "event 2 was cut off: resuming after it would lose it"
    parser.feed(b"\n")
    assert parser.last_id == "2"


def test_an_event_that_the_stream_leaves_unfinished_is_dropped() -> None:
    assert parse([b"data: a\n\ndata: b\n"])[0] == [SseEvent("message", b"a", None)]


@pytest.mark.parametrize("value", [b"1x", b"-1", b"", b"1.5", b" 1", "\u0663".encode(), b"9999999999"])
def test_a_retry_time_that_is_no_reasonable_number_is_ignored(value: bytes) -> None:
    assert parse([b"retry: 40\nretry: " + value + b"\n\n"])[1] == 40


@requirement("wire:sse:events-are-bounded")
def test_data_up_to_the_limit_passes_however_it_is_cut() -> None:
    stream = b"data: " + b"x" * 100 + b"\n\n"
    for place in range(len(stream) + 1):
        events, _ = parse([stream[:place], stream[place:]], limit=100)
        assert events == [SseEvent("message", b"x" * 100, None)]


@requirement("wire:sse:events-are-bounded")
@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 101 + b"\n\n",
        b"data: " + b"x" * 60 + b"\ndata: " + b"y" * 60 + b"\n\n",
        b"data\n" * 110 + b"\n",
        b": " + b"x" * 200 + b"\n\n",
        b"x" * 200,
    ],
    ids=["one line", "two lines", "many empty lines", "a comment", "a line that never ends"],
)
def test_an_event_beyond_the_limit_is_refused_however_it_is_cut(stream: bytes) -> None:
    for size in (1, 7, len(stream)):
        with pytest.raises(EventTooLarge, match="100 bytes"):
            parse((stream[start : start + size] for start in range(0, len(stream), size)), limit=100)


@requirement("wire:sse:events-are-bounded")
def test_the_limit_is_for_each_event_and_not_for_the_stream() -> None:
    events, _ = parse([b"data: " + b"x" * 90 + b"\n\n", b": ping\n\n" * 50] * 50, limit=100)
    assert len(events) == 50


def steps(stream: bytes, size: int) -> int:
    """How many lines of Python it takes to read `stream` in chunks of `size`."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> TraceFunction:
        nonlocal count
        count += event == "line"
        return trace

    parser = SseParser(1 << 30)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for start in range(0, len(stream), size):
            parser.feed(stream[start : start + size])
    finally:
        sys.settrace(before)
    return count


@requirement("wire:sse:feeding-takes-linear-time")
@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize(
    "unit", [b"data: x", b"data: " + b"y" * 500, b":", b""], ids=["short", "long", "comment", "none"]
)
def test_twice_the_stream_takes_twice_the_steps(unit: bytes, line_end: bytes) -> None:
    stream = (unit + line_end) * 200
    assert steps(stream * 2, 3) <= 2.1 * steps(stream, 3)


@requirement("wire:sse:feeding-takes-linear-time")
@pytest.mark.timeout(20)  # copying the line at every chunk would move 256 GiB
def test_a_line_in_very_many_chunks_is_put_together_once() -> None:
    parser = SseParser(1 << 23)
    for _ in range(1 << 18):
        parser.feed(b"x" * 8)
    assert parser.feed(b"\n\n") == []


@given(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])),
    st.from_regex(r"[!-~]{1,40}", fullmatch=True),
)
def test_what_we_format_reads_back(text: str, event_id: str) -> None:
    data = text.encode()
    assert parse([format_event(data, event_id.encode())])[0] == [SseEvent("message", data, event_id)]
    assert parse([format_event(data)])[0] == [SseEvent("message", data, None)]


def test_a_keep_alive_is_no_event() -> None:
    assert parse([COMMENT * 3])[0] == []
