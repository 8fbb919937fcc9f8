"""Servers behind a URL that may speak Streamable HTTP or only the transport before it: tried in this order.

The order is that of the specification, <https://modelcontextprotocol.io/specification/2025-11-25/basic/transports>,
"Backwards Compatibility".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Raw

from holdfast.call import AskId, Call, Reply
from holdfast.errors import OpenFailed
from holdfast.upstream.legacy_sse import LegacySseLink
from holdfast.upstream.streamable_http import StreamableHttpLink
from holdfast.upstream.transport import Exchange, Hello, Link, Sent, Upstream


@dataclass(slots=True)
class Habit:
    """What a server was found to speak; all its sessions share it."""

    is_legacy: bool = False


@dataclass(frozen=True, slots=True)
class Ways:
    """How one session can be connected."""

    streamable: Callable[[], StreamableHttpLink]
    legacy: Callable[[], LegacySseLink]
    converse: Callable[[Link], Upstream]


class FallbackUpstream:
    """An `Upstream` that opens in the way that is known to work, or finds it out.

    A server that is known to be of the older kind is asked in that way alone, until that fails.
    """

    def __init__(self, habit: Habit, ways: Ways) -> None:
        self._habit = habit
        self._ways = ways
        self._upstream: Upstream | None = None

    async def open(self) -> Hello:
        if self._habit.is_legacy:
            return await self._open_legacy(self._ways.legacy())
        link = self._ways.streamable()
        self._upstream = upstream = self._ways.converse(link)
        try:
            return await upstream.open()
        except OpenFailed as refusal:
            if not link.may_be_legacy:
                raise
            upstream.terminate()
            legacy = self._ways.legacy()
            try:
                return await self._open_legacy(legacy)
            except OpenFailed:
                if legacy.has_stream:
                    raise
                raise refusal from None  # it is no server of that kind either

    async def _open_legacy(self, link: LegacySseLink) -> Hello:
        self._upstream = upstream = self._ways.converse(link)
        try:
            hello = await upstream.open()
        except OpenFailed as failure:
            if not failure.is_unsent:
                self._habit.is_legacy = False
            raise
        self._habit.is_legacy = True
        return hello

    @property
    def settled(self) -> Upstream:
        return self._opened.settled

    def send(self, call: Call, exchange: Exchange) -> Sent:
        return self._opened.send(call, exchange)

    def notify(self, method: str, params: Raw | None) -> None:
        self._opened.notify(method, params)

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        self._opened.reply(ask_id, reply)

    async def close(self) -> None:
        if self._upstream is not None:
            await self._upstream.close()

    def terminate(self) -> None:
        if self._upstream is not None:
            self._upstream.terminate()

    @property
    def _opened(self) -> Upstream:
        if self._upstream is None:
            raise RuntimeError("the conversation was not opened")
        return self._upstream
