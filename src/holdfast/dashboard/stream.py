"""What happens in the gateway as an event stream: each reader is a place in the feed's ring."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from holdfast.clock import Clock, Timer
from holdfast.downstream.http import Headers, Responder
from holdfast.events import Event
from holdfast.wire import sse

KEEP_ALIVE: Final = 15.0
"""Seconds between comments; common proxies give up on a silent stream after 60."""

Numbered: TypeAlias = tuple[int, float, Event]
"""An event with its number, counted from the gateway's start, and its time in seconds since the epoch."""

_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")


class EventFeed(Protocol):
    """What happened, and who wants to hear of it."""

    @property
    def recent(self) -> Sequence[Numbered]:
        """The latest events, oldest first, numbered without gaps."""
        ...

    def subscribe(self, callback: Callable[[Numbered], None], /) -> Callable[[], None]:
        """Call `callback` with each event that has joined `recent`, until what is returned is called."""
        ...

    def encode(self, event: Event, /) -> Mapping[str, Any]:
        """The fields of an event as JSON has them."""
        ...


class EventStream:
    """Writes the feed to one reader, from the event numbered `start` on, or from the next one.

    A reader that is too slow waits in the ring: what has left it when the reader has caught up is
    lost to that reader, who is told how many those were.
    """

    def __init__(
        self,
        responder: Responder,
        headers: Headers,
        feed: EventFeed,
        clock: Clock,
        *,
        run: str,
        start: int | None,
        ended: Callable[[EventStream], None],
    ) -> None:
        self._responder = responder
        self._feed = feed
        self._clock = clock
        self._run = run
        self._next = start
        self._ended = ended
        responder.on_gone = self._close
        responder.on_drained = self._write_unread
        responder.open(headers)
        responder.write(sse.COMMENT)  # so that the reader knows at once that it is heard
        self._unsubscribe = feed.subscribe(lambda _: self._write_unread())
        self._timer: Timer = clock.call_later(KEEP_ALIVE, self._keep_alive)
        self._write_unread()

    def end(self) -> None:
        """End the stream; the reader may come back with the id of what it read last."""
        self._close()
        self._responder.end()

    def _write_unread(self) -> None:
        for number, at, event in self._unread():
            if self._responder.is_slow or self._responder.is_gone:
                return
            if self._next is not None and number > self._next:
                self._responder.write(b'event: missed\ndata: {"count":%d}\n\n' % (number - self._next))
            self._next = number + 1
            data = msgspec.json.encode({"time": round(at, 3), **self._feed.encode(event)})
            name = event_name(event).encode()
            self._responder.write(b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (self._run.encode(), number, name, data))

    def _unread(self) -> Iterable[Numbered]:
        recent = self._feed.recent
        if not recent:
            return ()
        following = self._next if self._next is not None else recent[-1][0]
        if recent[-1][0] <= following:
            return () if recent[-1][0] < following else (recent[-1],)
        return tuple(islice(recent, max(0, following - recent[0][0]), None))

    def _keep_alive(self) -> None:
        if not self._responder.is_slow:
            self._responder.write(sse.COMMENT)
        self._timer = self._clock.call_later(KEEP_ALIVE, self._keep_alive)

    def _close(self) -> None:
        self._timer.cancel()
        self._unsubscribe()
        self._ended(self)


def event_name(event: Event) -> str:
    """`session_lost` for `SessionLost`."""
    return _CAPITAL.sub("_", type(event).__name__).lower()


def first_unread(recent: Sequence[Numbered], run: str, last_id: str | None, wanted: int) -> int | None:
    """Where a reader begins: behind `last_id`, or with the latest `wanted` events where it names none.

    An id of another run of the gateway says nothing of this one's numbers, so its reader gets all there is.
    None stands for the next event, where there was none yet.
    """
    if not recent:
        return None
    oldest, following = recent[0][0], recent[-1][0] + 1
    if last_id is None:
        return max(oldest, following - wanted)
    named, _, number = last_id.rpartition("-")
    if named == run and number.isascii() and number.isdigit() and len(number) < 19:
        return min(int(number) + 1, following)
    return oldest
