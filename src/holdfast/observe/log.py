"""Events as log lines for people."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec.structs import replace

from holdfast import events
from holdfast.observe.counts import METHODS, OTHER
from holdfast.observe.fields import bounded

logger = logging.getLogger("holdfast")

HOW_TO_NAME_A_CHAT: Final = (
    "a call named no chat, so it runs in a private session that ends with it. To keep state between calls,\n"
    "(1) let the client initialize and send its Mcp-Session-Id, or\n"
    "(2) name the chat in _meta (dev.holdfast/chat), in the path (/mcp/NAME/chats/CHAT) or in a header that "
    "the client is trusted with (trust, --trust chat=HEADER), or\n"
    "(3) keep one session per user (scope: user, --scope user), or\n"
    "(4) let the model open sessions and name them in its calls (handles: true, --handles)."
)

HOW_TO_NAME_A_USER: Final = (
    "a call named no user, although its client is trusted to name them (--trust), so it runs in a private session\n"
    "that ends with it. Let the client send the header that names the user with every request, or trust it to name\n"
    "chats only (--trust chat=HEADER)."
)

_CONSEQUENCE: Final = "; what it remembered is gone, and its next call is told so"

FLOOD: Final = 10.0
"""Seconds in which the same kind of line is written once."""

_EXPECTED: Final = frozenset({"result", "error", "cancelled", "overloaded"})
"""Outcomes of calls that are no news to the operator; of an overload, `CallRefused` has said more."""

_AtServer: TypeAlias = (
    events.CallEnded
    | events.CallFailed
    | events.CallRefused
    | events.SessionIdMisused
    | events.RequestStateMisused
    | events.SessionLost
)

_CONTROLS: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class EventLog:
    """Writes one line per event, at the level that fits it; what stays as it is, is said once.

    Each record bears its event as `event`, for logs that are read by programs.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._floods: dict[tuple[str, str], tuple[float, int]] = {}
        self._failing: dict[str, str] = {}
        """Why each server that cannot be reached was not, the last time that this was said."""
        self._left_alone: set[str] = set()
        """The servers of which that was said."""
        self._tools: dict[str, int] = {}
        """How many tools each server had, the last time that this was said."""

    def take(self, event: events.Event) -> None:
        """Write the lines for `event`."""
        kind = type(event)
        is_common = kind is events.RequestEnded or (isinstance(event, events.CallEnded) and event.outcome in _EXPECTED)
        if not is_common or logger.isEnabledFor(logging.DEBUG):  # with every call, so that it must cost nothing
            self._take(bounded(event))

    def _take(self, event: events.Event) -> None:
        match event:
            case (
                events.SessionOpening()
                | events.SessionReady()
                | events.SessionFailed()
                | events.SessionLost()
                | events.SessionClosed()
            ):
                self._take_session(event)
            case (
                events.CallUnnamed()
                | events.CallRepeated()
                | events.CallFailed()
                | events.CallRefused()
                | events.CallEnded()
            ):
                self._take_call(event)
            case events.RequestEnded(route, method, status):
                _say(logging.DEBUG, event, f"{method} of {route} was answered with {status}")
            case events.RequestDenied():
                _denied(event)
            case events.ListsLearned(server, tools):
                self._learned(event, server, tools)
            case events.SessionIdMisused(_, client, owner):
                words = (
                    f"client {client} named a session of {_whose(client, owner)}, and was refused as if there were none"
                )
                self._say_once(logging.WARNING, event, "session id misused", words)
            case events.RequestStateMisused(_, client, owner):
                words = f"client {client} came with the state of a call of {_whose(client, owner)}, and was refused"
                self._say_once(logging.WARNING, event, "request state misused", words)
            case _:
                self._take_change(event)

    def _take_session(
        self,
        event: events.SessionOpening
        | events.SessionReady
        | events.SessionFailed
        | events.SessionLost
        | events.SessionClosed,
    ) -> None:
        about = f"{event.server}: session {event.session}"
        match event:
            case events.SessionOpening():
                _say(logging.DEBUG, event, f"{about} opens")
            case events.SessionReady(server, _, seconds, is_reopened):
                was_failing = self._failing.pop(server, None) is not None
                level = logging.INFO if is_reopened or was_failing else logging.DEBUG
                _say(level, event, f"{about} {'restored' if is_reopened else 'ready'} in {duration(seconds)}")
            case events.SessionFailed(server, _, reason, advice):
                level = logging.DEBUG if self._failing.get(server) == reason else logging.WARNING
                self._failing[server] = reason
                _say(level, event, f"{about} could not be opened: {advised(reason, advice)}")
            case events.SessionLost(_, session, reason, was_dirty):
                lost = f"session {session} was lost: {reason}{_CONSEQUENCE if was_dirty else ''}"
                self._say_once(logging.WARNING, event, "session lost", lost)
            case events.SessionClosed(_, _, reason, was_dirty):
                level, consequence = (logging.INFO, _CONSEQUENCE) if was_dirty else (logging.DEBUG, "")
                _say(level, event, f"{about} closed: {reason}{consequence}")

    def _take_call(
        self,
        event: events.CallUnnamed | events.CallRepeated | events.CallFailed | events.CallRefused | events.CallEnded,
    ) -> None:
        match event:
            case events.CallUnnamed(server, _, lacks):
                hint = HOW_TO_NAME_A_CHAT if lacks == "chat" else HOW_TO_NAME_A_USER
                _say(logging.WARNING, event, f"{server}: {hint}{_request(event)}")
            case events.CallRepeated(server, method, why):
                _say(logging.INFO, event, f"{server}: {method} is sent again: {why}{_request(event)}")
            case events.CallFailed(_, method, reason):
                self._say_once(logging.WARNING, event, f"{_known(method)} failed", f"{method} failed: {reason}")
            case events.CallRefused(_, reason):
                self._say_once(logging.WARNING, event, "calls are refused", f"calls are refused: {reason}")
            case events.CallEnded(server, method, outcome, seconds):
                words = f"{method} ended with {outcome} after {duration(seconds)}"
                if outcome in _EXPECTED:
                    _say(logging.DEBUG, event, f"{server}: {words}{_request(event)}")
                else:
                    self._say_once(logging.INFO, event, f"{_known(method)} {outcome}", words)

    def knows(self, event: events.ListsLearned) -> None:
        """Note what was said elsewhere already, so that only changes are said here."""
        self._tools[event.server] = event.tools

    def _learned(self, event: events.ListsLearned, server: str, tools: int) -> None:
        before = self._tools.get(server)
        self._tools[server] = tools
        level = logging.DEBUG if before == tools else logging.INFO
        _say(level, event, f"{server}: {'ready, ' if before is None else 'now '}{count(tools)}")

    def _take_change(
        self,
        event: events.CircuitOpened
        | events.CircuitClosed
        | events.ServerAdded
        | events.ServerRemoved
        | events.SettingsReloaded
        | events.SettingsRefused,
    ) -> None:
        match event:
            case events.CircuitOpened(server, reason, seconds):
                level = logging.DEBUG if server in self._left_alone else logging.WARNING
                self._left_alone.add(server)
                words = f"it failed so often that it is left alone for {seconds:.3g} s, and longer if it goes on"
                _say(level, event, f"{server}: {words}: {reason}")
            case events.CircuitClosed(server):
                self._left_alone.discard(server)
                _say(logging.INFO, event, f"{server}: it answers again, and is called again")
            case events.ServerAdded(server):
                _say(logging.INFO, event, f"{server}: added")
            case events.ServerRemoved(server):
                self._forget(server)
                _say(logging.INFO, event, f"{server}: removed")
            case events.SettingsReloaded():
                _say(logging.INFO, event, f"new settings are in force: {_differences(event)}")
                for note in event.notes:
                    _say(logging.WARNING, event, note)
            case events.SettingsRefused(reason):
                _say(logging.ERROR, event, "the new settings have mistakes; those before stay in force")
                for line in reason.splitlines():
                    _say(logging.ERROR, replace(event, reason=line), line)

    def _forget(self, server: str) -> None:
        self._failing.pop(server, None)
        self._left_alone.discard(server)
        self._tools.pop(server, None)
        self._floods = {key: flood for key, flood in self._floods.items() if key[0] != server}

    def _say_once(self, level: int, event: _AtServer, kind: str, words: str) -> None:
        """Say what may come hundreds of times at once: the first, and how many followed before the next."""
        now = self._now()
        since, more = self._floods.get((event.server, kind), (float("-inf"), 0))
        sentence = f"{event.server}: {words}"
        if now - since < FLOOD:
            self._floods[event.server, kind] = (since, more + 1)
            _say(logging.DEBUG, event, f"{sentence}{_request(event)}")
            return
        self._floods[event.server, kind] = (now, 0)
        _say(level, event, f"{sentence}{_more(more)}{_request(event)}")


