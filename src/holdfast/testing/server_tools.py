"""The tools of the scripted server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, cast

from msgspec import Raw

from holdfast.call import LOG_LEVELS, Json
from holdfast.testing.server_core import Outlet, RpcFailure, ServerCore, Session
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import MODERN

NOTE_URI: Final = "memo://note"
VIEW_URI: Final = "ui://holdfast-test/view"
VIEW: Final[dict[str, Any]] = {
    "uri": VIEW_URI,
    "name": "view",
    "mimeType": "text/html;profile=mcp-app",
    "_meta": {"ui": {"csp": {"connectDomains": ["https://example.test"]}, "prefersBorder": True}},
}
"""What MCP Apps shows beside the tool `view`."""
APPS: Final[dict[str, Any]] = {"io.modelcontextprotocol/ui": {}}
_URL_NEEDED: Final = -32042
_ELICITATION_NUMBERS: Final = count(1)


@dataclass(slots=True)
class ToolCall:
    """One call of a tool, with its ways to the client."""

    core: ServerCore
    session: Session
    args: dict[str, Json]
    meta: dict[str, Json]
    headers: Mapping[str, str]
    outlet: Outlet
    then: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    """Run once the answer is sent."""

    def text(self, name: str, default: str | None = None) -> str:
        """A string among the arguments. Raises `RpcFailure`."""
        value = self.args.get(name, default)
        if not isinstance(value, str):
            raise RpcFailure(jsonrpc.INVALID_PARAMS, f"The argument {name!r} must be a string.")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number among the arguments. Raises `RpcFailure`."""
        value = self.args.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RpcFailure(jsonrpc.INVALID_PARAMS, f"The argument {name!r} must be a number.")
        return value

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification on the call's own stream."""
        self.outlet.send(jsonrpc.notification(method, params))

    def progress(self, step: int, total: int) -> None:
        """Report progress, if the client gave a token for it."""
        if (token := self.meta.get("progressToken")) is not None:
            self.notify(
                "notifications/progress",
                {"progressToken": token, "progress": step, "total": total, "message": f"step {step} of {total}"},
            )

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Put a request to the client and give its answer as a tool's result."""
        reply = await self.session.ask(self.outlet, method, params)
        answer = reply.result if reply.result is not None else cast("Raw", reply.error)
        return text_result(bytes(answer).decode(), is_error=reply.result is None)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as it is listed, and what it does."""

    run: Callable[[ToolCall], Awaitable[dict[str, Any]]]
    declaration: dict[str, Any]


TOOLS: Final[dict[str, Tool]] = {}
"""All tools by name; `extra` is listed only after `change_tools`."""


def text_result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    """A result with one text."""
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def _json_result(value: object) -> dict[str, Any]:
    return text_result(jsonrpc.encode(value).decode())


_Run = Callable[[ToolCall], Awaitable[dict[str, Any]]]
_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "number", "minimum": 0}
_COUNT: Final = {"type": "integer", "minimum": 0}
_FLAG: Final = {"type": "boolean"}


def _tool(
    name: str,
    description: str,
    *,
    required: tuple[str, ...] = (),
    hints: dict[str, bool] | None = None,
    execution: dict[str, str] | None = None,
    meta: dict[str, Any] | None = None,
    **schema: Any,
) -> Callable[[_Run], _Run]:
    declaration: dict[str, Any] = {
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": schema, "required": list(required)},
    }
    if hints:
        declaration["annotations"] = hints
    if execution:
        declaration["execution"] = execution
    if meta:
        declaration["_meta"] = meta

    def register(run: _Run) -> _Run:
        TOOLS[name] = Tool(run, declaration)
        return run

    return register


_READ_ONLY: Final = {"readOnlyHint": True}


@_tool(
    "remember",
    "Keeps a value for this session.",
    required=("key", "value"),
    hints={"idempotentHint": True},
    key=_TEXT,
    value=_TEXT,
)
async def remember(call: ToolCall) -> dict[str, Any]:
    """Keep a value for this session."""
    call.session.memory[call.text("key")] = call.text("value")
    return text_result("remembered")


@_tool("recall", "Gives back what was remembered.", required=("key",), hints=_READ_ONLY, key=_TEXT)
async def recall(call: ToolCall) -> dict[str, Any]:
    """Give back what this session remembers; an error where it is nothing."""
    key = call.text("key")
    if key not in call.session.memory:
        return text_result(f"nothing is remembered as {key}", is_error=True)
    return text_result(call.session.memory[key])


@_tool("count", "Counts the calls of this tool within the session.")
async def count_calls(call: ToolCall) -> dict[str, Any]:
    """Increment the session's counter."""
    call.session.counter += 1
    return text_result(str(call.session.counter))


