"""A JSON Schema of the YAML form, with which editors complete and check a settings file."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from holdfast.config.clients import KEY_FORMS
from holdfast.config.headers import HEADER_NAME
from holdfast.config.meanings import meanings
from holdfast.config.settings import (
    ALIAS_PATTERN,
    NAME_PATTERN,
    PREFIX_PATTERN,
    SEPARATOR,
    TRUST_PRESETS,
    ClientSettings,
    GatewaySettings,
    Limits,
    LogSettings,
    ServerSettings,
    ServerTools,
    ToolRules,
    Trust,
)

Schema = dict[str, Any]

_SCALAR: Final[Schema] = {"type": ["string", "number", "boolean"]}
_DEFINITIONS: Final[dict[str, Schema]] = {
    "variable": {"type": "string", "pattern": r"\$\{", "description": "`${NAME}` or `${NAME:-default}`."},
    "secret": {
        "description": "A text, in which `${NAME}` is filled in, or `{file: PATH}`, relative to this file.",
        "anyOf": [
            _SCALAR,
            {
                "type": "object",
                "properties": {"file": {"type": "string", "minLength": 1}},
                "required": ["file"],
                "additionalProperties": False,
            },
        ],
    },
}


def json_schema() -> Schema:
    """The schema of the YAML form, in draft 2020-12."""
    elsewhere = {"host", "port", "clients", "servers", "operator_key_digest", "limits", "log"}
    properties = _fields(GatewaySettings, without=elsewhere)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Holdfast settings",
        "type": "object",
        "properties": {
            "listen": {
                "type": "string",
                "description": "HOST:PORT to listen on; beyond loopback, every client needs a key.",
                "default": "127.0.0.1:8790",
                "anyOf": [{"pattern": r"^(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"}, _reference("variable")],
            },
            "clients": {
                "type": ["object", "null"],
                "description": "The programs that may call, by name; without any, every program of this machine may.",
                "additionalProperties": _reference("client"),
            },
            "servers": {
                "type": "object",
                "description": "The MCP servers, by name.",
                "minProperties": 1,
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": _reference("server"),
            },
            **properties,
            "operator_key": {
                "description": "The key for `/api` and `/metrics`; without it, they are open on loopback and closed"
                " elsewhere.",
                **_reference("secret"),
            },
            "limits": _section(Limits),
            "log": _section(LogSettings),
        },
        "required": ["servers"],
        "if": {"not": {"required": ["separator"]}},
        "then": {"properties": {"servers": {"propertyNames": {"not": {"pattern": SEPARATOR}}}}},
        "patternProperties": {"^x-": {"description": "Ignored; a place for what aliases repeat."}},
        "additionalProperties": False,
        "$defs": {
            **_DEFINITIONS,
            "server": _server(),
            "client": _client(),
            "trust": _trust(),
            "rules": _rules(ToolRules),
            "tools": _rules(ServerTools),
        },
    }


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _properties(model: type[BaseModel]) -> dict[str, Schema]:
    """A model's fields, with what they mean."""
    known = meanings(model)
    fields: dict[str, Schema] = model.model_json_schema()["properties"]
    return {name: field | {"description": known[name]} if name in known else field for name, field in fields.items()}


def _fields(model: type[BaseModel], *, without: set[str]) -> dict[str, Schema]:
    """A model's fields; where no text is expected, a variable may stand."""
    return {name: _or_variable(field) for name, field in _properties(model).items() if name not in without}


def _or_variable(field: Schema) -> Schema:
    about = {key: field[key] for key in ("description", "default") if field.get(key) is not None}
    wanted = {key: value for key, value in field.items() if key not in {"description", "default", "title"}}
    choices = wanted.get("anyOf", [wanted])
    if any(
        choice.get("type") in {"string", "array", "object"} and not {"enum", "pattern"} & choice.keys()
        for choice in choices
    ):
        return about | wanted
    return about | {"anyOf": [*choices, _reference("variable")]}


def _section(model: type[BaseModel]) -> Schema:
    properties = _fields(model, without=set())
    return {"type": "object", "description": model.__doc__, "properties": properties, "additionalProperties": False}


