"""What one call writes and another reads: in which sessions it is there."""

from __future__ import annotations

from holdfast.clock import Clock
from holdfast.doctor.conversation import Conversation
from holdfast.doctor.findings import State
from holdfast.doctor.named import Named
from holdfast.doctor.probes import TOOL_TIMEOUT, has_failed, said, text_of
from holdfast.doctor.reply import Reply


class Memory:
    """One value, written once in one session, and looked for in others."""

    def __init__(self, write: Named, read: Named, clock: Clock) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._seconds = 0.0
        self._before: dict[str, bytes] = {}
        self._after: dict[str, bytes] = {}
        self._problem = ""
        self._found: dict[str, bool | None] = {}

    async def write(self, session: Conversation) -> None:
        """Read twice, write, and read again, in the same session."""
        begun = self._clock.now()
        first = text_of(await _call(session, self._read))
        self._before = text_of(await _call(session, self._read))
        if self._before != first:
            self._problem = f"{self._read.tool} gives something else each time, whatever was written"
            self._seconds += self._clock.now() - begun
            return
        written = await _call(session, self._write)
        if has_failed(written):
            self._problem = f"{self._write.tool} failed: {said(written) or 'it does not say why'}"
        else:
            reply = await _call(session, self._read)
            self._after = text_of(reply)
            self._problem = "" if reply.is_served else f"{self._read.tool} failed: {reply.words}"
        self._seconds += self._clock.now() - begun

    @property
    def can_tell(self) -> bool:
        """Reading gave something else after writing than before."""
        return not self._problem and self._after != self._before

    async def look(self, session: Conversation, where: str) -> None:
        """Read in another session, or in the same one later; `where` is a field of `State`."""
        if not self.can_tell:
            return
        begun = self._clock.now()
        found = text_of(await _call(session, self._read))
        self._seconds += self._clock.now() - begun
        # Neither the one nor the other: what is read holds a time or the like, and tells nothing.
        self._found[where] = True if found == self._after else False if found == self._before else None

    async def look_in_requests(self, requests: Conversation) -> None:
        """Write and read in two requests of 2026-07-28, where a session keeps what is written."""
        if not self.can_tell:
            return
        there = Memory(self._write, self._read, self._clock)
        await there.write(requests)
        self._seconds += there._seconds
        was_there = there._after == there._before == self._after
        self._found["modern"] = None if there._problem else there.can_tell or was_there

    def state(self) -> State:
        """What was found out so far."""
        same = True if self.can_tell else None if self._problem else False
        return State(
            seconds=self._seconds,
            write=self._write.tool,
            read=self._read.tool,
            same=same,
            reconnected=self._found.get("reconnected"),
            second=self._found.get("second"),
            later=self._found.get("later"),
            modern=self._found.get("modern"),
            problem=self._problem,
        )


async def _call(session: Conversation, named: Named) -> Reply:
    return await session.ask("tools/call", named.params(), within=TOOL_TIMEOUT)
