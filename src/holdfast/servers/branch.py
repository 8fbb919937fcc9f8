"""One server's side of a client that talks to all of them: what comes back, in the client's words."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from holdfast.call import Abilities, Ask, AskId, Caller, Outcome, Reply, Result
from holdfast.servers.proxy import CallerProxy
from holdfast.servers.server import Server
from holdfast.session.key import Principal, SessionKey
from holdfast.session.watch import Watcher
from holdfast.wire import jsonrpc

UPDATED: Final = "notifications/resources/updated"
_tokens = itertools.count(1)


class Branch:
    """A client session as the sessions with one server see it: a `Watcher` in front of a `Watcher`.

    Subscriptions are kept here, by the server's own URIs.
    """

    def __init__(self, watcher: Watcher, server: Server) -> None:
        self.server = server
        self.public_uris: dict[str, str] = {}
        """By the server's own URI, the one with which the client subscribed, where they differ."""
        self._watcher = watcher
        self._keys: Counter[SessionKey] = Counter()
        self._subscriptions: defaultdict[SessionKey | None, set[str]] = defaultdict(set)
        self._asked: dict[AskId, tuple[bytes, Raw]] = {}
        """Of open questions with a progress token, the one that the client knows, and the server's own."""

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
            uris = set(self._subscriptions[key])
            self.server.detach(key, self)
            del self._subscriptions[key]
            for uri in uris:
                self.unsubscribed(uri)
        return not self._keys

    def inherit(self, old: Branch, before: SessionKey, key: SessionKey) -> None:
        """Go on where `old` stood for the server in whose place this one is: `key` follows `before`."""
        self._subscriptions[key].update(old.subscriptions_of(before))
        self.public_uris.update(old.public_uris)

    def unsubscribed(self, uri: str) -> None:
        """What the client calls a resource is forgotten, unless another of its conversations hears of it."""
        if not any(uri in uris for uris in self._subscriptions.values()):
            self.public_uris.pop(uri, None)

    def put(self, ask: Ask) -> Ask:
        """A question as it goes on: two servers may have chosen the same progress token (unique per sender)."""
        fields = jsonrpc.decode_fields(ask.params or b"{}")
        meta = jsonrpc.decode_fields(fields.get("_meta", b"{}"))
        own = meta.get("progressToken")
        if own is None:
            return ask
        token = jsonrpc.encode(next(_tokens))
        self._asked[ask.id] = token, own
        fields["_meta"] = Raw(jsonrpc.encode({**meta, "progressToken": Raw(token)}))
        return replace(ask, params=Raw(jsonrpc.encode(fields)))

    def settle(self, ask_id: AskId) -> None:
        """A question is not open any more."""
        self._asked.pop(ask_id, None)

    def own_token(self, token: bytes) -> Raw | None:
        """The server's progress token of the open question that bears `token`."""
        return next((own for public, own in self._asked.values() if public == token), None)

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

    @property
    def listens(self) -> bool:
        return self._watcher.listens

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        return self._subscriptions[key]

    def push(self, method: str, params: Raw | None) -> None:
        self._watcher.push(method, self.translated(method, params))

    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        def replied(answer: Reply) -> None:
            self.settle(ask.id)
            reply(answer)

        self._watcher.ask(self.put(ask), replied)

    def withdraw(self, ask_id: AskId) -> None:
        self.settle(ask_id)
        self._watcher.withdraw(ask_id)

    def translated(self, method: str, params: Raw | None) -> Raw | None:
        """The params of a notification as the client understands them."""
        if method != UPDATED or params is None or not self.public_uris:
            return params
        fields = jsonrpc.decode_fields(params)
        return Raw(jsonrpc.encode(_readdressed(fields, self.public_uris)))


class BranchCaller(CallerProxy):
    """The caller of a request that went to one of the servers."""

    def __init__(self, caller: Caller, branch: Branch | None) -> None:
        super().__init__(caller)
        self._branch = branch
        self._asks: set[AskId] = set()

    @property
    def abilities(self) -> Abilities:
        """Tasks of several servers cannot be told apart by their ids, so there are none."""
        return replace(super().abilities, tasks=False)

    def notify(self, method: str, params: Raw | None) -> None:
        super().notify(method, params if self._branch is None else self._branch.translated(method, params))

    def ask(self, ask: Ask) -> None:
        if self._branch is not None:
            self._asks.add(ask.id)
            ask = self._branch.put(ask)
        super().ask(ask)

    def withdraw(self, ask_id: AskId) -> None:
        self._settle(ask_id)
        super().withdraw(ask_id)

    def answer(self, outcome: Outcome) -> None:
        for ask_id in list(self._asks):
            self._settle(ask_id)
        super().answer(outcome)

    def _settle(self, ask_id: AskId) -> None:
        self._asks.discard(ask_id)
        if self._branch is not None:
            self._branch.settle(ask_id)


class MarkedReader(CallerProxy):
    """Reads a resource by its marked URI: the contents bear what the client asked for."""

    def __init__(self, caller: Caller, own: str, public: str) -> None:
        super().__init__(caller)
        self._public_uris = {own: public}

    def answer(self, outcome: Outcome) -> None:
        if isinstance(outcome, Result):
            outcome = outcome.rewritten(self._renamed)
        super().answer(outcome)

    def _renamed(self, raw: Raw) -> Raw:
        fields = jsonrpc.decode_fields(raw)
        contents = jsonrpc.decode_items(fields.get("contents", b"[]"))
        named = [_readdressed(jsonrpc.decode_fields(each), self._public_uris) for each in contents]
        return Raw(jsonrpc.encode({**fields, "contents": named}))


class MarkedSubscriber(CallerProxy):
    """Subscribes by a marked URI, which is remembered if the server agrees."""

    def __init__(self, caller: Caller, branch: Branch, own: str, public: str) -> None:
        super().__init__(caller)
        self._public_uris = branch.public_uris
        self._own = own
        self._public = public
        self._before = self._public_uris.get(own)
        self._public_uris[own] = public  # now: it may be updated before the answer

    def answer(self, outcome: Outcome) -> None:
        if isinstance(outcome, Result):
            self._public_uris[self._own] = self._public  # another conversation may have unsubscribed meanwhile
        elif self._before is None:
            self._public_uris.pop(self._own, None)
        else:
            self._public_uris[self._own] = self._before
        super().answer(outcome)


def public_uri(public_uris: Mapping[str, str], uri: str) -> str:
    """What the client knows `uri` as: it may lie below one that it subscribed to."""
    for own, public in public_uris.items():
        if uri == own or uri.startswith(own.rstrip("/") + "/"):
            return public.removesuffix(own) + uri
    return uri


def _readdressed(fields: Mapping[str, Raw], public_uris: Mapping[str, str]) -> dict[str, Raw]:
    uri = jsonrpc.decode_value(fields.get("uri", b"null"))
    if not isinstance(uri, str):
        return dict(fields)
    return {**fields, "uri": Raw(jsonrpc.encode(public_uri(public_uris, uri)))}


def progress_token(params: Raw | None) -> bytes:
    """The progress token of a request of the server, as bytes; empty where it has none."""
    meta = jsonrpc.decode_fields(params or b"{}").get("_meta")
    token = jsonrpc.decode_fields(meta).get("progressToken") if meta is not None else None
    return jsonrpc.encode(jsonrpc.decode_value(token)) if token is not None else b""
