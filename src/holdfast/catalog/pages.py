"""The pages of a list: how they are fetched, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from msgspec import Raw

from holdfast.call import Page, Result, RpcError
from holdfast.clock import Clock, timeout
from holdfast.session.retry import Safety
from holdfast.session.session import Session
from holdfast.upstream.transport import Fault, FaultKind
from holdfast.wire import jsonrpc

MAX_PAGES: Final = 1000
MAX_LIST_BYTES: Final = 64 * 1024 * 1024

Pages: TypeAlias = dict[str | None, Result]
"""By the cursor that leads to each; None leads to the first."""


async def fetch(session: Session, method: str, clock: Clock, patience: float) -> Pages | RpcError | Fault:
    """All pages of a list, or what hindered it; each may take `patience` seconds."""
    pages: Pages = {}
    cursor: str | None = None
    size = 0
    while cursor not in pages and len(pages) < MAX_PAGES:
        outcome = await _ask(session, method, cursor, clock, patience)
        if not isinstance(outcome, Result):
            return outcome
        copy = outcome.copied()
        pages[cursor] = page = Result(copy.raw, copy.modern, page=Page())
        size += len(page.raw) + (0 if page.modern is None else len(page.modern))
        if size > MAX_LIST_BYTES:
            return Fault(FaultKind.INVALID, f"{method} is larger than {MAX_LIST_BYTES} bytes")
        following = jsonrpc.decode_value(jsonrpc.decode_fields(outcome.raw).get("nextCursor", b"null"))
        if not isinstance(following, str):
            break
        cursor = following
    return pages


async def _ask(
    session: Session, method: str, cursor: str | None, clock: Clock, patience: float
) -> Result | RpcError | Fault:
    try:
        async with timeout(clock, patience):
            return await session.request(method, {} if cursor is None else {"cursor": cursor})
    except TimeoutError:
        return Fault(FaultKind.TIMEOUT, f"no answer to {method}")


def texts(pages: Mapping[str | None, Result]) -> list[bytes]:
    """What all pages say, to be compared."""
    return [bytes(page.raw) for page in pages.values()]


def length(page: Raw, name: str) -> int:
    """How many items of that name a page lists."""
    items = jsonrpc.decode_value(jsonrpc.decode_fields(page).get(name, b"[]"))
    return len(items) if isinstance(items, list) else 0


def hints(page: Raw) -> list[tuple[str, Safety]]:
    """What a trusted server says of its tools."""
    tools = jsonrpc.decode_value(jsonrpc.decode_fields(page).get("tools", b"[]"))
    hints: list[tuple[str, Safety]] = []
    for tool in tools if isinstance(tools, list) else []:
        annotations = tool.get("annotations") if isinstance(tool, dict) else None
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not isinstance(annotations, dict):
            continue
        if annotations.get("readOnlyHint") is True:
            hints.append((name, Safety.READ_ONLY_TOOL))
        elif annotations.get("idempotentHint") is True:
            hints.append((name, Safety.IDEMPOTENT_TOOL))
    return hints
