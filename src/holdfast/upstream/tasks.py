"""The tasks of one conversation of 2025-11-25 that are waited for, and which tools must be called as such."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol

from msgspec import Raw

from holdfast.call import Answered, Call, Result
from holdfast.clock import Clock, timeout
from holdfast.upstream.awaited_task import AwaitedTask, Ears
from holdfast.upstream.transport import Exchange, Fault, Inquiry, Listener, Sent
from holdfast.wire import jsonrpc, tasks

MAX_TOOLS: Final = 10_000
"""Tools of which it is remembered whether they must be tasks; the oldest are forgotten, and found out again."""
CANCELLING: Final = 1.0
"""Seconds for the server to hear that tasks are cancelled, before the session with them ends."""


class TaskTools:
    """Which tools of a server must be called as tasks, as its lists said last; shared by its sessions."""

    def __init__(self) -> None:
        self._by_name: dict[str, bool] = {}

    def requires(self, tool: str | None) -> bool | None:
        """Whether a tool must be a task; None where it was not listed yet."""
        return None if tool is None else self._by_name.get(tool)

    def note(self, tool: str, *, is_required: bool) -> None:
        """Take what a list, or a refusal, says of a tool."""
        self._by_name.pop(tool, None)
        self._by_name[tool] = is_required
        if len(self._by_name) > MAX_TOOLS:
            del self._by_name[next(iter(self._by_name))]

    def learn(self, page: Raw) -> None:
        """Take a page of a list."""
        for item in jsonrpc.decode_items(jsonrpc.decode_fields(page).get("tools", b"[]")):
            fields = jsonrpc.decode_fields(item)
            name = jsonrpc.decode_value(fields.get("name", b"null"))
            if isinstance(name, str):
                self.note(name, is_required=tasks.must_be_task(fields))


async def heard(inquiries: Iterable[Inquiry], clock: Clock) -> None:
    """Return when the server has answered these, or has had its time for it."""
    if waiting := [inquiry.outcome for inquiry in inquiries]:
        with suppress(TimeoutError):
            async with timeout(clock, CANCELLING):
                await asyncio.wait(waiting)


class Conversation(Protocol):
    """What carries their requests."""

    def transmit(self, call: Call, exchange: Exchange) -> Sent:
        """Send a request; the exchange may be ended before this returns."""
        ...

    def mint(self) -> int:
        """A number that no other request has."""
        ...


class AwaitedTasks:
    """The calls that are tasks at the server, or may be: the `Desk` of each."""

    def __init__(self, conversation: Conversation, listener: Listener, tools: TaskTools, clock: Clock) -> None:
        self.clock = clock
        self.is_offered = False
        """The server runs tools as tasks."""
        self._conversation = conversation
        self._listener = listener
        self._tools = tools
        self._by_token: dict[int, AwaitedTask] = {}
        self._cancelling: dict[Inquiry, None] = {}

    def take(self, call: Call, exchange: Exchange) -> Sent | None:
        """Send `call` where it has to do with tasks that the caller does not ask for; None where it has not."""
        if not self.is_offered:
            return None
        if call.method == "tools/list":
            return self._conversation.transmit(call, _ListedTools(exchange, self._tools))
        is_required = self._tools.requires(call.target)
        if call.method != "tools/call" or "task" in call.params or is_required is False:
            return None
        awaited = AwaitedTask(self, call, exchange, is_known=is_required is True)
        self._by_token[awaited.token] = awaited
        awaited.start()
        return awaited

    def with_token(self, token: int) -> AwaitedTask | None:
        """Whose progress bears this token."""
        return self._by_token.get(token)

    def of(self, method: str, params: Raw | None) -> AwaitedTask | None:
        """The one that a message of the server belongs to, whichever stream it came on."""
        task = tasks.task_of(method, params) if self._by_token else None
        return None if task is None else next((each for each in self._by_token.values() if each.task == task), None)

    def lost(self, fault: Fault) -> None:
        """The session is gone, and every request under way was failed: end those between two."""
        for awaited in list(self._by_token.values()):
            awaited.failed(fault)

    def stop(self) -> None:
        """Send nothing more."""
        for awaited in list(self._by_token.values()):
            awaited.stop()

    async def finish_cancelling(self) -> None:
        """Return when the server knows which tasks are cancelled, for a session that ends takes such words with it."""
        await heard(self._cancelling, self.clock)

    # Desk

    def transmit(self, call: Call, exchange: Exchange) -> Sent:
        return self._conversation.transmit(call, exchange)

    def mint_token(self) -> int:
        return self._conversation.mint()

    def doubt(self, fault: Fault) -> None:
        self._listener.suspected(fault)

    def is_task(self, tool: str | None) -> None:
        if tool is not None:
            self._tools.note(tool, is_required=True)

    def cancel_task(self, task: str) -> None:
        inquiry = Inquiry(self._listener.asked)
        self._cancelling[inquiry] = None
        inquiry.outcome.add_done_callback(lambda _: self._cancelling.pop(inquiry, None))
        self._conversation.transmit(Call("tasks/cancel", {"taskId": task}), inquiry)

    def ended(self, awaited: AwaitedTask) -> None:
        self._by_token.pop(awaited.token, None)


class _ListedTools(Ears):
    """A `tools/list` from which it is learned which tools must be tasks."""

    def __init__(self, exchange: Exchange, tools: TaskTools) -> None:
        super().__init__(exchange)
        self._tools = tools

    def answered(self, outcome: Answered) -> None:
        if isinstance(outcome, Result):
            self._tools.learn(outcome.raw)
        self._exchange.answered(outcome)

    def failed(self, fault: Fault) -> None:
        self._exchange.failed(fault)
