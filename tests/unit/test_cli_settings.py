"""The options of `holdfast run` as settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from holdfast.cli.settings import (
    check_command,
    describe_options,
    name_of,
    parse_headers,
    parse_key,
    parse_trust,
    split_target,
)
from holdfast.config import TRUST_PRESETS, ServerSettings, Trust
from holdfast.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("npx @playwright/mcp@latest --headless", "playwright"),
        ("npx -y @modelcontextprotocol/server-everything", "server-everything"),
        ("npx --prefix /srv/node mcp-server-everything stdio", "mcp-server-everything"),
        ("npm exec --yes some-server", "some-server"),
        ("uvx mcp-server-git --repository notes", "mcp-server-git"),
        ("uvx --from git+https://example.test/x mcp-foo", "mcp-foo"),
        ("uv run --directory /srv/x weather.py", "weather"),
        ("uv tool run some-server@1.2", "some-server"),
        ("docker run -i --rm -e TOKEN ghcr.io/github/github-mcp-server:latest", "github-mcp-server"),
        ("docker run -i mcp/time", "time"),
        ("node /srv/server-everything/dist/index.js stdio", "server-everything"),
        ("node index.js", "index"),
        ("python -m mcp_server_fetch", "mcp_server_fetch"),
        ("python3.11 -X dev weather.py", "weather"),
        ("python -m weather.server", "weather"),
        ("node -e server()", "node"),
        ("/opt/bin/weather --stdio", "weather"),
        ("bash", "bash"),
    ],
)
def test_a_command_is_named_after_what_tells_it_from_others(command: str, name: str) -> None:
    assert name_of(None, command.split()) == name


def test_a_url_is_named_after_its_host() -> None:
    assert name_of("https://mcp.example.test:8080/mcp", None) == "mcp.example.test"


@pytest.mark.parametrize(
    "target",
    [[], ["ftp://host/mcp"], ["http://host/mcp", "more"], ["http://host:port/mcp"], ["http://host:99999/mcp"]],
)
def test_what_is_neither_url_nor_command_is_refused(target: list[str]) -> None:
    with pytest.raises(ConfigError):
        split_target(target)


def test_a_program_must_be_there(tmp_path: Path) -> None:
    program = tmp_path / "server"
    with pytest.raises(ConfigError, match="not found"):
        check_command([str(program)])
    program.touch()
    with pytest.raises(ConfigError, match="no program"):
        check_command([str(program)])
    program.chmod(0o755)
    check_command([str(program)])


def test_a_key_is_visible_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k1")
    monkeypatch.setenv("EMPTY", "")
    assert parse_key(None) is None
    assert parse_key("${KEY}") == "k1"
    for value in ("", "${EMPTY}", "two words", "line\nbreak"):
        with pytest.raises(ConfigError, match="--key"):
            parse_key(value)


def test_a_header_has_a_name_and_a_value_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "a\r\nX-Evil: 1")
    assert parse_headers(["X-Key=a=b"])["X-Key"].get_secret_value() == "a=b"
    for value in ("X-Key", "=v", "X Key=v"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            parse_headers([value])
    with pytest.raises(ConfigError, match="control character") as refused:
        parse_headers(["X-Key=${SECRET}"])
    assert "Evil" not in str(refused.value)


def test_trust_is_a_preset_or_headers() -> None:
    assert parse_trust(None) == Trust()
    assert parse_trust("openwebui") == TRUST_PRESETS["openwebui"]
    assert parse_trust("user=X-User,chat=X-Chat") == Trust(user="x-user", chat="x-chat")
    for value in ("", "everyone", "user=", "user= ", "user=a b", "user=a,user=b", "role=x"):
        with pytest.raises(ConfigError, match="--trust"):
            parse_trust(value)


def test_a_secret_goes_with_the_headers_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING", f"{'s' * 32}\n")
    trust = parse_trust("openwebui", "${SIGNING}")
    assert trust == TRUST_PRESETS["openwebui"].model_copy(update={"jwt_secret": SecretStr("s" * 32)})
    for value, secret, words in ((None, "s" * 32, "give --trust"), ("openwebui", "s" * 31, "shorter than 32 bytes")):
        with pytest.raises(ConfigError, match=words) as refused:
            parse_trust(value, secret)
        assert secret not in str(refused.value)


def test_wrong_options_are_called_by_their_names() -> None:
    with pytest.raises(ValidationError) as refused:
        ServerSettings.model_validate(
            {"name": "a/b", "url": "http://h/mcp", "scope": "all", "max_sessions": 0, "idle_timeout": 0}
        )
    assert describe_options(refused.value) == (
        "--name takes letters, digits, dots, dashes and underscores, 64 at most;"
        " --scope takes 'chat', 'user' or 'shared';"
        " --max-sessions takes a number from 1 on;"
        " --idle-timeout takes a number above 0"
    )
