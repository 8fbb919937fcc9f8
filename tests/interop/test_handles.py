"""Sessions that are opened by a tool: the official SDK in the revision that has no others, and curl."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from mcp import Client

from interop.programs import PATIENCE, TEST_SERVER_STDIO, holdfast, sdk_client, shipped_server, text_of
from processes import ROOT
from requirements import requirement

pytestmark = pytest.mark.timeout(90)

MODES: Final = ("auto", "2026-07-28", "legacy")


@pytest.fixture(scope="module")
def over_http() -> Generator[str]:
    with shipped_server() as server, holdfast("--handles", server) as (url, _):
        yield url


@pytest.fixture(scope="module")
def over_stdio() -> Generator[str]:
    with holdfast("--handles", "--", *TEST_SERVER_STDIO) as (url, _):
        yield url


@pytest.fixture(params=["http", "stdio"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"over_{request.param}")
    return found


@asynccontextmanager
async def connected(url: str, mode: str) -> AsyncGenerator[Client]:
    async with asyncio.timeout(PATIENCE), sdk_client(url, mode=mode) as client:
        yield client


async def said(client: Client, tool: str, **arguments: Any) -> str:
    """What a tool says; the SDK checks arguments and results against the schemas that it was given."""
    return text_of(await client.call_tool(tool, arguments))


@requirement("interop:sdk:handles")
@pytest.mark.parametrize("mode", MODES)
async def test_a_session_that_one_client_opened_is_met_by_another(url: str, mode: str) -> None:
    async with connected(url, mode) as ada:
        tools = {tool.name: tool for tool in (await ada.list_tools()).tools}
        assert "session" in tools["remember"].input_schema["properties"]
        opened: Any = (await ada.call_tool("open_session", {})).structured_content
        session = opened["session"]
        assert await said(ada, "remember", key="colour", value="blue", session=session) == "remembered"
    for other in MODES:
        async with connected(url, other) as ben:
            assert await said(ben, "recall", key="colour", session=session) == "blue"
            unnamed = await ben.call_tool("recall", {"key": "colour"})
            assert unnamed.is_error, "the handle is what led there"
    async with connected(url, mode) as ada:
        await said(ada, "close_session", session=session)
        refused = await ada.call_tool("recall", {"key": "colour", "session": session})
        assert refused.is_error
        assert "open_session" in str(refused.content)


@requirement("interop:curl:handles")
def test_the_lines_of_the_readme_keep_state_for_curl(url: str) -> None:
    block = next(
        each
        for each in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if "$SESSION" in each
    )
    started, _, lines = block.partition("\n")
    assert re.fullmatch("holdfast run .* --handles", started)
    call = lines[lines.index("curl http") :]
    script = (lines + call).replace("http://127.0.0.1:8790/mcp", url)
    script = script.replace("--json", "--noproxy '*' -s -H 'Content-Type: application/json' -d")  # of older versions
    done = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)
    counted = re.findall(r'"text":"(\d+)"', done.stdout)
    assert counted == ["1", "2"], done.stdout
