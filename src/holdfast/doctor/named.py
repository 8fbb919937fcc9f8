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
