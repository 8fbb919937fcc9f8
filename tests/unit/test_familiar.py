"""Heads that came before, known again by their bytes."""

from __future__ import annotations

import httptools
from hypothesis import given
from hypothesis import strategies as st

from holdfast.upstream.http1_response import KnownHeads, ResponseReader
from holdfast.wire.familiar import FamiliarHead
from requirements import requirement

HEAD = b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nAccept: */*\r\n\r\n"


def known(head: bytes = HEAD) -> FamiliarHead:
    familiar = FamiliarHead.of(head)
    assert familiar is not None
    return familiar


class Read:
    """What a parser makes of a request."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.is_whole = False
        try:
            httptools.HttpRequestParser(self).feed_data(data)
        except httptools.HttpParserError:
            self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True


@requirement("http:direct:familiar")
@given(st.integers(0, 999_999), st.binary(max_size=40))
def test_whatever_is_known_is_what_a_parser_would_read(length: int, rest: bytes) -> None:
    data = HEAD.replace(b"12", b"%d" % length) + b"x" * min(length, 500) + rest
    found = known().body_of(data)
    assert found is not None
    assert found == (len(HEAD) - 2 + len(str(length)), length)
    if length <= 500:
        read = Read(data[: found[0] + found[1]])
        assert read.is_whole
        assert read.body == b"x" * length


@given(st.binary(max_size=80))
def test_whatever_differs_is_not_known(noise: bytes) -> None:
    familiar = known()
    assert familiar.body_of(HEAD) == (len(HEAD), 12)
    assert familiar.body_of(noise) is None
    for at in range(len(HEAD)):
        other = HEAD[:at] + bytes([HEAD[at] ^ 1]) + HEAD[at + 1 :]
        found = familiar.body_of(other + b"x" * 12)
        assert found is None or other.split(b"-Length: ")[0] == HEAD.split(b"-Length: ")[0]
        assert found is None or found[0] == len(HEAD)
    for at in range(len(HEAD)):
        assert familiar.body_of(HEAD[:at]) is None, "a head that is not whole may go on in another way"


def test_heads_without_one_plain_length_are_not_kept() -> None:
    for head in (
        HEAD.replace(b"Content-Length: 12\r\n", b""),
        HEAD.replace(b"12", b"+12"),
        HEAD.replace(b"12", b"1 2"),
        HEAD.replace(b"12", b"1234567890"),
        HEAD.replace(b"12\r\n", b"12\r\ncontent-length: 12\r\n"),
        HEAD[:-1],
        HEAD + b"x",
        b"\r\n\r\n" + HEAD,
    ):
        assert FamiliarHead.of(head) is None, head


def answered(*headers: bytes, body: bytes = b"{}", status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"", body))


def learned(data: bytes, interim: bytes = b"") -> KnownHeads:
    reader, heads = ResponseReader(), KnownHeads()
    reader.feed(interim + data)
    heads.learn(interim + data, reader)
    return heads


@requirement("upstream:http:familiar")
def test_the_head_of_an_answer_is_known_in_the_next_of_its_session() -> None:
    first = answered(b"Content-Type: application/json", b"Mcp-Session-Id: s")
    heads = learned(first)
    longer = first.replace(b"Length: 2", b"Length: 11")[:-2] + b'{"a":"bcd"}'
    for _ in range(2):
        found = heads.recall(longer)
        assert found is not None
        head, start, length = found
        assert (head.status, longer[start:], length) == (200, b'{"a":"bcd"}', 11)
        assert head.headers == {"content-type": "application/json", "mcp-session-id": "s"}, "each has its own length"
    found = heads.recall(first)
    assert found is not None
    assert found[2] == 2
    assert heads.recall(first.replace(b"Id: s", b"Id: t")) is None


@requirement("upstream:http:familiar")
def test_only_plain_answers_are_kept() -> None:
    json = b"Content-Type: application/json"
    plain = answered(json)
    for data, interim in (
        (answered(json, status=b"404 Not Found"), b""),
        (answered(json, b"Connection: close"), b""),
        (answered(json, b"Content-Encoding: gzip"), b""),
        (answered(b"Content-Type: text/event-stream"), b""),
        (answered(b"Content-Type: text/html"), b""),
        (answered(), b""),
        (plain + b"x", b""),
        (plain, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (plain, b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % json, b""),
    ):
        assert learned(data, interim).recall(data) is None, interim + data
    numbered, reader = KnownHeads(), ResponseReader()
    for number in range(20):
        data = answered(json, b"X-Number: %d" % number)
        reader.begin()
        reader.feed(data)
        numbered.learn(data, reader)
    assert numbered.recall(data) is None, "of a server that numbers its answers no more heads are kept"
