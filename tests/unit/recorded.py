"""A `Responder` that keeps what is written to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.downstream.http import Headers


class RecordedResponder:
    def __init__(self) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.on_drained: Callable[[], None] | None = None
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.has_ended = False
        self.is_slow = False

    @property
    def is_gone(self) -> bool:
        return self.has_ended

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def watch(self) -> None: ...

    def answer(self, status: int, headers: Headers, parts: Iterable[bytes] = ()) -> None:
        assert self.status is None
        self.status, self.headers = status, dict(headers)
        self.chunks += parts
        self.has_ended = True

    def open(self, headers: Headers) -> None:
        assert self.status is None
        self.status, self.headers = 200, dict(headers)

    def write(self, chunk: bytes) -> None:
        assert self.status == 200
        if not self.has_ended:
            self.chunks.append(chunk)

    def end(self) -> None:
        self.has_ended = True

    def leave(self) -> None:
        """The client goes."""
        self.has_ended = True
        if self.on_gone is not None:
            self.on_gone()
