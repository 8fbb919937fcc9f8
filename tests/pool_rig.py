"""A pool and its catalogue between fake callers and a fake server, in time that a test moves."""

# pyright: reportPrivateUsage=false
# What is left behind shows in private tables only.

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

from msgspec import Raw

from fake_upstream import FakeServer
from holdfast import events
from holdfast.call import (
    NOBODY,
    Abilities,
    Ask,
    AskId,
    Call,
    Fields,
    Outcome,
    Reply,
    Result,
    RpcError,
    Running,
    Status,
)
from holdfast.catalog.catalog import Catalog
from holdfast.config import ServerSettings
from holdfast.errors import CallFailed, Code
from holdfast.identity.asker import next_nonce
from holdfast.servers.server import Server
from holdfast.session.key import KeyScope, Principal, SessionKey, private
from holdfast.session.pool import Pool
from holdfast.session.quota import Quota
from holdfast.session.watch import Watcher
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock, settle

EVERYTHING: Final = Abilities(elicitation_form=True, elicitation_url=True, sampling=True, roots=True, other=True)


class FakeCaller:
    """Records what comes back; `breaks` names the callback that raises."""

    def __init__(self, abilities: Abilities = NOBODY, *, breaks: str = "") -> None:
        self._abilities = abilities
        self.breaks = breaks
        self.statuses: list[str] = []
        self.progressed: list[Any] = []
        self.logs: list[Any] = []
        self.notified: list[str] = []
        self.asks: list[Ask] = []
        self.withdrawn: list[AskId] = []
        self.suspended = 0
        self.outcomes: list[Outcome] = []
        self.running: Running
        """Unless the call was answered on the spot."""

    @property
    def abilities(self) -> Abilities:
        return self._abilities

    def _maybe_break(self, name: str) -> None:
        if self.breaks == name:
            raise RuntimeError(name)

    def status(self, status: Status) -> None:
        self.statuses.append(status.word)
        self._maybe_break("status")

    def progress(self, update: Fields) -> None:
        self.progressed.append(json.loads(bytes(update["progress"])))
        self._maybe_break("progress")

    def log(self, params: Raw) -> None:
        self.logs.append(json.loads(bytes(params))["data"])
        self._maybe_break("log")

    def notify(self, method: str, params: Raw | None) -> None:
        self.notified.append(method)
        self._maybe_break("notify")

    def ask(self, ask: Ask) -> None:
        self.asks.append(ask)
        self._maybe_break("ask")

    def withdraw(self, ask_id: AskId) -> None:
        self.withdrawn.append(ask_id)
        self._maybe_break("withdraw")

    def suspend(self) -> None:
        self.suspended += 1

    def answer(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._maybe_break("answer")

    # What tests look at.

    @property
    def is_over(self) -> bool:
        return bool(self.outcomes)

    @property
    def outcome(self) -> Outcome:
        assert len(self.outcomes) == 1, self.outcomes
        return self.outcomes[0]

    @property
    def text(self) -> str:
        assert isinstance(self.outcome, Result), self.outcome
        return str(json.loads(bytes(self.outcome.raw))["content"][0]["text"])

    @property
    def result(self) -> Any:
        assert isinstance(self.outcome, Result), self.outcome
        return json.loads(bytes(self.outcome.raw))

    @property
    def error(self) -> Any:
        assert isinstance(self.outcome, RpcError), self.outcome
        return json.loads(bytes(self.outcome.raw))

    @property
    def failure(self) -> CallFailed:
        assert isinstance(self.outcome, CallFailed), self.outcome
        return self.outcome

    @property
    def code(self) -> Code:
        return self.failure.code

    def say(self, result: Any, ask: Ask | None = None) -> None:
        """Answer a question."""
        self.running.reply((ask or self.asks[-1]).id, Reply(result=Raw(json.dumps(result).encode())))


class FakeWatcher:
    """A client session as the pool sees it."""

    def __init__(self, abilities: Abilities = NOBODY, user: str = "alice") -> None:
        self._abilities = abilities
        self.principal = Principal("host", user)
        self.log_level: str | None = None
        self.subscriptions: set[str] = set()
        """Of every key."""
        self.pushed: list[tuple[str, Any]] = []
        self.asks: list[tuple[Ask, Callable[[Reply], None]]] = []
        self.withdrawn: list[AskId] = []

    @property
    def abilities(self) -> Abilities:
        return self._abilities

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.pushed]

    @property
    def listens(self) -> bool:
        return False

    def subscriptions_of(self, key: SessionKey | None) -> set[str]:
        return self.subscriptions

    def push(self, method: str, params: Raw | None) -> None:
        self.pushed.append((method, None if params is None else json.loads(bytes(params))))

    def ask(self, ask: Ask, reply: Callable[[Reply], None]) -> None:
        self.asks.append((ask, reply))

    def withdraw(self, ask_id: AskId) -> None:
        self.withdrawn.append(ask_id)


