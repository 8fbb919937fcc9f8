"""What the pool knows of one key, and who waits in line for a session."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.call import StatusWord
from holdfast.errors import CallFailed
from holdfast.session.key import SessionKey
from holdfast.session.running import RunningCall
from holdfast.session.session import Session
from holdfast.session.watch import Watcher, lowest


@dataclass(eq=False, slots=True)
class Place:
    """A key that has a session, or wants one."""

    key: SessionKey
    session: Session | None = None
    waiting: deque[RunningCall] = field(default_factory=deque[RunningCall])
    watchers: list[Watcher] = field(default_factory=list[Watcher])
    is_reopening: bool = False
    """Its last session was lost, and none has followed yet."""

    @property
    def level(self) -> str | None:
        """The lowest log level that a waiting call asks for."""
        return lowest(run.call.log_level for run in self.waiting)

    def opening(self, word: StatusWord, sentence: str) -> None:
        """Tell who waits that a session opens; the opening has a time limit of its own."""
        for run in list(self.waiting):
            run.wait(None)
            run.tell(word, sentence)


class Places:
    """Every key that has a session, wants one or is watched, and the line of those that want one."""

    def __init__(self, left: Callable[[Place], None]) -> None:
        self.line: dict[Place, None] = {}
        """First come first."""
        self.waiting = 0
        """Calls that wait for a session, of all keys."""
        self.listeners = 0
        """Those who watch a private key: between its calls it has no session, so they hear of what all are told."""
        self._left = left
        """Told of a place that waits no longer."""
        self.of: dict[SessionKey, Place] = {}
        """By key."""

    def __len__(self) -> int:
        return len(self.of)

    def get(self, key: SessionKey | None) -> Place | None:
        """The place of `key`, if it has one; a spare has none."""
        return self.of.get(key) if key is not None else None

    def make(self, key: SessionKey) -> Place:
        """The place of `key`."""
        place = self.of.get(key)
        if place is None:
            place = self.of[key] = Place(key)
        return place

    def values(self) -> list[Place]:
        """Every place."""
        return list(self.of.values())

    def watchers(self) -> list[Watcher]:
        """Everyone who watches, once each."""
        return list(dict.fromkeys(w for place in self.of.values() for w in place.watchers))

    def watch(self, key: SessionKey, watcher: Watcher) -> Place:
        """The place of `key`, watched by `watcher` from now on."""
        place = self.make(key)
        if watcher not in place.watchers:
            place.watchers.append(watcher)
            self.listeners += key.is_private
        return place

    def unwatch(self, key: SessionKey, watcher: Watcher) -> Place | None:
        """The place that `watcher` watched, and watches no longer; None where it did not."""
        place = self.of.get(key)
        if place is None or watcher not in place.watchers:
            return None
        place.watchers.remove(watcher)
        self.listeners -= key.is_private
        return place

    def join(self, place: Place, run: RunningCall) -> None:
        """Let `run` wait for the session of `place`; the first for whom one is opened decides its era."""
        if place.session is None and not place.waiting:
            place.key = run.key
        place.waiting.append(run)
        if place.session is not None:
            place.session.called_level = lowest((place.session.called_level, run.call.log_level))
        self.waiting += 1

    def leave(self, run: RunningCall) -> None:
        """`run` waits no longer."""
        place = self.of.get(run.key)
        if place is not None and run in place.waiting:
            place.waiting.remove(run)
            self.waiting -= 1
            self.tidy(place)

    def fail(self, place: Place, failure: CallFailed) -> None:
        """End the calls that wait for the session of `place`."""
        for run in list(place.waiting):
            run.tell(StatusWord.FAILED, failure.message)
            run.end(failure)
        self.tidy(place)

    def take(self, place: Place) -> list[RunningCall]:
        """The calls that waited for the session of `place`, first come first; they wait no longer."""
        runs = list(place.waiting)
        place.waiting.clear()
        self.waiting -= len(runs)
        return runs

    def queue(self, place: Place) -> None:
        """Let `place` wait for a session."""
        self.line[place] = None

    def tidy(self, place: Place) -> None:
        """Forget what `place` no longer needs: its turn in line, or itself."""
        if not place.waiting or place.session is not None:
            self.line.pop(place, None)
            self._left(place)
            if place.session is None and not place.watchers:
                self.of.pop(place.key, None)
