"""What is said on a session before its first call, and to find out whether it still lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum, auto
from functools import partial
from random import Random
from typing import Final, NamedTuple

from holdfast.call import Call, Result, RpcError
from holdfast.clock import Clock, timeout
from holdfast.errors import OpenFailed
from holdfast.session.session import Session
from holdfast.session.watch import Watcher
from holdfast.upstream.transport import Fault, FaultKind, Hello, Inquiry

logger = logging.getLogger("holdfast.session")

PING_TIMEOUT: Final = 5.0
REPLAY_TIMEOUT: Final = 5.0
JITTER: Final = 0.1
"""Seconds: repetitions and reopenings are spread over this, so that they do not come as a herd."""


class Wish(NamedTuple):
    """A request that sets something up on a session: its method and one parameter."""

    method: str
    name: str
    value: str


async def shake_hands(session: Session, clock: Clock, limit: float) -> Hello:
    """Open the conversation of `session` within `limit` seconds. Raises `OpenFailed`."""
    try:
        async with timeout(clock, limit):
            return await session.upstream.open()
    except TimeoutError:
        advice = "is it an MCP server? A slow one needs a longer open_timeout"
        raise OpenFailed(f"no answer to initialize within {limit:g} s", advice=advice) from None


async def replay(session: Session, watchers: Sequence[Watcher], clock: Clock) -> None:
    """Set up what `watchers` ask for; what the server refuses is logged, not fatal.

    Raises `OpenFailed` where the session died meanwhile.
    """
    tried: set[Wish] = set()
    try:
        async with timeout(clock, REPLAY_TIMEOUT):
            while wishes := [w for w in _wishes(session, watchers) if w not in tried]:  # more may come meanwhile
                for wish in wishes:
                    tried.add(wish)
                    _note(session, wish, await session.request(wish.method, {wish.name: wish.value}))
    except TimeoutError:
        logger.warning("%s: no answer while it was set up", session.id)
    if session.died_of is not None:
        raise OpenFailed(session.died_of)


def set_up(session: Session, watchers: Sequence[Watcher]) -> None:
    """As `replay` for an open session, without waiting: what is sent after it comes after it."""
    for wish in _wishes(session, watchers):
        inquiry = Inquiry(session.decline)
        inquiry.outcome.add_done_callback(partial(_noted, session, wish))
        session.upstream.send(Call(wish.method, {wish.name: wish.value}), inquiry)


def _wishes(session: Session, watchers: Sequence[Watcher]) -> list[Wish]:
    """What `watchers` ask for and the session does not have yet."""
    wishes: dict[Wish, None] = {}
    for watcher in watchers:
        session.attach(watcher)
    level = session.wanted_level
    offers_logging = session.hello is not None and "logging" in session.hello.capabilities
    if level is not None and level != session.level and offers_logging:
        wishes[Wish("logging/setLevel", "level", level)] = None
    for watcher in watchers:
        for uri in sorted(watcher.subscriptions_of(session.key) - session.subscriptions):
            wishes[Wish("resources/subscribe", "uri", uri)] = None
    return list(wishes)


def _noted(session: Session, wish: Wish, done: asyncio.Future[Result | RpcError | Fault]) -> None:
    _note(session, wish, done.result())


def _note(session: Session, wish: Wish, outcome: Result | RpcError | Fault) -> None:
    if not isinstance(outcome, Result):
        logger.warning("%s: a %s could not be set up again", session.id, wish.method)
    elif wish.name == "level":
        session.level = wish.value
    else:
        session.subscriptions.add(wish.value)


class Life(Enum):
    """What a `ping` under its id says of a session."""

    ALIVE = auto()
    FORGOTTEN = auto()
    """The server refused the id: what it refused before was not executed."""
    UNKNOWN = auto()
    """No answer: the session is given up, and nothing is known of what it was sent."""


async def ask_for_life(session: Session, clock: Clock, rng: Random) -> Life:
    """Ask the server whether it still knows the session; one that cannot be reached is asked twice."""
    for _ in range(2):
        try:
            async with timeout(clock, PING_TIMEOUT):
                outcome: Result | RpcError | Fault = await session.request("ping")
        except TimeoutError:
            outcome = Fault(FaultKind.TIMEOUT, "no answer to ping")
        if not isinstance(outcome, Fault):
            return Life.ALIVE if session.lives else Life.UNKNOWN
        if outcome.kind is FaultKind.REFUSED:
            return Life.FORGOTTEN
        if outcome.kind is FaultKind.GONE:
            return Life.UNKNOWN
        await clock.sleep(rng.uniform(0, JITTER))
    return Life.UNKNOWN
