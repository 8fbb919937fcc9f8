"""Which tools a client may see and call: one rule for the list and for the call."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Raw

from holdfast.call import Caller, Outcome, Result, RpcError
from holdfast.config import ToolRules
from holdfast.servers.proxy import CallerProxy
from holdfast.wire import jsonrpc

_PAGES_KEPT: Final = 16


class Gate:
    """Rules that must all admit a tool."""

    def __init__(self, *rules: ToolRules, keeps_pages: bool = True) -> None:
        """`keeps_pages` where lists come from the catalogue, so that the same ones come again."""
        self._rules = rules
        self._keeps_pages = keeps_pages
        self._pages: deque[tuple[Raw, Raw]] = deque(maxlen=_PAGES_KEPT)
        """Lists that were filtered lately: the catalogue answers with the same ones."""

    def admits(self, name: object) -> bool:
        """Whether a tool of this name exists for the client."""
        return isinstance(name, str) and all(rule.admits(name) for rule in self._rules)

    def shown(self, page: Raw) -> Raw:
        """A `tools/list` result without what is not admitted; the rest keeps its bytes."""
        for known, shown in self._pages:
            if known is page:
                return shown
        fields = jsonrpc.decode_fields(page)
        tools = [tool for tool in jsonrpc.decode_items(fields.get("tools", b"[]")) if self.admits(name_of(tool))]
        shown = Raw(jsonrpc.encode({**fields, "tools": tools}))
        if self._keeps_pages:
            self._pages.append((page, shown))
        return shown


def name_of(item: Raw) -> object:
    """The name of a tool or prompt as a list shows it."""
    return jsonrpc.decode_value(jsonrpc.decode_fields(item).get("name", b"null"))


def unknown_tool(name: object) -> RpcError:
    """The same for a tool that does not exist and for one that does not exist for this caller."""
    return RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, f"Unknown tool: {name}")))


class FilteredList(CallerProxy):
    """Hides from a list what its caller may not call."""

    def __init__(self, caller: Caller, gate: Gate) -> None:
        super().__init__(caller)
        self._gate = gate

    def answer(self, outcome: Outcome) -> None:
        super().answer(outcome.rewritten(self._gate.shown) if isinstance(outcome, Result) else outcome)
