"""A server that does what a test says, spoken to by the pool: as an `Upstream`, or over a `Link`.

`FakeServer.connect` is what a pool connects with. Every session it makes records what was sent
and lets the test answer, fail, push, ask and die. With `over_link` the pool speaks through the
real `HandshakeUpstream` to a fake link, with everything as bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw

from holdfast.call import Abilities, Ask, AskId, Call, Reply, Result, RpcError
from holdfast.errors import OpenFailed
from holdfast.upstream.handshake import HandshakeUpstream, declared
from holdfast.upstream.transport import Exchange, Fault, FaultKind, Hello, Listener, Receiver, Sent, Upstream
from holdfast.wire import jsonrpc

CAPABILITIES: Final = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


class FakeRequest(ABC):
    """A request that the server received, and a `Sent` of the pool."""

    def __init__(self, session: FakeSession, method: str, params: dict[str, Any]) -> None:
        self.session = session
        self.method = method
        self.params = params
        self.cancelled: str | None = None
        self.is_paused = False

    def __repr__(self) -> str:
        return f"<{self.method} {self.params}>"

    @property
    def name(self) -> str:
        return str(self.params.get("name", ""))

    def text(self, text: str) -> None:
        """Answer as a tool does."""
        self.result({"content": [{"type": "text", "text": text}]})

    @abstractmethod
    def result(self, value: Any) -> None: ...

    @abstractmethod
    def error(self, code: int, message: str = "no") -> None: ...

    @abstractmethod
    def fail(self, kind: FaultKind, detail: str = "it failed", error: Any = None) -> None: ...

    @abstractmethod
    def progress(self, value: float) -> None: ...

    @abstractmethod
    def notify(self, method: str, params: Any) -> None: ...

    @abstractmethod
    def ask(self, method: str = "elicitation/create", **params: Any) -> Any:
        """Put a question on the request's own stream; what names it."""

    def log(self, text: str) -> None:
        self.notify("notifications/message", {"level": "info", "data": text})

    def cancel(self, reason: str) -> None:
        self.cancelled = reason

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


class FakeSession(ABC):
    """One session, as the server sees it."""

    def __init__(self, server: FakeServer, *, declares: Abilities) -> None:
        self.server = server
        self.declares = declares
        self.requests: list[FakeRequest] = []
        self.notifications: list[tuple[str, Any]] = []
        self.replies: list[tuple[Any, Any]] = []
        """Which question was answered, and with what result or error."""
        self.is_open = False
        self.is_closed = False
        self.is_terminated = False
        self.opening: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()

    @property
    def is_over(self) -> bool:
        return self.is_closed or self.is_terminated

    def let_open(self, fault: Fault | None = None) -> None:
        """Answer the handshake, or fail it."""
        if not self.opening.done():
            self.opening.set_result(fault)

    def got(self, method: str) -> list[FakeRequest]:
        return [r for r in self.requests if r.method == method]

    @property
    def calls(self) -> list[FakeRequest]:
        return self.got("tools/call")

    @property
    def call(self) -> FakeRequest:
        """The latest tool call."""
        return self.calls[-1]

    def log(self, text: str) -> None:
        self.push("notifications/message", {"level": "info", "data": text})

    @abstractmethod
    def push(self, method: str, params: Any = None) -> None: ...

    @abstractmethod
    def ask(self, method: str = "elicitation/create", **params: Any) -> Any: ...

    @abstractmethod
    def withdraw(self, ask: Any) -> None: ...

    @abstractmethod
    def push_stream(self, is_up: bool) -> None: ...

    @abstractmethod
    def suspect(self) -> None: ...

    @abstractmethod
    def die(self, kind: FaultKind = FaultKind.GONE) -> None: ...

    def received(self, request: FakeRequest) -> None:
        self.requests.append(request)
        self.server.requests.append(request)
        answer = self.server.answers.get(request.method)
        if answer is not None:
            answer(request)


