"""The MCP Inspector as a command, which never ends its sessions."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from interop.programs import NODE, PACKAGES, PATIENCE, TEST_SERVER_STDIO, holdfast, shipped_server
from processes import start
from requirements import requirement

INSPECTOR: Final = PACKAGES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"


@pytest.fixture(scope="module", params=["http", "stdio"])
def url(request: pytest.FixtureRequest) -> Generator[str]:
    if request.param == "stdio":
        with holdfast("--", *TEST_SERVER_STDIO) as (gateway, _):
            yield gateway
    else:
        with shipped_server() as server, holdfast(server) as (gateway, _):
            yield gateway


def inspect(url: str, home: Path, *arguments: str) -> Any:
    """What the Inspector prints."""
    command: tuple[str | Path, ...] = (INSPECTOR, "--cli", url, "--transport", "http", *arguments)
    with start(NODE, *command, environment={"HOME": str(home)}) as process:
        status = process.wait(PATIENCE)
        assert status == 0, process.output
        return json.loads(process.output[process.output.index("{") :])


@requirement("interop:inspector:lists-and-calls")
def test_tools_are_listed_and_called(url: str, tmp_path: Path) -> None:
    listed = inspect(url, tmp_path, "--method", "tools/list")
    assert "remember" in {tool["name"] for tool in listed["tools"]}
    call = ("--method", "tools/call", "--tool-name", "remember", "--tool-arg", "key=pet", "value=cat")
    assert inspect(url, tmp_path, *call)["content"] == [{"type": "text", "text": "remembered"}]


def test_resources_and_prompts_are_read(url: str, tmp_path: Path) -> None:
    note = inspect(url, tmp_path, "--method", "resources/read", "--uri", "memo://note")
    assert note["contents"][0]["uri"] == "memo://note"
    prompt = inspect(url, tmp_path, "--method", "prompts/get", "--prompt-name", "greet", "--prompt-args", "name=Ada")
    assert prompt["messages"][0]["content"]["text"] == "Greet Ada."
