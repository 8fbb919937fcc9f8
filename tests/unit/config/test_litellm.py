"""LiteLLM's config file as one of ours."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import ClientSettings, GatewaySettings, ServerSettings
from holdfast.config.file import read
from holdfast.config.litellm import Imported, convert
from holdfast.config.source import Findings, find_halves, parse_yaml
from holdfast.errors import ConfigError
from requirements import requirement

CANARY = "s3cr3t-canary"


def imported(text: str, separator: str = "-") -> Imported:
    path = Path("litellm.yaml")
    problems = Findings(str(path))
    root = parse_yaml(text, problems)
    assert root is not None, problems.lines()
    if problems or find_halves(root, problems):
        raise problems.error()
    return convert(root, path, separator)


def settings_of(text: str, **environment: str) -> GatewaySettings:
    whole = {"LITELLM_MASTER_KEY": "sk-1", **environment}
    return read(imported(text).text, Path("holdfast.yaml"), whole, is_json=False).settings


def server(body: str, **environment: str) -> ServerSettings:
    """The only server, whose settings at LiteLLM are `body`."""
    (only,) = settings_of(f"mcp_servers:\n  one:\n{body}", **environment).servers
    return only


def remarks(body: str) -> list[str]:
    """What is said of the only server, without the file's name."""
    lines = imported(f"general_settings: {{master_key: os.environ/K}}\nmcp_servers:\n  one:\n{body}").remarks
    return [line.removeprefix("litellm.yaml:") for line in lines if "mcp_servers" in line]


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        imported(text)
    return str(caught.value).split("\n")


def secrets(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in given.items()}


@requirement("import:litellm:servers")
def test_a_server_at_a_url_and_one_that_is_started() -> None:
    settings = settings_of(
        """
mcp_servers:
  github:
    url: https://mcp.example.org/mcp
    transport: http
  old: {url: "http://127.0.0.1:3000/sse", transport: sse}
  browser:
    transport: stdio
    command: npx
    args: ["-y", "@playwright/mcp", "--port", 8931]
    env: {DISPLAY: ":1", DEBUG: 0123}
  unsaid: {command: uvx, args: [mcp-server-git]}
"""
    )
    github, old, browser, unsaid = settings.servers
    assert (github.name, github.url, github.transport) == ("github", "https://mcp.example.org/mcp", "auto")
    assert old.transport == "sse"
    assert browser.command == ("npx", "-y", "@playwright/mcp", "--port", "8931")
    assert secrets(browser.env) == {"DISPLAY": ":1", "DEBUG": "0123"}
    assert unsaid.command == ("uvx", "mcp-server-git")
    assert (settings.host, settings.port) == ("127.0.0.1", 8790)


@requirement("import:litellm:credentials")
@pytest.mark.parametrize(
    ("kind", "value", "header"),
    [
        ("bearer_token", "abc", ("Authorization", "Bearer abc")),
        ("bearer_token", "Bearer abc", ("Authorization", "Bearer abc")),
        ("bearer_token", "os.environ/TOKEN", ("Authorization", "Bearer from-outside")),
        ("api_key", "abc", ("X-API-Key", "abc")),
        ("api_key", "os.environ/TOKEN", ("X-API-Key", "from-outside")),
        ("authorization", "Custom a b", ("Authorization", "Custom a b")),
        ("token", "token abc", ("Authorization", "token abc")),
        ("basic", "user:pass", ("Authorization", "Basic " + base64.b64encode(b"user:pass").decode())),
        ("basic", "Basic dXNlcjpwYXNz", ("Authorization", "Basic dXNlcjpwYXNz")),
        ("basic", "Basic user:pass", ("Authorization", "Basic dXNlcjpwYXNz")),
        ("api_key", "pa${TOKEN}$${x}$", ("X-API-Key", "pa${TOKEN}$${x}$")),
    ],
)
def test_credentials_are_sent_in_the_header_in_which_litellm_sends_them(
    kind: str, value: str, header: tuple[str, str]
) -> None:
    only = server(f"    url: http://h/mcp\n    auth_type: {kind}\n    auth_value: {value!r}\n", TOKEN="from-outside")
    assert secrets(only.headers) == dict([header])


