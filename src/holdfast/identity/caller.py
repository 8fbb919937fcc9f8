"""Who is calling: a client proves itself by its key, and may then name its users and chats."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.config import ClientSettings, key_digest
from holdfast.events import Denial
from holdfast.identity.tokens import SignedUsers, TokensInUse, UnprovenUser
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
    token: bytes | None = field(default=None, compare=False, repr=False)
    """The digest of the token that proved the user, for `TokensInUse`."""

    def may_see(self, server: str) -> bool:
        """Whether the server exists for this caller."""
        return self.servers is None or server in self.servers


class Clients:
    """The configured clients, found by the key that a request bears."""

    def __init__(self, clients: Sequence[ClientSettings], in_use: TokensInUse) -> None:
        self._visible = {c.name: None if c.servers is None else frozenset(c.servers) for c in clients}
        self._unnamed = {
            (c.name, key): Identity(Principal(c.name), None, c.trust.names_users, self._visible[c.name], key)
            for c in clients
            for key in (None, *c.key_digests)
        }
        self._by_digest = {digest: c for c in clients for digest in c.key_digests}
        self._open = next((c for c in clients if not c.key_digests), None)
        self._signed = {
            c.name: SignedUsers(c.trust.jwt_secret.get_secret_value(), c.trust.jwt, in_use)
            for c in clients
            if c.trust.jwt_secret is not None
        }

    def identify(self, headers: Mapping[str, str]) -> Identity | None:
        """Who sent a request with these headers (lower-case names); None if it must bear another key.

        Raises `UnprovenUser`.
        """
        found = self._client(headers)
        if found is None:
            return None
        client, key = found
        trust = client.trust
        if trust.chat is None and not trust.names_users:
            return self._unnamed[client.name, key]
        user, token = self._user(client, headers)
        chat = _named(trust.chat, headers)
        lacks_user = trust.names_users and user is None
        return Identity(Principal(client.name, user), chat, lacks_user, self._visible[client.name], key, token)

    def _user(self, client: ClientSettings, headers: Mapping[str, str]) -> tuple[str | None, bytes | None]:
        """The user whom a request names, and the digest of the token that proves it. Raises `UnprovenUser`."""
        trust = client.trust
        plain = _named(trust.user, headers)
        signed = self._signed.get(client.name)
        if signed is None:
            return plain, None
        token = _named(trust.jwt, headers)
        if token is not None:
            return signed.user(token)
        if plain is not None:
            what = f"names a user in {trust.user} alone, and is believed only in {trust.jwt}"
            words = f"This client {what}: set FORWARD_USER_INFO_HEADER_JWT_SECRET in Open WebUI."
            raise UnprovenUser(Denial.UNSIGNED_USER, words)
        return None, None

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


def _named(header: str | None, headers: Mapping[str, str]) -> str | None:
    """An empty header is absent: hosts send one where they have nothing to name."""
    return (headers.get(header) or None) if header is not None else None
