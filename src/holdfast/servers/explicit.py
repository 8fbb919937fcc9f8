"""Explicit sessions of one server (`handles: true`): a tool opens one, and the other tools take its name.

For callers of whose requests nothing else says that they belong together (SEP-2567). Docs: sessions.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from msgspec import Raw
from msgspec.structs import replace

from holdfast import events
from holdfast.call import Call, Caller, Json, Outcome, Result, Running, Status
from holdfast.config import ServerSettings
from holdfast.servers.gathering import Later, Listed, Lister, Start
from holdfast.servers.handles import Handle, Handles
from holdfast.servers.offered import ARGUMENT, OfferedTools, Public, may_concern_sessions, tools_of
from holdfast.servers.proxy import CallerProxy
from holdfast.servers.tasks import without_task
from holdfast.session.key import SessionKey
from holdfast.session.retry import overloaded
from holdfast.session.watch import Watcher
from holdfast.wire import jsonrpc

OF_TOOLS: Final = frozenset({"tools/list", "tools/call"})
"""The methods that it answers."""

Run: TypeAlias = Callable[[SessionKey, Call, Caller, Watcher | None], Running | None]
"""Answers a call from the catalogue, or in the session of a key."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be answered, and for whom."""

    key: SessionKey
    call: Call
    caller: Caller
    watcher: Watcher | None
    public: Public


class ExplicitSessions:
    """The `Keeper` of one server's handles, between its callers and its catalogue.

    What its own tools and arguments are called depends on what the server calls its tools and theirs,
    so nothing that could be meant for them is answered before the server's list has been seen once.
    """

    def __init__(
        self,
        settings: ServerSettings,
        handles: Handles,
        run: Run,
        end: Callable[[SessionKey], None],
        emit: events.Emit,
    ) -> None:
        """`end` ends the session of a key, and leaves no marker."""
        self.settings = settings
        self._handles = handles
        self._run = run
        self._end = end
        self._emit = emit
        self._offered = OfferedTools(settings)
        self._has_seen_all = False

    def reconfigure(self, settings: ServerSettings) -> None:
        """Go by other settings from now on."""
        self.settings = settings
        self._offered.reconfigure(settings)

    # Keeper

    @property
    def idle_timeout(self) -> float:
        return self.settings.idle_timeout

    def end(self, key: SessionKey) -> None:
        self._end(key)

    # Its handles, when the settings change.

    def drop(self, client: str | None = None, user: str | None = None) -> None:
        """Forget every handle, or those of one configured client, or of one user of that client."""
        self._handles.drop(self, client, user)

    def inherit(self, old: ExplicitSessions, renew: Callable[[SessionKey], SessionKey]) -> None:
        """The handles of `old` lead here from now on, unless its sessions were shared by others."""
        if old.settings.scope == self.settings.scope:
            self._handles.move(old, self, renew)

    # Calls.

    def start(
        self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None, public: Public
    ) -> Running | None:
        """Answer a list or a call of tools; None where that is done."""
        request = _Request(key, call, caller, watcher, public)
        if self._has_seen_all or not may_concern_sessions(call):
            return self._answer(request)
        return _Learning(self, request).start()

    def list_for(self, request: _Request, call: Call, caller: Caller) -> Running | None:
        """Ask for a list of tools as the server gives it."""
        return self._run(request.key, call, caller, request.watcher)

    def learnt(self, request: _Request, listed: Listed, last: Outcome) -> Running | None:
        """Go on with what had to wait for the list, of which `last` came last."""
        if listed.hindrance is None:
            for page in listed.pages:
                self._offered.learn(tools_of(page))
            self._has_seen_all = True
        elif request.call.method == "tools/list" or request.call.target in {self._offered.opener, self._offered.closer}:
            request.caller.answer(last)
            return None
        return self._answer(request)

    def _answer(self, request: _Request) -> Running | None:
        call = request.call
        if call.method == "tools/list":
            return self._run(request.key, call, _ListCaller(request, self._offered.shown), request.watcher)
        arguments = call.params.get("arguments")
        given: dict[str, Json] = arguments if isinstance(arguments, dict) else {}
        if call.target == self._offered.opener:
            request.caller.answer(self._open(request))
        elif call.target == self._offered.closer:
            request.caller.answer(self._close(request, given.get(ARGUMENT)))
        else:
            return self._call(request, given)
        return None

    def _call(self, request: _Request, given: dict[str, Json]) -> Running | None:
        """Run a call of a tool of the server: in the session that it names, if it names one."""
        name = self._offered.argument_of(request.call.target, given)
        if name is None:
            return self._run(request.key, request.call, request.caller, request.watcher)
        rest: Json = {each: value for each, value in given.items() if each != name}
        call = replace(request.call, params={**request.call.params, "arguments": rest})
        if given[name] in (None, ""):  # models fill in what they leave out
            return self._run(request.key, call, request.caller, request.watcher)
        handle = self._find(request, given[name])
        if handle is None:
            request.caller.answer(self._unknown(request.public))
            return None
        self._handles.enter(handle)
        caller = _HandleCaller(request.caller, self._handles, handle)
        return self._run(handle.key_for(request.key), without_task(call), caller, request.watcher)

    def _open(self, request: _Request) -> Outcome:
        if request.key.lacks == "user":
            return _error("Nobody could come back for a session: this client names its users, and this request none.")
        handle = self._handles.open(request.key, self.settings.scope, self)
        if handle is None:
            name, reason = self.settings.name, "there are too many handles, and none of the caller's own may make way"
            self._emit(events.CallRefused(name, reason, request.call.request, events.Limit.SESSIONS))
            return overloaded(name, reason)
        text = f"Opened session {handle.name}. Pass it as `{ARGUMENT}` to the tools that are to share its state."
        return _said(text, structuredContent={ARGUMENT: handle.name})

    def _close(self, request: _Request, name: Json) -> Outcome:
        handle = self._find(request, name)
        if handle is None:
            return self._unknown(request.public)
        self._handles.close(handle)
        return _said(f"Closed session {handle.name}.")

    def _find(self, request: _Request, name: Json) -> Handle | None:
        """The handle that a call names, if it is the caller's own."""
        key = request.key
        if not isinstance(name, str) or key.lacks == "user":
            return None
        handle = self._handles.find(name, key, self.settings.scope, self)
        owner = self._handles.owner_of(name) if handle is None else None
        if owner is not None and key.principal is not None and owner != key.principal:
            misused = events.SessionIdMisused(
                self.settings.name, key.principal.client, owner.client, request.call.request
            )
            self._emit(misused)
        return handle

    def _unknown(self, public: Public) -> Result:
        """The same for a handle that is another's, was closed, has expired or never was."""
        return _error(
            "There is no such session: it was closed, ended after a time without a call, or was never opened, and what"
            f" it remembered is gone. Nothing was executed. Open a new one with {public(self._offered.opener)}."
        )


