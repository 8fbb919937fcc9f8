"""What must match before a session is reused."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from msgspec import structs

from holdfast.call import ANYBODY, Abilities

_PROCESS_SECRET: Final = secrets.token_bytes(32)

KeyScope = Literal["chat", "user", "shared", "private"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose call it is: a configured client and, where that client may name one, its user."""

    client: str
    user: str | None = None
    nonce: int = field(default=0, repr=False)
    """Not 0 for somebody who equals nobody else: see `stranger`."""


@dataclass(frozen=True, slots=True)
class TaskOwner:
    """Whose a task is: a principal, in one conversation. Compared whole before a task is read, listed or cancelled."""

    principal: Principal
    chat: str | None = None
    client: str | None = None
    """The client's own MCP session, where nothing else names the conversation."""


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
    """The chat for `chat`, the request's number for `private`, else empty."""
    ends_with_client: bool = field(default=False, compare=False, repr=False)
    """Only a client's own MCP session names it, so it ends with that session."""
    passed: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Headers of the caller's that its session is opened with, and bears on every request."""
    has_own_credential: bool = field(default=False, compare=False, repr=False)
    """A credential of the caller's own is among them, under which the server may list other things."""
    asker: Principal | None = field(default=None, compare=False, repr=False)
    """Who asks with this very key, where the key itself does not say: `shared`."""
    lacks: Literal["", "chat", "user"] = field(default="", compare=False, repr=False)
    """What the request did not name, so that its session is private."""
    declares: Abilities | None = field(default=ANYBODY, compare=False, repr=False)
    """What its session tells the server that can be asked; None where its request says nothing of that."""
    owner: TaskOwner | None = field(default=None, compare=False, repr=False)
    """Whose the tasks are that a request with this very key begins; None where nobody could come back for them."""
    prefers_modern: bool = field(default=False, compare=False, repr=False)
    """Opened for it, a session speaks 2026-07-28 with a server of both eras: so does who asks, and nothing is kept."""
    caller: Principal | None = field(init=False, compare=False, repr=False)
    """Whose call it is."""
    is_private: bool = field(init=False, compare=False, repr=False)
    """Serves one call, or one array of calls, and is closed after it."""
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """What each call asks of its key several times, and what never changes."""
        object.__setattr__(self, "caller", self.principal if self.principal is not None else self.asker)
        object.__setattr__(self, "is_private", self.scope == "private")
        object.__setattr__(self, "_hash", hash(self._whole))

    def __hash__(self) -> int:
        return self._hash

    @property
    def is_shared(self) -> bool:
        """Several principals may be behind it."""
        return self.scope == "shared"

    @property
    def names_no_chat(self) -> bool:
        """Several chats may be behind it: it is for sessions in which nothing is remembered."""
        return self.scope == "chat" and not self.scope_id

    @property
    def may_adopt(self) -> bool:
        """Whether a spare, which declares all that can be relayed, has not declared more than the request."""
        return self.declares is None or structs.replace(self.declares, extensions=ANYBODY.extensions) == ANYBODY

    @property
    def digest(self) -> str:
        """A keyed hash for logs: tells keys apart within a process, reveals nothing."""
        return hmac.new(_PROCESS_SECRET, repr(self._whole).encode(), hashlib.sha256).hexdigest()[:12]

    @property
    def origin(self) -> bytes:
        """Which server is meant, under which settings and credentials; 16 bytes that reveal nothing of them."""
        return origin_of(self.server, self.revision, self.credential)

    @property
    def _whole(self) -> tuple[object, ...]:
        return (self.server, self.revision, self.credential, self.scope, self.principal, self.scope_id, self.passed)


def origin_of(server: str, revision: str, credential: str) -> bytes:
    """As `SessionKey.origin`."""
    return hmac.digest(_PROCESS_SECRET, repr((server, revision, credential)).encode(), "sha256")[:16]


def is_of(principal: Principal | None, client: str, user: str | None = None) -> bool:
    """Whether `principal` is a configured client, or the one user of it."""
    return principal is not None and principal.client == client and user in {None, principal.user}


def stranger(client: str, nonce: int) -> Principal:
    """One whom a client that names its users has left unnamed: it may be anybody, so it is like nobody else."""
    return Principal(client, None, nonce)


def private(
    key: SessionKey,
    principal: Principal,
    lacks: Literal["chat", "user"],
    nonce: int,
    *,
    declares: Abilities | None = None,
) -> SessionKey:
    """A key like `key` for one request alone, since that did not name its chat or user.

    `nonce` is the request's: nothing from outside names a private session, so it need not be secret.
    """
    return replace(
        key,
        scope="private",
        principal=principal,
        scope_id=str(nonce),
        ends_with_client=False,
        lacks=lacks,
        declares=declares,
    )
