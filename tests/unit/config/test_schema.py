"""The JSON Schema for editors agrees with what the reader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.cli.schema import schema
from holdfast.config import GatewaySettings, Limits, LogSettings, ServerSettings, ServerTools
from holdfast.config.file import load
from holdfast.errors import ConfigError

jsonschema: Any = pytest.importorskip("jsonschema")  # comes with mcp

ROOT = Path(__file__).resolve().parents[3]
SERVERS: dict[str, Any] = {"a": {"url": "http://h/mcp"}}


def faults(settings: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(schema()))
    return [str(fault.message) for fault in validator.iter_errors(settings)]


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))


def test_the_example_fits_it() -> None:
    assert faults(yaml.safe_load((ROOT / "examples" / "holdfast.yaml").read_text())) == []


def test_it_knows_and_describes_every_setting() -> None:
    described = json.loads(schema())
    models = GatewaySettings.model_fields.keys() - {"host", "port", "operator_key_digest"}
    assert described["properties"].keys() == models | {"listen", "operator_key"}
    sections = {
        **{name: described["properties"][name]["properties"] for name in ("limits", "log")},
        **{name: described["$defs"][name]["properties"] for name in ("server", "client", "tools")},
    }
    assert sections["server"].keys() == ServerSettings.model_fields.keys() - {"name"}
    assert sections["client"].keys() == {"key", "keys", "key_file", "trust", "servers"}
    assert sections["tools"].keys() == ServerTools.model_fields.keys()
    assert sections["limits"].keys() == Limits.model_fields.keys()
    assert sections["log"].keys() == LogSettings.model_fields.keys()
    for fields in (described["properties"], *sections.values()):
        for name, field in fields.items():
            assert field["description"], name


@pytest.mark.parametrize(
    ("settings", "is_right"),
    [
        ({"servers": SERVERS}, True),
        ({"servers": {}}, False),
        ({}, False),
        ({"servers": SERVERS, "listn": "x"}, False),
        ({"servers": SERVERS, "x-any": 1}, True),
        ({"servers": SERVERS, "listen": "127.0.0.1:1"}, True),
        ({"servers": SERVERS, "listen": "8790"}, False),
        ({"servers": SERVERS, "client_idle_timeout": 0}, False),
        ({"servers": SERVERS, "client_idle_timeout": "${X:-5}"}, True),
        ({"servers": {"a b": {"command": "x"}}}, False),
        ({"servers": {"a__b": {"command": "x"}}}, False),
        ({"servers": {"a": {"command": ["x", 1]}}}, True),
        ({"servers": {"a": {"command": "x y"}}}, True),
        ({"servers": {"a": {"command": []}}}, False),
        ({"servers": {"a": {"command": "x", "url": "http://h"}}}, False),
        ({"servers": {"a": {"scope": "chat"}}}, False),
        ({"servers": {"a": {"command": "x", "scope": "all"}}}, False),
        ({"servers": {"a": {"command": "x", "args": []}}}, False),
        ({"servers": {"a": {"command": "x", "env": {"A": 1, "B": {"file": "b"}}}}}, True),
        ({"servers": {"a": {"command": "x", "env": {"A": ["b"]}}}}, False),
        ({"servers": {"a": {"url": "http://h", "headers": {"A b": "c"}}}}, False),
        ({"servers": {"a": {"url": "h"}}}, False),
        ({"servers": {"a": {"url": "http://h", "max_sessions": 0}}}, False),
        ({"servers": {"a": {"url": "http://h", "max_sessions": 1, "idle_timeout": 0.5}}}, True),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "trust": "openwebui"}}}, True),
        ({"servers": SERVERS, "clients": {"a": {"keys": ["k", "l"], "trust": {"user": "X-U"}}}}, True),
        ({"servers": SERVERS, "clients": {"a": None}}, True),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "keys": ["l"]}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "trust": "openwebu"}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "trust": {}}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"trust": {"preset": "openwebui", "jwt_secret": "s" * 32}}}}, True),
        ({"servers": SERVERS, "clients": {"a": {"trust": {"preset": "openwebu"}}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"trust": {"preset": "openwebui", "jwt": "x-who"}}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "servers": ["a"]}}}, True),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "servers": []}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "servers": {}}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "servers": {"a": None}}}}, True),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "servers": {"a": {"tools": {"allow": ["x"]}}}}}}, True),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "servers": {"a": {"allow": ["x"]}}}}}, False),
        ({"servers": SERVERS, "clients": {"a": {"key": "k", "servers": {"a": {"tools": {"aliases": {}}}}}}}, False),
        ({"servers": SERVERS, "separator": "."}, False),
        ({"servers": SERVERS, "separator": "${S:--}"}, True),
        ({"servers": {"a__b": {"url": "http://h"}}, "separator": "-"}, True),
        ({"servers": SERVERS, "operator_key": {"file": "b"}}, True),
        ({"servers": SERVERS, "operator_key": ["k"]}, False),
        ({"servers": SERVERS, "limits": {"user_rate": None, "sessions": 5, "request_bytes": "${X:-5}"}}, True),
        ({"servers": SERVERS, "limits": {"sessions": None}}, False),
        ({"servers": SERVERS, "limits": {"client_rate": 0}}, False),
        ({"servers": SERVERS, "limits": None}, False),
        ({"servers": SERVERS, "log": {"level": "debug", "format": "json"}}, True),
        ({"servers": SERVERS, "log": {"level": "trace"}}, False),
        ({"servers": {"a": {"url": "http://h", "prefix": "x"}}}, True),
        ({"servers": {"a": {"url": "http://h", "prefix": "x.y"}}}, False),
        (
            {"servers": {"a": {"url": "http://h", "tools": {"allow": ["*"], "deny": ["x"], "aliases": {"y": "z"}}}}},
            True,
        ),
        ({"servers": {"a": {"url": "http://h", "tools": {"allow": []}}}}, False),
        ({"servers": {"a": {"url": "http://h", "tools": {"deny": [""]}}}}, False),
        ({"servers": {"a": {"url": "http://h", "tools": {"aliases": {"y": "z z"}}}}}, False),
        ({"servers": {"a": {"url": "http://h", "pass_headers": ["X-Tenant"]}}}, True),
        ({"servers": {"a": {"url": "http://h", "pass_headers": ["X Tenant"]}}}, False),
    ],
    ids=json.dumps,
)
def test_it_refuses_what_the_reader_refuses(settings: Any, is_right: bool, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("secret")
    (tmp_path / "holdfast.yaml").write_text(yaml.safe_dump(settings))
    try:
        load(tmp_path / "holdfast.yaml", {})
    except ConfigError as error:
        reads, said = False, str(error)
    else:
        reads, said = True, ""
    assert (faults(settings) == []) is is_right
    assert reads is is_right, said