def _denied(event: events.RequestDenied) -> None:
    level = logging.INFO if event.kind is events.Denial.NO_KEY else logging.WARNING  # who asks how to come in has none
    who = f"a request from {event.address}" if event.address else "a request"
    words = f"{who} was refused ({event.status}): {event.reason.removesuffix('.')}"
    _say(level, event, f"{words}{_more(event.more)}{_request(event)}")


def _more(count: int) -> str:
    return f" (and {count} more since the last such line)" if count else ""


def _say(level: int, event: events.Event, sentence: str) -> None:
    logger.log(level, "%s", sentence, extra={"event": event})


def _whose(client: str, owner: str) -> str:
    """Somebody who is not the caller, in words."""
    return "another user" if client == owner else owner


def _known(method: str) -> str:
    """`method`, or one word for all that clients make up: what is kept for each kind of line must not grow."""
    return method if method in METHODS else OTHER


def _request(event: events.Event) -> str:
    """Which HTTP request brought the call, where that is known."""
    request = getattr(event, "request", "")
    return f" (request {request})" if request else ""


def _differences(event: events.SettingsReloaded) -> str:
    """Which servers came, differ, and went, and which clients did."""
    servers = (("added", event.added), ("changed", event.changed), ("removed", event.removed))
    named = [f"{word} {', '.join(names)}" for word, names in servers if names] or ["no server differs"]
    return "; ".join([*named, *([f"clients that differ: {', '.join(event.clients)}"] if event.clients else [])])


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
