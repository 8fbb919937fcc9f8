"""Heads that come again through ASGI, known by what they say."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.downstream.http import Message
from holdfast.downstream.recurring import MAX_HEAD_BYTES, MAX_HEADS, PERIOD, HeadKey, RecurringHeads
from holdfast.testing.clock import ManualClock
from requirements import requirement

LIMIT: Final = 1000
HEADERS: Final = [(b"host", b"a"), (b"content-length", b"12"), (b"authorization", b"Bearer k"), (b"accept", b"*/*")]


def scope(headers: Any = HEADERS, **others: Any) -> Message:
    return {"method": "POST", "raw_path": b"/mcp", "query_string": b"", "headers": headers, **others}


def with_length(length: bytes) -> Message:
    return scope([(name, length if name == b"content-length" else value) for name, value in HEADERS])


class Entrance:
    """One edition of the settings, and what it makes of heads."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.heads = RecurringHeads[str](self.clock)
        self.edition = object()

    def key(self, head: Message) -> HeadKey:
        key = self.heads.key(head, LIMIT)
        assert key is not None
        return key

    def meaning(self, head: Message) -> str | None:
        return self.heads.recall(self.key(head), self.edition)

    def comes(self, head: Message, meaning: str = "known") -> None:
        """A head that is read, and kept where it may be."""
        key = self.key(head)
        if self.heads.recall(key, self.edition) is None and self.heads.is_worth_keeping(key):
            self.heads.keep(key, meaning)


def knowing(head: Message) -> Entrance:
    entrance = Entrance()
    entrance.comes(head)  # the first is of this edition
    entrance.comes(head)
    entrance.comes(head)
    assert entrance.meaning(head) == "known"
    return entrance


@requirement("http:asgi:familiar")
def test_a_head_is_known_from_its_second_coming_however_long_its_body_is() -> None:
    entrance = Entrance()
    entrance.heads.recall(entrance.key(scope()), entrance.edition)
    entrance.comes(scope())
    assert entrance.meaning(scope()) is None
    assert len(entrance.heads) == 0, "most heads that come once do not come again"
    entrance.comes(with_length(b"7"))
    assert entrance.meaning(scope()) == entrance.meaning(with_length(b"999")) == "known"


@requirement("http:asgi:familiar")
@given(st.integers(0, 3), st.integers(0, 1), st.integers(0, 20), st.integers(1, 255))
def test_a_head_that_differs_in_a_byte_is_another(number: int, half: int, place: int, change: int) -> None:
    entrance = knowing(scope())
    field = list(HEADERS[number])
    at = place % len(field[half])
    field[half] = field[half][:at] + bytes([field[half][at] ^ change]) + field[half][at + 1 :]
    headers = [*HEADERS[:number], tuple(field), *HEADERS[number + 1 :]]
    key = entrance.heads.key(scope(headers), LIMIT)
    is_other_length = (number, half) == (1, 1)
    assert key is None or is_other_length or entrance.heads.recall(key, entrance.edition) is None


@requirement("http:asgi:familiar")
@pytest.mark.parametrize(
    "other",
    [
        scope(HEADERS[:-1]),
        scope([*HEADERS, (b"x", b"y")]),
        scope([*HEADERS, (b"content-length", b"3")]),
        scope([(b"content-length", b"3"), *HEADERS]),
        scope(list(reversed(HEADERS))),
        scope([HEADERS[0], HEADERS[1], (b"authorizationBearer", b" k"), HEADERS[3]]),
        scope(raw_path=b"/mcp/memory"),
        scope(query_string=b"x=1"),
    ],
)
def test_a_head_with_other_fields_or_for_another_path_is_another(other: Message) -> None:
    assert knowing(scope()).meaning(other) is None


@requirement("http:asgi:familiar")
@pytest.mark.parametrize(
    "unusual",
    [
        scope(method="GET"),
        scope(HEADERS[:1]),
        scope([]),
        *map(with_length, (b"", b"+1", b"1 ", b"-1", b"0x1", b"1_0", b"\xb2", b"1001", b"0000000001", b"9" * 5000)),
    ],
)
def test_what_has_not_one_plain_length_within_the_limit_is_read_anew(unusual: Message) -> None:
    assert knowing(scope()).heads.key(unusual, LIMIT) is None


@requirement("http:asgi:familiar")
def test_fields_that_are_lists_are_read_anew() -> None:
    entrance = knowing(scope())
    entrance.comes(scope([list(field) for field in HEADERS]))
    assert len(entrance.heads) == 1


@requirement("http:asgi:familiar")
def test_other_settings_know_nothing() -> None:
    entrance = knowing(scope())
    entrance.edition = object()
    assert entrance.meaning(scope()) is None
    assert len(entrance.heads) == 0
    assert entrance.clock.pending == 0


@requirement("http:asgi:short-memory")
def test_a_head_is_forgotten_soon_after_it_has_come_last() -> None:
    entrance = knowing(scope())
    for _ in range(10):
        entrance.clock.advance(PERIOD)
        assert entrance.meaning(scope()) == "known"
    entrance.clock.advance(2 * PERIOD)
    assert len(entrance.heads) == 0
    assert entrance.clock.pending == 0


@requirement("http:asgi:short-memory")
def test_no_more_heads_than_so_many_are_known_and_those_that_were_first() -> None:
    entrance = Entrance()
    many = [scope([*HEADERS, (b"x", b"%d" % number)]) for number in range(MAX_HEADS + 10)]
    for _ in range(3):
        for head in many:
            entrance.comes(head)
    assert len(entrance.heads) == MAX_HEADS
    assert [entrance.meaning(many[number]) for number in (0, -1)] == ["known", None]
    entrance.clock.advance(PERIOD)
    for head in many[::-1]:
        entrance.comes(head)
    assert len(entrance.heads) <= 2 * MAX_HEADS
    assert [entrance.meaning(many[number]) for number in (0, -1)] == ["known", "known"]


@requirement("http:asgi:short-memory")
def test_a_long_head_and_heads_that_never_come_again_are_not_kept() -> None:
    entrance = Entrance()
    for number in range(20_000):
        entrance.comes(scope([*HEADERS, (b"x-number", b"%d" % number)]))
    for _ in range(3):
        entrance.comes(scope([*HEADERS, (b"x", b"y" * MAX_HEAD_BYTES)]))
    assert len(entrance.heads) == 0
    assert entrance.clock.pending == 0
