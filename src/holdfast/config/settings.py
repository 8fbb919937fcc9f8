"""Settings: every default with its unit and its reason. Times are float seconds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from holdfast.config.headers import pass_fault
from holdfast.config.names import name_clashes, tool_prefix

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""A client's request; the official TypeScript SDK's own limit."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""One message of a server: screenshots and notebooks reach several MiB."""

MIN_JWT_SECRET: Final = 32
"""Bytes of a secret that signs by HS256."""

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PREFIX_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"
SEPARATOR_PATTERN: Final = r"^[A-Za-z0-9_-]{1,4}$"
ALIAS_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
"""Names of tools that every host takes."""

SEPARATOR: Final = "__"
"""Between a server's name and its tool's where the lists of all servers are one."""

OPENER: Final = "open_session"
CLOSER: Final = "close_session"
"""The tools that `handles` adds; where the server has one of that name, both are called otherwise."""

_URL_CHARACTERS: Final = re.compile(r"[\x21-\x7e]*")
_HOST_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._:%\[\]-]+")


def _no_truth(value: object) -> object:
    """YAML reads `yes` and `on` as true, which would pass for 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "is no number")
    return value


def _fitting_pattern(pattern: str) -> str:
    if not pattern:
        raise ValueError("is empty, which no tool's name matches; * matches all")
    return pattern


def _admitting(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns:
        raise ValueError('admits no tool; write deny: ["*"] to mean that, or leave the server out')
    return patterns


def _passable(name: str) -> str:
    fault = pass_fault(name)
    if fault is not None:
        raise PydanticCustomError("unfit", "{fault}", {"fault": fault})
    return name.lower()


def _misfit(model: type[BaseModel], faults: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
    """Refuse what only the whole of a model shows to be wrong, each fault at its place."""
    details = [
        InitErrorDetails(type=PydanticCustomError("unfit", "{fault}", {"fault": fault}), loc=place, input=None)
        for place, fault in faults
    ]
    if details:
        raise ValidationError.from_exception_data(model.__name__, details, hide_input=True)


Scope = Literal["chat", "user", "shared"]
Merging = Literal["several", "always"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_no_truth)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_no_truth)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_no_truth)]
"""Per second."""
Pattern = Annotated[str, AfterValidator(_fitting_pattern)]


class _Settings(BaseModel):
    """A field's docstring is its meaning: see `meanings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ToolRules(_Settings):
    """Which tools may be seen and called; patterns with `*`, `?` and `[abc]`, where case counts."""

    allow: Annotated[tuple[Pattern, ...], AfterValidator(_admitting)] = ("*",)
    """Patterns of which a tool's name must match one; the name is the one that the server gives it."""
    deny: tuple[Pattern, ...] = ()
    """Patterns of which it must match none, whatever `allow` says."""

    @property
    def admits_all(self) -> bool:
        """Whether no name is refused."""
        return "*" in self.allow and not self.deny

    def admits(self, name: str) -> bool:
        """Whether a tool of this name may be seen and called."""
        return any(fnmatchcase(name, p) for p in self.allow) and not any(fnmatchcase(name, p) for p in self.deny)


class ServerTools(ToolRules):
    """The tools of one server: which there are, and what they are called where all servers are one."""

    aliases: dict[str, Annotated[str, Field(pattern=ALIAS_PATTERN)]] = {}
    """By a tool's name, the whole name that it has at `/mcp`, instead of prefix, separator and name: up to 64 letters,
    digits, dashes and underscores, which is what every host takes."""

    @model_validator(mode="after")
    def _has_useful_aliases(self) -> Self:
        what = "is for a tool that allow and deny leave out; let them admit it, or leave the alias out"
        _misfit(type(self), ((("aliases", tool), what) for tool in self.aliases if not self.admits(tool)))
        return self