class FakeServer:
    """Makes the sessions of one pool."""

    def __init__(self, *, over_link: bool = False) -> None:
        self.over_link = over_link
        self.passed: list[tuple[tuple[str, str], ...]] = []
        """The headers of callers with which each conversation was connected."""
        self.sessions: list[FakeSession] = []
        self.requests: list[FakeRequest] = []
        """What all sessions received, in order."""
        self.capabilities: dict[str, Any] = dict(CAPABILITIES)
        self.is_stateless = False
        """Its sessions have no ids."""
        self.holds_openings = False
        self.open_fault: Fault | None = None
        self.holds_closing = False
        self.is_known = True
        """Whether a `ping` is answered; refused otherwise."""
        self.lists: dict[str, Any] = {
            "tools/list": {"tools": [{"name": "tool", "inputSchema": {"type": "object"}}]},
            "resources/list": {"resources": []},
            "resources/templates/list": {"resourceTemplates": []},
        }
        self.answers: dict[str, Callable[[FakeRequest], None]] = {"ping": self._ping}
        for method in ("logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
            self.answers[method] = lambda request: request.result({})
        for method in self.lists:
            self.answers[method] = lambda request: request.result(self.lists[request.method])

    def connect(
        self,
        listener: Listener,
        *,
        declares: Abilities,
        passed: tuple[tuple[str, str], ...] = (),
        prefers_modern: bool = False,
    ) -> Upstream:
        del prefers_modern  # it speaks one era
        self.passed.append(passed)
        if self.over_link:
            link = LinkSession(self, declares=declares)
            self._made(link)
            return HandshakeUpstream(link, listener, declared(declares))
        session = DirectSession(self, listener, declares=declares)
        self._made(session)
        return session

    def _made(self, session: FakeSession) -> None:
        self.sessions.append(session)
        if not self.holds_openings:
            session.let_open(self.open_fault)

    @property
    def session(self) -> FakeSession:
        """The latest session."""
        return self.sessions[-1]

    @property
    def open_sessions(self) -> list[FakeSession]:
        return [s for s in self.sessions if not s.is_over]

    @property
    def calls(self) -> list[FakeRequest]:
        """Every tool call of every session, in the order in which they came."""
        return [request for request in self.requests if request.method == "tools/call"]

    @property
    def hello(self) -> dict[str, Any]:
        return {"protocolVersion": "2025-11-25", "capabilities": self.capabilities, "serverInfo": {"name": "fake"}}

    def _ping(self, request: FakeRequest) -> None:
        if self.is_known:
            request.result({})
        else:
            request.fail(FaultKind.REFUSED, "404 Not Found to a ping")


# As an `Upstream`.


class DirectRequest(FakeRequest):
    session: DirectSession

    def __init__(self, session: DirectSession, call: Call, exchange: Exchange) -> None:
        super().__init__(session, call.method, dict(call.params))
        self.exchange = exchange
        self._is_over = False

    def cancel(self, reason: str) -> None:
        super().cancel(reason)
        self._is_over = True

    def _end(self) -> bool:
        was_over, self._is_over = self._is_over, True
        return not was_over and not self.session.is_terminated

    def result(self, value: Any) -> None:
        if self._end():
            self.exchange.answered(Result(raw(value)))

    def error(self, code: int, message: str = "no") -> None:
        if self._end():
            self.exchange.answered(RpcError(raw({"code": code, "message": message})))

    def fail(self, kind: FaultKind, detail: str = "it failed", error: Any = None) -> None:
        if self._end():
            self.exchange.failed(Fault(kind, detail, None if error is None else raw(error)))

    def progress(self, value: float) -> None:
        if not self._is_over:
            self.exchange.progress({"progressToken": Raw(b"7"), "progress": raw(value)})

    def notify(self, method: str, params: Any) -> None:
        if self._is_over:
            return
        if method == "notifications/message":
            self.exchange.log(raw(params))
        else:
            self.exchange.notify(method, raw(params))

    def ask(self, method: str = "elicitation/create", **params: Any) -> Any:
        ask = self.session.new_ask(method, params)
        self.session.open_asks[ask.id] = self.exchange
        self.exchange.ask(ask)
        return ask.id


class DirectSession(FakeSession):
    """A session that is the pool's `Upstream` itself."""

    def __init__(self, server: FakeServer, listener: Listener, *, declares: Abilities) -> None:
        super().__init__(server, declares=declares)
        self.listener = listener
        self.open_asks: dict[AskId, Exchange | None] = {}
        self._ask_ids = itertools.count(1)
        self._may_close = asyncio.Event()

    @property
    def settled(self) -> DirectSession:
        return self

    async def open(self) -> Hello:
        fault = await self.opening
        if fault is not None:
            raise OpenFailed(
                fault.detail,
                is_unauthorized=fault.kind is FaultKind.UNAUTHORIZED,
                is_unsent=fault.kind is FaultKind.NOT_SENT,
            )
        self.is_open = True
        capabilities = {name: raw(value) for name, value in self.server.capabilities.items()}
        return Hello(raw(self.server.hello), "2025-11-25", capabilities, is_stateless=self.server.is_stateless)

    def send(self, call: Call, exchange: Exchange) -> Sent:
        request = DirectRequest(self, call, exchange)
        self.received(request)
        return request

    def notify(self, method: str, params: Raw | None) -> None:
        self.notifications.append((method, None if params is None else json.loads(bytes(params))))

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        if ask_id in self.open_asks:
            del self.open_asks[ask_id]
            self.replies.append((ask_id, json.loads(bytes(reply.error or reply.result or b"{}"))))

    async def close(self) -> None:
        self.is_closed = True
        if self.server.holds_closing:
            await self._may_close.wait()

    def terminate(self) -> None:
        self.is_terminated = True
        self.open_asks.clear()
        self._may_close.set()

    def new_ask(self, method: str, params: dict[str, Any]) -> Ask:
        return Ask(
            AskId(next(self._ask_ids)),
            method,
            raw(params),
            is_url_elicitation=params.get("mode") == "url",
            elicitation_id=params.get("elicitationId"),
        )

    def push(self, method: str, params: Any = None) -> None:
        self.listener.pushed(method, None if params is None else raw(params))

    def ask(self, method: str = "elicitation/create", **params: Any) -> Any:
        ask = self.new_ask(method, params)
        self.open_asks[ask.id] = None
        self.listener.asked(ask)
        return ask.id

    def withdraw(self, ask: Any) -> None:
        exchange = self.open_asks.pop(ask)
        if exchange is not None:
            exchange.withdraw(ask)
        else:
            self.listener.withdrawn(ask)

    def push_stream(self, is_up: bool) -> None:
        self.listener.push_stream(is_up)

    def suspect(self) -> None:
        self.listener.suspected(Fault(FaultKind.REFUSED, "404 Not Found to a reply"))

    def die(self, kind: FaultKind = FaultKind.GONE) -> None:
        for request in self.requests:
            request.fail(kind, "the process ended")
        self.listener.lost(Fault(kind, "the process ended"))


# Over a link.


class LinkRequest(FakeRequest):
    session: LinkSession

    def __init__(self, session: LinkSession, request_id: int, method: str, params: dict[str, Any]) -> None:
        super().__init__(session, method, params)
        self.id = request_id

    def _send(self, message: dict[str, Any]) -> None:
        if not self.session.is_terminated:
            self.session.receiver.received(json.dumps({"jsonrpc": "2.0", **message}).encode(), self.id)

    def result(self, value: Any) -> None:
        self._send({"id": self.id, "result": value})

    def error(self, code: int, message: str = "no") -> None:
        self._send({"id": self.id, "error": {"code": code, "message": message}})

    def fail(self, kind: FaultKind, detail: str = "it failed", error: Any = None) -> None:
        if not self.session.is_terminated:
            self.session.receiver.failed(self.id, Fault(kind, detail, None if error is None else raw(error)))

    def progress(self, value: float) -> None:
        self.notify("notifications/progress", {"progressToken": self.id, "progress": value})

    def notify(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def ask(self, method: str = "elicitation/create", **params: Any) -> Any:
        ask = f"q{next(self.session.ask_ids)}"
        self._send({"id": ask, "method": method, "params": params})
        return ask


class LinkSession(FakeSession):
    """A session behind the real conversation: the `Link`."""

    def __init__(self, server: FakeServer, *, declares: Abilities) -> None:
        super().__init__(server, declares=declares)
        self.receiver: Receiver
        self.ask_ids = itertools.count(1)
        self._may_close = asyncio.Event()

    @property
    def is_stateless(self) -> bool:
        return self.server.is_stateless

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def request(self, request_id: int, message: bytes) -> Sent:
        decoded = json.loads(message)
        request = LinkRequest(self, request_id, decoded["method"], decoded.get("params", {}))
        if request.method == "initialize":
            self.opening.add_done_callback(lambda done: self._initialized(request, done.result()))
        else:
            self.received(request)
        return request

    def answered_elsewhere(self, request_id: int) -> None: ...

    def _initialized(self, request: LinkRequest, fault: Fault | None) -> None:
        if fault is not None:
            request.fail(fault.kind, fault.detail)
        else:
            request.result(self.server.hello)

    def post(self, message: bytes) -> None:
        decoded = json.loads(message)
        if decoded.get("method") == "notifications/cancelled":
            request_id, reason = decoded["params"]["requestId"], decoded["params"]["reason"]
            for request in self.requests:
                if isinstance(request, LinkRequest) and request.id == request_id:
                    request.cancelled = reason
        elif "method" in decoded:
            self.notifications.append((decoded["method"], decoded.get("params")))
        else:
            self.replies.append((decoded["id"], decoded.get("error", decoded.get("result"))))

    def established(self, protocol_version: str) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_closed = True
        if self.server.holds_closing:
            await self._may_close.wait()

    def terminate(self) -> None:
        self.is_terminated = True
        self._may_close.set()

    def _send(self, message: dict[str, Any]) -> None:
        self.receiver.received(jsonrpc.encode({"jsonrpc": "2.0", **message}), None)

    def push(self, method: str, params: Any = None) -> None:
        self._send({"method": method} if params is None else {"method": method, "params": params})

    def ask(self, method: str = "elicitation/create", **params: Any) -> Any:
        ask = f"q{next(self.ask_ids)}"
        self._send({"id": ask, "method": method, "params": params})
        return ask

    def withdraw(self, ask: Any) -> None:
        self._send({"method": "notifications/cancelled", "params": {"requestId": ask}})

    def push_stream(self, is_up: bool) -> None:
        self.receiver.push_stream(is_up)

    def suspect(self) -> None:
        self.receiver.suspected(Fault(FaultKind.REFUSED, "404 Not Found to a reply"))

    def die(self, kind: FaultKind = FaultKind.GONE) -> None:
        self.receiver.lost(Fault(kind, "the process ended"))