def test_a_credential_may_have_a_header_of_its_own_and_an_older_name() -> None:
    body = (
        "    url: http://h/\n    auth_type: api_key\n    authentication_token: a\n    upstream_token_header: esb-key\n"
    )
    assert secrets(server(body).headers) == {"esb-key": "a"}


def test_static_headers_come_before_the_credential_and_whatever_its_case() -> None:
    body = """
    url: http://h/mcp
    auth_type: bearer_token
    auth_value: one
    static_headers: {authorization: "Bearer two", X-Team: os.environ/TEAM, X-Number: 7}
"""
    assert secrets(server(body, TEAM="red").headers) == {
        "authorization": "Bearer two",
        "X-Team": "red",
        "X-Number": "7",
    }
    assert any("counts, and not what stands elsewhere" in line for line in remarks(body))


def test_static_headers_are_filled_in_from_env_vars_and_from_nothing_else() -> None:
    body = """
    url: http://h/mcp
    static_headers: {X-A: "a ${GLOBAL}", X-B: "b ${OUTSIDE}!", X-C: "${HOME}", X-D: "$${OUTSIDE}", X-E: "$${GLOBAL}"}
    env_vars:
      - {name: GLOBAL, value: "{plain} ${x}"}
      - {name: OUTSIDE, value: os.environ/SOME, scope: global}
      - {name: PERSONAL, scope: user}
"""
    assert secrets(server(body, SOME="value").headers) == {
        "X-A": "a {plain} ${x}",
        "X-B": "b value!",
        "X-C": "${HOME}",
        "X-E": "${plain} ${x}",
    }
    told = remarks(body)
    assert any("X-D: is left out: a $ stands right before a variable" in line for line in told)
    assert any("X-C: keeps ${…} as text" in line for line in told)
    assert any("PERSONAL is not carried over" in line for line in told)


def test_a_header_that_no_request_can_carry_is_left_out_wherever_its_line_end_comes_from() -> None:
    body = """
    url: http://h/mcp
    static_headers: {X-A: "a\\nb", X-B: "b ${LINES}", X-C: "c\\n"}
    env_vars: [{name: LINES, value: "1\\n2"}]
"""
    assert secrets(server(body).headers) == {"X-C": "c"}
    assert sum("line end or another control character" in line for line in remarks(body)) == 2


def test_headers_of_the_client_are_passed_on_where_holdfast_can() -> None:
    body = "    url: http://h/mcp\n    extra_headers: [X-Tenant, Authorization, x-tenant, mcp-session-id, X-Own]\n"
    body += "    static_headers: {x-own: a}\n"
    assert server(body).pass_headers == ("x-tenant",)
    told = remarks(body)
    assert any("Authorization is left out: it is what the client proves itself with" in line for line in told)
    assert any("mcp-session-id is left out: it is written by Holdfast itself" in line for line in told)
    assert any("X-Own is left out: it has a value of the server's own" in line for line in told)


@requirement("import:litellm:references")
def test_a_reference_stays_one_and_a_value_stays_out_of_what_is_said() -> None:
    text = f"""
general_settings: {{master_key: os.environ/MASTER, database_url: "postgresql://u:{CANARY}@db/x"}}
environment_variables: {{API_BASE: {CANARY}}}
mcp_servers:
  one:
    url: os.environ/URL
    auth_type: bearer_token
    auth_value: os.environ/TOKEN
    client_secret: {CANARY}
    aws_secret_access_key: {CANARY}
  two: {{command: x, env: {{KEY: os.environ/KEY, BAD: "os.environ/no name {CANARY}", OTHER: "{CANARY}"}}}}
  three: {{url: "http://h/", auth_type: basic, auth_value: "u:{CANARY}"}}
"""
    result = imported(text)
    assert result.variables == ("URL", "TOKEN", "KEY", "MASTER")
    for name in result.variables:
        assert f"${{{name}}}" in result.text
    assert CANARY not in "".join(result.remarks)
    in_clear = [line.strip() for line in result.text.splitlines() if CANARY in line]
    assert in_clear == [f"OTHER: {CANARY}"]
    assert sum("holds a secret in clear" in line for line in result.remarks) == 1


