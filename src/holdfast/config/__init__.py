"""Settings: their models, and the files they are read from.

`file` (with YAML), `hosts` and `schema` are imported where they are used, so that `run` starts without them.
"""

from __future__ import annotations

from holdfast.config.expand import expand
from holdfast.config.settings import (
    CLOSER,
    MAX_MESSAGE_BYTES,
    MAX_REQUEST_BYTES,
    MIN_JWT_SECRET,
    OPENER,
    TRUST_PRESETS,
    ClientSettings,
    Count,
    GatewaySettings,
    Limits,
    LogSettings,
    Scope,
    Seconds,
    ServerSettings,
    ServerTools,
    ToolRules,
    Trust,
    describe,
    key_digest,
)

__all__ = [
    "CLOSER",
    "MAX_MESSAGE_BYTES",
    "MAX_REQUEST_BYTES",
    "MIN_JWT_SECRET",
    "OPENER",
    "TRUST_PRESETS",
    "ClientSettings",
    "Count",
    "GatewaySettings",
    "Limits",
    "LogSettings",
    "Scope",
    "Seconds",
    "ServerSettings",
    "ServerTools",
    "ToolRules",
    "Trust",
    "describe",
    "expand",
    "key_digest",
]
