"""All servers as one: `/mcp`. Lists are joined, names lead to their server, and the rest goes on as it is.

Nothing here opens a session ahead of need: a list is answered by the catalogues, and a call opens
the session of the one server that it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from msgspec import Raw

from holdfast import __version__, events
from holdfast.call import Call, Caller, Json, Result, RpcError, Running
from holdfast.catalog.catalog import CAPABILITY, Introduced
from holdfast.clock import Clock
from holdfast.errors import CallFailed
from holdfast.identity.asker import Asker
from holdfast.servers.branch import Branch, BranchCaller, progress_token
from holdfast.servers.gate import unknown_tool
from holdfast.servers.gathering import Deaf, Gathering
from holdfast.servers.joint import JointList, Preparation
from holdfast.servers.member import Member, owner_of
from holdfast.servers.names import Names
from holdfast.servers.server import Server, ServerConversation
from holdfast.session.watch import Watcher
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import LATEST

INTRODUCTION_PATIENCE: Final = 2.0
"""Seconds: an introduction names the servers that have said theirs by then."""
RESOURCE_NOT_FOUND: Final = -32002
"""MCP 2025-11-25, Resources, Error Handling."""

_CAPABILITIES: Final[Mapping[str, Mapping[str, bool]]] = {
    "completions": {},
    "logging": {},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "tools": {"listChanged": True},
}
_LIST_CHANGES: Final = tuple(f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources"))
_OF_RESOURCES: Final = ("resources/list", "resources/templates/list")
_PROGRESS: Final = "notifications/progress"
_EMPTY: Final = Result(Raw(b"{}"))

Way: TypeAlias = Callable[[ServerConversation, Call, Caller, Any], Running | None]
"""A method of `ServerConversation` that takes a call, its caller and its watcher."""
_START: Final[Way] = ServerConversation.start


class Merged:
    """The `Service` of `/mcp` where there are several servers."""

    name = "holdfast"

    def __init__(self, separator: str, clock: Clock) -> None:
        self.clock = clock
        self.members: dict[str, Member] = {}
        self._separator = separator
        self._branches: dict[Watcher, dict[str, Branch]] = {}
        self._attached: dict[tuple[MergedConversation, Watcher], None] = {}
        self._missed: set[str] = set()
        """Servers that were left out of a list."""

    @property
    def passes(self) -> frozenset[str]:
        """The headers of a request that go on to any of the servers."""
        return frozenset(name for member in self.members.values() for name in member.server.passes)

    def replace(self, servers: Iterable[Server], separator: str) -> None:
        """Join these servers from now on; a client that hears of changes hears that the lists have changed."""
        before, is_renamed = self.members, separator != self._separator
        self._separator = separator
        self.members = {
            server.name: old
            if not is_renamed and (old := before.get(server.name)) is not None and old.is_of(server)
            else Member(server, separator)
            for server in servers
        }
        servers_now = {member.server for member in self.members.values()}
        gone = {name for name, old in before.items() if old.server not in servers_now}
        for branches in self._branches.values():
            for name in gone & branches.keys():
                del branches[name]  # not detached: what runs there still ends in order
        for conversation, watcher in self._attached:
            conversation.join(watcher)
        if before and self.members != before:
            self._announce()

    def take(self, event: events.Event) -> None:
        """A server that was left out of a list may be in the next one."""
        if isinstance(event, events.ListsLearned) and event.server in self._missed:
            self._missed.discard(event.server)
            self._announce()

    def converse(self, asker: Asker) -> MergedConversation:
        """The conversation of a request."""
        return MergedConversation(self, asker)

    def visible(self, asker: Asker) -> dict[str, Member]:
        """The servers that exist for the caller."""
        return {name: member for name, member in self.members.items() if asker.identity.may_see(name)}

    def branch(self, watcher: Watcher, member: Member) -> Branch:
        """What stands for `watcher` at one server."""
        branches = self._branches.get(watcher, {})
        return branches.get(member.server.name) or Branch(watcher, member.server)

    def join(self, watcher: Watcher, part: ServerConversation, member: Member) -> None:
        """Let `watcher` hear what the session of `part` pushes."""
        branches = self._branches.setdefault(watcher, {})
        branches.setdefault(member.server.name, Branch(watcher, member.server)).join(part.key)

    def leave(self, watcher: Watcher, part: ServerConversation) -> None:
        """Take back one `join`."""
        branches = self._branches.get(watcher, {})
        branch = branches.get(part.server.name)
        if branch is not None and branch.server is part.server and branch.leave(part.key):
            del branches[part.server.name]
        if not branches:
            self._branches.pop(watcher, None)

    def attached(self, conversation: MergedConversation, watcher: Watcher) -> None:
        """`watcher` also hears of servers that come later."""
        self._attached[conversation, watcher] = None

    def detached(self, conversation: MergedConversation, watcher: Watcher) -> None:
        """It left."""
        self._attached.pop((conversation, watcher), None)

    def left_out(self, names: Iterable[str]) -> None:
        """These servers are missing from a list that somebody got."""
        self._missed.update(names)

    def _announce(self) -> None:
        for watcher in list(self._branches):
            for method in _LIST_CHANGES:
                watcher.push(method, None)


class MergedConversation:
    """A `Conversation` with all servers that exist for a caller; the session of each is its own."""

    def __init__(self, merged: Merged, asker: Asker) -> None:
        self._merged = merged
        self._asker = asker
        self._parts: dict[str, ServerConversation] = {}
        self._joined: dict[str, ServerConversation] = {}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MergedConversation)
            and self._merged is other._merged
            and self._asker.conversation == other._asker.conversation
        )

    def __hash__(self) -> int:
        return hash(self._asker.conversation)

    @property
    def is_private(self) -> bool:
        return self._asker.is_unnamed

    @property
    def is_shared(self) -> bool:
        return any(member.server.settings.scope == "shared" for member in self._members.values())

    @property
    def ends_with_client(self) -> bool:
        return self._asker.chat is None and self._asker.client is not None

    @property
    def is_held(self) -> bool:
        return any(part.is_held for part in self._parts.values())

    @property
    def _members(self) -> dict[str, Member]:
        return self._merged.visible(self._asker)

    def _part(self, member: Member) -> ServerConversation:
        """The conversation with one server, as it stands now."""
        name = member.server.name
        part = self._parts.get(name)
        if part is None or part.server is not member.server:
            part = self._parts[name] = member.server.converse(self._asker)
        return part

    def attach(self, watcher: Watcher) -> None:
        self._merged.attached(self, watcher)
        self.join(watcher)

    def join(self, watcher: Watcher) -> None:
        """Let `watcher` hear of every server that is there now."""
        for name, member in self._members.items():
            part = self._part(member)
            if self._joined.get(name) != part:
                self._joined[name] = part
                self._merged.join(watcher, part, member)

    def detach(self, watcher: Watcher) -> None:
        self._merged.detached(self, watcher)
        for part in self._joined.values():
            self._merged.leave(watcher, part)
        self._joined.clear()

    def offer_roots(self, has_roots: bool) -> None:
        for part in self._parts.values():
            part.offer_roots(has_roots)

    def introduce(self, then: Introduced) -> None:
        """Say what all can do together; every capability is there, since a server may come up with it later."""
        members = self._members

        def done(hellos: dict[str, Hello | CallFailed], _late: list[str]) -> None:
            instructions = [text for name in members if (text := _instructions(name, hellos.get(name)))]
            raw = {
                "protocolVersion": LATEST,
                "capabilities": _CAPABILITIES,
                "serverInfo": {"name": "holdfast", "version": __version__},
                **({"instructions": "\n\n".join(instructions)} if instructions else {}),
            }
            capabilities = {name: Raw(jsonrpc.encode(value)) for name, value in _CAPABILITIES.items()}
            then(Hello(Raw(jsonrpc.encode(raw)), LATEST, capabilities))

        known = {n: m for n, m in members.items() if m.server.settings.is_learned_at_start or m.server.catalog.hello}
        gathering = Gathering(known, self._merged.clock, INTRODUCTION_PATIENCE, done)
        for name, member in known.items():
            self._part(member).introduce(_reporting(gathering, name))
        gathering.settle()

    def start(self, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running | None:
        match call.method:
            case method if method in CAPABILITY:
                return JointList(self._merged, self._conversations(), call, caller).start()
            case "tools/call":
                return self._named(call, caller, watcher, lambda member: member.tools, unknown_tool)
            case "prompts/get":
                return self._named(call, caller, watcher, lambda member: member.prompts, _unknown_prompt)
            case "resources/read":
                return self._located(call, caller, watcher, ServerConversation.start)
            case "completion/complete":
                return self._complete(call, caller, watcher)
            case "logging/setLevel":
                caller.answer(_EMPTY)  # a request without a session: there is nothing that it could last for
                return None
            case method:
                message = f"{method} is not served for all servers together: use /mcp/SERVER."
                caller.answer(RpcError(Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, message))))
                return None

    def notify(self, method: str, params: Raw | None, watcher: Watcher) -> None:
        token = progress_token(Raw(jsonrpc.encode({"_meta": params}))) if method == _PROGRESS else None
        for member in self._members.values():
            part = self._part(member)
            if token is None or self._merged.branch(watcher, member).tokens[token] > 0:
                part.notify(method, params, watcher)

    def set_level(self, level: str, caller: Caller, watcher: Watcher) -> Running | None:
        watcher.log_level = level
        for member in self._members.values():
            part = self._part(member)
            if part.is_held:
                part.set_level(level, Deaf(), self._merged.branch(watcher, member))
        caller.answer(_EMPTY)
        return None

    def subscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        return self._located(call, caller, watcher, ServerConversation.subscribe)

    def unsubscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        return self._located(call, caller, watcher, ServerConversation.unsubscribe)

    def _conversations(self) -> dict[Member, ServerConversation]:
        return {member: self._part(member) for member in self._members.values()}

    def _go(self, how: Way, member: Member, call: Call, caller: Caller, watcher: Watcher | None) -> Running | None:
        """Let one server answer."""
        branch = None if watcher is None else self._merged.branch(watcher, member)
        return how(self._part(member), call, BranchCaller(caller, branch), branch)

    def _named(
        self,
        call: Call,
        caller: Caller,
        watcher: Watcher | None,
        names_of: Callable[[Member], Names],
        unknown: Callable[[object], RpcError],
    ) -> Running | None:
        """Run a call in the session of the server that its name leads to."""
        public = call.params.get("name")

        def go(*, has_listed: bool) -> Running | None:
            members = self._members.values() if isinstance(public, str) else ()
            for member in members:
                own = names_of(member).own(str(public))
                if own is not None:
                    return self._go(_START, member, _with(call, name=own), caller, watcher)
            cut = [member for member in members if names_of(member).needs_list(str(public))]
            if not cut or has_listed:
                caller.answer(unknown(public))
                return None
            kind = "tools/list" if call.method == "tools/call" else "prompts/list"
            return self._after_listing((kind,), cut, caller, lambda: go(has_listed=True))

        return go(has_listed=False)

    def _located(self, call: Call, caller: Caller, watcher: Watcher | None, how: Way) -> Running | None:
        """Run a call about a resource in the session of the server whose it is."""
        uri = call.params.get("uri")

        def go(*, has_listed: bool) -> Running | None:
            found = owner_of(uri, self._members) if isinstance(uri, str) else None
            if found is not None:
                member, own = found
                if watcher is not None and own != uri:
                    self._merged.branch(watcher, member).public_uris[own] = str(uri)
                return self._go(how, member, _with(call, uri=own), caller, watcher)
            offering = [member for member in self._members.values() if member.offers_resources]
            if not offering or has_listed:
                caller.answer(_unknown_resource(uri))
                return None
            return self._after_listing(_OF_RESOURCES, offering, caller, lambda: go(has_listed=True))

        return go(has_listed=False)

    def _complete(self, call: Call, caller: Caller, watcher: Watcher | None) -> Running | None:
        """Complete an argument of a prompt or a template, which leads to its server."""
        ref = call.params.get("ref")
        fields = ref if isinstance(ref, dict) else {}
        if fields.get("type") == "ref/resource":
            uri = fields.get("uri")
            found = owner_of(uri, self._members) if isinstance(uri, str) else None
            if found is None:
                caller.answer(_unknown_resource(uri))
                return None
            return self._go(_START, found[0], _with(call, ref={**fields, "uri": found[1]}), caller, watcher)
        name = fields.get("name")
        for member in self._members.values():
            own = member.prompts.own(name) if isinstance(name, str) else None
            if own is not None:
                return self._go(_START, member, _with(call, ref={**fields, "name": own}), caller, watcher)
        caller.answer(_unknown_prompt(name))
        return None

    def _after_listing(
        self, methods: Iterable[str], members: Iterable[Member], caller: Caller, then: Callable[[], Running | None]
    ) -> Running:
        """Call `then` once these servers' lists are known, as far as they can be had in time."""
        return Preparation(self._merged, {m: self._part(m) for m in members}, methods, then, caller).start()


def _with(call: Call, **params: Json) -> Call:
    return replace(call, params={**call.params, **params})


def _reporting(gathering: Gathering[str, Hello | CallFailed], name: str) -> Introduced:
    return lambda hello: gathering.report(name, hello)


def _instructions(name: str, hello: Hello | CallFailed | None) -> str:
    """What a server says to the model, under its name."""
    if isinstance(hello, CallFailed):
        return f"## {name}\n{hello.message}"
    text = (
        None if hello is None else jsonrpc.decode_value(jsonrpc.decode_fields(hello.raw).get("instructions", b"null"))
    )
    return f"## {name}\n{text}" if isinstance(text, str) and text.strip() else ""


def _unknown_prompt(name: object) -> RpcError:
    return RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, f"Unknown prompt: {name}")))


def _unknown_resource(uri: object) -> RpcError:
    message = "Resource not found: no server lists it, or more than one may have it; use /mcp/SERVER."
    return RpcError(Raw(jsonrpc.error_object(RESOURCE_NOT_FOUND, message, {"uri": str(uri)})))
