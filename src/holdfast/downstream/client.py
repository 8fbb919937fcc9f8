"""One client's session with one service, whatever its wire: the conversations, calls and questions it has part in."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import Abilities, Ask, AskId, Json, Reply
from holdfast.downstream.callers import level_of, wants_log
from holdfast.downstream.post import Target, named_chat
from holdfast.identity.asker import Asker
from holdfast.servers.branch import progress_token
from holdfast.servers.service import Conversation, Service
from holdfast.session.key import Principal, SessionKey
from holdfast.session.watch import answer_for_nobody
from holdfast.wire import jsonrpc
from holdfast.wire.tasks import EXTENSION

MAX_CONVERSATIONS: Final = 1024
"""Those that one client session may have taken part in before those without a session are forgotten."""
MAX_EXTENSIONS: Final = 16 * 1024
"""Bytes of the extensions that a client may declare; with more it counts as having none."""


class OpenCall(Protocol):
    """A request of the client that is not answered yet."""

    def cancel(self, reason: str) -> None:
        """The client cancels it, and expects no answer."""

    def send_away(self) -> None:
        """The client's session ends: nobody can read the answer."""


@dataclass(frozen=True, slots=True)
class _OpenAsk:
    ask: Ask
    reply: Callable[[Reply], None]
    token: bytes
    """The server's progress token of its question, if it gave one."""


class Client(ABC):
    """A `Watcher` of the upstream sessions that one client uses; each wire adds how the client is told."""

    def __init__(self, service: Service, principal: Principal, revision: str, abilities: Abilities) -> None:
        self.id = secrets.token_urlsafe(24)
        self.service = service
        self.principal = principal
        """Who it counts as where several listen."""
        self.revision = revision
        self.own_abilities = abilities
        self.log_level: str | None = None
        self.calls: dict[bytes, OpenCall] = {}
        self.conversations: dict[Conversation, None] = {}
        self.is_ended = False
        self._asker: Asker | None = None
        self._conversation: Conversation | None = None
        self.used: Conversation | None = None
        """The one that was used last, if it is one of `conversations`."""
        self._next_ask = 0
        self._asks: dict[int, _OpenAsk] = {}
        self._subscriptions: defaultdict[SessionKey | None, set[str]] = defaultdict(set)
        self._pushed: dict[AskId, int] = {}

    @property
    @abstractmethod
    def abilities(self) -> Abilities:
        """What it can be asked while none of its calls runs."""

    @abstractmethod
    def inform(self, method: str, message: bytes) -> None:
        """Send a notification that belongs to no call."""

    @abstractmethod
    def deliver(self, message: bytes) -> None:
        """Send what must not be lost: a question that belongs to no call, or its withdrawal."""

    def converse(self, asker: Asker) -> Conversation:
        """The conversation of a request of this session; mostly that of the one before."""
        conversation = self._conversation
        if conversation is None or self._asker is None or not asker.names_as(self._asker):
            self._asker = asker
            self._conversation = conversation = self.service.converse(asker)
        if conversation.is_private:
            self._conversation = None  # the next request has another
        return conversation

    def converse_with(self, target: Target, params: dict[str, Json]) -> Conversation:
        """The conversation of a request of this session for `target`."""
        before, conversation = self._asker, self._conversation
        if (
            conversation is not None
            and before is not None
            and before.identity is target.identity
            and before.named == (named_chat(params) if "_meta" in params else None)
            and before.path == target.chat
            and before.passed == target.passed
            and not conversation.is_private
        ):
            return conversation
        return self.converse(target.asker(params, self.id))

    def use(self, conversation: Conversation) -> None:
        """Hear what its session pushes, from now on."""
        if conversation.is_private:
            return
        self.used = conversation
        if conversation in self.conversations:
            return
        if len(self.conversations) >= MAX_CONVERSATIONS:
            self._leave_the_unused()
        self.conversations[conversation] = None
        conversation.attach(self)

    def leave(self, conversation: Conversation) -> None:
        """Hear no more of it."""
        self.used = None
        del self.conversations[conversation]
        conversation.detach(self)

    def _leave_the_unused(self) -> None:
        """Those that end with this session go last: it has one, unless its headers make many (`pass_headers`)."""
        over = [each for each in self.conversations if not each.is_in_use]
        for each in [each for each in over if not each.ends_with_client] or over:
            self.leave(each)
        self._subscriptions = defaultdict(set, {key: uris for key, uris in self._subscriptions.items() if uris})

    def put(self, ask: Ask, reply: Callable[[Reply], None]) -> tuple[int, bytes]:
        """Remember a question; its id towards the client and the request to send."""
        self._next_ask += 1
        self._asks[self._next_ask] = _OpenAsk(ask, reply, progress_token(ask.params))
        return self._next_ask, jsonrpc.one_line(jsonrpc.request(self._next_ask, ask.method, ask.params))

    def take_back(self, ask_id: int) -> bytes | None:
        """Forget a question; the notification that tells the client so."""
        if self._asks.pop(ask_id, None) is None:
            return None
        params = {"requestId": ask_id, "reason": "no longer needed"}
        return jsonrpc.notification("notifications/cancelled", params)

    def replied(self, reply: jsonrpc.ClientReply) -> None:
        """The client answered a question; one that is not open is ignored."""
        ask = self._asks.pop(reply.id, None) if type(reply.id) is int else None
        if ask is not None:
            ask.reply(Reply(reply.result, reply.error))

    def fall_silent(self) -> None:
        """The client will answer nothing more: what it was asked is answered as where there is nobody."""
        asks, self._asks = self._asks, {}
        for ask in asks.values():
            ask.reply(answer_for_nobody(ask.ask))

    def is_asked_with(self, token: bytes) -> bool:
        """Whether an open question bears this progress token."""
        return any(ask.token == token for ask in self._asks.values())

    @property
    def questions(self) -> int:
        """How many questions the client has not answered."""
        return len(self._asks)

    def end(self) -> None:
        """Give everything up; sessions that only this one named end too."""
        if self.is_ended:
            return
        self.is_ended = True
        for call in list(self.calls.values()):
            call.send_away()
        for conversation in list(self.conversations):
            self.leave(conversation)
        self._subscriptions.clear()
        self._asks.clear()
        self._pushed.clear()

    # Watcher: what belongs to no call.

    @property
    def listens(self) -> bool:
        return False

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        return self._subscriptions[key]

    def push(self, method: str, params: Raw | None) -> None:
        if self.is_ended:
            return
        if method == "notifications/message" and params is not None and not wants_log(level_of(params), self.log_level):
            return
        self.inform(method, jsonrpc.one_line(jsonrpc.notification(method, params)))

    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        def replied(answer: Reply) -> None:
            self._pushed.pop(ask.id, None)
            reply(answer)

        ask_id, message = self.put(ask, replied)
        self._pushed[ask.id] = ask_id
        self.deliver(message)

    def withdraw(self, ask_id: AskId) -> None:
        message = self.take_back(self._pushed.pop(ask_id, 0))
        if message is not None:
            self.deliver(message)


