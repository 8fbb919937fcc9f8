"""LiteLLM's real proxy in front of Holdfast, and Holdfast in its place, as docs/litellm.md sets them up."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import mcp_types as types
import pytest
import yaml
from mcp import Client
from mcp.client.client import ConnectMode

from hosts.fake_model import IDLE_ANSWER, MODEL, FakeModel
from hosts.litellm_proxy import MASTER_KEY, Remembering, blocks, chat_client, litellm
from interop.programs import HOLDFAST, PATIENCE, Steps, holdfast, text_of
from processes import Process, free_port, start
from requirements import requirement

KEY: Final = "key-for-tests"
BEHIND: Final = "Holdfast behind LiteLLM"
INSTEAD: Final = "In LiteLLM's place"
ACCEPT: Final = {"Accept": "application/json, text/event-stream"}


@dataclass(frozen=True)
class Way:
    """How the proxy is spoken to, and how it speaks to Holdfast."""

    mode: ConnectMode
    upstream: str
    """The server of its config: `browser`, as in the guide, or `older`, which shakes hands."""

    def tool(self, name: str) -> str:
        """What LiteLLM calls a tool."""
        return f"{self.upstream}-{name}"

    def __str__(self) -> str:
        return f"{self.mode}-{self.upstream}"


@dataclass(frozen=True)
class House:
    """LiteLLM, Holdfast behind it, and a server that remembers behind that."""

    url: str
    proxy: Process
    gateway: Process
    server: Remembering
    at_start: list[str]
    """What the server was asked until LiteLLM had started."""

    def message(self, way: Way, chat: str, user: str = "ada", **callbacks: Any) -> AbstractAsyncContextManager[Client]:
        """A client as a chat host makes it for one message."""
        url = f"{self.url}/mcp/{way.upstream}"
        return chat_client(url, user=user, chat=f"{chat} {way}", mode=way.mode, **callbacks)

    async def count(self, way: Way, chat: str, user: str = "ada") -> str:
        """What one message gets that lists the tools and calls one."""
        async with asyncio.timeout(PATIENCE), self.message(way, chat, user) as client:
            assert way.tool("count") in [tool.name for tool in (await client.list_tools()).tools]
            return text_of(await client.call_tool(way.tool("count"), {}))

    def initializes(self) -> int:
        """How many sessions the server opened so far."""
        return self.server.methods().count("initialize")


WAYS: Final = [Way(mode, upstream) for mode in ("legacy", "auto") for upstream in ("browser", "older")]
every_way: Final = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture(scope="module")
def house(model: FakeModel, tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    """What the guide says, with other ports alone."""
    server = Remembering()
    server.restart()
    (command,) = [
        line for block in blocks("sh", BEHIND) for line in block.splitlines() if line.startswith("holdfast run")
    ]
    words = shlex.split(command.replace("http://127.0.0.1:3000/mcp", server.url))[2:]
    config = yaml.safe_load(blocks("yaml", BEHIND)[0])
    try:
        with holdfast(*words, "--log-level", "debug", environment={"LITELLM_MCP_KEY": KEY}) as (url, gateway):
            assert config["mcp_servers"]["browser"]["url"] == "http://127.0.0.1:8790/mcp"
            config["mcp_servers"]["browser"]["url"] = url
            older = {key: value for key, value in config["mcp_servers"]["browser"].items() if key != "protocol_version"}
            config["mcp_servers"]["older"] = older
            folder = tmp_path_factory.mktemp("litellm")
            with litellm(config, folder, model.url, LITELLM_MCP_KEY=KEY) as (proxy, process):
                yield House(proxy, process, gateway, server, server.methods())
            assert "answered with 404" not in gateway.output
    finally:
        server.close()


@requirement("hosts:litellm:start")
async def test_its_list_at_start_names_nobody_and_costs_the_server_nothing(house: House) -> None:
    assert house.at_start.count("initialize") == 1  # Holdfast's own, when it started
    before = house.initializes()
    async with asyncio.timeout(PATIENCE), chat_client(f"{house.url}/mcp/") as client:
        assert "browser-count" in [tool.name for tool in (await client.list_tools()).tools]
    assert house.initializes() == before


@requirement("hosts:litellm:state")
@every_way
async def test_every_chat_of_every_user_keeps_its_state_over_messages(house: House, way: Way) -> None:
    chats = [(user, chat) for user in ("ada", "ben") for chat in ("one", "two")]
    before = house.initializes()
    first = [await house.count(way, chat, user) for user, chat in chats]
    assert first == ["1"] * 4
    opened = house.initializes()
    assert opened - before <= 4  # one may be the session that Holdfast opened at its start
    later = [[await house.count(way, chat, user) for _ in range(3)] for user, chat in chats]
    assert later == [["2", "3", "4"]] * 4
    assert house.initializes() == opened


@requirement("hosts:litellm:state")
def test_it_keeps_the_state_of_a_chat_when_it_runs_the_tools_itself(house: House) -> None:
    tool = {"type": "mcp", "server_label": "hf", "server_url": "litellm_proxy/mcp/browser", "require_approval": "never"}

    def message(user: str, chat: str) -> str:
        answer = httpx2.post(
            f"{house.url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {MASTER_KEY}", "x-user-id": user, "x-chat-id": chat},
            json={"model": MODEL, "messages": [{"role": "user", "content": "count {}"}], "tools": [tool]},
            timeout=PATIENCE,
        )
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["message"]["content"]
        return text

    assert [message("ada", "loop") for _ in range(3)] == ["1", "2", "3"]
    opened = house.initializes()
    assert message("ada", "loop") == "4"
    assert house.initializes() == opened
    assert message("ben", "loop") == "1"


@requirement("hosts:litellm:loss")
@every_way
async def test_a_lost_session_is_told_once_and_it_goes_on_working(house: House, way: Way) -> None:
    async with asyncio.timeout(PATIENCE), house.message(way, "lost") as client:
        for expected in ("1", "2"):
            assert text_of(await client.call_tool(way.tool("count"), {})) == expected
        await asyncio.to_thread(house.server.restart)
        told = await client.call_tool(way.tool("count"), {})
        assert told.is_error
        (said,) = told.content
        assert isinstance(said, types.TextContent)
        assert "what it remembered is gone" in said.text
        for expected in ("1", "2"):
            assert text_of(await client.call_tool(way.tool("count"), {})) == expected
    assert await house.count(way, "lost") == "3"


@requirement("hosts:litellm:relay")
@every_way
async def test_progress_and_questions_pass_through_it(house: House, way: Way) -> None:
    async def say_yes(_: Any, __: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"answer": "yes"})

    async with (
        asyncio.timeout(PATIENCE),
        house.message(way, "asks", elicitation_callback=say_yes) as client,
    ):
        steps = Steps()
        slow = await client.call_tool(way.tool("slow"), {"seconds": 0.3, "steps": 3}, progress_callback=steps)
        assert text_of(slow) == "done"
        assert steps.seen == [(1, 3), (2, 3), (3, 3)]
        asked = await client.call_tool(way.tool("ask"), {"message": "Sure?"})
        assert json.loads(text_of(asked)) == {"action": "accept", "content": {"answer": "yes"}}
        sampled = await client.call_tool(way.tool("sample"), {"prompt": "Say something."})
        assert json.loads(text_of(sampled))["content"]["text"] == IDLE_ANSWER  # by LiteLLM's own model


@requirement("hosts:litellm:bursts")
@every_way
async def test_a_burst_of_clients_opens_one_session_with_the_server(house: House, way: Way) -> None:
    before = house.initializes()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.count(way, "burst")) for _ in range(10)]
    assert sorted(int(task.result()) for task in tasks) == list(range(1, 11))
    assert house.initializes() <= before + 1


@requirement("hosts:litellm:sessionless")
def test_curl_without_a_session_meets_the_state_of_its_chat_as_the_guide_shows(house: House) -> None:
    (command,) = [block for block in blocks("sh", BEHIND) if block.startswith("curl")]
    words = shlex.split(
        command.replace("\\\n", "")
        .replace("http://127.0.0.1:4000", house.url)
        .replace("$LITELLM_MASTER_KEY", MASTER_KEY)
    )

    def run() -> str:
        done = subprocess.run(
            [*words, "--silent", "--noproxy", "*"], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        (data,) = re.findall(r"^data: (.*)$", done.stdout, re.MULTILINE)
        text: str = json.loads(data)["result"]["content"][0]["text"]
        return text

    assert [run(), run()] == ["1", "2"]


async def test_a_key_that_is_none_is_refused_by_litellm_and_reaches_nobody(house: House) -> None:
    before = len(house.server.ledger())
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        refused = await http.post(f"{house.url}/mcp/", json=body, headers={**ACCEPT, "Authorization": "Bearer sk-no"})
    assert 400 <= refused.status_code < 500
    assert len(house.server.ledger()) == before


# In its place.


@dataclass(frozen=True)
class Seen:
    """What a program of a user's gets to see."""

    tools: list[str]
    texts: list[str]


