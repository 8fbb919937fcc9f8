"""How the sessions of one server are connected; owns what they share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from urllib.parse import urlsplit

from holdfast.call import Abilities
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.tasks import TaskScope
from holdfast.upstream.era import PROBE_TIMEOUT, KnownEra, Openings, ProbingUpstream, ProcessInTurns
from holdfast.upstream.fallback import FallbackUpstream, Habit, Ways
from holdfast.upstream.handshake import HandshakeUpstream, declared
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.legacy_sse import LegacySseLink
from holdfast.upstream.modern import ModernUpstream
from holdfast.upstream.modern_answer import MirroredArguments
from holdfast.upstream.modern_link import ModernHttpLink, ModernLink, ModernPipe
from holdfast.upstream.session_stream import has_session_stream
from holdfast.upstream.stdio import StdioLink
from holdfast.upstream.streamable_http import StreamableHttpLink
from holdfast.upstream.tasks import TaskTools
from holdfast.upstream.transport import Link, Listener, Upstream
from holdfast.upstream.watchdog import Watchdog


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
        self._era = KnownEra()
        self._mirrored = MirroredArguments()
        self._task_tools = TaskTools()
        if settings.url is not None:
            parts = urlsplit(settings.url)
            self._http = HttpClient(settings.url, scope, clock)
            self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __call__(
        self,
        listener: Listener,
        *,
        declares: Abilities,
        passed: tuple[tuple[str, str], ...] = (),
        prefers_modern: bool = False,
        listens: bool = True,
    ) -> Upstream:
        """A conversation that is not open yet.

        `declares`: what the server is told that can be asked. `passed`: headers of the caller's that go
        with every request. `prefers_modern`: it speaks 2026-07-28 where the server speaks both.
        Without `listens`, and where nothing can be asked, what the server pushes beside answers is not heard.
        """
        can_ask = declares.can_answer_any
        listens = can_ask and listens

        def converse(link: Link) -> HandshakeUpstream:
            return HandshakeUpstream(
                link,
                listener,
                declared(declares),
                server=self._settings.name,
                tools=self._task_tools,
                clock=self._clock,
            )

        def converse_modern(link: ModernLink) -> ModernUpstream:
            return ModernUpstream(
                link,
                listener,
                declares=can_ask,
                listens=listens,
                mirrored=self._mirrored,
                clock=self._clock,
                jitter=self._rng.random,
            )

        openings = self._openings(converse, converse_modern, passed, wants_push=listens)
        match self._settings.era:
            case "handshake":
                return openings.handshake()
            case "modern":
                return openings.modern()
            case "auto" if self._settings.transport == "sse":  # a transport of the handshake era alone
                return openings.handshake()
            case "auto":
                limit = min(PROBE_TIMEOUT, self._settings.open_timeout / 2)
                return ProbingUpstream(
                    self._era, openings, self._clock, prefers_modern=prefers_modern, probe_timeout=limit
                )

    @property
    def is_legacy(self) -> bool:
        """A server was found to speak the HTTP+SSE of 2024-11-05."""
        return self._habit.is_legacy

    def _openings(
        self,
        converse: Callable[[Link], HandshakeUpstream],
        converse_modern: Callable[[ModernLink], ModernUpstream],
        passed: tuple[tuple[str, str], ...],
        *,
        wants_push: bool,
    ) -> Openings:
        http = self._http
        if http is None:
            if self._settings.era != "auto":
                return Openings(lambda: converse_modern(ModernPipe(self._stdio())), lambda: converse(self._stdio()))
            process = ProcessInTurns(self._stdio)
            return Openings(
                lambda: converse_modern(ModernPipe(process.turn())), lambda: converse(process.turn()), process
            )
        streamable = partial(self._streamable, http, passed, wants_push=wants_push)
        legacy = partial(self._legacy, http, passed)
        modern = partial(self._modern, http, passed)

        def shaking_hands() -> Upstream:
            match self._settings.transport:
                case "streamable":
                    return converse(streamable())
                case "sse":
                    return converse(legacy())
                case "auto":
                    return FallbackUpstream(self._habit, Ways(streamable, legacy, converse))

        asking = partial(has_session_stream, http, self._target, self._headers(passed))
        return Openings(lambda: converse_modern(modern()), shaking_hands, may_shake_hands=asking)

    def _modern(self, http: HttpClient, passed: tuple[tuple[str, str], ...]) -> ModernHttpLink:
        return ModernHttpLink(
            http,
            self._target,
            self._headers(passed),
            self._clock,
            max_message_bytes=self._message_bytes(),
            jitter=self._rng.random,
        )

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
        own = {name: _as_text(value) for name, value in passed}
        configured = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        return {name: value for name, value in configured.items() if name.lower() not in own} | own

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