class ServerSettings(_Settings):
    """One MCP server: how it is reached, how its sessions are shared, and how long things may take."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Names it in URLs, tools' names and logs: up to 64 letters, digits, dots, dashes and underscores, beginning with a
    letter or digit."""
    url: Annotated[str | None, Field(repr=False)] = None
    """The endpoint of an HTTP server. Credentials do not belong into it; use `headers`. Its query may hold a secret."""
    transport: Literal["auto", "streamable", "sse"] = "auto"
    """What a server with a url speaks: `streamable`, Streamable HTTP; `sse`, the HTTP+SSE of 2024-11-05; `auto`, the
    former, or the latter where a server knows only that, which is found out once and not for each session."""
    command: Annotated[tuple[str, ...] | None, Field(repr=False)] = None
    """Program and arguments of a stdio server. Arguments may be secrets; other users of the machine can see them."""
    env: dict[str, SecretStr] = {}
    """Added to the environment of a stdio server. The values are treated as secrets."""
    cwd: str | None = None
    """The working directory of a stdio server."""
    headers: dict[str, SecretStr] = {}
    """Sent with every request to an HTTP server; may carry its credential. The values are treated as secrets."""
    pass_headers: tuple[Annotated[str, AfterValidator(_passable)], ...] = ()
    """Headers of the client's request that go on to an HTTP server, kept in lower case; callers whose values differ
    never share a session."""
    prefix: Annotated[str | None, Field(pattern=PREFIX_PATTERN)] = None
    """What its tools' names begin with at `/mcp`; without it, the server's name, with `_` for what no tool's name has.
    Up to 32 letters, digits, dashes and underscores, since hosts cut or refuse long names."""
    tools: ServerTools = ServerTools()
    """Which of its tools there are, for everyone."""
    era: Literal["auto", "handshake", "modern"] = "auto"
    """The revisions it speaks: `handshake` up to 2025-11-25, `modern` from 2026-07-28. `auto` finds out when it is
    first reached, at the cost of one request that servers of one era alone refuse."""
    scope: Scope = "chat"
    """Who shares a session: `chat`, one per principal and chat; `user`, one per principal; `shared`, one for all. The
    last two join conversations, so only the operator chooses them."""
    trusted: bool = False
    """Believe the server's `readOnlyHint` and `idempotentHint`. The protocol's schema calls them untrusted hints, and
    what they say decides whether a call is sent again."""
    serial: bool = False
    """Run one call of a session at a time, for servers whose questions cannot be told apart."""
    spares: Annotated[int, Field(ge=0), BeforeValidator(_no_truth)] = 0
    """Sessions opened ahead for new chats."""
    start: Literal["eager", "lazy"] = "eager"
    """`eager` opens one session at start, to learn the server's lists; `lazy` waits for the first call."""
    lists: Literal["server", "session"] = "server"
    """`session`: each session has lists of tools, prompts and resources of its own, and none are shared."""
    handles: bool = False
    """Let callers open sessions by a tool, and name them in calls of the others: for clients of whose requests nothing
    else says that they belong together."""
    max_sessions: Count | None = None
    """Sessions open at once. An idle HTTP session costs KiB, an idle stdio session is a process."""
    max_concurrency: Count = 64
    """Calls sent to the server and not answered."""
    max_queue: Count = 256
    """Calls that wait for `max_concurrency`; 1,000 more may wait for a session to open."""
    idle_timeout: Seconds = 1800.0
    """A session with nothing in flight is closed after this. Common servers forget after 30 to 60 minutes."""
    max_age: Seconds | None = None
    """A session is replaced at its next idle moment after this."""
    open_timeout: Seconds = 30.0
    """Process start, connection and handshake together; `npx` may install first."""
    acquire_timeout: Seconds = 30.0
    """How long a call waits for a free session or slot."""
    call_timeout: Seconds = 300.0
    """No message of the server for this long ends a call; progress counts as a message."""
    call_deadline: Seconds | None = None
    """Ends a call in all, however much the server talks."""
    ask_timeout: Seconds = 600.0
    """How long a person may take to answer a question of the server; the call's own clocks stand still meanwhile."""
    on_loss: Literal["tell", "resume"] = "tell"
    """`tell`: when a session with memory is lost, the next call says so once. `resume` sends a refused call again in
    the new session although earlier state is gone."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        fault = None if url is None else url_fault(url)
        if fault is not None:
            raise ValueError(fault)
        return url

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if (self.url is None) == (self.command is None):
            raise ValueError("give either a url or a command")
        if self.command is not None and (not self.command or not self.command[0]):
            raise ValueError("the command is empty")
        if self.command is not None and self.transport != "auto":
            _misfit(type(self), [(("transport",), "is for a url; a command speaks stdio")])
        if self.era == "modern" and self.transport == "sse":
            _misfit(type(self), [(("era",), "is for Streamable HTTP and stdio; transport: sse is older")])
        return self

    @model_validator(mode="after")
    def _passes_headers_of_one_caller(self) -> Self:
        if not self.pass_headers:
            return self
        whole: tuple[str | int, ...] = ("pass_headers",)
        faults: list[tuple[tuple[str | int, ...], str]] = []
        if self.command is not None:
            faults.append((whole, "is for a url; a command takes no headers"))
        if self.scope == "shared":
            what = "are those of one caller, and scope: shared has one session for all; write scope: user or chat"
            faults.append((whole, what))
        if self.spares:
            what = "are known when a call comes, and spares are opened before; leave one of the two out"
            faults.append((whole, what))
        own = {name.lower() for name in self.headers}
        for number, name in enumerate(self.pass_headers):
            if name in own:
                faults.append(((*whole, number), "has a value in headers already; leave one of the two out"))
            if name in self.pass_headers[:number]:
                faults.append(((*whole, number), "stands twice"))
        _misfit(type(self), faults)
        return self

    @model_validator(mode="after")
    def _has_sessions_to_name(self) -> Self:
        if self.handles and self.scope == "shared":
            what = "is for sessions that callers open, and scope: shared has one for all; write scope: chat or user"
            _misfit(type(self), [(("handles",), what)])
        if self.handles and self.lists == "session":
            what = "is for tools that are the same in every session, which lists: session says they are not"
            _misfit(type(self), [(("handles",), what)])
        return self

    @property
    def public_prefix(self) -> str:
        """What its tools' names begin with at `/mcp`, before the separator."""
        return tool_prefix(self.name) if self.prefix is None else self.prefix

    @property
    def is_learned_at_start(self) -> bool:
        """Whether a session is opened to learn its lists before anybody calls."""
        return self.start == "eager" and not self.pass_headers

    @property
    def has_common_lists(self) -> bool:
        """Whether its lists may be kept for all: not where they are a session's own, or a caller's headers decide."""
        return self.lists == "server" and not self.pass_headers

    @property
    def session_limit(self) -> int:
        """`max_sessions` with its default filled in."""
        if self.max_sessions is not None:
            return self.max_sessions
        return 64 if self.command is not None else 1000

    @property
    def fingerprint(self) -> str:
        """A digest of the credentials towards the server; part of every session's key."""
        digest = hashlib.sha256()
        for group in (self.headers, self.env):
            for name in sorted(group):
                # Of a value from the command line or the environment, what is no UTF-8 came as half surrogate pairs.
                for part in (name.encode(), group[name].get_secret_value().encode("utf-8", "surrogatepass")):
                    digest.update(len(part).to_bytes(4, "big") + part)
            digest.update(b"|")
        return digest.hexdigest()[:32]

    @property
    def revision(self) -> str:
        """A digest of everything that makes an open session differ from a new one."""
        target = (
            self.url,
            self.transport,
            self.command,
            self.cwd,
            self.era,
            self.scope,
            self.serial,
            self.trusted,
            self.pass_headers,
        )
        return hashlib.sha256(repr(target).encode()).hexdigest()[:32]


