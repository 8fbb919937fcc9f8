"""One server's side of a client that talks to all of them: what comes back, in the client's words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from msgspec import Raw

from holdfast.call import Abilities, Ask, AskId, Caller, Outcome, Reply
from holdfast.servers.proxy import CallerProxy
from holdfast.servers.server import Server
from holdfast.session.key import Principal, SessionKey
from holdfast.session.watch import Watcher
from holdfast.wire import jsonrpc

UPDATED = "notifications/resources/updated"


class Branch:
    """A client session as the sessions with one server see it: a `Watcher` in front of a `Watcher`.

    Subscriptions are kept here, by the server's own URIs.
    """

    def __init__(self, watcher: Watcher, server: Server) -> None:
        self.server = server
        self.public_uris: dict[str, str] = {}
        """By the server's own URI, the one that the client knows, where they differ."""
        self.tokens: Counter[bytes] = Counter()
        """Progress tokens of the questions that the server has put to the client."""
        self._watcher = watcher
        self._keys: Counter[SessionKey] = Counter()
        self._subscriptions: defaultdict[SessionKey | None, set[str]] = defaultdict(set)

    def join(self, key: SessionKey) -> None:
        """Hear what the session of `key` pushes; several conversations may want the same."""
        self._keys[key] += 1
        if self._keys[key] == 1:
            self.server.attach(key, self)

    def leave(self, key: SessionKey) -> bool:
        """Take back one `join`; True if none is left of any key."""
        self._keys[key] -= 1
        if self._keys[key] <= 0:
            del self._keys[key]
            self.server.detach(key, self)
            self._subscriptions.pop(key, None)
        return not self._keys

    # Watcher

    @property
    def log_level(self) -> str | None:
        return self._watcher.log_level

    @log_level.setter
    def log_level(self, level: str | None) -> None:
        self._watcher.log_level = level

    @property
    def principal(self) -> Principal:
        return self._watcher.principal

    @property
    def abilities(self) -> Abilities:
        return self._watcher.abilities

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        return self._subscriptions[key]

    def push(self, method: str, params: Raw | None) -> None:
        self._watcher.push(method, self.translated(method, params))

    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        token = progress_token(ask.params)
        self.tokens[token] += 1

        def replied(answer: Reply) -> None:
            self.tokens[token] -= 1
            reply(answer)

        self._watcher.ask(ask, replied)

    def withdraw(self, ask_id: AskId) -> None:
        self._watcher.withdraw(ask_id)

    def translated(self, method: str, params: Raw | None) -> Raw | None:
        """The params of a notification as the client understands them."""
        if method != UPDATED or params is None or not self.public_uris:
            return params
        fields = jsonrpc.decode_fields(params)
        uri = jsonrpc.decode_value(fields.get("uri", b"null"))
        if not isinstance(uri, str):
            return params
        public = public_uri(self.public_uris, uri)
        return params if public == uri else Raw(jsonrpc.encode({**fields, "uri": public}))


class BranchCaller(CallerProxy):
    """The caller of a request that went to one of the servers."""

    def __init__(self, caller: Caller, branch: Branch | None) -> None:
        super().__init__(caller)
        self._branch = branch
        self._tokens: dict[AskId, bytes] = {}

    def notify(self, method: str, params: Raw | None) -> None:
        super().notify(method, params if self._branch is None else self._branch.translated(method, params))

    def ask(self, ask: Ask) -> None:
        if self._branch is not None:
            token = self._tokens[ask.id] = progress_token(ask.params)
            self._branch.tokens[token] += 1
        super().ask(ask)

    def withdraw(self, ask_id: AskId) -> None:
        self._forget(ask_id)
        super().withdraw(ask_id)

    def answer(self, outcome: Outcome) -> None:
        for ask_id in list(self._tokens):
            self._forget(ask_id)
        super().answer(outcome)

    def _forget(self, ask_id: AskId) -> None:
        token = self._tokens.pop(ask_id, None)
        if token is not None and self._branch is not None:
            self._branch.tokens[token] -= 1


def public_uri(public_uris: Mapping[str, str], uri: str) -> str:
    """What the client knows `uri` as: it may lie below one that it subscribed to."""
    for own, public in public_uris.items():
        if uri == own or uri.startswith(own.rstrip("/") + "/"):
            return public.removesuffix(own) + uri
    return uri


def progress_token(params: Raw | None) -> bytes:
    """The progress token of a request of the server, as bytes; empty where it has none."""
    meta = jsonrpc.decode_fields(params or b"{}").get("_meta")
    token = jsonrpc.decode_fields(meta).get("progressToken") if meta is not None else None
    return jsonrpc.encode(jsonrpc.decode_value(token)) if token is not None else b""
