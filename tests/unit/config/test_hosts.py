"""The files in which hosts list their servers, as those hosts write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.config import ServerSettings
from holdfast.config.file import Loaded, load
from holdfast.errors import ConfigError
from requirements import requirement

Load = Callable[..., Loaded]


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)

    def run(text: str, *, name: str = "mcp.json", **environment: str) -> Loaded:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
        return load(name, environment)

    return run


def complaints(loads: Load, text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, **environment)
    return str(caught.value).split("\n")


def only(loaded: Loaded) -> ServerSettings:
    (server,) = loaded.settings.servers
    return server


def test_claude_desktop(loads: Load) -> None:
    loaded = loads(
        """{
  "globalShortcut": "",
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": ["-y", "@modelcontextprotocol/server-filesystem", "/tmp/a b"],
      "env": {"TOKEN": "t", "PORT": 3000}
    }
  }
}"""
    )
    server = only(loaded)
    assert server.command == ("npx", "-y", "@modelcontextprotocol/server-filesystem", "/tmp/a b")
    assert {name: value.get_secret_value() for name, value in server.env.items()} == {"TOKEN": "t", "PORT": "3000"}
    assert loaded.notes == []


def test_claude_code(loads: Load) -> None:
    loaded = loads(
        """{"mcpServers": {
  "api": {"type": "http", "url": "${BASE:-https://h}/mcp", "headers": {"Authorization": "Bearer ${KEY}"}, "timeout": 5},
  "files": {"type": "stdio", "command": "/opt/my server", "args": [], "env": {}}
}}""",
        KEY="k",
    )
    api, files = loaded.settings.servers
    assert (api.url, api.headers["Authorization"].get_secret_value()) == ("https://h/mcp", "Bearer k")
    assert files.command == ("/opt/my server",)


def test_cursor(loads: Load, tmp_path: Path) -> None:
    text = """{"mcpServers": {"a": {"command": "${workspaceFolder}${/}x",
        "args": ["${env:NAME}", "${workspaceFolderBasename}"], "envFile": "${workspaceFolder}/.env"}}}"""
    loaded = loads(text, name=".cursor/mcp.json", NAME="n")
    assert only(loaded).command == (f"{tmp_path}/x", "n", tmp_path.name)
    (note,) = loaded.notes
    assert note.startswith(".cursor/mcp.json:2: mcpServers.a.envFile: is not read; put its variables into env")


def test_windsurf_and_cline(loads: Load) -> None:
    loaded = loads(
        """{"mcpServers": {
  "w": {"serverUrl": "https://w/mcp", "disabledTools": ["x"]},
  "c": {"type": "streamableHttp", "url": "https://c/mcp", "autoApprove": ["x"], "alwaysAllow": [], "disabled": false},
  "off": {"command": "x", "disabled": true}
}}"""
    )
    assert [server.url for server in loaded.settings.servers] == ["https://w/mcp", "https://c/mcp"]
    assert loaded.notes == [
        "mcp.json:2: mcpServers.w.disabledTools: is left aside: every tool of the server is served",
        "mcp.json:4: mcpServers.off: is disabled and left out",
    ]


VS_CODE = """// Servers of this workspace
{
  "inputs": [
    {"type": "promptString", "id": "api-key", "description": "Key", "password": true},
    {"type": "promptString", "id": "region", "default": "eu"}
  ],
  "servers": {
    "github": {
      "type": "http", /* remote */
      "url": "https://${input:region}.h/mcp",
      "headers": {"Authorization": "Bearer ${input:api-key}"},
      "gallery": true,
    },
    "local": {"type": "stdio", "command": "x", "args": ["${workspaceFolder}", "${userHome}"]},
  },
}
"""


def test_vs_code(loads: Load, tmp_path: Path) -> None:
    github, local = loads(VS_CODE, name=".vscode/mcp.json", HOLDFAST_INPUT_API_KEY="k").settings.servers
    assert (github.url, github.headers["Authorization"].get_secret_value()) == ("https://eu.h/mcp", "Bearer k")
    assert local.command == ("x", str(tmp_path), str(Path.home()))


def test_an_input_cannot_be_asked_and_the_variable_instead_is_named(loads: Load) -> None:
    (line,) = complaints(loads, VS_CODE)
    assert line == (
        "mcp.json:11: servers.github.headers.Authorization: an editor would ask for ${input:api-key};"
        " set the environment variable HOLDFAST_INPUT_API_KEY instead"
    )


@requirement("upstream:legacy-sse:configured")
@pytest.mark.parametrize("key", ["type", "transport", "transportType"])
def test_a_server_over_the_old_transport_is_said_to_be_one(loads: Load, key: str) -> None:
    loaded = loads(f'{{"mcpServers": {{"a": {{"{key}": "sse", "url": "https://h/sse"}}}}}}')
    assert (only(loaded).url, only(loaded).transport, loaded.notes) == ("https://h/sse", "sse", [])


def test_a_server_over_streamable_http_may_turn_out_to_be_older(loads: Load) -> None:
    servers = ('{"url": "https://h/sse"}', '{"type": "http", "url": "https://h/mcp"}')
    assert [only(loads(f'{{"mcpServers": {{"a": {server}}}}}')).transport for server in servers] == ["auto", "auto"]


def test_the_settings_of_vs_code(loads: Load) -> None:
    text = '{"editor.tabSize": 2, "mcp": {"servers": {"a": {"url": "https://h/mcp", "type": "http"}}}}'
    assert only(loads(text)).url == "https://h/mcp"
    (line,) = complaints(loads, text.replace("https", "ftp"))
    assert line.startswith("mcp.json:1: mcp.servers.a.url: 'ftp://h' is no http:// or https:// URL")


def test_a_list_of_servers_in_yaml(loads: Load) -> None:
    assert only(loads("mcpServers:\n  a: {command: x, args: [y]}\n", name="librechat.yaml")).command == ("x", "y")


def test_our_own_settings_may_stand_among_theirs(loads: Load) -> None:
    loaded = loads(
        '{"listen": "127.0.0.1:1", "mcpServers": {"a": {"command": "x", "scope": "user", "idle_timeout": 5}}}'
    )
    assert (loaded.settings.port, only(loaded).scope, only(loaded).idle_timeout) == (1, "user", 5)


def test_our_own_form_may_be_json(loads: Load) -> None:
    assert only(loads('{"listen": "127.0.0.1:1", "servers": {"a": {"command": ["x", "y"]}}}')).command == ("x", "y")


def test_names_are_made_legal_and_stay_apart(loads: Load) -> None:
    loaded = loads(
        '{"mcpServers": {"My Files": {"command": "x"}, "my__db": {"command": "x"}, "ä": {"command": "x"},\n'
        '"My-Files": {"command": "x"}}}'
    )
    assert [server.name for server in loaded.settings.servers] == ["My-Files-2", "my_db", "server", "My-Files"]
    assert loaded.notes[0] == "mcp.json:1: mcpServers.My Files: is called My-Files-2 here, in URLs and names of tools"
    assert len(loaded.notes) == 3


def test_what_cannot_be_meant_for_a_server_is_left_aside_and_noted(loads: Load) -> None:
    loaded = loads(
        '{"mcpServers": {"a": {"url": "https://h/mcp", "env": {"A": "b"}, "scop": "user"},\n'
        '"b": {"command": "x", "headers": {"A": "b"}, "env": null}, "c": {"url": "https://h/sse"}}}'
    )
    assert [note.partition(";")[0] for note in loaded.notes] == [
        "mcp.json:1: mcpServers.a.env: is for a command, and left aside",
        "mcp.json:1: mcpServers.a.scop: is not known here, and left aside (did you mean scope?)",
        "mcp.json:2: mcpServers.b.headers: is for a url, and left aside",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"mcpServers": {}}', "1: mcpServers: names no server"),
        ('{"globalShortcut": ""}', "1: mcpServers: names no server"),
        ('{"mcpServers": {"a": {"command": "x", "disabled": true}}}', "1: mcpServers: every server in it is disabled"),
        (
            '{"mcpServers": {\n"a": {"type": "ws", "url": "https://h/"}}}',
            "2: mcpServers.a.type: 'ws' is not one of stdio, http, streamable-http",
        ),
        (
            '{"mcpServers": {"a": {"command": "x",\n"args": "y"}}}',
            "2: mcpServers.a.args: takes a list of texts; a text stands here",
        ),
        (
            '{"mcpServers": {"a": {"command": "x", "args": ["1",\nnull]}}}',
            "2: mcpServers.a.args.2: takes a text; nothing stands here",
        ),
        (
            '{"mcpServers": {"a b": {"command": "x",\n"args": ["${NO}"]}}}',
            "2: mcpServers.a b.args.1: the environment variable NO is not set",
        ),
        (
            '{"mcpServers": {"a": {"command": "${NO}"}}}',
            "1: mcpServers.a.command: the environment variable NO is not set",
        ),
        (
            '{"mcpServers": {"a": {"command": "${config:x.y}"}}}',
            "1: mcpServers.a.command: ${config:x.y} can only be filled in by an editor",
        ),
        ('{"mcpServers": {"a": {\n"serverUrl": "h"}}}', "2: mcpServers.a.serverUrl: 'h' is no http:// or https:// URL"),
        (
            '{"mcpServers": {"a": {"type": "http"}}}',
            "1: mcpServers.a: needs a url (Streamable HTTP) or a command (stdio)",
        ),
        (
            '{"mcpServers": {"a": {"command": "x"},\n"a": {"command": "y"}}}',
            "2: mcpServers.a: stands twice; the first is in line 1",
        ),
        (
            '{"mcpServers": {"a": {"command": "npx -y x"}}}',
            "1: mcpServers.a.command: is a program's name with spaces in it; put what follows the program into args",
        ),
        ('{"mcpServers": []}', "1: mcpServers: names no server"),
        ("[]", "1: takes names and values"),
        ("", "1: is empty"),
        ('{\n"a": 1\n"b": 2}', "2: is no JSON: a comma is missing at the end"),
        ("{\n'a': 1}", '2: is no JSON: texts and names stand in "double quotes"'),
        ("{\n a: 1}", '2: is no JSON: a text or name without "quotes"'),
        ('{\n "a": "C:\\Users"}', r"2: is no JSON: a \ stands for itself only as \\"),
        ('{\n "a": "x\n"}', "2: is no JSON: the quote that opens here is not closed"),
        ('{\n "a": {\n"b": 1', "2: is no JSON: the { that opens here is not closed"),
        ('{"a": 1}}', "1: is no JSON: something stands after the end"),
        ('{"a" 1}', "1: is no JSON: a : after the name is expected, and a number stands there"),
        ('{"a": }', "1: is no JSON: a value is expected, and } stands there"),
        ('{"a": 012}', "1: is no JSON: a number that JSON does not know"),
        ('{"a": 1 /* x }', "1: is no JSON: the comment that opens here is not closed"),
        ("[" * 100, "1: is no JSON: it is nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_their_key(loads: Load, text: str, expected: str) -> None:
    (line,) = complaints(loads, text)
    assert line.startswith(f"mcp.json:{expected}")


def test_a_hosts_list_of_tools_is_left_aside_and_ours_counts(loads: Load) -> None:
    theirs = loads('{"mcpServers": {"a": {"command": "x", "tools": ["*"]}, "b": {"command": "x", "tools": ["y"]}}}')
    assert [server.tools.admits_all for server in theirs.settings.servers] == [True, True]
    assert [note.split(": ")[1] for note in theirs.notes] == ["mcpServers.a.tools", "mcpServers.b.tools"]
    ours = only(loads('{"mcpServers": {"a": {"command": "x", "prefix": "p", "tools": {"deny": ["y"]}}}}'))
    assert (ours.public_prefix, ours.tools.deny) == ("p", ("y",))


def test_servers_of_a_host_have_names_that_are_told_apart_at_mcp(loads: Load) -> None:
    loaded = loads(
        """{"mcpServers": {"a_b": {"command": "x"}, "a.b": {"command": "x"}, "c_": {"command": "x"},
        "d._e": {"command": "x"}, "a b": {"command": "x"}}}"""
    )
    assert [server.name for server in loaded.settings.servers] == ["a_b", "a.b-2", "c", "d--e", "a-b"]
    assert len({server.public_prefix for server in loaded.settings.servers}) == 5
