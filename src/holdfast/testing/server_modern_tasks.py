"""The tasks of the scripted server of 2026-07-28: the extension, as `errand` uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Raw

from holdfast.call import Json
from holdfast.testing.server_core import Outlet, RpcFailure, ServerCore, Session, TaskStatus
from holdfast.testing.server_tasks import POLL_INTERVAL_MS, ScriptedTask
from holdfast.testing.server_tools import TOOLS, ToolCall
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import MODERN
from holdfast.wire.tasks import CHANGED, EXTENSION

CAPABILITY: Final[dict[str, Any]] = {EXTENSION: {}}
METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
MISSING_CAPABILITY: Final = -32021


class ModernTask(ScriptedTask):
    """A task that shows its questions and its result to whoever looks."""

    def __init__(self, task_id: str, session: Session, core: ServerCore) -> None:
        super().__init__(task_id, session, core.changes)
        self.questions: dict[str, Any] = {}
        self._core = core

    def become(self, status: TaskStatus) -> None:
        before = self.status
        super().become(status)
        if self.status != before:
            for session in self._core.sessions.values():
                if session.version == MODERN:
                    session.notify(CHANGED, self.shown())

    def shown(self) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        about: dict[str, Any] = {"taskId": self.id, "status": self.status, "createdAt": now, "lastUpdatedAt": now}
        about |= {"ttlMs": None, "pollIntervalMs": POLL_INTERVAL_MS}
        if self.status == "input_required":
            return {**about, "inputRequests": self.questions}
        if self.failure is not None:
            return {**about, "error": {"code": self.failure.code, "message": self.failure.message}}
        return about if self.result is None else {**about, "result": self.result}


@dataclass(slots=True, eq=False)
class Working(Session):
    """The conversation of a tool that runs as a task: it asks by showing that it waits."""

    task: ModernTask | None = None
    answers: dict[str, Raw] = field(default_factory=dict[str, Raw])

    async def ask(self, outlet: Outlet, method: str, params: Mapping[str, Any] | None) -> jsonrpc.ClientReply:
        del outlet
        task = self.task
        if task is None:
            raise RpcFailure(jsonrpc.INVALID_PARAMS, "There is no task.")
        number = next(self.numbers)
        name = f"question {number}"
        task.questions[name] = {"method": method, "params": params or {}}
        task.become("input_required")
        await task.changes.until(lambda: name in self.answers)
        del task.questions[name]
        if not task.questions:
            task.become("working")
        return jsonrpc.ClientReply(number, self.answers.pop(name), None)


def declares(session: Session) -> bool:
    """Whether the client of a request can be answered with a task."""
    extensions = session.client_capabilities.get("extensions")
    return isinstance(extensions, dict) and EXTENSION in extensions


async def errand(call: ToolCall) -> dict[str, Any]:
    """Begin the tool of that name as a task. Raises `RpcFailure` where the client knows none."""
    if not declares(call.session):
        raise _missing()
    core, asking = call.core, call.session
    session = Working(asking.id, asking.version, asking.client_info, asking.client_capabilities)
    session.task = task = ModernTask(f"m{len(core.tasks) + 1}", session, core)
    core.tasks[task.id] = task

    async def work() -> None:
        try:
            task.result = await TOOLS["errand"].run(replace(call, session=session, outlet=task))
            task.become("completed")
        except RpcFailure as failure:
            task.failure = failure
            task.become("failed")
        finally:
            task.become("cancelled")

    task.work = core.scope.start(work(), f"task {task.id}")
    return {"resultType": "task", **task.shown()}


def followed(core: ServerCore, session: Session, wanted: Json) -> list[str]:
    """Of the tasks that a `subscriptions/listen` names, those that there are. Raises `RpcFailure`."""
    if wanted is None:
        return []
    if not declares(session):
        raise _missing()
    return [name for name in wanted if isinstance(name, str) and name in core.tasks] if isinstance(wanted, list) else []


def answer(core: ServerCore, session: Session, method: str, params: Mapping[str, Json]) -> dict[str, Any]:
    """The result of a request about tasks. Raises `RpcFailure`."""
    if not declares(session):
        raise _missing()
    named = params.get("taskId")
    task = core.tasks.get(named) if isinstance(named, str) else None
    if not isinstance(task, ModernTask):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, f"Task not found: {named}")
    match method:
        case "tasks/get":
            return task.shown()
        case "tasks/update":
            responses = params.get("inputResponses")
            for name, response in (responses if isinstance(responses, dict) else {}).items():
                if name in task.questions and isinstance(task.session, Working):
                    task.session.answers[name] = Raw(jsonrpc.encode(response))
            core.changes.touch()
            return {}
        case _:
            task.become("cancelled")
            if task.work is not None:
                asyncio.get_running_loop().call_soon(task.work.cancel)
            return {}


def _missing() -> RpcFailure:
    data = {"requiredCapabilities": {"extensions": CAPABILITY}}
    return RpcFailure(MISSING_CAPABILITY, "The client does not declare that it knows tasks.", data)
