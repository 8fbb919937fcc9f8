"""Who is calling: a client proves itself by its key, and may then name its users and chats."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.config import ClientSettings, Trust, key_digest
from holdfast.session.key import Principal
from holdfast.wire.headers import bearer_token


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, and what it may say of itself."""

    principal: Principal
    chat: str | None
    """The chat that a header named, where the client is trusted to name chats."""
    lacks_user: bool
    """The client is trusted to name its users, and this request names none."""
    servers: frozenset[str] | None = None
    """The servers that exist for it; None for all."""
    key: bytes | None = field(default=None, compare=False, repr=False)
    """The digest of the key that the request bore: a credential, and no part of who it is."""

    def may_see(self, server: str) -> bool:
        """Whether the server exists for this caller."""
        return self.servers is None or server in self.servers


class Clients:
    """The configured clients, found by the key that a request bears."""

    def __init__(self, clients: Sequence[ClientSettings]) -> None:
        self._visible = {c.name: None if c.servers is None else frozenset(c.servers) for c in clients}
        self._unnamed = {
            (c.name, key): _identity(c.name, c.trust, {}, self._visible[c.name], key)
            for c in clients
            for key in (None, *c.key_digests)
        }
        self._by_digest = {digest: c for c in clients for digest in c.key_digests}
        self._open = next((c for c in clients if not c.key_digests), None)

    def identify(self, headers: Mapping[str, str]) -> Identity | None:
        """Who sent a request with these headers (lower-case names); None if it must bear another key."""
        found = self._client(headers)
        if found is None:
            return None
        client, key = found
        trust = client.trust
        if trust.user is None and trust.chat is None:
            return self._unnamed[client.name, key]
        return _identity(client.name, trust, headers, self._visible[client.name], key)

    def admits(self, identity: Identity) -> bool:
        """Whether a request that bore the same key, or none, would be the same client's."""
        client = self._open if identity.key is None else self._by_digest.get(identity.key)
        return client is not None and client.name == identity.principal.client

    def _client(self, headers: Mapping[str, str]) -> tuple[ClientSettings, bytes | None] | None:
        """The client of a request, and the digest of the key that it bore."""
        unproven = None if self._open is None else (self._open, None)
        if not self._by_digest:
            return unproven
        token = bearer_token(headers.get("authorization"))
        if token is None:
            return unproven
        digest = key_digest(token)
        client = self._by_digest.get(digest)
        # The look-up compares digests of what was sent, so its timing tells nothing of a key.
        if client is not None and any(hmac.compare_digest(known, digest) for known in client.key_digests):
            return client, digest
        return None


def _identity(
    client: str, trust: Trust, headers: Mapping[str, str], servers: frozenset[str] | None, key: bytes | None
) -> Identity:
    """An empty header is absent: hosts send one where they have nothing to name."""
    user = (headers.get(trust.user) or None) if trust.user is not None else None
    chat = (headers.get(trust.chat) or None) if trust.chat is not None else None
    lacks_user = trust.user is not None and user is None
    return Identity(Principal(client, user), chat, lacks_user, servers, key)
