"""Whatever LiteLLM's file holds, importing it ends in a valid file of ours or in a mistake with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.file import read
from holdfast.config.litellm import Imported, convert
from holdfast.config.source import Findings, find_halves, parse_yaml
from holdfast.errors import ConfigError
from requirements import requirement


class EveryVariable(Mapping[str, str]):
    """An environment in which everything is set."""

    def __getitem__(self, name: str) -> str:
        return "http://127.0.0.1:1/mcp"

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def outcome(text: str, separator: str) -> tuple[Imported | None, list[str]]:
    """What comes of it: the result, or the mistakes."""
    try:
        problems = Findings("litellm.yaml")
        root = parse_yaml(text, problems)
        assert root is not None
        if problems or find_halves(root, problems):
            raise problems.error()
        return convert(root, Path("litellm.yaml"), separator), []
    except ConfigError as error:
        return None, str(error).split("\n")


KEYS = [
    *("url", "transport", "command", "args", "env", "auth_type", "auth_value", "authentication_token", "alias"),
    *("static_headers", "extra_headers", "env_vars", "allowed_tools", "disallowed_tools", "timeout", "mcp_info"),
    *("max_concurrent_requests", "protocol_version", "upstream_token_header", "access_groups", "spec_path", "rpm"),
    *("description", "allow_elicitation", "client_secret", "mystery"),
]
TEXTS = st.sampled_from(
    [
        *(
            "http://h/mcp",
            "https://h:8443/mcp?a=${X}",
            "http",
            "sse",
            "stdio",
            "npx",
            "-y",
            "@a/b",
            "a b",
            "",
            " ",
            "-",
        ),
        *(
            "os.environ/TOKEN",
            "os.environ/",
            "os.environ/a b",
            "${X}",
            "$${X}",
            "$",
            "${",
            "}",
            "#",
            "# no",
            ": ",
            "a: b",
        ),
        *("bearer_token", "basic", "api_key", "authorization", "token", "none", "oauth2", "Bearer x", "Basic dTpw"),
        *("X-A", "x-a", "Authorization", "Host", "a_b", "a-b", "a__b", "über", "yes", "null", "012", "1e3", "0x1", "~"),
        *(
            "2026-07-28",
            "2025-06-18",
            "auto",
            "user",
            "*",
            "[a]",
            "a\nb",
            "\x7f",
            "\ufeff",
            "\u2028",
            "'",
            '"',
            "\\",
            "<<",
        ),
        *("---", "...", "--", "&a", "*a", "!x", "|", ">", "%", "@", "`", "\U0001f600", "=", "\x85", "{", "x" * 70),
    ]
)
NAMES = st.one_of(TEXTS, st.text(max_size=8))
SCALARS: st.SearchStrategy[Any] = st.one_of(
    TEXTS, st.text(max_size=8), st.integers(-3, 10**12), st.floats(), st.booleans(), st.none()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(NAMES, st.sampled_from(["name", "value", "scope", "description"])), inner, max_size=3
        ),
    ),
    max_leaves=6,
)
SENSIBLE: Mapping[str, st.SearchStrategy[Any]] = {
    "url": st.sampled_from(["http://h/mcp", "os.environ/URL", "http://h/${X}?a='"]),
    "command": st.sampled_from(["npx", "/a b/c", "os.environ/URL", "${X}"]),
    "args": st.lists(TEXTS, max_size=4),
    "env": st.dictionaries(NAMES, SCALARS, max_size=3),
    "transport": st.sampled_from(["http", "sse", "stdio"]),
    "static_headers": st.dictionaries(NAMES, TEXTS, max_size=4),
    "extra_headers": st.lists(NAMES, max_size=3),
    "allowed_tools": st.lists(NAMES, max_size=3),
    "alias": NAMES,
    "timeout": st.one_of(st.floats(), st.integers(0, 10**30)),
    "max_concurrent_requests": st.one_of(st.floats(0, 3), st.integers(0, 10**30)),
    "protocol_version": st.sampled_from(["auto", "2026-07-28", "2025-06-18"]),
    "auth_type": st.sampled_from(["bearer_token", "basic", "api_key", "authorization", "token", "none", "oauth2"]),
    "auth_value": TEXTS,
    "env_vars": st.lists(st.fixed_dictionaries({"name": st.just("X"), "value": TEXTS}), max_size=2),
}


@st.composite
def servers(draw: st.DrawFn) -> dict[str, Any]:
    anything = draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2)) if draw(st.booleans()) else {}
    return {**anything, **draw(st.fixed_dictionaries({}, optional=dict(SENSIBLE)))}


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    named = draw(st.dictionaries(NAMES, servers(), max_size=3))
    sound = {**draw(servers()), "url": "http://h/mcp", "transport": "http"}
    keys = st.sampled_from(["master_key", "mcp_x", "custom_auth"])
    general = draw(st.one_of(st.none(), st.dictionaries(keys, SCALARS, max_size=2)))
    return {"mcp_servers": {**named, "first": sound}, "general_settings": general}


@requirement("import:litellm:passes-check")
@given(files(), st.sampled_from(["-", "__", "_", "-_"]))
def test_whatever_stands_in_it_the_result_is_valid_or_the_mistake_is_told(file: Any, separator: str) -> None:
    text = yaml.safe_dump(file, allow_unicode=False, sort_keys=False)
    result, mistakes = outcome(text, separator)
    assert all(re.match(r"litellm\.yaml:\d+: ", line) for line in mistakes)
    if result is not None:
        loaded = read(result.text, Path("holdfast.yaml"), EveryVariable(), is_json=False)
        assert len(loaded.settings.servers) == result.servers
        assert loaded.settings.separator == separator
        assert all(re.match(r"litellm\.yaml:\d+: ", line) and line.isprintable() for line in result.remarks)


WORDS = st.one_of(TEXTS, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12))


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_words_of_a_command_arrive_as_they_stood(words: list[str]) -> None:
    text = yaml.safe_dump({"mcp_servers": {"one": {"command": "x", "args": words}}}, allow_unicode=False)
    result, _ = outcome(text, "-")
    assert result is not None
    (only,) = read(result.text, Path("holdfast.yaml"), EveryVariable(), is_json=False).settings.servers
    assert only.command == ("x", *words)
