"""Events for many: each taker gets every one, and whoever comes late the last thousand."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, get_args

from holdfast import events
from holdfast.observe.fields import bounded, fields_of, rfc_3339

logger = logging.getLogger("holdfast.observe")

KEPT: Final = 1000
"""Events that the feed remembers."""

KINDS: Final[frozenset[type[events.Event]]] = frozenset(get_args(events.Event))
"""Everything that can happen."""

PASSING: Final[frozenset[type[events.Event]]] = frozenset({events.CallEnded, events.RequestEnded})
"""Events that the feed does not remember: there are so many that they would push out all others."""


class Taker(NamedTuple):
    """Who is told what happens: of every kind of event, or of some."""

    take: events.Emit
    kinds: frozenset[type[events.Event]] = KINDS


def fan_out(*takers: Taker) -> events.Emit:
    """One `emit` that gives each event to the takers of its kind, in order.

    A taker that raises harms neither the others nor whoever emits; the first time, it is logged.
    """
    numbered = tuple(enumerate(takers))
    of_kind = {kind: [(number, each.take) for number, each in numbered if kind in each.kinds] for kind in KINDS}
    failed: set[int] = set()

    def emit(event: events.Event) -> None:
        for number, take in of_kind[type(event)]:
            try:
                take(event)
            except Exception:
                if number not in failed:
                    failed.add(number)
                    logger.exception("%s could not be shown; further failures of this kind are not logged", event)

    return emit


class Entry(NamedTuple):
    """An event in the feed."""

    number: int
    """Grows with every event, remembered or not."""
    at: float
    """Seconds since the epoch."""
    event: events.Event


Subscriber: TypeAlias = Callable[[Entry], None]


class EventFeed:
    """Remembers the last `KEPT` events but those of `PASSING`, and tells subscribers of each, those too."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._number = 0
        self._kept = deque[Entry](maxlen=KEPT)
        self._subscribers: dict[object, Subscriber] = {}

    @property
    def recent(self) -> list[Entry]:
        """What is remembered, the oldest first."""
        return list(self._kept)

    def take(self, event: events.Event) -> None:
        """Number an event, remember it, and tell every subscriber."""
        self._number += 1
        passes = type(event) in PASSING
        if passes and not self._subscribers:
            return
        entry = Entry(self._number, self._now(), bounded(event))
        if not passes:
            self._kept.append(entry)
        for token, subscriber in tuple(self._subscribers.items()):
            self._tell(token, subscriber, entry)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every event from the next on, until what is returned is called.

        It must not wait. One that raises is logged, and not called again.
        """
        token = object()
        self._subscribers[token] = subscriber

        def unsubscribe() -> None:
            self._subscribers.pop(token, None)

        return unsubscribe

    def _tell(self, token: object, subscriber: Subscriber, entry: Entry) -> None:
        if token not in self._subscribers:
            return  # another one ended it meanwhile
        try:
            subscriber(entry)
        except Exception:
            self._subscribers.pop(token, None)
            logger.exception("a subscriber failed, and gets no more events")


def encode(entry: Entry) -> dict[str, object]:
    """An entry in JSON's terms: its number, its time, and the event's own fields."""
    return {"number": entry.number, "time": rfc_3339(entry.at), **fields_of(entry.event)}
