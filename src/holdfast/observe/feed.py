"""Events for many: each taker gets every one, and whoever comes late the last thousand."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
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


class Taker:
    """Who is told what happens: of every kind of event, or of some."""

    __slots__ = ("_changed", "_kinds", "take")

    def __init__(self, take: events.Emit, kinds: frozenset[type[events.Event]] = KINDS) -> None:
        self.take = take
        self._kinds = kinds
        self._changed: list[Callable[[], None]] = []

    @property
    def kinds(self) -> frozenset[type[events.Event]]:
        """The kinds of events that it is told of."""
        return self._kinds

    def want(self, kinds: frozenset[type[events.Event]]) -> None:
        """Be told of these kinds from the next event on."""
        if kinds != self._kinds:
            self._kinds = kinds
            for changed in self._changed:
                changed()

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever it wants other kinds."""
        self._changed.append(changed)


def fan_out(*takers: Taker) -> events.Emit:
    """One `emit` that gives each event to the takers that want its kind, in order.

    A taker that raises harms neither the others nor whoever emits; the first time, it is logged.
    """
    numbered = tuple(enumerate(takers))
    of_kind: dict[type[events.Event], tuple[tuple[int, events.Emit], ...]] = {}
    failed: set[int] = set()

    def look_up() -> None:
        for kind in KINDS:
            of_kind[kind] = tuple((number, each.take) for number, each in numbered if kind in each.kinds)

    look_up()
    for each in takers:
        each.on_change(look_up)

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
    """Grows with every event that the feed is told of, remembered or not."""
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
        self.taker = Taker(self.take, KINDS - PASSING)
        """To be told what happens; of what passes too, while anybody listens."""

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
        self.taker.want(KINDS)
        return partial(self._leave, token)

    def _leave(self, token: object) -> None:
        self._subscribers.pop(token, None)
        if not self._subscribers:
            self.taker.want(KINDS - PASSING)

    def _tell(self, token: object, subscriber: Subscriber, entry: Entry) -> None:
        if token not in self._subscribers:
            return  # another one ended it meanwhile
        try:
            subscriber(entry)
        except Exception:
            self._leave(token)
            logger.exception("a subscriber failed, and gets no more events")


def encode(entry: Entry) -> dict[str, object]:
    """An entry in JSON's terms: its number, its time, and the event's own fields."""
    return {"number": entry.number, "time": rfc_3339(entry.at), **fields_of(entry.event)}
