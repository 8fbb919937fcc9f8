"""One session with the server, whatever carries it, as the probes talk in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from holdfast import __version__
from holdfast.doctor.reply import Reply
from holdfast.wire.revisions import CAPABILITIES_KEY, CLIENT_INFO_KEY, LATEST, MODERN, MODERN_VERSION_KEY

CLIENT: Final = {"name": "holdfast-doctor", "version": __version__}
INITIALIZE: Final[Mapping[str, Any]] = {"protocolVersion": LATEST, "capabilities": {}, "clientInfo": CLIENT}
"""No capabilities: a server that could ask a person something is told that nobody is there."""


def modern_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a request of 2026-07-28, which says for itself who asks."""
    envelope = {MODERN_VERSION_KEY: MODERN, CLIENT_INFO_KEY: CLIENT, CAPABILITIES_KEY: {}}
    return {**params, "_meta": {**params.get("_meta", {}), **envelope}}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the server is waited for, in seconds."""

    total: float
    """Everything together, but for the ending of sessions."""
    opening: float
    """Process start, connection and handshake."""
    answer: float
    """One answer in a session."""
    closing: float = 5.0
    """The ending of all sessions together."""

    @classmethod
    def within(cls, total: float) -> Patience:
        """Shares of a time in all: an opening that hangs leaves time to ask for the other transports."""
        return cls(total=total, opening=min(30.0, total / 4), answer=min(10.0, total / 8))


class Conversation(Protocol):
    """One session, or what stands for one in 2026-07-28, which has none."""

    async def ask(self, method: str, params: Mapping[str, Any] | None = None, *, within: float | None = None) -> Reply:
        """Send a request and wait for its answer, `within` seconds; a failure is a `Reply` too."""
        ...

    async def end(self) -> Reply:
        """End the session as its transport does. Idempotent; a failure is a `Reply` too."""
        ...

    async def reconnect(self) -> bool:
        """Have the next request go over a new connection; False where session and connection are one."""
        ...


class Opener(Protocol):
    """Opens sessions with one server."""

    async def open(self) -> tuple[Reply, Conversation | None]:
        """The answer to `initialize`, and the session where there is one."""
        ...

    async def discover(self) -> tuple[Reply, Conversation]:
        """The answer to `server/discover`, and a way to ask more of 2026-07-28."""
        ...
