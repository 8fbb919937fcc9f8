"""The arguments of a tool, as they are written on a command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from holdfast.call import Json
from holdfast.errors import ConfigError
from holdfast.wire import jsonrpc

_PAIR: Final = re.compile(r"([^={}\[\]\"\s]+)=(.*)", re.DOTALL)


def parse_arguments(words: Sequence[str], read: Callable[[], bytes]) -> dict[str, Json]:
    """JSON objects, `key=value` pairs, and `-` for a JSON object from `read`; what comes later wins.

    A value is JSON where it can be read as JSON, else text. Raises `ConfigError`.
    """
    arguments: dict[str, Json] = {}
    for word in words:
        if word == "-":
            arguments |= _parse_object(read(), "standard input")
        elif pair := _PAIR.fullmatch(word):
            arguments[pair.group(1)] = _parse_value(pair.group(1), pair.group(2))
        else:
            arguments |= _parse_object(word.encode(errors="surrogateescape"), repr(word))
    return arguments


def _parse_object(text: bytes, what: str) -> dict[str, Json]:
    try:
        value = jsonrpc.decode_checked(text)
    except jsonrpc.BadMessage as error:
        reason = error.message.removeprefix("The body is not valid JSON: ").rstrip(".")
        is_meant_so = text.lstrip()[:1] in {b"{", b"["} or what == "standard input"
        raise ConfigError(
            f"{what} is no JSON object: {reason}" if is_meant_so else f"{what} is neither a JSON object nor KEY=VALUE"
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is no JSON object: a tool's arguments have names")
    return value


def _parse_value(key: str, text: str) -> Json:
    try:
        return jsonrpc.decode_checked(text.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"the value of {key} is no UTF-8") from None
    except jsonrpc.BadMessage as error:
        if error.code == jsonrpc.PARSE_ERROR:
            return text
        raise ConfigError(f"{key}: {error.message}") from None
