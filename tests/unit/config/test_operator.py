"""What an operator says of the whole gateway in a file: names at `/mcp`, who sees what, limits, the log."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.cli.main import main
from holdfast.config import Limits, LogSettings, ToolRules, key_digest
from holdfast.config.file import Loaded, load
from requirements import requirement

ROOT = Path(__file__).resolve().parents[3]
CANARY = "canary-4711"
SERVERS = "servers: {a: {url: http://h/mcp}}\n"

Load = Callable[..., Loaded]
Complaint = Callable[..., list[str]]

WHOLE = """
separator: "-"
merged: always
operator_key: ${OPERATOR_KEY}
limits: {sessions: 5, sessions_per_user: 4, user_rate: null, client_rate: 200, request_bytes: 3, message_bytes: 2}
log: {level: warning, format: json}
clients:
  open-webui:
    key: a
    servers: [browser, "${SEARCH}"]
  agent:
    key: b
    servers:
      browser: {tools: {allow: ["browser_*"], deny: [browser_install]}}
      search:
  admin:
    key: c
servers:
  browser: {command: x}
  search:
    url: http://h/
    prefix: web
    tools:
      allow: [searxng_*, fetch, 7]
      deny: [delete_*]
      aliases: {searxng_web_search: search}
    pass_headers: [X-Tenant, x-team]
