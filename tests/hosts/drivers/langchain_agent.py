"""examples/library_langchain.py, with a model that is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chats import answer, call_in
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from library_langchain import reply


class Puppet(BaseChatModel):
    """Does what the user's message says."""

    @property
    def _llm_type(self) -> str:
        return "puppet"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        assert len(tools) > 5
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        last = messages[-1]
        if isinstance(last, HumanMessage):
            name, arguments = call_in(str(last.text))
            message = AIMessage(content="", tool_calls=[tool_call(name=name, args=arguments, id="1")])
        else:
            message = AIMessage(content=str(last.text))
        return ChatResult(generations=[ChatGeneration(message=message)])


answer(lambda pool, user, chat, text: reply(pool, Puppet(), user, chat, text))