def _rules(model: type[ToolRules]) -> Schema:
    fields = _properties(model)
    patterns: Schema = {"type": "array", "items": {**_SCALAR, "minLength": 1}}
    properties: dict[str, Schema] = {
        "allow": {"description": fields["allow"]["description"], **patterns, "minItems": 1},
        "deny": {"description": fields["deny"]["description"], **patterns},
    }
    if "aliases" in fields:
        about = fields["aliases"]["description"]
        name = {"anyOf": [{"type": "string", "pattern": ALIAS_PATTERN}, {"type": "number"}, _reference("variable")]}
        properties["aliases"] = {"description": about, "type": "object", "additionalProperties": name}
    return {"type": "object", "description": model.__doc__, "properties": properties, "additionalProperties": False}


def _server() -> Schema:
    properties = _fields(ServerSettings, without={"name"})
    about = {
        name: {"description": field["description"]} for name, field in properties.items() if "description" in field
    }
    properties["url"] = about["url"] | {"type": "string", "pattern": r"^(https?://|\$\{)"}
    properties["command"] = about["command"] | {
        "anyOf": [
            {"type": "array", "minItems": 1, "items": _SCALAR},
            {"type": "string", "minLength": 1, "description": "Split into words as a shell does; no shell runs it."},
        ],
    }
    properties["cwd"] = about["cwd"] | {"type": "string", "minLength": 1}
    properties["env"] = about["env"] | {"type": "object", "additionalProperties": _reference("secret")}
    properties["prefix"] = about["prefix"] | {
        "anyOf": [{"type": "string", "pattern": PREFIX_PATTERN}, _reference("variable")]
    }
    properties["tools"] = about["tools"] | _reference("tools")
    properties["pass_headers"] = about["pass_headers"] | {
        "type": "array",
        "items": {"type": "string", "pattern": rf"^({HEADER_NAME.pattern}|.*\$\{{.*)$"},
    }
    properties["headers"] = about["headers"] | {
        "type": "object",
        "propertyNames": {"pattern": f"^{HEADER_NAME.pattern}$"},
        "additionalProperties": _reference("secret"),
    }
    return {
        "type": "object",
        "description": ServerSettings.__doc__,
        "properties": properties,
        "oneOf": [{"required": ["url"]}, {"required": ["command"]}],
        "additionalProperties": False,
    }


def _client() -> Schema:
    both = [
        {"type": "object", "required": [one, other]}
        for one, other in zip(KEY_FORMS, (*KEY_FORMS[1:], KEY_FORMS[0]), strict=True)
    ]
    return {
        "type": ["object", "null"],
        "description": ClientSettings.__doc__,
        "properties": {
            "key": {"description": "The key that it bears as `Authorization: Bearer KEY`.", **_reference("secret")},
            "keys": {
                "description": "Several keys, while one replaces another.",
                "type": "array",
                "minItems": 1,
                "items": _reference("secret"),
            },
            "key_file": {"description": "The file that holds its key, relative to this file.", "type": "string"},
            "servers": {
                "description": meanings(ClientSettings)["servers"],
                "anyOf": [
                    {"type": "array", "minItems": 1, "items": _SCALAR},
                    {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {
                            "type": ["object", "null"],
                            "properties": {"tools": _reference("rules")},
                            "additionalProperties": False,
                        },
                    },
                ],
            },
            "trust": {"description": "The headers in which it may name its users and chats.", **_reference("trust")},
        },
        "not": {"anyOf": both},
        "additionalProperties": False,
    }


def _trust() -> Schema:
    models = _properties(Trust)
    header = {"type": "string", "pattern": f"^{HEADER_NAME.pattern}$"}
    preset: Schema = {"anyOf": [{"enum": list(TRUST_PRESETS)}, _reference("variable")]}
    forms = {name: _reference("secret") if name == "jwt_secret" else header for name in models}
    return {
        "anyOf": [
            *preset["anyOf"],
            {
                "type": "object",
                "minProperties": 1,
                "properties": {
                    "preset": {
                        "description": "A host whose headers are known; what stands beside it counts more.",
                        **preset,
                    },
                    **{name: {"description": models[name]["description"], **form} for name, form in forms.items()},
                },
                "dependentRequired": {"jwt": ["jwt_secret"]},
                "additionalProperties": False,
            },
        ]
    }
