"""One session with one server: its state, its calls, and what comes back that belongs to no call."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import DEFAULT_LOG_LEVEL, LOG_LEVELS, Ask, AskId, Call, Fields, Json, Reply, Result, RpcError
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.errors import OpenFailed
from holdfast.session.elicited import ElicitedPages
from holdfast.session.key import Principal, SessionKey, TaskOwner
from holdfast.session.lifecycle import OPEN, Event, State, advance
from holdfast.session.pushed import PushedAsks
from holdfast.session.tasks import Task, TaskBook, with_token
from holdfast.session.watch import Watcher, answer_for_nobody, lowest, lowest_level, only, subscribers
from holdfast.upstream.transport import Exchange, Fault, Hello, Inquiry, Sent, Upstream
from holdfast.wire import jsonrpc, tasks
from holdfast.wire.revisions import MODERN

LIST_CHANGES: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)

# What nearly every call brings about, looked up in the table once.
_IDLE: Final = State.IDLE
_ACTIVE: Final = State.ACTIVE
_LEASED: Final = advance(_IDLE, Event.LEASED)
_RETURNED: Final = advance(_ACTIVE, Event.LAST_RETURNED)

_numbers = itertools.count(1)


class InFlight(Exchange, Protocol):
    """A call as its session sees it."""

    @property
    def is_on_its_way(self) -> bool:
        """The server has it, or may have it."""
        ...

    @property
    def is_asking(self) -> bool:
        """A question of the server was put to its caller, and is not answered yet."""
        ...

    @property
    def watcher(self) -> Watcher | None:
        """The client session that it came from, if it has one."""
        ...

    @property
    def leaves_traces(self) -> bool:
        """Whether what it does is remembered, so that a person would miss it."""
        ...

    @property
    def owner(self) -> TaskOwner | None:
        """Whose the tasks are that it begins."""
        ...

    @property
    def fetches(self) -> str | None:
        """The task whose result it waits for."""
        ...

    def is_of(self, client: str, user: str | None = None) -> bool:
        """Whether a configured client sent it, for that user where one is given."""
        ...

    def relay(self, method: str, params: Raw | None) -> None:
        """Pass on a notification that is known to belong to this call."""

    def abort(self, reason: str) -> None:
        """End it: its session ends."""


class Owner(Protocol):
    """What a session tells the pool."""

    def lists_changed(self, session: Session, method: str, told: Watcher | None) -> None:
        """The server says that a list changed; `told` hears of it on its call's own stream."""

    def push_changed(self, session: Session) -> None:
        """The session's way for pushes opened or closed."""

    def suspect(self, session: Session, reason: str) -> None:
        """The session may be gone: find out."""

    def lose(self, session: Session, reason: str) -> None:
        """The session is gone."""


