"""`holdfast doctor` as a person meets it, and real servers as it finds them: the table of what servers do."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from interop.programs import (
    EVERYTHING,
    EVERYTHING_STDIO,
    HOLDFAST,
    MEMORY,
    NODE,
    NOTION,
    PATIENCE,
    TEST_SERVER_STDIO,
    descendants,
    everything,
    holdfast,
    node,
    shipped_server,
    start_on_terminal,
    wait_for_the_end_of,
    without_colours,
)
from processes import ROOT, free_port, start, wait_until
from requirements import requirement

REFERENCE: Final = ROOT / "tests" / "conformance" / "reference_server.py"
LONG: Final = ("--timeout", "600")
"""So that a busy machine cuts nothing short."""


def doctor(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOLDFAST), "doctor", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )


def report(*arguments: str | Path, **environment: str) -> dict[str, Any]:
    """What the command prints for machines, of a server that it could examine whole."""
    done = doctor("--json", *LONG, *arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["usable"], told["findings"]["is_cut"], told["findings"]["left_behind"]) == (True, False, 0)
    return told


def settings(told: dict[str, Any]) -> dict[str, Any]:
    return {one["setting"]: one["value"] for one in told["advice"]}


# Real servers.


@contextmanager
def searxng(package: str) -> Generator[str]:
    port = free_port()
    nowhere = f"http://127.0.0.1:{free_port()}"
    with node(package, port=port, MCP_HTTP_PORT=str(port), SEARXNG_URL=nowhere):
        yield f"http://127.0.0.1:{port}/mcp"


@contextmanager
def supergateway(*command: str) -> Generator[str]:
    port = free_port()
    arguments = ["--stdio", shlex.join(command), "--outputTransport", "streamableHttp", "--stateful"]
    with node("supergateway/dist/index.js", *arguments, "--port", str(port), "--logLevel", "none", port=port):
        yield f"http://127.0.0.1:{port}/mcp"


@contextmanager
def notion() -> Generator[str]:
    port = free_port()
    with node(NOTION, "--transport", "http", "--port", str(port), "--disable-auth", port=port, NOTION_TOKEN="ntn_none"):
        yield f"http://127.0.0.1:{port}/mcp"


@contextmanager
def playwright() -> Generator[str]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium is not installed: run `make test`"
    port = free_port()
    options = ["--headless", "--isolated", "--no-sandbox", "--executable-path", chromium, "--port", str(port)]
    with node("@playwright/mcp/cli.js", *options, port=port):
        yield f"http://localhost:{port}/mcp"


class Known(NamedTuple):
    """A server of the table: what it answers without a session id and to an unknown one, and the rest."""

    server: Callable[[], AbstractContextManager[str]]
    tools: int
    missing: int
    unknown: int
    settings: dict[str, Any]
    second: bool = True
    modern: bool = False
    kind: str = "error"
    """The form of the refusal of an unknown id."""


CHAT: Final = {"scope": "chat"}
TABLE: Final = {
    "mcp-searxng 2.4.0": Known(
        lambda: searxng("mcp-searxng-2/dist/cli.js"),
        4,
        400,
        404,
        {"scope": "chat", "era": "handshake", "start": "lazy"},
        modern=True,
    ),
    "mcp-searxng 0.10.5": Known(
        lambda: searxng("mcp-searxng/dist/index.js"),
        2,
        400,
        400,
        {"scope": "shared", "max_sessions": 1},
        second=False,
    ),
    "supergateway and everything": Known(lambda: supergateway(*EVERYTHING_STDIO), 13, 400, 404, CHAT),
    "supergateway and memory": Known(lambda: supergateway(str(NODE), str(MEMORY)), 9, 400, 404, CHAT),
    "server-everything": Known(everything, 13, 400, 400, CHAT),
    "notion": Known(notion, 24, 400, 400, CHAT),
    "playwright": Known(playwright, 25, 400, 404, CHAT, kind="text"),
}


@requirement("doctor:findings:real-servers")
@pytest.mark.parametrize("name", TABLE)
def test_a_real_server_is_found_to_be_what_is_known_of_it(name: str) -> None:
    known = TABLE[name]
    with known.server() as url:
        told = report(url)
    it = told["findings"]
    assert (it["missing_id"]["answer"]["status"], it["unknown_id"]["answer"]["status"]) == (
        known.missing,
        known.unknown,
    )
    assert (it["unknown_id"]["is_refused"], it["unknown_id"]["answer"]["kind"]) == (True, known.kind)
    assert (it["second"]["is_accepted"], it["second"]["does_first_survive"]) == (known.second, True)
    assert it["modern"]["is_spoken"] is known.modern
    assert it["handshake"]["has_id"]
    assert len(it["lists"]["tools"]) == known.tools
    assert (it["reconnect"]["is_kept"], it["end"]["is_gone"]) == (True, True)
    assert settings(told) == known.settings
    if not known.second:
        assert (it["second"]["answer"]["status"], it["second"]["answer"]["kind"]) == (500, "html")
        assert "Already connected to a transport" in it["second"]["answer"]["words"]


@requirement("doctor:findings:real-servers")
def test_playwright_lets_nobody_in_by_another_name_than_localhost_and_the_sentence_says_so() -> None:
    with playwright() as url:
        done = doctor(url.replace("localhost", "127.0.0.1"), *LONG)
    assert done.returncode == 3
    assert "such as localhost" in done.stderr


@requirement("doctor:findings:real-servers")
def test_supergateway_is_seen_to_send_progress_on_the_stream_of_another_call() -> None:
    with supergateway(*EVERYTHING_STDIO) as url:
        told = report(url, "--call", 'trigger-long-running-operation={"duration": 2, "steps": 4}')
    call = told["findings"]["call"]
    assert not call["has_failed"]
    assert call["progress"] > 0, "the last steps may come behind the result"
    assert call["strayed"] > 0
    assert settings(told) == {"scope": "chat", "serial": True}


@requirement("doctor:findings:real-servers")
def test_the_memory_of_a_knowledge_graph_is_seen_to_be_one_for_all_sessions(tmp_path: Path) -> None:
    write = {"entities": [{"name": "harbour", "entityType": "place", "observations": ["blue"]}]}
    told = report(
        *("--write", f"create_entities={json.dumps(write)}", "--read", "read_graph", "--"),
        *(str(NODE), str(MEMORY)),
        MEMORY_FILE_PATH=str(tmp_path / "memory.jsonl"),
    )
    state = told["findings"]["state"]
    assert (state["same"], state["second"], state["later"]) == (True, True, True)
    assert settings(told) == {"scope": "shared"}


@requirement("doctor:findings:as-the-server-is")
@pytest.mark.parametrize(("era", "scope"), [("handshake", "chat"), ("modern", "shared"), ("both", "chat")])
def test_a_process_is_a_session(era: str, scope: str) -> None:
    told = report("--", *TEST_SERVER_STDIO, "--era", era)
    it = told["findings"]
    assert (it["transport"], it["modern"]["is_spoken"], it["state"]["same"]) == ("stdio", era != "handshake", True)
    if era != "modern":
        assert (it["second"]["is_accepted"], it["second"]["does_first_survive"]) == (True, True)
        assert (it["state"]["second"], it["state"]["later"]) == (False, False)
    assert settings(told) == {"scope": scope}


@requirement("doctor:findings:real-servers")
def test_a_server_of_2024_is_found_behind_its_stream() -> None:
    port = free_port()
    with node(EVERYTHING, "sse", port=port, PORT=str(port)):
        told = report(f"http://127.0.0.1:{port}/sse")
    it = told["findings"]
    assert (it["transport"], it["handshake"]["revision"], it["modern"]["answer"]["kind"]) == ("sse", None, "html")
    assert (it["second"]["is_accepted"], it["second"]["does_first_survive"]) == (True, True)
    assert settings(told) == {"scope": "chat", "transport": "sse"}


@requirement("doctor:findings:real-servers")
def test_a_server_of_the_official_sdk_speaks_both_eras_and_guards_itself() -> None:
    port = free_port()
    with start(sys.executable, REFERENCE, "--era", "both", "--port", str(port)) as server:
        server.wait_for_port(port)
        told = report(f"http://127.0.0.1:{port}/mcp")
    it = told["findings"]
    assert (it["modern"]["is_spoken"], it["handshake"]["revision"]) == (True, "2025-11-25")
    assert (it["missing_id"]["answer"]["status"], it["unknown_id"]["answer"]["status"]) == (400, 404)
    assert (it["foreign_origin"]["is_refused"], it["foreign_host"]["is_refused"]) == (True, True)
    assert it["end"]["is_gone"]
    assert settings(told) == CHAT
    assert any("era: handshake" in remark for remark in told["remarks"])


def test_a_gateway_is_examined_like_any_server() -> None:
    with shipped_server() as url, holdfast(url) as (gateway, _):
        told = report(gateway)
    it = told["findings"]
    assert (it["state"]["same"], it["state"]["second"]) == (True, False)
    assert (it["foreign_origin"]["is_refused"], it["foreign_host"]["is_refused"]) == (True, True)
    assert settings(told) == CHAT


# What a person sees.


@requirement("doctor:shown")
def test_on_a_terminal_of_80_columns_and_in_a_pipe_it_is_the_same_text() -> None:
    with shipped_server() as url:
        with start_on_terminal(HOLDFAST, "doctor", *LONG, url, columns=80) as terminal:
            assert terminal.wait(PATIENCE) == 0
            shown = without_colours(terminal.output)
        piped = doctor(*LONG, url).stdout
    assert "✓  session id      given" in shown
    for text in (piped, shown):
        assert max(len(line.rstrip("\r\n")) for line in text.splitlines()) <= 80
        assert "settings that suit it" in text
        assert "    scope: chat" in text
    assert "\x1b" not in piped
    assert not any(line != line.rstrip() for line in piped.splitlines())


@requirement("doctor:advice:can-be-pasted")
@pytest.mark.parametrize("target", ["url", "command"])
def test_what_is_printed_to_be_pasted_passes_holdfast_check(target: str, tmp_path: Path) -> None:
    with shipped_server("--one-connection") as url:
        words = [url, "--key", "sesame"] if target == "url" else ["--", *TEST_SERVER_STDIO]
        text = doctor(*LONG, *words).stdout
    file = tmp_path / "holdfast.yaml"
    file.write_text(text[text.index("servers:") :].partition("\n\n")[0])
    environment = {**os.environ, "HOLDFAST_TEST_SERVER_AUTHORIZATION": "Bearer sesame"}
    checked = subprocess.run(
        [str(HOLDFAST), "check", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment,
    )
    assert checked.stderr == ""
    assert checked.stdout.startswith(f"{file} is valid: 1 server")
    assert "sesame" not in text


@requirement("doctor:bounded")
@pytest.mark.parametrize("is_json", [True, False])
def test_a_server_that_is_not_there_is_one_sentence_and_status_3(is_json: bool) -> None:
    url = f"http://127.0.0.1:{free_port()}/mcp"
    done = doctor(url, *(["--json"] if is_json else []))
    assert done.returncode == 3
    assert done.stderr == f"holdfast: connection to {url[7:-4]} refused\n"
    if is_json:
        told = json.loads(done.stdout)
        assert (told["usable"], told["advice"], told["remarks"], told["settings"]) == (False, [], [], "")
        assert told["findings"]["problem"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http://127.0.0.1:1/mcp", "--write", "a"], "--write and --read go together"),
        (["http://127.0.0.1:1/mcp", "--call", "a=[1]"], "'[1]' is no JSON object"),
        (["http://127.0.0.1:1/mcp", "--call", "={}"], "names no tool"),
        (["http://127.0.0.1:1/mcp", "--timeout", "0"], "--timeout takes seconds"),
        (["http://127.0.0.1:1/mcp", "--header", "Host=elsewhere"], "is not free to be set"),
        (["--", "no-such-program"], "command not found"),
        ([], "name a server"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(words: list[str], said: str) -> None:
    done = doctor(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--call", "--write"])
def test_a_tool_that_the_server_does_not_have_is_one_sentence_and_status_2(option: str) -> None:
    read = ["--read", "count"] if option == "--write" else []
    done = doctor(option, "cuont", *read, "--", *TEST_SERVER_STDIO)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no tool 'cuont'; it has count," in done.stderr
    assert done.stderr.count("\n") == 1


@requirement("doctor:nothing-is-left")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    server = [*TEST_SERVER_STDIO, "--ledger", str(ledger)]
    with start(HOLDFAST, "doctor", "--call", 'slow={"gate": "never"}', "--", *server) as process:
        wait_until(lambda: ledger.exists() and "never" in ledger.read_text(), "the tool is called")
        started = descendants(process.pid)
        assert started
        process.send(number)
        assert process.wait(PATIENCE) == 128 + number
        wait_for_the_end_of(started)
