"""What all servers say of themselves together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Raw

from holdfast import __version__
from holdfast.catalog.catalog import Introduced
from holdfast.clock import Clock
from holdfast.errors import CallFailed
from holdfast.servers.gathering import Gathering
from holdfast.servers.member import Member
from holdfast.servers.server import ServerConversation
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import LATEST

PATIENCE: Final = 2.0
"""Seconds: an introduction has the words of the servers that have said theirs by then."""

SERVER_INFO: Final = Raw(jsonrpc.encode({"name": "holdfast", "version": __version__}))

_CAPABILITIES: Final[Mapping[str, Mapping[str, bool]]] = {
    "completions": {},
    "logging": {},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "tools": {"listChanged": True},
}
_LATE: Final = "It is still being connected; list_changed follows when it is there."


def introduce(
    members: Mapping[str, Member], part: Callable[[Member], ServerConversation], clock: Clock, then: Introduced
) -> None:
    """Say what all can do together; every capability is there, since a server may come up with it later."""

    def done(hellos: dict[str, Hello | CallFailed], late: list[str]) -> None:
        said = {name: hellos.get(name, _LATE if name in late else None) for name in members}
        instructions = [text for name, member in members.items() if (text := _instructions(member, said[name]))]
        raw = {
            "protocolVersion": LATEST,
            "capabilities": _CAPABILITIES,
            "serverInfo": SERVER_INFO,
            **({"instructions": "\n\n".join(instructions)} if instructions else {}),
        }
        capabilities = {name: Raw(jsonrpc.encode(value)) for name, value in _CAPABILITIES.items()}
        then(Hello(Raw(jsonrpc.encode(raw)), LATEST, capabilities))

    known = {n: m for n, m in members.items() if m.server.settings.is_learned_at_start or m.server.catalog.hello}
    gathering = Gathering(known, clock, PATIENCE, done)
    for name, member in known.items():
        part(member).introduce(_reporting(gathering, name))
    gathering.settle()


def _reporting(gathering: Gathering[str, Hello | CallFailed], name: str) -> Introduced:
    return lambda hello: gathering.report(name, hello)


def _instructions(member: Member, said: Hello | CallFailed | str | None) -> str:
    """What a server says to the model, under its name, or why it says nothing."""
    if isinstance(said, Hello):
        text = jsonrpc.decode_value(jsonrpc.decode_fields(said.raw).get("instructions", b"null"))
        if not isinstance(text, str) or not text.strip():
            return ""
        text = f"The names of its tools and prompts begin with {member.start} here.\n\n{text}"
    else:
        text = said.message if isinstance(said, CallFailed) else said
    return f"## {member.server.name}\n\n{text}" if text else ""
