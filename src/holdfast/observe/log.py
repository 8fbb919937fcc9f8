"""Events as log lines for people."""

from __future__ import annotations

import logging

from holdfast import events

logger = logging.getLogger("holdfast")

HOW_TO_NAME_A_CHAT = (
    "a call named no chat, so it runs in a private session that ends with it. To keep state between calls:"
    " (1) let the client initialize and send its Mcp-Session-Id,"
    " or (2) name the chat in a header and start with --trust chat=HEADER,"
    " or (3) keep one session per user with --scope user"
)


def log_event(event: events.Event) -> None:
    """Write one line for `event`, at the level that fits it."""
    match event:
        case events.SessionOpening(server, session):
            logger.debug("%s: session %s opens", server, session)
        case events.SessionReady(server, session, seconds, is_reopened):
            level = logging.INFO if is_reopened else logging.DEBUG
            word = "restored" if is_reopened else "ready"
            logger.log(level, "%s: session %s %s in %.0f ms", server, session, word, seconds * 1000)
        case events.SessionFailed(server, session, reason):
            logger.warning("%s: session %s could not be opened: %s", server, session, reason)
        case events.SessionLost(server, session, reason, was_dirty):
            consequence = "; what it remembered is gone, and its next call is told so" if was_dirty else ""
            logger.warning("%s: session %s was lost: %s%s", server, session, reason, consequence)
        case events.SessionClosed(server, session, reason):
            logger.debug("%s: session %s closed: %s", server, session, reason)
        case events.ListsLearned(server, tools):
            logger.debug("%s: lists learned, %d tools", server, tools)
        case events.CallUnnamed(server, _):
            logger.warning("%s: %s", server, HOW_TO_NAME_A_CHAT)
        case events.CallRepeated(server, method, why):
            logger.info("%s: %s is sent again: %s", server, method, why)
