"""The official MCP conformance suite, against a server directly and through the gateway.

The suite, its Node and the reference server's Python are installed by `make test` into
`.conformance`, or into the folder that `CONF_HOME` names.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from processes import ROOT, Process, free_port, start
from requirements import requirement

HOME: Final = Path(os.environ.get("CONF_HOME") or ROOT / ".conformance")
PYTHON: Final = HOME / "venv" / "bin" / "python"
TOOLS: Final = ROOT / "tests" / "conformance"
REVISION: Final = "2025-11-25"
SCENARIOS: Final = 33
"""How many of the suite's scenarios the reference server passes directly."""
MODERN: Final = "2026-07-28"
NOT_BETWEEN_ERAS: Final = {
    "server-stateless": "a session that others opened has declared more than this request's client",
    "input-required-result-basic-elicitation": "it looks for a question by the name that only a modern server gives it",
    "input-required-result-ignore-extra-params": "likewise",
    "input-required-result-multiple-input-requests": "the server of the handshake era asks one question at a time",
}
"""Scenarios that a server of the handshake era cannot pass behind us, or not always, and why."""


@contextlib.contextmanager
def reference_server(*options: str, era: str = "legacy") -> Generator[str]:
    """The URL of a server of one era alone."""
    port = free_port()
    arguments = ("--era", era, "--port", str(port), *options)
    with start(PYTHON, TOOLS / "reference_server.py", *arguments) as server:
        server.wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def gateway(url: str) -> Generator[tuple[str, Process]]:
    """The URL of `holdfast run` before the server at `url`."""
    port = free_port()
    holdfast = Path(sys.executable).parent / "holdfast"
    with start(holdfast, "run", url, "--port", str(port)) as process:
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp", process


def run_suite(url: str, report: Path, revision: str = REVISION) -> str:
    """Run every scenario against `url`; return the closing line, and leave the findings in `report`."""
    arguments = ("--url", url, "--spec-version", revision, "--json", str(report))
    with start(PYTHON, TOOLS / "run_conformance.py", *arguments, environment={"CONF_HOME": str(HOME)}) as suite:
        status = suite.wait(within=240)
        assert status in {0, 1}, suite.output
        assert report.exists(), suite.output
        return suite.output.strip().splitlines()[-1]


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, TOOLS / "compare.py", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert PYTHON.exists(), "the conformance suite is not installed: run `make test`"
    return tmp_path_factory.mktemp("conformance")


@pytest.fixture(scope="module")
def direct(reports: Path) -> Path:
    """What the reference server passes with nothing in between."""
    with reference_server() as url:
        run_suite(url, reports / "direct.json")
    return reports / "direct.json"


@pytest.fixture(scope="module")
def hollow(reports: Path) -> Path:
    """What a server that offers nothing passes: no proof of anything."""
    with reference_server("--hollow") as url:
        run_suite(url, reports / "hollow.json")
    return reports / "hollow.json"


def test_the_yardstick_tells_a_server_from_an_empty_shell(direct: Path, hollow: Path) -> None:
    verdict = compare(direct, hollow)
    assert verdict.returncode == 1, verdict.stdout
    kept = re.search(rf"== {REVISION}: (\d+)/(\d+) scenarios kept", verdict.stdout)
    assert kept, verdict.stdout
    assert int(kept[1]) < int(kept[2]) == SCENARIOS, verdict.stdout


@requirement("conformance:handshake:nothing-is-lost")
def test_no_conformance_check_is_lost_through_the_gateway(reports: Path, direct: Path, hollow: Path) -> None:
    via = reports / "via.json"
    with reference_server() as server_url, gateway(server_url) as (gateway_url, process):
        closing = run_suite(gateway_url, via)
        said = process.output
    verdict = compare(direct, via, "--hollow", hollow, "--checks")
    findings = f"{closing}\n{verdict.stdout}\n{verdict.stderr}\nThe gateway wrote:\n{said[-4000:]}"
    assert verdict.returncode == 0, findings
    assert f"== {REVISION}: {SCENARIOS}/{SCENARIOS} scenarios kept" in verdict.stdout, findings


@requirement("conformance:modern:what-can-pass-passes")
def test_a_server_of_the_handshake_era_passes_as_a_modern_one_but_for_what_no_gateway_can_know(reports: Path) -> None:
    direct, via = reports / "modern-direct.json", reports / "modern-via.json"
    with reference_server(era="both") as url:
        run_suite(url, direct, MODERN)
    with reference_server() as server_url, gateway(server_url) as (gateway_url, process):
        closing = run_suite(gateway_url, via, MODERN)
        said = process.output
    allowed = [argument for scenario in NOT_BETWEEN_ERAS for argument in ("--allow", scenario)]
    verdict = compare(direct, via, *allowed)
    findings = f"{closing}\n{verdict.stdout}\n{verdict.stderr}\nThe gateway wrote:\n{said[-4000:]}"
    assert verdict.returncode == 0, findings
    assert f"== {MODERN}: " in verdict.stdout, findings


@requirement("modern-servers:conformance")
def test_no_scenario_is_lost_although_the_server_speaks_another_era(reports: Path, direct: Path, hollow: Path) -> None:
    """One check is gone, and must be: a stream of 2026-07-28 cannot be resumed, so no client is sent away from it."""
    via = reports / "modern.json"
    with reference_server(era="modern") as server_url, gateway(server_url) as (gateway_url, process):
        closing = run_suite(gateway_url, via)
        said = process.output
    verdict = compare(direct, via, "--hollow", hollow)
    findings = f"{closing}\n{verdict.stdout}\n{verdict.stderr}\nThe gateway wrote:\n{said[-4000:]}"
    assert f"== {REVISION}: {SCENARIOS}/{SCENARIOS} scenarios kept" in verdict.stdout, findings
