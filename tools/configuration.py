#!/usr/bin/env python3
"""Writes the tables of docs/configuration.md from the models of the settings, or says with --check that they are old.

A table stands between `<!-- Model -->` and `<!-- /Model -->`; everything else of the page is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Optional, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from holdfast.config import (
    ClientSettings,
    Count,
    GatewaySettings,
    Limits,
    LogSettings,
    Seconds,
    ServerSettings,
    ServerTools,
    ToolRules,
    Trust,
)
from holdfast.config.clients import KEY_FORMS
from holdfast.config.gateway import WRITTEN_AS
from holdfast.config.meanings import meanings
from holdfast.config.settings import Rate

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

MODELS: Final[Mapping[str, type[BaseModel]]] = {
    model.__name__: model
    for model in (
        GatewaySettings,
        Limits,
        LogSettings,
        ClientSettings,
        Trust,
        ServerSettings,
        ToolRules,
        ServerTools,
    )
}

_HTTP: Final = ServerSettings(name="any", url="http://127.0.0.1/")
_STDIO: Final = ServerSettings(name="any", command=("any",))

_TAKES: Final = {
    "GatewaySettings.clients": "[clients](#a-client)",
    "GatewaySettings.servers": "[servers](#a-server)",
    "GatewaySettings.limits": "[limits](#limits)",
    "GatewaySettings.log": "[settings of the log](#the-log)",
    "GatewaySettings.operator_key_digest": "32 bytes; in a file the key",
    "ClientSettings.key_digests": "digests of 32 bytes; in a file the keys",
    "ClientSettings.servers": "names of servers, each with [rules](#tools) or without",
    "ClientSettings.trust": "[names of headers](#trust)",
    "ServerSettings.env": "names and secrets",
    "ServerSettings.headers": "names and secrets",
    "ServerSettings.tools": "[rules and aliases](#tools)",
    "ServerTools.aliases": "tools and their names",
}
_DEFAULTS: Final = {
    "GatewaySettings.clients": "`local`, without a key",
    "GatewaySettings.limits": "as below",
    "GatewaySettings.log": "as below",
    "ClientSettings.trust": "nothing",
    "ClientSettings.servers": "all",
    "ServerSettings.url": "",
    "ServerSettings.command": "",
    "ServerSettings.cwd": "the gateway's",
    "ServerSettings.prefix": "the server's name",
    "ServerSettings.tools": "all tools",
    "ServerSettings.max_sessions": f"{_HTTP.session_limit:,} for HTTP, {_STDIO.session_limit:,} for stdio",
}
"""What is written in words; all else is read off the models."""


def table(model: type[BaseModel]) -> str:
    """The Markdown table of a model's own settings: name, what it takes, default, meaning."""
    inherited = {name for base in model.__bases__ for name in getattr(base, "model_fields", {})}
    hints = get_type_hints(model, include_extras=True)
    schema = model.model_json_schema()["properties"]
    known = meanings(model)
    rows = ["| setting | takes | default | what it does |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if name not in inherited:
            key = f"{model.__name__}.{name}"
            takes = _TAKES[key] if key in _TAKES else _takes(name, hints[name], schema[name])
            default = _DEFAULTS[key] if key in _DEFAULTS else _default(name, field)
            rows.append(f"| {_named(model, name)} | {takes} | {default} | {_meaning(key, known.get(name))} |")
    return "\n".join(rows) + "\n"


def _named(model: type[BaseModel], name: str) -> str:
    written: tuple[str, ...] = ()
    if model is GatewaySettings and name in WRITTEN_AS:
        written = (WRITTEN_AS[name],)
    elif model is ClientSettings and name == "key_digests":
        written = KEY_FORMS
    words = " or ".join(f"`{key}`" for key in written)
    return f"`{name}`, in a file {words}" if words else f"`{name}`"


def _takes(name: str, hint: object, schema: Mapping[str, Any]) -> str:
    """What may stand there, with its unit."""
    units = {"seconds": Seconds, "requests per second": Rate, "bytes" if name.endswith("_bytes") else "a count": Count}
    for unit, kind in units.items():
        if hint in {kind, Optional[kind]}:  # noqa: UP045 (`kind | None` of a variable is no type to the checkers)
            return unit
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    (choice,) = choices
    if "enum" in choice:
        *first, last = (f"`{value}`" for value in choice["enum"])
        return f"{', '.join(first)} or {last}"
    words = {"boolean": "`true` or `false`", "string": "a text", "integer": _whole(choice), "array": "a list of texts"}
    return words[choice["type"]]


def _whole(schema: Mapping[str, Any]) -> str:
    if "maximum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    return f"a count, or {schema['minimum']}" if schema.get("minimum") == 0 else "a whole number"


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    match field.default:
        case bool():
            return f"`{str(field.default).lower()}`"
        case int() if name.endswith("_bytes"):
            return f"`{field.default}` ({field.default >> 20} MiB)"
        case float():
            return f"`{field.default:g}`"
        case int() | str():
            return f"`{field.default}`"
        case (str(),):
            return f'`["{field.default[0]}"]`'
        case _ if not field.default:
            return "no limit" if name.endswith("_rate") else "none"
        case _:
            raise ValueError(f"the default of {name} needs words")


def _meaning(key: str, text: str | None) -> str:
    if not text:
        raise ValueError(f"{key} has no docstring")
    return " ".join(text.split()).replace("|", "\\|")


def page(text: str) -> str:
    """The page with every table as the models are now. Raises `ValueError` where one has no place."""
    for name, model in MODELS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the page has no one place for {name}, between {begin.strip()} and {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table(model)}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> int:
    """Write the page, or with --check compare it; the status is 1 where it was old."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 where the page is old")
    arguments = parser.parse_args()
    before = PAGE.read_text()
    after = page(before)
    if before == after:
        return 0
    if arguments.check:
        sys.stderr.write(f"{PAGE}: is older than the settings; run make docs\n")
        return 1
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
