"""Who waits for a list."""

from __future__ import annotations

from holdfast.call import AskId, Call, Caller, Reply, Result, RpcError, Running
from holdfast.errors import CallFailed, Code, Delivery
from holdfast.session.key import SessionKey
from holdfast.session.running import deliver
from holdfast.session.watch import Watcher


class Waiting:
    """A `Running` that waits for a list, or goes on in a session."""

    __slots__ = ("call", "caller", "is_over", "key", "running", "watcher")

    def __init__(self, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None) -> None:
        self.key = key
        self.call = call
        self.caller = caller
        self.watcher = watcher
        self.is_over = False
        self.running: Running | None = None

    def answer(self, outcome: Result | RpcError | CallFailed) -> None:
        if self.is_over:
            return
        self.is_over = True
        deliver(self.caller, outcome, self.call.method)

    def reply(self, ask_id: AskId, reply: Reply) -> None:
        if self.running is not None:
            self.running.reply(ask_id, reply)

    def cancel(self, reason: str) -> None:
        if self.running is not None:
            self.running.cancel(reason)
        else:
            self.answer(
                CallFailed(
                    Code.OUTCOME_UNKNOWN,
                    f"The call was cancelled: {reason}.",
                    server=self.key.server,
                    delivery=Delivery.NOT_SENT,
                    retryable=False,
                )
            )

    def pause(self) -> None:
        if self.running is not None:
            self.running.pause()

    def resume(self) -> None:
        if self.running is not None:
            self.running.resume()
