"""What was found out about a server: plain values, one class for each thing that is asked.

They are also the JSON of `holdfast doctor --json`: a field that is taken away or changes its
meaning breaks somebody's script. None stands for what was not asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Transport = Literal["http", "sse", "stdio"]
"""Streamable HTTP, the HTTP+SSE of 2024-11-05, a process."""

Kind = Literal["result", "error", "html", "text", "stream", "empty", "nothing"]
"""The form of an answer: a JSON-RPC result or error, a page, other text, an event stream, no body, or none at all."""

Pace = Literal["side by side", "one after the other", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request was answered with, without what a result holds."""

    kind: Kind
    status: int | None = None
    """The HTTP status; None where there is none, as over stdio."""
    code: int | None = None
    """Of a JSON-RPC error."""
    words: str = ""
    """The first words of an error or a page, or why nothing came."""

    @property
    def is_served(self) -> bool:
        """The server did what it was asked for."""
        return self.kind == "result"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """`initialize`."""

    seconds: float
    """Process start, connection and handshake together."""
    answer: Answer
    revision: str | None = None
    """The revision that was negotiated; None where no session was opened."""
    server: str = ""
    """What the server calls itself, with its version."""
    has_id: bool = False
    """It gave the session an id."""
    capabilities: tuple[str, ...] = ()
    announces: tuple[str, ...] = ()
    """The lists of which it says that it announces changes (`listChanged`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modern:
    """`server/discover` of 2026-07-28."""

    seconds: float
    answer: Answer
    is_spoken: bool
    server: str = ""
    revisions: tuple[str, ...] = ()
    opens_session: bool = False
    """The question itself was answered with a session id: such a session is nobody's."""
    counts_requests: bool = False
    """Each request of this revision is counted against a limit, and those of a session are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a request gets that the server has reason to refuse."""

    seconds: float
    answer: Answer
    is_refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownId:
    """A request that bears a session id which the server never gave."""

    seconds: float
    answer: Answer
    """To `tools/list`."""
    ping: Answer
    is_refused: bool
    """Both were: a session that is lost can be told from one that lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """`ping` in a session."""

    seconds: float
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What the server lists."""

    seconds: float
    answer: Answer
    """To `tools/list`."""
    tools: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    """Of the tools, those that it says change nothing (`readOnlyHint`)."""
    resources: int | None = None
    prompts: int | None = None
    is_same_in_second: bool | None = None
    """Whether a second session listed the same tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondConnection:
    """A second session while the first is open."""

    seconds: float
    answer: Answer
    is_accepted: bool
    does_first_survive: bool | None = None
    """Whether the first still answers, with the second open or refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Requests of one session at once."""

    seconds: float
    """Until the last was answered."""
    request: str
    """The method, or the tool that was named for it."""
    sent: int
    """0 where one by itself was not answered either."""
    answered: int
    alone_seconds: float
    """How long one takes by itself."""
    pace: Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of the tool that was named for it."""

    seconds: float
    tool: str
    answer: Answer
    has_failed: bool
    """The tool said that it failed (`isError`), or there is no result."""
    progress: int
    """How many progress notifications came."""
    strayed: int | None = None
    """Of two calls at once, progress notifications that came on the other's stream; None where none could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Whether what one call writes is there for another that reads; None where that was not asked."""

    seconds: float
    write: str
    read: str
    same: bool | None
    """In the same session. None: reading gave the same before and after, or the pair could not be called."""
    reconnected: bool | None = None
    """In the same session, over a new connection."""
    second: bool | None = None
    """In a second session, while the first was open."""
    later: bool | None = None
    """In a session that was opened after the first had ended."""
    modern: bool | None = None
    """In the next request of 2026-07-28, which has no sessions."""
    problem: str = ""
    """Why nothing can be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """A session's next request, over a new connection."""

    seconds: float
    answer: Answer
    is_kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PushStream:
    """A GET, for what belongs to no request."""

    seconds: float
    answer: Answer
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """Taking up a stream by the id of its last event."""

    seconds: float
    has_event_ids: bool
    is_resumed: bool
    answer: Answer | None = None
    """To the GET with `Last-Event-ID`; None where there was no id to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """DELETE, or the end of the stream or process that is the session."""

    seconds: float
    answer: Answer
    is_gone: bool | None
    """Whether the session is refused afterwards."""
    does_make_room: bool | None = None
    """Whether another can be opened afterwards, where a second at once was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """A limit on requests of which the server tells in `RateLimit` headers."""

    limit: int
    left: int
    """When it was last told."""
    is_exceeded: bool = False
    """It answered 429."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """All that was found out; filled in as the examination goes on."""

    transport: Transport
    is_cut: bool = False
    """The time was over before everything was asked."""
    seconds: float = 0.0
    problem: str = ""
    """Why the server cannot be talked to; empty where it can."""
    moved_to: str = ""
    """Path and query to which the server redirected; empty where it did not."""
    handshake: Handshake | None = None
    legacy_sse: Handshake | None = None
    modern: Modern | None = None
    missing_id: Refusal | None = None
    unknown_id: UnknownId | None = None
    second: SecondConnection | None = None
    reconnect: Reconnect | None = None
    end: Ending | None = None
    ping: Ping | None = None
    lists: Lists | None = None
    parallel: Parallel | None = None
    call: ToolCall | None = None
    state: State | None = None
    push_stream: PushStream | None = None
    resumption: Resumption | None = None
    foreign_origin: Refusal | None = None
    foreign_host: Refusal | None = None
    allowance: Allowance | None = None
    left_behind: int = 0
    """Sessions that could not be ended."""

    @property
    def opened(self) -> Handshake | None:
        """The handshake by which sessions are opened, over whatever transport; None where there is none."""
        found = self.legacy_sse if self.transport == "sse" else self.handshake
        return found if found is not None and found.revision is not None else None

    @property
    def is_modern_only(self) -> bool:
        """It speaks 2026-07-28 and shakes no hands."""
        return self.opened is None and self.modern is not None and self.modern.is_spoken
