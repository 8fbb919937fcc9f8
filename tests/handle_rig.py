"""Callers of every kind, who open sessions by a tool and name them in their calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from modern_client import ModernClient
from old_client import opened
from pipe_rig import pipe_client
from rig import Rig

Kind = Literal["modern", "curl", "handshake", "sse", "stdio"]
KINDS: Final[tuple[Kind, ...]] = ("modern", "curl", "handshake", "sse", "stdio")
OVER_HTTP: Final[tuple[Kind, ...]] = ("modern", "curl", "handshake")


@dataclass(frozen=True)
class Caller:
    """Somebody who calls methods; `ask` gives back whole answers."""

    ask: Callable[..., Coroutine[Any, Any, Any]]

    async def tools(self) -> dict[str, Any]:
        """The tools that it is shown, by name."""
        answer = await self.ask("tools/list")
        return {tool["name"]: tool for tool in answer["result"]["tools"]}

    async def result(self, tool: str, **arguments: Any) -> Any:
        """What a tool gives back."""
        answer = await self.ask("tools/call", name=tool, arguments=arguments)
        assert "result" in answer, answer
        return answer["result"]

    async def text(self, tool: str, **arguments: Any) -> str:
        """The text that a tool gives back, which must be none of an error."""
        result = await self.result(tool, **arguments)
        assert not result.get("isError"), result
        text: str = result["content"][0]["text"]
        return text

    async def opened(self, tool: str = "open_session") -> str:
        """The name of a new session."""
        result = await self.result(tool)
        name: str = result["structuredContent"]["session"]
        assert name in result["content"][0]["text"]
        return name

    async def refusal(self, tool: str, **arguments: Any) -> str:
        """The words with which a handle is refused."""
        result = await self.result(tool, **arguments)
        assert result["isError"] is True, result
        assert "structuredContent" not in result
        (content,) = result["content"]
        text: str = content["text"]
        return text

    async def code(self, tool: str, **arguments: Any) -> int:
        """The code of the error that a call gets."""
        answer = await self.ask("tools/call", name=tool, arguments=arguments)
        code: int = answer["error"]["code"]
        return code


@asynccontextmanager
async def calling(running: Rig, kind: Kind, *, path: str = "/mcp", **headers: str) -> AsyncGenerator[Caller]:
    """A caller of a kind, with a session of its own where that kind has one."""
    async with AsyncExitStack() as stack:
        if kind == "modern":
            modern = ModernClient(running, chat=None, capabilities=None, path=path, **headers)

            async def by_envelope(method: str, **params: Any) -> Any:
                return (await modern.events(modern.message(method, **params)))[-1]

            yield Caller(by_envelope)
        elif kind == "sse":
            old = await stack.enter_async_context(opened(running))

            async def by_stream(method: str, **params: Any) -> Any:
                return await old.ask(old.client.call(method, **params))

            yield Caller(by_stream)
        elif kind == "stdio":
            pipe = await stack.enter_async_context(pipe_client(running.gateway))
            await pipe.initialize()

            async def by_line(method: str, **params: Any) -> Any:
                return await pipe.answer(pipe.request(method, **params))

            yield Caller(by_line)
        else:
            client = running.client(**headers)
            if kind == "handshake":
                await client.open()

            async def by_post(method: str, **params: Any) -> Any:
                return await client.ask(client.call(method, **params), path)

            yield Caller(by_post)


@asynccontextmanager
async def modern(running: Rig, **headers: str) -> AsyncGenerator[Caller]:
    """A caller of 2026-07-28."""
    async with calling(running, "modern", **headers) as caller:
        yield caller
