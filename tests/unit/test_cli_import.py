"""`holdfast import`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.cli import main
from requirements import requirement

FILE = """
general_settings: {master_key: os.environ/MASTER_KEY}
mcp_servers:
  github:
    url: https://mcp.example.org/mcp
    auth_type: bearer_token
    auth_value: os.environ/GITHUB_TOKEN
    access_groups: [dev]
  pets: {spec_path: ./pets.json}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `holdfast` in an empty folder: its status, and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("MASTER_KEY", "GITHUB_TOKEN", "MCP_TOOL_PREFIX_SEPARATOR"):
        monkeypatch.delenv(name, raising=False)

    def holdfast(*words: str, text: str = FILE, **environment: str) -> tuple[int, str, str]:
        Path("litellm.yaml").write_text(text)
        monkeypatch.setattr("sys.argv", ["holdfast", *words])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert isinstance(ended.value.code, int)
        out, told = capsys.readouterr()
        return ended.value.code, out, told

    return holdfast


@requirement("import:litellm:passes-check")
def test_what_it_writes_passes_check_once_its_variables_are_set(run: Run) -> None:
    status, out, told = run("import", "litellm.yaml", "-o", "holdfast.yaml")
    assert (status, out) == (0, "")
    *remarks, last = told.splitlines()
    assert last == "holdfast.yaml: 1 server, 1 left out; see holdfast check holdfast.yaml"
    assert [re.match(r"litellm\.yaml:(\d+): ([\w.]+): ", line) is not None for line in remarks] == [True] * 3
    assert stat.S_IMODE(Path("holdfast.yaml").stat().st_mode) == 0o600

    status, _, told = run("check", "holdfast.yaml")
    assert status == 2
    assert "MASTER_KEY is not set" in told
    status, out, _ = run("check", "holdfast.yaml", MASTER_KEY="sk-1", GITHUB_TOKEN="ghp_1")
    assert (status, out.splitlines()[0]) == (0, "holdfast.yaml is valid: 1 server, 1 client")


def test_without_a_name_it_is_printed_and_what_is_lost_goes_to_stderr(run: Run) -> None:
    status, out, told = run("import", "litellm.yaml")
    assert status == 0
    assert '      Authorization: "Bearer ${GITHUB_TOKEN}"\n' in out
    assert "access_groups" in told
    assert "  github:\n" not in told


@pytest.mark.parametrize("command", ["serve", "check"])
def test_who_names_no_settings_file_and_has_none_is_told_what_to_name(run: Run, command: str) -> None:
    status, out, told = run(command)
    assert (status, out) == (2, "")
    assert told == "holdfast: there is no holdfast.yaml here; name a settings file, or one server: holdfast run URL\n"


@requirement("import:litellm:mistakes")
def test_a_file_that_is_there_is_not_written_over(run: Run) -> None:
    Path("holdfast.yaml").write_text("mine")
    status, _, told = run("import", "litellm.yaml", "-o", "holdfast.yaml")
    assert status == 2
    assert told == "holdfast.yaml: is there already, and nothing was written; name another file with -o\n"
    assert Path("holdfast.yaml").read_text() == "mine"


@requirement("import:litellm:mistakes")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "litellm.yaml:1: is empty"),
        ("- a\n", "litellm.yaml:1: has no mcp_servers, so it is no config file of LiteLLM's proxy with MCP servers"),
        ("model_list: []\n", "litellm.yaml:1: has no mcp_servers, so it is no config file of LiteLLM's proxy with MCP"),
        ("include: [a.yaml]\n", "litellm.yaml:1: has no mcp_servers; import the file of those that it includes"),
        ("mcpServers: {a: {command: x}}\n", "litellm.yaml:1: needs no import: holdfast serve reads it as it is"),
        ("servers: {a: {command: x}}\n", "litellm.yaml:1: has servers, as Holdfast's own files do: see holdfast check"),
        ("mcp_servers:\n", "litellm.yaml:1: mcp_servers: names no server"),
        ('mcp_servers: {a: "b\n', "litellm.yaml:1: is no YAML: the quote that opens here is not closed"),
        (
            'mcp_servers: {a: {url: "http://h/\\ud800"}}\n',
            "litellm.yaml:1: mcp_servers.a.url: holds half of a character",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_line(run: Run, text: str, line: str) -> None:
    status, out, told = run("import", "litellm.yaml", "-o", "holdfast.yaml", text=text)
    assert (status, out) == (2, "")
    assert told.startswith(line)
    assert told.count("\n") == 1
    assert not Path("holdfast.yaml").exists()


@requirement("import:litellm:mistakes")
def test_files_that_cannot_be_read_or_written_are_one_line(run: Run) -> None:
    assert run("import", "none.yaml") == (2, "", "none.yaml: cannot be read: no such file or directory\n")
    status, _, told = run("import", "litellm.yaml", "-o", "no/holdfast.yaml")
    assert (status, told) == (2, "no/holdfast.yaml: cannot be written: no such file or directory\n")


@requirement("import:litellm:names")
def test_litellms_own_variable_says_what_stands_in_names(run: Run) -> None:
    _, out, _ = run("import", "litellm.yaml", MCP_TOOL_PREFIX_SEPARATOR="__")
    assert "separator: __\n" in out
