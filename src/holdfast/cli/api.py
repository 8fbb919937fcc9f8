"""A gateway's API as the command line asks it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from holdfast.clock import Clock, timeout
from holdfast.config.settings import url_fault
from holdfast.errors import ConfigError
from holdfast.tasks import TaskScope
from holdfast.upstream.http1 import HttpClient, HttpFault, header_block
from holdfast.views import ServerView, SessionView

ANSWER_TIMEOUT: Final = 5.0
"""Seconds for one answer, connecting included."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


class ApiFailed(Exception):
    """The gateway did not answer as one does; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What `/api/servers` and `/api/sessions` answered, at one moment."""

    version: str
    status: str
    client_sessions: int
    servers: list[ServerView]
    total: int
    """Sessions in all, of which `sessions` are the busiest."""
    sessions: list[SessionView]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is, from what a person typed."""

    origin: str
    prefix: str
    """The path below which a reverse proxy serves it; empty or with a slash in front."""


def parse_address(url: str) -> Address:
    """The gateway at `url`, or that of the MCP endpoint `url`. Raises `ConfigError`."""
    if "://" not in url and re.fullmatch(r"[\w.\[\]:-]+", url):
        raise ConfigError(f"{url} is no URL; write http://{url}")
    fault = url_fault(url)
    if fault is not None:
        raise ConfigError(f"the gateway's URL {fault}")
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ConfigError("the gateway's URL has more than an address and a path")
    prefix = re.sub(r"/mcp(/.*)?$", "", parts.path).rstrip("/")
    return Address(f"{parts.scheme}://{parts.netloc}", prefix)


class ApiClient:
    """Asks one gateway; whoever made it calls `close`. Connecting runs in `scope`."""

    def __init__(self, address: Address, key: str | None, scope: TaskScope, clock: Clock) -> None:
        self._client = HttpClient(address.origin, scope, clock, connect_timeout=ANSWER_TIMEOUT)
        self._prefix = address.prefix
        self._has_key = key is not None
        self._headers = header_block([] if key is None else [("authorization", f"Bearer {key}")])
        self._clock = clock
        self.peer = self._client.peer
        """Its host and port, as people read them."""

    def close(self) -> None:
        """Drop all connections."""
        self._client.close()

    async def overview(self, limit: int) -> Overview:
        """How the gateway stands, with its `limit` busiest sessions. Raises `ApiFailed`."""
        try:
            return msgspec.convert(await self.fields(limit), Overview)
        except msgspec.ValidationError:
            raise self._stranger() from None

    async def fields(self, limit: int) -> dict[str, Any]:
        """As `overview`, as the gateway sent it: the fields of both answers as one object. Raises `ApiFailed`."""
        servers = await self._get("/api/servers")
        return {**servers, **await self._get(f"/api/sessions?limit={limit}")}

    async def _get(self, target: str) -> dict[str, Any]:
        answer = _Answer()
        exchange = self._client.request("GET", self._prefix + target, self._headers, None, answer)
        try:
            async with timeout(self._clock, ANSWER_TIMEOUT):
                fault = await answer.ended
        except TimeoutError:
            raise ApiFailed(f"{self.peer} gave no answer within {ANSWER_TIMEOUT:g} s") from None
        finally:
            exchange.abort()
        if fault is not None:
            if fault.is_malformed:
                raise self._stranger()
            raise ApiFailed(fault.detail if fault.is_sent else f"{fault.detail}; is a gateway running there?")
        return self._read(answer)

    def _read(self, answer: _Answer) -> dict[str, Any]:
        try:
            body: dict[str, Any] = msgspec.json.decode(answer.content, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise self._stranger(answer.status) from None
        if answer.status == 200:
            return body
        if answer.status == 401 and self._has_key:
            raise ApiFailed(f"{self.peer}: this is not the operator's key (operator_key in its settings)")
        if answer.status == 401:
            raise ApiFailed(f"{self.peer} wants the operator's key: give it with --key")
        match body:
            case {"error": {"message": str(message)}} if answer.status != 404:
                raise ApiFailed(f"{self.peer}: {message}")
            case _:
                raise self._stranger(answer.status)

    def _stranger(self, status: int = 200) -> ApiFailed:
        how = "" if status == 200 else f" (HTTP {status})"
        return ApiFailed(f"what answers at {self.peer} is no Holdfast gateway, or has no API{how}")


class _Answer:
    """One answer, collected; `ended` has the fault, if there was one."""

    def __init__(self) -> None:
        self.status = 0
        self.content = b""
        self.ended: asyncio.Future[HttpFault | None] = asyncio.get_running_loop().create_future()
        self._chunks: list[bytes] = []
        self._size = 0

    def head(self, status: int, headers: Mapping[str, str]) -> None:  # noqa: ARG002 (the body says what it is)
        self.status = status

    def body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_ANSWER_BYTES:
            self.failed(HttpFault(is_sent=True, has_answer=True, detail="the answer is too long", is_malformed=True))
        else:
            self._chunks.append(chunk)

    def end(self) -> None:
        self.content = b"".join(self._chunks)
        if not self.ended.done():
            self.ended.set_result(None)

    def failed(self, fault: HttpFault) -> None:
        if not self.ended.done():
            self.ended.set_result(fault)
