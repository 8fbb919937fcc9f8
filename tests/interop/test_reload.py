"""A running `holdfast serve FILE` whose file is saved, or that gets SIGHUP, as its operator sees it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from bare_client import BOTH, BareClient
from interop.programs import HOLDFAST, PATIENCE, descendants, living, wait_for_the_end_of
from processes import Process, free_port, start
from requirements import requirement

SERVER: Final = {"command": [sys.executable, "-m", "holdfast.testing.server", "--stdio"]}


class Served:
    """A settings file, and the gateway that goes by it."""

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self.port = port
        self.process: Process

    def write(self, servers: dict[str, Any], **settings: Any) -> None:
        """Save the file as editors do: a new one takes its place."""
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump({"listen": f"127.0.0.1:{self.port}", "servers": servers, **settings}))
        new.replace(self.path)

    def client(self, path: str, chat: str = "c1", **headers: str) -> ChatClient:
        client = ChatClient(self.port, path)
        client.headers = {"accept": "application/json", "x-chat": chat, **headers}
        return client

    def lines(self, words: str) -> list[str]:
        """The lines so far that hold these words."""
        return [line for line in self.process.output.splitlines() if words in line]


class ChatClient(BareClient):
    """A client without a session of its own, which names its chat."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(port)
        self.path = path

    async def text(self, tool: str, **arguments: Any) -> str:
        async with asyncio.timeout(PATIENCE), self.request("POST", self.tool(tool, **arguments), self.path) as response:
            assert response.status == 200, response.status
            answer = await response.json()
            return str(answer["result"]["content"][0]["text"])

    @asynccontextmanager
    async def under_way(self, tool: str, **arguments: Any) -> AsyncGenerator[Callable[[], Awaitable[str]]]:
        """A call that the server has begun to work on; what is yielded waits for its text."""
        body = self.tool(tool, **arguments)
        body["params"]["_meta"] = {"progressToken": "t"}
        async with self.request("POST", body, self.path, accept=BOTH) as response:
            assert response.status == 200
            while (await response.message())["params"].get("total") != arguments["steps"]:
                pass

            async def text() -> str:
                while "result" not in (message := await response.message()):
                    pass
                return str(message["result"]["content"][0]["text"])

            yield text

    async def refused(self) -> int:
        async with asyncio.timeout(PATIENCE), self.request("POST", self.tool("count"), self.path) as response:
            return response.status


@contextmanager
def serve(folder: Path, servers: dict[str, Any], **settings: Any) -> Generator[Served]:
    served = Served(folder / "holdfast.yaml", free_port())
    served.write(servers, **settings)
    with start(HOLDFAST, "serve", served.path) as process:
        served.process = process
        for name in servers:
            process.wait_for_line(rf"{name} +ready in", PATIENCE)
        yield served


CHATS: Final = {"clients": {"host": {"trust": {"chat": "x-chat"}}}}


@requirement("interop:reload:saved")
async def test_a_saved_file_adds_and_removes_servers_while_chats_go_on(tmp_path: Path) -> None:
    with serve(tmp_path, {"one": SERVER, "two": SERVER}, **CHATS) as served:
        one = served.client("/mcp/one")
        assert [await one.text("count"), await served.client("/mcp/two").text("count")] == ["1", "1"]
        served.write({"one": SERVER, "three": {**SERVER, "scope": "user"}}, **CHATS)
        served.process.wait_for_line(r"new settings are in force: added three; removed two$", PATIENCE)
        served.process.wait_for_line(r"three +ready in", PATIENCE)
        assert await served.client("/mcp/three").text("count") == "1"
        assert await served.client("/mcp/two").refused() == 404
        assert await one.text("count") == "2"


@requirement("interop:reload:saved")
async def test_the_processes_of_a_removed_server_end_when_its_calls_have(tmp_path: Path) -> None:
    with serve(tmp_path, {"one": SERVER}, **CHATS) as served:
        await served.client("/mcp/one").text("count")
        kept = descendants(served.process.pid)
        served.write({"one": SERVER, "two": SERVER}, **CHATS)
        served.process.wait_for_line(r"two +ready in", PATIENCE)
        two = served.client("/mcp/two")
        async with asyncio.timeout(PATIENCE), two.under_way("slow", seconds=1.0, steps=10) as slow:
            served.write({"one": SERVER}, **CHATS)
            await asyncio.to_thread(served.process.wait_for_line, r"removed two$", PATIENCE)
            assert await slow() == "done"
        wait_for_the_end_of(descendants(served.process.pid) - kept)
        assert living(kept) == kept
        assert await served.client("/mcp/one").text("count") == "2"