def abilities_of(capabilities: Mapping[str, Json]) -> Abilities:
    """What a client can be asked, by the capabilities that it declared."""
    elicitation = capabilities.get("elicitation")
    modes: Mapping[str, Json] = elicitation if isinstance(elicitation, dict) else {}
    has_elicitation = isinstance(elicitation, dict)
    sampling = capabilities.get("sampling")
    with_what: Mapping[str, Json] = sampling if isinstance(sampling, dict) else {}
    return Abilities(
        elicitation_form=has_elicitation and ("form" in modes or "url" not in modes),
        elicitation_url=has_elicitation and "url" in modes,
        sampling=isinstance(sampling, dict),
        sampling_tools=isinstance(with_what.get("tools"), dict),
        sampling_context=isinstance(with_what.get("context"), dict),
        roots=isinstance(capabilities.get("roots"), dict),
        other=True,
        extensions=_extensions_of(capabilities),
    )


def _extensions_of(capabilities: Mapping[str, Json]) -> bytes:
    """The extensions that a client declared, as servers of 2026-07-28 may hear of them."""
    declared = capabilities.get("extensions")
    kept = {name: each for name, each in declared.items() if name != EXTENSION} if isinstance(declared, dict) else {}
    encoded = jsonrpc.encode(kept) if kept else b""
    return encoded if len(encoded) <= MAX_EXTENSIONS else b""
