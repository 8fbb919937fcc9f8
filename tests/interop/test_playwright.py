"""@playwright/mcp with Debian's Chromium: a chat's page is there in its next message."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import pytest

from interop.programs import NODE, PACKAGES, PATIENCE, holdfast, node, sdk_client, text_of
from processes import free_port
from requirements import requirement

PLAYWRIGHT: Final = PACKAGES / "@playwright" / "mcp" / "cli.js"
PAGE: Final = b"<!doctype html><title>The attic</title><h1>Dust and a trunk</h1>"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        pass


@pytest.fixture(scope="module")
def page() -> Generator[str]:
    """The URL of a page on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How the browser starts: without a window, a profile, or a word to any other machine."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium is not installed: run `make test`"
    folder = tmp_path_factory.mktemp("playwright")
    quiet = [
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
    ]
    config = folder / "config.json"
    config.write_text(json.dumps({"browser": {"launchOptions": {"args": quiet}}}))
    # As root, Chromium starts only without its sandbox; the page is our own.
    start = ["--headless", "--isolated", "--no-sandbox", "--executable-path", chromium]
    return [*start, "--config", str(config), "--output-dir", str(folder)]


@pytest.fixture(params=["stdio", "http"])
def url(request: pytest.FixtureRequest, options: list[str]) -> Generator[str]:
    """A gateway, whose client names users and chats by headers, before the browser's server."""
    trust = ("--trust", "user=X-User,chat=X-Chat")
    if request.param == "stdio":
        with holdfast(*trust, "--", NODE, PLAYWRIGHT, *options) as (gateway, _):
            yield gateway
        return
    port = free_port()
    with (
        node(PLAYWRIGHT.relative_to(PACKAGES), *options, "--port", str(port), port=port),
        holdfast(*trust, f"http://localhost:{port}/mcp") as (gateway, _),
    ):
        yield gateway


async def message(gateway: str, user: str, chat: str, tool: str, **arguments: str) -> str:
    """What a host does for one message of a chat: connect, call, disconnect."""
    headers = {"X-User": user, "X-Chat": chat}
    async with asyncio.timeout(PATIENCE), sdk_client(gateway, mode="auto", headers=headers) as client:
        return text_of(await client.call_tool(tool, arguments))


@requirement("interop:browser:a-chat-keeps-its-page")
async def test_the_next_message_of_a_chat_sees_its_page_and_no_other_chat_does(url: str, page: str) -> None:
    opened = await message(url, "ada", "chat-1", "browser_navigate", url=page)
    assert "The attic" in opened

    seen = await message(url, "ada", "chat-1", "browser_snapshot")
    assert page in seen
    assert "Dust and a trunk" in seen

    for user, chat in (("ada", "chat-2"), ("bob", "chat-1")):
        elsewhere = await message(url, user, chat, "browser_snapshot")
        assert "about:blank" in elsewhere
        assert "Dust" not in elsewhere


async def test_directly_the_next_message_finds_an_empty_browser(options: list[str], page: str) -> None:
    """The yardstick: this is what the gateway is for."""
    port = free_port()
    with node(PLAYWRIGHT.relative_to(PACKAGES), *options, "--port", str(port), port=port):
        server = f"http://localhost:{port}/mcp"
        assert "The attic" in await message(server, "ada", "chat-1", "browser_navigate", url=page)
        assert "about:blank" in await message(server, "ada", "chat-1", "browser_snapshot")
