"""The envelope of a request of 2026-07-28: who asks, what can be asked of him, and what he wants to hear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from holdfast import __version__
from holdfast.call import Abilities, Json
from holdfast.wire import jsonrpc
from holdfast.wire.revisions import MODERN, MODERN_VERSION_KEY
from holdfast.wire.tasks import EXTENSION

CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
CLIENT_KEY: Final = "io.modelcontextprotocol/clientInfo"
LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"

_OURS: Final = frozenset({MODERN_VERSION_KEY, CAPABILITIES_KEY, CLIENT_KEY, LEVEL_KEY, "progressToken"})
_CLIENT: Final = {"name": "holdfast", "version": __version__}


def envelope(
    given: Json, able: Mapping[str, Any], *, level: str | None, progress_token: int | None
) -> Mapping[str, Any]:
    """The `_meta` of a request whose caller is `able`; of what it had given, that which is not ours to say."""
    meta: dict[str, Any] = {}
    if isinstance(given, dict):
        meta = {name: value for name, value in given.items() if name not in _OURS}
    if level is not None:
        meta[LEVEL_KEY] = level
    if progress_token is not None:
        meta["progressToken"] = progress_token
    meta[MODERN_VERSION_KEY] = MODERN
    meta[CLIENT_KEY] = _CLIENT
    meta[CAPABILITIES_KEY] = able
    return meta


def capabilities(abilities: Abilities) -> dict[str, Any]:
    """What a caller can be asked and answered with, as servers read it."""
    declared: dict[str, Any] = {}
    elicitation: dict[str, Any] = {}
    if abilities.elicitation_form:
        elicitation["form"] = {}
    if abilities.elicitation_url:
        elicitation["url"] = {}
    if elicitation:
        declared["elicitation"] = elicitation
    if abilities.sampling:
        has = {"tools": abilities.sampling_tools, "context": abilities.sampling_context}
        declared["sampling"] = {name: {} for name, is_there in has.items() if is_there}
    if abilities.roots:
        declared["roots"] = {}
    extensions: dict[str, Any] = dict(jsonrpc.decode_fields(abilities.extensions)) if abilities.extensions else {}
    if abilities.tasks:
        extensions[EXTENSION] = {}
    if extensions:
        declared["extensions"] = extensions
    return declared
