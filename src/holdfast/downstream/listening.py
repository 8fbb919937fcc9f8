"""`subscriptions/listen`: one request whose stream tells of changes for as long as its client reads it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from msgspec import Raw

from holdfast.call import NOBODY, Abilities, Ask, AskId, Call, Fields, Json, Outcome, Reply, Result, Running
from holdfast.config import Limits
from holdfast.downstream.callers import encode_outcome
from holdfast.downstream.envelope import bad_params
from holdfast.downstream.exchange import Incoming
from holdfast.downstream.refusal import Refusal
from holdfast.errors import CallFailed
from holdfast.identity.asker import Asker
from holdfast.servers.followed_tasks import FollowedTasks
from holdfast.servers.gathering import Deaf
from holdfast.servers.service import Conversation
from holdfast.session.key import Principal, SessionKey
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ClientRequest
from holdfast.wire.revisions import SUBSCRIPTION_KEY
from holdfast.wire.tasks import CHANGED

MAX_NAMED: Final = 1000
"""Resources that one request may subscribe to, and tasks that it may follow."""
MAX_OWED: Final = 256 * 1024
"""Bytes that wait for a reader who is behind."""
_RETRY_AFTER: Final = ((b"retry-after", b"30"),)
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_UPDATED: Final = "notifications/resources/updated"
_LISTS: Final = {
    "toolsListChanged": ("tools", "notifications/tools/list_changed"),
    "promptsListChanged": ("prompts", "notifications/prompts/list_changed"),
    "resourcesListChanged": ("resources", "notifications/resources/list_changed"),
}
"""By what a client asks for: the capability that offers it, and the notification that tells of it."""
_RESOURCES: Final = "resourceSubscriptions"
_TASKS: Final = "taskIds"


class _Wishes(NamedTuple):
    """What a client wants to hear of."""

    lists: list[str]
    uris: list[str]
    task_ids: list[str]


class _Subscribing(Deaf):
    """The caller of a `resources/subscribe` of ours."""

    def __init__(self, done: Callable[[bool], None]) -> None:
        self._done = done

    def answer(self, outcome: Outcome) -> None:
        self._done(isinstance(outcome, Result))


class Listener:
    """One stream of changes; a `Watcher` of the conversation that its request names, and a `Follower` of its tasks."""

    def __init__(
        self, incoming: Incoming, request: ClientRequest, asker: Asker, ended: Callable[[Listener], None]
    ) -> None:
        self.log_level: str | None = None
        self.asker = asker
        self._wanted = _read(request)
        self._request = request
        self._ended = ended
        self._conversation: Conversation | None = None
        self._subscriptions: defaultdict[SessionKey | None, set[str]] = defaultdict(set)
        self._subscribing: dict[str, Running | None] = {}
        """Resources for which the server has not answered."""
        self._followed: FollowedTasks | None = None
        self._awaits_tasks = False
        """The server has not said of which tasks it will tell."""
        self._early: dict[str, bytes] = {}
        """How tasks are that changed before the client was told that it follows them."""
        self._honoured: dict[str, Json] = {}
        self._told: set[str] | None = None
        """The notifications that pass; None before the client was told which."""
        self._owed: dict[bytes | str, bytes] = {}
        """Frames for a reader that is behind, each once; of a task the newest."""
        self._is_over = False
        self._answer = incoming.begin()
        self._answer.when_gone(self._leave)
        self._answer.when_drained(self.catch_up)

    def begin(self, conversation: Conversation) -> None:
        """Find out what can be heard of, and hear of it."""
        self._conversation = conversation
        conversation.introduce(partial(self._introduced, conversation))

    def end(self) -> None:
        """End the stream in order: the client may begin another."""
        if not self._is_over:
            self._finish(
                Result(Raw(jsonrpc.encode({"resultType": "complete", "_meta": {SUBSCRIPTION_KEY: self._request.id}})))
            )

    # Watcher

    @property
    def principal(self) -> Principal:
        return self.asker.principal

    @property
    def abilities(self) -> Abilities:
        return NOBODY

    @property
    def listens(self) -> bool:
        return True

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        return self._subscriptions[key]

    def push(self, method: str, params: Raw | None) -> None:
        if self._told is not None and method in self._told:
            self._send(self._frame(method, jsonrpc.decode_fields(params or b"{}")))

    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        """It has no abilities, so nobody asks."""

    def withdraw(self, ask_id: AskId) -> None: ...

    # Follower

    def tasks_agreed(self, task_ids: Sequence[str]) -> None:
        self._awaits_tasks = False
        if task_ids:
            self._honoured[_TASKS] = [*task_ids]
        self._acknowledge()

    def task_changed(self, task_id: str, params: Raw) -> None:
        frame = self._frame(CHANGED, jsonrpc.decode_fields(params))
        if self._told is None:
            self._early[task_id] = frame
        else:
            self._send(frame, task_id)

    def tasks_ended(self) -> None:
        self.end()  # what was missed is not sent again: the client looks for itself when it comes back

    # Inside.

    def _introduced(self, conversation: Conversation, hello: Hello | CallFailed) -> None:
        if self._is_over:
            return
        if isinstance(hello, CallFailed):
            self._finish(hello)
            return
        self._honoured = {kind: True for kind in self._wanted.lists if _offers(hello, _LISTS[kind][0], "listChanged")}
        conversation.attach(self)
        if not conversation.is_private and _offers(hello, "resources", "subscribe"):
            self._subscribing = dict.fromkeys(self._wanted.uris)
        if hello.is_modern and not conversation.is_private:
            # Such a server tells of changes on a stream of a session, which is opened for that.
            if self._wanted.task_ids:
                self._awaits_tasks = True
                self._followed = conversation.follow(self._wanted.task_ids, self)
            else:
                conversation.start(Call("ping"), Deaf())
        for uri in list(self._subscribing):
            call = Call("resources/subscribe", {"uri": uri})
            running = conversation.subscribe(call, _Subscribing(partial(self._subscribed, uri)), self)
            if uri in self._subscribing:  # else it was answered on the spot
                self._subscribing[uri] = running
        self._acknowledge()

    def _subscribed(self, uri: str, is_honoured: bool) -> None:
        self._subscribing.pop(uri, None)
        if is_honoured:
            self._honoured[_RESOURCES] = [*self._uris_honoured, uri]
        self._acknowledge()

    @property
    def _uris_honoured(self) -> list[Json]:
        uris = self._honoured.get(_RESOURCES)
        return uris if isinstance(uris, list) else []

    def _acknowledge(self) -> None:
        """Say what will be told, once that is known."""
        if self._subscribing or self._awaits_tasks or self._told is not None or self._is_over:
            return
        self._told = {_LISTS[kind][1] for kind in self._honoured if kind in _LISTS}
        if self._uris_honoured:
            self._told.add(_UPDATED)
        self._send(self._frame(_ACKNOWLEDGED, {"notifications": Raw(jsonrpc.encode(self._honoured))}))
        early, self._early = self._early, {}
        for task_id, frame in early.items():
            self._send(frame, task_id)

    def _frame(self, method: str, fields: Fields) -> bytes:
        meta = jsonrpc.decode_fields(fields.get("_meta", b"{}"))
        params: dict[str, Any] = {**fields, "_meta": {**meta, SUBSCRIPTION_KEY: self._request.id}}
        return jsonrpc.one_line(jsonrpc.notification(method, params))

    def _send(self, frame: bytes, name: str | None = None) -> None:
        """Send a frame now, or when the reader is there again; the newest of a `name` is enough."""
        if self._is_over:
            return
        if self._answer.is_slow:
            self._owed[frame if name is None else name] = frame
            if sum(map(len, self._owed.values())) > MAX_OWED:
                self.end()  # it will look for itself when it comes back
        else:
            self._answer.event(frame, droppable=False)

    def catch_up(self) -> None:
        """Send what was owed to a reader that was behind."""
        owed, self._owed = self._owed, {}
        for name, frame in owed.items():
            self._send(frame, name if isinstance(name, str) else None)

    def _finish(self, outcome: Outcome) -> None:
        self._let_go()
        self._answer.result(encode_outcome(jsonrpc.id_bytes(self._request.id), outcome))

    def _leave(self) -> None:
        """The client left, or stalled too long."""
        if not self._is_over:
            self._let_go()
            self._answer.result(None)

    def _let_go(self) -> None:
        self._is_over = True
        followed, self._followed = self._followed, None
        if followed is not None:
            followed.cancel()
        subscribing, self._subscribing = self._subscribing, {}
        if self._conversation is not None:
            for uri, running in subscribing.items():
                if running is not None:
                    running.cancel("the client left")
                # The server may have agreed before it heard so; where no session is open, nothing is sent.
                self._conversation.unsubscribe(Call("resources/unsubscribe", {"uri": uri}), Deaf(), self)
            self._conversation.detach(self)
        self._ended(self)


class Listeners:
    """The streams on which clients listen."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[Listener, None] = {}
        self._by_user: Counter[Principal] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Listener]:
        return iter(list(self._open))

    def open(self, incoming: Incoming, request: ClientRequest) -> None:
        """Let a client listen. Raises `Refusal`."""
        if not incoming.takes_stream:
            raise Refusal(406, "Who listens reads an event stream: accept text/event-stream.", request_id=request.id)
        asker = incoming.target.asker(request.params, is_modern=True)
        user = asker.identity.principal
        if len(self._open) >= self._limits.sessions:
            raise Refusal(503, f"{len(self._open)} clients listen already: try again later.", headers=_RETRY_AFTER)
        if user.user is not None and self._by_user[user] >= self._limits.sessions_per_user:
            raise Refusal(429, f"This user listens {self._by_user[user]} times already.", headers=_RETRY_AFTER)
        listener = Listener(incoming, request, asker, self._closed)
        self._open[listener] = None
        self._by_user[user] += 1
        listener.begin(incoming.target.service.converse(asker))

    def reconfigure(self, limits: Limits) -> None:
        """Go by these bounds from now on; who listens begins anew, with the servers that there are now."""
        self._limits = limits
        self.send_away()

    def send_away(self) -> None:
        """End every stream in order."""
        for listener in list(self._open):
            listener.end()

    def _closed(self, listener: Listener) -> None:
        del self._open[listener]
        user = listener.asker.identity.principal
        self._by_user[user] -= 1
        if not self._by_user[user]:
            del self._by_user[user]


