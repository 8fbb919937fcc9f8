"""What the requests and streams of one session with a Streamable HTTP server share."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from holdfast.clock import Clock
from holdfast.upstream.http1 import HeaderBlock, HttpClient, header_block
from holdfast.upstream.http1_response import KnownHeads
from holdfast.upstream.quotation import phrase, quotation, secrets_in
from holdfast.upstream.transport import Receiver
from holdfast.wire.headers import EVENT_STREAM, JSON

MAX_REFUSAL_BYTES: Final = 64 * 1024
"""Of the body of a refusal; a larger one is not looked at."""

SESSION_HEADER: Final = "mcp-session-id"
_STREAM_HEADERS: Final = header_block([("accept", EVENT_STREAM)])
_POST_HEADERS: Final = header_block([("content-type", JSON), ("accept", f"{JSON}, {EVENT_STREAM}")])
_LINKS_OWN: Final = frozenset(
    {
        *("accept", "content-type", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version"),
        SESSION_HEADER,
    }
)


class Activity(Protocol):
    """Something of a session that runs until it ends or is dropped."""

    def drop(self) -> None:
        """End at once and report nothing more. Idempotent."""


class Underway(Activity, Protocol):
    """A request of a session, as others than itself see it."""

    @property
    def awaits_answer(self) -> bool:
        """The server has it, or some of it, and has not begun to answer."""
        ...

    def answered_elsewhere(self) -> None:
        """Its answer came on another stream than its own."""

    def outlive_session(self) -> None:
        """Run on when the session is stopped."""


class HttpSession:
    """What all exchanges of one MCP session share: where they go, what they bear, whom they report to."""

    def __init__(
        self,
        client: HttpClient,
        target: str,
        configured: Mapping[str, str],
        *,
        clock: Clock,
        max_message_bytes: int,
        jitter: Callable[[], float] = random.random,
        is_stateless: bool = False,
    ) -> None:
        """`is_stateless`: there is no session id, and no stream that was cut can be resumed (2026-07-28)."""
        for name in configured:
            if name.lower() in _LINKS_OWN:
                raise ValueError(f"the header {name} is not free to be set")
        self.client = client
        self._target = target
        self.clock = clock
        self.max_message_bytes = max_message_bytes
        self.jitter = jitter
        self.is_stateless = is_stateless
        self.id: str | None = None
        self.first: Underway | None = None
        """`initialize`: the only request whose answer may name the session or redirect."""
        self.requests: dict[int, Underway] = {}
        self.activities: dict[Activity, None] = {}
        """All else that runs."""
        self.on_begun: Callable[[], None] | None = None
        self.on_dropped: Callable[[], None] | None = None
        """Called once the answer to `initialize` has begun, and with it the session."""
        self.is_established = False
        self.heads = KnownHeads(max_message_bytes)
        self.plain_headers: Mapping[str, str] | None = None
        """Those of an answer that was one JSON message: what comes with the same ones is another."""
        self.may_be_legacy = False
        """`initialize` was refused as by a server that speaks only the transport of 2024-11-05, or no MCP."""
        self.receiver: Receiver
        """Whom everything is reported to, once the link is started."""
        self._configured = header_block(configured.items())
        self._secrets = secrets_in(target, configured.values())
        self._version = b""
        self._bear()

    @property
    def target(self) -> str:
        """The path and query where the server is found."""
        return self._target

    def move(self, target: str) -> None:
        """Go to `target` from now on."""
        self._target = target
        self._bear()

    def begin(self, session_id: str | None) -> None:
        """Bear from now on the id that came with the answer to `initialize`."""
        self.id = session_id
        self._bear()
        if self.on_begun is not None:
            self.on_begun()

    def establish(self, protocol_version: str) -> None:
        """Bear the version from now on."""
        self.is_established = True
        self._version = header_block([("mcp-protocol-version", protocol_version)])
        self._bear()

    def _bear(self) -> None:
        own = header_block([(SESSION_HEADER, self.id)]) if self.id is not None else b""
        self.headers = HeaderBlock(self._configured + own + self._version)
        self.post_head = self.client.head("POST", self._target, HeaderBlock(_POST_HEADERS + self.headers))
        """Of every POST; what one bears beside it may be joined to it."""

    def stream_headers(self, last_event_id: str | None) -> HeaderBlock:
        """For a GET that opens a stream, or resumes one after `last_event_id`."""
        resume = header_block([("last-event-id", last_event_id)]) if last_event_id else b""
        return HeaderBlock(_STREAM_HEADERS + self.headers + resume)

    def is_refusal(self, status: int) -> bool:
        """Whether `status` may mean that the server no longer knows the session."""
        return self.id is not None and status in {400, 404}

    def quote(self, body: bytes) -> str:
        """What `body` says, for a sentence, without what is the operator's secret."""
        return quotation(body, self._secrets if self.id is None else {*self._secrets, self.id})

    def said(self, status: int, body: bytes, *, is_readable: bool) -> str:
        """What `body` says beyond `status`, as `quote` gives it."""
        text = self.quote(body) if is_readable else ""
        return "" if text.lower() in {"", phrase(status).lower()} else text

    def foreign(self, status: int, media: str) -> str:
        """A sentence about an answer that is none of MCP."""
        return f"{self.answered(status)} with {media[:80] or 'no content type'}, which is no MCP"

    def answered(self, status: int) -> str:
        """The beginning of a sentence about an answer."""
        return f"{self.client.peer} answered {status} {phrase(status)}".rstrip()

    def stop(self) -> None:
        """Drop everything that runs."""
        while self.requests:
            _, request = self.requests.popitem()
            request.drop()
        while self.activities:
            activity, _ = self.activities.popitem()
            activity.drop()
