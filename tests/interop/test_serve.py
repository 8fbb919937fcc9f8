"""`holdfast serve`, `check` and `schema` as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from bare_client import BareClient
from interop.programs import HOLDFAST, PATIENCE
from processes import free_port, start
from requirements import requirement

SERVERS: Final = f"""
clients:
  host: {{key: "${{HOST_KEY}}", trust: {{user: x-user, chat: x-chat}}}}
servers:
  one: {{command: ["{sys.executable}", -m, holdfast.testing.server, --stdio]}}
  two: {{command: ["{sys.executable}", -m, holdfast.testing.server, --stdio], scope: user}}
"""


def holdfast(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOLDFAST), *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment
    )


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "holdfast.yaml"
    path.write_text(f"listen: 127.0.0.1:{free_port()}\n{SERVERS}")
    return path


def listening_port(settings: Path) -> int:
    return int(settings.read_text().splitlines()[0].rpartition(":")[2])


@requirement("interop:serve:several-servers-and-their-scopes")
async def test_each_server_of_the_file_is_served_by_its_own_rules(settings: Path) -> None:
    port = listening_port(settings)
    with start(str(HOLDFAST), "serve", str(settings), environment={"HOST_KEY": "sesame"}) as process:
        process.wait_for_line("one +ready in", PATIENCE)
        process.wait_for_line("two +ready in", PATIENCE)
        client = BareClient(port)
        client.headers = {"accept": "application/json", "authorization": "Bearer sesame", "x-user": "ada"}

        async def count(server: str, chat: str) -> str:
            async with client.request("POST", client.tool("count"), f"/mcp/{server}", x_chat=chat) as response:
                return str((await response.json())["result"]["content"][0]["text"])

        assert [await count("one", chat) for chat in ("a", "a", "b")] == ["1", "2", "1"]
        assert [await count("two", chat) for chat in ("a", "a", "b")] == ["1", "2", "3"]
        assert await client.status("POST", client.tool("count"), authorization="Bearer wrong") == 401
        async with client.request("POST", client.call("tools/list"), "/mcp") as response:
            names = {tool["name"] for tool in (await response.json())["result"]["tools"]}
            assert {"one__count", "two__count"} <= names
        async with client.request("POST", client.tool("count"), "/mcp/three") as response:
            assert response.status == 404
            assert "/mcp, /mcp/one, /mcp/two" in (await response.json())["error"]["message"]


@requirement("interop:serve:mistakes-are-lines")
def test_a_mistake_is_named_with_its_line_and_nothing_is_started(settings: Path) -> None:
    settings.write_text(settings.read_text().replace("scope: user", "scope: users"))
    for command in ("serve", "check"):
        done = holdfast(command, str(settings), HOST_KEY="sesame")
        assert done.returncode == 2
        assert done.stderr.startswith(f"{settings}:7: servers.two.scope: 'users' is not one of chat, user, shared")
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


@requirement("interop:serve:mistakes-are-lines")
def test_a_valid_file_is_said_to_be_so(settings: Path) -> None:
    done = holdfast("check", str(settings), HOST_KEY="sesame")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{settings} is valid: 2 servers, 1 client")


@requirement("interop:serve:mistakes-are-lines")
def test_an_absent_file_is_one_line() -> None:
    done = holdfast("serve", "absent.yaml")
    assert (done.returncode, done.stderr) == (2, "absent.yaml: cannot be read: no such file or directory\n")


@requirement("interop:serve:schema")
def test_the_schema_is_json_for_editors() -> None:
    done = holdfast("schema")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"listen", "clients", "servers"} <= set(schema["properties"])
