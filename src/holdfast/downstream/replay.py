"""Event streams of a client session that survive a lost connection (`Last-Event-ID`)."""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from enum import Enum
from hashlib import blake2b
from typing import Final, TypeAlias

from holdfast.downstream.http import Headers, Responder
from holdfast.wire import sse

STREAM_HEADERS: Final[Headers] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
RETRY_MS: Final = 1000
"""When a client that was sent away should come back."""
PUSH: Final = 0
"""The number of the GET stream."""
MAX_EVENTS: Final = 256
MAX_BYTES: Final = 256 * 1024
"""Notifications kept per stream for a client that is away; answers and questions are kept beyond `MAX_BYTES`."""
KEEP_FINISHED: Final = 60.0
"""Seconds that a finished stream can still be resumed."""
_PROOF_LENGTH: Final = 24
"""Hexadecimal digits."""
_PROOFS: Final = 5
"""Events in a row whose ids are made at once: as many as one MAC has room for."""


class Share(Enum):
    """How much of the budget may be in use once something of a kind has been kept."""

    DROPPABLE = 1 / 2
    WHOLE = 15 / 16
    """Answers and questions."""
    STAND_IN = 1.0
    """The short errors that stand for answers for which there was no room."""


_DROPPABLE, _WHOLE, _STAND_IN = Share
"""By these names, since Python 3.11 looks a member of an enum up by a call."""


StandIn: TypeAlias = Callable[[bytes], bytes | None]
"""Makes what is kept in place of a message for which there is no room; None for nothing."""


class Drops:
    """How many messages nobody will see, counted for the operator."""

    __slots__ = ("away", "slow")

    def __init__(self) -> None:
        self.slow = 0
        """Their reader had more waiting than it should."""
        self.away = 0
        """Their client was away for longer than they were kept."""

    @property
    def counted(self) -> dict[str, int]:
        """The numbers by their names."""
        return {"slow": self.slow, "away": self.away}


class ReplayBudget:
    """Bytes that all streams of the process may keep for clients that are away."""

    def __init__(self, limit: int = 256 * 1024 * 1024) -> None:
        self._limit = limit
        self._whole_limit, self._droppable_limit = limit * Share.WHOLE.value, limit * Share.DROPPABLE.value
        self.drops = Drops()
        self._droppers: dict[EventStream, None] = {}
        """The streams that keep what may be dropped, longest first."""
        self.used = 0

    def take(self, size: int, share: Share, stream: EventStream) -> bool:
        """Take `size` bytes for `stream` if they are left, or come free by dropping what may be dropped."""
        if share is _DROPPABLE:
            if self.used + size > self._droppable_limit:
                return False
            self._droppers[stream] = None
        else:
            limit = self._whole_limit if share is _WHOLE else self._limit
            if self.used + size > limit and not self._shed(limit - size):
                return False
        self.used += size
        return True

    def _shed(self, limit: float) -> bool:
        """Drop what may be dropped until no more than `limit` is used; False where that is not enough."""
        for dropper in list(self._droppers):
            dropper.shed()
            if self.used <= limit:
                return True
        return False

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self.used -= size

    def has_shed(self, stream: EventStream) -> None:
        """`stream` keeps nothing more that may be dropped."""
        self._droppers.pop(stream, None)


