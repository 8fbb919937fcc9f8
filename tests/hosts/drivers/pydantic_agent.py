"""examples/library_pydantic_ai.py, with a model that is none."""

from __future__ import annotations

from chats import answer, call_in
from library_pydantic_ai import reply
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


def puppet(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Does what the user's message says."""
    assert len(info.function_tools) > 5
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse(parts=[TextPart(last.model_response_str())])
    assert isinstance(last, UserPromptPart)
    return ModelResponse(parts=[ToolCallPart(*call_in(str(last.content)))])


answer(lambda pool, user, chat, text: reply(pool, FunctionModel(puppet), user, chat, text))
