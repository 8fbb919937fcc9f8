"""Asks a server one thing after another, bounded in time, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from holdfast.clock import Clock, LoopClock, timeout
from holdfast.config import ServerSettings
from holdfast.doctor import http_probes, probes
from holdfast.doctor.conversation import Conversation, Opener, Patience
from holdfast.doctor.findings import Ending, Findings, Handshake, Modern, SecondConnection
from holdfast.doctor.http import HttpOpener, ModernRequests, Session, Wire
from holdfast.doctor.linked import LinkedSession, LinkOpener
from holdfast.doctor.memory import Memory
from holdfast.doctor.named import Wanted, pair_of
from holdfast.doctor.problem import problem_of
from holdfast.tasks import TaskScope
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.legacy_sse import LegacySseLink
from holdfast.upstream.stdio import StdioLink
from holdfast.upstream.watchdog import Watchdog

DEFAULT_TIMEOUT: Final = 120.0
"""Everything together: three openings that hang, and as many answers, fit in."""

OnStep = Callable[[str], None]
"""Told what is asked next, for whoever waits."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What every examination goes by."""

    wanted: Wanted
    clock: Clock
    patience: Patience
    on_step: OnStep


async def examine(
    server: ServerSettings,
    wanted: Wanted,
    *,
    total: float = DEFAULT_TIMEOUT,
    on_step: OnStep = lambda _: None,
    clock: Clock | None = None,
) -> Findings:
    """Find out how `server` treats sessions, within `total` seconds and some for the ending of what was opened.

    Never raises for what a server does. Cancelled, it still ends its sessions. Raises `ValueError`
    for a URL or a header that cannot be sent.
    """
    clock = clock or LoopClock()
    patience = Patience.within(total)
    begun = clock.now()
    async with AsyncExitStack() as stack:
        watchdog = Watchdog(clock)
        stack.push_async_callback(watchdog.aclose)
        scope = await stack.enter_async_context(TaskScope())
        terms = _Terms(wanted, clock, patience, on_step)
        examination = (
            _HttpExamination(server, terms, scope)
            if server.url is not None
            else _StdioExamination(server, terms, watchdog)
        )
        findings = examination.findings
        try:
            async with timeout(clock, patience.total):
                await examination.run()
        except TimeoutError:
            findings.is_cut = True
        finally:
            on_step("end what was opened")
            try:
                async with timeout(clock, patience.closing):
                    await examination.leave()
            except TimeoutError:
                pass  # what is left is dropped, and counted
            finally:
                examination.drop()
    if findings.opened is None and not findings.is_modern_only:
        findings.problem = problem_of(findings)
    findings.seconds = clock.now() - begun
    return findings


