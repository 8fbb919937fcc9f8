"""curl: no library, no session, and the three steps of the report that started this project."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Generator
from typing import Any, Final

import pytest

from interop.programs import EVERYTHING_STDIO, PATIENCE, everything, holdfast
from requirements import requirement

JSON: Final = ("-H", "Content-Type: application/json")
BOTH: Final = ("-H", "Accept: application/json, text/event-stream")
NO_ACCEPT: Final = ("-H", "Accept:")
INITIALIZE: Final = (
    '{"jsonrpc":"2.0","id":0,"method":"initialize","params":'
    '{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"curl","version":"1.0"}}}'
)
BATCH: Final = (
    '[{"jsonrpc":"2.0","method":"notifications/initialized"},'
    '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}]'
)
LIST: Final = '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'


@pytest.fixture(scope="module", params=["stdio", "http"])
def url(request: pytest.FixtureRequest) -> Generator[str]:
    if request.param == "stdio":
        with holdfast("--", *EVERYTHING_STDIO) as (gateway, _):
            yield gateway
    else:
        with everything() as server, holdfast(server) as (gateway, _):
            yield gateway


def curl(url: str, body: str, *options: str) -> tuple[int, dict[str, str], str]:
    """The status, headers and body that curl got; no proxy of the environment is asked."""
    command = ["curl", "-s", "-i", "-N", "--noproxy", "*", "-m", str(PATIENCE), url, *JSON, *options, "-d", body]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    head, _, payload = done.stdout.partition("\n\n")
    status, *lines = head.splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, payload


def message_of(headers: dict[str, str], body: str) -> Any:
    """The last message of an answer, whatever form it came in."""
    if headers["content-type"].startswith("application/json"):
        return json.loads(body)
    return json.loads(re.findall(r"(?m)^data: (.*)$", body)[-1])


@requirement("interop:curl:no-session-needed")
def test_the_three_steps_of_the_report_get_their_answers(url: str) -> None:
    status, headers, body = curl(url, INITIALIZE, *BOTH)
    assert status == 200
    session = headers["mcp-session-id"]
    assert message_of(headers, body)["result"]["capabilities"]["tools"] is not None

    status, headers, body = curl(url, BATCH, "-H", f"Mcp-Session-Id: {session}", *NO_ACCEPT)
    assert status == 200
    answers = message_of(headers, body)
    assert [answer["id"] for answer in answers] == [1]
    assert "echo" in {tool["name"] for tool in answers[0]["result"]["tools"]}

    status, headers, body = curl(url, LIST)
    assert status == 200
    assert "echo" in {tool["name"] for tool in message_of(headers, body)["result"]["tools"]}


def test_a_call_without_a_session_is_answered_in_plain_json(url: str) -> None:
    call = '{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"echo","arguments":{"message":"hi"}}}'
    status, headers, body = curl(url, call)
    assert (status, headers["content-type"]) == (200, "application/json")
    answer = json.loads(body)
    assert answer["id"] == "a"
    assert answer["result"]["content"] == [{"type": "text", "text": "Echo: hi"}]


def test_a_call_without_a_session_streams_its_progress(url: str) -> None:
    call = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {
            "name": "trigger-long-running-operation",
            "arguments": {"duration": 0.4, "steps": 4},
            "_meta": {"progressToken": "bar"},
        },
    }
    status, headers, body = curl(url, json.dumps(call), *BOTH)
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    *updates, answer = [json.loads(line) for line in re.findall(r"(?m)^data: (.*)$", body)]
    assert [update["params"] for update in updates if "total" in update["params"]] == [  # others: the gateway's own
        {"progressToken": "bar", "progress": step, "total": 4} for step in range(1, 5)
    ]
    assert answer["id"] == 7
    assert "completed" in answer["result"]["content"][0]["text"]
