"""The neutral form: a request on its way, whoever sent it and whichever server answers.

Every downstream dialect turns its wire into a `Call` and is its `Caller`; every upstream
transport turns a `Call` into its wire. Nothing here knows a socket, an era or a session.

Values that are made for each call are structs: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NewType, Protocol, TypeAlias

from msgspec import Raw, Struct, field

from holdfast.errors import CallFailed

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""A decoded JSON value."""

Fields: TypeAlias = dict[str, Raw]
"""One level of a JSON object; its values are still the sender's bytes."""

AskId = NewType("AskId", int)
"""Names one question of a server; unique in the process, since a client may have several servers asking."""

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Lowest first, as RFC 5424 orders them and `logging/setLevel` names them."""

DEFAULT_LOG_LEVEL: Final = "info"
"""Where nobody set one."""


class Abilities(Struct, frozen=True):
    """What a caller can be asked or told while its call runs."""

    elicitation_form: bool = False
    elicitation_url: bool = False
    sampling: bool = False
    sampling_tools: bool = False
    """It samples with tools; a server that was not told so does without."""
    sampling_context: bool = False
    """It knows `includeContext`."""
    roots: bool = False
    other: bool = False
    """There is a way back for requests of the server that we do not know."""
    tasks: bool = False
    """It may be answered with a task of the extension for 2026-07-28."""
    extensions: bytes = b""
    """The other extensions that it declared, as a JSON object; empty for none."""

    @property
    def can_answer_any(self) -> bool:
        """Whether there is anything that it can be asked."""
        return self.elicitation_form or self.elicitation_url or self.sampling or self.roots or self.other

    def can_answer(self, ask: Ask) -> bool:
        """Whether `ask` may be put to this caller."""
        match ask.method:
            case "elicitation/create":
                return self.elicitation_url if ask.is_url_elicitation else self.elicitation_form
            case "sampling/createMessage":
                return self.sampling and (self.sampling_tools or not ask.has_tools)
            case "roots/list":
                return self.roots
            case _:
                return self.other


NOBODY: Final = Abilities()
"""The caller cannot be asked anything."""

APPS: Final = b'{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}'
"""MCP Apps: metadata and resources that pass as they are, so it is declared for whoever there may be."""

ANYBODY: Final = Abilities(
    elicitation_form=True,
    elicitation_url=True,
    sampling=True,
    sampling_tools=True,
    sampling_context=True,
    roots=True,
    extensions=APPS,
)
"""All that can be declared to a server, where it is not known who will be asked."""
OURSELVES: Final = Abilities(extensions=APPS)
"""What is asked of a server in nobody's name, as its lists, which are everybody's."""


UNKNOWN_STATE: Final = "This requestState is unknown: it was used, is too old, or is not of this request."
"""Whatever the reason, so that nobody learns of another's call."""


class Ask(Struct, frozen=True):
    """A question that the server puts to the caller while a call runs."""

    id: AskId
    method: str
    params: Raw | None
    is_url_elicitation: bool = False
    elicitation_id: str | None = None
    has_tools: bool = False
    """It is for a model that can be given tools."""
    timeout: float = 600.0
    """Seconds for which the server is kept waiting for the answer."""
    name: str | None = None
    """What the server itself calls the question, where it gave it a name."""


class Reply(Struct, frozen=True):
    """The caller's answer to an `Ask`: a result or a JSON-RPC error object, never both."""

    result: Raw | None = None
    error: Raw | None = None


class Declared(Struct, frozen=True):
    """What a caller of 2026-07-28 says with its request, for servers of the same revision.

    It takes `input_required` as it is, and comes back with a call of its own.
    """

    capabilities: Mapping[str, Json] = field(default_factory=dict[str, Json])
    input: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """The `inputResponses` and the server's own `requestState`, as far as it brings them."""
    origin: bytes = b""
    """Who gave that state, as `InputRequired.origin`; empty where none is brought."""


class Call(Struct, frozen=True):
    """One request of a client. `params` is decoded, checked, and never changed by what carries it."""

    method: str
    params: dict[str, Json] = field(default_factory=dict[str, Json])
    wants_progress: bool = False
    """The client gave a progress token; the upstream conversation mints its own."""
    request: str = ""
    """The id of the HTTP request that brought it, for the log."""
    declared: Declared | None = None
    """None for a caller of the handshake era, and for what we ask ourselves."""
    log_level: str | None = None
    """The lowest level of log messages that the request asks for; None where it says nothing of that."""

    @property
    def target(self) -> str | None:
        """The tool or prompt name, or the resource URI, that the call is about."""
        value = self.params.get("uri" if self.method.startswith("resources/") else "name")
        return value if isinstance(value, str) else None