def _read(request: ClientRequest) -> _Wishes:
    """What a client wants to hear of. Raises `Refusal`."""
    wanted = request.params.get("notifications")
    if not isinstance(wanted, dict):
        raise bad_params(request, "subscriptions/listen needs notifications, an object.")
    uris, task_ids = _names(request, wanted.get(_RESOURCES), _RESOURCES), _names(request, wanted.get(_TASKS), _TASKS)
    if any(not isinstance(wanted.get(kind, False), bool) for kind in _LISTS):
        raise bad_params(request, "The lists are asked for with true.")
    return _Wishes([kind for kind in _LISTS if wanted.get(kind) is True], uris, task_ids)


def _names(request: ClientRequest, value: Json, what: str) -> list[str]:
    """The names in an array that may be missing, each once. Raises `Refusal`."""
    given = [] if value is None else value
    names = [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
    if not isinstance(given, list) or len(names) < len(given) or len(given) > MAX_NAMED:
        raise bad_params(request, f"{what} must be an array of {MAX_NAMED} strings at most.")
    return list(dict.fromkeys(names))


def _offers(hello: Hello, capability: str, what: str) -> bool:
    value = jsonrpc.decode_value(hello.capabilities.get(capability, b"null"))
    return isinstance(value, dict) and value.get(what) is True
