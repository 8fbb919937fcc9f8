"""The official MCP conformance suite, against a server directly and through the gateway, and as the gateway's server.

The suite, its Node and the reference server's Python are installed by `make test` into
`.conformance`, or into the folder that `CONF_HOME` names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from exempt import CHAT, HANDSHAKE, MODERN, PEERS, SCENARIOS, lost
from processes import ROOT, Process, free_port, start
from requirements import requirement

HOME: Final = Path(os.environ.get("CONF_HOME") or ROOT / ".conformance")
PYTHON: Final = HOME / "venv" / "bin" / "python"
HOLDFAST: Final = Path(sys.executable).parent / "holdfast"
TOOLS: Final = ROOT / "tests" / "conformance"
ERAS: Final = {HANDSHAKE: "legacy", MODERN: "modern"}
"""What the reference server calls the era of a revision."""
PLACES: Final = {CHAT: "/127.0.0.1/chats/one"}
"""What follows the gateway's path, where that is not all."""
CLIENT_SCENARIOS: Final = {
    HANDSHAKE: {
        "initialize": 1,
        "tools_call": 2,
        "elicitation-sep1034-client-defaults": 5,
        "sse-retry": 3,
        "json-schema-2020-12-preservation": 9,
    },
    MODERN: {
        "tools_call": 2,
        "request-metadata": 8,
        "sep-2322-client-request-state": 5,
        "http-standard-headers": 9,
        "http-custom-headers": 18,
        "http-invalid-tool-headers": 12,
        "json-schema-ref-no-deref": 1,
        "json-schema-2020-12-preservation": 9,
    },
}
"""Every scenario for clients but those of OAuth, and how many of its checks the official SDK's own client passes."""
ACROSS: Final = {
    HANDSHAKE: ("elicitation-sep1034-client-defaults",),
    MODERN: ("sep-2322-client-request-state", "http-custom-headers"),
}
"""The scenarios in which it matters of which era the gateway's own client is."""

# The peers.


@contextlib.contextmanager
def reference_server(*options: str, era: str) -> Generator[str]:
    """The URL of a server of one era, or of both."""
    port = free_port()
    arguments = ("--era", era, "--port", str(port), *options)
    with start(PYTHON, TOOLS / "reference_server.py", *arguments) as server:
        server.wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def gateway(url: str) -> Generator[tuple[str, Process]]:
    """The URL of `holdfast run` before the server at `url`."""
    port = free_port()
    with start(HOLDFAST, "run", url, "--port", str(port)) as process:
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp", process


@contextlib.contextmanager
def suite(*arguments: str, **environment: str) -> Generator[Process]:
    """The suite, under way."""
    environment |= {"CONF_HOME": str(HOME), "HOLDFAST": str(HOLDFAST)}
    with start(PYTHON, TOOLS / "run_conformance.py", *arguments, environment=environment) as process:
        yield process


def finish(process: Process, report: Path) -> str:
    """What the suite wrote, once its findings are in `report`."""
    status = process.wait(within=240)
    assert status in {0, 1}, process.output
    assert report.exists(), process.output
    return process.output


@contextlib.contextmanager
def examining(url: str, revision: str, report: Path) -> Generator[Process]:
    """Every scenario of `revision` run against `url`."""
    with suite("--url", url, "--spec-version", revision, "--json", str(report)) as process:
        yield process


def examine(url: str, revision: str, report: Path) -> str:
    """What the suite wrote of every scenario of `revision` run against `url`."""
    with examining(url, revision, report) as process:
        return finish(process, report)


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, TOOLS / "compare.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def lost_in(verdict: str) -> set[str]:
    """The scenarios, and the checks of others, that a comparison says are lost; told as in exempt.py."""
    found = re.findall(r"^  (?:lost|check gone in \S+:) (\S+(?: \[warn\])?)", verdict, re.MULTILINE)
    return set(found)


