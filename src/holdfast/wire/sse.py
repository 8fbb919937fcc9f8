"""Server-sent events, by the WHATWG algorithm: <https://html.spec.whatwg.org/multipage/server-sent-events.html>."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_PLAIN: Final = re.compile(rb"(?:event: ?message\n)?(?:id: ?([^\r\n\0]*)\n)?data: ?([^\r\n]*)\n\n")
"""An event without anything unusual, from its first line to the empty one."""
_BOM: Final = b"\xef\xbb\xbf"
_FIELD_BYTES: Final = len(b"data: ")

COMMENT: Final = b": keep-alive\n\n"


class EventTooLarge(ValueError):
    """An event, or one line of a stream, grew beyond the limit; the stream cannot be read on."""


class SseEvent(Struct, frozen=True):
    """One dispatched event. `data` is UTF-8 as sent; `id` is the stream's last event id, if any was set."""

    event: str
    data: bytes
    id: str | None


class SseParser:
    """Turns chunks of a stream into events, whatever way they are cut.

    Unlike a browser, it also dispatches an event with an id and no data (SEP-1699's priming),
    because the id must be remembered. `retry_ms` holds the last `retry` field.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self.retry_ms: int | None = None
        self._max = max_event_bytes
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._size = 0
        self._at_start = True
        self._after_cr = False
        self._data: list[bytes] = []
        self._event = ""
        self._next_id: str | None = None
        self._last_id: str | None = None
        self._has_new_id = False

    @property
    def last_id(self) -> str | None:
        """The id to resume after: the last that a dispatched event had or inherited."""
        return self._last_id

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes. Raises `EventTooLarge`."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        events: list[SseEvent] = []
        if not (self._tail or self._data or self._event or self._has_new_id):
            chunk = self._feed_plain(chunk, events)
            if not chunk:
                return events
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
        return events

    def _feed_plain(self, chunk: bytes, events: list[SseEvent]) -> bytes:
        """Take whole events as servers mostly write them, and return the rest of `chunk`: most often nothing."""
        start = 0
        while (found := _PLAIN.match(chunk, start)) is not None:
            end = found.end()
            if end - start > self._max:
                break
            start = end
            event_id, data = found.groups()
            if event_id is not None:
                self._next_id = event_id.decode("utf-8", "replace")
            self._last_id = self._next_id
            events.append(SseEvent("message", data, self._last_id))
        if start:
            self._at_start = False
        return chunk[start:] if start else chunk

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