@_tool("echo", "Returns its arguments and the call's _meta.", hints=_READ_ONLY)
async def echo(call: ToolCall) -> dict[str, Any]:
    """Return what came in."""
    return _json_result({"arguments": call.args, "_meta": call.meta})


async def _slow(call: ToolCall) -> dict[str, Any]:
    """Take time: `seconds` in `steps` steps with progress, then until the gate opens."""
    seconds, steps = call.number("seconds", 0), int(call.number("steps", 0))
    if call.args.get("hang_up") is True:
        call.outlet.hang_up()
    for step in range(1, steps + 1):
        await call.core.sleep(seconds / steps)
        call.progress(step, steps)
    if not steps and seconds:
        await call.core.sleep(seconds)
    if "gate" in call.args:
        await call.core.wait_at_gate(call.text("gate"))
    return text_result("done")


for _name, _hints in (("slow", None), ("slow_read", _READ_ONLY)):
    _tool(
        _name,
        "Takes its time; hang_up closes the stream first, where it can be resumed.",
        hints=_hints,
        seconds=_NUMBER,
        gate=_TEXT,
        steps=_COUNT,
        hang_up=_FLAG,
    )(_slow)


@_tool(
    "progress",
    "Reports progress; with a gate, waits there after the first step.",
    required=("steps",),
    steps=_COUNT,
    gate=_TEXT,
)
async def progress(call: ToolCall) -> dict[str, Any]:
    """Report progress `steps` times."""
    steps = int(call.number("steps"))
    for step in range(1, steps + 1):
        call.progress(step, steps)
        if step == 1 and "gate" in call.args:
            await call.core.wait_at_gate(call.text("gate"))
    return text_result("done")


@_tool(
    "log",
    "Sends log messages, if the session's level allows.",
    required=("level", "message"),
    level={"type": "string", "enum": list(LOG_LEVELS)},
    message=_TEXT,
    count=_COUNT,
)
async def log(call: ToolCall) -> dict[str, Any]:
    """Send `count` log messages, unless the client asked for higher levels only."""
    level, message = call.text("level"), call.text("message")
    if level not in LOG_LEVELS:
        raise RpcFailure(jsonrpc.INVALID_PARAMS, f"{level!r} is no log level.")
    floor = call.session.log_level
    if floor not in LOG_LEVELS or LOG_LEVELS.index(level) < LOG_LEVELS.index(floor):
        return text_result("below the level")
    for _ in range(int(call.number("count", 1))):
        call.notify("notifications/message", {"level": level, "logger": "test", "data": message})
    return text_result("logged")


@_tool(
    "ask",
    "Asks the person at the client.",
    required=("message",),
    message=_TEXT,
    mode={"type": "string", "enum": ["form", "url"]},
)
async def ask(call: ToolCall) -> dict[str, Any]:
    """Elicit an answer on the call's own stream."""
    is_url = call.text("mode", "form") == "url"
    if (other := _is_other(call, "2025-11-25" if is_url else "2025-06-18")) is not None:
        return other
    modes = call.session.client_capabilities.get("elicitation")
    if not isinstance(modes, dict) or (is_url and "url" not in modes):
        return text_result("the client cannot be asked: it declared no elicitation", is_error=True)
    if is_url:
        page = _page(call.text("message"))
        call.session.memory["page"] = page["elicitationId"]
        return await call.ask("elicitation/create", page)
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    return await call.ask("elicitation/create", {"message": call.text("message"), "requestedSchema": schema})


