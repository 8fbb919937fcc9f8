"""What happens in the gateway as an event stream: each reader is a place in the feed's ring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from holdfast.clock import Clock, Timer
from holdfast.downstream.http import Headers, Responder
from holdfast.observe.feed import Entry, EventFeed, encode
from holdfast.wire import sse

KEEP_ALIVE: Final = 15.0
"""Seconds between comments; common proxies give up on a silent stream after 60."""


class EventStream:
    """Writes the feed to one reader.

    One who comes back begins with the event numbered `resumed_at`, as far as the feed remembers it;
    a new one with the latest `recent` that the feed remembers. For a slow reader nothing queues up:
    once it has caught up it gets what the feed remembers. How many events a reader never gets, it is
    told.
    """

    def __init__(
        self,
        responder: Responder,
        headers: Headers,
        feed: EventFeed,
        clock: Clock,
        *,
        run: str,
        resumed_at: int | None,
        recent: int,
        ended: Callable[[EventStream], None],
    ) -> None:
        self._responder = responder
        self._feed = feed
        self._clock = clock
        self._run = run
        self._next = resumed_at
        self._owed_from = resumed_at
        """The first event that this reader is owed; None until the first comes."""
        self._ended = ended
        responder.on_gone = self._close
        responder.on_drained = self._catch_up
        responder.open(headers)
        responder.write(sse.COMMENT)  # so that the reader knows at once that it is heard
        self._unsubscribe = feed.subscribe(self._take)
        self._timer: Timer = clock.call_later(KEEP_ALIVE, self._keep_alive)
        if resumed_at is None and recent:
            self._next = next((entry.number for entry in feed.recent[-recent:]), None)
        self._catch_up()

    def end(self) -> None:
        """End the stream; the reader may come back with the id of what it read last."""
        self._close()
        self._responder.end()

    def _take(self, entry: Entry) -> None:
        if self._owed_from is None:
            self._owed_from = entry.number
        if self._next is None:
            self._next = entry.number
        self._write((entry,), self._next, self._owed_from)

    def _catch_up(self) -> None:
        following = self._next
        if following is not None:
            unread = [entry for entry in self._feed.recent if entry.number >= following]
            self._write(unread, following, self._owed_from)

    def _write(self, entries: Sequence[Entry], following: int, owed_from: int | None) -> None:
        missed = 0
        for entry in entries:
            if self._responder.is_slow or self._responder.is_gone:
                break
            if owed_from is not None:
                missed += max(0, entry.number - max(following, owed_from))
            self._next = following = entry.number + 1
            fields = encode(entry)
            name = str(fields["event"]).encode()
            head = b"id: %b-%d\nevent: %b\n" % (self._run.encode(), entry.number, name)
            self._responder.write(b"%bdata: %b\n\n" % (head, msgspec.json.encode(fields)))
        if missed:
            self._responder.write(b'event: missed\ndata: {"count":%d}\n\n' % missed)

    def _keep_alive(self) -> None:
        if not self._responder.is_slow:
            self._responder.write(sse.COMMENT)
        self._timer = self._clock.call_later(KEEP_ALIVE, self._keep_alive)

    def _close(self) -> None:
        self._timer.cancel()
        self._unsubscribe()
        self._ended(self)


def resume_at(last_id: str | None, run: str) -> int | None:
    """The number that follows the event `last_id`; None where that is no event of this `run` of the gateway."""
    named, _, number = (last_id or "").rpartition("-")
    if named == run and number.isascii() and number.isdigit() and len(number) < 19:
        return int(number) + 1
    return None
