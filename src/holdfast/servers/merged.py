"""All servers as one: `/mcp`. Lists are joined, names lead to their server, and the rest goes on as it is.

Nothing here opens a session ahead of need: a list is answered by the catalogues, and a call opens
the session of the one server that it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Raw
from msgspec.structs import replace

from holdfast import events
from holdfast.call import Call, Caller, Json, Result, RpcError, Running
from holdfast.catalog.catalog import CAPABILITY, Introduced
from holdfast.catalog.mirrored import Mirrored
from holdfast.clock import Clock
from holdfast.identity.asker import Asker
from holdfast.servers.branch import Branch, BranchCaller, MarkedReader, MarkedSubscriber
from holdfast.servers.followed_tasks import Follower
from holdfast.servers.gate import unknown_tool
from holdfast.servers.gathering import Deaf
from holdfast.servers.introduction import SERVER_INFO, introduce
from holdfast.servers.joint import OF_RESOURCES, JointList, Preparation
from holdfast.servers.member import Member, owner_of
from holdfast.servers.server import Server, ServerConversation
from holdfast.servers.tasks import without_task
from holdfast.session.watch import Watcher
from holdfast.wire import jsonrpc

RESOURCE_NOT_FOUND: Final = -32002
"""MCP 2025-11-25, Resources, Error Handling."""

_EMPTY: Final = Result(Raw(b"{}"))
_NOTHING_TO_COMPLETE: Final = Result(Raw(b'{"completion":{"values":[]}}'))
_NEEDS_SESSION: Final = RpcError(
    Raw(jsonrpc.error_object(jsonrpc.INVALID_REQUEST, "This outlasts its request: initialize first, for a session."))
)

Replaced: TypeAlias = dict[tuple[Watcher, str], Branch]
"""What stood for a client session at a server in whose place another one is."""

Way: TypeAlias = Callable[[ServerConversation, Call, Caller, Any], Running | None]
"""A method of `ServerConversation` that takes a call, its caller and its watcher."""
_START: Final[Way] = ServerConversation.start


class Merged:
    """The `Service` of `/mcp` where there are several servers."""

    name = "holdfast"
    server_info = SERVER_INFO
    footing = None
    is_common = False
    """Each client may have other servers."""

    def __init__(self, separator: str, clock: Clock) -> None:
        self.clock = clock
        self.members: dict[str, Member] = {}
        self.passes: frozenset[str] = frozenset()
        """The headers of a request that go on to any of the servers."""
        self._separator = separator
        self._branches: dict[Watcher, dict[str, Branch]] = {}
        self._attached: dict[tuple[MergedConversation, Watcher], None] = {}
        self._missed: dict[str, set[Watcher]] = {}
        """By server, who got a list without it."""

    @property
    def is_watched(self) -> bool:
        """Whether a client session hears of any server."""
        return bool(self._branches or self._attached or any(self._missed.values()))

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
        self.passes = frozenset(name for member in self.members.values() for name in member.server.passes)
        servers_now = {member.server for member in self.members.values()}
        gone = {name for name, old in before.items() if old.server not in servers_now}
        replaced: Replaced = {}
        for watcher, branches in self._branches.items():
            for name in gone & branches.keys():
                replaced[watcher, name] = branches.pop(name)  # not detached: what runs there still ends in order
        for conversation, watcher in self._attached:
            conversation.join(watcher, replaced)
        if before:
            self._announce({name for name in before | self.members if before.get(name) is not self.members.get(name)})

    TAKEN: Final[frozenset[type[events.Event]]] = frozenset({events.ListsLearned, events.SessionReady})
    """The kinds of events that it takes."""

    def take(self, event: events.Event) -> None:
        """A server that was left out of a list may be in the next one."""
        if isinstance(event, events.ListsLearned | events.SessionReady):
            self.has_come(event.server)

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

    def join(
        self, watcher: Watcher, part: ServerConversation, before: ServerConversation | None, replaced: Replaced
    ) -> None:
        """Let `watcher` hear what the session of `part` pushes, which may follow `before` with a replaced server."""
        branches = self._branches.setdefault(watcher, {})
        branch = branches.setdefault(part.server.name, Branch(watcher, part.server))
        old = replaced.get((watcher, part.server.name))
        if before is not None and old is not None:
            branch.inherit(old, before.key, part.key)
        branch.join(part.key)

    def leave(self, watcher: Watcher, part: ServerConversation) -> None:
        """Take back one `join`."""
        branches = self._branches.get(watcher, {})
        branch = branches.get(part.server.name)
        if branch is not None and branch.server is part.server and branch.leave(part.key):
            del branches[part.server.name]
        if not branches:
            self._branches.pop(watcher, None)
            for missing in self._missed.values():
                missing.discard(watcher)

    def attached(self, conversation: MergedConversation, watcher: Watcher) -> None:
        """`watcher` also hears of servers that come later."""
        self._attached[conversation, watcher] = None

    def detached(self, conversation: MergedConversation, watcher: Watcher) -> None:
        """It left."""
        self._attached.pop((conversation, watcher), None)

    def left_out(self, names: Iterable[str], watcher: Watcher | None) -> None:
        """These servers are missing from the list that `watcher` gets, and may be in a later one."""
        if watcher is not None and watcher in self._branches:
            for name in names:
                self._missed.setdefault(name, set()).add(watcher)

    def has_come(self, name: str) -> None:
        """Tell who missed this server in a list."""
        for watcher in self._missed.pop(name, ()):
            _tell_of_lists(watcher)

    def _announce(self, names: set[str]) -> None:
        """These servers are not what they were."""
        seeing = {watcher: None for conversation, watcher in self._attached if conversation.may_see_any(names)}
        for watcher in seeing:
            _tell_of_lists(watcher)


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
    def is_in_use(self) -> bool:
        return any(part.is_in_use for part in self._parts.values())

    @property
    def forgets(self) -> bool:
        return any(self._part(member).forgets for member in self._members.values())

    @property
    def _members(self) -> dict[str, Member]:
        return self._merged.visible(self._asker)

    def _part(self, member: Member) -> ServerConversation:
        """The conversation with one server, as it stands now."""
        name = member.server.name
        part = self._parts.get(name)
        if part is None or part.server is not member.server:
            part = self._parts[name] = member.server.converse(self._asker, member.tools.public)
        return part

    def attach(self, watcher: Watcher) -> None:
        self._merged.attached(self, watcher)
        self.join(watcher, {})

    def join(self, watcher: Watcher, replaced: Replaced) -> None:
        """Let `watcher` hear of every server that is there now."""
        for name, member in self._members.items():
            part, before = self._part(member), self._joined.get(name)
            if before != part:
                self._joined[name] = part
                self._merged.join(watcher, part, before, replaced)

    def may_see_any(self, names: Iterable[str]) -> bool:
        """Whether one of these servers exists for the caller, or would."""
        return any(map(self._asker.identity.may_see, names))

    def detach(self, watcher: Watcher) -> None:
        self._merged.detached(self, watcher)
        for part in self._joined.values():
            self._merged.leave(watcher, part)
        self._joined.clear()

    def offer_roots(self, has_roots: bool) -> None:
        for part in self._parts.values():
            part.offer_roots(has_roots)

    def mirrored(self, tool: str) -> Mirrored:
        for member in self._members.values():
            own = member.tools.own(tool)
            if own is not None:
                return self._part(member).mirrored(own)
        return {}

    def introduce(self, then: Introduced) -> None:
        introduce(self._members, self._part, self._merged.clock, then)

    def start(self, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running | None:
        match call.method:
            case method if method in CAPABILITY:
                parts = {member: self._part(member) for member in self._members.values()}
                return JointList(self._merged, parts, call, caller, watcher).start()
            case "tools/call" | "prompts/get":
                return self._named(without_task(call), caller, watcher)
            case "resources/read":
                return self._located(call, caller, watcher, ServerConversation.start)
            case "completion/complete":
                return self._complete(call, caller, watcher)
            case "logging/setLevel":
                caller.answer(_EMPTY)  # a request without a session: there is nothing that it could last for
                return None
            case method:
                is_lasting = method in {"resources/subscribe", "resources/unsubscribe"}
                caller.answer(_NEEDS_SESSION if is_lasting else _not_served(method))
                return None

    def notify(self, method: str, params: Raw | None, watcher: Watcher) -> None:
        if method == "notifications/progress":
            self._progress(params, watcher)
            return
        for member in self._members.values():
            self._part(member).notify(method, params, watcher)

    def _progress(self, params: Raw | None, watcher: Watcher) -> None:
        """Pass the client's progress on to the one server whose question it is about."""
        fields = jsonrpc.decode_fields(params or b"{}")
        token = bytes(fields.get("progressToken", b""))
        for member in self._members.values():
            own = self._merged.branch(watcher, member).own_token(token)
            if own is not None:
                renamed = Raw(jsonrpc.encode({**fields, "progressToken": own}))
                self._part(member).notify("notifications/progress", renamed, watcher)

    def set_level(self, level: str, caller: Caller, watcher: Watcher) -> Running | None:
        watcher.log_level = level
        for member in self._members.values():
            self._part(member).set_level(level, Deaf(), self._merged.branch(watcher, member))
        caller.answer(_EMPTY)
        return None

    def subscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        return self._located(call, caller, watcher, ServerConversation.subscribe)

    def unsubscribe(self, call: Call, caller: Caller, watcher: Watcher) -> Running | None:
        return self._located(call, caller, watcher, ServerConversation.unsubscribe)

    def follow(self, task_ids: Sequence[str], follower: Follower) -> None:  # noqa: ARG002 (they matter to one server)
        follower.tasks_agreed(())  # nobody begins a task here: it is waited for

    def _go(self, how: Way, member: Member, call: Call, caller: Caller, watcher: Watcher | None) -> Running | None:
        """Let one server answer."""
        branch = None if watcher is None else self._merged.branch(watcher, member)
        return how(self._part(member), call, BranchCaller(caller, branch), branch)

    def _named(self, call: Call, caller: Caller, watcher: Watcher | None) -> Running | None:
        """Run a call in the session of the server that its name leads to."""

        def go(member: Member, own: str) -> Running | None:
            gate = member.server.gate_of(self._part(member).key)
            if call.method == "tools/call" and gate is not None and not gate.admits(own):
                caller.answer(unknown_tool(call.params.get("name")))  # by the name that the client knows
                return None
            return self._go(_START, member, _with(call, name=own), caller, watcher)

        return self._by_name(call.method, call.params.get("name"), caller, go)

    def _by_name(
        self, method: str, public: Json, caller: Caller, go: Callable[[Member, str], Running | None]
    ) -> Running | None:
        """Do `go` with the server that a tool's or prompt's name leads to, and with the name that it has there."""
        is_tool = method == "tools/call"

        def find(*, has_listed: bool) -> Running | None:
            members = self._members.values() if isinstance(public, str) else ()
            named = [(member, member.tools if is_tool else member.prompts) for member in members]
            for member, names in named:
                own = names.own(str(public))
                if own is not None:
                    return go(member, own)
            cut = [member for member, names in named if names.needs_list(str(public))]
            if not cut or has_listed:
                caller.answer(unknown_tool(public) if is_tool else _unknown_prompt(public))
                return None
            kind = "tools/list" if is_tool else "prompts/list"
            return self._after_listing((kind,), cut, caller, lambda: find(has_listed=True))

        return find(has_listed=False)

    def _located(self, call: Call, caller: Caller, watcher: Watcher | None, how: Way) -> Running | None:
        """Run a call about a resource in the session of the server whose it is."""
        uri = call.params.get("uri")

        def go(member: Member, own: str) -> Running | None:
            told = caller
            if own != uri and how is ServerConversation.start:
                told = MarkedReader(caller, own, str(uri))
            elif own != uri and how is ServerConversation.subscribe and watcher is not None:
                told = MarkedSubscriber(caller, self._merged.branch(watcher, member), own, str(uri))
            running = self._go(how, member, _with(call, uri=own), told, watcher)
            if how is ServerConversation.unsubscribe and watcher is not None:
                self._merged.branch(watcher, member).unsubscribed(own)
            return running

        return self._by_uri(uri, caller, go)

    def _by_uri(self, uri: Json, caller: Caller, go: Callable[[Member, str], Running | None]) -> Running | None:
        """Do `go` with the server whose resource or template this is, and with the URI that it has there."""

        def find(*, has_listed: bool) -> Running | None:
            members = self._members.values()
            found = owner_of(uri, members) if isinstance(uri, str) else None
            if found is not None:
                return go(*found)
            offering = [member for member in members if member.offers_resources]
            if not offering or has_listed or not isinstance(uri, str):
                caller.answer(_unknown_resource(uri))
                return None
            return self._after_listing(OF_RESOURCES, offering, caller, lambda: find(has_listed=True))

        return find(has_listed=False)

    def _complete(self, call: Call, caller: Caller, watcher: Watcher | None) -> Running | None:
        """Complete an argument of a prompt or a template, which leads to its server."""
        ref = call.params.get("ref")
        fields = ref if isinstance(ref, dict) else {}
        field = "uri" if fields.get("type") == "ref/resource" else "name"

        def go(member: Member, own: str) -> Running | None:
            hello = member.server.catalog.hello
            if hello is not None and "completions" not in hello.capabilities:
                caller.answer(_NOTHING_TO_COMPLETE)  # we offered it, not this server
                return None
            return self._go(_START, member, _with(call, ref={**fields, field: own}), caller, watcher)

        if field == "uri":
            return self._by_uri(fields.get("uri"), caller, go)
        return self._by_name("prompts/get", fields.get("name"), caller, go)

    def _after_listing(
        self, methods: Iterable[str], members: Iterable[Member], caller: Caller, then: Callable[[], Running | None]
    ) -> Running:
        """Call `then` once these servers' lists are known, as far as they can be had in time."""
        return Preparation(self._merged, {m: self._part(m) for m in members}, methods, then, caller).start()


def _with(call: Call, **params: Json) -> Call:
    return replace(call, params={**call.params, **params})


def _tell_of_lists(watcher: Watcher) -> None:
    for kind in ("tools", "prompts", "resources"):
        watcher.push(f"notifications/{kind}/list_changed", None)


def _not_served(method: str) -> RpcError:
    message = f"{method} is not served for all servers together: use /mcp/SERVER."
    return RpcError(Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, message)))


def _unknown_prompt(name: object) -> RpcError:
    return RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, f"Unknown prompt: {name}")))


def _unknown_resource(uri: object) -> RpcError:
    message = "Resource not found: no server lists it, or more than one may have it; use /mcp/SERVER."
    return RpcError(Raw(jsonrpc.error_object(RESOURCE_NOT_FOUND, message, {"uri": str(uri)})))