def test_a_mistake_does_not_quote_a_secret() -> None:
    for body in (f"    url: 'http://u:{CANARY}@h/'\n", f"    url: http://h/\n    static_headers: [{CANARY}]\n"):
        assert CANARY not in "".join(complaints(f"mcp_servers:\n  one:\n{body}"))


@requirement("import:litellm:names")
def test_tools_keep_the_names_that_they_have_at_litellm() -> None:
    text = """
litellm_settings: {mcp_aliases: {gh: github, second: github}}
mcp_servers:
  github: {url: "http://h/1"}
  My Files: {url: "http://h/2"}
  web: {url: "http://h/3", alias: the web}
  a.b: {url: "http://h/4"}
  über: {url: "http://h/5"}
"""
    settings = settings_of(text)
    assert settings.separator == "-"
    assert settings.merged == "always"
    assert [(each.name, each.public_prefix) for each in settings.servers] == [
        ("github", "gh"),
        ("My_Files", "My_Files"),
        ("web", "the_web"),
        ("a.b", "a_b"),
        ("ber", "ber"),
    ]
    told = imported(text).remarks
    assert any("mcp_servers.My Files: is called My_Files here, in URLs" in line for line in told)
    assert any("a.b: its tools begin with a_b- at /mcp, as the old beginning" in line for line in told)


def test_another_separator_of_litellm_is_kept() -> None:
    result = imported("mcp_servers: {a-b: {url: 'http://h/'}}", separator="__")
    settings = read(result.text, Path("holdfast.yaml"), {"LITELLM_MASTER_KEY": "k"}, is_json=False).settings
    assert (settings.separator, settings.servers[0].name) == ("__", "a-b")
    with pytest.raises(ConfigError, match="MCP_TOOL_PREFIX_SEPARATOR"):
        imported("mcp_servers: {a: {url: 'http://h/'}}", separator="/")


def test_two_servers_whose_tools_were_called_alike_are_told_apart() -> None:
    settings = settings_of("mcp_servers: {a: {url: 'http://h/', alias: b}, b: {url: 'http://h/'}, 'b!': {command: x}}")
    assert len({each.public_prefix for each in settings.servers}) == 3


def test_servers_with_aliases_and_names_that_cannot_stay_have_names_of_their_own() -> None:
    settings = settings_of("mcp_servers: {é: {url: 'http://h/', alias: a}, ü: {command: x, alias: b}, a: {command: y}}")
    assert [(each.name, each.public_prefix) for each in settings.servers] == [
        ("server1", "a"),
        ("server2", "b"),
        ("server3", "server3"),
    ]


def test_tools_that_are_allowed_or_not_stay_so_and_their_names_are_no_patterns() -> None:
    body = "    url: http://h/\n    alias: short\n    allowed_tools: [search, short-read, one-look, 'a*[b]?']\n"
    tools = server(body + "    disallowed_tools: [search]\n").tools
    assert tools.deny == ("search",)
    admitted = {name: tools.admits(name) for name in ("search", "read", "look", "short-read", "a*[b]?", "aXb", "other")}
    assert [name for name, is_in in admitted.items() if is_in] == ["read", "look", "short-read", "a*[b]?"]


def test_a_list_that_allows_nothing_where_it_is_enforced_allows_nothing() -> None:
    tools = server("    url: http://h/\n    mcp_info: {tool_allowlist_enforced: true}\n").tools
    assert not tools.admits("any")


def test_limits_and_the_revision() -> None:
    body = "    url: http://h/\n    timeout: 45.5\n    max_concurrent_requests: 4\n    protocol_version: '2026-07-28'\n"
    one = server(body)
    assert (one.call_deadline, one.max_concurrency, one.era) == (45.5, 4, "modern")
    older = server("    url: http://h/\n    mcp_info: {protocol_version: '2025-03-26'}\n    timeout: '30'\n")
    assert (older.era, older.call_deadline) == ("handshake", 30)
    none = server("    url: http://h/\n    max_concurrent_requests: 0\n    protocol_version: auto\n")
    assert (none.max_concurrency, none.era) == (64, "auto")


