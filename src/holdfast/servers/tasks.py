"""Which requests that have to do with tasks go on to a server: those that it offers, from callers who can come back."""

from __future__ import annotations

from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from holdfast.call import Abilities, Call, Result, RpcError
from holdfast.session.key import SessionKey
from holdfast.session.tasks import METHODS, TaskBook
from holdfast.upstream.transport import Hello
from holdfast.wire import jsonrpc, tasks
from holdfast.wire.revisions import MODERN

_NO_TASKS: Final = TaskBook()
_OF_2025: Final = frozenset({"tasks/get", "tasks/result", "tasks/list", "tasks/cancel"})
_OF_THE_EXTENSION: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})


def admit(
    call: Call, key: SessionKey, hello: Hello | None, abilities: Abilities, *, is_held: bool
) -> Call | Result | RpcError:
    """The call as the server may get it, or the answer to it; `is_held`: there is a session, or was one."""
    if call.method == "tools/call" and "task" in call.params:
        return without_task(call) if key.is_private else call
    if hello is not None and key.prefers_modern:
        hello = hello.discovery or hello  # one that speaks both has tasks of 2026-07-28 in sessions of it alone
    if call.method in METHODS and hello is not None and call.method not in _offered(hello, abilities):
        message = f"{call.method}: {key.server} offers no such thing."
        return RpcError(Raw(jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, message)))
    if call.method in METHODS and hello is not None and not hello.is_stateless and not is_held:
        return _NO_TASKS.refusal(call, key.owner, None) or call  # no session need be opened to know that it has none
    return call


def without_task(call: Call) -> Call:
    """A tool call of which no task is asked for: nobody could come back for it."""
    if "task" not in call.params:
        return call
    return replace(call, params={name: value for name, value in call.params.items() if name != "task"})


def _offered(hello: Hello, abilities: Abilities) -> frozenset[str]:
    """What can be done with tasks where both sides know them in the same way."""
    is_modern = hello.protocol_version == MODERN
    if is_modern != abilities.tasks:
        return frozenset()
    if is_modern:
        return _OF_THE_EXTENSION if tasks.has_extension(hello.capabilities) else frozenset()
    return _OF_2025 if "tasks" in hello.capabilities else frozenset()
