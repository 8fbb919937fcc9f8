"""A list of all servers together."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import AskId, Call, Caller, Json, Reply, Result, RpcError, Running, Status, StatusWord
from holdfast.clock import Clock
from holdfast.servers.gathering import Gathering, Later, Listed, Lister, cancelled
from holdfast.servers.member import Member
from holdfast.servers.server import ServerConversation
from holdfast.session.watch import Watcher
from holdfast.wire import jsonrpc

LIST_PATIENCE: Final = 5.0
"""Seconds: a list holds the servers that have answered by then; the others follow with `list_changed`."""
PAGE: Final = 1000
"""Items of one page."""
OF_RESOURCES: Final = ("resources/list", "resources/templates/list")
UNAVAILABLE_KEY: Final = "dev.holdfast/unavailable"
"""In a list's `_meta`: the servers whose items are missing, and why."""

_LATE: Final = "It has not answered yet; list_changed follows when it has."
_FIELDS: Final[Mapping[str, str]] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


class House(Protocol):
    """What a list asks of the whole."""

    @property
    def clock(self) -> Clock:
        """Time."""
        ...

    def left_out(self, names: Iterable[str], watcher: Watcher | None) -> None:
        """These servers are missing from the list that `watcher` gets, and may be in a later one."""

    def has_come(self, name: str) -> None:
        """A list of this server would hold its items now."""


class _Lists:
    """The lists of several servers, while they are being asked for. A `Running`."""

    def __init__(self, house: House, parts: Mapping[Member, ServerConversation], *, is_modern: bool = False) -> None:
        self._house = house
        self._parts = parts
        self._is_modern = is_modern
        self._listers: list[Lister] = []
        self._gathering: Gathering[tuple[str, str], Listed] | None = None

    def _ask(self, methods: Iterable[str], done: Callable[[dict[tuple[str, str], Listed]], None]) -> None:
        wanted = {(member.server.name, method): part for member, part in self._parts.items() for method in methods}

        def gathered(listed: dict[tuple[str, str], Listed], late: list[tuple[str, str]]) -> None:
            done(listed | {each: Listed(hindrance=_LATE, is_late=True) for each in late})

        def report(each: tuple[str, str], listed: Listed) -> None:
            if not gathering.is_over:
                gathering.report(each, listed)
            elif listed.hindrance is None:
                self._house.has_come(each[0])

        gathering: Gathering[tuple[str, str], Listed] = Gathering(wanted, self._house.clock, LIST_PATIENCE, gathered)
        self._gathering = gathering
        self._listers = [
            Lister(part.start, each[1], partial(report, each), is_modern=self._is_modern)
            for each, part in wanted.items()
        ]
        for lister in self._listers:
            lister.start()
        gathering.settle()

    def _abandon(self, reason: str) -> None:
        if self._gathering is not None:
            self._gathering.abandon()
        for lister in self._listers:
            lister.cancel(reason)


class JointList(_Lists):
    """Answers one list request."""

    def __init__(
        self,
        house: House,
        parts: Mapping[Member, ServerConversation],
        call: Call,
        caller: Caller,
        watcher: Watcher | None,
    ) -> None:
        super().__init__(house, parts, is_modern=call.declared is not None)
        self._call = call
        self._caller: Caller | None = caller
        self._watcher = watcher
        self._held = {part.server.name for part in parts.values() if part.is_held}
        """Servers with an open session for the caller when the list was asked for."""

    def start(self) -> Running:
        """Ask every server."""
        names = ", ".join(member.server.name for member in self._parts)
        if self._caller is not None:
            self._caller.status(Status(StatusWord.WAITING, f"Waiting for the lists of {names}."))
        self._ask((self._call.method,), self._compose)
        return self

    def _compose(self, listed: dict[tuple[str, str], Listed]) -> None:
        method = self._call.method
        by_member = {member: listed[member.server.name, method] for member in self._parts}
        missing = {member.server.name: each.hindrance for member, each in by_member.items() if each.hindrance}
        self._house.left_out((m.server.name for m, each in by_member.items() if self._may_come(m, each)), self._watcher)
        items = list(dict(_items(method, by_member)).items())
        answer = _page(_FIELDS[method], items, self._call.params.get("cursor"), missing)
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.answer(answer)

    def _may_come(self, member: Member, listed: Listed) -> bool:
        """Whether the next list may have what this one lacks: not where the same slow question would be asked again."""
        if not listed.is_late:
            return listed.hindrance is not None
        settings = member.server.settings
        is_kept = settings.has_common_lists and (settings.scope == "shared" or self._call.method not in OF_RESOURCES)
        return is_kept or settings.name not in self._held

    # Running: nobody is asked while a list is made.

    def reply(self, ask_id: AskId, reply: Reply) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def cancel(self, reason: str) -> None:
        caller, self._caller = self._caller, None
        if caller is not None:
            self._abandon(reason)
            caller.answer(cancelled(reason, "holdfast"))


class Preparation(_Lists, Later):
    """A call that can only be routed once lists are known; then it is what `then` gives."""

    def __init__(
        self,
        house: House,
        parts: Mapping[Member, ServerConversation],
        methods: Iterable[str],
        then: Callable[[], Running | None],
        caller: Caller,
    ) -> None:
        _Lists.__init__(self, house, parts)
        Later.__init__(self, caller, "holdfast")
        self._methods = tuple(methods)
        self._then = then

    def start(self) -> Running:
        """Ask for the lists."""
        self._ask(self._methods, self._prepared)
        return self

    def _prepared(self, listed: dict[tuple[str, str], Listed]) -> None:
        for member in self._parts:
            for method in self._methods:
                _learn(method, member, listed[member.server.name, method])
        self.go_on(self._then)


def _learn(method: str, member: Member, listed: Listed) -> None:
    """Let `member` remember what it lists."""
    if method in OF_RESOURCES:
        member.learn(method, listed.pages)
    else:
        for _ in member.named(method, listed.pages):
            pass


def _items(method: str, listed: Mapping[Member, Listed]) -> Iterator[tuple[str, Raw]]:
    """Every item by what it is called outside, in the order of the servers."""
    if method not in OF_RESOURCES:
        for member, each in listed.items():
            yield from member.named(method, each.pages)
        return
    learnt = {member: member.learn(method, each.pages) for member, each in listed.items()}
    for member, items in learnt.items():
        yield from member.located(method, items, learnt)


def _page(
    field: str, items: list[tuple[str, Raw]], cursor: Json, missing: Mapping[str, str | None]
) -> Result | RpcError:
    start = 0
    if cursor is not None:
        after = _read_cursor(cursor)
        place = next((number for number, (name, _) in enumerate(items) if name == after), None)
        if place is None:
            message = "The cursor is unknown, or the list has changed since: begin again without one."
            return RpcError(Raw(jsonrpc.error_object(jsonrpc.INVALID_PARAMS, message)))
        start = place + 1
    page = items[start : start + PAGE]
    fields: dict[str, object] = {field: [item for _, item in page]}
    if start + PAGE < len(items):
        fields["nextCursor"] = base64.urlsafe_b64encode(page[-1][0].encode()).decode()
    if missing:
        fields["_meta"] = {UNAVAILABLE_KEY: missing}
    return Result(Raw(jsonrpc.encode(fields)))


def _read_cursor(cursor: Json) -> str | None:
    """The name of the last item of the page before."""
    try:
        return base64.urlsafe_b64decode(cursor).decode() if isinstance(cursor, str) else None
    except (binascii.Error, ValueError):
        return None