class EventStream:
    """Numbered events of one stream; at most one response reads them at a time.

    What was written while nobody read, and what may have been lost on the way, is sent again to
    who resumes. Event ids are authenticated per session, so those of another replay nothing.
    """

    finished_at: float | None = None
    dropped = 0
    """Events that nobody will see: the reader was slow or away for too long."""
    _responder: Responder | None = None
    _is_finished = False
    _size = 0
    _next = 1
    _written = 0
    _row = -1
    """Of the events whose proofs are at hand."""
    _proofs = b""

    def __init__(self, name: int, secret: bytes, budget: ReplayBudget, stand_in: StandIn) -> None:
        self.name = name
        self._stand_in = stand_in
        self._secret = secret
        self._budget = budget
        self._kept: deque[tuple[int, bytes, bool]] = deque()

    @property
    def is_read(self) -> bool:
        """Whether a response is reading now."""
        return self._responder is not None and not self._responder.is_gone

    @property
    def is_slow(self) -> bool:
        """Whether the reader lags."""
        return self._responder is not None and self._responder.is_slow

    def emit(self, data: bytes, *, droppable: bool) -> None:
        """Send an event now, or keep it for who resumes."""
        if self._is_finished:
            return
        reader = self._responder
        if reader is not None:
            if reader.is_gone:
                reader = None
            elif droppable and reader.is_slow:
                self._lose_slow()
                return
        number = self._next
        self._next = number + 1
        if reader is not None:
            self._written = number
            reader.write(sse.format_event(data, self._id_of(number)))
        self._keep(number, data, _DROPPABLE if droppable else _WHOLE)

    def attach(
        self,
        responder: Responder,
        *,
        after: int | None = None,
        primes: bool = False,
        gone: Callable[[], None] | None = None,
    ) -> None:
        """Let `responder` read from after event number `after` on; whoever read before is sent away.

        None: from after the last event that was ever written to a response.
        """
        if self._responder is not None:
            self.send_away()
        self._responder = responder
        responder.on_gone = gone
        responder.open(STREAM_HEADERS)
        start = self._written if after is None else after
        if primes:  # the id of the place where this response begins: no event is skipped by resuming from it
            responder.write(sse.format_priming(self._id_of(start), RETRY_MS))
        for number, data, _ in self._kept:
            if number > start:
                self._written = max(self._written, number)
                responder.write(sse.format_event(data, self._id_of(number)))
        if self._is_finished:
            responder.end()

    def comment(self) -> None:
        """Show that the stream lives."""
        if self.is_read and self._responder is not None:
            self._responder.write(sse.COMMENT)

    def send_away(self) -> None:
        """End the response that reads now; the stream goes on for who resumes it."""
        if self._responder is not None:
            self._responder.on_gone = None
            self._responder.end()
            self._responder = None

    def finish(self, now: float) -> None:
        """No more events: the response ends, and a client that missed some may still fetch them."""
        self._is_finished = True
        self.finished_at = now
        self.send_away()

    def forget(self) -> None:
        """Give everything up that is kept."""
        self._is_finished = True
        self.send_away()
        self._kept.clear()
        self._budget.give_back(self._size)
        self._budget.has_shed(self)
        self._size = 0

    def shed(self) -> None:
        """Drop what may be dropped: somebody's answer needs the room."""
        for item in [item for item in self._kept if item[2]]:
            self._drop(item)
        self._budget.has_shed(self)

    def _keep(self, number: int, data: bytes, share: Share) -> None:
        size = len(data)
        if not self._budget.take(size, share, self):
            stand_in = self._stand_in(data) if share is _WHOLE else None
            if stand_in is not None:
                self._keep(number, stand_in, _STAND_IN)
            elif not self.is_read:
                self._lose()
            return
        self._kept.append((number, data, share is _DROPPABLE))
        self._size += size
        if self._size > MAX_BYTES or len(self._kept) > MAX_EVENTS:
            self._trim()

    def _trim(self) -> None:
        """Drop what may be dropped, the oldest first, until no more is kept than should be."""
        for item in list(self._kept):
            if len(self._kept) <= MAX_EVENTS and self._size <= MAX_BYTES:
                return
            if item[2]:
                self._drop(item)
        while self.name == PUSH and len(self._kept) > MAX_EVENTS:  # questions of long ago: it never finishes
            self._drop(self._kept[0])

    def _lose_slow(self) -> None:
        self.dropped += 1
        self._budget.drops.slow += 1

    def _lose(self) -> None:
        self.dropped += 1
        self._budget.drops.away += 1

    def _drop(self, item: tuple[int, bytes, bool]) -> None:
        if item[0] > self._written:
            self._lose()
        self._kept.remove(item)
        self._size -= len(item[1])
        self._budget.give_back(len(item[1]))

    def _id_of(self, number: int) -> bytes:
        """As `event_id`."""
        row = number // _PROOFS
        if row != self._row:
            self._row, self._proofs = row, _proofs(self._secret, self.name, row)
        start = number % _PROOFS * _PROOF_LENGTH
        return b"%d.%d.%b" % (self.name, number, self._proofs[start : start + _PROOF_LENGTH])


def event_id(secret: bytes, stream: int, number: int) -> str:
    """The id of an event: where it stands, and a proof that we wrote it for this session."""
    row, place = divmod(number, _PROOFS)
    start = place * _PROOF_LENGTH
    proof = _proofs(secret, stream, row)[start : start + _PROOF_LENGTH]
    return f"{stream}.{number}.{proof.decode()}"


def _proofs(secret: bytes, stream: int, row: int) -> bytes:
    """For the events of a row, that we wrote them for this session: the parts of one MAC (RFC 7693), one for each."""
    return blake2b(b"%d.%d" % (stream, row), key=secret, digest_size=_PROOFS * _PROOF_LENGTH // 2).hexdigest().encode()


def read_event_id(secret: bytes, value: str) -> tuple[int, int] | None:
    """The stream and number of an event id of this session; None for any other text."""
    parts = value.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 16 for p in parts[:2]):
        return None
    stream, number = int(parts[0]), int(parts[1])
    expected = event_id(secret, stream, number)
    return (stream, number) if hmac.compare_digest(expected.encode(), value.encode()) else None
