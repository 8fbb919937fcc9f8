"""What must match before a session is reused."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field, replace
from typing import Final, Literal

_PROCESS_SECRET: Final = secrets.token_bytes(32)

KeyScope = Literal["chat", "user", "shared", "private"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose call it is: a configured client and, where that client may name one, its user."""

    client: str
    user: str | None = None
    nonce: str = field(default="", repr=False)
    """Not empty for somebody who equals nobody else: see `stranger`."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """The whole identity of a session; two calls share one only where every field is equal."""

    server: str
    revision: str = field(repr=False)
    credential: str = field(repr=False)
    scope: KeyScope
    principal: Principal | None = field(repr=False)
    """None only for `shared`."""
    scope_id: str = field(default="", repr=False)
    """The chat for `chat`, a random value for `private`, else empty."""
    ends_with_client: bool = field(default=False, compare=False, repr=False)
    """Only a client's own MCP session names it, so it ends with that session."""
    asker: Principal | None = field(default=None, compare=False, repr=False)
    """Who asks with this very key, where the key itself does not say: `shared`."""
    lacks: Literal["", "chat", "user"] = field(default="", compare=False, repr=False)
    """What the request did not name, so that its session is private."""
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """A key is hashed several times per call, and never changes."""
        whole = (self.server, self.revision, self.credential, self.scope, self.principal, self.scope_id)
        object.__setattr__(self, "_hash", hash(whole))

    def __hash__(self) -> int:
        return self._hash

    @property
    def caller(self) -> Principal | None:
        """Whose call it is."""
        return self.principal if self.principal is not None else self.asker

    @property
    def is_private(self) -> bool:
        """Serves one call, or one array of calls, and is closed after it."""
        return self.scope == "private"

    @property
    def is_shared(self) -> bool:
        """Several principals may be behind it."""
        return self.scope == "shared"

    @property
    def digest(self) -> str:
        """A keyed hash for logs: tells keys apart within a process, reveals nothing."""
        whole = repr((self.server, self.revision, self.credential, self.scope, self.principal, self.scope_id))
        return hmac.new(_PROCESS_SECRET, whole.encode(), hashlib.sha256).hexdigest()[:12]


def stranger(client: str) -> Principal:
    """One whom a client that names its users has left unnamed: it may be anybody, so it is like nobody else."""
    return Principal(client, None, secrets.token_hex(16))


def private(key: SessionKey, principal: Principal, lacks: Literal["chat", "user"]) -> SessionKey:
    """A key like `key` that no other call will ever have, since the request did not name its chat or user."""
    return replace(
        key, scope="private", principal=principal, scope_id=secrets.token_hex(16), ends_with_client=False, lacks=lacks
    )
