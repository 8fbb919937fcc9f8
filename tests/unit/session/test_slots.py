"""Slots, alone: never more sent than the limit, first come first served, nothing left behind."""

# pyright: reportPrivateUsage=false
# What is left behind shows in private tables only.

from __future__ import annotations

from typing import cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.session.running import RunningCall
from holdfast.session.session import Session
from holdfast.session.slots import Admission, Slots


class Run:
    """What slots see of a call."""

    def __init__(self, session: str | None = "s") -> None:
        self.session = session
        self.has_slot = False


def as_run(run: Run) -> RunningCall:
    return cast("RunningCall", run)


def as_session(name: str) -> Session:
    return cast("Session", name)


def test_calls_beyond_the_limit_wait_and_beyond_the_queue_are_refused() -> None:
    slots = Slots(1, 1, serial=False)
    runs = [Run(), Run(), Run()]
    assert [slots.admit(as_run(run)) for run in runs] == [Admission.SEND, Admission.QUEUED, Admission.FULL]
    slots.release(as_run(runs[2]))
    assert (slots.sent, slots.queued) == (1, 1)
    slots.release(as_run(runs[0]))
    assert slots.next() is as_run(runs[1])
    assert slots.next() is None


def test_nobody_overtakes_who_waits() -> None:
    slots = Slots(2, 9, serial=False)
    a, b, c = Run(), Run(), Run()
    for run in (a, b, c):
        slots.admit(as_run(run))
    slots.release(as_run(a))
    late = Run()
    assert slots.admit(as_run(late)) is Admission.QUEUED  # the slot is c's
    assert slots.next() is as_run(c)


def test_a_serial_session_that_is_busy_holds_up_no_other() -> None:
    slots = Slots(9, 9, serial=True)
    a1, a2, b1 = Run("a"), Run("a"), Run("b")
    assert [slots.admit(as_run(r)) for r in (a1, a2, b1)] == [Admission.SEND, Admission.QUEUED, Admission.SEND]
    assert slots.queued_for(as_session("a")) == [as_run(a2)]
    slots.release(as_run(a1))
    assert slots.next() is as_run(a2)


class SlotsMachine(RuleBasedStateMachine):
    """Calls that come, go, park and return in any order, beside a list of what each of them holds."""

    @initialize(limit=st.integers(1, 3), queue=st.integers(1, 4), serial=st.booleans())
    def begin(self, limit: int, queue: int, serial: bool) -> None:
        self.slots = Slots(limit, queue, serial=serial)
        self.limit, self.queue, self.serial = limit, queue, serial
        self.sent: list[Run] = []
        self.parked: list[Run] = []
        self.waiting: list[Run] = []
        self.returned = 0
        """How many of those that were parked may now exceed the limit."""

    @rule(session=st.sampled_from("ab"))
    def admit(self, session: str) -> None:
        run = Run(session)
        match self.slots.admit(as_run(run)):
            case Admission.SEND:
                assert len(self.sent) < self.limit
                self.sent.append(run)
            case Admission.QUEUED:
                self.waiting.append(run)
            case Admission.FULL:
                assert len(self.waiting) == self.queue
                self.slots.release(as_run(run))

    @precondition(lambda self: self.sent or self.parked or self.waiting)
    @rule(choice=st.data())
    def release(self, choice: st.DataObject) -> None:
        run = choice.draw(st.sampled_from([*self.sent, *self.parked, *self.waiting]))
        for held in (self.sent, self.parked, self.waiting):
            if run in held:
                held.remove(run)
        self.slots.release(as_run(run))
        self.go_on()

    @precondition(lambda self: self.sent)
    @rule(choice=st.data())
    def park(self, choice: st.DataObject) -> None:
        run = choice.draw(st.sampled_from(self.sent))
        self.sent.remove(run)
        self.parked.append(run)
        self.slots.park(as_run(run), is_parked=True)
        self.go_on()

    @precondition(lambda self: self.parked)
    @rule(choice=st.data())
    def come_back(self, choice: st.DataObject) -> None:
        run = choice.draw(st.sampled_from(self.parked))
        self.parked.remove(run)
        self.sent.append(run)
        self.returned += 1
        self.slots.park(as_run(run), is_parked=False)

    def go_on(self) -> None:
        while (run := self.slots.next()) is not None:
            assert len(self.sent) < self.limit
            found = next(r for r in self.waiting if as_run(r) is run)
            self.waiting.remove(found)
            self.sent.append(found)

    @invariant()
    def counts_are_right(self) -> None:
        assert self.slots.sent == len(self.sent) <= self.limit + self.returned
        assert self.slots.queued == len(self.waiting) <= self.queue
        assert all(run.has_slot for run in self.sent)
        assert not any(run.has_slot for run in [*self.parked, *self.waiting])

    @invariant()
    def a_serial_session_runs_one(self) -> None:
        running = [run.session for run in [*self.sent, *self.parked]]
        assert not self.serial or len(running) == len(set(running))

    def teardown(self) -> None:
        for run in [*self.sent, *self.parked, *self.waiting]:
            self.slots.release(as_run(run))
        assert (self.slots.sent, self.slots.queued, self.slots._busy) == (0, 0, {})


TestSlots = SlotsMachine.TestCase
