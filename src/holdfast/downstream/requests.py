"""What a client with a session asks and tells: the same in every dialect of the handshake era."""

from __future__ import annotations

import logging
from typing import Any, Final, Generic, TypeVar

from msgspec import Raw

from holdfast.call import LOG_LEVELS, NOBODY, Abilities, Ask, AskId, Call, Outcome, Reply, Result, RpcError
from holdfast.downstream.callers import AnswerCaller, Way
from holdfast.downstream.client import Client
from holdfast.downstream.post import Target, without_chat
from holdfast.servers.service import Conversation
from holdfast.session.running import UNDELIVERABLE
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ClientNotification
from holdfast.wire.tasks import without_extension

logger = logging.getLogger("holdfast.http")

NONE: Final = Raw(b"{}")
EMPTY: Final = Result(NONE)

C = TypeVar("C", bound=Client)


class ClientCaller(AnswerCaller[Way], Generic[Way, C]):
    """The caller of a request in a client session; the dialects add whom its questions reach."""

    def __init__(
        self, answer: Way, message_id: bytes, token: Raw | None, client: C, conversation: Conversation
    ) -> None:
        super().__init__(answer, message_id, token)
        self._client = client
        self._conversation = conversation
        self._asks: dict[AskId, int] = {}

    @property
    def abilities(self) -> Abilities:
        return NOBODY if self._client.is_ended else self._client.own_abilities

    @property
    def floor(self) -> str | None:
        return self._client.log_level or ("info" if self._conversation.is_shared else None)

    def ask(self, ask: Ask) -> None:
        ask_id, message = self._client.put(ask, lambda reply: self._replied(ask.id, reply))
        self._asks[ask.id] = ask_id
        self._tell(message)

    def withdraw(self, ask_id: AskId) -> None:
        message = self._client.take_back(self._asks.pop(ask_id, 0))
        if message is not None:
            self._tell(message)

    def suspend(self) -> None: ...

    def answer(self, outcome: Outcome) -> None:
        self._client.calls.pop(self._message_id, None)
        super().answer(outcome)

    def cancel(self, reason: str) -> None:
        """The client cancels the request, and expects no answer."""
        self.is_cancelled = True
        if self.running is not None:
            self.running.cancel(reason)

    def send_away(self) -> None:
        """The client's session ends: cancel what nobody can read."""
        if self.running is not None:
            self.running.cancel("the client ended its session")

    def _tell(self, message: bytes) -> None:
        """Send a question, or its withdrawal."""
        if not self._answer.event(message, droppable=False):
            self._client.deliver(message)

    def _replied(self, ask_id: AskId, reply: Reply) -> None:
        self._asks.pop(ask_id, None)
        if self.running is not None:
            self.running.reply(ask_id, reply)


def begin(call: Call, conversation: Conversation, caller: ClientCaller[Any, Any], client: Client) -> None:
    """Begin to answer a request of `client`; it gets an answer even if that fails."""
    try:
        match call.method:
            case "tools/call":
                caller.begin(conversation.start(call, caller, client))
            case "ping":
                caller.answer(EMPTY)
            case "logging/setLevel":
                _set_level(conversation, call, caller, client)
            case "resources/subscribe":
                caller.begin(conversation.subscribe(call, caller, client))
            case "resources/unsubscribe":
                caller.begin(conversation.unsubscribe(call, caller, client))
            case _:
                caller.begin(conversation.start(call, caller, client))
    except Exception:
        logger.exception("a request failed")
        caller.answer(UNDELIVERABLE)


def _set_level(conversation: Conversation, call: Call, caller: ClientCaller[Any, Any], client: Client) -> None:
    level = call.params.get("level")
    if not isinstance(level, str) or level not in LOG_LEVELS:
        message = f"The level is one of {', '.join(LOG_LEVELS)}."
        caller.answer(RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, message))))
    else:
        caller.begin(conversation.set_level(level, caller, client))


def take_notification(target: Target, message: ClientNotification, client: Client) -> None:
    """Pass on what `client` says of itself or of its requests, as far as it may."""
    method, params = message.method, message.params
    if method == "notifications/initialized":
        return
    if method == "notifications/cancelled":
        cancel(message, client)
        return
    raw = Raw(jsonrpc.encode(without_chat(params)))
    if method == "notifications/roots/list_changed":
        for conversation in client.conversations:
            conversation.notify(method, raw, client)
        return
    if method == "notifications/progress" and not client.is_asked_with(jsonrpc.encode(params.get("progressToken"))):
        return  # it belongs to no question of a server to this client
    client.converse_with(target, params).notify(method, raw, client)


def cancel(message: ClientNotification, client: Client) -> None:
    """Only the requests of this very session can be meant."""
    request_id = message.params.get("requestId")
    reason = message.params.get("reason")
    if not isinstance(request_id, int | str | float) or isinstance(request_id, bool):
        return
    call = client.calls.get(jsonrpc.id_bytes(request_id))
    if call is not None:
        call.cancel(reason if isinstance(reason, str) else "the client cancelled")


def introduction(hello: Hello, revision: str) -> Raw:
    """The server's own words, in our revision. Every client may get log messages, if only ours."""
    capabilities = {"logging": NONE, **without_extension(hello.capabilities)}
    fields = {
        **jsonrpc.decode_fields(hello.raw),
        "protocolVersion": Raw(jsonrpc.encode(revision)),
        "capabilities": Raw(jsonrpc.encode(capabilities)),
    }
    return Raw(jsonrpc.encode(fields))
