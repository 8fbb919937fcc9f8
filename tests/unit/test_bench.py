"""The measurements measure what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bench.chart import as_svg
from bench.endpoint import Upstream
from bench.findings import Results, added_p50, cpu_ratio, summarize, throughput_ratio
from bench.gateways import GATEWAYS, HOLDFAST, MODERN, NGINX
from bench.load import Stretch
from bench.peers import FASTMCP
from bench.processes import BenchError, Stat, cpu_seconds, family, read_line, rss_bytes, start
from bench.report import as_json, as_markdown
from bench.sessions import Idle, Times, times
from bench.suite import Options, stages, start_gateways
from bench.targets import judge

from processes import wait_until


def stat(parent: int, *ticks: int, name: str = "program") -> Stat:
    """The line of a process with these CPU ticks: user, system, and both of its ended children."""
    return Stat(f"7 ({name}) S {parent} 7 7 0 -1 4194304 1 2 3 4 {' '.join(map(str, ticks))} 20 0 1 0 99 1 1")


def stretch(
    gateway: str, workload: str, cpu: float | None, errors: int = 0, *, rate: float = 500.0, p50: float = 1.0
) -> Stretch:
    """A stretch of which only what is given matters."""
    return Stretch(
        workload=workload,
        gateway=gateway,
        calls=1000,
        errors=errors,
        calls_per_second=rate,
        p50_us=p50,
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


def test_throughput_and_added_latency_are_medians_within_rounds() -> None:
    rounds = [
        [stretch("direct", "call-1", None, rate=100, p50=10), stretch(HOLDFAST, "call-1", 1, rate=50, p50=45)],
        [stretch("direct", "call-1", None, rate=10, p50=100), stretch(HOLDFAST, "call-1", 1, rate=4, p50=130)],
        [stretch("direct", "call-1", None, rate=100, p50=10), stretch(HOLDFAST, "call-1", 1, rate=60, p50=50)],
    ]
    assert throughput_ratio(rounds, "call-1", HOLDFAST, "direct") == 0.5
    assert added_p50(rounds, "call-1", HOLDFAST, "direct") == 35


def verdicts(results: Results) -> dict[str, tuple[str, bool]]:
    """What is said of each target that can be judged."""
    return {each.figure: (each.found, each.is_reached) for each in judge(results)}


def test_a_target_is_judged_by_the_figure_of_the_run() -> None:
    found = [stretch(NGINX, "call-32", 10.0, rate=1000), stretch(HOLDFAST, "call-32", 20.1, rate=550)]
    assert verdicts(Results({}, [found])) == {
        "CPU per call, 32 connections, in nginx's": ("2.01", False),
        "calls per second, 32 connections, in nginx's": ("0.55", True),
        "upstream requests per call": ("1.00", True),
        "initializes per session": ("1.00", True),
    }


def test_a_target_of_exactly_one_is_missed_by_more_and_by_less() -> None:
    for requests, is_reached in ((0.99, False), (1.0, True), (1.01, False)):
        found = replace(stretch(HOLDFAST, "call-32", 20.0), upstream_requests_per_call=requests)
        assert verdicts(Results({}, [[found]]))["upstream requests per call"][1] is is_reached


def test_a_target_that_was_missed_is_said_so_on_the_page() -> None:
    found = [stretch(NGINX, "result", 10.0), stretch(HOLDFAST, "result", 18.0)]
    assert "| CPU per 100 KB result, in nginx's | ≤ 1.70 | 1.80 | **missed** |" in as_markdown(Results({}, [found]))


def test_wrong_answers_of_a_gateway_stand_beside_its_figure() -> None:
    found = [stretch(NGINX, "call-1", 10.0), stretch("fastmcp", "call-1", 20.0, errors=3)]
    assert "| fastmcp | 20 (2.0) wrong answers |" in as_markdown(Results({}, [found]))


def test_the_chart_shows_every_gateway_from_the_cheapest_on() -> None:
    found = [(HOLDFAST, 24.0), (NGINX, 12.0), ("fastmcp", 23400.0)]
    stretches = [stretch(name, "call-32", cpu) for name, cpu in found] + [stretch("mcp-proxy", "stdio-32", 500.0)]
    drawing = ET.fromstring(as_svg(summarize([stretches])))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[-8::2] == ["nginx", "Holdfast", "mcp-proxy (stdio server)", "FastMCP"]
    assert texts[-7::2] == ["12 µs", "24 µs, 2 times nginx", "500 µs", "23 ms, 2,000 times nginx"]


def test_the_chart_of_nothing_is_a_drawing() -> None:
    ET.fromstring(as_svg([]))


def test_programs_do_not_inherit_what_makes_python_compile_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    command = [sys.executable, "-c", "import os; print(os.environ.get('PYTHONDONTWRITEBYTECODE'))"]
    with start(command, log=tmp_path / "log", stdout=subprocess.PIPE) as child:
        assert read_line(child.stdout, "it") == "None"


def test_what_a_server_takes_does_not_count_for_the_gateway_that_started_it(tmp_path: Path) -> None:
    program = Path(sys.executable).resolve()
    with start(starts_a_server(program), log=tmp_path / "log", stdout=subprocess.PIPE) as child:
        read_line(child.stdout, "the server")
        assert rss_bytes(child.pid) > rss_bytes(child.pid, without=program) > 0
        assert cpu_seconds(child.pid, without=program) <= cpu_seconds(child.pid)


def test_what_a_gateway_has_started_ends_with_it(tmp_path: Path) -> None:
    with start(starts_a_server(Path(sys.executable)), log=tmp_path / "log", stdout=subprocess.PIPE) as child:
        server = int(read_line(child.stdout, "the server"))
    wait_until(lambda: not is_running(server), "the server has ended")


def is_running(pid: int) -> bool:
    """False, too, for one that nobody has asked how it ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def starts_a_server(program: Path) -> list[str | Path]:
    """A gateway whose server says its process id, and would outlive it."""
    says_who_it_is = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    return ["sh", "-c", f'{program} -c "{says_who_it_is}" & wait']


def test_a_peer_that_is_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.peers._BIN", tmp_path)
    results = Results({}, [])
    (stage,) = stages(Options(workloads=("call-1",), gateways=(FASTMCP,)))
    with ExitStack() as stack:
        assert start_gateways(stack, stage, Upstream(tmp_path, 10, 1), results) == {}
    assert "is not installed" in results.missing[FASTMCP]
