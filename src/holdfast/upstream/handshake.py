"""The handshake era upstream: one conversation of JSON-RPC messages over a link.

Ids and progress tokens of what we send are plain integers of our own, so that nothing a client
chose reaches the server's tables; the server's ids are restored byte for byte in our replies.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Raw, Struct

from holdfast import __version__
from holdfast.call import Abilities, Ask, AskId, Call, Reply, Result, RpcError
from holdfast.clock import Clock, LoopClock
from holdfast.errors import OpenFailed
from holdfast.upstream.tasks import AwaitedTasks, TaskTools
from holdfast.upstream.transport import (
    Exchange,
    Fault,
    FaultKind,
    Hello,
    Inquiry,
    Link,
    Listener,
    Sent,
    Upstream,
    has_tools,
    next_ask_id,
)
from holdfast.wire import jsonrpc, tasks
from holdfast.wire.lines import Oversized
from holdfast.wire.revisions import HANDSHAKE_REVISIONS, LATEST

logger = logging.getLogger("holdfast.session")

ADVICE: Final = {
    FaultKind.NOT_SENT: "start it, or correct the URL",
    FaultKind.CUT: "look into its log; a server behind TLS needs https://",
    FaultKind.UNAUTHORIZED: "give its credential, as in --header 'Authorization=Bearer ${TOKEN}'",
    FaultKind.INVALID: "is the URL right? Many servers speak MCP at /mcp",
    FaultKind.UNAVAILABLE: "look into its log",
    FaultKind.FAILED: "look into its log; a server that takes one connection at a time needs --scope shared",
    FaultKind.GONE: "run its command by hand to see why",
}
"""What the operator can do about a handshake that failed."""


def declared(abilities: Abilities) -> Mapping[str, Any]:
    """The capabilities that a session declares whose callers can be asked this."""
    elicitation = {"form": abilities.elicitation_form, "url": abilities.elicitation_url}
    sampling = {"tools": abilities.sampling_tools, "context": abilities.sampling_context}
    capabilities: dict[str, Any] = {}
    if abilities.roots:
        capabilities["roots"] = {"listChanged": True}
    if abilities.sampling:
        capabilities["sampling"] = {name: {} for name, is_known in sampling.items() if is_known}
    if any(elicitation.values()):
        capabilities["elicitation"] = {mode: {} for mode, is_known in elicitation.items() if is_known}
    if abilities.extensions:
        capabilities["extensions"] = jsonrpc.decode_value(abilities.extensions)
    return capabilities


class Misunderstood(OpenFailed):
    """The server answered `initialize`, but not as one of the handshake era does."""


@dataclass(frozen=True, slots=True)
class _OpenAsk:
    wire_id: bytes
    exchange: Exchange | None
    task: str | None
    """The server's task that it belongs to."""


_PROGRESS: Final = "notifications/progress"
_UNSUPPORTED_VERSION: Final = -32022
_IS_MODERN: Final = "it speaks 2026-07-28, which era: auto finds out"

_OF_THE_SESSION: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/elicitation/complete",
    }
)
"""Notifications that belong to no call, whichever stream they come on."""


_FOREIGN_STATE: Final = RpcError(
    Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, "This requestState is unknown to the server as it is now."))
)