@requirement("import:litellm:keys")
def test_the_master_key_is_the_key_of_the_one_client() -> None:
    text = "general_settings: {master_key: os.environ/MY_KEY}\nmcp_servers: {one: {url: 'http://h/'}}\n"
    (client,) = settings_of(text, MY_KEY="sk-abc").clients
    assert client.name == "master"
    assert len(client.key_digests) == 1


def test_without_a_master_key_in_the_file_litellms_own_variable_has_it() -> None:
    result = imported("mcp_servers: {one: {url: 'http://h/'}}")
    assert result.variables == ("LITELLM_MASTER_KEY",)
    (line,) = result.remarks
    assert "LiteLLM takes it from LITELLM_MASTER_KEY" in line


def test_who_let_everybody_in_is_told_who_can_come_now() -> None:
    text = "general_settings: {dangerously_permit_weak_or_unset_master_key: true}\nmcp_servers: {a: {url: 'http://h/'}}"
    (line,) = imported(text).remarks
    assert "every program on this machine may call" in line
    assert settings_of(text).clients == (ClientSettings(name="local"),)


@requirement("import:litellm:nothing-silently")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("access_groups: [dev]", "which client sees which server"),
        ("allowed_params: {t: [a]}", "every argument of a tool is passed on"),
        ("pinned_tools: {t: {}}", "tools are listed as the server describes them"),
        ("rpm: 3", "there are rates for clients and users"),
        ("instructions: be kind", "clients are given the server's own"),
        ("available_on_public_internet: false", "listen, allowed_hosts and keys decide"),
        ("allow_elicitation: false", "who can be asked is asked"),
        ("spec_version: '2025-06-18'", "agreed on with the server"),
        ("auth_type: oauth2", "the server is asked without a credential"),
        ("auth_type: aws_sigv4", "the server is asked without a credential"),
        ("auth_type: true_passthrough", "the server is asked without a credential"),
        ("auth_type: bearer_token", "has no auth_value"),
        ("auth_value: abc", "LiteLLM does not send it either"),
        ("client_id: abc", "fetches and exchanges no tokens"),
        ("token_exchange_endpoint: https://h/", "fetches and exchanges no tokens"),
        ("mcp_info: {logo_url: https://h/}", "LiteLLM's own pages and bills"),
        ("something_new: 1", "is not known here, and left out"),
        ("static_headers: {'a b': c}", "is no name of a header"),
        ("static_headers: {Accept: c}", "is written by Holdfast itself"),
        ("static_headers: {A: os.environ/}", "is no name of a variable"),
        ("args: [a]", "the transport is http"),
        ("protocol_version: '2025-06-18'", "becomes era: handshake"),
    ],
)
def test_what_is_not_carried_over_is_said_with_its_line_and_in_a_comment(line: str, told: str) -> None:
    body = f"    url: http://h/mcp\n    {line}\n"
    (said,) = [each for each in remarks(body) if told in each]
    assert said.startswith("5: mcp_servers.one.")
    comments = [each for each in imported(f"mcp_servers:\n  one:\n{body}").text.splitlines() if "#" in each]
    assert sum(told in each for each in comments) == 1


@pytest.mark.parametrize(
    "line",
    [
        *("auth_type: none", "allow_elicitation: true", "allow_all_keys: true", "server_id: abc", "description: x"),
        *("access_groups: []", "instructions: ''", "rpm:", "available_on_public_internet: true", "extra_headers:"),
    ],
)
def test_nothing_is_said_where_nothing_is_lost(line: str) -> None:
    assert remarks(f"    url: http://h/mcp\n    {line}\n") == []


OAUTH = """\
    client_id: os.environ/ID
    client_secret: os.environ/SECRET
    token_url: https://h/token
    scopes: [a]
"""


@requirement("import:litellm:nothing-silently")
@pytest.mark.parametrize("target", ["url: http://h/mcp", "{command}"])
def test_all_that_fetches_tokens_for_a_server_is_one_line(target: str) -> None:
    lines = "    command: x\n" if target == "{command}" else f"    {target}\n    auth_type: oauth2\n"
    (said,) = [each for each in remarks(lines + OAUTH) if "tokens" in each]
    assert all(key in said for key in ("client_id", "client_secret", "token_url", "scopes"))


