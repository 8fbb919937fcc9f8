"""Which era a server is of: found out at its first opening, remembered for every other.

A server of 2026-07-28 answers `server/discover`, which no older one knows. The probe is the
opening itself where it succeeds; where it does not, `initialize` follows, over stdio in the same process.
A server that speaks both is spoken to in 2026-07-28 for who speaks that and cannot come back for its session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from msgspec import Raw

from holdfast.call import AskId, Call, Reply
from holdfast.clock import Clock, timeout
from holdfast.errors import OpenFailed
from holdfast.upstream.discovery import NotModern
from holdfast.upstream.handshake import Misunderstood
from holdfast.upstream.modern import ModernUpstream
from holdfast.upstream.transport import Exchange, Fault, Hello, Link, Receiver, Sent, Upstream
from holdfast.wire.jsonrpc import ServerMessage

MAX_FAILURES: Final = 3
"""Openings in which a server of 2026-07-28 may fail to shake hands before it is not asked to any more."""

PROBE_TIMEOUT: Final = 5.0
"""How long a server whose era is not known may take to answer `server/discover`."""


class Era(Enum):
    """The two ways in which MCP is spoken, and servers that know both."""

    HANDSHAKE = "handshake"
    MODERN = "modern"
    BOTH = "both"


class KnownEra:
    """What is known of one server, shared by the conversations with it; None: it must be asked."""

    def __init__(self) -> None:
        self.era: Era | None = None
        self.discovery: Hello | None = None
        """What it said when it was last discovered."""
        self._failures = 0

    def has_refused(self, failure: OpenFailed | TimeoutError) -> bool:
        """Whether a server of 2026-07-28 that did not shake hands never will: it said so, or always fails."""
        self._failures += 1
        return isinstance(failure, Misunderstood) or self._failures >= MAX_FAILURES


@dataclass(frozen=True, slots=True)
class Openings:
    """How a conversation may begin; each is called when its turn comes."""

    modern: Callable[[], ModernUpstream]
    handshake: Callable[[], Upstream]
    """After `modern`, over the same process where there is one and it lives."""
    process: ProcessInTurns | None = None
    may_shake_hands: Callable[[], Awaitable[bool]] | None = None
    """Whether a server that answers `modern` should be asked for `handshake` too; None where only that would tell."""


class ProbingUpstream:
    """An `Upstream` that becomes one of either era when it is opened.

    `prefers_modern`: it speaks 2026-07-28 to a server of both.
    """

    def __init__(
        self,
        known: KnownEra,
        openings: Openings,
        clock: Clock,
        *,
        prefers_modern: bool = False,
        probe_timeout: float = PROBE_TIMEOUT,
    ) -> None:
        self._known = known
        self._openings = openings
        self._clock = clock
        self._prefers_modern = prefers_modern
        self._probe_timeout = probe_timeout
        self._chosen: Upstream | None = None

    async def open(self) -> Hello:
        refusal: Misunderstood | None = None
        era = self._known.era
        if era is Era.HANDSHAKE or (era is Era.BOTH and not self._prefers_modern):
            try:
                return await self._shake_hands(era)
            except Misunderstood as error:
                refusal = error  # it may have been replaced by one of the other era
        modern = self._converse_modern()
        try:
            discovery = await self._discover(modern)
        except (NotModern, TimeoutError):
            self._known.era = None
            if refusal is not None:
                raise refusal from None
            return await self._shake_hands(Era.HANDSHAKE)
        self._known.discovery = discovery
        found: Era | None = Era.MODERN if era is Era.MODERN or refusal is not None else Era.BOTH
        if found is Era.BOTH and not self._prefers_modern and not await self._may_shake_hands():
            found = Era.MODERN
        if found is Era.BOTH and not self._prefers_modern:
            # The versions that it names are no help: the official SDK's servers speak all, and name the new one.
            if self._openings.process is not None:
                self._openings.process.renew()  # and over stdio they keep to the era of their first request
            try:
                async with timeout(self._clock, self._probe_timeout):
                    return await self._shake_hands(Era.BOTH)
            except (OpenFailed, TimeoutError) as failure:
                if isinstance(failure, OpenFailed) and failure.is_unsent:
                    raise
                found = Era.MODERN if self._known.has_refused(failure) else None
                modern = self._converse_modern()
        hello = await modern.open()
        self._settle(found)
        return hello if found is Era.MODERN else replace(hello, speaks_both=True)

    async def _may_shake_hands(self) -> bool:
        may = self._openings.may_shake_hands
        if may is None:
            return True
        try:
            async with timeout(self._clock, self._probe_timeout):
                return await may()
        except TimeoutError:
            return True

    async def _discover(self, modern: ModernUpstream) -> Hello:
        """Raises `NotModern`, `TimeoutError` where it is not known what the server is, and `OpenFailed`."""
        if self._known.era in {Era.MODERN, Era.BOTH}:
            return await modern.discover()
        async with timeout(self._clock, self._probe_timeout):
            return await modern.discover()

    def _converse_modern(self) -> ModernUpstream:
        modern = self._openings.modern()
        self._follow(modern)
        return modern

    async def _shake_hands(self, era: Era) -> Hello:
        """Raises `OpenFailed`; where the server did not understand, it is asked for its era again."""
        process = self._openings.process
        try:
            hello = await self._open_handshake()
        except Misunderstood:
            self._known.era = None
            raise
        except OpenFailed:
            if process is None or not process.has_ended_in_turn:
                raise
            hello = await self._open_handshake()  # it ended over a question that it did not know
        self._settle(era)
        return replace(hello, speaks_both=True, discovery=self._known.discovery) if era is Era.BOTH else hello

    async def _open_handshake(self) -> Hello:
        handshake = self._openings.handshake()
        self._follow(handshake)
        return await handshake.open()

    def _follow(self, conversation: Upstream) -> None:
        """Take up `conversation`, which has its link already, and drop the one before."""
        before, self._chosen = self._chosen, conversation
        if before is not None:
            before.terminate()

    def _settle(self, era: Era | None) -> None:
        self._known.era = era
        if self._openings.process is not None:
            self._openings.process.settle()

    @property
    def settled(self) -> Upstream:
        return self._upstream.settled

    def send(self, call: Call, exchange: Exchange) -> Sent:
        return self._upstream.send(call, exchange)

    def notify(self, method: str, params: Raw | None) -> None:
        self._upstream.notify(method, params)

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        self._upstream.reply(ask_id, reply)

    async def close(self) -> None:
        if self._chosen is not None:
            await self._chosen.close()

    def terminate(self) -> None:
        if self._chosen is not None:
            self._chosen.terminate()

    @property
    def _upstream(self) -> Upstream:
        if self._chosen is None:
            raise RuntimeError("the conversation is not open")
        return self._chosen


class ProcessInTurns:
    """A stdio server that two conversations may try one after the other; the last one given a turn has it.

    Until `settle`, the end of the process fails what was asked, and is no loss of a session.
    """

    def __init__(self, new_link: Callable[[], Link]) -> None:
        self._new_link = new_link
        self._link: Link | None = None
        self._turn: _Turn | None = None
        self.is_settled = False
        self._lost: Fault | None = None
        self._turns = 0

    @property
    def has_ended_in_turn(self) -> bool:
        """Whether the process ended although, or because, it had been asked something else before."""
        return self._lost is not None and self._turns > 1

    def turn(self) -> Link:
        """The process for the next conversation: a new one where there is none, or it has ended."""
        if self._link is None or self._lost is not None or self._turn is None or not self._turn.is_started:
            if self._link is not None:
                self._link.terminate()
            self._link, self._lost, self._turns = self._new_link(), None, 0
            self._turn = _Turn(self, self._link, is_first=True)
        else:
            self._turn = _Turn(self, self._link, is_first=False)
        self._turns += 1
        return self._turn

    def renew(self) -> None:
        """End the process, so that the next turn begins another."""
        if self._link is not None:
            self._link.terminate()
        self._link = None

    def settle(self) -> None:
        """The conversation whose turn it is stays."""
        self.is_settled = True
        if self._lost is not None and self._turn is not None:
            self._turn.receiver.lost(self._lost)

    def has_turn(self, turn: _Turn) -> bool:
        """Whether nobody came after `turn`."""
        return turn is self._turn

    # What the link reports, as `Receiver`.

    def received(self, message: bytes, request_id: int | None, envelope: ServerMessage | None = None) -> None:
        if self._turn is not None:
            self._turn.receiver.received(message, request_id, envelope)

    def failed(self, request_id: int, fault: Fault) -> None:
        if self._turn is not None:
            self._turn.receiver.failed(request_id, fault)

    def suspended(self, request_id: int) -> None: ...

    def push_stream(self, is_up: bool) -> None:
        if self._turn is not None:
            self._turn.receiver.push_stream(is_up)

    def suspected(self, fault: Fault) -> None: ...

    def lost(self, fault: Fault) -> None:
        self._lost = fault
        turn = self._turn
        if turn is None:
            return
        if self.is_settled:
            turn.receiver.lost(fault)
            return
        for request_id in turn.asked:
            turn.receiver.failed(request_id, fault)


class _Turn:
    """The process as a `Link` for one conversation; nothing that it does counts once its turn is over."""

    def __init__(self, process: ProcessInTurns, link: Link, *, is_first: bool) -> None:
        self.receiver: Receiver
        self.is_started = False
        self.asked: list[int] = []
        """The requests of the opening."""
        self._process = process
        self._link = link
        self._is_first = is_first

    @property
    def is_stateless(self) -> bool:
        return self._link.is_stateless

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver
        if self._is_first:
            await self._link.start(self._process)
        self.is_started = True

    def request(self, request_id: int, message: bytes) -> Sent:
        if not self._process.is_settled:
            self.asked.append(request_id)
        return self._link.request(request_id, message)

    def answered_elsewhere(self, request_id: int) -> None:
        self._link.answered_elsewhere(request_id)

    def post(self, message: bytes) -> None:
        if self._process.has_turn(self):
            self._link.post(message)

    def established(self, protocol_version: str) -> None:
        self._link.established(protocol_version)

    async def close(self) -> None:
        if self._process.has_turn(self):
            await self._link.close()

    def terminate(self) -> None:
        if self._process.has_turn(self):
            self._link.terminate()