@requirement("interop:reload:mistakes")
async def test_mistakes_are_said_line_by_line_once_and_the_gateway_goes_on(tmp_path: Path) -> None:
    with serve(tmp_path, {"one": SERVER}, **CHATS) as served:
        one = served.client("/mcp/one")
        assert await one.text("count") == "1"
        served.write({"one": {**SERVER, "scope": "all"}, "two": {"url": "nowhere"}}, **CHATS)
        served.process.wait_for_line("the new settings have mistakes; those before stay in force", PATIENCE)
        served.process.wait_for_line(r"holdfast.yaml:\d+: servers.one.scope: 'all' is not one of", PATIENCE)
        served.process.wait_for_line(r"holdfast.yaml:\d+: servers.two.url: ", PATIENCE)
        assert await one.text("count") == "2"
        served.write({"one": SERVER}, **CHATS)
        served.process.wait_for_line("new settings are in force: no server differs$", PATIENCE)
        assert await one.text("count") == "3"
        assert len(served.lines("servers.one.scope")) == 1
        assert "Traceback" not in served.process.output


@requirement("interop:reload:sighup")
async def test_sighup_without_a_change_is_one_line_and_ends_nothing(tmp_path: Path) -> None:
    with serve(tmp_path, {"one": SERVER}, **CHATS) as served:
        one = served.client("/mcp/one")
        assert await one.text("count") == "1"
        before = descendants(served.process.pid)
        served.process.send(signal.SIGHUP)
        served.process.wait_for_line("new settings are in force: no server differs$", PATIENCE)
        assert await one.text("count") == "2"
        assert descendants(served.process.pid) == before
        assert served.process.is_running()


@requirement("interop:reload:sighup")
async def test_a_key_in_a_file_is_replaced_by_saving_it(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    clients = {"clients": {"host": {"key": {"file": "key"}, "trust": {"chat": "x-chat"}}}}
    write(secret, "old\n")
    with serve(tmp_path, {"one": SERVER}, **clients) as served:
        assert await served.client("/mcp/one", authorization="Bearer old").text("count") == "1"
        write(secret, "new\n")
        served.process.wait_for_line("new settings are in force", PATIENCE)
        assert await served.client("/mcp/one", authorization="Bearer old").refused() == 401
        assert await served.client("/mcp/one", authorization="Bearer new").text("count") == "2"


@requirement("interop:reload:saved")
async def test_the_log_follows_its_settings_and_another_address_is_said_to_wait(tmp_path: Path) -> None:
    with serve(tmp_path, {"one": SERVER}, **CHATS) as served:
        other = yaml.safe_load(served.path.read_text()) | {"listen": "127.0.0.1:1", "log": {"format": "json"}}
        write(served.path, yaml.safe_dump(other))
        served.process.wait_for_line("another listen takes effect at the next start; the rest is in force", PATIENCE)
        assert await served.client("/mcp/one").text("count") == "1"
        served.process.send(signal.SIGHUP)
        served.process.wait_for_line(r'^\{.*"event": "settings_reloaded"', PATIENCE)


@requirement("interop:reload:sighup")
async def test_signals_in_a_row_and_one_while_it_ends_do_no_harm(tmp_path: Path) -> None:
    with serve(tmp_path, {"one": SERVER}, **CHATS) as served:
        for _ in range(20):
            served.process.send(signal.SIGHUP)
        served.process.wait_for_line("new settings are in force", PATIENCE)
        assert await served.client("/mcp/one").text("count") == "1"
        served.process.send(signal.SIGTERM)
        served.process.send(signal.SIGHUP)
        assert served.process.wait(PATIENCE) == 0
        assert "Traceback" not in served.process.output


def write(path: Path, text: str) -> None:
    path.write_text(text)
