"""How the sessions of one server are connected; owns what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.tasks import TaskScope
from holdfast.upstream.fallback import FallbackUpstream, Habit, Ways
from holdfast.upstream.handshake import ALL_CAPABILITIES, HandshakeUpstream
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.legacy_sse import LegacySseLink
from holdfast.upstream.stdio import StdioLink
from holdfast.upstream.streamable_http import StreamableHttpLink
from holdfast.upstream.transport import Link, Listener, Upstream
from holdfast.upstream.watchdog import Watchdog

_NO_CAPABILITIES: Final[Mapping[str, Any]] = {}


class Connector:
    """Makes the conversation for each new session with a server."""

    def __init__(
        self,
        settings: ServerSettings,
        message_bytes: Callable[[], int],
        *,
        scope: TaskScope,
        clock: Clock,
        rng: Random,
        watchdog: Watchdog,
    ) -> None:
        """`message_bytes` says how large a message of the server may be; asked for each session."""
        self._message_bytes = message_bytes
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._watchdog = watchdog
        self._http: HttpClient | None = None
        self._target = ""
        self._habit = Habit()
        if settings.url is not None:
            parts = urlsplit(settings.url)
            self._http = HttpClient(settings.url, scope, clock)
            self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __call__(self, listener: Listener, *, declares: bool, passed: tuple[tuple[str, str], ...] = ()) -> Upstream:
        """A conversation that is not open yet.

        `declares`: offer the server all that can be relayed, else nothing. `passed`: headers of the
        caller's that go with every request.
        """
        capabilities = ALL_CAPABILITIES if declares else _NO_CAPABILITIES

        def converse(link: Link) -> HandshakeUpstream:
            return HandshakeUpstream(link, listener, capabilities, server=self._settings.name)

        if self._http is None:
            return converse(self._stdio())
        streamable = partial(self._streamable, self._http, passed, wants_push=declares)
        legacy = partial(self._legacy, self._http, passed)
        match self._settings.transport:
            case "streamable":
                return converse(streamable())
            case "sse":
                return converse(legacy())
            case "auto":
                return FallbackUpstream(self._habit, Ways(streamable, legacy, converse))

    def _streamable(
        self, http: HttpClient, passed: tuple[tuple[str, str], ...], *, wants_push: bool
    ) -> StreamableHttpLink:
        return StreamableHttpLink(
            http,
            self._target,
            self._headers(passed),
            self._clock,
            wants_push=wants_push,
            max_message_bytes=self._message_bytes(),
            jitter=self._rng.random,
        )

    def _legacy(self, http: HttpClient, passed: tuple[tuple[str, str], ...]) -> LegacySseLink:
        return LegacySseLink(
            http, self._target, self._headers(passed), self._clock, max_message_bytes=self._message_bytes()
        )

    def _headers(self, passed: tuple[tuple[str, str], ...]) -> dict[str, str]:
        configured = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        return configured | {name: _as_text(value) for name, value in passed}

    def _stdio(self) -> StdioLink:
        settings = self._settings
        env = {name: value.get_secret_value() for name, value in settings.env.items()}
        command = settings.command or ()
        return StdioLink(
            command,
            env=env,
            cwd=settings.cwd,
            clock=self._clock,
            watchdog=self._watchdog,
            max_message_bytes=self._message_bytes(),
        )

    def close(self) -> None:
        """Close the connections that sessions share."""
        if self._http is not None:
            self._http.close()


def _as_text(value: str) -> str:
    """A header's value, decoded from Latin-1 as all are, as the text that is encoded to the same bytes."""
    return value.encode("latin-1").decode("utf-8", "surrogateescape")
