"""Server-sent events, by the WHATWG algorithm: <https://html.spec.whatwg.org/multipage/server-sent-events.html>."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_PLAIN: Final = re.compile(rb"(?:event: ?message\r?\n)?(?:id: ?([^\r\n\0]*)\r?\n)?data: ?([^\r\n]*)\r?\n\r?\n")
"""An event without anything unusual, from its first line to the empty one."""
_MESSAGE: Final = b"event: message\ndata: "
"""How most of them begin that bear no id: those need no expression."""
_MESSAGE_BYTES: Final = len(_MESSAGE)
_CR: Final = ord("\r")
_BOM: Final = b"\xef\xbb\xbf"
_FIELD_BYTES: Final = len(b"data: ")

COMMENT: Final = b": keep-alive\n\n"


class EventTooLarge(ValueError):
    """An event, or one line of a stream, grew beyond the limit; the stream cannot be read on."""


class SseEvent(Struct, frozen=True, gc=False):
    """One dispatched event. `data` is UTF-8 as sent; `id` is the stream's last event id, if any was set."""

    event: str
    data: bytes
    id: str | None


class SseParser:
    """Turns chunks of a stream into events, whatever way they are cut.

    Unlike a browser, it also dispatches an event with an id and no data (SEP-1699's priming),
    because the id must be remembered. `retry_ms` holds the last `retry` field.
    """

    retry_ms: int | None = None
    _is_between = True
    """No part of an event is held."""
    _at_start = True
    _after_cr = False
    _tail_size = 0
    _size = 0
    _event = ""
    _next_id: str | None = None
    _last_id: str | None = None
    _has_new_id = False

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._tail: list[bytes] = []
        self._data: list[bytes] = []

    @property
    def last_id(self) -> str | None:
        """The id to resume after: the last that a dispatched event had or inherited."""
        return self._last_id

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes. Raises `EventTooLarge`."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        events: list[SseEvent] = []
        start = self._feed_plain(chunk, events) if self._is_between else 0
        if start < len(chunk):
            self._feed_lines(chunk[start:] if start else chunk, events)
        return events

    def _feed_plain(self, chunk: bytes, events: list[SseEvent]) -> int:
        """Take whole events as servers mostly write them, and return where the rest of `chunk` begins, if any."""
        start, size = 0, len(chunk)
        while start < size:
            event_id: bytes | None = None
            begin = start + _MESSAGE_BYTES
            end = chunk.find(b"\n", begin) if chunk.startswith(_MESSAGE, start) else -1
            data = chunk[begin:end]
            if end >= 0 and _CR not in data and chunk.startswith(b"\n\n", end):
                end += 2
            else:
                found = _PLAIN.match(chunk, start)
                if found is None:
                    break
                end = found.end()
                event_id, data = found.groups()
            if end - start > self._max:
                break
            if event_id is not None:
                self._next_id = event_id.decode("utf-8", "replace")
            self._last_id = self._next_id
            events.append(SseEvent("message", data, self._last_id))
            start = end
        if start:
            self._at_start = False
        return start

    def _feed_lines(self, chunk: bytes, events: list[SseEvent]) -> None:
        """Take `chunk` line by line."""
        self._after_cr = chunk.endswith(b"\r")
        lines = _LINE_END.split(chunk)
        last = lines.pop()
        for line in lines:
            if self._tail:
                line = b"".join((*self._tail, line))
                self._tail.clear()
                self._tail_size = 0
            self._admit(len(line))
            self._line(line, events)
        if last:
            self._tail.append(last)
            self._tail_size += len(last)
            self._admit(self._tail_size)
        self._is_between = not (last or self._data or self._event or self._has_new_id)

    def _admit(self, line_bytes: int) -> None:
        # Looks at a whole line as at a part of one, so that the cut decides nothing.
        if self._size + line_bytes > self._max + _FIELD_BYTES:
            raise EventTooLarge(f"an event is larger than {self._max} bytes")

    def _line(self, line: bytes, events: list[SseEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._size += len(value) + 1  # the line end is part of the data
                self._data.append(value)
            case b"event":
                self._event = value.decode("utf-8", "replace")
            case b"id" if b"\0" not in value:
                self._next_id = value.decode("utf-8", "replace")
                self._has_new_id = True
            case b"retry" if value.isdigit() and len(value) <= 9:
                self.retry_ms = int(value)
            case _:
                pass

    def _dispatch(self, events: list[SseEvent]) -> None:
        self._last_id = self._next_id
        if self._data or self._has_new_id:
            events.append(SseEvent(self._event or "message", b"\n".join(self._data), self._last_id))
        self._data = []
        self._event = ""
        self._has_new_id = False
        self._size = 0


def format_event(data: bytes, event_id: bytes | None = None) -> bytes:
    """A `message` event. `data` must hold no CR and LF (`jsonrpc.one_line`)."""
    if event_id is None:
        return b"event: message\ndata: %b\n\n" % data
    return b"event: message\nid: %b\ndata: %b\n\n" % (event_id, data)


def format_priming(event_id: bytes, retry_ms: int) -> bytes:
    """The first event of a stream that can be resumed: an id, a retry time and empty data (SEP-1699)."""
    return b"id: %b\nretry: %d\ndata: \n\n" % (event_id, retry_ms)
