"""`SessionPool`: the sessions of every configured server, kept inside an application."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Required, Self, TypedDict, Unpack

from holdfast import events
from holdfast.call import ANYBODY
from holdfast.clock import Clock, LoopClock
from holdfast.config import ClientSettings, GatewaySettings
from holdfast.config.file import load, read
from holdfast.config.headers import CREDENTIALS, pass_fault
from holdfast.errors import ConfigError
from holdfast.events import Ending
from holdfast.gateway import Gateway
from holdfast.identity.asker import Asker, next_nonce
from holdfast.identity.caller import Identity
from holdfast.library.call import OnStatus
from holdfast.library.errors import UnknownServer
from holdfast.library.lease import ELSEWHERE, OnChange, PooledSession
from holdfast.servers.server import Server, ServerConversation
from holdfast.session.key import Principal
from holdfast.views import ServerView, SessionView

if TYPE_CHECKING:
    from holdfast.library.sdk import Streams

MAX_NAME: Final = 1024
"""Characters of a principal's or a chat's name."""
_LIBRARY: Final = "library"
"""What the application counts as where clients do."""
_NOWHERE: Final = Path("settings")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Wanted(TypedDict, total=False):
    """What `SessionPool.acquire` takes beside the server; it says what each is."""

    principal: Required[str]
    chat: str | None
    credential: str | None
    headers: Mapping[str, str] | None
    on_status: OnStatus | None
    on_change: OnChange | None
    warm: bool


@dataclass(frozen=True, slots=True)
class PoolStats:
    """How a pool stands at one moment."""

    servers: tuple[ServerView, ...]
    sessions: tuple[SessionView, ...]
    leases: int


class SessionPool:
    """Sessions with MCP servers, opened once and kept for each principal and chat.

    Used as an async context manager, in one event loop:

        async with SessionPool.open("holdfast.yaml") as pool:
            async with pool.lease("browser", principal="alice", chat="c42") as session:
                result = await session.call_tool("navigate", {"url": "https://example.org"})

    Leaving ends every session in order, bounded in time, and leaves no process behind.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        emit: events.Emit = events.unheard,
        clock: Clock | None = None,
    ) -> None:
        """`emit` is told what happens, as the gateway's log is; see `holdfast.events`."""
        whole = settings.model_copy(update={"clients": (ClientSettings(name=_LIBRARY),)})
        self._gateway = Gateway(whole, clock=clock, emit=emit)
        self._given_clock = clock
        self._clock: Clock | None = None
        """None while it is not open."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leases: set[PooledSession] = set()

    @classmethod
    def open(
        cls,
        config: GatewaySettings | Mapping[str, Any] | str | os.PathLike[str],
        *,
        emit: events.Emit = events.unheard,
    ) -> Self:
        """A pool of the servers of a settings file, of what such a file says, or of settings; enter it to use it.

        Of the settings only `servers` and `limits` matter here. Raises `ConfigError`, with one line for
        each mistake.
        """
        return cls(_settings(config), emit=emit)

    def __repr__(self) -> str:
        if self._clock is None:
            return "<SessionPool: not open>"
        servers = ", ".join(server.name for server in self._servers())
        return f"<SessionPool {servers}: {len(self._leases)} leased>"

    async def __aenter__(self) -> Self:
        if self._clock is not None:
            raise RuntimeError("the pool is open already: enter it once, and share it")
        await self._gateway.__aenter__()
        self._clock = self._given_clock or LoopClock()
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in list(self._leases):
            session.release()
        self._clock = self._loop = None
        await self._gateway.__aexit__(kind, error, trace)

    async def acquire(
        self,
        server: str,
        *,
        principal: str,
        chat: str | None = None,
        credential: str | None = None,
        headers: Mapping[str, str] | None = None,
        on_status: OnStatus | None = None,
        on_change: OnChange | None = None,
        warm: bool = True,
    ) -> PooledSession:
        """A lease of the session of `principal` in `chat`; give it back with `release`, from any task.

        `principal` is whose session it is: nobody else's calls run in it. Without a `chat`, where the
        server's scope asks for one, the session is this lease's own. `credential` goes to the server
        as a bearer token and `headers` go as they are, both with every request of this session and of
        no other: leases that differ in one share nothing. `on_status` hears what is waited for, now and
        in calls; `on_change` what the server says between calls. With `warm`, the session is open on
        return; else the first call opens it.

        Raises `UnknownServer`, `ValueError` for names and headers that cannot be, and `CallFailed` where no session
        could be had.
        """
        self._check_loop()
        found = self._find(server)
        conversation = _conversation(found, principal, chat, credential, headers)
        session = PooledSession(
            conversation,
            clock=self._running_clock,
            on_status=on_status,
            on_change=on_change,
            released=self._leases.discard,
        )
        self._leases.add(session)
        if warm:
            try:
                await session.warm()
            except BaseException:
                session.release()
                raise
        return session

    def release(self, session: PooledSession) -> None:
        """Give a lease back. Idempotent; from any task, in any order."""
        session.release()

    @asynccontextmanager
    async def lease(self, server: str, **wanted: Unpack[Wanted]) -> AsyncGenerator[PooledSession]:
        """`acquire`, and `release` at the end of the block."""
        session = await self.acquire(server, **wanted)
        try:
            yield session
        finally:
            session.release()

    def transport(
        self,
        server: str,
        *,
        principal: str,
        chat: str | None = None,
        credential: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[Streams]:
        """A transport on which the official SDK's `Client` runs in the kept session; see `acquire`.

        Closing the client ends nothing that a chat names. Needs the package `mcp`.
        """
        try:
            from holdfast.library.sdk import connect  # noqa: PLC0415 (the SDK is the application's, not ours)
        except ModuleNotFoundError as error:
            raise RuntimeError(f"a transport needs the official SDK, the package mcp: {error}") from None

        self._check_loop()
        conversation = _conversation(self._find(server), principal, chat, credential, headers)
        return connect(conversation, self._running_clock, self._gateway.settings.limits)

    def invalidate(self, *, server: str | None = None, principal: str | None = None) -> None:
        """End the sessions of a principal, of a server, or of one with the other: a logout, another credential.

        Calls under way are cancelled. Nobody is told later that something was lost.
        """
        if server is None and principal is None:
            raise ValueError("say whose sessions, or with which server: server=…, principal=…")
        for each in self._servers() if server is None else (self._find(server),):
            each.close_sessions_of(_LIBRARY, principal, kind=Ending.INVALIDATED)
            if principal is None:
                for session in each.pool.sessions:
                    if session.key is not None and session.key.is_shared:
                        each.pool.close_session(session.id)

    def stats(self) -> PoolStats:
        """How servers and sessions stand now; nothing in it is a secret."""
        operations = self._running.operations
        return PoolStats(tuple(operations.servers()), tuple(operations.sessions()), len(self._leases))

    # Inside.

    def _check_loop(self) -> None:
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"the pool {ELSEWHERE}")

    @property
    def _running(self) -> Gateway:
        if self._clock is None:
            raise RuntimeError("the pool is not open: use it within `async with`")
        return self._gateway

    @property
    def _running_clock(self) -> Clock:
        if self._clock is None:
            raise RuntimeError("the pool is not open: use it within `async with`")
        return self._clock

    def _servers(self) -> tuple[Server, ...]:
        return tuple(self._running.servers)

    def _find(self, name: str) -> Server:
        found = self._running.servers.find(name)
        if found is None:
            known = ", ".join(server.name for server in self._servers())
            raise UnknownServer(f"there is no server {name!r}; the settings have {known}")
        return found


def _settings(config: GatewaySettings | Mapping[str, Any] | str | os.PathLike[str]) -> GatewaySettings:
    if isinstance(config, GatewaySettings):
        return config
    try:
        if isinstance(config, Mapping):
            return read(json.dumps(dict(config)), _NOWHERE, is_json=True, may_be_editors=False).settings
        return load(Path(config)).settings
    except ConfigError as error:
        raise ConfigError(f"the settings cannot be used:\n{error}", paths=error.paths) from None


def _check_string(what: str, value: object) -> None:
    """Users' ids are often numbers, and numbers and strings would be different sessions of one person."""
    if not isinstance(value, str):
        raise TypeError(f"the {what} must be a string, not {type(value).__name__}")