def url_fault(url: str) -> str | None:
    """Why `url` is no target; never quotes it, since it may hold a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is no http:// or https:// URL"
    if not _URL_CHARACTERS.fullmatch(url):
        return "has a space or another character that a URL holds as %XX (in a host's name, as xn--…)"
    if parts.username or parts.password:
        return "credentials do not belong into the URL; use a header"
    if parts.scheme not in {"http", "https"} or not parts.hostname or not _HOST_CHARACTERS.fullmatch(parts.hostname):
        return "is no http:// or https:// URL"
    try:
        _ = parts.port
    except ValueError:
        return "has a port that is no number up to 65535"
    return None


class Trust(_Settings):
    """Which headers a client may name its users and chats with; names in lower case."""

    user: str | None = None
    """The header that names the user."""
    chat: str | None = None
    """The header that names the chat."""
    jwt_secret: SecretStr | None = None
    """The secret with which Open WebUI signs its user's name (`FORWARD_USER_INFO_HEADER_JWT_SECRET`), 32 bytes or more.
    With it a user is believed only where a token proves it; one that is named without is refused."""
    jwt: str = "x-openwebui-user-jwt"
    """The header that bears the token, where there is a secret."""

    @field_validator("jwt_secret")
    @classmethod
    def _is_long(cls, secret: SecretStr | None) -> SecretStr | None:
        # RFC 7518, 3.2. Whoever gets a token, as every tool server of the host does, can try secrets on it.
        if secret is not None and len(secret.get_secret_value().encode()) < MIN_JWT_SECRET:
            raise ValueError(f"is shorter than {MIN_JWT_SECRET} bytes, so it can be guessed: openssl rand -hex 32")
        return secret

    @property
    def names_users(self) -> bool:
        """Whether a request without a user is one of nobody."""
        return self.user is not None or self.jwt_secret is not None

    @property
    def headers(self) -> tuple[str, ...]:
        """Those that name somebody or something: none may come twice."""
        names = (self.user, self.chat, self.jwt if self.jwt_secret is not None else None)
        return tuple(name for name in names if name is not None)


TRUST_PRESETS: Final[Mapping[str, Trust]] = {
    "openwebui": Trust(user="x-openwebui-user-id", chat="x-openwebui-chat-id"),
}
"""Headers of hosts that can forward who asks (docs/hosts.md)."""


class ClientSettings(_Settings):
    """One program that may call: its keys, kept only as digests, and what it may name."""

    name: str
    """Names it in logs; sessions belong to it."""
    key_digests: Annotated[tuple[bytes, ...], Field(repr=False)] = ()
    """SHA-256 of each key that proves it, the only form in which keys are kept; several while one replaces another.
    None admits every caller, on loopback only."""
    trust: Trust = Trust()
    """The headers in which it may name its users and chats."""
    servers: dict[str, ToolRules] | None = None
    """The servers that it may see, each with the tools that it may see there; without it, all. Others do not exist for
    it."""

    @field_validator("servers")
    @classmethod
    def _sees_a_server(cls, servers: dict[str, ToolRules] | None) -> dict[str, ToolRules] | None:
        if servers is not None and not servers:
            raise ValueError("sees no server; name those that it may see, or leave servers out for all")
        return servers

    def may_see(self, server: str) -> bool:
        """Whether the server exists for this client."""
        return self.servers is None or server in self.servers


class Limits(_Settings):
    """What the whole gateway takes on; for one server, see its own settings."""

    sessions: Count = 10_000
    """Sessions of clients, as many with servers, and as many handles."""
    sessions_per_user: Count = 100
    """Of a user whom a trusted client names: who opens more loses those of its own that are idle."""
    user_rate: Rate | None = 100.0
    """Requests per second of a user whom a trusted client names; ten seconds' worth may come at once."""
    client_rate: Rate | None = None
    """Requests per second of a client, all its users together; ten seconds' worth may come at once."""
    request_bytes: Count = MAX_REQUEST_BYTES
    """A client's request; the official TypeScript SDK's own limit."""
    message_bytes: Count = MAX_MESSAGE_BYTES
    """One message of a server: screenshots and notebooks reach several MiB."""