class _Examination:
    """What both kinds of servers are asked."""

    def __init__(self, opener: Opener, findings: Findings, terms: _Terms) -> None:
        self.findings = findings
        self._opener = opener
        self._wanted = terms.wanted
        self._clock = terms.clock
        self._patience = terms.patience
        self._on_step = terms.on_step
        self._memory: Memory | None = None

    async def _look_at(self, session: Conversation, capabilities: tuple[str, ...], server: str) -> None:
        """Lists, calls and memory of one session."""
        findings = self.findings
        self._on_step("list what it has")
        findings.lists = await probes.lists(session, capabilities)
        self._on_step("ask several things at once")
        named = self._wanted.call
        findings.parallel, replies = await probes.parallel(session, self._clock, named)
        if named is not None:
            has_streams = isinstance(session, Session | ModernRequests)
            findings.call = probes.call(named, replies, has_streams=has_streams)
        pair = pair_of(self._wanted, server, findings.lists.tools)
        if pair is not None:
            self._on_step("write and read")
            self._memory = Memory(*pair, self._clock)
            await self._memory.write(session)
            self._remember()
        self._on_step("connect anew")
        findings.reconnect = await probes.reconnect(session)
        if findings.reconnect is not None and findings.reconnect.is_kept:
            await self._recall(session, "reconnected")

    async def _open_second(self, first: Conversation) -> Conversation | None:
        """Open a second session beside the first; returned where the server gave one."""
        self._on_step("open a second session")
        findings = self.findings
        reply, second = await self._opener.open()
        survivor = await first.ask("ping")
        findings.second = SecondConnection(
            seconds=reply.seconds,
            answer=reply.answer,
            is_accepted=second is not None,
            does_first_survive=survivor.kind in {"result", "error"} and not probes.is_lost(survivor),
        )
        if second is not None:
            listed = await probes.lists(second, ())
            if findings.lists is not None and listed.answer.is_served:
                is_same = set(listed.tools) == set(findings.lists.tools)
                findings.lists = replace(findings.lists, is_same_in_second=is_same)
            await self._recall(second, "second")
        return second

    async def _open_later(self) -> None:
        """Open another session once all have ended."""
        findings = self.findings
        was_refused = findings.second is not None and not findings.second.is_accepted
        if (self._memory is None or not self._memory.can_tell) and not was_refused:
            return
        self._on_step("open a session anew")
        _, later = await self._opener.open()
        if was_refused and findings.end is not None:
            findings.end = replace(findings.end, does_make_room=later is not None)
        if later is not None:
            await self._recall(later, "later")
            await later.end()

    async def _look_at_linked(self, session: LinkedSession, opened: Handshake) -> None:
        """A session that is one stream or one process, and ends with it."""
        findings = self.findings
        self._on_step("ping")
        findings.ping = await probes.ping(session)
        await self._look_at(session, opened.capabilities, opened.server)
        second = await self._open_second(session)
        if second is not None:
            await second.end()
        self._on_step("end the session")
        reply = await session.end()
        findings.end = Ending(seconds=reply.seconds, answer=reply.answer, is_gone=None)
        await self._open_later()

    async def _recall(self, session: Conversation, where: str) -> None:
        if self._memory is not None:
            await self._memory.look(session, where)
            self._remember()

    def _remember(self) -> None:
        if self._memory is not None:
            self.findings.state = self._memory.state()