async def use(url: str, server: str) -> Seen:
    """The same program, whatever serves the URL: it lists the tools and works with those of one server."""
    async with asyncio.timeout(PATIENCE), chat_client(url) as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        texts = [
            text_of(await client.call_tool(f"{server}-remember", {"key": "k", "value": "v"})),
            text_of(await client.call_tool(f"{server}-recall", {"key": "k"})),
        ]
    return Seen(tools, texts)


@asynccontextmanager
async def imported(
    config: Mapping[str, Any], folder: Path, change: Callable[[str], str] = str, **environment: str
) -> AsyncGenerator[str]:
    """The URL of Holdfast with what it makes of LiteLLM's file, by the commands of the guide."""
    (folder / "litellm.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    commands = [shlex.split(line) for line in blocks("sh", INSTEAD)[0].splitlines()]
    known = {"LITELLM_MASTER_KEY": MASTER_KEY, **environment}
    *before, serve = commands
    for command in before:
        words = [str(HOLDFAST), *(str(folder / each) if each.endswith(".yaml") else each for each in command[1:])]
        done = await asyncio.create_subprocess_exec(*words, env=known)
        assert await done.wait() == 0, command
    path = folder / "holdfast.yaml"
    port = free_port()
    listen = "listen: 127.0.0.1:8790"
    text = path.read_text()
    assert listen in text
    path.write_text(change(text.replace(listen, f"listen: 127.0.0.1:{port}")))
    with start(HOLDFAST, serve[1], path, environment=known) as process:
        await asyncio.to_thread(process.wait_for_port, port)
        yield f"http://127.0.0.1:{port}/mcp"


def stdio_server() -> dict[str, Any]:
    """What takes the place of the guide's browser."""
    return {"command": sys.executable, "args": ["-m", "holdfast.testing.server", "--stdio"]}


@pytest.fixture
def memory() -> Generator[Remembering]:
    server = Remembering()
    server.restart()
    yield server
    server.close()


@requirement("hosts:litellm:in-its-place")
@pytest.mark.parametrize("is_alone", [False, True])
async def test_a_client_finds_the_same_tools_under_the_same_names(
    model: FakeModel, memory: Remembering, tmp_path: Path, *, is_alone: bool
) -> None:
    config = yaml.safe_load(blocks("yaml", INSTEAD)[0])
    config["mcp_servers"]["memory"]["url"] = memory.url
    config["mcp_servers"]["browser"] |= stdio_server()
    if is_alone:
        del config["mcp_servers"]["browser"]
    with litellm(config, tmp_path, model.url, MEMORY_TOKEN="token") as (proxy, _):
        at_litellm = await use(f"{proxy}/mcp/", "memory")
    async with imported(config, tmp_path, MEMORY_TOKEN="token") as url:
        at_holdfast = await use(url, "memory")
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            refused = await http.post(url, json=body, headers={**ACCEPT, "Authorization": "Bearer sk-no"})
            assert refused.status_code == 401
    assert at_holdfast == at_litellm
    assert at_holdfast.texts == ["remembered", "v"]
    assert {name.partition("-")[0] for name in at_holdfast.tools} == ({"memory"} if is_alone else {"memory", "browser"})


@requirement("hosts:litellm:in-its-place")
async def test_in_its_place_a_stdio_server_keeps_its_state_for_chats_that_are_named(tmp_path: Path) -> None:
    config = yaml.safe_load(blocks("yaml", INSTEAD)[0])
    config["mcp_servers"]["browser"] |= stdio_server()
    del config["mcp_servers"]["memory"]
    trust = yaml.safe_load(blocks("yaml", INSTEAD)[1])["clients"]["master"]["trust"]

    def trusting(text: str) -> str:
        key = '    key: "${LITELLM_MASTER_KEY}"\n'
        assert key in text
        return text.replace(key, f"{key}    trust: {json.dumps(trust)}\n")

    async with imported(config, tmp_path, trusting) as url:
        for expected in ("1", "2", "3"):
            async with asyncio.timeout(PATIENCE), chat_client(url, user="ada", chat="one") as client:
                assert text_of(await client.call_tool("browser-count", {})) == expected
