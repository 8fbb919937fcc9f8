"""Whose the tasks of a session are, which callers began and come back for: nobody else reads, lists or cancels them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from holdfast.call import Call, Result, RpcError
from holdfast.session.key import Principal, TaskOwner, is_of
from holdfast.session.watch import Watcher
from holdfast.wire import jsonrpc, tasks

METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update"})
MAX_TASKS: Final = 1000
"""Tasks of one principal that are remembered; its oldest are forgotten, and unknown from then on."""

_NONE: Final = Result(Raw(b'{"tasks":[]}'))
_UNKNOWN: Final = RpcError(
    Raw(
        jsonrpc.error_object(
            jsonrpc.INVALID_PARAMS,
            "Task not found: it is unknown here, or was not begun by this caller in this conversation, or the session"
            " that held it has ended.",
        )
    )
)
"""In the same words whatever the reason, so that nobody learns of another's tasks."""


@dataclass(slots=True)
class Task:
    """A task that a caller began."""

    owner: TaskOwner
    token: Raw | None
    """The progress token that its caller gave: it holds for as long as the task runs."""
    watcher: Watcher | None
    """The client session that asked for it last, if it has one: who is told while none of its calls runs."""


class TaskBook:
    """The tasks of one session, or of all sessions with a server whose tasks belong to none."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._counts: Counter[Principal] = Counter()

    def __len__(self) -> int:
        return len(self._tasks)

    def refusal(self, call: Call, owner: TaskOwner | None, watcher: Watcher | None) -> Result | RpcError | None:
        """The answer to a request about tasks that the server should not see; None where it may."""
        if call.method == "tasks/list":
            return None if self._tasks and owner is not None else _NONE
        named = call.params.get("taskId")
        if not isinstance(named, str) or not self.is_of(named, owner):
            return _UNKNOWN
        if watcher is not None:
            self._tasks[named].watcher = watcher
        return None

    def is_of(self, task_id: str, owner: TaskOwner | None) -> bool:
        """Whether `owner` began that task."""
        task = self._tasks.get(task_id)
        return task is not None and owner is not None and task.owner == owner

    def answered(self, call: Call, outcome: Result, owner: TaskOwner | None, watcher: Watcher | None) -> Result:
        """Take note of a task that the server began, and hide from a list what is not its caller's."""
        if call.method == "tasks/list":
            return Result(self._own(outcome.raw, owner))
        if call.method in METHODS or owner is None:
            return outcome
        task_id = tasks.begun(outcome.raw, is_flat=outcome.is_task)
        if task_id is not None:
            self._note(task_id, Task(owner, _token(call), watcher))
        return outcome

    def of(self, method: str, params: Raw | None) -> Task | None:
        """The task here that a message of the server belongs to."""
        task_id = tasks.task_of(method, params) if self._tasks else None
        return None if task_id is None else self._tasks.get(task_id)

    def forget_all_of(self, client: str, user: str | None = None) -> None:
        """Forget what a configured client began, or one user of it: whoever has that name next is somebody else."""
        for task_id in [task_id for task_id, task in self._tasks.items() if is_of(task.owner.principal, client, user)]:
            self._forget(task_id)

    def _note(self, task_id: str, task: Task) -> None:
        self._forget(task_id)
        principal = task.owner.principal
        if self._counts[principal] >= MAX_TASKS:
            self._forget(next(known for known, each in self._tasks.items() if each.owner.principal == principal))
        self._tasks[task_id] = task
        self._counts[principal] += 1

    def _forget(self, task_id: str) -> None:
        task = self._tasks.pop(task_id, None)
        if task is not None:
            self._counts[task.owner.principal] -= 1
            if not self._counts[task.owner.principal]:
                del self._counts[task.owner.principal]

    def _own(self, page: Raw, owner: TaskOwner | None) -> Raw:
        fields = jsonrpc.decode_fields(page)
        listed = jsonrpc.decode_items(fields.get("tasks", b"[]"))
        own = [each for each in listed if self._owner_of(each) == owner]
        return page if len(own) == len(listed) else Raw(jsonrpc.encode({**fields, "tasks": own}))

    def _owner_of(self, listed: Raw) -> TaskOwner | None:
        task_id = tasks.task_id(jsonrpc.decode_fields(listed))
        task = None if task_id is None else self._tasks.get(task_id)
        return None if task is None else task.owner


def with_token(task: Task, method: str, params: Raw | None) -> Raw | None:
    """The params of a notification, with the progress token that the task's caller knows."""
    if method != "notifications/progress" or params is None:
        return params
    return Raw(jsonrpc.encode({**jsonrpc.decode_fields(params), "progressToken": task.token}))


def _token(call: Call) -> Raw | None:
    meta = call.params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return None if token is None or not call.wants_progress else Raw(jsonrpc.encode(token))