def _header(name: str, value: str) -> str:
    """The value of a header as keys have it: bytes as Latin-1. Raises `ValueError`, without the value."""
    fault = None if name.lower() in CREDENTIALS else pass_fault(name)
    if fault is not None:
        raise ValueError(f"the header {name!r} {fault}")
    _check_string(f"value of the header {name}", value)
    if _CONTROL.search(value):
        raise ValueError(f"the value of the header {name} holds a control character")
    try:
        return value.encode().decode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the value of the header {name} is no text") from None


def _conversation(
    server: Server, principal: str, chat: str | None, credential: str | None, headers: Mapping[str, str] | None
) -> ServerConversation:
    """The session's key; whatever the server is to be told of the caller is part of it."""
    if not principal:
        raise ValueError("principal is empty: say whose session it is")
    _check_string("credential", credential or "")
    for what, name in (("principal", principal), ("chat", chat or "")):
        _check_string(what, name)
        if len(name) > MAX_NAME:
            raise ValueError(f"the name of the {what} is longer than {MAX_NAME} characters")
    own = {name.lower(): _header(name, value) for name, value in (headers or {}).items()}
    if credential is not None:
        own["authorization"] = _header("authorization", f"Bearer {credential}")
    if own and server.settings.url is None:
        raise ValueError(f"{server.name} is a process: it takes no credential and no headers")
    if own and server.settings.scope == "shared":
        raise ValueError(f"the session with {server.name} is shared (scope): it takes no credential and no headers")
    identity = Identity(Principal(_LIBRARY, principal), None, lacks_user=False)
    nonce = next_nonce()
    asker = Asker(identity, nonce, named=chat or None, client=f"lease-{nonce}", declares=ANYBODY)
    key = server.key_for(asker)
    if own:
        told = json.dumps(sorted(own.items()))
        digest = hashlib.sha256((key.credential + told).encode()).hexdigest()
        key = replace(key, passed=tuple(sorted(own.items())), credential=digest, has_own_credential=True)
    return ServerConversation(server, key, asker)
