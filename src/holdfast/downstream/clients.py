"""The MCP sessions of clients: a thing of the downstream side, with its own life."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import Final

from holdfast.call import NOBODY, Abilities
from holdfast.clock import Clock, Timer
from holdfast.config import Limits
from holdfast.downstream.callers import stand_in
from holdfast.downstream.client import Client
from holdfast.downstream.http import Responder
from holdfast.downstream.refusal import Refusal
from holdfast.downstream.replay import KEEP_FINISHED, PUSH, EventStream, ReplayBudget, read_event_id
from holdfast.identity.asker import Asker
from holdfast.servers.server import Server
from holdfast.servers.service import Service
from holdfast.session.key import Principal
from holdfast.session.session import LIST_CHANGES
from holdfast.wire.revisions import allows_priming

PUSH_KEEP_ALIVE: Final = 40.0
"""Seconds between comments on a stream that only waits: there may be ten thousand, and each comment wakes one.

Common proxies give up a silent answer after 50 s (HAProxy's example) to 60 s (nginx)."""
MAX_STREAMS: Final = 256
"""Streams that one client session may have, finished ones that can be resumed included."""

_LIMITS: Final = Limits()
_RETRY_AFTER: Final = ((b"retry-after", b"30"),)


class ClientSession(Client):
    """A client over HTTP: its streams can be left and resumed, and it comes back with its id."""

    def __init__(
        self, service: Service, asker: Asker, revision: str, abilities: Abilities, budget: ReplayBudget
    ) -> None:
        super().__init__(service, asker.principal, revision, abilities)
        self.owner = asker.identity.principal
        """Who must ask to be let in."""
        self.began_at_whole = False
        """It began at `/mcp`, and goes on there as what that was then: the server alone, or all servers."""
        self.requests = 0
        """HTTP requests that are being answered."""
        self.last_used_at = 0.0
        self.heartbeat: Timer | None = None
        """The next sign of life on the GET stream."""
        self._secret = secrets.token_bytes(32)
        self._budget = budget
        self._next_stream = PUSH + 1
        self._stand_in = partial(stand_in, server=service.name)
        self.push_stream = EventStream(PUSH, self._secret, budget, self._stand_in)
        self.streams: dict[int, EventStream] = {PUSH: self.push_stream}

    @property
    def abilities(self) -> Abilities:
        return self.own_abilities if self.push_stream.is_read and not self.is_ended else NOBODY

    @property
    def primes(self) -> bool:
        """Whether streams begin with an empty event, and may be left by the server (SEP-1699)."""
        return allows_priming(self.revision)

    @property
    def is_busy(self) -> bool:
        """Whether a request or a stream is open."""
        return self.requests > 0 or any(stream.is_read for stream in self.streams.values())

    def new_stream(self, now: float) -> EventStream:
        """A stream for one POST."""
        if len(self.streams) >= MAX_STREAMS:
            self.forget_streams(now, keep=0.0)
        stream = EventStream(self._next_stream, self._secret, self._budget, self._stand_in)
        self.streams[stream.name] = stream
        self._next_stream += 1
        return stream

    def forget_streams(self, now: float, keep: float = KEEP_FINISHED) -> None:
        """Drop the streams that finished more than `keep` seconds ago."""
        for name, stream in list(self.streams.items()):
            if stream.finished_at is not None and now - stream.finished_at >= keep:
                stream.forget()
                del self.streams[name]

    def find_stream(self, last_event_id: str) -> tuple[EventStream, int] | None:
        """The stream to resume, and after which event; None for an id that is not of this session."""
        place = read_event_id(self._secret, last_event_id)
        stream = self.streams.get(place[0]) if place is not None else None
        return (stream, place[1]) if stream is not None and place is not None else None

    def open_push(self, responder: Responder, *, after: int | None, gone: Callable[[], None]) -> None:
        """Let `responder` read the GET stream."""
        self.push_stream.attach(responder, after=after, primes=after is None and self.primes, gone=gone)
        for conversation in self.conversations:
            conversation.offer_roots(self.own_abilities.roots)

    def move(self, service: Server) -> None:
        """Go on with a server that takes the place of this one's: what was set up and asked for is asked for anew."""
        self.service = service
        self._conversation = None
        self.used = None
        before, self.conversations = self.conversations, {}  # not left: what runs there still ends in order
        for conversation in before:
            self.use(service.renew(conversation, self))
        self.announce()

    def announce(self) -> None:
        """Say that the client may find other lists now."""
        for method in sorted(LIST_CHANGES):
            self.push(method, None)

    def rest(self) -> None:
        """Nobody reads the GET stream: it needs no sign of life."""
        if self.heartbeat is not None:
            self.heartbeat.cancel()
            self.heartbeat = None

    def end(self) -> None:
        """Give everything up; sessions that only this one named end too."""
        super().end()
        self.rest()
        for stream in self.streams.values():
            stream.forget()
        self.streams.clear()

    @property
    def is_nameless(self) -> bool:
        """It belongs to whoever a trusted client left unnamed, so nobody can prove to be the same again."""
        return self.principal != self.owner

    def inform(self, method: str, message: bytes) -> None:
        del method  # whatever it is, it is kept for a while
        if self.push_stream.is_read or not self.is_nameless:
            self.push_stream.emit(message, droppable=True)

    def deliver(self, message: bytes) -> None:
        self.push_stream.emit(message, droppable=False)


class ClientSessions:
    """All client sessions of the gateway, found by id and by whom they belong to."""

    def __init__(self, clock: Clock, idle_timeout: float, limits: Limits = _LIMITS) -> None:
        self.budget = ReplayBudget()
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._limits = limits
        self._sessions: dict[str, ClientSession] = {}
        self._by_user: dict[Principal, dict[ClientSession, None]] = {}
        """Those of users whom trusted hosts name."""
        self._timer: Timer | None = None

    def reconfigure(self, idle_timeout: float, limits: Limits) -> None:
        """Go by these bounds from now on; sessions beyond them stay."""
        self._idle_timeout, self._limits = idle_timeout, limits
        if self._timer is not None:
            self._timer.cancel()
            self._sweep()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[ClientSession]:
        return iter(list(self._sessions.values()))

    def create(self, service: Service, asker: Asker, revision: str, abilities: Abilities) -> ClientSession:
        """A new session, known from now on. Raises `Refusal` where there are too many."""
        if len(self._sessions) >= self._limits.sessions:
            raise Refusal(
                503, f"There are {len(self._sessions)} sessions already: try again later.", headers=_RETRY_AFTER
            )
        principal = asker.identity.principal
        user = principal if principal.user is not None else None
        if user is not None:
            self._make_room(user)
        session = ClientSession(service, asker, revision, abilities, self.budget)
        session.last_used_at = self._clock.now()
        self._sessions[session.id] = session
        if user is not None:
            self._by_user.setdefault(user, {})[session] = None
        if self._timer is None:
            self._timer = self._clock.call_later(self._idle_timeout / 4, self._sweep)
        return session

    def find(self, session_id: str, principal: Principal, service: Service) -> ClientSession | None:
        """The session of that id, if it is the caller's own: another's is as unknown as none."""
        session = self._sessions.get(session_id)
        if session is None or session.service is not service:
            return None
        return session if session.owner is principal or session.owner == principal else None

    def owner_of(self, session_id: str) -> Principal | None:
        """Whose session has that id."""
        session = self._sessions.get(session_id)
        return None if session is None else session.owner

    def end(self, session: ClientSession) -> None:
        """End a session; its id is unknown from now on."""
        if self._sessions.pop(session.id, None) is None:
            return
        own = self._by_user.get(session.owner)
        if own is not None:
            own.pop(session, None)
            if not own:
                del self._by_user[session.owner]
        session.end()

    def find_begun_at_whole(self, session_id: str, principal: Principal) -> ClientSession | None:
        """As `find`, for a session that began at `/mcp` when that was another service."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.owner == principal and session.began_at_whole else None

    def enter(self, session: ClientSession) -> None:
        """A request of the session begins."""
        session.requests += 1

    def leave(self, session: ClientSession) -> None:
        """A request of the session is answered, or its client left."""
        session.requests -= 1
        session.last_used_at = self._clock.now()

    def move(self, old: Server, new: Server) -> None:
        """Let the sessions of `old` go on with `new`, which takes its place."""
        for session in self:
            if session.service is old:
                session.move(new)

    def end_with(self, server: Server) -> None:
        """End the sessions of a server that is not served any more."""
        for session in self:
            if session.service is server:
                self.end(session)

    def shut_out(self, clients: Container[str]) -> None:
        """End the sessions of clients that are not what they were."""
        for session in self:
            if session.owner.client in clients:
                self.end(session)

    def announce(self, clients: Container[str], servers: Container[Service]) -> None:
        """Say to the sessions of these clients, and to those with these servers, that they may find other lists."""
        for session in self:
            if session.owner.client in clients or session.service in servers:
                session.announce()

    def send_away(self) -> None:
        """End the streams on which clients only listen."""
        for session in self._sessions.values():
            session.push_stream.send_away()

    def close(self) -> None:
        """End every session."""
        if self._timer is not None:
            self._timer.cancel()
        for session in list(self._sessions.values()):
            self.end(session)

    def beat(self, session: ClientSession) -> None:
        """Show from time to time that the GET stream lives, for as long as it is read."""
        session.rest()
        session.heartbeat = self._clock.call_later(PUSH_KEEP_ALIVE, lambda: self._beat(session))

    def _beat(self, session: ClientSession) -> None:
        if session.push_stream.is_read:
            session.push_stream.comment()
            self.beat(session)

    def _make_room(self, user: Principal) -> None:
        own = self._by_user.get(user, {})
        if len(own) < self._limits.sessions_per_user:
            return
        idle = [session for session in own if not session.is_busy and not session.calls]
        if not idle:
            raise Refusal(429, f"This user has {len(own)} sessions, and all are busy.", headers=_RETRY_AFTER)
        self.end(min(idle, key=lambda session: session.last_used_at))

    def _sweep(self) -> None:
        now = self._clock.now()
        for session in list(self._sessions.values()):
            if session.is_busy or session.calls:
                session.last_used_at = now
            session.forget_streams(now)
            if now - session.last_used_at >= self._idle_timeout:
                self.end(session)
        self._timer = self._clock.call_later(self._idle_timeout / 4, self._sweep) if self._sessions else None
