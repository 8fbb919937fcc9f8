"""examples/library_openai_agents.py, with a model that is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Model, ModelResponse, Usage, set_tracing_disabled
from chats import answer, call_in
from library_openai_agents import reply
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


class Puppet(Model):
    """Does what the user's message says."""

    async def get_response(self, system_instructions: str | None, input: Any, *_: Any, **__: Any) -> ModelResponse:  # noqa: A002
        last: dict[str, Any] = {"content": input} if isinstance(input, str) else input[-1]
        if last.get("type") == "function_call_output":
            output = last["output"]
            said = output if isinstance(output, str) else output[0]["text"]
            text = ResponseOutputText(type="output_text", text=said, annotations=[])
            message = ResponseOutputMessage(
                id="m", type="message", role="assistant", status="completed", content=[text]
            )
            return ModelResponse(output=[message], usage=Usage(), response_id=None)
        name, arguments = call_in(last["content"])
        call = ResponseFunctionToolCall(type="function_call", call_id="1", name=name, arguments=json.dumps(arguments))
        return ModelResponse(output=[call], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


set_tracing_disabled(True)  # it would send what was said to OpenAI
answer(lambda pool, user, chat, text: reply(pool, Puppet(), user, chat, text))
