"""The settings file in our own form: what it means, and what is said about mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from holdfast.cli.check import check
from holdfast.config import TRUST_PRESETS, GatewaySettings, Limits, LogSettings, Trust, key_digest
from holdfast.config.file import Loaded, load
from holdfast.errors import ConfigError
from requirements import requirement

ROOT = Path(__file__).resolve().parents[3]
KEYS = {"OPEN_WEBUI_KEY": "k", "AGENT_KEY": "a", "OPERATOR_KEY": "o"}
CANARY = "canary-4711"
SERVERS = "servers: {a: {url: http://h/mcp}}\n"

Load = Callable[..., Loaded]
Complaint = Callable[..., list[str]]

WEBUI = TRUST_PRESETS["openwebui"]
SIGNING = SecretStr("a secret that nobody guesses so soon")


def settings_of(loads: Load, text: str, **environment: str) -> GatewaySettings:
    return loads(text, environment).settings


def test_the_example_loads() -> None:
    loaded = load(ROOT / "examples" / "holdfast.yaml", KEYS)
    assert loaded.notes == []
    settings = loaded.settings
    assert (settings.host, settings.port, settings.allowed_hosts) == ("127.0.0.1", 8790, ("holdfast.internal",))
    assert settings.operator_key_digest == key_digest("o")
    assert settings.limits == Limits(sessions_per_user=20, user_rate=20, client_rate=200)
    assert settings.log == LogSettings(format="json")


def test_the_clients_of_the_example_see_what_it_says() -> None:
    webui, agent = load(ROOT / "examples" / "holdfast.yaml", KEYS).settings.clients
    assert (webui.key_digests, webui.trust) == ((key_digest("k"),), TRUST_PRESETS["openwebui"])
    assert [webui.may_see(name) for name in ("browser", "search", "tickets")] == [True, True, False]
    assert agent.servers is not None
    assert agent.servers["search"].admits_all
    assert agent.servers["browser"].admits("browser_click")
    assert not agent.servers["browser"].admits("browser_install")
    assert not agent.servers["tickets"].admits("create_ticket")


def test_the_servers_of_the_example_are_what_it_says() -> None:
    browser, search, tickets = load(ROOT / "examples" / "holdfast.yaml", KEYS).settings.servers
    assert (browser.name, browser.command) == ("browser", ("npx", "-y", "@playwright/mcp", "--headless", "--isolated"))
    assert browser.open_timeout == 60
    assert not browser.tools.admits("browser_install")
    assert (search.scope, search.max_sessions, search.public_prefix) == ("shared", 1, "web")
    assert search.headers["Authorization"].get_secret_value() == "Bearer none"
    assert search.tools.aliases == {"searxng_web_search": "search"}
    assert (tickets.scope, tickets.pass_headers) == ("user", ("x-tenant",))
    assert not tickets.tools.admits("delete_ticket")


@pytest.mark.parametrize("clients", ["", "clients:\n", "clients: {}\n"])
def test_without_clients_the_machine_itself_may_call(loads: Load, clients: str) -> None:
    settings = settings_of(loads, clients + SERVERS)
    assert [client.name for client in settings.clients] == ["local"]
    assert settings.is_loopback


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("localhost:80", "localhost", 80), ("'[::1]:8790'", "::1", 8790)],
)
def test_listen_is_host_and_port(loads: Load, listen: str, host: str, port: int) -> None:
    settings = settings_of(loads, f"listen: {listen}\n{SERVERS}")
    assert (settings.host, settings.port) == (host, port)


def test_values_are_taken_as_written_where_a_text_belongs(loads: Load) -> None:
    (server,) = settings_of(
        loads, "servers:\n  a:\n    command: [x, --port, 0123, yes, 1:30]\n    env: {PORT: 08, ON: yes, E: ''}\n"
    ).servers
    assert server.command == ("x", "--port", "0123", "yes", "1:30")
    assert {name: value.get_secret_value() for name, value in server.env.items()} == {
        "PORT": "08",
        "ON": "yes",
        "E": "",
    }


def test_a_command_may_be_one_line_and_variables_stay_one_word(loads: Load) -> None:
    (server,) = settings_of(loads, "servers: {a: {command: 'npx \"a b\" ${ARG}'}}", ARG="x 'y z").servers
    assert server.command == ("npx", "a b", "x 'y z")


def test_a_value_of_the_environment_is_never_read_as_yaml(loads: Load) -> None:
    evil = "x\nlisten: 0.0.0.0:1\n#'\"{["
    (server,) = settings_of(loads, "servers:\n  a:\n    command: [x, '${EVIL}']\n", EVIL=evil).servers
    assert server.command == ("x", evil)


def test_variables_may_stand_for_numbers_and_defaults_for_variables(loads: Load) -> None:
    text = "servers:\n  a:\n    url: http://${HOST:-h}/\n    idle_timeout: ${IDLE}\n    scope: ${S:-user}\n"
    (server,) = settings_of(loads, text, IDLE="5").servers
    assert (server.url, server.idle_timeout, server.scope) == ("http://h/", 5.0, "user")


def test_a_doubled_dollar_keeps_a_plain_one(loads: Load) -> None:
    (server,) = settings_of(loads, "servers: {a: {command: [sh, -c, 'echo $${X} $HOME $$']}}").servers
    assert server.command == ("sh", "-c", "echo ${X} $HOME $$")


def test_secrets_come_from_files_beside_the_settings(loads: Load, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("Bearer t\n")
    (tmp_path / "key").write_text("k1\r\n")
    text = """
