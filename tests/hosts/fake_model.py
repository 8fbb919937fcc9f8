"""A model behind OpenAI's API that does what the user's message says, so that hosts can be tested without one.

Each line `TOOL {ARGUMENTS}` of the last user message is a tool call, one per turn; TOOL is the tool's own
name, before which hosts put the server's. Then the model answers with the results, a line each. A message
without such lines is answered at once.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

MODEL: Final = "puppet"
IDLE_ANSWER: Final = "There is nothing to call."
_CALL: Final = re.compile(r"^\s*(\w+)\s+(\{.*\})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """A request that the model got."""

    at: float
    """On the clock `time.monotonic`."""
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[str]
    """The names of the tools that were offered, as the host calls them."""
    headers: Mapping[str, str] = field(repr=False)

    @property
    def user(self) -> str:
        """The last message of the user."""
        return next((text_of(each) for each in reversed(self.messages) if each["role"] == "user"), "")


class FakeModel:
    """Serves on a loopback port within its block, from threads of its own."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        """Every request for an answer, in order."""
        self.scripts: dict[str, tuple[str, str]] = {}
        """For messages in plain words: the lines that they stand for, and the answer; `{}` in it are the results."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _bound_to(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The base URL of the API; any key will do."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """The assistant's next message."""
        messages: list[Mapping[str, Any]] = body["messages"]
        offered: Sequence[Mapping[str, Any]] = body.get("tools") or []
        tools: list[str] = [tool["function"]["name"] for tool in offered]
        asked = Asked(time.monotonic(), messages, tools, headers)
        self.asked.append(asked)
        last_user = max((at for at, each in enumerate(messages) if each["role"] == "user"), default=0)
        results = [text_of(each) for each in messages[last_user:] if each["role"] == "tool"]
        lines, answer = self.scripts.get(asked.user.strip(), (asked.user, "{}"))
        calls: list[tuple[str, str]] = _CALL.findall(lines)
        if len(results) < len(calls):
            name, arguments = calls[len(results)]
            function = {"name": _full_name(name, tools), "arguments": arguments}
            call = {"index": 0, "id": f"call-{len(self.asked)}", "type": "function", "function": function}
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"role": "assistant", "content": answer.format("\n".join(results)) if results else IDLE_ANSWER}


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whichever way it is written."""
    content: str | Sequence[Mapping[str, str]] = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _full_name(name: str, tools: Sequence[str]) -> str:
    """As the host calls the tool; `name` itself where it offers no such tool."""
    return next((tool for tool in tools if re.search(rf"(^|[^A-Za-z0-9]){name}$", tool)), name)


def _bound_to(model: FakeModel) -> type[BaseHTTPRequestHandler]:
    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tests"}]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            message = model.answer(body, {name.lower(): value for name, value in self.headers.items()})
            reason = "tool_calls" if message.get("tool_calls") else "stop"
            common: dict[str, Any] = {"id": "answer", "created": 0, "model": body.get("model", MODEL)}
            if body.get("stream"):
                delta: dict[str, Any] = {"index": 0, "delta": message, "finish_reason": None}
                end: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": reason}
                chunks = ({**common, "object": "chat.completion.chunk", "choices": [each]} for each in (delta, end))
                events = [*map(json.dumps, chunks), "[DONE]"]
                self._send("".join(f"data: {event}\n\n" for event in events), "text/event-stream")
            else:
                choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reason}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                self._send(json.dumps({**common, "object": "chat.completion", "choices": [choice], "usage": usage}))

        def _send(self, text: str, content_type: str = "application/json") -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Say nothing."""

    return Requests
