"""HTTP header values that both sides read or write."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"

_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=")
_PLAIN: Final = re.compile(r"[\x20-\x7e\t]*")
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,1024}")
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::[0-9]*)?")
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Accepts:
    """Which of the two answer types a client takes, and whether it would rather have a stream."""

    json: bool
    stream: bool
    prefers_stream: bool = False


JSON_ONLY: Final = Accepts(json=True, stream=False)
BOTH: Final = Accepts(json=True, stream=True)


@lru_cache(maxsize=256)
def parse_accept(value: str | None) -> Accepts:
    """What an `Accept` header allows (RFC 9110, section 12.5.1).

    None and `*/*` give JSON only: who names no stream may not read one. Where both types are
    named with the same weight, the one named first is preferred.
    """
    if value is None or not value.strip():
        return JSON_ONLY
    weights: dict[str, float] = {}
    for item in value.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        weights.setdefault(media, _weight(parameters))
    json_weight = _first(weights, JSON, "application/*", "*/*")
    stream_weight = _first(weights, EVENT_STREAM, "text/*")
    order = list(weights)
    prefers = stream_weight > json_weight or (
        0 < stream_weight == json_weight
        and EVENT_STREAM in order
        and (JSON not in order or order.index(EVENT_STREAM) < order.index(JSON))
    )
    return Accepts(json=json_weight > 0, stream=stream_weight > 0, prefers_stream=prefers)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return max(0.0, float(parameter[2:]))
            except ValueError:
                return 0.0
    return 1.0


def _first(weights: dict[str, float], *names: str) -> float:
    return next((weights[name] for name in names if name in weights), 0.0)


def media_type(value: str | None) -> str:
    """The type of a `Content-Type` header without parameters, in lower case; empty where there is none."""
    if value == JSON:
        return JSON
    return (value or "").partition(";")[0].strip().lower()


def is_session_id(value: str) -> bool:
    """Whether `value` may be an `Mcp-Session-Id`: visible ASCII, 0x21 to 0x7E."""
    return _SESSION_ID.fullmatch(value) is not None


def host_name(authority: str) -> str:
    """The host of a `Host` header or an origin's authority, in lower case, without the port.

    Empty where `authority` is anything else than `host` or `host:port`.
    """
    match = _AUTHORITY.fullmatch(authority.strip().lower())
    return match.group(1) if match else ""


def origin_host(origin: str) -> str:
    """The host of an `Origin` header, as `host_name` gives it; empty where it is no `scheme://host` or `:port`."""
    scheme, _, authority = origin.partition("://")
    return host_name(authority.removesuffix("/")) if scheme else ""


def is_loopback_name(host: str) -> bool:
    """Whether a host name (from `host_name`) can only mean this machine."""
    return host in _LOOPBACK_HOSTS


def bearer_token(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750), or None."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None


def mirrored_value(header: str) -> str | None:
    """The value that a header mirrors from the body (MCP 2026-07-28, Streamable HTTP); None for a malformed one.

    A value that no header can hold comes as `=?base64?…?=`, and only in its one canonical form.
    """
    if header.isascii() and header.isprintable() and not header.startswith("=?"):
        return header
    match = _ENCODED.fullmatch(header)
    if match is None:
        return header if _PLAIN.fullmatch(header) else None
    try:
        decoded = base64.b64decode(match.group(1), validate=True)
        return decoded.decode() if base64.b64encode(decoded).decode() == match.group(1) else None
    except (binascii.Error, ValueError):
        return None
