"""MCP Apps: what a server says of its interfaces passes as it is, whatever revisions meet."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import pytest

from holdfast.testing.server_tools import TOOLS, VIEW, VIEW_URI
from modern_client import KEY, ModernClient, text_in
from requirements import requirement
from rig import Rig, rig
from several import several

UI: Final = "io.modelcontextprotocol/ui"
SETTINGS: Final = {"mimeTypes": ["text/html;profile=mcp-app", "text/x-other"]}
DECLARED: Final[dict[str, Any]] = {"extensions": {UI: SETTINGS, "com.example/own": {"a": 1}}}
ERAS: Final = ("handshake", "modern")

Era = Literal["handshake", "modern"]


class Asking:
    """A client of either revision, as far as results go."""

    def __init__(self, running: Any, era: Era, chat: str | None = "c") -> None:
        self.modern = ModernClient(running, chat=chat, capabilities=DECLARED) if era == "modern" else None
        self.http = running.client()

    async def open(self) -> dict[str, Any]:
        """What the server offers."""
        if self.modern is not None:
            hello = await self.modern.result(self.modern.message("server/discover"))
        else:
            hello = await self.http.open(**DECLARED)
        offered: dict[str, Any] = hello["capabilities"]
        return offered

    async def result(self, method: str, **params: Any) -> Any:
        if self.modern is not None:
            return await self.modern.result(self.modern.message(method, **params))
        return (await self.http.ask(self.http.call(method, **params)))["result"]


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


@requirement("apps:pass")
@pytest.mark.parametrize("client", ERAS)
@pytest.mark.parametrize("server", ERAS)
async def test_tools_resources_and_results_keep_what_they_say_of_their_interfaces(client: Era, server: Era) -> None:
    async with rig(options={"era": server}) as running:
        asking = Asking(running, client)
        assert (await asking.open())["extensions"][UI] == {}
        tools = (await asking.result("tools/list"))["tools"]
        assert named(tools, "view") == TOOLS["view"].declaration
        resources = (await asking.result("resources/list"))["resources"]
        assert named(resources, "view") == VIEW
        (content,) = (await asking.result("resources/read", uri=VIEW_URI))["contents"]
        assert (content["uri"], content["_meta"]) == (VIEW_URI, VIEW["_meta"])
        result = await asking.result("tools/call", name="view", arguments={})
        assert (result["structuredContent"], result["_meta"]["ui"]) == ({"seen": True}, {"state": 1})


@requirement("apps:pass")
@pytest.mark.parametrize("client", ERAS)
async def test_where_servers_are_merged_interfaces_keep_their_addresses(client: Era) -> None:
    async with several("a", "b") as running:
        asking = Asking(running, client)
        await asking.open()
        tools = (await asking.result("tools/list"))["tools"]
        assert named(tools, "a__view")["_meta"] == TOOLS["view"].declaration["_meta"]
        resources = (await asking.result("resources/list"))["resources"]
        assert named(resources, "view") == VIEW
        (content,) = (await asking.result("resources/read", uri=VIEW_URI))["contents"]
        assert content["uri"] == VIEW_URI


async def declared_to(running: Rig, client: Era, chat: str | None) -> Any:
    asking = Asking(running, client, chat)
    await asking.open()
    seen = json.loads(text_in(await asking.result("tools/call", name="whoami", arguments={})))
    return seen["capabilities"].get("extensions")


@requirement("apps:declared")
async def test_a_modern_server_is_told_of_a_callers_own_extensions() -> None:
    async with rig(options={"era": "modern"}) as running:
        for client in ERAS:
            for chat in ("c", None):
                assert await declared_to(running, client, chat) == DECLARED["extensions"]
        plain = ModernClient(running, capabilities={})
        assert "extensions" not in json.loads(text_in(await plain.result(plain.tool("whoami"))))["capabilities"]


@requirement("apps:declared")
async def test_a_server_with_a_handshake_is_told_that_interfaces_are_relayed() -> None:
    async with rig() as running:
        for client in ERAS:
            assert list(await declared_to(running, client, "c")) == [UI]
        assert await declared_to(running, "modern", None) == DECLARED["extensions"], (
            "its own session, and nobody else's"
        )


@requirement("apps:declared")
async def test_a_modern_server_lists_its_tools_to_one_who_shows_interfaces() -> None:
    async with rig(options={"era": "modern"}) as running:
        listed = [entry for entry in running.upstream.ledger if entry.method == "tools/list"]
        meta: Any = listed[0].args["_meta"]
        assert UI in meta[KEY + "clientCapabilities"]["extensions"]
