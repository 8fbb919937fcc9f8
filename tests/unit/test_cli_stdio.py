"""What `holdfast stdio` serves, by its command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from holdfast.cli.main import app
from holdfast.cli.stdio import IDLE_TIMEOUT, Options, find_settings
from holdfast.config import ClientSettings
from holdfast.errors import ConfigError
from processes import ROOT

NOTHING = Options(name=None, scope=None, headers=())
LOCAL = (ClientSettings(name="local"),)


def test_a_url_and_a_command_are_one_server_that_is_held_for_as_long_as_the_client_runs() -> None:
    settings, _ = find_settings(["http://127.0.0.1/mcp"], None, Options("mine", "user", ["x-a=b"]))
    (server,) = settings.servers
    assert (server.name, server.url, server.scope) == ("mine", "http://127.0.0.1/mcp", "user")
    assert server.headers["x-a"].get_secret_value() == "b"
    assert server.idle_timeout == IDLE_TIMEOUT
    assert settings.clients == LOCAL
    settings, _ = find_settings([], ["sh", "-c", "exit"], NOTHING)
    assert (settings.servers[0].command, settings.servers[0].scope) == (("sh", "-c", "exit"), "chat")
    settings, _ = find_settings([], ["http://127.0.0.1/mcp"], NOTHING)
    assert settings.servers[0].url == "http://127.0.0.1/mcp"


def test_of_a_file_the_clients_play_no_part(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.yaml"
    file.write_text(
        "clients: {host: {key: sesame, servers: [a]}}\n"
        "limits: {request_bytes: 5000}\n"
        "servers: {a: {url: 'http://127.0.0.1/a', idle_timeout: 60}, b: {url: 'http://127.0.0.1/b'}}\n"
    )
    settings, _ = find_settings([str(file)], None, NOTHING)
    assert settings.clients == LOCAL
    assert [server.name for server in settings.servers] == ["a", "b"]
    assert settings.servers[0].idle_timeout == 60
    assert settings.limits.request_bytes == 5000


@pytest.mark.parametrize(
    ("words", "dashed", "options", "what"),
    [
        ([], None, NOTHING, "name a server"),
        ([], [], NOTHING, "a command is missing"),
        (["http://127.0.0.1/mcp"], ["sh"], NOTHING, "two servers"),
        (["a.yaml", "b"], None, NOTHING, "one word too many"),
        (["a"], None, NOTHING, "a server's command comes after --"),
        (["a.yaml"], None, NOTHING, "cannot be read"),
        (["a.yaml"], None, Options("x", None, ()), "the file says it"),
        ([], ["sh"], Options(None, None, ["a=b"]), "servers at a URL"),
        ([], ["no-such-program"], NOTHING, "command not found"),
    ],
)
def test_mistakes_are_told(words: list[str], dashed: list[str] | None, options: Options, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        find_settings(words, dashed, options)


def test_a_scope_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match="--scope takes 'chat', 'user' or 'shared'"):
        find_settings([], ["sh"], Options(None, "all", ()))


def test_every_option_is_documented_and_no_other() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    options = {name for each in group.commands["stdio"].params for name in each.opts if name.startswith("--")}
    page = (ROOT / "docs" / "commands.md").read_text()
    section = page.partition("## `holdfast stdio`")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE)) == options | {"--help"}
