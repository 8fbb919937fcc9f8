"""Which session serves a request: the ladder of docs/sessions.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from holdfast.config import ServerSettings
from holdfast.identity.asker import Asker
from holdfast.session.key import KeyScope, Principal, SessionKey, TaskOwner, origin_of, private
from holdfast.upstream.transport import Hello

KEPT: Final = 1024
"""Keys of chats that have been called lately."""


class Keys:
    """The keys of one server's sessions. Whatever of its settings counts here is part of its revision."""

    def __init__(self, settings: ServerSettings, hello: Callable[[], Hello | None]) -> None:
        """`hello` gives what the server last said of itself, if it was ever reached."""
        self.revision = settings.revision
        self.credential = settings.fingerprint
        self.origin = origin_of(settings.name, self.revision, self.credential)
        self.passes = frozenset(settings.pass_headers)
        """The headers of a request that go on to the server."""
        self._name = settings.name
        self._scope: KeyScope = settings.scope
        self._era = settings.era
        self._hello = hello
        self._chat_keys = lru_cache(KEPT)(self._chat_key)
        """Made anew, the key of a chat would cost each of its calls more than it takes to find its session."""

    @property
    def shared(self) -> SessionKey | None:
        """The key of everybody; None where each has its own."""
        return self._of_scope(None) if self._scope == "shared" else None

    @property
    def remembers(self) -> bool:
        """Whether its sessions keep what was done in them; before it was reached, or shook hands, it may."""
        hello = self._hello()
        if hello is None:
            return self._era != "modern"
        return not hello.is_stateless or hello.could_shake_hands

    def key_for(self, asker: Asker) -> SessionKey:
        """Which session serves a request."""
        scope, identity = self._scope, asker.identity
        prefers_modern = asker.is_modern and not self._keeps_for(asker)
        passed = tuple(sorted(each for each in asker.passed if each[0] in self.passes)) if asker.passed else ()
        if scope == "chat" and asker.chat is not None and not identity.lacks_user:
            key = self._chat_keys(identity.principal, asker.chat, prefers_modern)
            return replace(key, passed=passed) if passed else key  # what is passed may be secret, and is not kept here
        whole = self._of_scope(asker.owner, prefers_modern=prefers_modern)
        if scope == "shared":
            return replace(whole, asker=asker.principal)
        whole = replace(whole, principal=identity.principal, passed=passed)
        if identity.lacks_user:
            return private(whole, identity.principal, "user", asker.nonce, declares=asker.declares)
        if scope == "user":
            return whole
        if asker.client is not None:
            return replace(whole, scope_id=f"client:{asker.client}", ends_with_client=True)
        if self._remembers_nothing_of(asker):
            return whole  # nothing could be mixed up, and a process may have to know its own states again
        return private(whole, identity.principal, "chat", asker.nonce, declares=asker.declares)

    def _of_scope(self, owner: TaskOwner | None, *, prefers_modern: bool = False) -> SessionKey:
        return SessionKey(
            self._name, self.revision, self.credential, self._scope, None, prefers_modern=prefers_modern, owner=owner
        )

    def _chat_key(self, principal: Principal, chat: str, prefers_modern: bool) -> SessionKey:
        key = SessionKey(self._name, self.revision, self.credential, "chat", principal, f"chat:{chat}")
        return replace(key, owner=TaskOwner(principal, chat), prefers_modern=prefers_modern)

    def _keeps_for(self, asker: Asker) -> bool:
        """Whether `asker` can come back for its session and find there what was done (decision 15)."""
        if self._scope == "chat":
            is_found_again = not asker.is_unnamed
        else:
            is_found_again = self._scope == "shared" or not asker.identity.lacks_user
        return is_found_again and self.remembers

    def _remembers_nothing_of(self, asker: Asker) -> bool:
        """Whether a session for `asker` would be one of 2026-07-28, as far as that is known."""
        hello = self._hello()
        if hello is None:
            return self._era == "modern"
        return asker.is_modern if hello.speaks_both else hello.is_modern