class LogSettings(_Settings):
    """The log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines to write."""
    format: Literal["text", "json"] = "text"
    """`text` for people, `json` for programs: an object a line."""


class GatewaySettings(_Settings):
    """The whole gateway."""

    host: str = "127.0.0.1"
    """The address to listen on. One that other machines can reach needs a key for every client."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8790
    """The port to listen on; 0 takes any free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients beyond loopback may address the gateway; others are refused, against DNS rebinding."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins whose pages may call."""
    clients: tuple[ClientSettings, ...] = (ClientSettings(name="local"),)
    """The programs that may call. Without any, every program on this machine may."""
    servers: tuple[ServerSettings, ...]
    """The MCP servers."""
    client_idle_timeout: Seconds = 300.0
    """A client's own MCP session ends this long after its last stream and request ended."""
    separator: Annotated[str, Field(pattern=SEPARATOR_PATTERN)] = SEPARATOR
    """Between a server's prefix and its tool's name at `/mcp`: up to 4 letters, digits, dashes and underscores."""
    merged: Merging = "several"
    """When `/mcp` joins the servers under names with prefixes: `several`, when there are several; `always`, when there
    is one, too, so that names stay what they are if a second comes or goes."""
    operator_key_digest: Annotated[bytes | None, Field(repr=False)] = None
    """SHA-256 of the key for `/api` and `/metrics`; without it, they are open on loopback and closed elsewhere."""
    limits: Limits = Limits()
    """What the whole gateway takes on."""
    log: LogSettings = LogSettings()
    """The log."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not self.is_loopback and not all(client.key_digests for client in self.clients):
            raise ValueError(f"a bind to {self.host} can be reached from elsewhere: give --key")
        return self

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Self:
        for name in _repeated(server.name for server in self.servers):
            raise ValueError(f"two servers are named {name}")
        for name in _repeated(client.name for client in self.clients):
            raise ValueError(f"two clients are named {name}")
        if any(_repeated(digest for client in self.clients for digest in set(client.key_digests))):
            raise ValueError("two clients have the same key, so nothing tells them apart")
        if sum(not client.key_digests for client in self.clients) > 1:
            raise ValueError("two clients have no key, so nothing tells them apart")
        return self

    @model_validator(mode="after")
    def _has_names_for_all(self) -> Self:
        for place, what in name_clashes(self.servers, self.separator, lambda _: ""):
            raise ValueError(f"{'.'.join(place[1:])}: {what}")
        known = {server.name for server in self.servers}
        for client in self.clients:
            for name in client.servers or ():
                if name not in known:
                    raise ValueError(f"{client.name} may see {name}, which is no server")
        return self


def _repeated(values: Iterable[Hashable]) -> Iterator[Hashable]:
    seen: set[Hashable] = set()
    for value in values:
        if value in seen:
            yield value
        seen.add(value)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    return host in {"127.0.0.1", "localhost", "::1"}


def key_digest(key: str) -> bytes:
    """The form in which a client's key is kept and compared."""
    return hashlib.sha256(key.encode()).digest()


def describe(error: ValidationError) -> str:
    """What is wrong, in one readable line."""
    problems: list[str] = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        what = item["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {what}" if where else what)
    return "; ".join(problems)
