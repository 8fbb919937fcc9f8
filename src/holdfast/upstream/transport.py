"""What a session sees of a server, and what a server's transport reports back.

Two layers. An `Upstream` is one conversation with one server, in either era: calls go in,
what they yield comes out through an `Exchange`. A `Link` is the bytes below a conversation of
the handshake era: one Streamable HTTP session, or one process.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from msgspec import Raw, Struct

from holdfast.call import (
    OURSELVES,
    Abilities,
    Answered,
    Ask,
    AskId,
    Call,
    Fields,
    InputRequired,
    Reply,
    Result,
    RpcError,
)
from holdfast.wire import jsonrpc
from holdfast.wire.jsonrpc import ServerMessage
from holdfast.wire.revisions import MODERN

_ask_ids = itertools.count(1)


def next_ask_id() -> AskId:
    """A name for a question, unlike that of any other."""
    return AskId(next(_ask_ids))


def has_tools(method: str, params: Raw | None) -> bool:
    """Whether a question is for a model that can be given tools."""
    if method != "sampling/createMessage" or params is None:
        return False
    return not jsonrpc.decode_fields(params).keys().isdisjoint({"tools", "toolChoice"})


class FaultKind(Enum):
    """What became of a request that got no JSON-RPC answer; how it may be repeated hangs on it."""

    NOT_SENT = auto()
    """No byte was written: connection refused, name not found, TLS failed, pipe full."""
    CUT = auto()
    """Bytes were written, then the connection was lost before the answer."""
    GONE = auto()
    """The process or connection that is the session has ended; the answer will never come."""
    REFUSED = auto()
    """400 or 404 to a request that bore a session id: the session may be lost."""
    UNAUTHORIZED = auto()
    """401 or 403."""
    UNAVAILABLE = auto()
    """502 or 503: a proxy or the server says that it cannot now."""
    FAILED = auto()
    """Another 5xx: the server may have executed the request."""
    INVALID = auto()
    """An answer that is no MCP: HTML, broken JSON, a body over the limit, another 4xx."""
    TIMEOUT = auto()
    """No message from the server for `call_timeout` seconds."""


class Fault(Struct, frozen=True):
    """Why a request has no answer. `detail` is a sentence for whoever is concerned; it holds no secret."""

    kind: FaultKind
    detail: str
    error: Raw | None = None
    """The JSON-RPC `error` object that came with an HTTP refusal, if there was one."""
    remark: str = ""
    """What the server wrote about it, for the operator alone: it may speak of anybody's call."""

    @property
    def reason(self) -> str:
        """`detail` and `remark`, for the operator."""
        return f"{self.detail}: {self.remark}" if self.remark else self.detail


@dataclass(frozen=True, slots=True)
class Hello:
    """What a server said of itself when its session opened."""

    raw: Raw
    """The whole InitializeResult, byte for byte."""
    protocol_version: str
    """The revision that is spoken with the server; `raw` may name an older one, which clients understand."""
    capabilities: Fields
    is_stateless: bool = False
    """It remembers nothing between two requests: no session with it can be lost."""
    speaks_both: bool = False
    """It speaks 2026-07-28 and, as far as is known, older revisions: the era of who opens a session decides."""
    discovery: Hello | None = None
    """What it says to clients of 2026-07-28, where this is what it says to older ones."""

    is_deaf: bool = False
    """Its session listens for no changes, and so promises none."""

    @property
    def is_modern(self) -> bool:
        """2026-07-28 is spoken with it."""
        return self.protocol_version == MODERN

    @property
    def could_shake_hands(self) -> bool:
        """2026-07-28 is spoken with a server that speaks older revisions too, which may remember in those."""
        return self.is_modern and self.speaks_both


class Exchange(Protocol):
    """The session's end of one request sent upstream; ends with exactly one `answered` or `failed`."""

    @property
    def abilities(self) -> Abilities:
        """What may be asked on this request, for servers that are told so with each."""
        ...

    def alive(self) -> None:
        """The server is at work on this request, and says nothing more than that."""

    def progress(self, update: Fields) -> None:
        """The params of a progress notification that bore this request's token."""

    def log(self, params: Raw) -> None:
        """The params of a log message that came on this request's own stream."""

    def notify(self, method: str, params: Raw | None) -> None:
        """Another notification that came on this request's own stream."""

    def ask(self, ask: Ask) -> None:
        """A request of the server that came on this request's own stream."""

    def withdraw(self, ask_id: AskId) -> None:
        """The server cancelled its own request `ask_id`."""

    def suspend(self) -> None:
        """The server closed this request's stream and will answer on a resumed one."""

    def answered(self, outcome: Answered) -> None:
        """The server's answer; `InputRequired` only to a call that declares what its caller can be asked."""

    def failed(self, fault: Fault) -> None:
        """There will be no answer."""


