"""Revision 2026-07-28 upstream: no handshake and no session, every request says who asks.

What is a session for the rest of the house is here the remembered discovery, the log level that was
set, and the stream on which changes are announced. Nothing of it is lost with a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from msgspec import Raw, structs

from holdfast.call import DEFAULT_LOG_LEVEL, OURSELVES, Abilities, AskId, Call, Reply, Result, RpcError
from holdfast.clock import Clock
from holdfast.errors import OpenFailed
from holdfast.upstream.discovery import AskAgain, NotModern, read_discovery
from holdfast.upstream.envelope import capabilities, envelope
from holdfast.upstream.handshake import ADVICE
from holdfast.upstream.listening import SUBSCRIPTION_ID, Listening
from holdfast.upstream.modern_answer import MirroredArguments, can_subscribe, hello_of, list_kinds
from holdfast.upstream.modern_call import Leg, ModernCall
from holdfast.upstream.modern_errands import Doubt, Listing
from holdfast.upstream.modern_link import ModernLink
from holdfast.upstream.tasks import heard
from holdfast.upstream.transport import Exchange, Fault, FaultKind, Hello, Inquiry, Listener, Sent, Upstream
from holdfast.wire import jsonrpc
from holdfast.wire.mirrored import argument_headers, request_headers
from holdfast.wire.revisions import MODERN
from holdfast.wire.tasks import undeclared, with_extension

_EMPTY: Final = Result(Raw(b"{}"))


class ModernUpstream:
    """An `Upstream` of revision 2026-07-28, and the `Receiver` of its link.

    `declares`: callers may be asked what they can be asked, and where it `listens`, changes are listened for;
    else neither. `mirrored` is shared by the conversations with one server. `jitter` returns 0 to 1.
    """

    def __init__(
        self,
        link: ModernLink,
        listener: Listener,
        *,
        declares: bool,
        mirrored: MirroredArguments,
        clock: Clock,
        jitter: Callable[[], float],
        listens: bool = True,
    ) -> None:
        self.clock = clock
        self.jitter = jitter
        self.mirrored = mirrored
        self._link = link
        self._listener = listener
        self._declares = declares
        self._listens = declares and listens
        self._next_id = 0
        self._legs: dict[int, Leg] = {}
        self._calls: dict[ModernCall, None] = {}
        self._asked: dict[AskId, ModernCall] = {}
        self._level: str | None = None
        self._offers_logging = False
        self._can_subscribe = False
        self._discovery: Raw | None = None
        self._listening: Listening | None = None
        self._errands: dict[Inquiry, None] = {}
        """What is said of tasks that nobody waits for any more, and not answered yet."""
        self._listings: list[Callable[[bool], None]] = []
        """Who waits for the tools to be listed again."""
        self._is_open = False
        self._is_doubting = False
        self._lost: Fault | None = None

    async def open(self) -> Hello:
        """Discover the server, unless that is done, and listen to it. Raises as `discover`."""
        if self._discovery is None:
            await self.discover()
        discovery = self._discovery or Raw(b"{}")
        self._link.established(MODERN)
        self._can_subscribe = self._listens and can_subscribe(discovery)
        kinds = list_kinds(discovery) if self._listens else frozenset[str]()
        self._listening = listening = Listening(self, self._listener, kinds)
        known = asyncio.Event()
        listening.start(known.set)
        await known.wait()
        if self._lost is not None:
            raise OpenFailed(self._lost.detail, advice=ADVICE.get(self._lost.kind, ""))
        hello = hello_of(discovery, listening.announced, has_updates=self._can_subscribe)
        hello = replace(hello, is_deaf=not self._listens)
        self._offers_logging = "logging" in hello.capabilities
        self._is_open = True
        listening.promise(listening.announced)
        return hello

    async def discover(self) -> Hello:
        """What the server says it is, before it is listened to. Raises `NotModern` and `OpenFailed`."""
        await self._link.start(self)
        try:
            discovery = await self._discover_once()
        except AskAgain:
            discovery = await self._discover_once()
        self._discovery = discovery
        return hello_of(discovery, list_kinds(discovery), has_updates=can_subscribe(discovery))

    @property
    def settled(self) -> Upstream:
        return self

    def send(self, call: Call, exchange: Exchange) -> Sent:
        match call.method:
            case "ping":
                exchange.answered(_EMPTY)
            case "logging/setLevel":
                level = call.params.get("level")
                self._level = level if isinstance(level, str) else None
                exchange.answered(_EMPTY)
            case "resources/subscribe":
                return self._subscribe(call, exchange)
            case "resources/unsubscribe":
                if self._listening is not None and call.target is not None:
                    self._listening.unsubscribe(call.target)
                exchange.answered(_EMPTY)
            case _:
                sent = ModernCall(self, call, exchange)
                self._calls[sent] = None
                sent.start()
                return sent
        return _Done()

    def notify(self, method: str, params: Raw | None) -> None:
        """Nothing: what a client of the handshake era announces, a server of this one asks for when it needs it."""

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        call = self._asked.pop(ask_id, None)
        if call is not None:
            call.reply(ask_id, reply)

    async def close(self) -> None:
        await heard(self._errands, self.clock)
        self._stop()
        await self._link.close()

    def terminate(self) -> None:
        self._stop()
        self._link.terminate()

    async def _discover_once(self) -> Raw:
        """Raises as `read_discovery`."""
        discovering = Inquiry(self._listener.asked)
        self.ask(discovering, Call("server/discover"))
        return read_discovery(await self._outcome(discovering))

    async def _outcome(self, inquiry: Inquiry) -> Result | RpcError | Fault:
        """What became of `inquiry`; why the link ended says more than that nothing could be sent."""
        outcome = await inquiry.outcome
        return self._lost or outcome if isinstance(outcome, Fault) else outcome

    def _stop(self) -> None:
        if self._listening is not None:
            self._listening.stop()
        self._legs.clear()
        self._calls.clear()
        self._asked.clear()
        self._listings.clear()

    # What calls and listening ask for.

    def ask(self, leg: Leg, call: Call) -> Sent:
        """Send a request of our own."""
        return self._post(leg, call, {}, envelope(None, capabilities(OURSELVES), level=None, progress_token=None))

    def transmit(
        self, leg: Leg, call: Call, exchange: Exchange, extra: Mapping[str, Any], *, has_tasks: bool = False
    ) -> Sent:
        said, declared = call.params.get("_meta"), call.declared
        token = self._next_id if call.wants_progress else None
        if declared is not None:
            level = call.log_level if self._offers_logging else None
            able = declared.capabilities
            if has_tasks:
                able = with_extension(able)
            elif call.method == "tools/call" and not exchange.abilities.tasks:
                able = undeclared(able)  # a task would be one that this client cannot come back for
            meta = envelope(said, able, level=level, progress_token=token)
            return self._post(leg, call, {**declared.input, **extra}, meta)
        # Without a level, the server would send no log at all.
        level = (call.log_level or self._level or DEFAULT_LOG_LEVEL) if self._offers_logging else None
        abilities = exchange.abilities if self._declares else _unasked(exchange.abilities)
        able = capabilities(structs.replace(abilities, tasks=True) if has_tasks else abilities)
        return self._post(leg, call, extra, envelope(said, able, level=level, progress_token=token))

    def errand(self, call: Call, exchange: Exchange) -> None:
        inquiry = Inquiry(self._listener.asked)
        self._errands[inquiry] = None
        inquiry.outcome.add_done_callback(lambda _: self._errands.pop(inquiry, None))
        self.transmit(inquiry, call, exchange, {}, has_tasks=True)

    def list_anew(self, then: Callable[[bool], None]) -> None:
        self._listings.append(then)
        if len(self._listings) == 1:
            Listing(self, self.mirrored, self._listed).start()

    def asks(self, ask_id: AskId, call: ModernCall) -> None:
        self._asked[ask_id] = call

    def doubt(self) -> None:
        """Something was answered that a server of this revision would not say: ask whether it still is one."""
        if not self._is_doubting:
            self._is_doubting = True
            self.ask(Doubt(self._resolved), Call("server/discover"))

    def _resolved(self, outcome: Result | RpcError | Fault) -> None:
        self._is_doubting = False
        if isinstance(outcome, Fault) and outcome.kind is not FaultKind.INVALID:
            return
        try:
            read_discovery(outcome)
        except NotModern as error:
            self.lost(Fault(FaultKind.GONE, f"the server does not speak {MODERN} any more: {error}"))
        except OpenFailed:
            return  # it may come back as it was

    def ended(self, call: ModernCall) -> None:
        self._calls.pop(call, None)
        for ask_id in [ask_id for ask_id, asking in self._asked.items() if asking is call]:
            del self._asked[ask_id]

    def _post(self, leg: Leg, call: Call, extra: Mapping[str, Any], meta: Mapping[str, Any]) -> Sent:
        request_id = self._next_id
        self._next_id += 1
        self._legs[request_id] = leg
        message = jsonrpc.request(request_id, call.method, {**call.params, **extra, "_meta": meta})
        headers = [("mcp-protocol-version", MODERN), *request_headers(call.method, call.params)]
        if call.method == "tools/call":
            headers += argument_headers(self.mirrored.of(call.target), call.params.get("arguments"))
        return _SentLeg(self._legs, request_id, self._link.request(request_id, message, headers))

    def _listed(self, is_done: bool) -> None:
        listings, self._listings = self._listings, []
        for then in listings:
            then(is_done)

    def _subscribe(self, call: Call, exchange: Exchange) -> Sent:
        uri = call.target
        listening = self._listening
        if listening is None or not self._can_subscribe or uri is None:
            message = "The server announces no changes of resources."
            exchange.answered(RpcError(Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, message))))
            return _Done()

        def settled(outcome: RpcError | Fault | None) -> None:
            if isinstance(outcome, Fault):
                exchange.failed(outcome)
            else:
                exchange.answered(outcome or _EMPTY)

        listening.subscribe(uri, settled)
        return _Done(lambda: listening.withdraw(uri, settled))

    # What the link reports.

    def received(self, message: bytes, request_id: int | None, envelope: jsonrpc.ServerMessage | None = None) -> None:
        try:
            envelope = envelope or jsonrpc.decode_server(message)
        except ValueError:
            if request_id is not None:
                self.failed(request_id, Fault(FaultKind.INVALID, "the server's answer is not valid JSON-RPC"))
            return
        if envelope.method is None:
            self._answer(envelope, request_id)
        elif not envelope.id:  # a request of the server is none of this revision
            self._notification(envelope.method, envelope.params or None, request_id)

    def failed(self, request_id: int, fault: Fault) -> None:
        leg = self._legs.pop(request_id, None)
        if leg is not None:
            leg.failed(fault)

    def suspended(self, request_id: int) -> None: ...

    def push_stream(self, is_up: bool) -> None: ...

    def suspected(self, fault: Fault) -> None: ...

    def lost(self, fault: Fault) -> None:
        self._lost = fault
        if self._listening is not None:
            self._listening.stop()
        for leg in list(self._legs.values()):
            leg.failed(fault)
        for call in list(self._calls):  # those that wait for a person
            call.failed(fault)
        self._legs.clear()
        if self._is_open:  # else `open` says so
            self._listener.lost(fault)

    def _answer(self, envelope: jsonrpc.ServerMessage, request_id: int | None) -> None:
        own_id = envelope.own_id
        if own_id is None and bytes(envelope.id) in {b"", b"null"}:
            own_id = request_id  # a refusal that could not read our id
        leg = self._legs.pop(own_id, None) if own_id is not None else None
        if leg is None:
            return  # late: cancelled or timed out
        if envelope.error:
            leg.answered(RpcError(envelope.error))
        elif envelope.result:
            leg.answered(Result(envelope.result))
        else:
            leg.failed(Fault(FaultKind.INVALID, "the server's answer has neither a result nor an error"))

    def _notification(self, method: str, params: Raw | None, request_id: int | None) -> None:
        fields = jsonrpc.decode_fields(params or b"{}")
        if method == "notifications/progress":
            leg = self._leg(fields.get("progressToken"))
            if leg is not None:
                leg.progress(fields)
            return
        if request_id is None:  # one pipe for all: only a subscription is named
            leg = self._leg(jsonrpc.decode_fields(fields.get("_meta", b"{}")).get(SUBSCRIPTION_ID))
            if leg is None and method == "notifications/cancelled":
                leg = self._leg(fields.get("requestId"))
            if leg is None:
                self._listener.pushed(method, params)
                return
        else:
            leg = self._legs.get(request_id)
        if leg is not None:
            leg.notify(method, params)

    def _leg(self, wire_id: Raw | None) -> Leg | None:
        text = b"" if wire_id is None else bytes(wire_id)
        return self._legs.get(int(text)) if text.isdigit() and len(text) <= 16 else None


def _unasked(abilities: Abilities) -> Abilities:
    """What is left of what a caller can do where it is asked nothing."""
    return Abilities(tasks=abilities.tasks, extensions=abilities.extensions)


class _SentLeg:
    """A request that can be cancelled while it is not answered."""

    __slots__ = ("_legs", "_request_id", "_sent")

    def __init__(self, legs: dict[int, Leg], request_id: int, sent: Sent) -> None:
        self._legs = legs
        self._request_id = request_id
        self._sent = sent

    def cancel(self, reason: str) -> None:
        if self._legs.pop(self._request_id, None) is not None:
            self._sent.cancel(reason)

    def pause(self) -> None:
        self._sent.pause()

    def resume(self) -> None:
        self._sent.resume()


class _Done:
    """A request that is answered here, and is no request to the server; `cancelled` is called when it is cancelled."""

    def __init__(self, cancelled: Callable[[], None] = lambda: None) -> None:
        self._cancelled = cancelled

    def cancel(self, reason: str) -> None:
        del reason
        self._cancelled()

    def pause(self) -> None: ...

    def resume(self) -> None: ...