@_tool("visited", "Says that the page of the last question by URL was visited.")
async def visited(call: ToolCall) -> dict[str, Any]:
    """Say so on the stream of this call, where the revision has words for it."""
    if (other := _is_other(call, "2025-11-25", MODERN)) is not None:
        return other
    if "page" not in call.session.memory:
        return text_result("there was no such question", is_error=True)
    call.notify("notifications/elicitation/complete", {"elicitationId": call.session.memory["page"]})
    return text_result("said")


@_tool("sign_in", "Wants a page to be visited first, and is content when it is called again.")
async def sign_in(call: ToolCall) -> dict[str, Any]:
    """Fail with -32042 (2025-11-25), every other time."""
    if (other := _is_other(call, "2025-11-25", MODERN)) is not None:
        return other
    modes = call.session.client_capabilities.get("elicitation")
    if not isinstance(modes, dict) or "url" not in modes:
        return text_result("the client cannot show pages: it declared no elicitation by URL", is_error=True)
    if call.session.memory.pop("sign_in", None) is None:
        call.session.memory["sign_in"] = "wanted"
        raise RpcFailure(_URL_NEEDED, "Sign in first.", {"elicitations": [_page("Sign in.")]})
    return text_result("signed in")


def _page(message: str) -> dict[str, Any]:
    number = next(_ELICITATION_NUMBERS)
    return {"message": message, "mode": "url", "elicitationId": f"e{number}", "url": f"https://example.test/{number}"}


def _is_other(call: ToolCall, since: str, until: str = "") -> dict[str, Any] | None:
    """The tool's result where the session's revision does not have, or no longer has, what the tool is about."""
    if since <= call.session.version and (not until or call.session.version < until):
        return None
    return text_result(f"revision {call.session.version} has no such thing", is_error=True)


@_tool(
    "sample", "Asks the client's model; with tools, which it may use.", required=("prompt",), prompt=_TEXT, tools=_FLAG
)
async def sample(call: ToolCall) -> dict[str, Any]:
    """Have the client's model answer."""
    has_tools = call.args.get("tools") is True
    if has_tools and (other := _is_other(call, "2025-11-25")) is not None:
        return other
    sampling = call.session.client_capabilities.get("sampling")
    if not isinstance(sampling, dict) or (has_tools and "tools" not in sampling):
        return text_result("the client cannot sample: it declared no sampling", is_error=True)
    content = {"type": "text", "text": call.text("prompt")}
    params: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "maxTokens": 100}
    if has_tools:
        params["tools"] = [{"name": "weather", "inputSchema": {"type": "object"}}]
        params["toolChoice"] = {"mode": "auto"}
    return await call.ask("sampling/createMessage", params)


@_tool("roots", "Lists the client's roots.")
async def roots(call: ToolCall) -> dict[str, Any]:
    """List the client's roots."""
    if "roots" not in call.session.client_capabilities:
        return text_result("the client has no roots: it declared none", is_error=True)
    return await call.ask("roots/list")


@_tool(
    "errand",
    "Takes its time, and runs only as a task: it reports, logs, asks and waits as it is told.",
    execution={"taskSupport": "required"},
    steps=_COUNT,
    log=_TEXT,
    question=_TEXT,
    gate=_TEXT,
    whom=_TEXT,
)
async def errand(call: ToolCall) -> dict[str, Any]:
    """Report progress, log, ask, and wait at a gate, each only where it is asked for."""
    steps = int(call.number("steps", 0))
    for step in range(1, steps + 1):
        call.progress(step, steps)
    if "log" in call.args:
        call.notify("notifications/message", {"level": "info", "logger": "test", "data": call.text("log")})
    if "gate" in call.args:
        await call.core.wait_at_gate(call.text("gate"))
    if "question" in call.args:
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
        return await call.ask("elicitation/create", {"message": call.text("question"), "requestedSchema": schema})
    return text_result(f"done for {call.text('whom', 'nobody')}")