"""


def test_a_file_says_all_of_it(loads: Load) -> None:
    settings = loads(WHOLE, {"OPERATOR_KEY": "o", "SEARCH": "search"}).settings
    assert (settings.separator, settings.merged) == ("-", "always")
    assert settings.operator_key_digest == key_digest("o")
    assert settings.limits == Limits(
        sessions=5, sessions_per_user=4, user_rate=None, client_rate=200, request_bytes=3, message_bytes=2
    )
    assert settings.log == LogSettings(level="warning", format="json")
    first, second, third = settings.clients
    assert first.servers == {"browser": ToolRules(), "search": ToolRules()}
    assert second.servers == {
        "browser": ToolRules(allow=("browser_*",), deny=("browser_install",)),
        "search": ToolRules(),
    }
    assert third.servers is None
    browser, search = settings.servers
    assert (browser.public_prefix, search.public_prefix) == ("browser", "web")
    assert search.tools.allow == ("searxng_*", "fetch", "7")
    assert search.tools.deny == ("delete_*",)
    assert search.tools.aliases == {"searxng_web_search": "search"}
    assert search.pass_headers == ("x-tenant", "x-team")


def test_what_is_left_out_has_its_default(loads: Load) -> None:
    settings = loads(SERVERS + "limits: {sessions: 5}\n").settings
    assert (settings.separator, settings.operator_key_digest, settings.log) == ("__", None, LogSettings())
    assert settings.limits == Limits(sessions=5)


def test_an_operators_key_may_come_from_a_file(loads: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("o\n")
    assert loads(SERVERS + "operator_key: {file: key}\n").settings.operator_key_digest == key_digest("o")


def test_another_separator_frees_the_usual_one(loads: Load) -> None:
    (server,) = loads("separator: '-'\nservers: {a__b: {url: http://h/}}\n").settings.servers
    assert server.public_prefix == "a__b"


def server(*lines: str) -> str:
    return "servers:\n  a:\n    url: http://h/\n" + "".join(f"    {line}\n" for line in lines)


TWO = "servers:\n  a:\n    url: http://h/\n    {0}\n  b:\n    url: http://h/\n    {1}\n"

MISTAKES = [
    # Names at /mcp.
    (
        "servers:\n  a.b: {url: http://h/}\n  a_b: {url: http://h/}\n",
        "3: servers.a_b: its tools begin with a_b__ at /mcp, as do those of a.b (line 2); give one of the two another",
    ),
    (
        TWO.format("prefix: b", "scope: chat"),
        "5: servers.b: its tools begin with b__ at /mcp, as do those of a (line 4)",
    ),
    (
        TWO.format("prefix: x", "prefix: x"),
        "7: servers.b.prefix: 'x' is also what the tools of a (line 4) begin with at",
    ),
    (server("prefix: x__y"), "4: servers.a.prefix: 'x__y' has __, which ends it in the names of tools"),
    (server("prefix: x_"), "4: servers.a.prefix: 'x_' ends like the beginning of __, which ends it in the names of t"),
    (
        server("prefix: x.y"),
        "4: servers.a.prefix: 'x.y' does not fit; it takes letters, digits, dashes and underscores",
    ),
    (server("prefix:"), "4: servers.a.prefix: takes what its tools' names begin with at /mcp; nothing stands here"),
    (
        "servers:\n  a_: {url: http://h/}\n",
        "2: servers.a_: would begin its tools' names with a___ at /mcp, where the first __ ends the server's part; gi",
    ),
    (
        "separator: '-'\nservers:\n  a-b: {url: http://h/}\n",
        "3: servers.a-b: a server's name has no -, which ends it in the names of tools: a_b",
    ),
    ("merged: yes\n" + SERVERS, "1: merged: 'yes' is not one of several, always"),
    ("separator: .\n" + SERVERS, "1: separator: '.' does not fit; it takes letters, digits, dashes and underscores, 4"),
    (
        "separator:\n" + SERVERS,
        "1: separator: takes letters, digits, dashes and underscores, 4 at most; nothing stands",
    ),
    # Rules and aliases.
    (
        server("tools: [search]"),
        "4: servers.a.tools: takes {allow: […], deny: […]}, and a list stands here: write allow",
    ),
    (server("tools:"), "4: servers.a.tools: takes {allow: […], deny: […]}; nothing stands here"),
    (
        server("tools: {allow: search}"),
        "4: servers.a.tools.allow: takes a list of patterns, such as [search, browser_*]",
    ),
    (
        server("tools: {allow: []}"),
        '4: servers.a.tools.allow: admits no tool; write deny: ["*"] to mean that, or leave',
    ),
    (server("tools: {deny: ['']}"), "4: servers.a.tools.deny.1: is empty, which no tool's name matches; * matches all"),
    (server("tools:", "  deny:", "    - x", "    - ''"), "7: servers.a.tools.deny.2: is empty"),
    (server("tools: {alow: [x]}"), "4: servers.a.tools.alow: unknown key (did you mean allow?)"),
    (server("tools: {exclude: [x]}"), "4: servers.a.tools.exclude: unknown key: write deny: [PATTERN, …]"),
    (server("deny: [x]"), "4: servers.a.deny: unknown key: belongs into tools: {deny: […]}"),
    (
        server("tools: {aliases: [x]}"),
        "4: servers.a.tools.aliases: takes tools and their names, such as {web_search: se",
    ),
    (
        server("tools: {aliases: {x: a b}}"),
        "4: servers.a.tools.aliases.x: 'a b' does not fit; it takes letters, digits,",
    ),
    (
        server("tools:", "  deny: [x*]", "  aliases:", "    xy: z"),
        "7: servers.a.tools.aliases.xy: 'z' is for a tool that allow and deny leave out; let them admit it, or leave",
    ),
    (
        server("tools: {allow: [z], aliases: {x: z}}"),
        "4: servers.a.tools.aliases.x: 'z' is for a tool that allow and deny",
    ),
    (
        TWO.format("tools: {aliases: {x: z}}", "tools: {aliases: {y: z}}"),
        "7: servers.b.tools.aliases.y: 'z' is already what x of a is called (line 4)",
    ),
    (
        server("tools: {aliases: {x: z, y: z}}"),
        "4: servers.a.tools.aliases.y: 'z' is already what x of a is called (line",
    ),
    (
        TWO.format("tools: {aliases: {x: b__y}}", "scope: chat"),
        "4: servers.a.tools.aliases.x: 'b__y' begins like the tools of b (line 5); an alias is a whole name, without a",
    ),
    # Sessions that callers open.
    (
        server("handles: true", "scope: shared"),
        "4: servers.a.handles: 'true' is for sessions that callers open, and scope: shared has one for all; write sc",
    ),
    (
        server("lists: session", "handles: true"),
        "5: servers.a.handles: 'true' is for tools that are the same in every session, which lists: session says they",
    ),
    # Headers of the client.
    (
        server("pass_headers: X-Tenant"),
        "4: servers.a.pass_headers: takes a list of headers, such as [X-Tenant]; a text",
    ),
    (
        server("pass_headers: [Cookie]"),
        "4: servers.a.pass_headers.1: 'Cookie' is what the client proves itself with to",
    ),
    (server("pass_headers: [Host]"), "4: servers.a.pass_headers.1: 'Host' is written by Holdfast itself; leave it out"),
    (
        server("pass_headers: [X-Holdfast-A]"),
        "4: servers.a.pass_headers.1: 'X-Holdfast-A' is written by Holdfast itself",
    ),
    (
        server("pass_headers: [Keep-Alive]"),
        "4: servers.a.pass_headers.1: 'Keep-Alive' is about one connection and never",
    ),
    (
        server("pass_headers: [x y]"),
        "4: servers.a.pass_headers.1: 'x y' is no name of a header: letters, digits and das",
    ),
    (server("pass_headers: [X-A, x-a]"), "4: servers.a.pass_headers.2: 'x-a' stands twice"),
    (
        server("headers: {X-Tenant: t}", "pass_headers: [x-tenant]"),
        "5: servers.a.pass_headers.1: 'x-tenant' has a value in headers already; leave one of the two out",
    ),
    (
        server("scope: shared", "pass_headers: [X-Tenant]"),
        "5: servers.a.pass_headers: are those of one caller, and scope: shared has one session for all; write scope: ",
    ),
    (
        server("pass_headers: [X-Tenant]", "spares: 1"),
        "4: servers.a.pass_headers: are known when a call comes, and spares are opened before; leave one of the two o",
    ),
    (
        "servers:\n  a:\n    command: x\n    pass_headers: [X-Tenant]\n",
        "4: servers.a.pass_headers: is for a url; a command takes no headers",
    ),
    # Who sees what.
    (
        "clients: {c: {servers: [a, b]}}\n" + SERVERS,
        "1: clients.c.servers.2: 'b' is no server of this file; there are a",
    ),
    (
        "clients:\n  c:\n    servers:\n      browsr:\nservers: {browser: {command: x}}\n",
        "4: clients.c.servers.browsr: 'browsr' is no server of this file (did you mean browser?)",
    ),
    ("clients: {c: {servers: []}}\n" + SERVERS, "1: clients.c.servers: sees no server; name those that it may see, or"),
    ("clients: {c: {servers: {}}}\n" + SERVERS, "1: clients.c.servers: sees no server"),
    (
        "clients: {c: {servers: }}\n" + SERVERS,
        "1: clients.c.servers: takes a list of servers, or {SERVER: {tools: {allo",
    ),
    (
        "clients: {c: {servers: a}}\n" + SERVERS,
        "1: clients.c.servers: takes a list; a text stands here: write servers: [",
    ),
    ("clients: {c: {servers: [a, a]}}\n" + SERVERS, "1: clients.c.servers.2: 'a' stands twice"),
    (
        "clients: {c: {servers: [a: {tools: {allow: [x]}}]}}\n" + SERVERS,
        "1: clients.c.servers.1: takes the name of a server; with rules, write NAME: without the dash before it; a ma",
    ),
    (
        "clients: {c: {servers: {a: [x]}}}\n" + SERVERS,
        "1: clients.c.servers.a: takes {tools: {allow: […], deny: […]}}, or",
    ),
    (
        "clients: {c: {servers: {a: {allow: [x]}}}}\n" + SERVERS,
        "1: clients.c.servers.a.allow: unknown key: belongs into",
    ),
    (
        "clients: {c: {servers: {a: {tools: {allow: []}}}}}\n" + SERVERS,
        '1: clients.c.servers.a.tools.allow: admits no tool; write deny: ["*"] to mean that, or leave the server out',
    ),
    (
        "clients: {c: {servers: {a: {tools: {aliases: {x: y}}}}}}\n" + SERVERS,
        "1: clients.c.servers.a.tools.aliases: unknown key: belongs to a server: servers: {NAME: {tools: {aliases: …}",
    ),
    (
        "clients: {c: {tools: {allow: [x]}}}\n" + SERVERS,
        "1: clients.c.tools: unknown key: belongs to a server that it see",
    ),
    # The operator's key, limits, the log.
    (
        "operator_key: ''\n" + SERVERS,
        "1: operator_key: is empty, which would admit everybody; leave it out to mean that",
    ),
    (
        "operator_key: a b\n" + SERVERS,
        "1: operator_key: has a space, a line end or another character that no Authorizat",
    ),
    ("operator_key: [a]\n" + SERVERS, "1: operator_key: takes a text or {file: PATH}; a list stands here"),
    (
        "operator_key_digest: a\n" + SERVERS,
        "1: operator_key_digest: unknown key: write operator_key: a digest is made of",
    ),
    ("limits:\n" + SERVERS, "1: limits: takes limits, such as {sessions: 10000}; nothing stands here"),
    ("limits: {sesions: 5}\n" + SERVERS, "1: limits.sesions: unknown key (did you mean sessions?)"),
    ("limits: {sessions: 0}\n" + SERVERS, "1: limits.sessions: '0' is out of range: it takes a number from 1 on"),
    (
        "limits: {sessions: }\n" + SERVERS,
        "1: limits.sessions: has no value; write one, or leave the line out (then it is",
    ),
    (
        "limits: {user_rate: none}\n" + SERVERS,
        "1: limits.user_rate: 'none' is not a number; it takes requests per second",
    ),
    (
        "limits: {user_rate: off}\n" + SERVERS,
        "1: limits.user_rate: 'off' is not a number; it takes requests per second, o",
    ),
    (
        "limits: {request_bytes: 4MiB}\n" + SERVERS,
        "1: limits.request_bytes: '4MiB' is not a whole number; sizes are byte",
    ),
    ("user_rate: 5\n" + SERVERS, "1: user_rate: unknown key: belongs to limits: {NAME: NUMBER}"),
    ("log: debug\n" + SERVERS, "1: log: takes settings, such as {level: info, format: json}; a text stands here"),
    (
        "log: {level: warn}\n" + SERVERS,
        "1: log.level: 'warn' is not one of debug, info, warning, error (did you mean war",
    ),
    ("log_level: debug\n" + SERVERS, "1: log_level: unknown key: write log: {level: info}"),
    # A URL that could not stand in a request.
    (
        "servers:\n  a: {url: http://h/a b}\n",
        "2: servers.a.url: 'http://h' has a space or another character that a URL ho",
    ),
    (
        "servers:\n  a: {url: http://h/é}\n",
        "2: servers.a.url: 'http://h' has a space or another character that a URL hol",
    ),
    (
        "servers:\n  a: {url: 'http://ü.example/'}\n",
        "2: servers.a.url: 'http://ü.example' has a space or another charac",
    ),
]


@requirement("config:mistakes-are-named-with-their-line")
@pytest.mark.parametrize(("text", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_a_mistake_is_named_with_file_line_key_and_what_would_be_right(
    complaints: Complaint, text: str, expected: str
) -> None:
    (line,) = complaints(text)
    assert line.startswith(f"holdfast.yaml:{expected}")


@requirement("config:mistakes-are-named-with-their-line")
def test_several_mistakes_of_one_server_stand_at_their_lines(complaints: Complaint) -> None:
    lines = complaints(
        server("scope: shared", "spares: 1", "pass_headers:", "  - X-A", "  - x-a", "tools: {allow: [], deny: ['']}")
        + "limits: {user_rate: 0}\n"
    )
    assert [int(line.split(":")[1]) for line in lines] == [9, 9, 10]
    lines = complaints(server("scope: shared", "spares: 1", "pass_headers:", "  - X-A", "  - x-a"))
    assert [line.split(": ")[:2] for line in lines] == [
        ["holdfast.yaml:6", "servers.a.pass_headers"],
        ["holdfast.yaml:8", "servers.a.pass_headers.2"],
    ]


SECRETS = [
    "operator_key: '${SECRET} b'\n" + SERVERS,
    f"operator_key: [{CANARY}]\n" + SERVERS,
    "log: {level: '${SECRET}'}\n" + SERVERS,
    "limits: {sessions: '${SECRET}'}\n" + SERVERS,
    "separator: '${SECRET}'\n" + SERVERS,
    "clients: {c: {servers: ['${SECRET}']}}\n" + SERVERS,
    "clients: {c: {servers: '${SECRET}'}}\n" + SERVERS,
    server("prefix: '${SECRET}.'"),
    server("pass_headers: ['${SECRET} ']"),
    server("pass_headers: [x, '${SECRET}', '${SECRET}']"),
    server("tools: {aliases: {x: '${SECRET} '}}"),
    server("tools: {aliases: {x: '${SECRET}', y: '${SECRET}'}}"),
    server("tools: {deny: [x], aliases: {x: '${SECRET}'}}"),
    TWO.format("prefix: ${SECRET}", "prefix: ${SECRET}"),
    TWO.format("prefix: ${SECRET}", "tools: {aliases: {x: '${SECRET}__x'}}"),
    "servers: {a: {url: 'http://h/${SECRET} '}}\n",
    "servers: {a: {url: 'http://${SECRET} /'}}\n",
]


@requirement("config:secrets-stay-secret")
@pytest.mark.parametrize("text", SECRETS)
def test_no_complaint_holds_a_secret(complaints: Complaint, text: str) -> None:
    assert CANARY not in "\n".join(complaints(text, {"SECRET": CANARY}))


@requirement("config:secrets-stay-secret")
def test_an_operators_key_is_not_shown(loads: Load) -> None:
    loaded = loads(f"operator_key: {CANARY}\n" + SERVERS)
    assert CANARY not in repr(loaded)
    assert key_digest(CANARY).hex() not in repr(loaded)


def test_a_clients_key_that_is_also_the_operators_is_noted(loads: Load) -> None:
    (note,) = loads("clients: {c: {key: k}}\n" + SERVERS + "operator_key: k\n").notes
    assert note.startswith("holdfast.yaml:3: operator_key: is also a key of c, so that client may do what the operator")


def test_a_header_that_is_another_with_each_request_is_noted(loads: Load) -> None:
    (note,) = loads(server("pass_headers: [X-Tenant, Traceparent]")).notes
    assert note.startswith("holdfast.yaml:4: servers.a.pass_headers.2: traceparent is another with each request")


def test_an_alias_among_a_clients_rules_is_noted(loads: Load) -> None:
    text = server("tools: {aliases: {long_name: short}}") + (
        "clients:\n  c:\n    servers:\n      a:\n"
        "        tools:\n          allow: [x*]\n          deny:\n            - short\n"
    )
    (note,) = loads(text).notes
    assert note == (
        "holdfast.yaml:12: clients.c.servers.a.tools.deny.1:"
        " 'short' is an alias; rules are of the server's own names: long_name"
    )


def test_run_refuses_a_url_that_could_not_stand_in_a_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["holdfast", "run", f"http://127.0.0.1:1/{CANARY} x"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("holdfast: url has a space or another character that a URL holds as %XX")
    assert CANARY not in line


YAML = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "settings-file.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [text for text in YAML if ":\n" in text])
def test_what_the_page_shows_is_a_file(loads: Load, text: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    if "servers:\n" not in re.findall(r"^\w+:\n", text, re.MULTILINE):
        text += "servers: {browser: {command: x}, search: {command: x}}\n"
    text = re.sub(r"/run/secrets/\w+", "secret", text)
    assert loads(text, {name: name for name in re.findall(r"\$\{(\w+)\}", text)}).settings.servers


def test_every_file_that_was_read_is_named_once(loads: Load, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text("secret")
    (tmp_path / "link").symlink_to("two")
    text = """
operator_key: {file: one}
clients: {a: {key_file: one}, b: {keys: [k, {file: link}]}}
servers: {s: {url: http://h/, headers: {A: {file: three}}}}
"""
    paths = loads(text.replace("b: {keys: [k, {file: link}]}", "b: {key: k}")).paths
    assert set(paths) == {tmp_path / "holdfast.yaml", tmp_path / "one", tmp_path / "three"}
    assert paths[0] == tmp_path / "holdfast.yaml"
    assert len(paths) == 3
    (tmp_path / "two").write_text("another")
    assert tmp_path / "link" in loads(text).paths


def test_a_file_may_be_loaded_in_several_threads_at_once(loads: Load, tmp_path: Path) -> None:
    environment = {"OPERATOR_KEY": "o", "SEARCH": "search"}
    expected = loads(WHOLE, environment)
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(load, "holdfast.yaml", environment) for _ in range(16)]
        found = [each.result(60) for each in running]
    assert found == [expected] * 16
