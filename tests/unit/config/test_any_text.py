"""Whatever a file holds, reading it ends in settings or in a mistake with its line."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.file import load
from holdfast.errors import ConfigError

WORDS = [
    "servers",
    "clients",
    "listen",
    "a",
    "b",
    "url",
    "command",
    "env",
    "headers",
    "key",
    "keys",
    "key_file",
    "trust",
    "preset",
    "jwt_secret",
    "jwt",
    "file",
    "scope",
    "chat",
    "args",
    "type",
    "disabled",
    "mcpServers",
    "inputs",
    "mcp",
    "allowed_hosts",
    "client_idle_timeout",
    "separator",
    "operator_key",
    "limits",
    "user_rate",
    "log",
    "level",
    "tools",
    "allow",
    "aliases",
    "prefix",
    "pass_headers",
    "X-A",
    "__",
    "http://h/",
    "127.0.0.1:1",
    "${A}",
    "${B:-x}",
    "${env:A}",
    "${",
    "$${",
    "1",
    "-1",
    "1.5",
    "yes",
    "null",
    "true",
    "openwebui",
    "x-a",
    "<<",
]
MARKS = [
    *"{}[],:-#&*!|>'\"%@`?",
    ": ",
    ", ",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "\n---\n",
    "\t",
    "//",
    "/*",
    "*/",
    "&a ",
    "*a",
]

VALUES = st.recursive(
    st.sampled_from(WORDS) | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(WORDS), children, max_size=4),
    max_leaves=20,
)


def read(text: str, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"holdfast{suffix}"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            load(path, {"A": "1"})
        except ConfigError as error:
            for line in str(error).split("\n"):
                assert re.match(rf"{re.escape(str(path))}:\d+: ", line), line


@pytest.mark.parametrize("suffix", [".yaml", ".json", ""])
@given(words=st.lists(st.sampled_from(WORDS + MARKS) | st.text(max_size=2), max_size=40))
def test_any_text(suffix: str, words: list[str]) -> None:
    read("".join(words), suffix)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@given(value=st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=4))
def test_any_tree(suffix: str, value: dict[str, object]) -> None:
    read(json.dumps(value), suffix)
