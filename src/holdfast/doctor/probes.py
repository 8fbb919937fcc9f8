"""What any session can be asked, whatever carries it: each probe asks one thing and returns what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from msgspec import Raw

from holdfast.clock import Clock
from holdfast.doctor.conversation import Conversation
from holdfast.doctor.findings import Handshake, Lists, Modern, Pace, Parallel, Ping, Reconnect, ToolCall
from holdfast.doctor.named import Named
from holdfast.doctor.reply import Reply, short
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import MODERN, SERVER_INFO_KEY

AT_ONCE: Final = 3
TOOL_TIMEOUT: Final = 30.0
"""For one call of a tool: some start a browser first."""
_TELLING: Final = 0.1
"""Seconds that one request must take for three at once to tell how they are run."""
_SIDE_BY_SIDE: Final = 1.8
_IN_TURN: Final = 2.4
"""Three at once against one alone: below the first they ran together, above the second in turn."""
_MAX_PAGES: Final = 50
_ALIVE: Final = frozenset({"result", "error"})
"""The forms of an answer to a request."""
_LISTS: Final = ("tools", "resources", "prompts")
_TOKEN: Final = "holdfast-doctor-"  # noqa: S105 (a progress token)


def read_handshake(reply: Reply, *, is_open: bool) -> Handshake:
    """What the answer to `initialize` says."""
    fields = {} if reply.result is None else jsonrpc.decode_fields(reply.result)
    version = jsonrpc.decode_value(fields.get("protocolVersion", b"null"))
    answer = reply.answer
    if not is_open and reply.is_served:
        what = f"it answers with revision {short(str(version))}" if isinstance(version, str) else "the result names no"
        answer = Reply(kind="result", status=reply.status, words=f"{what} revision").answer
    capabilities = jsonrpc.decode_fields(fields.get("capabilities", b"{}"))
    changes = {name: jsonrpc.decode_fields(value).get("listChanged") for name, value in capabilities.items()}
    return Handshake(
        seconds=reply.seconds,
        answer=answer,
        revision=version if is_open and isinstance(version, str) else None,
        server=_server_of(fields.get("serverInfo", Raw(b"{}"))),
        has_id=reply.session_id is not None,
        capabilities=tuple(capabilities),
        announces=tuple(name for name, flag in changes.items() if flag is not None and bytes(flag) == b"true"),
    )


def read_discovery(reply: Reply) -> Modern:
    """What the answer to `server/discover` says."""
    fields = {} if reply.result is None else jsonrpc.decode_fields(reply.result)
    named = jsonrpc.decode_value(fields.get("supportedVersions", b"null"))
    revisions = tuple(item for item in named if isinstance(item, str)) if isinstance(named, list) else ()
    about = jsonrpc.decode_fields(fields.get("_meta", b"{}")).get(SERVER_INFO_KEY, fields.get("serverInfo"))
    return Modern(
        seconds=reply.seconds,
        answer=reply.answer,
        is_spoken=MODERN in revisions,
        server=_server_of(about if about is not None else Raw(b"{}")),
        revisions=revisions,
        opens_session=reply.session_id is not None,
    )


def _server_of(about: Raw) -> str:
    info = jsonrpc.decode_value(about)
    words = [info.get("title") or info.get("name"), info.get("version")] if isinstance(info, dict) else []
    return short(" ".join(word for word in words if isinstance(word, str)))


async def ping(session: Conversation) -> Ping:
    """Whether the session answers `ping`."""
    reply = await session.ask("ping")
    return Ping(seconds=reply.seconds, answer=reply.answer)


async def lists(session: Conversation, capabilities: Sequence[str]) -> Lists:
    """What the server lists, over all pages. Nothing is listed of what it did not declare, but for tools."""
    begun = await session.ask("tools/list", {})
    tools, seconds = await _rest(session, "tools", begun)
    counts: dict[str, int | None] = {}
    for name in _LISTS[1:]:
        if name in capabilities:
            first = await session.ask(f"{name}/list", {})
            items, _ = await _rest(session, name, first)
            counts[name] = len(items) if first.is_served else None
    declared = [(_name(tool), _is_read_only(tool)) for tool in tools]
    return Lists(
        seconds=seconds,
        answer=begun.answer,
        tools=tuple(name for name, _ in declared),
        read_only=tuple(name for name, is_read_only in declared if is_read_only),
        resources=counts.get("resources"),
        prompts=counts.get("prompts"),
    )


async def _rest(session: Conversation, name: str, first: Reply) -> tuple[list[Raw], float]:
    items: list[Raw] = []
    reply, seconds = first, first.seconds
    for _ in range(_MAX_PAGES):
        fields = {} if reply.result is None else jsonrpc.decode_fields(reply.result)
        items += jsonrpc.decode_items(fields.get(name, b"[]"))
        cursor = jsonrpc.decode_value(fields.get("nextCursor", b"null"))
        if not isinstance(cursor, str):
            break
        reply = await session.ask(f"{name}/list", {"cursor": cursor})
        seconds += reply.seconds
    return items, seconds


def _name(tool: Raw) -> str:
    name = jsonrpc.decode_value(jsonrpc.decode_fields(tool).get("name", b"null"))
    return name if isinstance(name, str) else "?"


def _is_read_only(tool: Raw) -> bool:
    annotations = jsonrpc.decode_fields(jsonrpc.decode_fields(tool).get("annotations", b"{}"))
    return bytes(annotations.get("readOnlyHint", b"false")) == b"true"


async def parallel(session: Conversation, clock: Clock, named: Named | None) -> tuple[Parallel, tuple[Reply, ...]]:
    """Several requests of the session at once: the list of tools, or the tool that was named for it."""
    what = "tools/list" if named is None else named.tool
    alone, _ = await _ask_for(session, named, "alone")
    begun = clock.now()
    replies = await _at_once(session, named) if alone.kind in _ALIVE else []
    together = clock.now() - begun
    answered = sum(reply.kind in {"result", "error"} for reply in replies)
    return (
        Parallel(
            seconds=together,
            request=what,
            sent=len(replies),
            answered=answered,
            alone_seconds=alone.seconds,
            pace=pace(alone.seconds, together) if answered == len(replies) else "unknown",
        ),
        (alone, *replies),
    )


def pace(alone: float, together: float) -> Pace:
    """How three requests were run that took `together`, where one takes `alone`."""
    if alone < _TELLING:
        return "unknown"
    ratio = together / alone
    return "side by side" if ratio < _SIDE_BY_SIDE else "one after the other" if ratio > _IN_TURN else "unknown"


async def _at_once(session: Conversation, named: Named | None) -> list[Reply]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask_for(session, named, str(number))) for number in range(AT_ONCE)]
    return [task.result()[0] for task in tasks]


async def _ask_for(session: Conversation, named: Named | None, token: str) -> tuple[Reply, str]:
    whole = f"{_TOKEN}{token}"
    if named is None:
        return await session.ask("tools/list", {}), whole
    return await session.ask("tools/call", named.params(whole), within=TOOL_TIMEOUT), whole


def call(named: Named, replies: Sequence[Reply], *, has_streams: bool) -> ToolCall:
    """What the calls of `parallel` say of the tool: the first alone, the others at once.

    `has_streams`: each has a stream of its own, on which nothing of the others belongs.
    """
    alone, *others = replies
    strayed = sum(token != f"{_TOKEN}{number}" for number, reply in enumerate(others) for token in reply.tokens)
    return ToolCall(
        seconds=alone.seconds,
        tool=named.tool,
        answer=replace(alone.answer, words=said(alone)) if has_failed(alone) else alone.answer,
        has_failed=has_failed(alone),
        progress=len(alone.tokens),
        strayed=strayed if has_streams and any(reply.tokens for reply in others) else None,
    )


def has_failed(reply: Reply) -> bool:
    """The tool said so, or there is no result."""
    fields = {} if reply.result is None else jsonrpc.decode_fields(reply.result)
    return not reply.is_served or bytes(fields.get("isError", b"false")) == b"true"


def said(reply: Reply) -> str:
    """What an error or a tool that failed says, in its first words."""
    for block in jsonrpc.decode_items(text_of(reply).get("content", b"[]")):
        text = jsonrpc.decode_value(jsonrpc.decode_fields(block).get("text", b"null"))
        if isinstance(text, str):
            return short(text)
    return reply.words


async def reconnect(session: Conversation) -> Reconnect | None:
    """Whether the session is there for a new connection; None where the two are one."""
    if not await session.reconnect():
        return None
    reply = await session.ask("ping")
    return Reconnect(seconds=reply.seconds, answer=reply.answer, is_kept=reply.kind in _ALIVE and not is_lost(reply))


def is_lost(reply: Reply) -> bool:
    """Whether the answer refuses the session, as far as its status tells: servers agree on 400 and 404."""
    return reply.kind == "nothing" or (reply.status is not None and reply.status >= 400)


def text_of(reply: Reply) -> dict[str, bytes]:
    """What a tool's result says, without what is only about it."""
    fields = {} if reply.result is None else jsonrpc.decode_fields(reply.result)
    return {name: bytes(fields[name]) for name in ("content", "structuredContent", "isError") if name in fields}
