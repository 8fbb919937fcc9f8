"""What is said on a session before its first call, and to find out whether it still lives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random
from typing import Final

from holdfast.call import Result, RpcError
from holdfast.clock import Clock, timeout
from holdfast.errors import OpenFailed
from holdfast.session.session import Session
from holdfast.session.watch import Watcher
from holdfast.upstream.transport import Fault, FaultKind, Hello

logger = logging.getLogger("holdfast.session")

PING_TIMEOUT: Final = 5.0
REPLAY_TIMEOUT: Final = 5.0
JITTER: Final = 0.1
"""Seconds: repetitions and reopenings are spread over this, so that they do not come as a herd."""


async def shake_hands(session: Session, clock: Clock, limit: float) -> Hello:
    """Open the conversation of `session` within `limit` seconds. Raises `OpenFailed`."""
    try:
        async with timeout(clock, limit):
            return await session.upstream.open()
    except TimeoutError:
        raise OpenFailed(f"no answer to initialize within {limit:g} s") from None


async def replay(session: Session, watchers: Sequence[Watcher], clock: Clock) -> None:
    """Set up what `watchers` had asked for; what the server refuses is logged, not fatal.

    Raises `OpenFailed` where the session died meanwhile.
    """
    wishes: list[tuple[str, str, str]] = []
    for watcher in watchers:
        session.attach(watcher)
        wishes += [("resources/subscribe", "uri", uri) for uri in sorted(watcher.subscriptions)]
    level = session.wanted_level
    if level is not None and session.hello is not None and "logging" in session.hello.capabilities:
        wishes.insert(0, ("logging/setLevel", "level", level))
    try:
        async with timeout(clock, REPLAY_TIMEOUT):
            for method, name, value in dict.fromkeys(wishes):
                if not isinstance(await session.request(method, {name: value}), Result):
                    logger.warning("%s: %s %s could not be set up again", session.id, method, value)
                elif name == "level":
                    session.level = value
                else:
                    session.subscriptions.add(value)
    except TimeoutError:
        logger.warning("%s: no answer while it was set up again", session.id)
    if session.died_of is not None:
        raise OpenFailed(session.died_of)


async def is_alive(session: Session, clock: Clock, rng: Random) -> bool:
    """Whether the server still knows the session: it answers a `ping` under the same id.

    A server that cannot be reached is asked twice and then taken for one that forgot.
    """
    for _ in range(2):
        try:
            async with timeout(clock, PING_TIMEOUT):
                outcome: Result | RpcError | Fault = await session.request("ping")
        except TimeoutError:
            outcome = Fault(FaultKind.TIMEOUT, "no answer to ping")
        if not isinstance(outcome, Fault):
            return session.is_open
        if outcome.kind in {FaultKind.REFUSED, FaultKind.GONE}:
            return False
        await clock.sleep(rng.uniform(0, JITTER))
    return False
