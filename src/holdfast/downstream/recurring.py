"""Heads that come again and again through ASGI, and what was found out of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeAlias, TypeVar, cast

from holdfast.clock import Clock, Timer
from holdfast.downstream.http import Headers, Message

PERIOD: Final = 5.0
"""Seconds: a head is forgotten once it has not come for one to two of these. uvicorn keeps a silent connection so."""
MAX_HEADS: Final = 1000
"""That come within a period; others are read anew each time."""
MAX_HEAD_BYTES: Final = 4096
"""Of one that is kept."""
_MAX_SEEN: Final = 4096
_LENGTH: Final = b"content-length"

HeadKey: TypeAlias = tuple[Hashable, ...]
"""All that an application can know of a POST by its head, but for the length of its body."""

M = TypeVar("M")


class RecurringHeads(Generic[M]):
    """The meaning of heads under the settings of the moment, from their second coming until they come no more.

    A head is compared whole, with all that it bears: what follows from equal heads is equal. ASGI does not say which
    requests came on one connection, so unlike `HeadMemory` this knows the heads of all.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._edition: object = None
        self._recent: dict[HeadKey, M] = {}
        """That came within this period."""
        self._older: dict[HeadKey, M] = {}
        """That came in the one before, and not yet in this."""
        self._seen: set[int] = set()
        """Hashes of heads that came once: most of those that bear a number or a time never come again."""
        self._length_at = 0
        """Where in a head its length stood last: mostly it stands there again."""
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    def key(self, scope: Message, limit: int) -> HeadKey | None:
        """The head of a POST by which to find it again; None where it has not one length, of up to `limit` bytes."""
        if scope["method"] != "POST":
            return None
        headers: Headers = scope["headers"]
        at = self._length_at
        if at >= len(headers) or headers[at][0] != _LENGTH:
            at = next((i for i, field in enumerate(headers) if field[0] == _LENGTH), -1)
            if at < 0:
                return None
            self._length_at = at
        length = headers[at][1]
        if not length.isdigit() or len(length) > 9 or int(length) > limit:
            return None
        path: Hashable = scope.get("raw_path") or scope["path"]
        return (path, scope.get("query_string"), *headers[:at], *headers[at + 1 :])

    def recall(self, key: HeadKey, edition: object) -> M | None:
        """What the head meant, if it is known; under another `edition` of the settings nothing is."""
        if edition is not self._edition:
            self.forget()
            self._edition = edition
            return None
        try:
            meaning = self._recent.get(key)
        except TypeError:  # ASGI lets a server give lists
            return None
        if meaning is None and self._older:
            meaning = self._older.get(key)
            if meaning is not None and len(self._recent) < MAX_HEADS:
                self._recent[key] = self._older.pop(key)
        return meaning

    def is_worth_keeping(self, key: HeadKey) -> bool:
        """Whether a head that is not known came before and may be kept; if not, it is known to have come once."""
        try:
            number = hash(key)
        except TypeError:
            return False
        if number not in self._seen:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(number)
            return False
        return len(self._recent) < MAX_HEADS and _size(key) <= MAX_HEAD_BYTES

    def keep(self, key: HeadKey, meaning: M) -> None:
        """Know a head under the edition of the settings that `recall` was told."""
        self._recent[key] = meaning
        if self._timer is None:
            self._timer = self._clock.call_later(PERIOD, self._age)

    def forget(self) -> None:
        """Know nothing any more."""
        self._recent, self._older = {}, {}
        self._seen.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _age(self) -> None:
        self._timer = None
        self._older, self._recent = self._recent, {}
        if self._older:
            self._timer = self._clock.call_later(PERIOD, self._age)


def _size(part: object) -> int:
    if isinstance(part, tuple):
        return sum(map(_size, cast("tuple[object, ...]", part)))
    return len(part) if isinstance(part, (bytes, str)) else 0
