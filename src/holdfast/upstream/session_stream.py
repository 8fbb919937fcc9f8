"""Whether a server that speaks 2026-07-28 over HTTP may know sessions as well, asked in a way that none can mind.

Its own `supportedVersions` do not tell: the official SDK's servers speak older revisions too, and name the new one
alone. An `initialize` would, but a server of 2026-07-28 alone may hold it against a client that has discovered it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from holdfast.upstream.http1 import HttpClient, HttpFault, header_block
from holdfast.wire.revisions import LATEST

_THERE_IS_NONE: Final = frozenset({404, 405, 501})
"""What 2026-07-28 wants to be answered to a GET, which it does not have."""


async def has_session_stream(http: HttpClient, target: str, headers: Mapping[str, str]) -> bool:
    """Whether the server has something at GET, where older revisions have a session's stream.

    True also where it cannot be found out. Bounded by the caller; whatever comes is dropped.
    """
    answer = _Status()
    asking = {**headers, "accept": "text/event-stream", "mcp-protocol-version": LATEST}
    exchange = http.request("GET", target, header_block(asking.items()), None, answer)
    try:
        return await answer.status not in _THERE_IS_NONE
    finally:
        exchange.abort()


class _Status:
    """A `ResponseSink` that cares for nothing but the status; 0 where none came."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def head(self, status: int, headers: Mapping[str, str]) -> None:  # noqa: ARG002 (the status says it)
        self._settle(status)

    def body(self, chunk: bytes) -> None: ...

    def end(self) -> None: ...

    def failed(self, fault: HttpFault) -> None:  # noqa: ARG002 (it will come again, and be told)
        self._settle(0)

    def _settle(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)
