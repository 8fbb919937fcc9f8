"""The examples for agent frameworks and for FastAPI, run as they stand, with a model that is none."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from holdfast.testing.server import ScriptedServer
from interop.programs import HOLDFAST, READY
from processes import ROOT, free_port, start
from requirements import requirement

HOSTS: Final = ROOT / ".hosts"
DRIVERS: Final = ROOT / "tests" / "hosts" / "drivers"
PATIENCE: Final = 120.0
"""Seconds: frameworks take long to import on a busy machine."""

FRAMEWORKS: Final = {
    "langchain_agent.py": "langchain",
    "openai_agent.py": "frameworks",
    "pydantic_agent.py": "frameworks",
}
"""The driver of each example, and the virtual environment that it runs in."""


def remember(user: str, chat: str, colour: str) -> tuple[str, str, str]:
    """A message that has something remembered."""
    return user, chat, f"remember {json.dumps({'key': 'colour', 'value': colour})}"


def recall(user: str, chat: str) -> tuple[str, str, str]:
    """A message that asks for it."""
    return user, chat, f"recall {json.dumps({'key': 'colour'})}"


TALK: Final = (
    *(remember("alice", "a", "blue"), remember("alice", "b", "green"), remember("bob", "a", "red")),
    *(recall("alice", "a"), recall("alice", "b"), recall("bob", "a")),
    *(remember("bob", "a", "black"), recall("alice", "a"), recall("bob", "a")),
)
ANSWERS: Final = [*["remembered"] * 3, "blue", "green", "red", "remembered", "blue", "black"]


@requirement("library:frameworks")
@pytest.mark.parametrize("driver", FRAMEWORKS)
async def test_an_agent_keeps_the_state_of_each_chat_from_message_to_message(driver: str) -> None:
    async with asyncio.timeout(PATIENCE), ScriptedServer() as upstream:
        settings = {"servers": {"notes": {"url": upstream.url}}}
        assert await driven(FRAMEWORKS[driver], driver, json.dumps(settings)) == ANSWERS
        assert upstream.initializes == 3, "one for each chat, and none for what follows"


async def driven(environment: str, driver: str, target: str) -> list[str]:
    """What a driver answers to the messages of the talk."""
    process = await asyncio.create_subprocess_exec(
        HOSTS / environment / "bin" / "python",
        DRIVERS / driver,
        target,
        json.dumps(TALK),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    answers: list[str] = json.loads(output)
    return answers


@requirement("library:frameworks")
async def test_a_client_for_every_tool_call_meets_the_chat_that_its_url_names() -> None:
    async with asyncio.timeout(PATIENCE), ScriptedServer() as upstream:
        port = free_port()
        with start(HOLDFAST, "run", "--name", "notes", "--port", str(port), upstream.url) as process:
            await asyncio.to_thread(process.wait_for_line, READY)
            url = f"http://127.0.0.1:{port}/mcp/notes"
            said = await driven("langchain", "langchain_gateway.py", url)
        assert said == ANSWERS
        assert upstream.initializes == 3


@requirement("library:frameworks")
async def test_an_application_in_fastapi_keeps_them_until_its_user_logs_out(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE), ScriptedServer() as upstream:
        settings, port = tmp_path / "holdfast.yaml", free_port()
        settings.write_text(json.dumps({"servers": {"notes": {"url": upstream.url}}}))
        uvicorn: list[str | Path] = [
            HOSTS / "frameworks" / "bin" / "python",
            "-m",
            "uvicorn",
            "library_fastapi:app",
            "--port",
            str(port),
        ]
        with start(
            *uvicorn, "--app-dir", ROOT / "examples", environment={"HOLDFAST_SETTINGS": str(settings)}
        ) as process:
            await asyncio.to_thread(process.wait_for_line, "Uvicorn running")
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

                async def post(user: str, path: str, **arguments: Any) -> httpx2.Response:
                    return await client.post(path, json=arguments, headers={"x-user": user}, timeout=PATIENCE)

                async def say(user: str, chat: str, text: str) -> str:
                    tool, _, arguments = text.partition(" ")
                    response = await post(user, f"/chats/{chat}/notes/{tool}", **json.loads(arguments))
                    said: str = response.json()["content"][0]["text"]
                    return said

                assert [await say(*message) for message in TALK] == ANSWERS
                assert upstream.initializes == 3
                listed = await client.get("/chats/a/notes", headers={"x-user": "alice"}, timeout=PATIENCE)
                assert "recall" in {tool["name"] for tool in listed.json()}
                refused = [await post("alice", path) for path in ("/chats/a/nope/recall", "/chats/a/notes/nope")]
                assert [response.status_code for response in refused] == [404, 400]
                assert (await post("", "/chats/a/notes/recall")).status_code == 422
                assert (await post("alice", "/logout")).status_code == 204
                assert "nothing" in await say(*recall("alice", "a"))
                assert await say(*recall("bob", "a")) == "black"


@requirement("library:frameworks")
@pytest.mark.parametrize("environment", ["frameworks", "langchain"])
def test_the_examples_are_typed_by_the_types_of_their_frameworks(environment: str) -> None:
    python, config = HOSTS / environment / "bin" / "python", ROOT / "tests" / "hosts" / f"{environment}.json"
    checked = subprocess.run(
        [ROOT / ".venv" / "bin" / "pyright", "--pythonpath", python, "--project", config],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
