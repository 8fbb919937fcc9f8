"""Settings: every default with its unit and its reason. Times are float seconds."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from holdfast.errors import ConfigError

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""A client's request; the official TypeScript SDK's own limit."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""One message of a server: screenshots and notebooks reach several MiB."""

Scope = Literal["chat", "user", "shared"]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ServerSettings(_Settings):
    """One MCP server: how it is reached, how its sessions are shared, and how long things may take."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    url: str | None = None
    """Streamable HTTP endpoint."""
    command: tuple[str, ...] | None = None
    """Program and arguments of a stdio server."""
    env: dict[str, SecretStr] = {}
    """Added to the environment of a stdio server."""
    cwd: str | None = None
    headers: dict[str, SecretStr] = {}
    """Sent with every request to an HTTP server; may carry its credential."""
    scope: Scope = "chat"
    """`user` and `shared` join conversations, so only the operator may choose them."""
    trusted: bool = False
    """Believe the server's `readOnlyHint` and `idempotentHint`; the schema calls them untrusted hints."""
    serial: bool = False
    """Run one call of a session at a time, for servers whose asks cannot be told apart."""
    spares: Annotated[int, Field(ge=0)] = 0
    """Sessions opened ahead for new chats."""
    start: Literal["eager", "lazy"] = "eager"
    """`eager` opens one session at start, to learn the lists; `lazy` waits for the first call."""
    lists: Literal["server", "session"] = "server"
    """`session`: each session has lists of its own, and none are shared."""
    max_sessions: Count | None = None
    """Default 1,000 for HTTP, where an idle session costs KiB, and 64 for stdio, where it is a process."""
    max_concurrency: Count = 64
    """Calls sent to the server and not answered."""
    max_queue: Count = 256
    """Calls that wait for `max_concurrency`; 1,000 more may wait for a session to open."""
    idle_timeout: Seconds = 1800.0
    """A session with nothing in flight is closed after this; common servers forget after 30 to 60 minutes."""
    max_age: Seconds | None = None
    """A session is replaced at its next idle moment after this."""
    open_timeout: Seconds = 30.0
    """Process start, connection and handshake together; `npx` may install first."""
    acquire_timeout: Seconds = 30.0
    """How long a call waits for a free session or slot."""
    call_timeout: Seconds = 300.0
    """No message of the server for this long ends a call; progress counts as a message."""
    call_deadline: Seconds | None = None
    """In all, however much the server talks."""
    ask_timeout: Seconds = 600.0
    """How long a person may take to answer; the call's own clocks stand still meanwhile."""
    on_loss: Literal["tell", "resume"] = "tell"
    """`resume` sends a refused call again in the new session although earlier state is gone."""

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if (self.url is None) == (self.command is None):
            raise ValueError("give either a url or a command")
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.username or parts.password:
                raise ValueError("credentials do not belong into the URL; use a header")
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"{self.url!r} is no http:// or https:// URL")
        if self.command is not None and (not self.command or not self.command[0]):
            raise ValueError("the command is empty")
        return self

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
                for part in (name.encode(), group[name].get_secret_value().encode()):
                    digest.update(len(part).to_bytes(4, "big") + part)
            digest.update(b"|")
        return digest.hexdigest()[:32]

    @property
    def revision(self) -> str:
        """A digest of everything that makes an open session differ from a new one."""
        target = (self.url, self.command, self.cwd, self.scope, self.serial, self.trusted)
        return hashlib.sha256(repr(target).encode()).hexdigest()[:32]


class Trust(_Settings):
    """Which headers a client may name its users and chats with; names in lower case."""

    user: str | None = None
    chat: str | None = None


TRUST_PRESETS: Final[Mapping[str, Trust]] = {
    "openwebui": Trust(user="x-openwebui-user-id", chat="x-openwebui-chat-id"),
}
"""Headers of hosts that can forward who asks (docs/hosts.md)."""


class ClientSettings(_Settings):
    """One program that may call: its key, kept only as a digest, and what it may name."""

    name: str
    key_digest: bytes | None = None
    """SHA-256 of its key; None admits every caller, on loopback only."""
    trust: Trust = Trust()


class GatewaySettings(_Settings):
    """The whole gateway."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8790
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients beyond loopback may address the gateway (DNS rebinding)."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins whose pages may call."""
    clients: tuple[ClientSettings, ...] = (ClientSettings(name="local"),)
    servers: tuple[ServerSettings, ...]
    client_idle_timeout: Seconds = 300.0
    """A client's own MCP session ends this long after its last stream and request ended."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in {"127.0.0.1", "localhost", "::1"}

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not self.is_loopback and any(client.key_digest is None for client in self.clients):
            raise ValueError(f"a bind to {self.host} can be reached from elsewhere: give --key")
        return self


def key_digest(key: str) -> bytes:
    """The form in which a client's key is kept and compared."""
    return hashlib.sha256(key.encode()).digest()


_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def expand(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` with `${NAME}` and `${NAME:-default}` replaced. Raises `ConfigError` where one is not set."""
    known = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if name in known:
            return known[name]
        if default is not None:
            return default
        raise ConfigError(f"the environment variable {name} is not set")  # the text around it may be a secret

    return _VARIABLE.sub(value, text)


def describe(error: ValidationError) -> str:
    """What is wrong, in one readable line."""
    problems: list[str] = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        what = item["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {what}" if where else what)
    return "; ".join(problems)
