"""How servers and sessions stand, as values: what the API, `top` and the metrics show.

No secret and no id that a client or server knows: sessions are named by a local number and the
digest of their key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

SESSION_STATES: Final = ("new", "opening", "idle", "active", "draining", "lost", "closed")
"""Those of the lifecycle, by the name that is shown."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session with a server, at one moment; times are seconds."""

    id: str
    """Local and short, as in the log."""
    server: str
    key: str
    """The digest of whom it is for; empty for a spare."""
    state: str
    """A state of the lifecycle in lower case: `opening`, `idle`, `active`, `draining`, `lost`, `closed`."""
    scope: str
    """`chat`, `user`, `shared`, `private` or `spare`."""
    client: str | None
    """The configured client that it is for; None for a spare and for `shared`."""
    user: str | None
    age: float
    """Since it was opened."""
    idle: float
    """Since its last call ended; 0 while one runs."""
    calls: int
    """Under way."""
    watchers: int
    """Client sessions that hear what it pushes."""
    subscriptions: int
    is_dirty: bool
    """It remembers something that a person would miss."""


@dataclass(frozen=True, slots=True)
class ServerView:
    """One configured server, at one moment."""

    name: str
    transport: Literal["http", "stdio"]
    scope: str
    state: Literal["idle", "connecting", "ready", "failed"]
    """`idle`: not tried yet (`start: lazy`)."""
    reason: str
    """Why it failed, for the operator; else empty."""
    title: str
    """What the server calls itself, with its version; empty until it was reached."""
    protocol: str
    """The MCP revision that it speaks; empty until it was reached."""
    tools: int | None
    """None until they were listed."""
    max_sessions: int
    max_concurrency: int
    circuit: Literal["closed", "open", "half-open"] = "closed"
    sessions: dict[str, int] = field(default_factory=dict[str, int])
    """How many sessions are in each state."""
    sent: int = 0
    """Calls that the server has not answered."""
    queued: int = 0
    """Calls that wait for a slot."""
    waiting: int = 0
    """Calls that wait for a session."""
