"""Tools that a person named to be called, and the pair that is known without being named."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from holdfast.call import Json


@dataclass(frozen=True, slots=True)
class Named:
    """A tool with the arguments to call it with."""

    tool: str
    arguments: dict[str, Json] = field(default_factory=dict[str, Json])

    def params(self, token: str | None = None) -> dict[str, Any]:
        """The params of a call, which asks for progress where there is a token for it."""
        params: dict[str, Any] = {"name": self.tool, "arguments": self.arguments}
        return params if token is None else {**params, "_meta": {"progressToken": token}}


class UnknownTool(Exception):
    """A tool was named that the server does not list; none was called."""

    def __init__(self, tool: str, server: str, known: tuple[str, ...]) -> None:
        super().__init__(f"{server} has no tool {tool!r}")
        self.tool = tool
        self.server = server
        """What it calls itself; may be empty."""
        self.known = known


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tools may be called. None other is: `readOnlyHint` is a claim of the server, and reading may cost, too."""

    call: Named | None = None
    write: Named | None = None
    read: Named | None = None

    @property
    def pair(self) -> tuple[Named, Named] | None:
        """What writes and what reads, where both are known."""
        return None if self.write is None or self.read is None else (self.write, self.read)

    def check(self, server: str, known: tuple[str, ...]) -> None:
        """Raises `UnknownTool` for the first that is not among those that `server` lists."""
        for named in (self.call, self.write, self.read):
            if named is not None and named.tool not in known:
                raise UnknownTool(named.tool, server, known)


def pair_of(wanted: Wanted, server: str, tools: tuple[str, ...]) -> tuple[Named, Named] | None:
    """The tools by which it is seen what a session remembers.

    Not named, they are known of one server alone: ours for tests, whose memory is the session's.
    """
    if wanted.pair is not None:
        return wanted.pair
    if not server.startswith("holdfast-test-server ") or not {"remember", "recall"} <= set(tools):
        return None
    key, value = "holdfast-doctor", secrets.token_hex(8)
    return Named("remember", {"key": key, "value": value}), Named("recall", {"key": key})