class Yardsticks:
    """What the reference server passes with nothing in between, of each revision; measured when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def direct(self, revision: str) -> Path:
        """Of a server that speaks both eras: where it refuses one, the reference server mistakes ids."""
        report = self._folder / f"direct-{revision}"
        if not report.exists():
            with reference_server(era="both") as url:
                examine(url, revision, report)
        return report

    def hollow(self, revision: str) -> Path:
        """What a server that offers nothing passes: no proof of anything."""
        reports = {each: self._folder / f"hollow-{each}" for each in ERAS}
        if not reports[revision].exists():
            with reference_server("--hollow", era="both") as url, contextlib.ExitStack() as stack:
                suites = [(stack.enter_context(examining(url, each, to)), to) for each, to in reports.items()]
                for process, report in suites:
                    finish(process, report)
        return reports[revision]


@pytest.fixture(scope="module")
def installed() -> None:
    assert PYTHON.exists(), "the conformance suite is not installed: run `make test`"


@pytest.fixture(scope="module")
def yardsticks(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Yardsticks:
    return Yardsticks(tmp_path_factory.mktemp("conformance"))


# The gateway as a server.


@pytest.mark.parametrize("revision", ERAS)
def test_the_yardstick_tells_a_server_from_an_empty_shell(yardsticks: Yardsticks, revision: str) -> None:
    verdict = compare(yardsticks.direct(revision), yardsticks.hollow(revision))
    assert verdict.returncode == 1, verdict.stdout
    kept = re.search(rf"== {revision}: (\d+)/(\d+) scenarios kept", verdict.stdout)
    assert kept, verdict.stdout
    assert int(kept[1]) < int(kept[2]) / 2, verdict.stdout
    assert int(kept[2]) == SCENARIOS[revision], verdict.stdout


@requirement("conformance:handshake:nothing-is-lost")
@requirement("conformance:modern:nothing-is-lost")
@requirement("conformance:modern:what-can-pass-passes")
@requirement("modern-servers:conformance")
@pytest.mark.parametrize(("revision", "peer"), PEERS)
def test_nothing_is_lost_through_the_gateway_but_what_none_can_carry(
    yardsticks: Yardsticks, tmp_path: Path, revision: str, peer: str
) -> None:
    via = tmp_path / "via.json"
    era = ERAS.get(peer, "both")
    with reference_server(era=era) as server_url, gateway(server_url) as (gateway_url, process):
        told = examine(gateway_url + PLACES.get(peer, ""), revision, via)
        said = process.output
    verdict = compare(yardsticks.direct(revision), via, "--hollow", yardsticks.hollow(revision), "--checks")
    findings = f"{told}\n{verdict.stdout}\n{verdict.stderr}\nThe gateway wrote:\n{said[-4000:]}"
    assert f"/{SCENARIOS[revision]} scenarios kept; of the " in verdict.stdout, findings
    assert lost_in(verdict.stdout) == lost(revision, peer), findings
    assert verdict.returncode == bool(lost(revision, peer)), findings


# The gateway as a client.


@contextlib.contextmanager
def served(report: Path, revision: str, scenarios: Iterable[str], client_era: str) -> Generator[Process]:
    """The suite as the server of some scenarios, while a client of an era speaks to it through the gateway."""
    named = [argument for scenario in scenarios for argument in ("--scenario", scenario)]
    gateway = ("--gateway", str(TOOLS / "holdfast.sh"), "--timeout", "60")
    options = ("--client", *gateway, "--spec-version", revision, "--json", str(report), *named)
    with suite(*options, CONF_CLIENT_ERA=client_era) as process:
        yield process


def passed_in(report: Path, revision: str, scenarios: Iterable[str], told: str) -> dict[str, Any]:
    """What was found of each scenario. Raises `AssertionError` where one of them does not pass."""
    found: dict[str, Any] = json.loads(report.read_text())["runs"][revision]["scenarios"]
    assert {name: each["verdict"] for name, each in found.items()} == dict.fromkeys(scenarios, "pass"), told
    return found


def not_exercised(found: Mapping[str, Any], expected: Mapping[str, int]) -> set[str]:
    """The checks that were left out of the scenarios in which fewer than `expected` pass."""
    missing: set[str] = set()
    for name, each in found.items():
        skipped = [check["id"] for check in each["checks"] if check["status"] == "SKIPPED"]
        if each["passed"] < expected[name]:
            assert each["passed"] + len(skipped) == expected[name], name
            missing |= set(skipped)
    return missing


@requirement("conformance:client:nothing-is-lost")
def test_the_gateway_is_the_client_that_the_suite_wants(installed: None, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        suites = {
            revision: stack.enter_context(served(tmp_path / revision, revision, CLIENT_SCENARIOS[revision], era))
            for revision, era in ERAS.items()
        }
        told = {revision: finish(process, tmp_path / revision) for revision, process in suites.items()}
    for revision, expected in CLIENT_SCENARIOS.items():
        found = passed_in(tmp_path / revision, revision, expected, told[revision])
        assert not_exercised(found, expected) == lost(revision, "client"), told[revision]


@requirement("conformance:client:nothing-is-lost")
@pytest.mark.parametrize("revision", ERAS)
def test_the_gateway_is_that_client_for_callers_of_the_other_era_too(
    installed: None, tmp_path: Path, revision: str
) -> None:
    report = tmp_path / "client.json"
    other = next(each for each in ERAS if each != revision)
    with served(report, revision, ACROSS[revision], ERAS[other]) as process:
        told = finish(process, report)
    found = passed_in(report, revision, ACROSS[revision], told)
    assert not_exercised(found, CLIENT_SCENARIOS[revision]) == set(), told


def test_no_scenario_for_clients_is_left_out_but_those_of_oauth(installed: None) -> None:
    entry = HOME / "suite/node_modules/@modelcontextprotocol/conformance/dist/index.js"
    for revision, expected in CLIENT_SCENARIOS.items():
        with start(HOME / "venv/bin/node", entry, "list", "--client", "--spec-version", revision) as listing:
            listing.wait()
        named = re.findall(r"^\s+- (\S+)", listing.output, re.MULTILINE)
        assert {name for name in named if not name.startswith("auth/")} == set(expected), listing.output