clients:
  a: {key_file: key}
  b: {keys: [k2, {file: "${WHERE}"}]}
servers:
  s:
    url: http://h/
    headers: {Authorization: {file: secrets/token}}
"""
    (tmp_path / "k3").write_text("k3")
    settings = settings_of(loads, text, WHERE=str(tmp_path / "k3"))
    assert settings.servers[0].headers["Authorization"].get_secret_value() == "Bearer t"
    assert settings.clients[0].key_digests == (key_digest("k1"),)
    assert settings.clients[1].key_digests == (key_digest("k2"), key_digest("k3"))


def test_a_client_may_name_its_users_in_headers_of_its_own(loads: Load) -> None:
    text = "clients: {a: {key: k, trust: {user: X-User, chat: X-Chat}}}\n"
    assert settings_of(loads, text + SERVERS).clients[0].trust == Trust(user="x-user", chat="x-chat")


@pytest.mark.parametrize(
    ("text", "trust"),
    [
        ("{preset: openwebui, jwt_secret: '${SECRET}'}", WEBUI.model_copy(update={"jwt_secret": SIGNING})),
        ("{preset: openwebui}", WEBUI),
        ("{preset: openwebui, chat: X-Chat}", WEBUI.model_copy(update={"chat": "x-chat"})),
        (
            "{preset: openwebui, jwt: X-Who, jwt_secret: {file: secret}}",
            WEBUI.model_copy(update={"jwt": "x-who", "jwt_secret": SIGNING}),
        ),
    ],
)
def test_a_preset_may_be_added_to(loads: Load, tmp_path: Path, text: str, trust: Trust) -> None:
    (tmp_path / "secret").write_text(f" {SIGNING.get_secret_value()}\n")
    loaded = loads(f"clients: {{a: {{key: k, trust: {text}}}}}\n{SERVERS}", {"SECRET": SIGNING.get_secret_value()})
    assert loaded.settings.clients[0].trust == trust
    assert loaded.notes == []


def test_a_folder_is_relative_to_the_file(loads: Load, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert settings_of(loads, "servers: {a: {command: x, cwd: here}}").servers[0].cwd == str(tmp_path / "here")


def test_what_servers_have_in_common_may_be_written_once(loads: Load) -> None:
    text = """
