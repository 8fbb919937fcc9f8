"""One configured server: its introduction, lists, calls and sessions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Literal, TypeAlias

from msgspec import Raw

from holdfast import events
from holdfast.call import DEFAULT_LOG_LEVEL, UNKNOWN_STATE, Call, Caller, Outcome, Result, RpcError, Running
from holdfast.catalog.catalog import CAPABILITY, Catalog, Introduced
from holdfast.catalog.mirrored import Mirrored
from holdfast.clock import Clock
from holdfast.config import ClientSettings, ServerSettings
from holdfast.errors import CallFailed
from holdfast.identity.asker import Asker
from holdfast.servers.explicit import OF_TOOLS, ExplicitSessions
from holdfast.servers.followed_tasks import FollowedTasks, Follower
from holdfast.servers.gate import FilteredList, Gate, unknown_tool
from holdfast.servers.handles import Handles
from holdfast.servers.keys import Keys
from holdfast.servers.offered import Public
from holdfast.servers.proxy import CallerProxy
from holdfast.servers.service import Conversation
from holdfast.servers.tasks import admit
from holdfast.session.key import SessionKey
from holdfast.session.opening import set_up
from holdfast.session.pool import Pool
from holdfast.session.quota import Quota
from holdfast.session.retry import parted
from holdfast.session.roster import Connect
from holdfast.session.tasks import METHODS
from holdfast.session.watch import Watcher
from holdfast.tasks import TaskScope
from holdfast.upstream.transport import Hello, Inquiry
from holdfast.views import ServerView
from holdfast.wire import jsonrpc

_EMPTY = Result(Raw(b"{}"))
_NOTHING: Mirrored = {}

Standing: TypeAlias = Literal["idle", "connecting", "ready", "failed"]


class Server:
    """The pool and the catalogue of one server, and the rules that join a request to its session."""

    def __init__(
        self,
        settings: ServerSettings,
        connect: Connect,
        *,
        scope: TaskScope,
        clock: Clock,
        emit: events.Emit,
        rng: Random,
        quota: Quota | None = None,
        handles: Handles | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """`close` closes what the sessions share."""
        self.settings = settings
        self.pool = Pool(settings, connect, scope=scope, clock=clock, emit=self._noted, tell=emit, rng=rng, quota=quota)
        self.catalog = Catalog(settings, self.pool, scope=scope, clock=clock, emit=self._noted)
        self._close = close
        self._standing: Standing = "idle"
        self._reason = ""
        self._keys = Keys(settings, lambda: self.catalog.hello)
        self._emit = emit
        self._clock = clock
        self._hinted: set[str] = set()
        self._handles = handles if handles is not None else Handles(clock)
        self._explicit = self._explicit_by(settings)
        """None where calls name no session."""
        self._hello: Hello | None = None
        """What `_server_info` was read from."""
        self._server_info: Raw | None = None
        self._gates: dict[str, Gate] = {}
        """Of the clients that may not see everything, by name."""
        self._seen_by: frozenset[str] | None = None
        """The clients for which it exists, once it was told."""
        self._is_seen_by_all = True

    @property
    def name(self) -> str:
        """What the operator called it."""
        return self.settings.name

    @property
    def passes(self) -> frozenset[str]:
        """The headers of a request that go on to it."""
        return self._keys.passes

    @property
    def is_common(self) -> bool:
        """Whether every client may see all of it, with nothing of its own in the requests."""
        return not self._gates and not self._keys.passes and self._is_seen_by_all

    @property
    def footing(self) -> Hashable | None:
        """What of the server decides on the session of a request; None before it was reached."""
        return self.catalog.footing

    @property
    def server_info(self) -> Raw | None:
        """Who the server says it is; None before it did."""
        hello = self.catalog.hello
        if hello is not self._hello:  # the answer to every call of 2026-07-28 bears it
            self._hello = hello
            known, said = (
                self._server_info,
                None if hello is None else jsonrpc.decode_fields(hello.raw).get("serverInfo"),
            )
            if known is None or said is None or bytes(known) != bytes(said):  # else what was made of it stays good
                self._server_info = said
        return self._server_info

    @property
    def remembers(self) -> bool:
        """Whether its sessions keep what was done in them; before it was reached, or shook hands, it may."""
        return self._keys.remembers

    # Its life.

    @property
    def was_tried(self) -> bool:
        """Whether it was reached once, or not, as far as that is to be known without a caller."""
        return not self.settings.is_learned_at_start or self._standing in {"ready", "failed"}

    def can_become(self, settings: ServerSettings) -> bool:
        """Whether its sessions may go on under other settings."""
        old = self.settings
        return (
            settings.name == old.name
            and settings.revision == self._keys.revision
            and settings.fingerprint == self._keys.credential
            and settings.lists == old.lists
        )

    def reconfigure(self, settings: ServerSettings) -> None:
        """Go by settings that it `can_become`, from now on."""
        if settings != self.settings:
            self.settings = settings
            self.pool.reconfigure(settings)
            self.catalog.reconfigure(settings)
            if self._explicit is None:
                self._explicit = self._explicit_by(settings)
            elif settings.handles:
                self._explicit.reconfigure(settings)
            else:
                self._explicit.drop()
                self._explicit = None

    def _explicit_by(self, settings: ServerSettings) -> ExplicitSessions | None:
        if not settings.handles:
            return None
        return ExplicitSessions(settings, self._handles, self._run, self.pool.end_session_of, self._emit)

    def succeed(self, old: Server) -> None:
        """Take the place of `old`: who used its sessions is told once that what they remembered is gone."""
        self.pool.inherit(old.pool, revision=self._keys.revision, credential=self._keys.credential)
        if self._explicit is not None and old._explicit is not None:
            renew = partial(replace, revision=self._keys.revision, credential=self._keys.credential)
            self._explicit.inherit(old._explicit, renew)

    def untold_of(self, old: Server) -> list[str]:
        """What the operator may want to know of a server whose place this one takes: what nobody else is told."""
        if self.settings.scope == old.settings.scope or not old.pool.remembered():
            return []
        return [
            f"{self.name}: its scope has changed, so what its sessions remembered is gone, and no caller is told so"
        ]

    def retire(self, heir: Server | None) -> None:
        """Begin no call any more, and end each session with its last one; `heir` takes its place."""
        if heir is None:
            self.pool.retire()
        else:
            sentence = f"the settings of {self.name} have changed, and its sessions cannot go on under the new ones"
            self.pool.retire(sentence, is_inherited=heir.pool.can_inherit(self.pool))

    def close_sessions_of(
        self, client: str, user: str | None = None, *, kind: events.Ending = events.Ending.CLIENT_REMOVED
    ) -> None:
        """End all that is there for a configured client, or for one user of it, and leave it no marker."""
        self.pool.close_sessions_of(client, user, kind=kind)
        if self._explicit is not None:
            self._explicit.drop(client, user)

    def terminate(self) -> None:
        """Drop every session, and the connections that they share."""
        if self._explicit is not None:
            self._explicit.drop()
        self.pool.terminate()
        self._close()

    def view(self) -> ServerView:
        """How it stands now."""
        settings, hello, pool = self.settings, self.catalog.hello, self.pool
        return ServerView(
            name=settings.name,
            transport="http" if settings.url is not None else "stdio",
            scope=settings.scope,
            state=self._standing,
            reason=self._reason,
            title="" if hello is None else _title(hello),
            protocol="" if hello is None else hello.protocol_version,
            tools=self.catalog.tools,
            max_sessions=settings.session_limit,
            max_concurrency=settings.max_concurrency,
            circuit=pool.circuit,
            sessions=pool.states(),
            sent=pool.sent,
            queued=pool.queued,
            waiting=pool.waiting,
        )

    def _noted(self, event: events.Event) -> None:
        """Pass an event on, and note what it says of the server."""
        if isinstance(event, events.SessionReady):
            self._standing, self._reason = "ready", ""
        elif isinstance(event, events.SessionFailed):
            self._standing, self._reason = "failed", event.reason
        elif isinstance(event, events.SessionOpening) and self._standing == "idle":
            self._standing = "connecting"
        self._emit(event)

    # What callers use.

    def converse(self, asker: Asker, public: Public = str) -> ServerConversation:
        """The conversation of a request; `public` says what the server's tools are called there."""
        return ServerConversation(self, self.key_for(asker), asker, public)

    def renew(self, conversation: Conversation, watcher: Watcher) -> ServerConversation:
        """The conversation that follows one with the server whose place this one takes."""
        if not isinstance(conversation, ServerConversation):
            raise TypeError(conversation)
        renewed = self.converse(conversation.asker)
        watcher.subscriptions_of(renewed.key).update(watcher.subscriptions_of(conversation.key))
        return renewed

    def key_for(self, asker: Asker) -> SessionKey:
        """Which session serves a request."""
        return self._keys.key_for(asker)

    async def learn(self) -> None:
        """Learn what the server is and lists, in a session that stays for the first who needs one.

        Raises `OpenFailed`.
        """
        await self.catalog.learn(self._keys.shared)

    def introduce(self, key: SessionKey, then: Introduced) -> None:
        """Call `then` with what the server says of itself in the era of `key`, at once if that is known."""
        self.catalog.introduce(partial(_in_its_era, then) if key.prefers_modern else then, key)

    def admit(self, clients: Sequence[ClientSettings]) -> None:
        """Take these clients' rules from now on."""
        self._seen_by = frozenset(client.name for client in clients if client.may_see(self.name))
        self._is_seen_by_all = all(client.may_see(self.name) for client in clients)
        rules = {client.name: (client.servers or {}).get(self.name) for client in clients}
        self._gates = {
            name: Gate(*wanted, keeps_pages=self.settings.has_common_lists)
            for name, rule in rules.items()
            if (wanted := [each for each in (self.settings.tools, rule) if each is not None and not each.admits_all])
        }

    def gate_of(self, key: SessionKey) -> Gate | None:
        """What the caller behind `key` may see; None where that is everything."""
        return self._gates.get(key.caller.client) if self._gates and key.caller is not None else None

    def start(
        self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None = None, public: Public = str
    ) -> Running | None:
        """Answer `call` from the catalogue or run it in the session of `key`; None where it was refused.

        `public` says what the server's tools are called where the caller meets them.
        """
        if self._seen_by is not None and key.caller is not None and key.caller.client not in self._seen_by:
            caller.answer(parted(self.name, f"{self.name} is no longer served to this client"))
            return None  # it was while the call was on its way here
        if call.declared is not None and call.declared.origin not in {b"", self._keys.origin}:
            caller.answer(RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, UNKNOWN_STATE))))
            return None  # it was given by a server that had this name before
        gate = self.gate_of(key) if self._gates else None
        if gate is not None:
            if call.method == "tools/call" and not gate.admits(call.params.get("name")):
                caller.answer(unknown_tool(call.params.get("name")))
                return None
            if call.method == "tools/list":
                caller = FilteredList(caller, gate)
        if self._explicit is None:
            if call.method == "tools/call" and not key.lacks and "task" not in call.params:
                return self.pool.start(key, call, caller, watcher)  # nearly all calls: `_run` would come to it, too
        elif call.method in OF_TOOLS:
            return self._explicit.start(key, call, caller, watcher, public)
        return self._run(key, call, caller, watcher)

    def _run(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None) -> Running | None:
        if call.method in METHODS or "task" in call.params:
            is_held = self.pool.holds(key) or self.pool.is_lost(key)
            admitted = admit(call, key, self.catalog.hello, caller.abilities, is_held=is_held)
            if not isinstance(admitted, Call):
                caller.answer(admitted)
                return None
            call = admitted
        if key.lacks and key.lacks not in self._hinted and call.method not in CAPABILITY:
            self._hinted.add(key.lacks)
            self._emit(events.CallUnnamed(self.name, call.method, key.lacks, call.request))
        start = self.catalog.start if call.method in CAPABILITY else self.pool.start
        return start(key, call, caller, watcher)

    def attach(self, key: SessionKey, watcher: Watcher) -> None:
        """Let `watcher` hear what the session of `key` pushes."""
        self.pool.attach(key, watcher)

    def detach(self, key: SessionKey, watcher: Watcher) -> None:
        """The client session behind `watcher` ended."""
        held = self.pool.session_of(key)
        uris = set(watcher.subscriptions_of(key))
        watcher.subscriptions_of(key).clear()
        self.pool.detach(key, watcher)
        if held is None or not held.is_open:
            return
        for uri in uris & held.subscriptions - {u for w in held.watchers for u in w.subscriptions_of(key)}:
            held.subscriptions.discard(uri)
            # Not as a call: nobody would hear what a call is told, as that the session before was lost.
            held.upstream.send(Call("resources/unsubscribe", {"uri": uri}), Inquiry(held.decline))
        if held.is_quiet_for_nobody:
            held.level = DEFAULT_LOG_LEVEL
            held.upstream.send(Call("logging/setLevel", {"level": DEFAULT_LOG_LEVEL}), Inquiry(held.decline))

    def notify(self, key: SessionKey, method: str, params: Raw | None) -> None:
        """Pass a client's notification on, where a session is open to hear it."""
        session = self.pool.session_of(key)
        if session is not None:
            session.upstream.notify(method, params)

    def set_level(self, key: SessionKey, level: str, caller: Caller, watcher: Watcher) -> Running | None:
        """Keep the log level of `watcher`; the session gets the lowest that any of its watchers asked for.

        Our own messages obey it as well, so it is taken whether the server knows of levels or not.
        """
        watcher.log_level = level
        session = self.pool.session_of(key)
        for other in self.pool.sessions:
            if other is not session and other.is_open and watcher in other.watchers:
                set_up(other, (watcher,))
        if session is None or session.hello is None or "logging" not in session.hello.capabilities:
            caller.answer(_EMPTY)  # it is set when the session opens, if it can be
            return None
        lowest = session.wanted_level or level
        if session.level == lowest:
            caller.answer(_EMPTY)
            return None
        call = Call("logging/setLevel", {"level": lowest})
        return self.pool.start(key, call, _Noting(caller, lambda: setattr(session, "level", lowest)), watcher)

    def subscribe(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        """Count `watcher` among those who hear of a resource; the server is asked once per session."""
        uri = call.target
        if uri is None or key.is_private:
            return self.start(key, call, caller, watcher)
        session = self.pool.session_of(key)
        if session is not None and uri in session.subscriptions:
            watcher.subscriptions_of(key).add(uri)
            caller.answer(_EMPTY)
            return None

        def subscribed() -> None:
            watcher.subscriptions_of(key).add(uri)
            held = self.pool.session_of(key)
            if held is not None and (session is None or held is session):
                held.subscriptions.add(uri)
            elif held is not None:
                set_up(held, (watcher,))  # another one answered, and is lost

        return self.start(key, call, _Noting(caller, subscribed), watcher)

    def unsubscribe(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        """Take `watcher` from those who hear of a resource; the server is told when it was the last."""
        uri = call.target
        if uri is None or key.is_private:
            return self.start(key, call, caller, watcher)
        watcher.subscriptions_of(key).discard(uri)
        session = self.pool.session_of(key)
        if session is None or any(uri in w.subscriptions_of(key) for w in session.watchers):
            caller.answer(_EMPTY)
            return None
        return self.start(key, call, _Noting(caller, lambda: session.subscriptions.discard(uri)), watcher)

    def follow(self, key: SessionKey, task_ids: Sequence[str], follower: Follower) -> FollowedTasks:
        """Let `follower` hear of those of these tasks that a request with this very key began."""
        followed = FollowedTasks(partial(self.pool.session_of, key), key.owner, task_ids, follower, self._clock)
        followed.begin(self.start(key, Call("ping"), followed))
        return followed


@dataclass(frozen=True, slots=True)
class ServerConversation:
    """A `Conversation` with one server: the session of a key."""

    server: Server
    key: SessionKey
    asker: Asker = field(compare=False)
    public: Public = field(default=str, compare=False)

    @property
    def is_private(self) -> bool:
        return self.key.is_private

    @property
    def is_shared(self) -> bool:
        return self.key.is_shared

    @property
    def ends_with_client(self) -> bool:
        return self.key.ends_with_client

    @property
    def is_in_use(self) -> bool:
        return self.server.pool.holds(self.key)

    @property
    def is_held(self) -> bool:
        """A session is open for it."""
        return self.server.pool.session_of(self.key) is not None

    @property
    def forgets(self) -> bool:
        return (self.key.lacks == "chat" or self.key.names_no_chat) and self.server.remembers

    def mirrored(self, tool: str) -> Mirrored:
        found = self.server.catalog.mirrored.get(tool)
        if not found:
            return _NOTHING
        gate = self.server.gate_of(self.key)
        return _NOTHING if gate is not None and not gate.admits(tool) else found

    def introduce(self, then: Introduced) -> None:
        self.server.introduce(self.key, then)

    def start(self, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running | None:
        return self.server.start(self.key, call, caller, watcher, self.public)

    def attach(self, watcher: Watcher) -> None:
        self.server.attach(self.key, watcher)

    def detach(self, watcher: Watcher) -> None:
        self.server.detach(self.key, watcher)

    def offer_roots(self, has_roots: bool) -> None:
        session = self.server.pool.session_of(self.key)
        if session is not None:
            session.offer_roots(has_roots)

    def notify(self, method: str, params: Raw | None, watcher: Watcher) -> None:  # noqa: ARG002 (matters to several)
        self.server.notify(self.key, method, params)

    def set_level(self, level: str, caller: Caller, watcher: Watcher) -> Running | None:
        return self.server.set_level(self.key, level, caller, watcher)

    def subscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        return self.server.subscribe(self.key, call, caller, watcher)

    def unsubscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        return self.server.unsubscribe(self.key, call, caller, watcher)

    def follow(self, task_ids: Sequence[str], follower: Follower) -> FollowedTasks | None:
        return self.server.follow(self.key, task_ids, follower)


def _in_its_era(then: Introduced, hello: Hello | CallFailed) -> None:
    then(hello if isinstance(hello, CallFailed) else hello.discovery or hello)


def _title(hello: Hello) -> str:
    """What a server calls itself, with its version."""
    info = jsonrpc.decode_fields(jsonrpc.decode_fields(hello.raw).get("serverInfo", b"{}"))
    words = [jsonrpc.decode_value(info.get(name, b"null")) for name in ("name", "version")]
    return " ".join(word for word in words if isinstance(word, str))


class _Noting(CallerProxy):
    """Notes that the server agreed."""

    def __init__(self, caller: Caller, agreed: Callable[[], None]) -> None:
        super().__init__(caller)
        self._agreed = agreed

    def answer(self, outcome: Outcome) -> None:
        if isinstance(outcome, Result):
            self._agreed()
        super().answer(outcome)