class _HttpExamination(_Examination):
    """A server at a URL."""

    def __init__(self, server: ServerSettings, terms: _Terms, scope: TaskScope) -> None:
        self._headers: Mapping[str, str] = {name: value.get_secret_value() for name, value in server.headers.items()}
        self._url = server.url or ""
        self._scope = scope
        self._wire = Wire(self._url, self._headers, scope, terms.clock, terms.patience)
        self._http = HttpOpener(self._wire)
        self._legacy: LinkOpener | None = None
        self._legacy_client: HttpClient | None = None
        super().__init__(self._http, Findings(transport="http"), terms)

    async def run(self) -> None:
        findings = self.findings
        self._on_step("shake hands")
        reply, session = await self._http.open()
        findings.handshake = opened = probes.read_handshake(reply, is_open=session is not None)
        findings.moved_to = self._wire.moved_to
        if reply.is_unsent or reply.status == 401:
            return
        self._on_step("ask for 2026-07-28")
        reply, requests = await self._http.discover()
        findings.modern = modern = probes.read_discovery(reply)
        if session is not None:
            await self._look_at_session(session, opened, requests)
        elif modern.is_spoken:
            await self._look_at_requests(requests, modern)
        else:
            await self._look_at_legacy()

    async def _look_at_session(self, session: Session, opened: Handshake, requests: ModernRequests) -> None:
        findings, wire = self.findings, self._wire
        self._on_step("ping")
        findings.ping = await probes.ping(session)
        self._on_step("ask without a session id, and with a wrong one")
        findings.missing_id = await http_probes.missing_id(self._http)
        if session.id is not None:
            findings.unknown_id = await http_probes.unknown_id(wire)
        self._on_step("open the stream for pushes")
        findings.push_stream = await http_probes.push_stream(session)
        findings.resumption = await http_probes.resumption(session)
        self._on_step("ask as a foreign page would")
        findings.foreign_origin = await http_probes.foreign_origin(session)
        findings.foreign_host = await http_probes.foreign_host(session, wire)
        await self._look_at(session, opened.capabilities, opened.server)
        await self._look_at_both(requests)
        second = await self._open_second(session)
        if second is not None:
            await second.end()
        self._on_step("end the session")
        if session.id is not None:
            findings.end = await http_probes.end(session)
        await self._open_later()

    async def _look_at_requests(self, requests: ModernRequests, modern: Modern) -> None:
        """A server of 2026-07-28 alone."""
        findings = self.findings
        findings.foreign_origin = await http_probes.foreign_origin(requests)
        findings.foreign_host = await http_probes.foreign_host(requests, self._wire)
        await self._look_at(requests, ("resources", "prompts"), modern.server)
        findings.reconnect = None  # there is no session to be kept
        self._remember()

    async def _look_at_both(self, requests: ModernRequests) -> None:
        """What differs in 2026-07-28, for a server that has sessions too."""
        findings, wire = self.findings, self._wire
        if findings.modern is None or not findings.modern.is_spoken:
            return
        if self._memory is not None:
            await self._memory.look_in_requests(requests)
            self._remember()
        before = wire.limits[-1].left if wire.limits else None
        reply = await requests.ask("tools/list", {})
        counts = before is not None and reply.left is not None and reply.left < before
        findings.modern = replace(findings.modern, counts_requests=counts)

    async def _look_at_legacy(self) -> None:
        """Perhaps it knows HTTP+SSE alone."""
        self._on_step("try HTTP+SSE of 2024-11-05")
        findings = self.findings
        parts = urlsplit(self._url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._legacy_client = client = HttpClient(self._url, self._scope, self._clock)
        patience = replace(self._patience, opening=self._patience.answer)
        self._opener = self._legacy = LinkOpener(
            lambda: LegacySseLink(client, target, self._headers, self._clock), self._clock, patience
        )
        reply, session = await self._legacy.open()
        found = probes.read_handshake(reply, is_open=session is not None)
        if session is None:
            return
        findings.transport, findings.legacy_sse = "sse", found
        await self._look_at_linked(session, found)

    async def leave(self) -> None:
        """End every session whose id the server ever gave away."""
        self.findings.allowance = http_probes.allowance(self._wire)
        if self._legacy is not None:
            await self._legacy.close()
        for session_id in list(self._wire.open_ids):
            await self._wire.end(session_id)

    def drop(self) -> None:
        """Close the connections."""
        self.findings.left_behind = self._wire.left_behind + len(self._wire.open_ids)
        self._wire.client.close()
        if self._legacy_client is not None:
            self._legacy_client.close()


class _StdioExamination(_Examination):
    """A server that is a process: each session is one of its own."""

    def __init__(self, server: ServerSettings, terms: _Terms, watchdog: Watchdog) -> None:
        env = {name: value.get_secret_value() for name, value in server.env.items()}
        command = server.command or ()
        self._links = LinkOpener(
            lambda: StdioLink(command, env=env, cwd=server.cwd, clock=terms.clock, watchdog=watchdog),
            terms.clock,
            terms.patience,
        )
        super().__init__(self._links, Findings(transport="stdio"), terms)

    async def run(self) -> None:
        findings = self.findings
        self._on_step("start it and shake hands")
        reply, session = await self._links.open()
        findings.handshake = opened = probes.read_handshake(reply, is_open=session is not None)
        if reply.is_unsent:
            return
        self._on_step("ask for 2026-07-28")
        reply, requests = await self._links.discover()  # a process keeps to the era of its first request
        findings.modern = modern = probes.read_discovery(reply)
        if session is not None:
            await requests.end()
            await self._look_at_linked(session, opened)
        elif modern.is_spoken:
            await self._look_at(requests, ("resources", "prompts"), modern.server)
            findings.reconnect = None  # a process is its connection

    async def leave(self) -> None:
        """End every process."""
        await self._links.close()

    def drop(self) -> None:
        """Processes that are left were killed by `leave`."""
