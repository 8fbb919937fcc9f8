"""What happens to a call that got no answer, and to the session that it was sent in."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final, Protocol

from holdfast import events
from holdfast.call import RpcError
from holdfast.clock import Clock
from holdfast.config import ServerSettings
from holdfast.errors import Delivery
from holdfast.session import retry
from holdfast.session.breaker import Breaker
from holdfast.session.lifecycle import State
from holdfast.session.opening import JITTER, Life, ask_for_life
from holdfast.session.retry import Attempt, Verdict
from holdfast.session.running import Phase, RunningCall
from holdfast.session.session import Session
from holdfast.tasks import TaskScope
from holdfast.upstream.transport import Fault, FaultKind

BUDGET: Final = 10.0
"""Repetitions that may come at once; beyond that, a tenth of all calls may be sent again."""


class Sessions(Protocol):
    """What recovery asks of the pool."""

    def mark_lost(self, session: Session) -> None:
        """Take a dead session from its key, so that whatever comes next gets another."""

    def lose(self, session: Session, reason: str) -> None:
        """The session is gone: drop it, leave a marker where somebody must be told."""

    def told(self, session: Session) -> None:
        """Somebody hears that `session` was lost: the next call of its key need not."""

    def restart(self, run: RunningCall, session: Session) -> None:
        """Send a call of a dead session in the one that follows it."""


class _Suspicion:
    """What waits until it is known whether a session lives."""

    def __init__(self) -> None:
        self.calls: list[tuple[RunningCall, Fault]] = []
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Recovery:
    """Decides by `retry` and does what was decided."""

    def __init__(
        self,
        sessions: Sessions,
        settings: ServerSettings,
        *,
        scope: TaskScope,
        clock: Clock,
        emit: events.Emit,
        rng: Random,
        breaker: Breaker,
    ) -> None:
        self._breaker = breaker
        self._sessions = sessions
        self.settings = settings
        self._scope = scope
        self._clock = clock
        self._emit = emit
        self._rng = rng
        self.started = 0
        """Calls that were started since the budget was looked at: each earns a tenth of a repetition."""
        self._earned = BUDGET
        self._suspicions: dict[Session, _Suspicion] = {}

    def faulted(self, run: RunningCall, session: Session, fault: Fault) -> None:
        """Decide what becomes of `run`."""
        if fault.kind is FaultKind.GONE:
            self._sessions.mark_lost(session)
        self._carry_out(run, session, retry.judge(fault, self._attempt(run, session)), fault)

    def _carry_out(self, run: RunningCall, session: Session, verdict: Verdict, fault: Fault) -> None:
        match verdict:
            case Verdict.SUSPECT:
                self._suspicion(session, fault.reason).calls.append((run, fault))
            case Verdict.RESEND:
                self._earned = self._budget - 1
                self._note_repetition(run, fault)
                self._clock.call_later(self._rng.uniform(0, JITTER), lambda: self._resend(run))
            case _:
                self._conclude(run, session, verdict, fault)

    def suspect(self, session: Session, reason: str) -> None:
        """Find out whether `session` lives, once at a time."""
        self._suspicion(session, reason)

    async def find_out(self, session: Session, reason: str) -> None:
        """As `suspect`, and return once it is known."""
        await asyncio.shield(self._suspicion(session, reason).is_over)

    def _suspicion(self, session: Session, reason: str) -> _Suspicion:
        suspicion = self._suspicions.get(session)
        if suspicion is None:
            suspicion = self._suspicions[session] = _Suspicion()
            self._scope.start(self._settle(session, suspicion, reason), f"ask whether {session.id} lives")
        return suspicion

    async def _settle(self, session: Session, suspicion: _Suspicion, reason: str) -> None:
        if session.lives:
            life = await ask_for_life(session, self._clock, self._rng)
            session.is_forgotten = life is Life.FORGOTTEN
        else:
            life = Life.FORGOTTEN if session.is_forgotten else Life.UNKNOWN
        del self._suspicions[session]
        if life is not Life.ALIVE:
            self._sessions.mark_lost(session)
        for run, fault in suspicion.calls:
            if run.phase is not Phase.ENDED:
                self._resolve(run, session, life, fault)
        if life is not Life.ALIVE:
            self._sessions.lose(session, reason)
        suspicion.is_over.set_result(None)

    def _resolve(self, run: RunningCall, session: Session, life: Life, fault: Fault) -> None:
        """Decide for a call that was refused, now that it is known what became of its session."""
        match life:
            case Life.ALIVE if fault.error is not None:
                run.end(RpcError(fault.error))
            case Life.ALIVE:
                is_missed = session.state is State.LOST and session.is_dirty
                run.end(retry.failure(fault, run.call, self.settings.name, is_missed=is_missed))
            case Life.UNKNOWN:
                doubt = Fault(
                    FaultKind.CUT, f"{fault.detail}, and the server could not be asked whether it was executed"
                )
                self._carry_out(run, session, retry.judge(doubt, self._attempt(run, session)), doubt)
            case Life.FORGOTTEN:
                verdict = retry.judge_lost(self._attempt(run, session))
                if verdict is Verdict.FAIL and not run.has_relayed:
                    run.end(retry.refused_again(self.settings.name, fault))
                else:
                    self._conclude(run, session, verdict, fault)

    def _conclude(self, run: RunningCall, session: Session, verdict: Verdict, fault: Fault) -> None:
        match verdict:
            case Verdict.RESTART:
                self._note_repetition(run, fault)
                self._sessions.restart(run, session)
            case Verdict.TELL_LOST:
                self._sessions.told(session)
                run.end(retry.session_lost(self.settings.name))
            case _:
                if session.state is State.LOST:
                    if not run.is_ahead:
                        self._sessions.told(session)
                elif fault.kind not in {FaultKind.NOT_SENT, FaultKind.UNAUTHORIZED}:
                    session.abandon()
                    if retry.leaves_traces(run.call, run.safety):
                        session.remember()
                    session.is_doubted = fault.kind is FaultKind.CUT
                if fault.remark:
                    self._emit(events.CallFailed(self.settings.name, run.call.method, fault.reason, run.call.request))
                self._breaker.unanswered(run, fault)
                failure = retry.failure(fault, run.call, self.settings.name)
                if run.is_ahead and failure.delivery is Delivery.UNKNOWN:  # of nothing that matters
                    failure = retry.unavailable(self.settings.name, fault.detail)
                run.end(failure)

    def _note_repetition(self, run: RunningCall, fault: Fault) -> None:
        run.was_sent_before = True
        may_have_run = fault.kind not in {FaultKind.NOT_SENT, FaultKind.REFUSED} and not run.is_ahead
        run.may_have_run = run.may_have_run or may_have_run
        self._emit(events.CallRepeated(self.settings.name, run.call.method, fault.detail, run.call.request))

    def _resend(self, run: RunningCall) -> None:
        if run.phase is Phase.ENDED or run.session is None:
            return
        if run.session.lives:
            run.send(run.session)
        else:
            self._sessions.restart(run, run.session)

    @property
    def _budget(self) -> float:
        """Repetitions that may come now."""
        self._earned = min(BUDGET, self._earned + self.started / 10)
        self.started = 0
        return self._earned

    def _attempt(self, run: RunningCall, session: Session) -> Attempt:
        return Attempt(
            safety=run.safety,
            was_sent_before=run.was_sent_before,
            has_relayed=run.has_relayed,
            is_dirty=session.is_dirty and not session.is_doubted,
            resumes=run.is_ahead or self.settings.on_loss == "resume",
            has_budget=self._budget >= 1,
        )
