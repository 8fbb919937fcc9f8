"""Holdfast keeps MCP sessions alive between the programs that chat and the servers that remember."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from holdfast.call import Status, StatusWord
    from holdfast.errors import CallFailed, Code, ConfigError, Delivery, HoldfastError
    from holdfast.library.blocking import BlockingSession, BlockingSessionPool
    from holdfast.library.call import Question, Response
    from holdfast.library.errors import InvalidAnswer, ServerError, UnknownServer
    from holdfast.library.lease import PooledSession, SessionState
    from holdfast.library.pool import PoolStats, SessionPool

__all__ = [
    "BlockingSession",
    "BlockingSessionPool",
    "CallFailed",
    "Code",
    "ConfigError",
    "Delivery",
    "HoldfastError",
    "InvalidAnswer",
    "PoolStats",
    "PooledSession",
    "Question",
    "Response",
    "ServerError",
    "SessionPool",
    "SessionState",
    "Status",
    "StatusWord",
    "UnknownServer",
    "__version__",
]

__version__ = "0.1.0"

_PLACES: Final = {
    **dict.fromkeys(("Status", "StatusWord"), "call"),
    **dict.fromkeys(("CallFailed", "Code", "ConfigError", "Delivery", "HoldfastError"), "errors"),
    **dict.fromkeys(("BlockingSession", "BlockingSessionPool"), "library.blocking"),
    **dict.fromkeys(("Question", "Response"), "library.call"),
    **dict.fromkeys(("InvalidAnswer", "ServerError", "UnknownServer"), "library.errors"),
    **dict.fromkeys(("PooledSession", "SessionState"), "library.lease"),
    **dict.fromkeys(("PoolStats", "SessionPool"), "library.pool"),
}
"""Where each name is, imported when it is first used: the gateway starts without the library."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
