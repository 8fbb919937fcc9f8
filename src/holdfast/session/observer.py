"""Who keeps what the sessions of a server reveal of it."""

from __future__ import annotations

from typing import Protocol

from holdfast.call import Call
from holdfast.session.key import SessionKey
from holdfast.session.retry import Safety
from holdfast.upstream.transport import Hello


class Observer(Protocol):
    """What the pool tells the catalogue, and asks it."""

    def opened(self, hello: Hello) -> None:
        """A session opened."""

    def restored(self, key: SessionKey) -> None:
        """A session was opened again after it was lost: its lists may differ."""

    def lists_changed(self, method: str) -> None:
        """A list changed, by the server's own word."""

    def push_changed(self, is_up: bool) -> None:
        """Whether any session of the server can announce changes now."""

    def safety(self, call: Call) -> Safety:
        """What repeating `call` could do."""
        ...