class Page:
    """Where a page of a list is kept to be served again and again: what was made of it stays beside it."""

    __slots__ = ("shaped",)

    def __init__(self) -> None:
        self.shaped: object = None
        """The page in the words of 2026-07-28, as the dialect of its clients keeps it."""


class Result(Struct, frozen=True):
    """The server's `result`, in the words of the handshake era: byte for byte where it is of that era."""

    raw: Raw
    modern: Raw | None = None
    """The same byte for byte from a server of 2026-07-28."""
    age: float = 0.0
    """Seconds since it was true for certain; 0 for what the server says now."""
    is_task: bool = False
    """It is a task that stands for the result (2026-07-28, extension tasks); only its caller's own wish brings one."""
    page: Page | None = None
    """None for what is said once."""

    def aged(self, age: float) -> Result:
        """The same, which was true for certain `age` seconds ago."""
        return Result(self.raw, self.modern, age, self.is_task, self.page)

    def copied(self) -> Result:
        """The same in bytes of its own, to be kept."""
        return self.rewritten(Raw.copy)

    def rewritten(self, change: Callable[[Raw], Raw]) -> Result:
        """The same with a change to what it says, in either era."""
        raw = change(self.raw)
        modern = self.modern
        if modern is not None:
            modern = raw if modern is self.raw else change(modern)
        return Result(raw, modern, self.age, self.is_task)


class InputRequired(Struct, frozen=True):
    """An `input_required` result of 2026-07-28, for a caller of that revision: the end of its call."""

    raw: Raw
    origin: bytes = b""
    """Which server gave it, under which settings and credentials; empty where that was not a server's session."""


class RpcError(Struct, frozen=True):
    """The server's JSON-RPC `error` object, byte for byte: an answer, not a failure of ours."""

    raw: Raw


Answered: TypeAlias = Result | InputRequired | RpcError
"""What a server says to a call."""

Outcome: TypeAlias = Answered | CallFailed
"""The one thing that ends a call."""


class StatusWord(StrEnum):
    """Where a call's session stands, in the words that every face shows."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    READY = "ready"
    RECONNECTING = "reconnecting"
    LOST = "lost"
    RESTORED = "restored"
    FAILED = "failed"


class Status(Struct, frozen=True):
    """A status word with one plain sentence for a person."""

    word: StatusWord
    sentence: str

    def __str__(self) -> str:
        """One line to show: the sentence, with the word before it where it does not begin so."""
        said = self.sentence.lower().startswith(self.word)
        return self.sentence if said else f"{self.word}: {self.sentence}"


class Caller(Protocol):
    """The far end of one call: what comes back, in order, ending with exactly one `answer`.

    The methods are called from the event loop, may be called before `start` returns, and
    never block. An exception in one fails this call and no other.
    """

    @property
    def abilities(self) -> Abilities:
        """Which asks this caller can take now; read when an ask arrives."""
        ...

    def status(self, status: Status) -> None:
        """Say what the call waits for: a slot, a connection, a reconnection."""

    def progress(self, update: Fields) -> None:
        """Relay the `params` of a progress notification; `progressToken` is the caller's to set."""

    def log(self, params: Raw) -> None:
        """Relay the `params` of a log message."""

    def notify(self, method: str, params: Raw | None) -> None:
        """Relay any other notification that belongs to this call."""

    def ask(self, ask: Ask) -> None:
        """Put a question of the server; answered later through `Running.reply`."""

    def withdraw(self, ask_id: AskId) -> None:
        """The server takes its question back, or the time to answer it is over."""

    def suspend(self) -> None:
        """The server closed the call's stream and will answer on a resumed one (SEP-1699).

        A caller that can resume may be sent away as well; the answer comes all the same.
        """

    def answer(self, outcome: Outcome) -> None:
        """End the call. Where this raises, it is called once more, with an error of ours."""


class Running(Protocol):
    """A call under way, as its caller holds it."""

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        """Answer a question; one that is no longer open is ignored."""

    def cancel(self, reason: str) -> None:
        """Stop caring: the server is told, and `answer` is still called once."""

    def pause(self) -> None:
        """The reader downstream is slow: stop reading this exchange, or drop what may be dropped."""

    def resume(self) -> None:
        """The reader downstream has caught up."""
