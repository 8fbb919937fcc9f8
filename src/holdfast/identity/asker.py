"""Who asks, and how a request names its conversation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Final

from msgspec import Struct

from holdfast.call import Abilities
from holdfast.identity.caller import Identity
from holdfast.session.key import Principal, TaskOwner, stranger

next_nonce: Final[Callable[[], int]] = itertools.count(1).__next__
"""Gives a number that no other request of this process has."""


class Asker(Struct, frozen=True):
    """What each server makes the key of its session from."""

    identity: Identity
    nonce: int
    """Of the HTTP request: what names no chat or user is private to it."""
    named: str | None = None
    """The chat of the `_meta` key."""
    path: str | None = None
    """The chat of the URL."""
    client: str | None = None
    """The id of the client's own MCP session."""
    passed: tuple[tuple[str, str], ...] = ()
    """The headers that may go on to a server (`pass_headers`): names in lower case, and values."""
    declares: Abilities | None = None
    """What the request says that its sender can be asked; None where it says nothing of that."""
    is_modern: bool = False
    """It is a request of 2026-07-28."""

    @property
    def principal(self) -> Principal:
        """Whom the request counts as where several share a session."""
        identity = self.identity
        return stranger(identity.principal.client, self.nonce) if identity.lacks_user else identity.principal

    @property
    def chat(self) -> str | None:
        """The chat that the request names, by the first way that is there; None for the client's own session."""
        return self.named or self.identity.chat or self.path

    @property
    def owner(self) -> TaskOwner | None:
        """Whose the tasks are that the request begins; None where it may be anybody's."""
        if self.identity.lacks_user:
            return None
        chat = self.chat
        return TaskOwner(self.identity.principal, chat, self.client if chat is None else None)

    @property
    def is_unnamed(self) -> bool:
        """The request names no user, or no conversation at all, so nothing that it opens may outlast it."""
        return self.identity.lacks_user or (self.chat is None and self.client is None)

    @property
    def conversation(self) -> Hashable:
        """Equal for requests that name the same conversation, in whichever way."""
        chat = self.chat
        client = self.client if chat is None else None
        nonce = self.nonce if self.is_unnamed else 0
        return (self.identity.principal, self.identity.servers, chat, client, nonce, self.passed)

    def names_as(self, other: Asker) -> bool:
        """Whether `other` is of the same client session and says the same of itself."""
        return (
            self.named == other.named
            and self.path == other.path
            and self.passed == other.passed
            and (self.identity is other.identity or self.identity == other.identity)
            and self.client == other.client
        )
