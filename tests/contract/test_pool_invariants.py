"""Whatever callers, the server and the clock do, in any order: what must hold of a pool and its catalogue."""

# pyright: reportPrivateUsage=false
# What is left behind shows in private tables only.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from fake_upstream import FakeRequest, FakeSession
from holdfast.call import Call
from holdfast.config import Limits
from holdfast.errors import OpenFailed
from holdfast.session.key import SessionKey
from holdfast.session.quota import Quota
from holdfast.testing.clock import settle
from holdfast.upstream.transport import Fault, FaultKind
from pool_rig import EVERYTHING, FakeCaller, FakeWatcher, PoolRig, pool_rig
from requirements import requirement

T = TypeVar("T")
MAX_SESSIONS = 3
PER_USER, TOTAL = 2, 3
KINDS = [kind for kind in FaultKind if kind is not FaultKind.GONE]


class Story:
    """A pool to which things happen. Each method is one thing; `n` chooses among what there is."""

    def __init__(self, rig: PoolRig) -> None:
        self.rig = rig
        self.callers: list[FakeCaller] = []
        self.attached: list[tuple[SessionKey, FakeWatcher]] = []
        self.ended: set[SessionKey] = set()

    def key(self, n: int) -> SessionKey:
        rig = self.rig
        keys = [
            rig.key("a"),
            rig.key("b"),
            rig.key("c"),
            rig.key("d", ends_with_client=True),
            rig.key(scope="shared"),
            rig.private_key(),
        ]
        return keys[n % len(keys)]

    def start(self, call: Call | str, n: int) -> None:
        watcher = self.pick([w for _, w in self.attached], n // 7)
        self.callers.append(self.rig.start(call, self.key(n), FakeCaller(EVERYTHING), watcher))

    def pick(self, items: Sequence[T], n: int) -> T | None:
        return items[n % len(items)] if items else None

    def on_request(self, n: int, act: Callable[[FakeRequest], Any]) -> None:
        """Let a session that lives act on a request that it was not told to forget."""
        requests = [r for s in self.sessions for r in s.requests if r.cancelled is None]
        request = self.pick(requests, n)
        if request is not None:
            act(request)

    def on_session(self, n: int, act: Callable[[FakeSession], Any]) -> None:
        session = self.pick([s for s in self.sessions if s.is_open and not s.is_closed], n)
        if session is not None:
            act(session)

    @property
    def sessions(self) -> list[FakeSession]:
        return [s for s in self.rig.fake.sessions if not s.is_terminated]

    # What callers do.

    def tool(self, n: int) -> None:
        self.start("tool", n)

    def read(self, n: int) -> None:
        self.start(Call("resources/read", {"uri": "file:///a"}, wants_progress=True), n)

    def lists(self, n: int) -> None:
        self.start(Call("tools/list", {} if n % 3 else {"cursor": "x"}), n)

    def cancel(self, n: int) -> None:
        caller = self.pick(self.callers, n)
        if caller is not None:
            caller.running.cancel("it left")

    def reply(self, n: int) -> None:
        caller = self.pick([c for c in self.callers if c.asks], n)
        if caller is not None:
            caller.say({"action": "accept"})

    def attach(self, n: int) -> None:
        key = self.key(n)
        watcher = FakeWatcher(EVERYTHING)
        watcher.log_level = "info"
        watcher.subscriptions = {"file:///a"} if n % 2 else set()
        if not key.is_private:
            self.rig.pool.attach(key, watcher)
            self.attached.append((key, watcher))

    def detach(self, n: int) -> None:
        attached = self.pick(self.attached, n)
        if attached is not None:
            self.attached.remove(attached)
            self.rig.server.detach(*attached)

    # What the server does.

    def answer(self, n: int) -> None:
        self.on_request(n, lambda request: request.text("ok"))

    def refuse(self, n: int) -> None:
        self.on_request(n, lambda request: request.error(-32602))

    def fail(self, n: int) -> None:
        self.on_request(n // len(KINDS), lambda request: request.fail(KINDS[n % len(KINDS)]))

    def progress(self, n: int) -> None:
        self.on_request(n, lambda request: request.progress(n))

    def ask(self, n: int) -> None:
        self.on_request(n, lambda request: request.ask())

    def ask_nobody(self, n: int) -> None:
        self.on_session(n, lambda session: session.ask("roots/list"))

    def push(self, n: int) -> None:
        def act(session: FakeSession) -> None:
            if n % 2:
                session.log("something")
            else:
                session.push("notifications/tools/list_changed")

        self.on_session(n // 2, act)

    def push_stream(self, n: int) -> None:
        self.on_session(n // 2, lambda session: session.push_stream(bool(n % 2)))

    def die(self, n: int) -> None:
        self.on_session(n, lambda session: session.die())

    def suspect(self, n: int) -> None:
        self.on_session(n, lambda session: session.suspect())

    def forget(self, n: int) -> None:
        self.rig.fake.is_known = not self.rig.fake.is_known

    def open(self, n: int) -> None:
        session = self.pick([s for s in self.sessions if not s.opening.done()], n // 3)
        if session is not None:
            session.let_open(Fault(KINDS[n % len(KINDS)], "it did not open") if n % 3 == 0 else None)

    def hold(self, n: int) -> None:
        fake = self.rig.fake
        fake.holds_openings, fake.holds_closing = bool(n % 2), bool(n % 3 == 0)

    # What the operator does.

    def end_by_hand(self, n: int) -> None:
        view = self.pick(self.rig.pool.views(), n)
        if view is not None:
            self.rig.pool.close_session(view.id)

    def revoke(self, n: int) -> None:
        if n % 10 == 0:
            self.rig.pool.close_sessions_of("host")

    def other_limits(self, n: int) -> None:
        changes = {"max_sessions": 1 + n % MAX_SESSIONS, "max_concurrency": 1 + n % 2, "spares": n % 2}
        self.rig.pool.reconfigure(self.rig.settings.model_copy(update=changes))

    def retire(self, n: int) -> None:
        if n % 20 == 0:
            self.rig.pool.retire()

    # What must hold.

    def check(self) -> None:
        pool = self.rig.pool
        assert len(pool.sessions) <= MAX_SESSIONS
        assert all(len(caller.outcomes) <= 1 for caller in self.callers)
        held = [place.session for place in pool._places.values() if place.session is not None]
        assert len(held) == len(set(held))
        for place in pool._places.values():
            assert place.session is None or place.session.key == place.key
            assert place.session is None or place.session in pool.sessions
        for session in pool.sessions:
            assert session.leases >= len(session.calls) >= 0
            assert all(run.watcher is None or run in session.calls for run in session.calls)
        if self.rig.pool._quota._limits is not None:
            assert len(pool._quota) <= TOTAL
            counted = [v for v in pool.views() if v.user is not None and v.state not in {"closed", "lost"}]
            assert len(counted) <= PER_USER
        assert pool._places.waiting == sum(len(place.waiting) for place in pool._places.values())
        assert len(self.rig.fake.sessions) - sum(s.is_terminated for s in self.rig.fake.sessions) <= MAX_SESSIONS


ACTIONS = [
    name
    for name in vars(Story)
    if not name.startswith("_")
    and name
    not in {
        "key",
        "start",
        "pick",
        "on_request",
        "on_session",
        "sessions",
        "check",
    }
]
steps = st.lists(
    st.tuples(
        st.sampled_from([*ACTIONS, "tool", "read", "tool", "answer", "settle", "settle", "time"]), st.integers(0, 200)
    ),
    max_size=60,
)


options: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"serial": st.booleans(), "spares": st.sampled_from([0, 1]), "on_loss": st.sampled_from(["tell", "resume"])},
    optional={"url": st.none(), "command": st.just(("server",))},
).filter(lambda given: ("url" in given) == ("command" in given))


async def tell(program: list[tuple[str, int]], *, over_link: bool, has_quota: bool, **options: Any) -> None:
    quota = Quota(Limits(sessions_per_user=PER_USER, sessions=TOTAL)) if has_quota else None
    async with pool_rig(
        quota=quota,
        over_link=over_link,
        max_sessions=MAX_SESSIONS,
        max_concurrency=3,
        max_queue=4,
        idle_timeout=120.0,
        call_timeout=60.0,
        ask_timeout=90.0,
        acquire_timeout=30.0,
        open_timeout=30.0,
        **options,
    ) as rig:
        story = Story(rig)
        for action, n in program:
            match action:
                case "settle":
                    await settle()
                case "time":
                    await rig.passes(n / 4)
                case _:
                    getattr(story, action)(n)
            story.check()
        rig.fake.holds_closing = False
        await rig.passes(400.0)  # nobody helps any more
        story.check()
        assert [len(caller.outcomes) for caller in story.callers] == [1] * len(story.callers)
        assert all(len(caller.withdrawn) <= len(caller.asks) for caller in story.callers)
        rig.check_tables()
        for attached in story.attached:
            rig.server.detach(*attached)
        await settle()
        assert len(rig.pool._places) == len(rig.pool.sessions) - sum(s.is_spare for s in rig.pool.sessions)


@requirement("pool:invariants")
@settings(max_examples=150)
@given(steps, st.booleans(), st.booleans(), options)
def test_every_call_ends_once_and_nothing_is_left_behind(
    program: list[tuple[str, int]], over_link: bool, has_quota: bool, options: dict[str, Any]
) -> None:
    asyncio.run(tell(program, over_link=over_link, has_quota=has_quota, **options))


async def test_a_borrower_of_a_session_that_never_opens_is_told() -> None:
    async with pool_rig() as rig:
        rig.fake.open_fault = Fault(FaultKind.INVALID, "it speaks HTML")
        told: list[str] = []

        async def borrow() -> None:
            try:
                async with rig.pool.borrow(None):
                    pass
            except OpenFailed as error:
                told.append(str(error))

        rig.scope.start(borrow(), "borrow")
        await settle()
        assert told == ["it speaks HTML"]
