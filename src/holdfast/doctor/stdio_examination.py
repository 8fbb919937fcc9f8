"""A server that is a process."""

from __future__ import annotations

from holdfast.config import ServerSettings
from holdfast.doctor import probes
from holdfast.doctor.examination import Examination, Terms
from holdfast.doctor.findings import Findings
from holdfast.doctor.linked import LinkOpener
from holdfast.upstream.stdio import StdioLink
from holdfast.upstream.watchdog import Watchdog


class StdioExamination(Examination):
    """A server that is a process: each session is one of its own."""

    def __init__(self, server: ServerSettings, terms: Terms, watchdog: Watchdog) -> None:
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
