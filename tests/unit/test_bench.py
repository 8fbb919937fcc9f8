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
from bench.gateways import GATEWAYS, HOLDFAST, MODERN
from bench.load import Stretch
from bench.peers import FASTMCP
from bench.processes import BenchError, Stat, family
from bench.report import Results, as_json, as_markdown, cpu_ratio, summarize
from bench.sessions import Idle, Times, times
from bench.suite import Options, stages


def stat(parent: int, *ticks: int, name: str = "program") -> Stat:
    """The line of a process with these CPU ticks: user, system, and both of its ended children."""
    return Stat(f"7 ({name}) S {parent} 7 7 0 -1 4194304 1 2 3 4 {' '.join(map(str, ticks))} 20 0 1 0 99 1 1")


def stretch(gateway: str, workload: str, cpu: float | None, errors: int = 0) -> Stretch:
    """A stretch of which only the CPU time and the errors matter."""
    return Stretch(
        workload=workload,
        gateway=gateway,
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
    (stage,) = stages(Options(workloads=("call-1", "call-32")))
    ran = [gateway for _, workload, gateway in stage.order(2) if workload.name == "call-32"]
    over_http = {name: gateway for name, gateway in GATEWAYS.items() if gateway.over_http}
    assert ran == [*over_http, *(name for name, gateway in over_http.items() if not gateway.is_slow)]


def test_a_slow_gateway_is_asked_for_small_calls_only() -> None:
    (stage,) = stages(Options(workloads=("call-32", "result"), gateways=(HOLDFAST, FASTMCP)))
    assert [(workload.name, gateway) for _, workload, gateway in stage.order(1)] == [
        ("call-32", HOLDFAST),
        ("call-32", FASTMCP),
        ("result", HOLDFAST),
    ]


def test_workloads_with_a_server_of_their_own_have_gateways_of_their_own() -> None:
    found = [(stage.tools, stage.is_stdio, {each.name for each in stage.workloads}) for stage in stages(Options())]
    assert found == [
        (10, False, {"call-1", "call-32", "result", "progress", "slow-progress"}),
        (200, False, {"list"}),
        (10, True, {"stdio-1", "stdio-32"}),
    ]


def test_only_gateways_that_start_their_server_are_measured_with_a_stdio_server() -> None:
    (stage,) = stages(Options(workloads=("stdio-1",)))
    assert "direct" not in stage.gateways
    assert HOLDFAST in stage.gateways


def test_the_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    rounds = [
        [stretch("nginx", "call-1", 10.0), stretch("holdfast", "call-1", 30.0)],
        [
            stretch("nginx", "call-1", 100.0),
            stretch("holdfast", "call-1", 310.0),
        ],  # somebody else kept the machine busy
        [stretch("nginx", "call-1", 10.0), stretch("holdfast", "call-1", 35.0)],
    ]
    nginx, holdfast = summarize(rounds)
    assert (nginx.cpu_ratio_to_nginx, nginx.cpu_us_per_call) == (1.0, 10.0)
    assert (holdfast.cpu_ratio_to_nginx, holdfast.cpu_us_per_call) == (3.1, 35.0)


def test_a_call_of_one_era_is_compared_with_one_of_the_other_within_rounds() -> None:
    rounds = [
        [stretch(HOLDFAST, "call-1", 50.0), stretch(MODERN, "call-1", 60.0)],
        [stretch(HOLDFAST, "call-1", 500.0), stretch(MODERN, "call-1", 550.0)],
        [stretch(HOLDFAST, "call-1", 100.0), stretch(MODERN, "call-1", 130.0)],
    ]
    assert cpu_ratio(rounds, "call-1", MODERN, HOLDFAST) == 1.2
    assert cpu_ratio(rounds, "call-32", MODERN, HOLDFAST) is None


def test_each_workload_is_compared_with_its_own() -> None:
    stretches = [
        stretch(name, n, cpu)
        for name, n, cpu in [("nginx", "call-1", 20.0), ("holdfast", "call-1", 60.0), ("nginx", "call-32", 10.0)]
    ]
    assert [row.cpu_ratio_to_nginx for row in summarize([stretches])] == [1.0, 3.0, 1.0]


def test_what_has_no_gateway_has_no_cpu_time() -> None:
    (row,) = summarize([[stretch("direct", "call-1", None)]])
    assert (row.cpu_us_per_call, row.cpu_ratio_to_nginx) == (None, None)


def test_errors_of_all_rounds_are_shown() -> None:
    rounds = [[stretch("holdfast", "call-1", 30.0, errors=2)], [stretch("holdfast", "call-1", 30.0, errors=1)]]
    results = Results(machine={"cores": 2}, rounds=rounds)
    assert "| 3/2,000 |" in as_markdown(results)
    assert json.loads(json.dumps(as_json(results)))["summary"][0]["errors"] == 3


def test_what_was_measured_besides_calls_is_shown() -> None:
    some = Times(median_ms=1.0, p90_ms=2.0, samples=3)
    found = Idle(sessions=10, streams=9, initialized_kib=1.5, cpu_share=0.002, called_kib=2.0, opened_by_calls=10)
    results = Results({"cores": 2}, [], idle=found, reconnecting_host={"warm": some}, start_to_first_answer=some)
    page = as_markdown(results)
    for said in ("9 with a push stream", "1.5 KiB", "0.20% of a core", "1.00 ms (p90 2.00)", "1 ms"):
        assert said in page


def test_a_gateway_that_could_not_be_measured_is_said_so() -> None:
    results = Results({"cores": 2}, [], missing={"envoy": "is not installed"})
    assert "envoy (is not installed)" in as_markdown(results)


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
    [
        (),
        ("--connections", "7"),
        ("--connections", "7", "--shared"),
        ("--connections", "2", "--padding", "90000"),
        ("--connections", "2", "--size", "90000"),
        ("--connections", "7", "--events", "5"),
        ("--connections", "2", "--tools", "10"),
    ],
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
