"""Protocol revisions and what each of them allows on the wire.

Source: the specification's changelogs, <https://modelcontextprotocol.io/specification/>.
"""

from __future__ import annotations

from typing import Final

HANDSHAKE_REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions with `initialize`, oldest first."""

LATEST: Final = HANDSHAKE_REVISIONS[-1]

MODERN: Final = "2026-07-28"
"""The revision without sessions: every request says for itself who asks and what it can be asked."""

WITH_SESSIONS: Final = tuple(reversed(HANDSHAKE_REVISIONS))
"""The revisions in which a client has a session of its own, newest first."""

SERVED: Final = (MODERN, *WITH_SESSIONS)
"""Every revision that a client may speak to us, newest first."""

MODERN_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
"""The `_meta` key that marks a request of revision 2026-07-28."""
CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO_KEY: Final = "io.modelcontextprotocol/clientInfo"
LOG_LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"
SERVER_INFO_KEY: Final = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"

ENVELOPE_KEYS: Final = frozenset({MODERN_VERSION_KEY, CAPABILITIES_KEY, CLIENT_INFO_KEY})
"""The `_meta` keys that stand for what `initialize` says."""


def negotiate(requested: object) -> str:
    """The revision to answer an `initialize` with: the one asked for where we speak it, else our latest."""
    return requested if isinstance(requested, str) and requested in HANDSHAKE_REVISIONS else LATEST


def allows_batches(revision: str) -> bool:
    """Whether JSON-RPC arrays may be received: removed in 2025-06-18."""
    return revision <= "2025-03-26"


def allows_priming(revision: str) -> bool:
    """Whether a stream may begin with an event that has an id and empty data (SEP-1699).

    Clients before 2025-11-25 may fail on the empty data.
    """
    return revision >= "2025-11-25"
