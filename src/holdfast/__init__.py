"""Holdfast keeps MCP sessions alive between the programs that chat and the servers that remember."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.library.blocking import BlockingSessionPool
    from holdfast.library.pool import SessionPool

__all__ = ["BlockingSessionPool", "SessionPool", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The library, imported when it is first named: the gateway starts without it."""
    if name == "SessionPool":
        from holdfast.library.pool import SessionPool  # noqa: PLC0415

        return SessionPool
    if name == "BlockingSessionPool":
        from holdfast.library.blocking import BlockingSessionPool  # noqa: PLC0415

        return BlockingSessionPool
    raise AttributeError(name)
