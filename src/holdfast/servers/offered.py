"""What callers see of explicit sessions in a list of tools: two tools more, and an argument more in the others."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from msgspec import Raw

from holdfast.call import Call, Json
from holdfast.config import CLOSER, OPENER, ServerSettings
from holdfast.servers.argument import names_like, with_argument
from holdfast.servers.gate import name_of
from holdfast.servers.handles import PREFIX
from holdfast.wire import jsonrpc

ARGUMENT: Final = "session"
MAX_TOOLS: Final = 10_000
"""Tools whose argument is remembered; the oldest are forgotten."""
_PAGES_KEPT: Final = 16
_OURS: Final = re.compile(rf"(holdfast_)?({OPENER}|{CLOSER}|{ARGUMENT})(_[0-9]+)?")
"""Whatever a tool or an argument of ours may be called."""

Public: TypeAlias = Callable[[str], str]
"""What a tool is called where the caller meets it."""


class OfferedTools:
    """The tools of one server as callers see them.

    What ours are called depends on what the server calls its own, of which every page tells more.
    They stand at the end of the last page, so that whoever lists them all sees the names that hold.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.opener, self.closer = OPENER, CLOSER
        """Our own, as the server might have named them."""
        self._arguments: dict[str, str | None] = {}
        """By the name of each tool of the server, what its argument is called; None where it takes none."""
        self._pages: deque[tuple[Raw, str, Raw]] = deque(maxlen=_PAGES_KEPT)
        """Pages that were shown lately, and with which opener: the catalogue answers with the same ones."""

    def reconfigure(self, settings: ServerSettings) -> None:
        """Go by other settings from now on."""
        self._settings = settings
        self._pages.clear()

    def shown(self, page: Raw, public: Public) -> Raw:
        """A `tools/list` result of the server with what is ours; the rest keeps its bytes."""
        for known, opener, shown in self._pages:
            if known is page and opener == public(self.opener):
                return shown
        tools = tools_of(page)
        self.learn(tools)
        opener = public(self.opener)
        offered = [_with_argument(tool, opener) for tool in tools]
        fields = jsonrpc.decode_fields(page)
        if jsonrpc.decode_value(fields.get("nextCursor", b"null")) is None:
            offered += [Raw(jsonrpc.encode(tool)) for tool in self._own(opener, public(self.closer))]
        shown = Raw(jsonrpc.encode({**fields, "tools": offered}))
        if self._settings.has_common_lists:
            self._pages.append((page, opener, shown))
        return shown

    def learn(self, tools: Sequence[Raw]) -> None:
        """Remember what the argument of each of these tools is called, and what that leaves for ours."""
        for tool in tools:
            name = name_of(tool)
            if isinstance(name, str):
                found = _extended(tool, OPENER)
                self._arguments.pop(name, None)
                self._arguments[name] = None if found is None else found[0]
        for oldest in list(islice(self._arguments, max(0, len(self._arguments) - MAX_TOOLS))):
            del self._arguments[oldest]
        pairs = zip(names_like(OPENER), names_like(CLOSER), strict=True)
        self.opener, self.closer = next(pair for pair in pairs if self._arguments.keys().isdisjoint(pair))

    def argument_of(self, tool: str | None, given: Mapping[str, Json]) -> str | None:
        """Which of the arguments that a tool is given names its session; of an unlisted tool, by its looks."""
        if tool is not None and tool in self._arguments:
            name = self._arguments[tool]
            return name if name in given else None
        looks_ours = (name for name, value in given.items() if isinstance(value, str) and value.startswith(PREFIX))
        return next((name for name in looks_ours if _OURS.fullmatch(name)), None)

    def _own(self, opener: str, closer: str) -> Iterator[dict[str, Any]]:
        handle = {"type": "string", "description": "The name of the session."}
        lifetime = _duration(self._settings.idle_timeout)
        yield {
            "name": self.opener,
            "title": "Open a session",
            "description": (
                "Opens a session, in which the other tools of this server keep their state, and returns its name,"
                f" `{ARGUMENT}`. Pass that as the argument `{ARGUMENT}` to every call that is to find what calls before"
                " it left there; without it, a call may find nothing of them. Sessions are apart from each other: open"
                f" several for work that must not mix. A session ends with {closer}, or after {lifetime} without a"
                " call."
            ),
            "inputSchema": {"type": "object", "additionalProperties": False},
            "outputSchema": {"type": "object", "properties": {ARGUMENT: handle}, "required": [ARGUMENT]},
            "annotations": {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": False},
        }
        yield {
            "name": self.closer,
            "title": "Close a session",
            "description": f"Closes a session that {opener} opened. What is kept in it is gone.",
            "inputSchema": {
                "type": "object",
                "properties": {ARGUMENT: handle},
                "required": [ARGUMENT],
                "additionalProperties": False,
            },
            "annotations": {"readOnlyHint": False, "destructiveHint": True, "openWorldHint": False},
        }


def may_concern_sessions(call: Call) -> bool:
    """Whether a call of tools, or its answer, may have to do with what is ours; most calls cannot."""
    if call.method == "tools/list" or (call.target is not None and _OURS.fullmatch(call.target)):
        return True
    arguments = call.params.get("arguments")
    return isinstance(arguments, dict) and any(map(_OURS.fullmatch, arguments))


def tools_of(page: Raw) -> list[Raw]:
    """The tools of a `tools/list` result."""
    return jsonrpc.decode_items(jsonrpc.decode_fields(page).get("tools", b"[]"))


def _with_argument(tool: Raw, opener: str) -> Raw:
    found = _extended(tool, opener)
    if found is None:
        return tool
    return Raw(jsonrpc.encode({**jsonrpc.decode_fields(tool), "inputSchema": found[1]}))


def _extended(tool: Raw, opener: str) -> tuple[str, Raw] | None:
    """What our argument of a tool is called, and the tool's input schema with it."""
    schema = jsonrpc.decode_fields(tool).get("inputSchema")
    if schema is None:
        return None
    text = f"The session to run in, as {opener} returned it. Without it, state may not outlast this call."
    return with_argument(schema, ARGUMENT, {"type": "string", "description": text})


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    count, unit = (minutes, "minute") if minutes and not rest else (seconds, "second")
    return f"{count:g} {unit}{'' if count == 1 else 's'}"
