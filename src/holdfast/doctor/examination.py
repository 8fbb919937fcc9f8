"""What sessions of both kinds of servers are asked, one thing after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from holdfast.clock import Clock
from holdfast.doctor import probes
from holdfast.doctor.conversation import Conversation, Opener, Patience
from holdfast.doctor.findings import Ending, Findings, Handshake, SecondConnection
from holdfast.doctor.http import HttpConversation
from holdfast.doctor.linked import LinkedSession
from holdfast.doctor.memory import Memory
from holdfast.doctor.named import Wanted, pair_of

OnStep = Callable[[str], None]
"""Told what is asked next, for whoever waits."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What every examination goes by."""

    wanted: Wanted
    clock: Clock
    patience: Patience
    on_step: OnStep


class Examination:
    """What both kinds of servers are asked."""

    def __init__(self, opener: Opener, findings: Findings, terms: Terms) -> None:
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
        if findings.lists.answer.is_served:
            self._wanted.check(server, findings.lists.tools)
        self._on_step("ask several things at once")
        named = self._wanted.call
        findings.parallel, replies = await probes.parallel(session, self._clock, named)
        if named is not None:
            has_streams = isinstance(session, HttpConversation)
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
