"""Events as log lines for people."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final

from holdfast import events

logger = logging.getLogger("holdfast")

HOW_TO_NAME_A_CHAT: Final = (
    "a call named no chat, so it runs in a private session that ends with it. To keep state between calls,\n"
    "(1) let the client initialize and send its Mcp-Session-Id, or\n"
    "(2) name the chat in a header and start with --trust chat=HEADER, or\n"
    "(3) keep one session per user with --scope user."
)

HOW_TO_NAME_A_USER: Final = (
    "a call named no user, although its client is trusted to name them (--trust), so it runs in a private session\n"
    "that ends with it. Let the client send the header that names the user with every request, or trust it to name\n"
    "chats only (--trust chat=HEADER)."
)

_CONSEQUENCE: Final = "; what it remembered is gone, and its next call is told so"

FLOOD: Final = 10.0
"""Seconds in which the same kind of line is written once."""

_CONTROLS: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class EventLog:
    """Writes one line per event, at the level that fits it; what stays as it is, is said once."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._floods: dict[tuple[str, str], tuple[float, int]] = {}
        self._failing: dict[str, str] = {}
        """Why each server that cannot be reached was not, the last time that this was said."""

    def take(self, event: events.Event) -> None:
        """Write a line for `event`."""
        match event:
            case events.SessionReady() | events.SessionFailed() | events.SessionLost():
                self._take_change(event)
            case events.SessionOpening(server, session):
                logger.debug("%s: session %s opens", server, session)
            case events.SessionClosed(server, session, reason, was_dirty):
                level, consequence = (logging.INFO, _CONSEQUENCE) if was_dirty else (logging.DEBUG, "")
                logger.log(level, "%s: session %s closed: %s%s", server, session, reason, consequence)
            case events.CallFailed(server, method, reason):
                self._warn_once(server, f"{method} failed", reason)
            case events.CallRefused(server, reason):
                self._warn_once(server, "calls are refused", reason)
            case events.ListsLearned(server, tools):
                logger.debug("%s: lists learned, %s", server, count(tools))
            case events.CallUnnamed(server, _, lacks):
                logger.warning("%s: %s", server, HOW_TO_NAME_A_CHAT if lacks == "chat" else HOW_TO_NAME_A_USER)
            case events.CallRepeated(server, method, why):
                logger.info("%s: %s is sent again: %s", server, method, why)

    def _take_change(self, event: events.SessionReady | events.SessionFailed | events.SessionLost) -> None:
        match event:
            case events.SessionReady(server, session, seconds, is_reopened):
                was_failing = self._failing.pop(server, None) is not None
                level = logging.INFO if is_reopened or was_failing else logging.DEBUG
                word = "restored" if is_reopened else "ready"
                logger.log(level, "%s: session %s %s in %s", server, session, word, duration(seconds))
            case events.SessionFailed(server, session, reason, advice):
                level = logging.DEBUG if self._failing.get(server) == reason else logging.WARNING
                self._failing[server] = reason
                logger.log(level, "%s: session %s could not be opened: %s", server, session, advised(reason, advice))
            case events.SessionLost(server, session, reason, was_dirty):
                consequence = _CONSEQUENCE if was_dirty else ""
                self._warn_once(server, "a session was lost", f"{session}: {reason}{consequence}")

    def _warn_once(self, server: str, what: str, why: str) -> None:
        """Warn of what may come hundreds of times at once: the first, and how many followed before the next."""
        now = self._now()
        since, more = self._floods.get((server, what), (float("-inf"), 0))
        if now - since < FLOOD:
            self._floods[server, what] = (since, more + 1)
            logger.debug("%s: %s: %s", server, what, why)
            return
        self._floods[server, what] = (now, 0)
        followed = f" (and {more} more since the last such line)" if more else ""
        logger.warning("%s: %s: %s%s", server, what, why, followed)


def advised(reason: str, advice: str) -> str:
    """A reason, and what to do about it where that is known."""
    return f"{reason} ({advice})" if advice else reason


def count(tools: int) -> str:
    """How many tools, in words."""
    return f"{tools} tool{'' if tools == 1 else 's'}"


def duration(seconds: float) -> str:
    """A duration as people read it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor or colour it: servers choose some of our words."""
    return _CONTROLS.sub(" ", text)


def one_line(text: str) -> str:
    """`text` as one line, so that no server can forge a line of the log."""
    return " ".join(printable(text).split())
