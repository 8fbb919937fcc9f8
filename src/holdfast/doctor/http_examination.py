"""A server at a URL: Streamable HTTP in either era, or the HTTP+SSE of 2024-11-05."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from holdfast.config import ServerSettings
from holdfast.doctor import http_probes, probes
from holdfast.doctor.examination import Examination, Terms
from holdfast.doctor.findings import Findings, Handshake, Modern
from holdfast.doctor.http import HttpOpener, ModernRequests, Session, Wire
from holdfast.doctor.linked import LinkOpener
from holdfast.tasks import TaskScope
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.legacy_sse import LegacySseLink


class HttpExamination(Examination):
    """A server at a URL."""

    def __init__(self, server: ServerSettings, terms: Terms, scope: TaskScope) -> None:
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
        await self._look_at_both(session, requests)
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

    async def _look_at_both(self, session: Session, requests: ModernRequests) -> None:
        """What differs in 2026-07-28, for a server that has sessions too."""
        findings = self.findings
        if findings.modern is None or not findings.modern.is_spoken:
            return
        if self._memory is not None:
            await self._memory.look_in_requests(requests)
            self._remember()
        before = await requests.ask("tools/list", {})
        await session.ask("ping")
        after = await requests.ask("tools/list", {})
        is_told = before.left is not None and after.left is not None
        cost = (before.left or 0) - (after.left or 0)  # 2 where the ping is counted, too
        findings.modern = replace(findings.modern, counts_requests=is_told and cost == 1)

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
