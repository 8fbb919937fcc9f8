"""What only HTTP can be asked: ids, streams, and whom the server lets in."""

from __future__ import annotations

import uuid
from typing import Final

from holdfast.doctor.findings import Allowance, Ending, PushStream, Refusal, Resumption, UnknownId
from holdfast.doctor.http import HttpConversation, HttpOpener, Session, Wire
from holdfast.doctor.reply import Reply
from holdfast.wire.headers import is_loopback_name
from holdfast.wire.revisions import LATEST

FOREIGN: Final = "holdfast-doctor.invalid"
"""A host that cannot exist."""


def is_refusal(reply: Reply) -> bool:
    """The server refused what was asked; being told to slow down is something else."""
    return not reply.is_served and reply.kind != "nothing" and reply.status != 429


async def missing_id(opener: HttpOpener) -> Refusal:
    """A list asked for outside of any session."""
    reply = await opener.without_id()
    return Refusal(seconds=reply.seconds, answer=reply.answer, is_refused=is_refusal(reply))


async def unknown_id(wire: Wire) -> UnknownId:
    """A list and a ping under an id that the server never gave."""
    stranger = Session(wire, None, LATEST)
    stranger.headers["mcp-session-id"] = str(uuid.uuid4())
    reply = await stranger.ask("tools/list", {})
    ping = await stranger.ask("ping")
    return UnknownId(
        seconds=reply.seconds,
        answer=reply.answer,
        ping=ping.answer,
        is_refused=is_refusal(reply) and is_refusal(ping),
    )


async def push_stream(session: Session) -> PushStream:
    """GET, with what came instead of a stream."""
    reply = await session.stream()
    return PushStream(seconds=reply.seconds, answer=reply.answer, is_open=reply.kind == "stream")


async def resumption(session: Session) -> Resumption:
    """Whether events have ids, and whether one of them is a place to go on from."""
    first = await session.ask("ping")
    if first.event_id is None:
        return Resumption(seconds=first.seconds, has_event_ids=False, is_resumed=False)
    reply = await session.stream(first.event_id)
    return Resumption(seconds=reply.seconds, has_event_ids=True, is_resumed=reply.kind == "stream", answer=reply.answer)


async def foreign_origin(session: HttpConversation) -> Refusal:
    """A request as a page of some other site would have a browser send it."""
    return _refusal(await session.ask(_asking(session), {}, headers={"origin": f"https://{FOREIGN}"}))


async def foreign_host(session: HttpConversation, wire: Wire) -> Refusal | None:
    """A request to a name that is not the server's; only on this machine, where DNS rebinding leads to."""
    if not is_on_loopback(wire):
        return None
    return _refusal(await session.ask(_asking(session), {}, host=f"{FOREIGN}:{wire.client.port}"))


def is_on_loopback(wire: Wire) -> bool:
    """Whether the server is on this machine."""
    host = wire.client.host
    return is_loopback_name(f"[{host}]" if ":" in host else host) or host.startswith("127.")


async def end(session: Session) -> Ending:
    """DELETE the session, and ask whether it is there."""
    reply = await session.end()
    after = await session.ask("ping")
    is_gone = None if after.kind == "nothing" or after.status == 429 else not after.is_served
    return Ending(seconds=reply.seconds, answer=reply.answer, is_gone=is_gone)


def allowance(wire: Wire) -> Allowance | None:
    """What the server said of a limit on requests; None where it said nothing."""
    if not wire.limits:
        return Allowance(limit=0, left=0, is_exceeded=True) if wire.is_turned_away else None
    last = wire.limits[-1]
    return Allowance(limit=last.limit or 0, left=last.left or 0, is_exceeded=wire.is_turned_away)


def _asking(session: HttpConversation) -> str:
    return "ping" if isinstance(session, Session) else "tools/list"


def _refusal(reply: Reply) -> Refusal:
    return Refusal(seconds=reply.seconds, answer=reply.answer, is_refused=is_refusal(reply))
