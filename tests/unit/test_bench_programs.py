"""The programs that measure: the server answers, and the load generator sees what is wrong with answers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from bench.compile import compile_program


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled programs, where there is a compiler."""
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("needs a C compiler; `make bench` installs one")
    folder = tmp_path_factory.mktemp("bench")
    compile_program("load", folder)
    compile_program("upstream", folder)
    return folder


def load(programs: Path, port: int, *options: str) -> dict[str, Any]:
    """What the load generator says of a hundred calls."""
    command: list[str | Path] = [programs / "load", "--port", str(port), "--calls", "100", "--warmup", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def upstream(programs: Path) -> Generator[int]:
    """The compiled server; gives the port."""
    with subprocess.Popen([programs / "upstream"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--connections", "7"),
        ("--connections", "7", "--shared"),
        ("--connections", "2", "--padding", "90000"),
        ("--connections", "2", "--size", "90000"),
        ("--connections", "7", "--events", "5"),
        ("--connections", "7", "--events", "5", "--pause", "1"),
        ("--connections", "2", "--tools", "10"),
    ],
    ids=" ".join,
)
def test_the_compiled_server_answers_the_load_generator_without_error(programs: Path, options: tuple[str, ...]) -> None:
    with upstream(programs) as port:
        found = load(programs, port, *options)
    assert (found["calls"], found["errors"], found["warmup_errors"]) == (100, 0, 0)
    assert 0 < found["p50_us"] <= found["p90_us"] <= found["p99_us"] <= found["max_us"]


class _Face(BaseHTTPRequestHandler):
    """Answers each call after a rewriting of its answer, as its `_Server` is told."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "id" not in message:
            self._send(202, b"", "application/json")
            return
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-11-25"}}
        if message["method"] == "tools/call":
            answer["result"] = {"content": [{"type": "text", "text": message["params"]["arguments"]["text"]}]}
        body = json.dumps(answer).encode()
        if message["method"] == "tools/call" and message["id"] % 10 == 0:
            body = re.sub(*server.fault, body)
        if server.streams:
            self._send(200, b"event: message\ndata: " + body + b"\n\n", "text/event-stream")
        else:
            self._send(200, body, "application/json")

    def do_DELETE(self) -> None:
        self._send(200, b"", "application/json")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def _send(self, status: int, body: bytes, kind: str, session: str | None = "one") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if session is not None:
            self.send_header("Mcp-Session-Id", session)
        if kind == "text/event-stream":
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:])) + b"0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    """A server whose every tenth answer has `fault` done to it: a pattern, and what stands there instead."""

    daemon_threads = True

    def __init__(self, fault: tuple[bytes, bytes], *, streams: bool, face: type[_Face], upstream_port: int) -> None:
        super().__init__(("127.0.0.1", 0), face)
        self.upstream_port = upstream_port
        self.fault = fault
        self.streams = streams


@contextmanager
def serving(
    fault: tuple[bytes, bytes], *, streams: bool = False, face: type[_Face] = _Face, upstream_port: int = 0
) -> Generator[int]:
    """Serve from a thread; gives the port."""
    with _Server(fault, streams=streams, face=face, upstream_port=upstream_port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("streams", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    "fault",
    [
        (rb'"id": (\d+)', rb'"id": \g<1>1'),
        (rb'"text": "c0', rb'"text": "c1'),
        (rb'"text": "', rb'"text": "more'),
        (rb'-"', rb'-more"'),
        (rb"^.*$", rb""),
    ],
    ids=["another id", "another connection's text", "text too early", "text too late", "nothing"],
)
def test_the_load_generator_counts_an_answer_to_another_call_as_an_error(
    programs: Path, fault: tuple[bytes, bytes], streams: bool
) -> None:
    with serving(fault, streams=streams) as port:
        found = load(programs, port)
    assert (found["calls"], found["errors"], found["warmup_errors"]) == (100, 10, 0)


def test_the_load_generator_reads_event_streams(programs: Path) -> None:
    with serving((b"never", b""), streams=True) as port:
        found = load(programs, port, "--connections", "3")
    assert (found["calls"], found["errors"]) == (100, 0)


def test_the_load_generator_says_in_each_request_that_it_is_of_the_revision_without_sessions(programs: Path) -> None:
    with serving((b"never", b"")) as port:
        found = load(programs, port, "--modern", "--connections", "3")
    assert (found["calls"], found["errors"]) == (100, 0)


def test_the_load_generator_fails_where_no_session_can_be_opened(programs: Path) -> None:
    with serving((b"", b"")) as port:
        silent_port = port
    command: list[str | Path] = [programs / "load", "--port", str(silent_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "cannot connect" in done.stderr


class _Relay(_Face):
    """Hands on to a server, and does the fault to every tenth answer but to those that open sessions."""

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        body = self.rfile.read(int(self.headers["content-length"]))
        connection = HTTPConnection("127.0.0.1", server.upstream_port, timeout=60)
        connection.request("POST", self.path, body, dict(self.headers))
        answer = connection.getresponse()
        said = answer.read()
        message = json.loads(body)
        if message["method"].startswith("tools/") and message["id"] % 10 == 0:
            said = re.sub(server.fault[0], server.fault[1], said, count=1)
        self._send(answer.status, said, answer.getheader("content-type", ""), answer.getheader("mcp-session-id"))
        connection.close()


PROGRESS: Final = ("--events", "5")
SIZE: Final = ("--size", "2000")
TOOLS: Final = ("--tools", "10")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (PROGRESS, (rb'"progressToken":"p0-', rb'"progressToken":"p1-')),
        (PROGRESS, (rb'"progressToken":"(p0-\d+)"', rb'"progressToken":7')),
        (PROGRESS, (rb'"progress":3', rb'"progress":4')),
        (PROGRESS, (rb"event: message\ndata: .*\n\n", rb"")),
        (PROGRESS, (rb'(event: message\ndata: .*"progress":5.*\n\n)((?:.|\n)*)', rb"\2\1")),
        (PROGRESS, (rb'((?:.|\n)*)(event: message\ndata: .*"progress":5.*\n\n)', rb"\1\2\2")),
        (SIZE, (rb"what a tool found out", rb"what a tool made up")),
        (SIZE, (rb'\\n"}', rb'"}')),
        (SIZE, (rb'\\n"}', rb'\\n\\n"}')),
        (TOOLS, (rb"tool_9", rb"tool_8")),
        (TOOLS, (rb'"id":(\d+)', rb'"id":"\1"')),
    ],
    ids=[
        "another call's token",
        "a token of the gateway's",
        "a report that is missing",
        "the first report is missing",
        "a report after the result",
        "a report that comes twice",
        "other content",
        "content that is cut off",
        "more content than there is",
        "a tool that is missing",
        "an id of another type",
    ],
)
def test_the_load_generator_counts_what_a_gateway_got_wrong_as_an_error(
    programs: Path, options: tuple[str, ...], fault: tuple[bytes, bytes]
) -> None:
    with upstream(programs) as server, serving(fault, face=_Relay, upstream_port=server) as port:
        found = load(programs, port, *options)
    assert (found["calls"], found["errors"], found["warmup_errors"]) == (100, 10, 0)


def test_a_relay_that_gets_nothing_wrong_counts_no_error(programs: Path) -> None:
    with upstream(programs) as server, serving((b"never", b""), face=_Relay, upstream_port=server) as port:
        found = load(programs, port, *PROGRESS)
    assert (found["calls"], found["errors"]) == (100, 0)


def test_the_compiled_server_speaks_over_its_standard_input(programs: Path) -> None:
    meta = {"progressToken": "t"}
    call = {"name": "echo", "arguments": {"text": "hello", "events": 2}, "_meta": meta}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": "two", "method": "tools/call", "params": call},
    ]
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    done = subprocess.run([programs / "upstream", "--stdio"], input=lines, capture_output=True, text=True, timeout=60)
    initialized, *progress, result = map(json.loads, done.stdout.splitlines())
    assert initialized["result"]["protocolVersion"] == "2025-06-18"
    assert [said["params"] for said in progress] == [
        {"progressToken": "t", "progress": number, "total": 2} for number in (1, 2)
    ]
    assert (result["id"], result["result"]["content"][0]["text"]) == ("two", "hello")


def test_the_compiled_server_reads_bodies_in_chunks(programs: Path) -> None:
    """As Envoy sends them."""
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}).encode()
    with upstream(programs) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(
            "POST", "/mcp", iter([ping[:9], ping[9:]]), {"Transfer-Encoding": "chunked"}, encode_chunked=True
        )
        answer = connection.getresponse()
        assert json.loads(answer.read())["id"] == 1
        connection.close()
