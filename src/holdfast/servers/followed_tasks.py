"""The tasks that a listener follows: a stream of their own with a server of 2026-07-28, for as long as somebody reads.

What such a stream missed is not sent again. So it is never opened anew: when it ends, so does what the client
reads, and the client looks for itself when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec import Raw
from msgspec.structs import replace

from holdfast.call import OURSELVES, Abilities, Answered, Outcome, Result, Running
from holdfast.clock import Clock, Timer
from holdfast.servers.gathering import Deaf
from holdfast.session.key import TaskOwner
from holdfast.session.session import Session
from holdfast.upstream.transport import Fault, FaultKind, Inquiry, Sent
from holdfast.wire import jsonrpc, tasks

ACK_TIMEOUT: Final = 5.0
"""Seconds that the server may take to say of which tasks it will tell."""

_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_NOBODY_LISTENS: Final = Fault(FaultKind.GONE, "nobody follows these tasks any more")


class Follower(Protocol):
    """Who wants to hear of tasks. `tasks_agreed` comes first and once, `tasks_ended` last and at most once."""

    def tasks_agreed(self, task_ids: Sequence[str]) -> None:
        """It will hear of these; the others are not its own, or the server tells nothing of them."""

    def task_changed(self, task_id: str, params: Raw) -> None:
        """What the task is now, as `tasks/get` would say it."""

    def tasks_ended(self) -> None:
        """It will hear of none any more."""


class FollowedTasks(Deaf):
    """What one listener follows; the caller of the `ping` that opens the session for it."""

    def __init__(
        self,
        find: Callable[[], Session | None],
        owner: TaskOwner | None,
        task_ids: Sequence[str],
        follower: Follower,
        clock: Clock,
    ) -> None:
        """`find` gives the open session of the conversation, `owner` whose tasks may be followed."""
        self._find = find
        self._owner = owner
        self._wanted = task_ids
        self._follower = follower
        self._clock = clock
        self._opening: Running | None = None
        self._stream: _Stream | None = None
        self._sent: Sent | None = None
        self._timer: Timer | None = None
        self._told_of: frozenset[str] | None = None
        """Which tasks the follower hears of; None before that was said."""
        self._is_over = False

    def begin(self, opening: Running | None) -> None:
        """The session is on its way, unless it was there."""
        if self._stream is None and not self._is_over:
            self._opening = opening

    def cancel(self) -> None:
        """Nobody follows any more; nothing is said to the follower."""
        opening, sent, stream = self._opening, self._sent, self._stream
        self._end()
        if opening is not None:
            opening.cancel("the client left")
        if sent is not None:
            sent.cancel("nobody follows these tasks any more")
        if stream is not None:
            stream.failed(_NOBODY_LISTENS)

    # The caller of the ping.

    def answer(self, outcome: Outcome) -> None:
        self._opening = None
        if self._is_over:
            return
        session = self._find() if isinstance(outcome, Result) else None
        self._wanted = [] if session is None else self._own_in(session)
        if session is None or not self._wanted:
            self.ended()
            return
        self._timer = self._clock.call_later(ACK_TIMEOUT, self._gave_no_word)
        self._stream = stream = _Stream(self, session)
        sent = session.send_inquiry("subscriptions/listen", {"notifications": {"taskIds": [*self._wanted]}}, stream)
        if not self._is_over:
            self._sent = sent

    def _own_in(self, session: Session) -> list[str]:
        """Those of the wanted that are the follower's, where the server may tell of them."""
        hello = session.hello
        if hello is None or not hello.is_modern or not tasks.has_extension(hello.capabilities):
            return []
        return [task_id for task_id in self._wanted if session.tasks.is_of(task_id, self._owner)]

    # What the stream reports.

    def acknowledged(self, params: Raw | None) -> None:
        """The server says of which tasks it will tell."""
        if self._told_of is not None or self._is_over:
            return
        self._stop_timer()
        agreed = jsonrpc.decode_fields(jsonrpc.decode_fields(params or b"{}").get("notifications", b"{}"))
        named = jsonrpc.decode_value(agreed.get("taskIds", b"null"))
        told_of = [task_id for task_id in self._wanted if isinstance(named, list) and task_id in named]
        self._told_of = frozenset(told_of)
        self._follower.tasks_agreed(told_of)

    def changed(self, params: Raw) -> None:
        """The server says how a task is."""
        task_id = tasks.task_id(jsonrpc.decode_fields(params))
        if task_id is not None and self._told_of is not None and task_id in self._told_of and not self._is_over:
            self._follower.task_changed(task_id, params)

    def ended(self) -> None:
        """The stream is over, or there is none."""
        if self._is_over:
            return
        was_agreed = self._told_of is not None
        self._end()
        if was_agreed:
            self._follower.tasks_ended()
        else:
            self._follower.tasks_agreed(())

    def _gave_no_word(self) -> None:
        self._timer = None
        sent, stream = self._sent, self._stream
        if sent is not None:
            sent.cancel("no acknowledgement")
        if stream is not None:
            stream.failed(Fault(FaultKind.TIMEOUT, "the server did not say of which tasks it will tell"))

    def _end(self) -> None:
        self._is_over = True
        self._opening = self._sent = self._stream = None
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Stream(Inquiry):
    """The exchange of one `subscriptions/listen` about tasks; it fails with its session."""

    def __init__(self, owner: FollowedTasks, session: Session) -> None:
        super().__init__(session.decline)
        self._owner = owner

    @property
    def abilities(self) -> Abilities:
        return replace(OURSELVES, tasks=True)

    def notify(self, method: str, params: Raw | None) -> None:
        if method == _ACKNOWLEDGED:
            self._owner.acknowledged(params)
        elif method == tasks.CHANGED and params is not None:
            self._owner.changed(params)
        elif method == "notifications/cancelled":
            self.failed(Fault(FaultKind.GONE, "the server ended the subscription"))

    def answered(self, outcome: Answered) -> None:
        super().answered(outcome)
        self._owner.ended()

    def failed(self, fault: Fault) -> None:
        super().failed(fault)
        self._owner.ended()
