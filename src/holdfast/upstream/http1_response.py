"""Reads the answers that come over one HTTP/1.1 connection: no await, no clock, no socket."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from holdfast.wire.familiar import HeadMemory
from holdfast.wire.headers import JSON, media_type

MAX_HEAD_BYTES: Final = 64 * 1024
"""Status line and headers of one answer, interim answers and trailers included."""

MAX_HEADERS: Final = 100

KEEP_ALIVE: Final = 4.0
"""How long an idle connection is kept without a hint: uvicorn and node close theirs after 5 s."""

KEEP_ALIVE_MARGIN: Final = 1.0
"""Taken off the server's own `Keep-Alive: timeout`, for the time a request travels."""

MAX_KNOWN_BYTES: Final = 1024 * 1024
"""Of the body of an answer that is gathered before it is passed on, where its reader says no better."""

_KEEP_ALIVE_HINT: Final = re.compile(r"\btimeout\s*=\s*(\d{1,6})")


class _Malformed(Exception):
    """The answer breaks a rule that llhttp does not have."""


class ResponseReader:
    """Parses the answers of one connection, one `begin` for each.

    It only collects: nobody is called back from inside the parser.
    """

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Get ready for the answer to a new request."""
        self.head: tuple[int, Mapping[str, str]] | None = None
        """Status and headers, once they are whole; the same mapping comes again only with the same head."""
        self.news: tuple[int, Mapping[str, str]] | None = None
        """`head`, to be taken, and set to None, by whoever feeds."""
        self.chunks: list[bytes] = []
        """As `news`."""
        self.has_head = False
        self.is_complete = False
        self.has_excess = False
        """Something follows the complete answer."""
        self.ends_with_connection = False
        self.keep_for = 0.0
        """Seconds for which the connection may be kept idle."""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._header_bytes = 0
        self._overhead = 0
        self._is_interim = False
        self._problem = ""

    def feed(self, data: bytes) -> str | None:
        """Read on; returns what is wrong with the answer, if anything."""
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            return "it switches protocols"
        except HttpParserError as error:
            self.has_excess = True
            return self._problem or f"it is not HTTP/1.1 ({error})"
        if self._overhead > MAX_HEAD_BYTES and not self.is_complete:
            return f"it has more than {MAX_HEAD_BYTES} bytes of headers"  # or of trailers, or of chunk extensions
        return None

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._is_interim = False
        self._headers = {}
        if self.is_complete:
            self.has_excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._header_bytes += len(name) + len(value) + 4
        if self._header_count > MAX_HEADERS:
            raise self._refuse(f"it has more than {MAX_HEADERS} headers")
        if self._header_bytes > MAX_HEAD_BYTES:
            raise self._refuse(f"it has more than {MAX_HEAD_BYTES} bytes of headers")
        if self.has_head:
            return  # a trailer
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self.is_complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._is_interim = True
            if status == 101:
                raise self._refuse("it switches protocols")
            return
        headers = self._headers
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise self._refuse("its transfer-encoding is not chunked")
        self.has_head = True
        self.head = self.news = (status, headers)
        self.ends_with_connection = coding is None and "content-length" not in headers and status not in {204, 304}
        if self._parser.should_keep_alive():
            hint = _KEEP_ALIVE_HINT.search(headers["keep-alive"]) if "keep-alive" in headers else None
            self.keep_for = max(0.0, int(hint[1]) - KEEP_ALIVE_MARGIN) if hint else KEEP_ALIVE

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        if not self.is_complete:
            self.chunks.append(body)

    def on_message_complete(self) -> None:
        if not self._is_interim:
            self.is_complete = True

    def _refuse(self, problem: str) -> _Malformed:
        self._problem = problem
        return _Malformed(problem)


class KnownHead(NamedTuple):
    """The head of an answer that came before, of which the length alone may differ."""

    status: int
    headers: Mapping[str, str]
    """Without the length, which is that of each body."""
    keep_for: float


class KnownHeads(HeadMemory[KnownHead]):
    """The head of the last answer in a session, whose id it mostly bears.

    Only that of plain JSON, of which nothing can be read before it is whole. Events are read as they
    come, and what is no MCP is refused at its head: neither may wait for the end of a body.
    """

    def __init__(self, max_body_bytes: int = MAX_KNOWN_BYTES) -> None:
        super().__init__()
        self.max_body_bytes = max_body_bytes
        """A longer body is not gathered, but given to its reader as it comes."""

    def learn(self, data: bytes, reader: ResponseReader) -> None:
        """Know the head again with which `data` began, the first that `reader` was given of an answer."""
        if reader.head is None or reader.keep_for <= 0 or not self.learns:
            return
        status, headers = reader.head
        if "content-length" not in headers or "transfer-encoding" in headers or status != 200:
            return
        if media_type(headers.get("content-type")) != JSON or "content-encoding" in headers:
            return
        end = data.find(b"\r\n\r\n") + 4
        if sum(map(len, reader.chunks)) != len(data) - end:
            return  # it begins with an interim answer, or there is more than an answer
        rest = {name: value for name, value in headers.items() if name != "content-length"}
        self.keep(data, KnownHead(status, rest, reader.keep_for))
