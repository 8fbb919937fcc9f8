"""docs/openwebui.md, followed in a browser: what it says to type is typed, and what it says to click is clicked."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Final

from holdfast.testing.server import ScriptedServer, ServerOptions
from hosts.fake_model import FakeModel
from hosts.open_webui import FILTER, PASSWORD, beside, open_webui, person_at
from interop.programs import NODE, holdfast
from processes import ROOT, free_port, start
from requirements import requirement

GUIDE: Final = ROOT / "docs" / "openwebui.md"
PICTURES: Final = ROOT / ".hosts" / "pictures"
"""Copied to docs/images by who has looked at them."""
KEY: Final = "a-key-as-openssl-makes-one"
ENDPOINT: Final = "http://127.0.0.1:8790/mcp"
SCRIPTS: Final = {
    "How often have I asked?": ("count {}", "This is the first time, and {} is what I count."),
    "Remember that our harbour is called Lantern.": (
        'remember {"key": "harbour", "value": "Lantern"}',
        "I have written it down.",
    ),
    "What was our harbour called?": ('recall {"key": "harbour"}', "Your harbour is called {}."),
}


def shown(pattern: str) -> str:
    """What the guide says to type, by how it begins."""
    found = re.search(rf"^\s*({pattern}.*)$", GUIDE.read_text(), re.MULTILINE)
    assert found is not None, f"the guide says nothing like {pattern}"
    return found[1]


@requirement("hosts:openwebui:guide")
async def test_who_follows_the_guide_sees_a_session_that_opens_and_state_that_is_kept(
    model: FakeModel, tmp_path: Path
) -> None:
    name, _, value = shown(r"export ENABLE_").removeprefix("export ").partition("=")
    command = shlex.split(shown(r"holdfast run http://127.0.0.1:3000/mcp --name"))[2:]
    assert ENDPOINT in GUIDE.read_text()
    model.scripts |= SCRIPTS
    PICTURES.mkdir(exist_ok=True)
    port = free_port()
    async with (
        ScriptedServer(ServerOptions(open_delay=0.2)) as server,
        beside(open_webui(tmp_path, model.url, **{name: value})) as (url, _),
        beside(holdfast(server.url, *command[1:], port=port, environment={"OPEN_WEBUI_KEY": KEY})) as (endpoint, _),
    ):
        async with person_at(url, "Ada") as ada:
            assert (await ada.ask("GET", "/api/models"))["data"]
        given = {
            "url": url,
            "email": "ada@example.org",
            "password": PASSWORD,
            "endpoint": endpoint,
            "key": KEY,
            "filter": str(FILTER),
            "chats": [
                [["How often have I asked?", "1 is what I count"]],
                [
                    ["Remember that our harbour is called Lantern.", "written it down"],
                    ["What was our harbour called?", "Your harbour is called Lantern."],
                ],
            ],
            "pictures": str(PICTURES),
            "playwright": str(ROOT / "tests" / "interop" / "node"),
        }
        with start(NODE, ROOT / "tests" / "hosts" / "guide.mjs", json.dumps(given)) as browser:
            status = await asyncio.to_thread(browser.wait, 400.0)
        assert status == 0, browser.output
        line = json.loads(browser.output.splitlines()[-1])["line"]
        assert re.fullmatch(r"browser ready: \d+ tools in \d+ ms", line)
        assert server.initializes == 2, "two chats, and the first has the session that was opened at the start"