class PoolRig:
    """One server's pool and catalogue."""

    def __init__(
        self,
        server: FakeServer,
        settings: ServerSettings,
        clock: ManualClock,
        scope: TaskScope,
        quota: Quota | None = None,
    ) -> None:
        self.fake = server
        self.settings = settings
        self.clock = clock
        self.scope = scope
        self.events: list[events.Event] = []
        self.server = Server(settings, server.connect, scope=scope, clock=clock, emit=self.events.append, rng=Random(1))
        if quota is not None:
            emit, rng = self.events.append, Random(1)
            self.server.pool = Pool(settings, server.connect, scope=scope, clock=clock, emit=emit, rng=rng, quota=quota)
            self.server.catalog = Catalog(settings, self.server.pool, scope=scope, clock=clock, emit=emit)
        self.pool = self.server.pool
        self.catalog = self.server.catalog

    def key(
        self,
        chat: str = "c1",
        *,
        user: str | None = "alice",
        scope: KeyScope = "chat",
        ends_with_client: bool = False,
    ) -> SessionKey:
        principal = None if scope == "shared" else Principal("host", user)
        scope_id = f"chat:{chat}" if scope == "chat" else ""
        return SessionKey(
            self.settings.name,
            "r",
            "c",
            scope,
            principal,
            scope_id=scope_id,
            ends_with_client=ends_with_client,
            asker=Principal("host", user),
        )

    def private_key(self, user: str = "alice", *, declares: Abilities | None = None) -> SessionKey:
        return private(self.key(user=user), Principal("host", user), "chat", next_nonce(), declares=declares)

    def start(
        self,
        call: Call | str = "tool",
        key: SessionKey | None = None,
        caller: FakeCaller | None = None,
        watcher: Watcher | None = None,
        **arguments: Any,
    ) -> FakeCaller:
        """Start a call, a tool's by its name, and let happen what can."""
        caller = caller or FakeCaller()
        if isinstance(call, str):
            call = Call("tools/call", {"name": call, "arguments": arguments}, wants_progress=True)
        running = self.server.start(key or self.key(), call, caller, watcher)
        if running is not None:
            caller.running = running
        return caller

    async def call(
        self,
        call: Call | str = "tool",
        key: SessionKey | None = None,
        caller: FakeCaller | None = None,
        watcher: Watcher | None = None,
        **arguments: Any,
    ) -> FakeCaller:
        """As `start`, and let happen what can."""
        caller = self.start(call, key, caller, watcher, **arguments)
        await settle()
        return caller

    async def answered(self, key: SessionKey | None = None, tool: str = "tool") -> FakeCaller:
        """A tool call that the server has answered: the session is dirty now."""
        caller = await self.call(tool, key)
        if not caller.is_over:
            self.fake.calls[-1].text("done")
        await settle()
        assert isinstance(caller.outcome, Result), caller.outcome
        return caller

    async def read(self, key: SessionKey | None = None) -> FakeCaller:
        """Start a call of a method that changes nothing."""
        return await self.call(Call("resources/read", {"uri": "file:///a"}), key)

    async def listed(self, method: str = "tools/list", key: SessionKey | None = None, **params: Any) -> FakeCaller:
        return await self.call(Call(method, params), key)

    async def passes(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due."""
        await self.clock.advance_settled(seconds)

    def seen(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def check_tables(self) -> None:
        """Nothing but sessions and watchers may be held once no call runs."""
        places, slots = self.pool._places, self.pool._dispatch.slots
        assert places.waiting == 0
        assert list(places.line) == []
        assert self.pool._quota.waiting == {}
        assert (slots.sent, slots.queued) == (0, 0)
        assert slots._busy == {}
        assert self.pool._dispatch._held == {}
        assert self.pool._dispatch._levels._held == {}
        assert self.pool._recovery._suspicions == {}
        assert len(self.pool._settling) == 0
        for session in self.pool.sessions:
            assert session.leases == 0
            assert session.calls == set()
            assert session._inquiries == set()


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


@asynccontextmanager
async def pool_rig(
    *,
    over_link: bool = False,
    fake: FakeServer | None = None,
    may_log_errors: bool = False,
    quota: Quota | None = None,
    beside: PoolRig | None = None,
    **settings: Any,
) -> AsyncGenerator[PoolRig]:
    """A rig; leaving it closes the pool and checks that no table holds anything and no error was logged.

    `beside` another, it shares that one's clock.
    """
    clock = ManualClock() if beside is None else beside.clock
    given = ServerSettings.model_validate({"name": "srv", "url": "http://127.0.0.1:1/mcp", **settings})
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    try:
        async with TaskScope() as scope:
            server = fake or FakeServer(over_link=over_link)
            rig = PoolRig(server, given, clock, scope, quota)
            rig.pool.run()
            yield rig
            closing = scope.start(rig.pool.aclose(), "close the pool")
            await rig.passes(5.0)
            assert closing.done()
            assert rig.pool.sessions == []
            rig.check_tables()
            assert all(place.watchers for place in rig.pool._places.values())
            assert all(session.is_terminated for session in server.sessions)
    finally:
        logging.getLogger().removeHandler(errors)
    assert may_log_errors or errors.records == []