x-common: &common {scope: user, idle_timeout: 5}
servers:
  a: {<<: *common, url: http://a/}
  b: {<<: [*common], url: http://b/, idle_timeout: 6}
"""
    a, b = settings_of(loads, text).servers
    assert (a.scope, a.idle_timeout, b.scope, b.idle_timeout) == ("user", 5, "user", 6)


MISTAKES = [
    ("", "1: is empty; it needs at least servers: {"),
    ("# only a comment\n", "1: is empty"),
    ("hello\n", "1: takes names and values"),
    ("listen: 127.0.0.1:1\n", "1: servers: is missing"),
    ("servers:\n", "1: servers: names no server"),
    ("servers:\n  - name: a\n    url: http://h/\n", "1: servers: takes names, not a list"),
    ("servers:\n  a:\n", "2: servers.a: has no settings"),
    ("servers:\n  a: http://h/\n", "2: servers.a: takes settings, not a value alone: write url:"),
    ("servers:\n  a: npx x\n", "2: servers.a: takes settings, not a value alone: write command:"),
    ("servers:\n  a:\n    url:http://h/\n", "2: servers.a: a space is missing after url:"),
    ("servers:\n  a: {scope: chat}\n", "2: servers.a: needs a url (Streamable HTTP) or a command (stdio)"),
    ("servers:\n  a:\n    url: http://h/\n    command: x\n", "4: servers.a: has a url and a command"),
    (
        "servers:\n  a:\n    command: x\n    scope: chats\n",
        "4: servers.a.scope: 'chats' is not one of chat, user, shared (did you mean chat?)",
    ),
    (
        "servers:\n  a:\n    command: x\n    idle_timout: 3\n",
        "4: servers.a.idle_timout: unknown key (did you mean idle_timeout?)",
    ),
    (
        "servers:\n  a:\n    command: x\n    max-sessions: 3\n",
        "4: servers.a.max-sessions: unknown key (did you mean max_sessions?)",
    ),
    (
        "servers:\n  a:\n    command: x\n    wibble: 3\n",
        "4: servers.a.wibble: unknown key; known are url, transport, command,",
    ),
    (
        "servers:\n  a:\n    command: x\n    args: [y]\n",
        "4: servers.a.args: unknown key: put the arguments into the command",
    ),
    ("servers:\n  a:\n    command: x\n    listen: y\n", "4: servers.a.listen: unknown key: belongs to the top level"),
    (
        "servers:\n  a:\n    command: x\n    idle_timeout: 30m\n",
        "4: servers.a.idle_timeout: '30m' is not a number; times are seconds: 1800",
    ),
    (
        "servers:\n  a:\n    command: x\n    max_sessions: 0\n",
        "4: servers.a.max_sessions: '0' is out of range: it takes a number from 1 on",
    ),
    (
        "servers:\n  a:\n    command: x\n    call_timeout: -1\n",
        "4: servers.a.call_timeout: '-1' is out of range: it takes a number above 0",
    ),
    ("servers:\n  a:\n    command: x\n    spares: yes\n", "4: servers.a.spares: 'yes' is not a number"),
    ("servers:\n  a:\n    command: x\n    max_queue: 1.5\n", "4: servers.a.max_queue: '1.5' is not a whole number"),
    ("servers:\n  a:\n    command: x\n    max_age: .inf\n", "4: servers.a.max_age: '.inf' is not a number"),
    ("servers:\n  a:\n    command: x\n    trusted: maybe\n", "4: servers.a.trusted: 'maybe' is neither true nor false"),
    (
        "servers:\n  a:\n    command: x\n    start:\n",
        "4: servers.a.start: has no value; write one, or leave the line out (then it is eager)",
    ),
    (
        "servers:\n  a:\n    command: x\n    max_queue: $N\n",
        "4: servers.a.max_queue: '$N' is not a whole number; a variable is written ${N}",
    ),
    (
        "servers:\n  a b: {url: http://h/}\n",
        "2: servers.a b: a server's name has letters, digits, dots, dashes and underscores, 64 at most: a-b",
    ),
    ("servers:\n  a__b: {url: http://h/}\n", "2: servers.a__b: a server's name has no __"),
    ("servers:\n  a: {url: http://h/}\n  a: {url: http://i/}\n", "3: servers.a: stands twice; the first is in line 2"),
    (
        "servers:\n  a: {url: h:3000/mcp}\n",
        "2: servers.a.url: 'h:3000' is no http:// or https:// URL; write http:// before it",
    ),
    (
        "servers:\n  a: {url: 'http://h:99999/x'}\n",
        "2: servers.a.url: 'http://h:99999' has a port that is no number up to 65535",
    ),
    (
        "servers:\n  a: {url: }\n",
        "2: servers.a.url: takes a URL, such as http://127.0.0.1:3000/mcp; nothing stands here",
    ),
    ("servers:\n  a: {command: [npx -y x]}\n", "2: servers.a.command: is a program's name with spaces in it"),
    ("servers:\n  a: {command: cd x && y}\n", "2: servers.a.command: is run without a shell"),
    ("servers:\n  a: {command: A=1 y}\n", "2: servers.a.command: begins with a variable; variables stand in env"),
    ("servers:\n  a: {command: []}\n", "2: servers.a.command: is empty"),
    ("servers:\n  a: {command: 'x \"y'}\n", "2: servers.a.command: a quote in it is not closed"),
    ("servers:\n  a: {command: x, cwd: nowhere}\n", "2: servers.a.cwd: 'nowhere' is no folder"),
    (
        "servers:\n  a: {command: x, headers: {A: b}}\n",
        "2: servers.a.headers: is for a url; a command takes its credentials from env",
    ),
    ("servers:\n  a: {url: http://h/, env: {A: b}}\n", "2: servers.a.env: is for a command, not a url"),
    (
        "servers:\n  a: {command: x, env: [A=b]}\n",
        "2: servers.a.env: takes names and values, such as {NAME: value}; a list stands here",
    ),
    (
        "servers:\n  a: {command: x, env: {A: }}\n",
        "2: servers.a.env.A: takes a text or {file: PATH}; nothing stands here",
    ),
    (
        "servers:\n  a:\n    url: http://h/\n    headers: {T: {file: no}}\n",
        "4: servers.a.headers.T.file: cannot read 'no': no such file or directory; relative",
    ),
    (
        "servers:\n  a:\n    url: http://h/\n    headers: {T: '${NO}'}\n",
        "4: servers.a.headers.T: the environment variable NO is not set; set it, or write ${NO:-default}",
    ),
    ("servers: {a: {command: [x, '${env:NO}']}}", "1: servers.a.command.2: write ${NO} instead of ${env:NO}"),
    ("servers: {a: {command: [x, '${NO']}}", "1: servers.a.command.2: a ${ lacks its }"),
    ("servers: {a: {command: [x, '${A:-${B}}']}}", "1: servers.a.command.2: a ${…} stands inside another"),
    ("servers: {a: {command: [x, '${a-b}']}}", "1: servers.a.command.2: ${a-b} is no environment variable"),
    ("listen: 8790\n" + SERVERS, "1: listen: '8790' is not HOST:PORT; write 127.0.0.1:8790"),
    ("listen: ':8790'\n" + SERVERS, "1: listen: ':8790' is not HOST:PORT; write 127.0.0.1:8790"),
    ("listen: 127.0.0.1\n" + SERVERS, "1: listen: '127.0.0.1' is not HOST:PORT; write 127.0.0.1:8790"),
    ("listen: http://h:1/\n" + SERVERS, "1: listen: 'http://h:1/' is not HOST:PORT; write it without http://"),
    ("listen: '::1:8790'\n" + SERVERS, "1: listen: '::1:8790' is not HOST:PORT; an IPv6 address stands in brackets"),
    ("listen: 127.0.0.1:70000\n" + SERVERS, "1: listen: '127.0.0.1:70000' is not HOST:PORT; ports go up to 65535"),
    ("port: 80\n" + SERVERS, "1: port: unknown key: write listen: HOST:PORT"),
    ("listn: x\n" + SERVERS, "1: listn: unknown key (did you mean listen?)"),
    ("scope: user\n" + SERVERS, "1: scope: unknown key: belongs to a server"),
    ("b: {command: x}\n" + SERVERS, "1: b: unknown key: belongs to the servers: servers: {b: …}"),
    ("allowed_hosts: h\n" + SERVERS, "1: allowed_hosts: takes a list, such as [holdfast.internal]; a text stands here"),
    ("allowed_hosts: ['*']\n" + SERVERS, "1: allowed_hosts.1: '*' would admit names that others made up"),
    ("allowed_origins: [h]\n" + SERVERS, "1: allowed_origins.1: 'h' is no origin such as https://chat.example.org"),
    ("client_idle_timeout: never\n" + SERVERS, "1: client_idle_timeout: 'never' is not a number"),
    ("clients: [a]\n" + SERVERS, "1: clients: takes names, not a list"),
    ("clients: {a: k}\n" + SERVERS, "1: clients.a: takes settings, not a value alone: write key:"),
    ("clients: {a: {key: }}\n" + SERVERS, "1: clients.a.key: takes a text or {file: PATH}; nothing stands here"),
    ("clients: {a: {key: ''}}\n" + SERVERS, "1: clients.a.key: is empty, which would admit everybody"),
    ("clients: {a: {keys: []}}\n" + SERVERS, "1: clients.a.keys: names no key"),
    ("clients: {a: {key: 'a b'}}\n" + SERVERS, "1: clients.a.key: has a space, a line end or another character"),
    ("clients: {a: {key: a, keys: [b]}}\n" + SERVERS, "1: clients.a: has key and keys; give one of them"),
    ("clients: {a: {key: a, token: b}}\n" + SERVERS, "1: clients.a.token: unknown key: write key"),
    (
        "clients: {a: {key: a, trust: openwebu}}\n" + SERVERS,
        "1: clients.a.trust: 'openwebu' is no preset (did you mean openwebui?)",
    ),
    (
        "clients: {a: {key: a, trust: {users: b}}}\n" + SERVERS,
        "1: clients.a.trust.users: unknown key (did you mean user?)",
    ),
    (
        "clients: {a: {key: a, trust: {preset: openwebu}}}\n" + SERVERS,
        "1: clients.a.trust.preset: 'openwebu' is no preset (did you mean openwebui?); it takes openwebui",
    ),
    (
        "clients:\n  a:\n    key: a\n    trust:\n      preset: openwebui\n      jwt_secret: short\n" + SERVERS,
        "6: clients.a.trust.jwt_secret: is shorter than 32 bytes, so it can be guessed: openssl rand -hex 32",
    ),
    (
        "clients: {a: {key: a, trust: {preset: openwebui, secret: x}}}\n" + SERVERS,
        "1: clients.a.trust.secret: unknown key: write jwt_secret",
    ),
    (
        "clients: {a: {key: a, trust: {preset: openwebui, jwt: x-who}}}\n" + SERVERS,
        "1: clients.a.trust.jwt: names where a token is found, and there is no jwt_secret",
    ),
    ("clients:\n  a: {key: k}\n  b: {keys: [l, k]}\n" + SERVERS, "3: clients.b: has the same key as a (line 2)"),
    ("clients:\n  a: {}\n  b:\n" + SERVERS, "3: clients.b: has no key, like a (line 2)"),
    ("servers:\n\ta:\n", "2: is no YAML: it is indented with a tab"),
    ("servers:\n  a: {command: [npx, @x/y]}\n", "2: is no YAML: a value that begins with @ needs quotes"),
    ("servers:\n  a:\n    url: http://h: 80/\n", "3: is no YAML: a second ': ' in one line"),
    ("servers:\n  a:\n    command: [x, y\n    scope: chat\n", "3: is no YAML: the [ that opens here is not closed"),
    ("servers:\n  a:\n    command: [x, ${Y}]\n", "3: is no YAML: inside [ ] and { } a variable needs quotes"),
    (
        'servers:\n  a:\n    url: "http://h/\n    scope: chat\n',
        "3: is no YAML: the quote that opens here is not closed",
    ),
    ("servers:\n  a:\n    url: http://h/\n   scope: chat\n", "4: is no YAML: its indentation fits nothing above"),
    ("servers: *nope\n", "1: no anchor (&) has the name of this alias"),
    (SERVERS + "---\n" + SERVERS, "2: a second document begins with ---"),
    (
        "servers:\n  a: {url: {{ URL }}}\n",
        "2: servers.a.url: a name is expected here; a value that begins with { or [ needs quotes",
    ),
    ("servers:\n  a: {url: !env URL}\n", "2: servers.a.url: tags are not understood"),
    ("x-a: &a\n  b: *a\n" + SERVERS, "2: x-a.b: contains itself: this alias"),
]


@requirement("config:mistakes-are-named-with-their-line")
@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_a_mistake_is_named_with_file_line_key_and_what_would_be_right(
    complaints: Complaint, text: str, expected: str
) -> None:
    (line,) = complaints(text)
    assert line.startswith(f"holdfast.yaml:{expected}")


@requirement("config:mistakes-are-named-with-their-line")
def test_all_mistakes_are_said_at_once_in_the_order_of_lines(complaints: Complaint) -> None:
    text = """listen: 1
clients:
  a: {key: "${NO}"}
servers:
  b:
    url: h
    scope: all
    max_queue: 0
  c: {}
"""
    numbers = [int(line.split(":")[1]) for line in complaints(text)]
    assert numbers == [1, 3, 6, 7, 8, 9]


@requirement("config:mistakes-are-named-with-their-line")
def test_a_mistake_in_what_an_alias_repeats_is_named(complaints: Complaint) -> None:
    (line,) = complaints("x-c: &c\n  scope: all\nservers:\n  a: {<<: *c, url: http://h/}\n")
    assert line.startswith("holdfast.yaml:2: servers.a.scope: 'all' is not one of")


def test_aliases_of_aliases_do_not_fill_the_memory(complaints: Complaint) -> None:
    rows = ["x-0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "too many values" in complaints("\n".join(rows) + "\n" + SERVERS)[0]


def test_nothing_can_be_built_by_a_tag(complaints: Complaint, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (line,) = complaints(f"servers: {{a: {{url: !!python/object/apply:pathlib.Path.touch '{victim}'}}}}\n")
    assert "tags are not understood" in line
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("servers: ä".encode("latin-1"), "holdfast.yaml:1: is not UTF-8"),
        (SERVERS.encode("utf-16"), "holdfast.yaml:1: is written in UTF-16"),
        (b"a: 1\nb: \x01\n", "holdfast.yaml:2: holds a control character"),
        (b"[" * 20_000, "holdfast.yaml:1: is nested too deeply"),
    ],
)
def test_what_is_no_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("holdfast.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load("holdfast.yaml", {})
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("kind", ["yaml", "json"])
@pytest.mark.parametrize(
    ("server", "line"),
    [
        ('{"url": "http://h/mcp", "headers": {"X-A": "\\ud800"}}', "servers.a.headers.X-A: holds half of a character"),
        ('{"command": ["x"], "env": {"A": "\\udc00"}}', "servers.a.env.A: holds half of a character"),
        ('{"command": ["x"], "env": {"\\ud800": "a"}}', "servers.a.env: has a name with half of a character"),
        ('{"command": ["x", "\\ud800"]}', "servers.a.command.2: holds half of a character"),
    ],
)
def test_half_a_character_is_refused_since_nothing_can_encode_it(
    tmp_path: Path, kind: str, server: str, line: str
) -> None:
    path = tmp_path / f"holdfast.{kind}"
    path.write_text(f'{{"servers": {{"a": {server}}}}}')
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert f":1: {line}: \\ud800 to" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    path.write_text(f'{{"servers": {{"a": {server}}}}}'.replace("\\ud800", "\\ud83d\\ude00").replace("\\udc00", "x"))
    if kind == "json":  # YAML knows no pairs
        assert load(path, {}).settings.servers[0].name == "a"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: no such file"):
        load(tmp_path / "absent.yaml")


def test_a_byte_order_mark_is_no_mistake(loads: Load) -> None:
    assert loads("\ufeff" + SERVERS).settings.servers[0].name == "a"


@requirement("config:reachable-needs-a-key")
def test_a_file_that_lets_others_in_wants_keys(complaints: Complaint) -> None:
    (line,) = complaints("listen: 0.0.0.0:8790\n" + SERVERS)
    assert "every client needs a key" in line
    (line,) = complaints("listen: 0.0.0.0:8790\nclients:\n  a: {key: k}\n  b: {trust: openwebui}\n" + SERVERS)
    assert line.startswith("holdfast.yaml:4: clients.b: has no key")


SECRETS = [
    f"servers: {{a: {{url: 'http://u:{CANARY}@h/'}}}}",
    f"servers: {{a: {{url: 'htp://h/s/{CANARY}/mcp'}}}}",
    f"servers: {{a: {{url: 'htp://h?key={CANARY}'}}}}",
    f"servers: {{a: {{url: 'h/{CANARY}'}}}}",
    "servers: {a: {url: 'htp://${SECRET}/'}}",
    "servers: {a: {url: 'http://h/', scope: '${SECRET}', idle_timeout: '${SECRET}', serial: '${SECRET}'}}",
    f"servers: {{a: {{url: 'http://h/', headers: {{T: '{CANARY}${{NO}}'}}}}}}",
    f"servers: {{a: {{url: 'http://h/', headers: {{T: ['{CANARY}']}}}}}}",
    f"servers: {{a: {{url: 'http://h/', headers: [{CANARY}]}}}}",
    f"servers: {{a: {{url: 'http://h/', headers: {CANARY}}}}}",
    "servers: {a: {url: 'http://h/', headers: {T: '${SECRET}\n\0'}}}",
    "servers: {a: {url: 'http://h/', headers: {T: '${LINES}'}}}",
    f"servers: {{a: {{command: x, env: ['T={CANARY}']}}}}",
    f"servers: {{a: {{command: ['x {CANARY}']}}}}",
    f"servers: {{a: {{command: 'x \"{CANARY}'}}}}",
    f"clients: {{a: {CANARY}}}\n{SERVERS}",
    f"clients: {{a: {{key: '{CANARY} b'}}}}\n{SERVERS}",
    f"clients: {{a: {{key: {CANARY}}}, b: {{key: {CANARY}}}}}\n{SERVERS}",
    f"clients: {{a: {{keys: {CANARY}}}}}\n{SERVERS}",
    f"clients:\n  a:\n    key: *{CANARY}\n",
    f"clients:\n  a:\n    key: !{CANARY}\n{SERVERS}",
    f"clients:\n  a:\n    key: %{CANARY}\n",
    f"clients:\n  a:\n    key: '{CANARY}\n",
    f"clients:\n  a:\n    key: {CANARY}: x\n",
    "listen: '${SECRET}'\n" + SERVERS,
    "allowed_hosts: ['${SECRET}/']\n" + SERVERS,
    "clients: {a: {key: k, trust: '${SECRET}'}}\n" + SERVERS,
    "clients: {a: {key: k, trust: {preset: openwebui, jwt_secret: '${SECRET}'}}}\n" + SERVERS,
    "clients: {a: {key: k, trust: {preset: '${SECRET}', jwt_secret: ['" + CANARY + "']}}}\n" + SERVERS,
]


@requirement("config:secrets-stay-secret")
@pytest.mark.parametrize("text", SECRETS)
def test_no_complaint_holds_a_secret(complaints: Complaint, text: str) -> None:
    environment = {"SECRET": CANARY, "LINES": f"{CANARY}\nX: {CANARY}"}
    assert CANARY not in "\n".join(complaints(text, environment))


@requirement("config:secrets-stay-secret")
def test_loaded_settings_do_not_show_their_secrets(loads: Load) -> None:
    text = """
clients: {a: {key: "${S}"}}
servers:
  a: {url: "http://h/${S}?k=${S}", headers: {T: "${S}"}}
  b: {command: [x, "${S}"], env: {T: "${S}"}}
"""
    assert CANARY not in repr(loads(text, {"S": CANARY}))


def test_what_may_not_have_been_meant_is_a_note(loads: Load) -> None:
    text = """listen: 0.0.0.0:8790
clients: {a: {key: k}}
servers:
  b:
    url: http://h/
    headers: {T: Bearer $TOKEN}
    max_sessions: 1
"""
    assert loads(text, {"TOKEN": "t"}).notes == [
        (
            "holdfast.yaml:1: listen: clients on other machines are refused until allowed_hosts says"
            " by which name they call"
        ),
        "holdfast.yaml:6: servers.b.headers.T: $TOKEN is sent as it stands; the variable's value is ${TOKEN}",
        (
            "holdfast.yaml:7: servers.b: may have one session, and each chat wants its own:"
            " they take turns, and lose state; scope: shared lets all use the one"
        ),
    ]


@pytest.mark.parametrize("rules", ["allow: [search]", "deny: [close_*]", "allow: [open_session]"])
def test_rules_that_leave_out_the_tools_that_open_and_close_sessions_are_noted(loads: Load, rules: str) -> None:
    text = "servers:\n  a:\n    url: http://h/\n    tools: {%s}\n    handles: true\n"
    (note,) = loads(text % rules).notes
    assert note.startswith(
        "holdfast.yaml:5: servers.a.handles: adds open_session and close_session, which tools leaves"
    )
    assert loads(text % "allow: [search, '*_session']").notes == []
    assert loads((text % rules).replace("true", "false")).notes == []


def test_naming_users_without_a_key_is_allowed_on_loopback_and_noted(loads: Load) -> None:
    (note,) = loads("clients: {a: {trust: openwebui}}\n" + SERVERS).notes
    assert note.endswith("clients.a: has no key, so any program on this machine may name any user and chat")
    signed = f"clients: {{a: {{trust: {{preset: openwebui, jwt_secret: {SIGNING.get_secret_value()}}}}}}}\n"
    assert loads(signed + SERVERS).notes == []


def test_check_says_what_a_valid_file_holds(loads: Load, capsys: pytest.CaptureFixture[str]) -> None:
    loads("clients: {a: {key: k}}\nservers: {a: {url: http://h/}, b: {command: no-such-program-4711}}")
    assert check(Path("holdfast.yaml")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "holdfast.yaml is valid: 2 servers, 1 client",
        "note: holdfast.yaml: servers.b.command: there is no program 'no-such-program-4711' on this machine",
    ]


def test_check_says_what_is_wrong_and_fails(complaints: Complaint, capsys: pytest.CaptureFixture[str]) -> None:
    complaints("servers: {a: {scope: x}}\n")
    assert check(Path("holdfast.yaml")) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2
