"""The answer to one POST: plain JSON where the result comes first, an event stream otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from holdfast.clock import Clock, Timer
from holdfast.downstream.http import Headers, Responder
from holdfast.downstream.replay import STREAM_HEADERS, Drops
from holdfast.wire import jsonrpc, sse
from holdfast.wire.headers import Accepts

SILENCE: Final = 5.0
"""Seconds: a longer silence opens a stream, so that nobody between takes the request for dead."""
KEEP_ALIVE: Final = 15.0
"""Seconds between comments on a stream; common proxies give up after 60."""
REMARK_AFTER: Final = 0.25
"""Seconds of waiting after which somebody may want to know what for."""
JSON_HEADERS: Final[Headers] = ((b"content-type", b"application/json"),)
FAILED: Final = jsonrpc.error(
    jsonrpc.id_bytes(None), jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, "The gateway failed; its log says why.")
)
"""What ends a request whose answer failed on its way."""


class Stream(Protocol):
    """Where the events of an answer go once it is a stream."""

    def emit(self, data: bytes, *, droppable: bool) -> None:
        """Send an event."""

    def comment(self) -> None:
        """Show that the stream lives."""

    def finish(self, now: float) -> None:
        """End it."""


class PlainStream:
    """A stream that nobody can resume."""

    def __init__(self, responder: Responder, drops: Drops, headers: Headers = ()) -> None:
        self._responder = responder
        self._drops = drops
        responder.open((*STREAM_HEADERS, *headers))

    def emit(self, data: bytes, *, droppable: bool) -> None:
        if droppable and self._responder.is_slow:
            self._drops.slow += 1
        else:
            self._responder.write(sse.format_event(data))

    def comment(self) -> None:
        self._responder.write(sse.COMMENT)

    def finish(self, now: float) -> None:  # noqa: ARG002 (nothing is kept, so the time is of no use)
        self._responder.end()


class Answer:
    """Holds the headers until the first event decides what the answer is.

    A result first gives JSON. Anything else first, or `SILENCE`, or a client that would rather
    have a stream, gives a stream. Where the client takes no stream, events are dropped.
    """

    status = 200
    """That of a JSON answer; a stream's is always 200."""
    _stream: Stream | None = None
    _timer: Timer | None = None
    _remark_timer: Timer | None = None
    _keep_alive_at = 0.0
    """When a stream is to show for the first time that it lives."""

    def __init__(
        self,
        responder: Responder,
        accepts: Accepts,
        clock: Clock,
        open_stream: Callable[[], Stream] | None = None,
        *,
        expected: int,
        is_array: bool,
        headers: Headers = (),
        ended: Callable[[], None] | None = None,
        drops: Drops | None = None,
    ) -> None:
        self._accepts_stream = accepts.stream
        self._responder = responder
        self._clock = clock
        self._open_stream = open_stream
        self._missing = expected
        self._is_array = is_array
        self.headers = headers
        """Sent with the head of a JSON answer."""
        self._ended = ended
        self._drops = drops
        self._results: list[bytes] = []
        self._remarks: dict[bytes, Callable[[], None]] = {}
        if accepts.stream and (accepts.prefers_stream or not accepts.json):
            self._begin_stream()
        elif accepts.stream:
            self._timer = clock.call_later(SILENCE, self.break_silence)

    @property
    def takes_stream(self) -> bool:
        """Whether events reach the client, if need be by resumption: who left before there was a stream has no id."""
        return self._accepts_stream and (self._stream is not None or not self._responder.is_gone)

    @property
    def stream(self) -> Stream | None:
        """The stream, once there is one."""
        return self._stream

    def watch(self) -> None:
        """Notice from now on if the client leaves."""
        self._responder.watch()

    def event(self, message: bytes, *, droppable: bool) -> bool:
        """Send what is not the result; False if the client takes no stream."""
        stream = self._stream
        if self._missing == 0 or (stream is None and not self.takes_stream):
            return False
        if stream is None:
            stream = self._begin_stream()
        stream.emit(message, droppable=droppable)
        return True

    def remark(self, whose: bytes, say: Callable[[], None]) -> None:
        """Call `say` once this has lasted for `REMARK_AFTER`, or at once where there is a stream.

        Of one request (`whose`) only the last remark counts.
        """
        if not self.takes_stream or self._missing == 0:
            return
        if self._stream is not None:
            say()
            return
        self._remarks[whose] = say
        if self._remark_timer is None:
            self._remark_timer = self._clock.call_later(REMARK_AFTER, self._make_remarks)

    def hush(self, whose: bytes) -> None:
        """A remark that was not made is not worth making any more."""
        self._remarks.pop(whose, None)

    def _make_remarks(self) -> None:
        self._remark_timer = None
        remarks, self._remarks = self._remarks, {}
        for say in remarks.values():
            say()

    def result(self, message: bytes | None) -> None:
        """One of the expected answers; None where a cancelled request gets none."""
        if self._missing == 0:
            return
        self._missing -= 1
        try:
            if message is not None:
                if self._stream is not None:
                    self._stream.emit(message, droppable=False)
                else:
                    self._results.append(message)
            if self._missing == 0:
                self._end()
        except Exception:
            self._break_off()
            raise

    def _break_off(self) -> None:
        """End without the answer, which failed on its way: its client must not wait for good."""
        self._missing = 0
        self._stop_timer()
        self._stop_remarks()
        if self._stream is not None:
            self._stream.finish(self._clock.now())
        else:
            self._responder.answer(500, JSON_HEADERS, (FAILED,))
        self._over()

    def _end(self) -> None:
        if self._timer is not None:
            self._stop_timer()
        if self._remark_timer is not None:
            self._stop_remarks()
        if self._stream is not None:
            self._stream.finish(self._clock.now())
        elif self._results:
            headers = (*JSON_HEADERS, *self.headers) if self.headers else JSON_HEADERS
            parts = [jsonrpc.array(self._results)] if self._is_array else self._results
            self._responder.answer(self.status, headers, parts)
        else:
            self._responder.answer(202, self.headers)
        self._over()

    def _open(self) -> Stream:
        """Begin the stream."""
        if self._open_stream is not None:
            return self._open_stream()
        return PlainStream(self._responder, self._drops or Drops(), self.headers)

    def _over(self) -> None:
        """The answer is whole."""
        if self._ended is not None:
            self._ended()

    def break_silence(self) -> None:
        """Nothing was heard for long: begin the stream, where that reaches the client."""
        self._stop_timer()
        if self._stream is not None:  # it began before, and the timer is of use to it now
            self._timer = self._clock.call_later(self._keep_alive_at - self._clock.now(), self._keep_alive)
        elif self.takes_stream:
            self._begin_stream()

    def _begin_stream(self) -> Stream:
        self._stream = stream = self._open()
        for message in self._results:
            stream.emit(message, droppable=False)
        self._results.clear()
        self._keep_alive_at = self._clock.now() + KEEP_ALIVE
        if self._timer is None:  # else that of the silence comes first: most streams end before either
            self._timer = self._clock.call_later(KEEP_ALIVE, self._keep_alive)
        return stream

    def _keep_alive(self) -> None:
        if self._stream is not None and self._missing:
            self._stream.comment()
            self._timer = self._clock.call_later(KEEP_ALIVE, self._keep_alive)

    def _stop_remarks(self) -> None:
        if self._remark_timer is not None:
            self._remark_timer.cancel()
            self._remark_timer = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
