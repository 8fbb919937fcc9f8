"""A client of revision 2026-07-28 that knows HTTP and what every request must say, and no more."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from bare_client import Response
from rig import Client, read_all

KEY: Final = "io.modelcontextprotocol/"
ABLE: Final[dict[str, Any]] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
YES: Final = {"action": "accept", "content": {"answer": "yes"}}


class Clients(Protocol):
    """A running gateway, of whichever rig."""

    def client(self, **headers: str) -> Client:
        """A client that sends these headers with every request."""
        ...


class ModernClient:
    """Each request is a connection of its own, and says for itself who asks."""

    def __init__(
        self,
        running: Clients,
        *,
        chat: str | None = None,
        capabilities: dict[str, Any] | None = None,
        path: str = "/mcp",
        **headers: str,
    ) -> None:
        self.http: Client = running.client(**headers)
        self.path = path
        self.meta: dict[str, Any] = {
            KEY + "protocolVersion": "2026-07-28",
            KEY + "clientInfo": {"name": "test", "version": "1"},
            KEY + "clientCapabilities": ABLE if capabilities is None else capabilities,
        }
        if chat is not None:
            self.meta["dev.holdfast/chat"] = chat

    def message(self, method: str, meta: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
        """A request with its envelope."""
        return self.http.call(method, **params, _meta=self.meta | (meta or {}))

    def tool(self, name: str, meta: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        """A `tools/call` with its envelope."""
        return self.message("tools/call", meta, name=name, arguments=arguments)

    def again(self, body: dict[str, Any], result: Any, **responses: Any) -> dict[str, Any]:
        """The next leg of a call that ended with `result`."""
        self.http.next_id += 1
        params = {**body["params"], "inputResponses": responses, "requestState": result["requestState"]}
        return {**body, "id": self.http.next_id, "params": params}

    @asynccontextmanager
    async def post(self, body: dict[str, Any], **headers: str | None) -> AsyncGenerator[Response]:
        """Send `body` with the headers that mirror it, but for those that are given otherwise."""
        async with self.http.request("POST", body, self.path, **(mirrored(body) | headers)) as response:
            yield response

    async def events(self, body: dict[str, Any], **headers: str | None) -> list[Any]:
        """All messages of the answer, the result last."""
        async with self.post(body, **headers) as response:
            assert response.status == 200, await response.body()
            if response.headers["content-type"] == "application/json":
                return [await response.json()]
            return await read_all(response)

    async def result(self, body: dict[str, Any], **headers: str | None) -> Any:
        """The result of a request."""
        answer = (await self.events(body, **headers))[-1]
        assert "result" in answer, answer
        return answer["result"]

    async def refused(self, body: dict[str, Any], **headers: str | None) -> tuple[int, int, Any]:
        """The status, the code and the error of a request that is refused."""
        async with self.post(body, **headers) as response:
            answer = await response.json()
            assert "error" in answer, answer
            return response.status, answer["error"]["code"], answer["error"]

    async def asked(self, body: dict[str, Any]) -> tuple[Any, list[str]]:
        """The result that asks, and the keys of its questions."""
        result = await self.result(body)
        assert result["resultType"] == "input_required", result
        return result, list(result["inputRequests"])


def mirrored(body: dict[str, Any]) -> dict[str, str | None]:
    """The headers that say what `body` says."""
    params = body.get("params", {})
    return {
        "mcp_protocol_version": "2026-07-28",
        "mcp_method": body.get("method"),
        "mcp_name": params.get("uri", params.get("name", params.get("taskId"))),
    }


def text_in(result: Any) -> str:
    """The text of a tool's result."""
    text: str = result["content"][0]["text"]
    return text


def reply_in(result: Any) -> Any:
    """What the server got as the answer to its question."""
    return json.loads(text_in(result))