class _Refused:
    """A request that was not sent."""

    def cancel(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class _SentCall(Struct, eq=False):
    conversation: HandshakeUpstream
    request_id: int
    link: Sent

    def cancel(self, reason: str) -> None:
        self.conversation.cancel(self.request_id, reason)
        self.link.cancel(reason)

    def pause(self) -> None:
        self.link.pause()

    def resume(self) -> None:
        self.link.resume()


class HandshakeUpstream:
    """An `Upstream` of the revisions with `initialize`, and the `Receiver` of its link.

    `server` is what the log calls the server; `tools` is shared by the conversations with it.
    """

    def __init__(
        self,
        link: Link,
        listener: Listener,
        capabilities: Mapping[str, Any],
        *,
        server: str = "the server",
        tools: TaskTools | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._server = server
        self._link = link
        self._listener = listener
        self._capabilities = capabilities
        self._next_id = 0
        self._exchanges: dict[int, Exchange] = {}
        self._asks: dict[AskId, _OpenAsk] = {}
        self._tasks = AwaitedTasks(self, listener, tools or TaskTools(), clock or LoopClock())
        self._lost: Fault | None = None
        self._unreadable = 0
        """Messages of the server that were no JSON-RPC."""

    async def open(self) -> Hello:
        await self._link.start(self)
        opening = Inquiry(self._listener.asked)
        hello = {
            "protocolVersion": LATEST,
            "capabilities": self._capabilities,
            "clientInfo": {"name": "holdfast", "version": __version__},
        }
        request_id = self.mint()
        self._exchanges[request_id] = opening
        self._link.request(request_id, jsonrpc.request(request_id, "initialize", hello))
        outcome = await opening.outcome
        if isinstance(outcome, Fault):
            outcome = self._lost or outcome  # why the link ended says more than that nothing could be sent
            kind = Misunderstood if outcome.kind is FaultKind.INVALID else OpenFailed
            raise kind(
                outcome.detail,
                is_unauthorized=outcome.kind is FaultKind.UNAUTHORIZED,
                is_unsent=outcome.kind is FaultKind.NOT_SENT,
                advice=ADVICE.get(outcome.kind, ""),
            )
        if isinstance(outcome, RpcError):
            code = jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("code", b"null"))
            raise Misunderstood(
                f"the server refused to initialize: {jsonrpc.error_message(outcome.raw)}",
                advice=_IS_MODERN if code == _UNSUPPORTED_VERSION else "",
            )
        answer = jsonrpc.decode_fields(outcome.raw)
        version = jsonrpc.decode_value(answer.get("protocolVersion", b"null"))
        if not isinstance(version, str) or version not in HANDSHAKE_REVISIONS:
            raise Misunderstood(f"the server speaks protocol version {version!r}, which is not supported")
        self._link.established(version)
        self._link.post(jsonrpc.notification("notifications/initialized"))
        capabilities = jsonrpc.decode_fields(answer.get("capabilities", b"{}"))
        self._tasks.is_offered = tasks.runs_tools(jsonrpc.decode_value(capabilities.get("tasks", b"null")))
        copied = {name: raw.copy() for name, raw in capabilities.items()}
        return Hello(outcome.raw.copy(), version, copied, is_stateless=self._link.is_stateless)

    @property
    def settled(self) -> Upstream:
        return self

    def send(self, call: Call, exchange: Exchange) -> Sent:
        if call.declared is not None and "requestState" in call.declared.input:
            exchange.answered(_FOREIGN_STATE)  # the server was of 2026-07-28 when it gave that
            return _Refused()
        if self._tasks.is_offered and (taken := self._tasks.take(call, exchange)) is not None:
            return taken
        return self.transmit(call, exchange)

    def transmit(self, call: Call, exchange: Exchange) -> Sent:
        """Send `call` as it is."""
        self._next_id = request_id = self._next_id + 1
        self._exchanges[request_id] = exchange
        params: Mapping[str, Any] = call.params
        if call.wants_progress:
            meta = params.get("_meta")
            params = {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), "progressToken": request_id}}
        message = jsonrpc.encode_request(jsonrpc.OwnRequest(request_id, call.method, params))
        return _SentCall(self, request_id, self._link.request(request_id, message))

    def notify(self, method: str, params: Raw | None) -> None:
        self._link.post(jsonrpc.notification(method, params))

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        ask = self._asks.pop(ask_id, None)
        if ask is None:
            return
        if reply.error is not None:
            self._link.post(jsonrpc.error(ask.wire_id, reply.error))
            return
        result = reply.result or Raw(b"{}")
        self._link.post(jsonrpc.result(ask.wire_id, result if ask.task is None else tasks.related(result, ask.task)))

    def cancel(self, request_id: int, reason: str) -> None:
        """Forget a request and tell the server so; one that has ended is ignored."""
        if self._exchanges.pop(request_id, None) is not None:
            self._link.post(
                jsonrpc.notification("notifications/cancelled", {"requestId": request_id, "reason": reason})
            )

    async def close(self) -> None:
        self._sum_up()
        await self._tasks.finish_cancelling()
        self._tasks.stop()
        await self._link.close()

    def terminate(self) -> None:
        self._sum_up()
        self._tasks.stop()
        self._exchanges.clear()
        self._link.terminate()

    # What the link reports.

    def received(self, message: bytes, request_id: int | None, envelope: jsonrpc.ServerMessage | None = None) -> None:
        if envelope is None or request_id is None:
            self._take(message, request_id, envelope)
        elif envelope.method is None:  # its answer, as the link found
            exchange = self._exchanges.pop(request_id, None)
            if exchange is None:
                return  # late: cancelled or timed out
            if envelope.result and not envelope.error:
                exchange.answered(Result(envelope.result))
            else:
                _end(exchange, envelope)
        elif envelope.method == _PROGRESS and not envelope.id:
            self._progress(envelope.params)
        else:
            self._take(message, request_id, envelope)

    def _take(self, message: bytes, request_id: int | None, envelope: jsonrpc.ServerMessage | None) -> None:
        """Take in whatever it is, in whichever form."""
        try:
            if envelope is None and message[:1] != b"[":
                envelope = jsonrpc.decode_server(message)
            parts = (envelope,) if envelope is not None else _decode_array(message)
        except ValueError:
            self._skip()
            answered = request_id if request_id is not None else Oversized.of(message).answered_id
            if answered is not None:
                self.failed(answered, Fault(FaultKind.INVALID, "the server's answer is not valid JSON-RPC"))
            return
        for part in parts:
            if part.method is None:
                self._answer(part, request_id)
            elif part.id:
                self._ask(part.method, part, request_id)
            else:
                self._notification(part.method, part.params or None, request_id)

    def failed(self, request_id: int, fault: Fault) -> None:
        exchange = self._exchanges.pop(request_id, None)
        if exchange is not None:
            exchange.failed(fault)

    def suspended(self, request_id: int) -> None:
        exchange = self._exchanges.get(request_id)
        if exchange is not None:
            exchange.suspend()

    def push_stream(self, is_up: bool) -> None:
        self._listener.push_stream(is_up)

    def suspected(self, fault: Fault) -> None:
        self._listener.suspected(fault)

    def lost(self, fault: Fault) -> None:
        self._lost = fault
        while self._exchanges:
            _, exchange = self._exchanges.popitem()
            exchange.failed(fault)
        self._tasks.lost(fault)
        self._listener.lost(fault)

    def _skip(self) -> None:
        """Count a message that cannot be read. Its content is not logged: it may be anybody's."""
        self._unreadable += 1
        if self._unreadable == 1:
            logger.warning(
                "%s sent a message that is no JSON-RPC: it was skipped, as others like it will be", self._server
            )

    def _sum_up(self) -> None:
        count, self._unreadable = self._unreadable, 0
        if count > 1:
            logger.info("%s sent %d messages in this session that are no JSON-RPC", self._server, count)

    # What the messages mean.

    def mint(self) -> int:
        """A number that no other request has."""
        self._next_id += 1
        return self._next_id

    def _answer(self, envelope: jsonrpc.ServerMessage, request_id: int | None) -> None:
        own_id = envelope.own_id
        if own_id is None and bytes(envelope.id) in {b"", b"null"}:
            own_id = request_id  # a refusal that could not read our id
        exchange = self._exchanges.pop(own_id, None) if own_id is not None else None
        if exchange is None or own_id is None:
            return  # late: cancelled or timed out
        if own_id != request_id:
            self._link.answered_elsewhere(own_id)
        _end(exchange, envelope)

    def _ask(self, method: str, envelope: jsonrpc.ServerMessage, request_id: int | None) -> None:
        if method == "ping":
            self._link.post(jsonrpc.result(bytes(envelope.id), b"{}"))
            return
        params = envelope.params or None
        exchange = self._tasks.of(method, params) or self._exchange_of(request_id)
        ask, task = _read_ask(next_ask_id(), method, params), tasks.task_of(method, params)
        self._asks[ask.id] = _OpenAsk(bytes(envelope.id), exchange, task)
        if exchange is not None:
            exchange.ask(ask)
        elif request_id is None or task is not None:  # what belongs to a task may come on any stream
            self._listener.asked(ask)
        else:
            self._listener.asked_too_late(ask)

    def _notification(self, method: str, params: Raw | None, request_id: int | None) -> None:
        if method == _PROGRESS:
            self._progress(params or Raw())
            return
        if method == "notifications/cancelled":
            self._withdraw(params)
            return
        exchange = self._tasks.of(method, params) or self._exchange_of(request_id)
        if exchange is None:
            has_whom = method in _OF_THE_SESSION or tasks.task_of(method, params) is not None
            if request_id is None or has_whom:  # else it is of a call that has ended, and of its caller
                self._listener.pushed(method, params)
        elif method == "notifications/message" and params is not None:
            exchange.log(params)
        else:
            exchange.notify(method, params)

    def _progress(self, params: Raw) -> None:
        """By its token, never by its stream: supergateway sends it on another call's."""
        update = jsonrpc.decode_fields(params)
        token = bytes(update.get("progressToken", b""))
        number = int(token) if token.isdigit() and len(token) <= 16 else 0
        exchange = self._exchanges.get(number) or self._tasks.with_token(number)
        if exchange is not None:
            exchange.progress(update)
        elif tasks.task_of(_PROGRESS, params) is not None:
            self._listener.pushed(_PROGRESS, params)  # the token outlives the call that began a task

    def _exchange_of(self, request_id: int | None) -> Exchange | None:
        return None if request_id is None else self._exchanges.get(request_id)

    def _withdraw(self, params: Raw | None) -> None:
        wire_id = bytes(jsonrpc.decode_fields(params or b"{}").get("requestId", b""))
        for ask_id, ask in list(self._asks.items()):
            if ask.wire_id == wire_id:
                del self._asks[ask_id]
                if ask.exchange is not None:
                    ask.exchange.withdraw(ask_id)
                else:
                    self._listener.withdrawn(ask_id)


def _end(exchange: Exchange, envelope: jsonrpc.ServerMessage) -> None:
    if envelope.result and not envelope.error:
        exchange.answered(Result(envelope.result))
    elif envelope.error:
        exchange.answered(RpcError(envelope.error))
    else:
        exchange.failed(Fault(FaultKind.INVALID, "the server's answer has neither a result nor an error"))


def _decode_array(message: bytes) -> Sequence[jsonrpc.ServerMessage]:
    return [jsonrpc.decode_server(part) for part in jsonrpc.decode_array(message)]


def _read_ask(ask_id: AskId, method: str, params: Raw | None) -> Ask:
    if method != "elicitation/create" or params is None:
        return Ask(ask_id, method, params, has_tools=has_tools(method, params))
    fields = jsonrpc.decode_fields(params)
    elicitation_id = jsonrpc.decode_value(fields.get("elicitationId", b"null"))
    return Ask(
        ask_id,
        method,
        params,
        is_url_elicitation=jsonrpc.decode_value(fields.get("mode", b"null")) == "url",
        elicitation_id=elicitation_id if isinstance(elicitation_id, str) else None,
    )