@requirement("import:litellm:nothing-silently")
@pytest.mark.parametrize(
    ("aliases", "told"),
    [("{x: a, y: b}", "y is left out: its server is not"), ("{y: b, z: c}", "y, z are left out: their servers are")],
)
def test_aliases_of_servers_that_are_not_there_are_one_line(aliases: str, told: str) -> None:
    text = f"litellm_settings: {{mcp_aliases: {aliases}}}\nmcp_servers: {{a: {{url: 'http://h/'}}}}"
    (said,) = [each for each in imported(text).remarks if "mcp_aliases" in each]
    assert told in said


def test_a_description_becomes_a_comment() -> None:
    assert (
        "\n  # Two lines.\n  one:\n"
        in imported("mcp_servers: {one: {url: 'http://h/', description: 'Two\n lines.'}}").text
    )


def test_an_openapi_server_is_left_out_and_the_others_are_not() -> None:
    result = imported("mcp_servers: {pets: {spec_path: ./a.json, url: 'http://h'}, one: {url: 'http://h/'}}")
    assert (result.servers, result.left_out) == (1, 1)
    assert any("mcp_servers.pets: is left out: LiteLLM makes tools of an OpenAPI" in line for line in result.remarks)
    assert "# mcp_servers.pets (line 1): is left out" in result.text


def test_of_the_rest_of_the_file_what_matters_is_said() -> None:
    text = """
model_list: []
router_settings: {}
general_settings: {master_key: os.environ/K, store_model_in_db: true, custom_auth: a.b, mcp_allowed_clients: [], x: 1}
litellm_settings: {mcp_semantic_tool_filter: {enabled: true}, drop_params: true, guardrails: [a]}
mcp_tools: [{name: a}]
guardrails: [{guardrail_name: a}]
include: [other.yaml]
mcp_servers: {one: {url: "http://h/"}}
"""
    said = {line.split(": ")[1]: line for line in imported(text).remarks}
    assert set(said) == {
        "model_list",
        "general_settings.master_key",
        "general_settings.store_model_in_db",
        "general_settings.custom_auth",
        "general_settings.mcp_allowed_clients",
        "litellm_settings.mcp_semantic_tool_filter",
        "litellm_settings.guardrails",
        "mcp_tools",
        "guardrails",
        "include",
    }
    assert said["model_list"].endswith("stays with LiteLLM, as do router_settings")


@requirement("import:litellm:mistakes")
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("{}", "2: mcp_servers.one: has no settings"),
        ("just a text", "2: mcp_servers.one: takes names and values; a text stands here"),
        ("{transport: http}", "2: mcp_servers.one: has no url"),
        ("{transport: stdio}", "2: mcp_servers.one: has no command"),
        ("{transport: htp, url: 'http://h/'}", "transport: 'htp' is not one of http, sse, stdio (did you mean http?)"),
        ("{url: 'ftp://h/'}", "url: is no http:// or https:// URL"),
        ("{url: 'http://h/', auth_type: bearer}", "auth_type: 'bearer' is not one of none, api_key"),
        ("{url: 'http://h/', static_headers: [a]}", "static_headers: takes names and values; a list stands here"),
        ("{url: 'http://h/', allowed_tools: search}", "allowed_tools: takes a list of texts; a text stands here"),
        ("{url: 'http://h/', allowed_tools: [[]]}", "allowed_tools.1: takes a text; a list stands here"),
        ("{url: 'http://h/', timeout: soon}", "timeout: takes a number; a text stands here"),
        ("{command: npx -y x}", "command: is a program's name with spaces in it"),
        ("{command: x, env: {'a=b': c}}", "env.a=b: is no name of a variable"),
        ("{url: 'http://h/', transport: sse, protocol_version: '2026-07-28'}", "is not spoken over sse"),
        ("{spec_path: a}", "mcp_servers: holds no server that can be carried over"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(body: str, complaint: str) -> None:
    found = complaints(f"mcp_servers:\n  one: {body}\n")
    assert any(complaint in line for line in found)
    assert all(re.match(r"litellm\.yaml:\d+: \S", line) for line in found)
