"""A request of 2026-07-28 and the way back to who sent it, whatever the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from holdfast.clock import Clock
from holdfast.downstream.answer import Answer
from holdfast.downstream.callers import Outlet
from holdfast.downstream.http import Responder
from holdfast.downstream.post import Post, Target, Terms
from holdfast.downstream.replay import Drops
from holdfast.wire.headers import Accepts


class Exchange(Outlet, Protocol):
    """Where the messages of one request go, for as long as its client waits for them."""

    status: int
    """That of an answer in JSON, where the wire has one."""

    @property
    def is_slow(self) -> bool:
        """Whether more waits to be read than should."""
        ...

    def watch(self) -> None:
        """Notice from now on if the client leaves."""

    def when_gone(self, then: Callable[[], None]) -> None:
        """Call `then` if the client leaves, or cancels the request, before it is answered."""

    def when_drained(self, then: Callable[[], None]) -> None:
        """Call `then` whenever a reader that was slow has caught up."""


class Incoming(Protocol):
    """A request as its wire brought it."""

    @property
    def target(self) -> Target:
        """What it is for, and by whom."""
        ...

    @property
    def headers(self) -> Mapping[str, str] | None:
        """What must say what the body says; None where the wire has no headers."""
        ...

    @property
    def terms(self) -> Terms | None:
        """Those of its head, where it has one that came before."""
        ...

    @property
    def takes_stream(self) -> bool:
        """Whether anything but a result reaches the client."""
        ...

    def begin(self) -> Exchange:
        """Begin to answer: nothing is refused any more."""
        ...


class Posted(Struct, frozen=True):
    """One that came as a POST."""

    post: Post
    headers: Mapping[str, str]
    clock: Clock
    drops: Drops

    @property
    def target(self) -> Target:
        return self.post.target

    @property
    def terms(self) -> Terms | None:
        return self.post.terms

    @property
    def takes_stream(self) -> bool:
        return self.post.accepts.stream

    def begin(self) -> Exchange:
        return PostExchange(self.post.responder, self.post.accepts, self.clock, self.drops)


class PostExchange(Answer):
    """The answer to a POST, by the one request that it brought."""

    def __init__(self, responder: Responder, accepts: Accepts, clock: Clock, drops: Drops) -> None:
        super().__init__(responder, accepts, clock, expected=1, is_array=False, drops=drops)

    @property
    def is_slow(self) -> bool:
        return self._responder.is_slow

    def when_gone(self, then: Callable[[], None]) -> None:
        self._responder.on_gone = then

    def when_drained(self, then: Callable[[], None]) -> None:
        self._responder.on_drained = then
