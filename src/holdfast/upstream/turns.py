"""A call that makes several requests, one after the other, and is one to its session."""

from __future__ import annotations

from holdfast.upstream.transport import Sent


class InTurns:
    """Of such a call, the request under way: it is paused while the call is, and cancelled with it."""

    def __init__(self) -> None:
        self._sent: Sent | None = None
        self._is_paused = False

    @property
    def has_turn(self) -> bool:
        """Whether a request is under way."""
        return self._sent is not None

    def begin_turn(self, sent: Sent) -> None:
        """A request is under way."""
        self._sent = sent
        if self._is_paused:
            sent.pause()

    def end_turn(self) -> None:
        """It has ended."""
        self._sent = None

    def cancel_turn(self, reason: str) -> None:
        """Cancel the request under way, if there is one."""
        sent, self._sent = self._sent, None
        if sent is not None:
            sent.cancel(reason)

    def pause(self) -> None:
        """As `Sent.pause`, for this request and those that follow."""
        self._is_paused = True
        if self._sent is not None:
            self._sent.pause()

    def resume(self) -> None:
        """As `Sent.resume`."""
        self._is_paused = False
        if self._sent is not None:
            self._sent.resume()