class Session:
    """One upstream session; the pool drives its state, the conversation reports to it as its `Listener`."""

    has_told = False
    """Somebody has been told that it is lost."""
    is_forgotten = False
    """Its server refused a `ping` under its id: whatever else it refuses was not executed."""
    has_push = False
    level: str | None = None
    """To which its server was set."""
    called_level: str | None = None
    """The lowest that a call in it has asked for."""
    opening: asyncio.Task[None] | None = None
    died_of: str | None = None
    """Why it was lost, once it is."""
    _digest = ""
    _is_mixed = False
    """Several principals call in it or listen to it."""
    _has_abandoned = False
    """The server may still be at work on a call that has ended here."""

    def __init__(self, owner: Owner, key: SessionKey | None, settings: ServerSettings, clock: Clock) -> None:
        self.id = f"s{next(_numbers)}"
        """Short and local, for logs; has nothing to do with the server's own id."""
        self.key = key
        """None for a spare."""
        self.state = State.NEW
        self.upstream: Upstream
        self.hello: Hello | None = None
        self.opened_at = self.last_used_at = clock.now()
        self.watchers: list[Watcher] = []
        self.tasks = TaskBook()
        self.calls: set[InFlight] = set()
        self.leases = 0
        self.is_dirty = False
        """It remembers something that a person would miss."""
        self.is_doubted = False
        """Its last call was cut off and told so: should the session prove to be lost, that was the word for it."""
        self.subscriptions: set[str] = set()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it is open or will never be."""
        self._owner = owner
        self.owes_roots = False
        """Its server asked for roots while nobody had any."""
        self._inquiries: set[Inquiry] = set()
        self.ask_timeout = settings.ask_timeout
        self._serial = settings.serial
        self.served: Principal | None = None
        """Who called in it, or listened to it, first."""
        self._pushed = PushedAsks(self, clock)
        self.pages = ElicitedPages()

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.state} calls={len(self.calls)} leases={self.leases}>"

    @property
    def is_stateless(self) -> bool:
        """It is known to remember nothing."""
        return self.hello is not None and self.hello.is_stateless

    @property
    def is_spare(self) -> bool:
        """Opened ahead and never used by anyone."""
        return self.key is None

    @property
    def key_digest(self) -> str:
        """The digest of its key, for events and views; empty for a spare. Computed once."""
        if not self._digest and self.key is not None:
            self._digest = self.key.digest
        return self._digest

    @property
    def principal(self) -> Principal | None:
        """Whose it is; None for a spare and where it is shared."""
        return None if self.key is None else self.key.principal

    @property
    def mixes_chats(self) -> bool:
        """It remembers what several chats do in it: its server was taken for one that remembers nothing."""
        key, hello = self.key, self.hello
        return key is not None and key.names_no_chat and hello is not None and not hello.is_stateless

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for updates that only this session can announce."""
        if self.hello is not None and self.hello.is_modern and any(watcher.listens for watcher in self.watchers):
            return True
        return bool(self.subscriptions and self.watchers)

    @property
    def lives(self) -> bool:
        """Whether the server can be spoken to in it; while it drains, it takes no more calls."""
        return self.state in OPEN or self.state is State.DRAINING

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return self.state in OPEN

    def advance(self, event: Event) -> None:
        """Move along the lifecycle. Raises `InvalidTransition`."""
        self.state = advance(self.state, event)

    def serve(self, principal: Principal | None) -> None:
        """Note who calls in the session, or listens to it."""
        if self.served is None:
            self.served = principal
        elif principal != self.served:
            self._is_mixed = True

    def remember(self) -> None:
        """What a call did is remembered, and would be missed; what keeps no state never does."""
        self.is_dirty = not self.is_stateless

    def abandon(self) -> None:
        """A call has ended without the server's word for it."""
        self._has_abandoned = True

    def lease(self) -> None:
        """Hold the session: it is not idle until `release`."""
        self.leases += 1
        if self.leases == 1:
            self.state = _LEASED if self.state is _IDLE else advance(self.state, Event.LEASED)

    def release(self, used_at: float | None = None) -> None:
        """Give a lease back; `used_at` is None where it was none of a call."""
        self.leases -= 1
        if used_at is not None:
            self.last_used_at = used_at
        if self.leases == 0:
            self.state = _RETURNED if self.state is _ACTIVE else advance(self.state, Event.LAST_RETURNED)

    async def request(self, method: str, params: dict[str, Json] | None = None) -> Result | RpcError | Fault:
        """Ask the server something of our own. Cancelled, it cancels the request upstream."""
        inquiry, sent = self.inquire(method, params or {})
        try:
            return await inquiry.outcome
        except asyncio.CancelledError:
            sent.cancel("no longer needed")
            raise

    def inquire(self, method: str, params: dict[str, Json]) -> tuple[Inquiry, Sent]:
        """As `request`, without waiting for the outcome, which also comes when the session is given up."""
        inquiry = Inquiry(self.decline)
        return inquiry, self.send_inquiry(method, params, inquiry)

    def send_inquiry(self, method: str, params: dict[str, Json], inquiry: Inquiry) -> Sent:
        """As `inquire`, with an exchange of the asker's own."""
        self._inquiries.add(inquiry)
        inquiry.outcome.add_done_callback(lambda _: self._inquiries.discard(inquiry))
        return self.upstream.send(Call(method, params), inquiry)

    def give_up(self, fault: Fault) -> None:
        """The session is over: whatever is sent and not answered will get no answer."""
        self._pushed.withdraw_all()
        for run in list(self.calls):
            run.failed(fault)
        for inquiry in list(self._inquiries):
            inquiry.failed(fault)

    def fail_opening(self, error: OpenFailed) -> None:
        """Tell whoever waits for it that it will never open."""
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # nobody may be waiting

    def attach(self, watcher: Watcher) -> None:
        """Let `watcher` hear what belongs to no call."""
        if watcher not in self.watchers:
            self.watchers.append(watcher)
            self.serve(watcher.principal)
        self.offer_roots(watcher.abilities.roots)

    def detach(self, watcher: Watcher) -> None:
        """Forget `watcher`; a question that it was asked is answered for it."""
        if watcher in self.watchers:
            self.watchers.remove(watcher)
        self._pushed.leave(watcher)
        self.pages.leave(watcher)

    def offer_roots(self, has_roots: bool) -> None:
        """Somebody with roots is here: a server that was told of none may ask again."""
        if has_roots and self.owes_roots and self.is_open:
            self.owes_roots = False
            self.upstream.notify("notifications/roots/list_changed", None)

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        """Give the server the answer to a question."""
        self.upstream.reply(ask_id, reply)

    def decline(self, ask: Ask) -> None:
        """Answer a question for which there is nobody."""
        if ask.method == "roots/list":
            self.owes_roots = True
        self.upstream.reply(ask.id, answer_for_nobody(ask))

    def is_of_another(self, ask: Ask, run: InFlight) -> bool:
        """Whether a question that came on the stream of `run` belongs to a task of somebody else, or of nobody."""
        if tasks.task_of(ask.method, ask.params) is None:
            return False
        task = self.tasks.of(ask.method, ask.params)
        return task is None or task.owner != run.owner

    def notices(self, method: str, params: Raw | None, run: InFlight) -> bool:
        """Take in a notification that came on the stream of `run`; True if it is not for the caller of `run`."""
        if tasks.task_of(method, params) is not None:
            task = self.tasks.of(method, params)
            if task is None or task.owner != run.owner:
                self._tell_of_task(task, method, params)
                return True
        if method in LIST_CHANGES:
            self._owner.lists_changed(self, method, run.watcher)
            return False
        if method not in {"notifications/resources/updated", "notifications/elicitation/complete"}:
            return False
        audience = self._audience(method, params)
        for watcher in audience:
            if watcher is not run.watcher:
                watcher.push(method, params)
        return run.watcher not in audience

    # Listener: what the conversation reports.

    def pushed(self, method: str, params: Raw | None) -> None:
        if method in LIST_CHANGES:
            self._owner.lists_changed(self, method, None)
            return
        if method in {"notifications/resources/updated", "notifications/elicitation/complete"}:
            for watcher in self._audience(method, params):
                watcher.push(method, params)
            return
        if tasks.task_of(method, params) is not None:
            self._tell_of_task(self.tasks.of(method, params), method, params)
            return
        if self._is_mixed:
            return  # it may speak of another principal's call, even of one that has ended, and nothing says whose
        in_flight = self._in_flight
        run = only(in_flight)
        if run is not None:
            if method == "notifications/message" and params is not None:
                run.log(params)
            else:
                run.notify(method, params)
            return
        for watcher in self.watchers:
            watcher.push(method, params)

    def asked(self, ask: Ask) -> None:
        if tasks.task_of(ask.method, ask.params) is not None:
            self._ask_of_task(self.tasks.of(ask.method, ask.params), ask)
            return
        in_flight = self._in_flight
        run, watcher = only(in_flight), only(self.watchers)
        if self._is_mixed and (not self._serial or self._has_abandoned or run is None):
            self.decline(ask)  # nothing says whose call it belongs to
        elif run is not None or (run := self._at_work(in_flight)) is not None:
            run.ask(ask)
        elif in_flight or watcher is None or not watcher.abilities.can_answer(ask):
            self.decline(ask)
        else:
            self._push_ask(ask, watcher)

    def _at_work(self, in_flight: list[InFlight]) -> InFlight | None:
        """Of the calls of one chat, the only one whose server does not wait for an answer (decision 17)."""
        is_of_one_chat = self.key is not None and self.key.scope == "chat" and not self.key.names_no_chat
        at_work = [run for run in in_flight if not run.is_asking]
        return only(at_work) if is_of_one_chat and not self._is_mixed else None

    def asked_too_late(self, ask: Ask) -> None:
        self.decline(ask)

    def withdrawn(self, ask_id: AskId) -> None:
        if self._pushed.withdraw(ask_id):
            return
        for run in self._in_flight:
            run.withdraw(ask_id)  # ignored by all but the one that was asked

    def push_stream(self, is_up: bool) -> None:
        self.has_push = is_up
        self._owner.push_changed(self)

    def suspected(self, fault: Fault) -> None:
        if self.lives:
            self._owner.suspect(self, fault.reason)

    def lost(self, fault: Fault) -> None:
        self.died_of = fault.detail
        self._owner.lose(self, fault.reason)

    @property
    def _in_flight(self) -> list[InFlight]:
        """The calls that something from the server can belong to: not those that still wait for a slot."""
        return [run for run in self.calls if run.is_on_its_way]

    def _push_ask(self, ask: Ask, watcher: Watcher) -> None:
        if not self._pushed.has_room:
            self.decline(ask)
            return
        self.pages.add(ask.elicitation_id, watcher)
        self._pushed.put(ask, watcher, self.ask_timeout)

    def _ask_of_task(self, task: Task | None, ask: Ask) -> None:
        """Put a question of a task to whoever waits for its result, or else to its client's push stream."""
        run = None if task is None else self._fetching(task, ask.method, ask.params)
        watcher = None if task is None else task.watcher
        if run is not None:
            run.ask(ask)
        elif watcher is not None and watcher in self.watchers and watcher.abilities.can_answer(ask):
            self._push_ask(ask, watcher)
        else:
            self.decline(ask)

    def _tell_of_task(self, task: Task | None, method: str, params: Raw | None) -> None:
        """Tell the caller of a task, and nobody else, what belongs to it; nobody where it is not known whose it is."""
        if task is None:
            return
        run = self._fetching(task, method, params)
        if method == "notifications/progress":
            if task.token is None:
                return
            params = with_token(task, method, params)
        if run is not None:
            run.relay(method, params)
        elif task.watcher is not None and task.watcher in self.watchers:
            task.watcher.push(method, params)

    def _fetching(self, task: Task, method: str, params: Raw | None) -> InFlight | None:
        """The call of its owner that waits for the result of the task that a message belongs to."""
        task_id = tasks.task_of(method, params)
        return next((run for run in self._in_flight if run.owner == task.owner and run.fetches == task_id), None)

    def _audience(self, method: str, params: Raw | None) -> Sequence[Watcher]:
        fields: Fields = jsonrpc.decode_fields(params or b"{}")
        if method == "notifications/resources/updated":
            uri = jsonrpc.decode_value(fields.get("uri", b"null"))
            return subscribers(self.watchers, self.key, uri) if isinstance(uri, str) else []
        owner = self.pages.complete(fields)
        return [owner] if owner is not None else []

    @property
    def wanted_level(self) -> str | None:
        """The log level that its watchers, and the calls in it, want together.

        Where no watcher set one, a call does not make the session quieter than it is for who says nothing.
        """
        set_by_watchers = lowest_level(self.watchers)
        if set_by_watchers is None and self.called_level is not None:
            return lowest((DEFAULT_LOG_LEVEL, self.called_level))
        return lowest((set_by_watchers, self.called_level))

    def lacks_level(self, level: str) -> bool:
        """Whether the server could send log messages from `level` on, and was not told to.

        A server of 2026-07-28 is told with each request.
        """
        hello = self.hello
        offers = hello is not None and hello.protocol_version != MODERN and "logging" in hello.capabilities
        return offers and self.level != lowest((self.level, level))

    @property
    def is_quiet_for_nobody(self) -> bool:
        """Who wanted less of the log than is usual has left, and nobody who is here set a level."""
        if self.level is None or lowest_level(self.watchers) is not None:
            return False
        return LOG_LEVELS.index(self.level) > LOG_LEVELS.index(DEFAULT_LOG_LEVEL)
