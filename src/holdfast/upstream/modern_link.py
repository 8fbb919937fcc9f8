"""What carries the messages of revision 2026-07-28: a POST for each request, or one process for all.

Unlike a `Link`, it tells the server itself that a request is cancelled: by closing its stream, or in words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from holdfast.clock import Clock
from holdfast.config import MAX_MESSAGE_BYTES
from holdfast.upstream.http1 import HttpClient, header_block
from holdfast.upstream.streamable_request import Request
from holdfast.upstream.streamable_session import HttpSession
from holdfast.upstream.transport import Link, Receiver, Sent
from holdfast.wire import jsonrpc


class ModernLink(Protocol):
    """Carries requests and what answers them; knows bytes and ids, not what they mean."""

    async def start(self, receiver: Receiver) -> None:
        """Get ready to send. Raises `OpenFailed`."""

    def request(self, request_id: int, message: bytes, headers: Iterable[tuple[str, str]]) -> Sent:
        """Send a request; `Receiver.failed` may be called before this returns. `Sent.cancel` tells the server."""
        ...

    def established(self, protocol_version: str) -> None:
        """The server is known now: what it writes about a failure is for the operator alone."""

    async def close(self) -> None:
        """As `Upstream.close`."""

    def terminate(self) -> None:
        """As `Upstream.terminate`."""


class ModernHttpLink:
    """A `ModernLink` over an `HttpClient` that all conversations with a server may share.

    `target` is the endpoint's path and query, `configured` the operator's headers; both are checked
    here, with `ValueError`. `jitter` returns 0 to 1.
    """

    def __init__(
        self,
        client: HttpClient,
        target: str,
        configured: Mapping[str, str],
        clock: Clock,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._session = HttpSession(
            client,
            target,
            configured,
            clock=clock,
            max_message_bytes=max_message_bytes,
            jitter=jitter,
            is_stateless=True,
        )
        self._is_over = False

    async def start(self, receiver: Receiver) -> None:
        self._session.receiver = receiver

    def request(self, request_id: int, message: bytes, headers: Iterable[tuple[str, str]]) -> Sent:
        request = Request(self._session, request_id, message, header_block(headers))
        if self._is_over:
            request.refuse("the conversation has ended")
        else:
            if self._session.first is None:
                self._session.first = request
            request.start()
        return request

    def established(self, protocol_version: str) -> None:
        del protocol_version  # goes with each request
        self._session.is_established = True

    async def close(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        self._is_over = True
        self._session.stop()


class ModernPipe:
    """A `ModernLink` over a process."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def start(self, receiver: Receiver) -> None:
        await self._link.start(receiver)

    def request(self, request_id: int, message: bytes, headers: Iterable[tuple[str, str]]) -> Sent:
        del headers  # they repeat what the message says
        self._link.request(request_id, message)
        return _Written(self._link, request_id)

    def established(self, protocol_version: str) -> None:
        self._link.established(protocol_version)

    async def close(self) -> None:
        await self._link.close()

    def terminate(self) -> None:
        self._link.terminate()


class _Written:
    """A request in a pipe: it cannot be paused without holding up every other."""

    __slots__ = ("_link", "_request_id")

    def __init__(self, link: Link, request_id: int) -> None:
        self._link = link
        self._request_id = request_id

    def cancel(self, reason: str) -> None:
        params = {"requestId": self._request_id, "reason": reason}
        self._link.post(jsonrpc.notification("notifications/cancelled", params))

    def pause(self) -> None: ...

    def resume(self) -> None: ...
