"""One configured server as the downstream side sees it: its introduction, lists, calls and sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from msgspec import Raw

from holdfast import events
from holdfast.call import Abilities, Ask, AskId, Call, Caller, Fields, Outcome, Result, Running, Status
from holdfast.catalog.catalog import CAPABILITY, Catalog, Introduced
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.identity.caller import Identity
from holdfast.session.key import SessionKey, private, stranger
from holdfast.session.opening import set_up
from holdfast.session.pool import Pool
from holdfast.session.roster import Connect
from holdfast.session.watch import Watcher, lowest_level
from holdfast.tasks import TaskScope
from holdfast.upstream.transport import Inquiry

_EMPTY = Result(Raw(b"{}"))


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
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.pool = Pool(settings, connect, scope=scope, clock=clock, emit=emit, rng=rng)
        self.catalog = Catalog(settings, self.pool, scope=scope, clock=clock, emit=emit)
        self._revision = settings.revision
        self._credential = settings.fingerprint
        self._emit = emit
        self._hinted: set[str] = set()

    def key_for(self, identity: Identity, *, named: str | None, path: str | None, client: str | None) -> SessionKey:
        """Which session serves a request: the ladder of docs/sessions.md.

        Args:
            identity: who is calling; its header may name a chat.
            named: the chat of the `_meta` key.
            path: the chat of the URL.
            client: the id of the client's own MCP session.
        """
        scope = self.settings.scope
        if scope == "shared":
            asker = stranger(identity.principal.client) if identity.lacks_user else identity.principal
            return SessionKey(self.name, self._revision, self._credential, scope, None, asker=asker)
        whole = SessionKey(self.name, self._revision, self._credential, scope, identity.principal)
        if identity.lacks_user:
            return private(whole, identity.principal, "user")
        if scope == "user":
            return whole
        chat = named or identity.chat or path
        if chat is not None:
            return replace(whole, scope_id=f"chat:{chat}")
        if client is not None:
            return replace(whole, scope_id=f"client:{client}", ends_with_client=True)
        return private(whole, identity.principal, "chat")

    async def learn(self) -> None:
        """Learn what the server is and lists, in a session that stays for the first who needs one.

        Raises `OpenFailed`.
        """
        shared = SessionKey(self.name, self._revision, self._credential, "shared", None)
        await self.catalog.learn(shared if self.settings.scope == "shared" else None)

    def introduce(self, key: SessionKey, then: Introduced) -> None:
        """Call `then` with what the server says of itself, at once if that is known."""
        self.catalog.introduce(then, key)

    def start(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running:
        """Answer `call` from the catalogue or run it in the session of `key`."""
        if key.lacks and key.lacks not in self._hinted and call.method not in CAPABILITY:
            self._hinted.add(key.lacks)
            self._emit(events.CallUnnamed(self.name, call.method, key.lacks))
        return self.catalog.start(key, call, caller, watcher)

    def attach(self, key: SessionKey, watcher: Watcher) -> None:
        """Let `watcher` hear what the session of `key` pushes."""
        self.pool.attach(key, watcher)

    def detach(self, key: SessionKey, watcher: Watcher) -> None:
        """The client session behind `watcher` ended."""
        held = self.pool.session_of(key)
        uris = set(watcher.subscriptions_of(key))
        self.pool.detach(key, watcher)
        if held is None or not held.is_open:
            return
        for uri in uris & held.subscriptions - {u for w in held.watchers for u in w.subscriptions_of(key)}:
            held.subscriptions.discard(uri)
            # Not as a call: nobody would hear what a call is told, as that the session before was lost.
            held.upstream.send(Call("resources/unsubscribe", {"uri": uri}), Inquiry(held.decline))

    def notify(self, key: SessionKey, method: str, params: Raw | None) -> None:
        """Pass a client's notification on, where a session is open to hear it."""
        session = self.pool.session_of(key)
        if session is not None:
            session.upstream.notify(method, params)

    def set_level(self, key: SessionKey, level: str, caller: Caller, watcher: Watcher) -> Running | None:
        """Keep the log level of `watcher`; the session gets the lowest that any of its watchers asked for."""
        watcher.log_level = level
        session = self.pool.session_of(key)
        for other in self.pool.sessions:
            if other is not session and other.is_open and watcher in other.watchers:
                set_up(other, (watcher,))
        if session is None:
            caller.answer(_EMPTY)  # it is set when the session opens
            return None
        lowest = lowest_level(session.watchers) or level
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


class _Noting:
    """Passes everything on to a caller, and notes that the server agreed."""

    def __init__(self, caller: Caller, agreed: Callable[[], None]) -> None:
        self._caller = caller
        self._agreed = agreed

    @property
    def abilities(self) -> Abilities:
        return self._caller.abilities

    def status(self, status: Status) -> None:
        self._caller.status(status)

    def progress(self, update: Fields) -> None:
        self._caller.progress(update)

    def log(self, params: Raw) -> None:
        self._caller.log(params)

    def notify(self, method: str, params: Raw | None) -> None:
        self._caller.notify(method, params)

    def ask(self, ask: Ask) -> None:
        self._caller.ask(ask)

    def withdraw(self, ask_id: AskId) -> None:
        self._caller.withdraw(ask_id)

    def suspend(self) -> None:
        self._caller.suspend()

    def answer(self, outcome: Outcome) -> None:
        if isinstance(outcome, Result):
            self._agreed()
        self._caller.answer(outcome)