class _ListCaller(CallerProxy):
    """Adds to a list what is ours."""

    def __init__(self, request: _Request, show: Callable[[Raw, Public], Raw]) -> None:
        super().__init__(request.caller)
        self._public = request.public
        self._show = show

    def answer(self, outcome: Outcome) -> None:
        super().answer(outcome.rewritten(self._shown) if isinstance(outcome, Result) else outcome)

    def _shown(self, page: Raw) -> Raw:
        return self._show(page, self._public)


class _HandleCaller(CallerProxy):
    """The caller of a call in the session of a handle, which does not end meanwhile."""

    def __init__(self, caller: Caller, handles: Handles, handle: Handle) -> None:
        super().__init__(caller)
        self._handles = handles
        self._handle = handle

    def answer(self, outcome: Outcome) -> None:
        self._handles.leave(self._handle)
        super().answer(outcome)


class _Learning(Later):
    """A request that waits for the server's list of tools."""

    def __init__(self, sessions: ExplicitSessions, request: _Request) -> None:
        super().__init__(request.caller, sessions.settings.name)
        self._sessions = sessions
        self._request = request
        self._lister = _TellingLister(request.caller, partial(sessions.list_for, request), self._listed)

    def start(self) -> Running:
        """Ask for the list."""
        self._lister.start()
        return self

    def _listed(self, listed: Listed) -> None:
        self.go_on(lambda: self._sessions.learnt(self._request, listed, self._lister.last))

    def _abandon(self, reason: str) -> None:
        self._lister.cancel(reason)


class _TellingLister(Lister):
    """Tells a caller what its list waits for."""

    last: Outcome

    def __init__(self, caller: Caller, start: Start, then: Callable[[Listed], None]) -> None:
        super().__init__(start, "tools/list", then)
        self._caller = caller

    def status(self, status: Status) -> None:
        self._caller.status(status)

    def answer(self, outcome: Outcome) -> None:
        self.last = outcome
        super().answer(outcome)


def _said(text: str, **fields: object) -> Result:
    return Result(Raw(jsonrpc.encode({"content": [{"type": "text", "text": text}], **fields})))


def _error(text: str) -> Result:
    """An error that a model reads and can act on: MCP 2026-07-28, Tools, Stateful Tools, asks for this form."""
    return _said(text, isError=True)
