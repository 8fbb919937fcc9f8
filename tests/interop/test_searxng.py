"""mcp-searxng 2.4.0, which answers 20 requests without a living session in a window, and then 429."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import yaml

from interop.programs import HOLDFAST, PATIENCE, node, sdk_client, text_of
from processes import free_port, start
from requirements import requirement
from rows import Figure

CHATS: Final = 5
MESSAGES: Final = 20
"""Messages of each chat."""
ALLOWANCE: Final = 20
"""What the server grants in a window by default."""
HTTP: Final[dict[str, Any]] = {
    "headers": {"accept": "application/json, text/event-stream"},
    "trust_env": False,
    "timeout": PATIENCE,
}
INITIALIZE: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "direct", "version": "1"}},
}


class _Engine(BaseHTTPRequestHandler):
    """A SearXNG that finds one page for every query."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query).get("q", [""])[0]
        found = {"title": f"All about {query}", "content": "Everything.", "url": "https://example.test/", "score": 1.0}
        body = json.dumps({"query": query, "results": [found], "number_of_results": 1}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass


@pytest.fixture
def searxng() -> Generator[str]:
    """The server's URL; its window is longer than any test."""
    port = free_port()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Engine) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        settings = {
            "MCP_HTTP_PORT": str(port),
            "MCP_RATE_WINDOW_MS": "3600000",
            "SEARXNG_URL": f"http://127.0.0.1:{engine.server_port}",
        }
        with node("mcp-searxng-2/dist/cli.js", port=port, **settings):
            yield f"http://127.0.0.1:{port}/mcp"
        engine.shutdown()


async def message(url: str, headers: dict[str, str], query: str) -> str:
    """One message of a chat host: connect, initialize, list, call, disconnect."""
    async with sdk_client(url, mode="auto", headers=headers) as client:
        assert "searxng_web_search" in {tool.name for tool in (await client.list_tools()).tools}
        return text_of(await client.call_tool("searxng_web_search", {"query": query}))


async def test_directly_a_host_that_reconnects_is_soon_turned_away(searxng: str) -> None:
    """The yardstick: without it the next test would prove nothing."""
    async with asyncio.timeout(PATIENCE), httpx2.AsyncClient(**HTTP) as http:
        statuses = [(await http.post(searxng, json=INITIALIZE)).status_code for _ in range(ALLOWANCE + 1)]
    assert statuses == [200] * ALLOWANCE + [429]


@requirement("interop:searxng:initializes-are-spared")
async def test_a_hundred_messages_of_five_chats_cost_the_server_five_initializes(
    searxng: str, tmp_path: Path, figure: Figure
) -> None:
    """It speaks 2026-07-28 as well, but counts each request of that as one without a session."""
    port = free_port()
    settings = {
        "listen": f"127.0.0.1:{port}",
        "clients": {"host": {"trust": "openwebui"}},
        "servers": {"search": {"url": searxng, "era": "handshake"}},
    }
    file = tmp_path / "holdfast.yaml"
    file.write_text(yaml.safe_dump(settings))

    async def chat(url: str, name: str) -> None:
        headers = {"x-openwebui-user-id": "ada", "x-openwebui-chat-id": name}
        for number in range(MESSAGES):
            query = f"{name} {number}"
            assert f"All about {query}" in await message(url, headers, query)

    with start(HOLDFAST, "serve", file) as process:
        process.wait_for_line("search +ready in")
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for name in "abcde"[:CHATS]:
                group.create_task(chat(f"http://127.0.0.1:{port}/mcp", name))
    async with asyncio.timeout(PATIENCE), httpx2.AsyncClient(**HTTP) as http:
        direct = await http.post(searxng, json=INITIALIZE)
    left = int(direct.headers["ratelimit-remaining"])  # as the server counts, this one included
    initializes = ALLOWANCE - left - 1
    figure(f"{CHATS * MESSAGES} messages, each with a new client: {initializes} initializes of {ALLOWANCE} allowed")
    assert initializes == CHATS
