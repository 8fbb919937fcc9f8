"""Who may come in: a request's head, the address that it was sent to, and the key that it bears."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.config import GatewaySettings
from holdfast.downstream.http import Head, Request
from holdfast.downstream.post import check_name
from holdfast.downstream.refusal import Refusal
from holdfast.events import Denial
from holdfast.identity.caller import Clients, Identity
from holdfast.identity.tokens import TokensInUse, UnprovenUser
from holdfast.wire.headers import host_name, is_loopback_name, origin_host

_SINGLE_HEADERS: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"last-event-id",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"origin",
    }
)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Entrance:
    """The checks that settings ask for, made once for each edition of them."""

    def __init__(self, settings: GatewaySettings, in_use: TokensInUse) -> None:
        self._clients = Clients(settings.clients, in_use)
        self._is_loopback = settings.is_loopback
        self._hosts = frozenset(map(host_name, (*settings.allowed_hosts, settings.host))) - {""}
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.allowed_origins)
        named = [name for client in settings.clients for name in client.trust.headers]
        passed = [name for server in settings.servers for name in server.pass_headers]
        self._single_headers = _SINGLE_HEADERS | {name.encode() for name in (*named, *passed)}

    def read_head(self, head: Head) -> Request:
        """The request without its body. Raises `Refusal` where it can be read in two ways."""
        raw = head.headers
        headers = {name.decode("latin-1"): value.decode("latin-1").strip() for name, value in raw}
        if len(headers) < len(raw):
            headers = self._read_repeated(raw)
        return Request(head.method, head.path.decode("latin-1"), headers, query=head.query.decode("latin-1"))

    def _read_repeated(self, raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
        """Headers of which one came several times."""
        headers: dict[str, str] = {}
        for name, value in raw:
            key = name.decode("latin-1")
            if key not in headers:
                headers[key] = value.decode("latin-1").strip()
            elif name in self._single_headers:
                raise Refusal(400, f"The header {key} came twice.")
            elif name == b"accept":
                headers[key] += "," + value.decode("latin-1")
        return headers

    def check_address(self, headers: Mapping[str, str]) -> None:
        """Against DNS rebinding: a page on the web must not reach a gateway on this machine. Raises `Refusal`."""
        host = host_name(headers.get("host", ""))
        if host not in self._hosts and not is_loopback_name(host):
            words = "This gateway does not serve that host: allow the name (allowed_hosts, --allow-host)."
            raise Refusal(421, words, denial=Denial.FOREIGN_HOST)
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return
        if not (self._is_loopback and is_loopback_name(origin_host(origin))):
            raise Refusal(403, "Pages of that origin may not call this gateway.", denial=Denial.FOREIGN_ORIGIN)

    def identify(self, headers: Mapping[str, str]) -> Identity:
        """Who is calling. Raises `Refusal`."""
        try:
            identity = self._clients.identify(headers)
        except UnprovenUser as error:
            raise Refusal(403, str(error), denial=error.kind) from None
        if identity is None:
            raise unknown_key() if "authorization" in headers else _unauthorized("A key is needed", Denial.NO_KEY)
        check_name(identity.principal.user or "", "user")
        check_name(identity.chat or "", "chat")
        return identity

    def admits(self, identity: Identity) -> bool:
        """Whether a caller who was let in earlier would be let in as the same client now."""
        return self._clients.admits(identity)


def unknown_key() -> Refusal:
    """The key of a request opens nothing, or does no longer."""
    return _unauthorized("This key is not known here", Denial.UNKNOWN_KEY)


def _unauthorized(what: str, denial: Denial) -> Refusal:
    challenge = ((b"www-authenticate", b"Bearer"),)
    return Refusal(401, f"{what}: send one as Authorization: Bearer KEY.", headers=challenge, denial=denial)


def given_request_id(headers: Mapping[str, str]) -> str | None:
    """The id that the caller, or a proxy before us, gave the request, if it is fit for a log."""
    given = headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None
