"""The whole taxonomy of failures, by whose fault it is and what they can do next.

A server's own JSON-RPC errors are answers and are not here. The codes and the `data.holdfast`
object are described for clients in docs/errors.md.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from pathlib import Path


class Delivery(StrEnum):
    """What is known of a call's way to the server."""

    NOT_SENT = "not_sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    DELIVERED = "delivered"


class Code(IntEnum):
    """JSON-RPC error codes of our own, outside the range that JSON-RPC reserves."""

    UPSTREAM_UNAVAILABLE = -31001
    OUTCOME_UNKNOWN = -31002
    TIMEOUT = -31003
    UPSTREAM_INVALID = -31004
    OVERLOADED = -31005
    SESSION_LOST = -31006
    UPSTREAM_UNAUTHORIZED = -31007


class HoldfastError(Exception):
    """Base of everything that Holdfast raises."""


class ConfigError(HoldfastError):
    """The operator's settings are wrong: fix them. The text is one readable line for each mistake."""

    def __init__(self, message: str, *, paths: tuple[Path, ...] = ()) -> None:
        super().__init__(message)
        self.paths = paths
        """The files that were read, or should have been: what mends the settings is a change of one of them."""


class CallFailed(HoldfastError):
    """A call was admitted and could not be answered by its server.

    It reaches clients as a JSON-RPC error with `data.holdfast = {delivery, retryable, upstream}`.
    """

    def __init__(self, code: Code, message: str, *, server: str, delivery: Delivery, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.server = server
        self.delivery = delivery
        self.retryable = retryable


class OpenFailed(HoldfastError):
    """A session could not be opened; the text says why and what to do."""

    def __init__(
        self, message: str, *, is_unauthorized: bool = False, is_unsent: bool = False, advice: str = ""
    ) -> None:
        super().__init__(message)
        self.advice = advice
        """What the operator can do."""
        self.is_unauthorized = is_unauthorized
        self.is_unsent = is_unsent
        """No byte reached the server."""


class InvalidTransition(HoldfastError):
    """Our bug: a session was driven along an edge that its lifecycle does not have."""
