"""The measurements measure what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bench.compile import compile_program
from bench.gateways import HOLDFAST, MODERN
from bench.load import Stretch
from bench.processes import BenchError, Stat, family
from bench.report import Results, as_json, as_markdown, cpu_ratio, summarize
from bench.sessions import IdleMemory, Times, times
from bench.suite import Options, order


def stat(parent: int, *ticks: int, name: str = "program") -> Stat:
    """The line of a process with these CPU ticks: user, system, and both of its ended children."""
    return Stat(f"7 ({name}) S {parent} 7 7 0 -1 4194304 1 2 3 4 {' '.join(map(str, ticks))} 20 0 1 0 99 1 1")


def stretch(gateway: str, connections: int, cpu: float | None, errors: int = 0) -> Stretch:
    """A stretch of which only the CPU time and the errors matter."""
    return Stretch(
        gateway=gateway,
        connections=connections,
        calls=1000,
        errors=errors,
        calls_per_second=500.0,
        p50_us=1.0,
        p90_us=2.0,
        p99_us=3.0,
        cpu_us_per_call=cpu,
        rss_mib=None,
        upstream_requests_per_call=1.0,
        initializes_per_session=1.0,
    )


def test_cpu_time_counts_user_and_system_and_ended_children() -> None:
    assert stat(1, 1, 20, 300, 4000).ticks == 4321


def test_a_process_name_with_spaces_and_parentheses_is_no_trap() -> None:
    tricky = stat(42, 1, 2, 3, 4, name="a) R 9 (b")
    assert (tricky.parent, tricky.ticks) == (42, 10)


def test_a_family_is_all_living_descendants_and_nobody_else() -> None:
    parents = {5: 1, 6: 5, 3: 6, 8: 1}
    processes = {pid: stat(parent, 0, 0, 0, 0) for pid, parent in parents.items()}
    assert family(5, processes) == {5, 6, 3}


def test_a_process_that_has_ended_cannot_be_measured() -> None:
    with pytest.raises(BenchError, match="ended"):
        family(5, {})


def test_gateways_take_turns_within_each_round() -> None:
    ran = [gateway for _, connections, gateway in order(Options(rounds=2)) if connections == 32]
    assert ran == ["direct", "nginx", HOLDFAST, MODERN] * 2


def test_the_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    rounds = [
        [stretch("nginx", 1, 10.0), stretch("holdfast", 1, 30.0)],
        [stretch("nginx", 1, 100.0), stretch("holdfast", 1, 310.0)],  # somebody else kept the machine busy
        [stretch("nginx", 1, 10.0), stretch("holdfast", 1, 35.0)],
    ]
    nginx, holdfast = summarize(rounds)
    assert (nginx.cpu_ratio_to_nginx, nginx.cpu_us_per_call) == (1.0, 10.0)
    assert (holdfast.cpu_ratio_to_nginx, holdfast.cpu_us_per_call) == (3.1, 35.0)


def test_a_call_of_one_era_is_compared_with_one_of_the_other_within_rounds() -> None:
    rounds = [
        [stretch(HOLDFAST, 1, 50.0), stretch(MODERN, 1, 60.0)],
        [stretch(HOLDFAST, 1, 500.0), stretch(MODERN, 1, 550.0)],
        [stretch(HOLDFAST, 1, 100.0), stretch(MODERN, 1, 130.0)],
    ]
    assert cpu_ratio(rounds, 1, MODERN, HOLDFAST) == 1.2
    assert cpu_ratio(rounds, 32, MODERN, HOLDFAST) is None


def test_each_number_of_connections_is_compared_with_its_own() -> None:
    stretches = [
        stretch(name, n, cpu) for name, n, cpu in [("nginx", 1, 20.0), ("holdfast", 1, 60.0), ("nginx", 32, 10.0)]
    ]
    assert [row.cpu_ratio_to_nginx for row in summarize([stretches])] == [1.0, 3.0, 1.0]


def test_what_has_no_gateway_has_no_cpu_time() -> None:
    (row,) = summarize([[stretch("direct", 1, None)]])
    assert (row.cpu_us_per_call, row.cpu_ratio_to_nginx) == (None, None)


def test_errors_of_all_rounds_are_shown() -> None:
    rounds = [[stretch("holdfast", 1, 30.0, errors=2)], [stretch("holdfast", 1, 30.0, errors=1)]]
    some = Times(median_ms=1.0, p90_ms=2.0, samples=3)
    memory = IdleMemory(sessions=10, streams=10, initialized_kib=1.0, called_kib=2.0, opened_by_calls=10)
    results = Results(
        machine={"cores": 2},
        rounds=rounds,
        idle_memory=memory,
        reconnecting_host={"warm": some},
        start_to_first_answer=some,
    )
    assert "| 3/2,000 |" in as_markdown(results)
    assert json.loads(json.dumps(as_json(results)))["summary"][0]["errors"] == 3


def test_times_are_summed_up_in_milliseconds() -> None:
    assert times([n / 8 for n in range(1, 12)]) == Times(median_ms=750.0, p90_ms=1250.0, samples=11)


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


@pytest.mark.parametrize(
    "options",
    [(), ("--connections", "7"), ("--connections", "7", "--shared"), ("--connections", "2", "--padding", "90000")],
    ids=" ".join,
)
def test_the_compiled_server_answers_the_load_generator_without_error(programs: Path, options: tuple[str, ...]) -> None:
    with subprocess.Popen([programs / "upstream"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = load(programs, int(server.stdout.readline()), *options)
        finally:
            server.kill()
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

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Mcp-Session-Id", "one")
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

    def __init__(self, fault: tuple[bytes, bytes], *, streams: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Face)
        self.fault = fault
        self.streams = streams


@contextmanager
def serving(fault: tuple[bytes, bytes], *, streams: bool = False) -> Generator[int]:
    """Serve from a thread; gives the port."""
    with _Server(fault, streams=streams) as server:
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
