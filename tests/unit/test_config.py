"""Settings: what is refused, what is secret, what makes sessions incompatible."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from holdfast.config import (
    TRUST_PRESETS,
    ClientSettings,
    GatewaySettings,
    ServerSettings,
    ToolRules,
    describe,
    expand,
    key_digest,
)
from holdfast.errors import ConfigError
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock
from holdfast.upstream.http1 import HttpClient
from requirements import requirement
from rows import row

URL = "http://127.0.0.1:3000/mcp"
CANARY = "canary-4711"


def server(**settings: Any) -> ServerSettings:
    return ServerSettings.model_validate({"name": "notes", "url": URL, **settings})


def complaint(**settings: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        ServerSettings.model_validate({"name": "notes", **settings})
    assert CANARY not in str(caught.value)
    return describe(caught.value)


def test_a_server_has_a_url_or_a_command() -> None:
    assert server().url == URL
    assert server(url=None, command=["npx", "x"]).command == ("npx", "x")
    assert "either a url or a command" in complaint()
    assert "either a url or a command" in complaint(url=URL, command=["x"])


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:3000", "ftp://h/", "http://", "http:///mcp", "ws://h/mcp", "file:///etc"]
)
def test_a_url_is_an_http_url(url: str) -> None:
    assert "is no http:// or https:// URL" in complaint(url=url)


def test_a_url_that_cannot_be_split_is_refused_and_not_a_crash() -> None:
    assert complaint(url="http://[::1/mcp")


@pytest.mark.parametrize(
    "url", ["http://h/a b", "http://h/\u00e9", "http://h/a\n", "\thttp://h/", "http://\u00fc.example/"]
)
def test_a_url_can_stand_in_a_request(url: str) -> None:
    assert complaint(url=url).startswith("url: has a space or another character that a URL holds as %XX")


@given(st.from_regex(r"https?://[\x20-\x7eé]{1,8}(/[\x20-\x7e]{0,4})?", fullmatch=True))
def test_no_url_that_is_taken_is_refused_by_the_http_client(url: str) -> None:
    try:
        taken = server(url=url).url
    except ValidationError:
        return
    assert taken is not None
    HttpClient(taken, TaskScope(), ManualClock()).close()


@pytest.mark.parametrize("command", [[], [""], ["", "x"]])
def test_a_command_has_a_program(command: list[str]) -> None:
    assert "command is empty" in complaint(command=command)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "é", "x" * 65, "../x"])
def test_a_name_can_stand_in_a_url(name: str) -> None:
    assert complaint(url=URL, name=name).startswith("name: ")


@pytest.mark.parametrize("name", ["a", "A.b-c_9", "9", "x" * 64])
def test_plain_names_are_taken(name: str) -> None:
    assert server(name=name).name == name


def test_an_unknown_setting_is_refused_by_name() -> None:
    assert complaint(url=URL, idle_timout=3).startswith("idle_timout: ")


@pytest.mark.parametrize(
    "settings",
    [
        *({"idle_timeout": 0}, {"open_timeout": -1}, {"call_timeout": "soon"}, {"max_sessions": 0}, {"max_queue": 0}),
        *({"spares": -1}, {"scope": "global"}, {"start": "now"}, {"lists": "both"}, {"on_loss": "retry"}),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_by_the_settings_name(settings: dict[str, Any]) -> None:
    assert complaint(url=URL, **settings).startswith(f"{next(iter(settings))}: ")


def test_several_problems_make_one_line() -> None:
    text = complaint(url=URL, spares=-1, max_queue=0)
    assert "spares: " in text
    assert "max_queue: " in text
    assert "\n" not in text


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        setattr(server(), "scope", "shared")  # noqa: B010 - a plain assignment would not pass the type checkers


def test_joining_conversations_is_never_the_default() -> None:
    assert server().scope == "chat"
    assert server().on_loss == "tell"
    assert not server().trusted


def test_an_idle_process_costs_more_than_an_idle_http_session() -> None:
    assert server().session_limit == 1000
    assert server(url=None, command=["x"]).session_limit == 64
    assert server(max_sessions=3).session_limit == 3


def test_a_server_is_called_by_its_name_or_its_prefix_at_mcp() -> None:
    assert server(name="a.b-c_9").public_prefix == "a_b-c_9"
    assert server(name="a.b", prefix="web").public_prefix == "web"


@pytest.mark.parametrize(
    ("rules", "admitted"),
    [
        ({}, "ab Ab b"),
        ({"allow": ["a*"]}, "ab"),
        ({"allow": ["?b"]}, "ab Ab"),
        ({"allow": ["[aA]b"], "deny": ["A*"]}, "ab"),
        ({"deny": ["*"]}, ""),
    ],
    ids=str,
)
def test_rules_admit_what_a_pattern_allows_and_none_denies(rules: dict[str, Any], admitted: str) -> None:
    read = ToolRules.model_validate(rules)
    assert [name for name in ("ab", "Ab", "b") if read.admits(name)] == admitted.split()
    assert read.admits_all == (not rules)


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ({"allow": []}, "tools.allow: admits no tool"),
        ({"deny": ["a", ""]}, "tools.deny.1: is empty"),
        ({"aliases": {"a": "b.c"}}, "tools.aliases.a: "),
        ({"aliases": {"a": "b" * 65}}, "tools.aliases.a: "),
        ({"deny": ["a"], "aliases": {"a": "b"}}, "tools.aliases.a: is for a tool that allow and deny leave out"),
    ],
    ids=str,
)
def test_rules_that_say_nothing_are_refused(tools: dict[str, Any], expected: str) -> None:
    assert complaint(url=URL, tools=tools).startswith(expected)


def test_a_client_sees_every_server_or_those_that_are_named() -> None:
    assert ClientSettings(name="a").may_see("x")
    limited = ClientSettings(name="a", servers={"x": ToolRules()})
    assert (limited.may_see("x"), limited.may_see("y")) == (True, False)
    with pytest.raises(ValidationError, match="sees no server"):
        ClientSettings(name="a", servers={})


@requirement("config:headers-of-one-caller-reach-no-other")
@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "COOKIE", "proxy-authorization", "Mcp-Session-Id", "mcp-param-x", "x-holdfast-user", "Host"),
        *("connection", "keep-alive", "te", "transfer-encoding", "content-length", "content-encoding", "a b", "", "a:"),
    ],
)
def test_what_is_not_a_callers_own_header_does_not_go_on(name: str) -> None:
    assert complaint(url=URL, pass_headers=[name]).startswith("pass_headers.0: ")


@requirement("config:headers-of-one-caller-reach-no-other")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scope": "shared"}, "scope: shared has one session for all"),
        ({"spares": 1}, "spares are opened before"),
        ({"url": None, "command": ["x"]}, "a command takes no headers"),
        ({"headers": {"X-TENANT": "t"}}, "pass_headers.0: has a value in headers already"),
    ],
    ids=str,
)
def test_headers_of_one_caller_go_where_no_other_is(settings: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**{"url": URL, "pass_headers": ["X-Tenant"], **settings})
    assert server(pass_headers=["X-Tenant"], scope="user").pass_headers == ("x-tenant",)


@requirement("config:secrets-stay-secret")
@pytest.mark.parametrize(
    "settings",
    [
        {"url": f"http://bob:{CANARY}@h/mcp"},
        {"url": f"ftp://bob:{CANARY}@h/mcp"},
        {"url": f"http://{CANARY}@h/mcp"},
        {"url": URL, "headers": {"Authorization": [CANARY]}},
        {"url": URL, "env": {"TOKEN": {"x": CANARY}}},
        {"url": URL, "headers": f"Bearer {CANARY}"},
        {"headers": {"Authorization": CANARY}},
    ],
    ids=str,
)
def test_a_complaint_holds_no_credential(settings: dict[str, Any]) -> None:
    assert CANARY not in complaint(**settings)


@row(21)
@requirement("config:secrets-stay-secret")
def test_the_text_form_of_settings_holds_no_credential() -> None:
    settings = GatewaySettings(
        servers=(
            server(headers={"Authorization": CANARY}),
            server(name="b", url=None, command=["x"], env={"T": CANARY}),
        ),
        clients=(ClientSettings(name="a", key_digests=(key_digest(CANARY),)),),
    )
    for text in (repr(settings), str(settings), repr(settings.model_dump()), settings.servers[0].model_dump_json()):
        assert CANARY not in text


@requirement("config:secrets-stay-secret")
def test_a_missing_variable_is_named_without_the_text_around_it() -> None:
    with pytest.raises(ConfigError, match="TOKEN is not set") as caught:
        expand(f"Bearer {CANARY}${{TOKEN}}", {})
    assert CANARY not in str(caught.value)


def credential(headers: dict[str, str], env: dict[str, str]) -> str:
    return ServerSettings(
        name="a",
        url=URL,
        headers={name: SecretStr(value) for name, value in headers.items()},
        env={name: SecretStr(value) for name, value in env.items()},
    ).fingerprint


VARIABLES = st.dictionaries(st.text("aAé|\0", max_size=3), st.text("aAé|\0", max_size=3), max_size=3)


@requirement("config:credentials-are-part-of-the-key")
@given(VARIABLES, VARIABLES, VARIABLES, VARIABLES)
def test_different_credentials_have_different_fingerprints(
    headers: dict[str, str], env: dict[str, str], other_headers: dict[str, str], other_env: dict[str, str]
) -> None:
    is_same = (headers, env) == (other_headers, other_env)
    assert (credential(headers, env) == credential(other_headers, other_env)) == is_same


@requirement("config:credentials-are-part-of-the-key")
def test_a_credential_moved_elsewhere_is_another() -> None:
    texts = [
        credential({"a": "b"}, {}),
        credential({}, {"a": "b"}),
        credential({"ab": ""}, {}),
        credential({"": "ab"}, {}),
        credential({}, {}),
    ]
    assert len(set(texts)) == len(texts)


def test_a_fingerprint_does_not_depend_on_the_order_of_headers() -> None:
    assert credential({"a": "1", "b": "2"}, {}) == credential({"b": "2", "a": "1"}, {})


def test_a_credential_that_is_no_text_has_a_fingerprint_of_its_own() -> None:
    """As `--header X=…` and a variable have it that hold other bytes than UTF-8."""
    found = {
        ServerSettings(name="a", url="http://h", headers={"x": SecretStr(x)}).fingerprint
        for x in ("\udcff", "\udcfe", "?")
    }
    assert len(found) == 3


def test_a_fingerprint_does_not_show_what_it_is_of() -> None:
    assert CANARY not in credential({"Authorization": CANARY}, {})


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://127.0.0.1:3001/mcp"},
        {"url": None, "command": ["x"]},
        {"scope": "user"},
        {"serial": True},
        {"trusted": True},
        {"pass_headers": ["x-tenant"]},
    ],
    ids=str,
)
def test_a_change_that_makes_sessions_differ_changes_the_revision(settings: dict[str, Any]) -> None:
    assert server(**settings).revision != server().revision


@pytest.mark.parametrize(
    "settings", [{"idle_timeout": 5}, {"max_sessions": 5}, {"call_timeout": 5}, {"spares": 1}, {"prefix": "p"}], ids=str
)
def test_a_change_of_limits_keeps_open_sessions(settings: dict[str, Any]) -> None:
    assert server(**settings).revision == server().revision


KEYED = ClientSettings(name="a", key_digests=(key_digest("k"),))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_no_key_is_needed(host: str) -> None:
    assert GatewaySettings(host=host, servers=(server(),)).is_loopback


@requirement("config:reachable-needs-a-key")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "holdfast.internal", ""])
@pytest.mark.parametrize("clients", [None, (ClientSettings(name="local"),), (KEYED, ClientSettings(name="b"))])
def test_a_gateway_that_others_can_reach_wants_a_key_of_every_client(
    host: str, clients: tuple[ClientSettings, ...] | None
) -> None:
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate(
            {"host": host, "servers": [server()], **({"clients": clients} if clients else {})}
        )
    assert "give --key" in describe(caught.value)


def test_with_keys_it_may_be_reached() -> None:
    assert not GatewaySettings(host="0.0.0.0", servers=(server(),), clients=(KEYED,)).is_loopback


@pytest.mark.parametrize("port", [-1, 65536, "http"])
def test_a_port_is_a_port(port: object) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate({"port": port, "servers": [server()]})


def test_keys_are_kept_as_digests_that_differ() -> None:
    assert key_digest("a") != key_digest("b")
    assert len(key_digest("a")) == 32


def test_trusted_header_names_stand_in_lower_case() -> None:
    for trust in TRUST_PRESETS.values():
        for name in (trust.user, trust.chat):
            assert name is None or name == name.lower()


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${A}", "1"),
        ("x${A}y${B}z", "x1y z"),
        ("${C:-default}", "default"),
        ("${C:-}", ""),
        ("${A:-default}", "1"),
        ("${EMPTY:-default}", ""),
        ("$A $$ ${ ${1} {A}", "$A $$ ${ ${1} {A}"),
        ("${LOOP}", "${A}"),
    ],
)
def test_variables_are_put_in_once(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": " ", "EMPTY": "", "LOOP": "${A}"}) == expanded


def test_variables_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_TEST_VARIABLE", "here")
    assert expand("${HOLDFAST_TEST_VARIABLE}") == "here"
