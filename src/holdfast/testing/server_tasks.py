"""The tasks of the scripted server, as 2025-11-25 has them: one tool, and what is done with what it begins.

It is as careless as a server may be that knows nobody: ids can be guessed, and whoever knows one has the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from holdfast.call import Json
from holdfast.testing.server_core import Changes, Outlet, RpcFailure, ServerCore, Session, TaskStatus
from holdfast.testing.server_tools import TOOLS, ToolCall
from holdfast.wire import jsonrpc
from holdfast.wire.tasks import RELATED, STATUS

CAPABILITY: Final[dict[str, Any]] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
POLL_INTERVAL_MS: Final = 50
METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/list", "tasks/cancel"})

_OVER: Final = frozenset({"completed", "failed", "cancelled"})


@dataclass(slots=True, eq=False)
class ScriptedTask:
    """A tool call on its way, and the `Outlet` of what it has to say: to whoever waits for its result."""

    id: str
    session: Session
    changes: Changes
    ttl: Json = None
    status: TaskStatus = "working"
    result: Mapping[str, Any] | None = None
    failure: RpcFailure | None = None
    work: asyncio.Task[None] | None = None
    _reader: Outlet | None = None
    _kept: list[bytes] = field(default_factory=list[bytes])

    @property
    def is_over(self) -> bool:
        """Whether it has come to an end."""
        return self.status in _OVER

    def shown(self) -> dict[str, Any]:
        """The task as clients see it."""
        now = datetime.now(UTC).isoformat()
        about = {"taskId": self.id, "status": self.status, "createdAt": now, "lastUpdatedAt": now}
        return {**about, "ttl": self.ttl, "pollInterval": POLL_INTERVAL_MS}

    def become(self, status: TaskStatus) -> None:
        """Change, unless it is over, and tell."""
        if not self.is_over and status != self.status:
            self.status = status
            self.session.notify(STATUS, self.shown())
            self.changes.touch()

    async def fetch(self, reader: Outlet) -> Mapping[str, Any]:
        """Wait for the end, with what there is to say going to `reader`. Raises `RpcFailure`."""
        self._reader = reader
        kept, self._kept = self._kept, []
        for message in kept:
            reader.send(message)
        try:
            await self.changes.until(lambda: self.is_over)
        finally:
            if self._reader is reader:
                self._reader = None
        if self.failure is not None:
            raise self.failure
        if self.result is None:
            raise RpcFailure(jsonrpc.INVALID_PARAMS, f"The task {self.id} was cancelled.")
        meta = self.result.get("_meta", {})
        return {**self.result, "_meta": {**meta, RELATED: {"taskId": self.id}}}

    # Outlet

    @property
    def has_reader(self) -> bool:
        return self._reader is not None

    def send(self, message: bytes) -> None:
        """Say something that bears the task's name, to whoever waits for the result, or comes to."""
        fields = jsonrpc.decode_fields(message)
        params = jsonrpc.decode_fields(fields.get("params", b"{}"))
        meta = jsonrpc.decode_fields(params.get("_meta", b"{}"))
        named: dict[str, Any] = {**params, "_meta": {**meta, RELATED: {"taskId": self.id}}}
        whole = jsonrpc.encode({**fields, "params": named})
        if "id" in fields:
            self.become("input_required")
        if self._reader is not None:
            self._reader.send(whole)
        elif "id" not in fields and self.session.push is not None:
            self.session.push.send(whole)
        else:
            self._kept.append(whole)

    def answer(self, message: bytes | None, then: list[Callable[[], None]]) -> None: ...

    def hang_up(self) -> None: ...


def begin(core: ServerCore, call: ToolCall, params: Mapping[str, Json]) -> Mapping[str, Any]:
    """Begin a tool call as a task. Raises `RpcFailure` where the tool is none of those."""
    name, wish = params.get("name"), params.get("task")
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None or "execution" not in tool.declaration:
        raise RpcFailure(jsonrpc.METHOD_NOT_FOUND, f"{name} is no task.")
    task = ScriptedTask(
        f"t{len(core.tasks) + 1}",
        call.session,
        core.changes,
        ttl=wish.get("ttl") if isinstance(wish, dict) else None,
    )
    core.tasks[task.id] = task

    async def work() -> None:
        try:
            task.result = await tool.run(replace(call, outlet=task))
            task.become("failed" if task.result.get("isError") is True else "completed")
        except RpcFailure as failure:
            task.failure = failure
            task.become("failed")
        finally:
            task.become("cancelled")

    task.work = core.scope.start(work(), f"task {task.id}")
    core.changes.touch()
    return {"task": task.shown()}


async def answer(core: ServerCore, call: ToolCall, method: str, params: Mapping[str, Json]) -> Mapping[str, Any]:
    """The result of a request about tasks. Raises `RpcFailure`."""
    if method == "tasks/list":
        return {"tasks": [task.shown() for task in core.tasks.values()]}
    named = params.get("taskId")
    task = core.tasks.get(named) if isinstance(named, str) else None
    if not isinstance(task, ScriptedTask):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, f"Task not found: {named}")
    match method:
        case "tasks/result":
            return await task.fetch(call.outlet)
        case "tasks/cancel":
            if task.is_over:
                raise RpcFailure(jsonrpc.INVALID_PARAMS, f"The task is {task.status} already.")
            task.become("cancelled")
            if task.work is not None:
                task.work.cancel()
            return task.shown()
        case _:
            return task.shown()