class Inquiry:
    """The exchange of a request of our own: its outcome as a future.

    A question of the server goes to `asked`, which must see to it that it is answered; everything
    else is ignored.
    """

    def __init__(self, asked: Callable[[Ask], None]) -> None:
        self._asked = asked
        self.outcome: asyncio.Future[Result | RpcError | Fault] = asyncio.get_running_loop().create_future()

    @property
    def abilities(self) -> Abilities:
        return OURSELVES

    def answered(self, outcome: Answered) -> None:
        if isinstance(outcome, InputRequired):
            self.failed(Fault(FaultKind.INVALID, "the server asked for input where nobody can be asked"))
        elif not self.outcome.done():
            self.outcome.set_result(outcome)

    def failed(self, fault: Fault) -> None:
        if not self.outcome.done():
            self.outcome.set_result(fault)

    def alive(self) -> None: ...

    def progress(self, update: Fields) -> None: ...

    def log(self, params: Raw) -> None: ...

    def notify(self, method: str, params: Raw | None) -> None: ...

    def ask(self, ask: Ask) -> None:
        self._asked(ask)

    def withdraw(self, ask_id: AskId) -> None: ...

    def suspend(self) -> None: ...


class Sent(Protocol):
    """A request that was sent and is not answered yet."""

    def cancel(self, reason: str) -> None:
        """Tell the server, forget the exchange; nothing more is called on it."""

    def pause(self) -> None:
        """Stop reading this request's stream, where it has one of its own."""

    def resume(self) -> None:
        """Read on."""


class Listener(Protocol):
    """The session's end of a conversation: what belongs to no single request."""

    def pushed(self, method: str, params: Raw | None) -> None:
        """A notification that came on no request's stream."""

    def asked(self, ask: Ask) -> None:
        """A request of the server that came on no request's stream."""

    def asked_too_late(self, ask: Ask) -> None:
        """A request of the server that came on the stream of a request that has ended: nobody is there for it."""

    def withdrawn(self, ask_id: AskId) -> None:
        """The server cancelled a request of its own that came through `asked`."""

    def push_stream(self, is_up: bool) -> None:
        """The way for pushes opened or closed; while it is closed, changes are not announced."""

    def suspected(self, fault: Fault) -> None:
        """Something other than a call was refused for its session id: the session may be lost."""

    def lost(self, fault: Fault) -> None:
        """The session is gone. Every exchange was failed before; nothing more is called."""


class Upstream(Protocol):
    """One conversation with one server. Not reusable once closed."""

    async def open(self) -> Hello:
        """Shake hands and return what the server said of itself.

        Raises `OpenFailed`. Cancelled or failed, it leaves nothing running after `terminate`.
        """
        ...

    @property
    def settled(self) -> Upstream:
        """What goes on in its place once it is open: itself, or the one of several ways that it has found to work."""
        ...

    def send(self, call: Call, exchange: Exchange) -> Sent:
        """Send `call`; the exchange may be ended before this returns."""
        ...

    def notify(self, method: str, params: Raw | None) -> None:
        """Send a notification; a failure shows as `Listener.suspected` or `lost`, if at all."""

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        """Answer a request of the server; an unknown id is ignored."""

    async def close(self) -> None:
        """End the session as its transport does (DELETE, or close stdin, SIGTERM, SIGKILL), bounded in time.

        What was sent before, a cancellation above all, comes first.
        """

    def terminate(self) -> None:
        """Drop everything at once: sockets are aborted, process groups killed. Idempotent."""


class Receiver(Protocol):
    """The conversation's end of a `Link`."""

    def received(self, message: bytes, request_id: int | None, envelope: ServerMessage | None = None) -> None:
        """One JSON-RPC message or array; `request_id` is the request on whose own stream it came.

        `envelope` is the message decoded, where the link had to do that.
        """

    def failed(self, request_id: int, fault: Fault) -> None:
        """The request will get no answer. Harmless where it has been answered already."""

    def suspended(self, request_id: int) -> None:
        """The request's stream was closed by the server and is being resumed."""

    def push_stream(self, is_up: bool) -> None:
        """As `Listener.push_stream`."""

    def suspected(self, fault: Fault) -> None:
        """As `Listener.suspected`."""

    def lost(self, fault: Fault) -> None:
        """The link is dead. Called at most once, and not after `close` or `terminate`."""


class Link(Protocol):
    """Carries the messages of one handshake-era session; knows bytes and ids, not what they mean."""

    async def start(self, receiver: Receiver) -> None:
        """Get ready to send: start the process, resolve nothing for HTTP. Raises `OpenFailed`."""

    def request(self, request_id: int, message: bytes) -> Sent:
        """Send a request. `Sent.cancel` here only stops reading; the conversation tells the server.

        Where it cannot be sent, also because the link is closed or terminated, `Receiver.failed`
        is called with `NOT_SENT`, possibly before this returns.
        """
        ...

    @property
    def is_stateless(self) -> bool:
        """Nothing ties two requests together for the server; known once the handshake is done."""
        ...

    def answered_elsewhere(self, request_id: int) -> None:
        """The answer came, but not on the request's own stream: no need to keep that open.

        Harmless where there is no such stream, or no such request.
        """

    def post(self, message: bytes) -> None:
        """Send a notification or a reply."""

    def established(self, protocol_version: str) -> None:
        """The handshake is done: bear the version from now on, open the way for pushes."""

    async def close(self) -> None:
        """As `Upstream.close`."""

    def terminate(self) -> None:
        """As `Upstream.terminate`."""
