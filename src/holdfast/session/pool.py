"""The sessions of one server, as the downstream side, the catalogue and the operator use them."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from msgspec import Raw

from holdfast.call import Call, Caller, Result, Running
from holdfast.config import ServerSettings
from holdfast.events import Ending
from holdfast.session.breaker import Circuit
from holdfast.session.closing import DRAIN_TIMEOUT
from holdfast.session.joining import Joining
from holdfast.session.key import SessionKey
from holdfast.session.lifecycle import State
from holdfast.session.opening import set_up
from holdfast.session.running import RunningCall, Terms
from holdfast.session.session import Session
from holdfast.session.view import view
from holdfast.session.watch import Watcher
from holdfast.views import SessionView


class Pool(Joining):
    """Every session with one server. Not usable before `observer` is set."""

    # What the downstream side and the catalogue use.

    def warm(self, key: SessionKey, caller: Caller) -> Running | None:
        """Open the session of `key` and `ping` in it; at once an empty result where one is open, and None.

        What the session before remembered stays to be told to the next call.
        """
        if self.session_of(key) is not None:
            caller.answer(Result(Raw(b"{}")))
            return None
        call = Call("ping")
        run = RunningCall(self._terms, key, call, caller, None)
        run.safety = self.observer.safety(call)
        run.is_ahead = True
        self._begin(run)
        return run

    def is_lost(self, key: SessionKey) -> bool:
        """Whether the next call of `key` will be told that what its session remembered is gone."""
        return key in self._markers

    def attach(self, key: SessionKey, watcher: Watcher) -> None:
        """Let `watcher` hear what the sessions of `key` push, now and after every reopening."""
        place = self._places.watch(key, watcher)
        if place.session is not None and place.session.is_open:
            set_up(place.session, (watcher,))
        if key.is_private and self.parting is None:
            self._roster.refill()

    def detach(self, key: SessionKey, watcher: Watcher) -> None:
        """Forget `watcher`; a session that only its client session named ends."""
        place = self._places.unwatch(key, watcher)
        if place is None:
            return
        session = place.session
        if session is not None:
            session.detach(watcher)
        if key.ends_with_client and not place.watchers:
            self._closing.close_key(key, Ending.CLIENT_ENDED)
        self._places.tidy(place)

    def end_session_of(self, key: SessionKey) -> None:
        """End all that is there for `key`, which nobody will call with any more, and leave it no marker."""
        self._closing.close_key(key, Ending.HANDLE_ENDED)

    def session_of(self, key: SessionKey) -> Session | None:
        """The open session of `key`, if there is one."""
        place = self._places.get(key)
        return place.session if place is not None and place.session is not None and place.session.is_open else None

    def holds(self, key: SessionKey) -> bool:
        """Whether `key` has a session, open or opening, or calls that wait for one."""
        place = self._places.get(key)
        return place is not None and (place.session is not None or bool(place.waiting))

    def borrow(self, prefer: SessionKey | None, *, unused: bool = False) -> AbstractAsyncContextManager[Session]:
        """A session to ask the server something of our own, held while the block runs.

        That of `prefer` if it has one, else any, else a new one: the shared one, or a spare. With
        `unused` only one that no call ever ran in, so that what it says is nobody's. Raises `OpenFailed`.
        """
        return self._lending.borrow(prefer, unused=unused)

    @property
    def can_lend_unused(self) -> bool:
        """Whether there is a session that nobody used, or room for one."""
        return self._lending.can_lend_unused

    @property
    def sessions(self) -> list[Session]:
        """All that take up room, those that are still closing included."""
        return list(self._roster)

    @property
    def retry_delay(self) -> float:
        """Seconds until the server may be tried again after it could not be reached."""
        return self._breaker.delay

    def count(self, state: State) -> int:
        """How many sessions are in `state`."""
        return sum(s.state is state for s in self._roster)

    # What the operator sees, and does.

    def views(self) -> list[SessionView]:
        """Every session as it stands now, those that are still closing included."""
        now = self._clock.now()
        return [view(session, self.settings.name, now) for session in self._roster]

    def states(self) -> dict[str, int]:
        """How many sessions are in each state that any is in."""
        return dict(Counter(session.state.value for session in self._roster))

    @property
    def sent(self) -> int:
        """Calls that hold a slot: sent to the server, and neither answered nor waiting for a person."""
        return self._dispatch.slots.sent

    @property
    def queued(self) -> int:
        """Calls that wait for a slot, or for the server to be back."""
        return self._dispatch.queued

    @property
    def waiting(self) -> int:
        """Calls that wait for a session."""
        return self._places.waiting

    @property
    def circuit(self) -> Circuit:
        """Whether the server is left alone, or being tried."""
        return self._breaker.circuit

    def close_session(self, session_id: str) -> bool:
        """End the session that is called `session_id` here, for an operator; whether there was one to end.

        Its calls are cancelled and told why, and if it was dirty its next caller is told too.
        """
        return self._closing.close_by_id(session_id)

    def close_sessions_of(self, client: str, user: str | None = None, *, kind: Ending = Ending.CLIENT_REMOVED) -> None:
        """End all that is there for a configured client, or for one user of it, and leave no marker."""
        self._closing.close_all_of(client, user, kind)

    # Its own life.

    def run(self) -> None:
        """Begin to close what has expired, and to keep spares."""
        self._closing.run()

    def reap(self) -> list[Session]:
        """Close the sessions that have expired and return them."""
        return self._closing.reap()

    def reconfigure(self, settings: ServerSettings) -> None:
        """Let other timeouts and limits hold from now on; no session ends, but those that exceed a lower limit.

        Calls under way keep the timeouts with which they began. `settings` are of the same server, with
        the same revision and credentials.
        """
        self.settings = settings
        parts = (
            self._roster,
            self._line,
            self._dispatch,
            self._lending,
            self._recovery,
            self._settling,
            self._closing,
        )
        for part in parts:
            part.settings = settings
        self._terms.close()
        self._terms = Terms(self, settings, self._clock, self._terms.emit)
        for session in self._roster:
            session.ask_timeout = settings.ask_timeout
        self._dispatch.slots.resize(settings.max_concurrency, settings.max_queue)
        if self.parting is None:
            self._closing.trim()
            self._dispatch.send_next()
            self._line.move()
            self._roster.refill()

    def inherit(self, old: Pool, *, revision: str, credential: str) -> None:
        """Tell whoever comes back for what the sessions of `old` remember that it is gone, once each.

        Its keys are those of `old` with the new `revision` and `credential`; call it before or after `old`
        is retired.
        """
        if self.can_inherit(old):
            for key in old.remembered():
                self._markers.add(replace(key, revision=revision, credential=credential))

    def can_inherit(self, old: Pool) -> bool:
        """Whether the keys of `old` have their like here, and whoever comes back for them is told what is gone."""
        return self.settings.scope == old.settings.scope and self.settings.on_loss == "tell"

    def remembered(self) -> list[SessionKey]:
        """The keys for which something is remembered, or was, and nobody has been told."""
        return self._settling.remembered()

    def retire(self, sentence: str | None = None, *, is_inherited: bool = False) -> None:
        """Serve nothing any more: calls that wait, and those that come, get -31001 with `sentence`.

        Sessions without calls close at once and the others with their last call; none is opened any more.
        `is_inherited`: another pool tells whoever comes back that what they remembered is gone.
        """
        self._closing.retire(sentence, is_inherited=is_inherited)

    async def drain(self, sentence: str | None = None, limit: float = DRAIN_TIMEOUT) -> None:
        """Retire, if not done yet, and return when every session has ended: calls under way have `limit` seconds.

        Cancelled, it drops what is left at once.
        """
        await self._closing.drain(sentence, limit)

    async def aclose(self) -> None:
        """End every session in order; whoever waits is told. Bounded by the caller: see `terminate`."""
        await self._closing.aclose()

    def terminate(self) -> None:
        """Drop every session at once. Idempotent."""
        self._roster.terminate()
        self._terms.close()
