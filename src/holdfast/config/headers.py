"""Names of headers: which are Holdfast's own, and which of a client's may go on to a server."""

from __future__ import annotations

import re
from typing import Final

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

OWN_HEADERS: Final = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-length", "content-type", "expect", "host"),
        *("last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers that Holdfast writes itself, towards every server."""

CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""What a client proves itself with, towards Holdfast or a proxy before it."""

PER_REQUEST: Final = frozenset(
    {"date", "traceparent", "tracestate", "x-amzn-trace-id", "x-b3-spanid", "x-correlation-id", "x-request-id"}
)
"""Headers whose value is another with each request."""

_HOP_BY_HOP: Final = frozenset({"http2-settings", "keep-alive", "proxy-authenticate", "proxy-connection", "trailers"})
_OWN_BEGINNINGS: Final = ("mcp-", "x-holdfast-")


def pass_fault(name: str) -> str | None:
    """Why a header of a client's request may not go on to a server; `name` in any case."""
    folded = name.lower()
    if not HEADER_NAME.fullmatch(name):
        return "is no name of a header: letters, digits and dashes"
    if folded in CREDENTIALS:
        return "is what the client proves itself with to Holdfast; the server's own credential belongs into headers"
    if folded in OWN_HEADERS or folded.startswith(_OWN_BEGINNINGS):
        return "is written by Holdfast itself; leave it out"
    if folded in _HOP_BY_HOP:
        return "is about one connection and never goes on; leave it out"
    if folded.startswith("content-"):
        return "is about the client's body, which Holdfast writes anew; leave it out"
    return None