@_tool(
    "view",
    "Has an interface that hosts may show (MCP Apps).",
    hints=_READ_ONLY,
    meta={"ui": {"resourceUri": VIEW_URI, "visibility": ["model", "app"]}},
)
async def view(_call: ToolCall) -> dict[str, Any]:
    """Return a text, and what the interface shows."""
    return {**text_result("viewed"), "structuredContent": {"seen": True}, "_meta": {"ui": {"state": 1}}}


@_tool("whoami", "Tells how the server sees this client.", hints=_READ_ONLY)
async def whoami(call: ToolCall) -> dict[str, Any]:
    """Tell what the session and the headers of this request say of the client."""
    return _json_result(
        {
            "session": call.session.id,
            "clientInfo": call.session.client_info,
            "capabilities": call.session.client_capabilities,
            "protocolVersion": call.session.version,
            "headers": {name: value for name, value in call.headers.items() if name.startswith("x-")},
            "authorization": "authorization" in call.headers,
        }
    )


@_tool("change_tools", "Adds the tool extra, or takes it away.")
async def change_tools(call: ToolCall) -> dict[str, Any]:
    """Change the list of tools for all sessions, and tell them."""
    call.core.has_extra_tool = not call.core.has_extra_tool
    call.core.notify_all("notifications/tools/list_changed")
    return text_result("added" if call.core.has_extra_tool else "removed")


@_tool("extra", "Is there only at times.", hints=_READ_ONLY)
async def extra(_call: ToolCall) -> dict[str, Any]:
    """Do nothing."""
    return text_result("extra")


@_tool("forget_session", "Ends this session without a word, after the answer.")
async def forget_session(call: ToolCall) -> dict[str, Any]:
    """Drop the session: its next request is refused."""
    call.then.append(lambda: call.core.forget_session(call.session.id))
    return text_result("forgotten")


@_tool("crash", "Ends the process, before or after the answer.", before_answer=_FLAG)
async def crash(call: ToolCall) -> dict[str, Any]:
    """Crash the server."""
    if call.args.get("before_answer") is True:
        call.core.crash()
    else:
        call.then.append(call.core.crash)
    return text_result("crashing")


@_tool("ended", "Waits until another call has ended, and says how.", required=("which",), which=_TEXT, hints=_READ_ONLY)
async def ended(call: ToolCall) -> dict[str, Any]:
    """Tell how the call with that canary has ended, once it has."""
    which = call.text("which")

    def outcomes() -> list[str]:
        return [e.outcome for e in call.core.entries if e.canary == which and e.outcome != "running"]

    await call.core.changes.until(lambda: bool(outcomes()))
    return text_result(outcomes()[0])


@_tool("big", "Returns a text of that many bytes.", required=("bytes",), hints=_READ_ONLY, bytes=_COUNT)
async def big(call: ToolCall) -> dict[str, Any]:
    """Return a large result."""
    return text_result("x" * int(call.number("bytes")))


@_tool("fail", "Fails as tools do: with isError.", message=_TEXT)
async def fail(call: ToolCall) -> dict[str, Any]:
    """Fail."""
    return text_result(call.text("message", "failed"), is_error=True)


@_tool("change_resource", f"Changes {NOTE_URI} and tells who subscribed.", text=_TEXT)
async def change_resource(call: ToolCall) -> dict[str, Any]:
    """Change the note."""
    call.core.note = call.text("text", "changed")
    for session in call.core.sessions.values():
        if NOTE_URI in session.subscriptions:
            session.notify("notifications/resources/updated", {"uri": NOTE_URI})
    return text_result("changed")


@_tool(
    "emit",
    "Sends any notification, on the call's stream or as a push.",
    method=_TEXT,
    params={"type": "object"},
    where={"type": "string", "enum": ["call", "push"]},
)
async def emit(call: ToolCall) -> dict[str, Any]:
    """Send a notification, by default `holdfast.test/event`."""
    method, params = call.text("method", "holdfast.test/event"), call.args.get("params", {})
    if not isinstance(params, dict):
        raise RpcFailure(jsonrpc.INVALID_PARAMS, "The argument 'params' must be an object.")
    if call.text("where", "call") == "push":
        call.session.notify(method, params)
    else:
        call.notify(method, params)
    return text_result("emitted")
