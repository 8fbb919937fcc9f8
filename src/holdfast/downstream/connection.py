"""One client's TCP connection: uvicorn's, with bounds that it lacks, and a way of its own for MCP.

A request to an MCP path is handed to the application by callbacks, and so is its answer: no task, no queue, one
write. Whatever is unusual about a request, or is no MCP, goes the ordinary way through ASGI. `docs/decisions` has the
reasons and the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from holdfast.clock import Timer
from holdfast.downstream.app import Admitted, App, Kept
from holdfast.downstream.body import BODY_TIMEOUT, too_large, too_slow
from holdfast.downstream.direct import DirectResponder
from holdfast.downstream.http import STALL_TIMEOUT, Head, Headers
from holdfast.downstream.one_write import OneAnswer
from holdfast.downstream.refusal import Refusal, refuse
from holdfast.wire import jsonrpc
from holdfast.wire.familiar import HeadMemory

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request before its body, and of what follows the body: common servers take 8 to 64 KiB."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds from the first byte of a head to its last."""
MAX_REST_BYTES: Final = 1024 * 1024
"""Of a body that may still come once its request has been answered, so that the connection can serve another."""
LINGER_TIMEOUT: Final = 5.0
"""Seconds for which what a client still sends is dropped behind its last answer. nginx's figure."""

_PHRASES: Final = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}
_METHODS: Final = frozenset({b"POST", b"GET", b"DELETE"})
_PATHS: Final = (b"/mcp", b"/sse")


class Connection(HttpToolsProtocol):
    """A connection that the application may drop: the extension that `holdfast.downstream.http` names.

    Heads are bounded in bytes and in time, before anybody knows who sends them.
    """

    cycle: Any
    """Of what came last: uvicorn's, or our own in its place."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        app: object = attrgetter("loaded_app")(config)  # uvicorn does not say what it is
        self._app = app if isinstance(app, App) and not config.root_path and config.limit_concurrency is None else None
        """Whom requests are handed to directly; None where something else stands before it."""
        self.is_paused = False
        self._is_in_head = False
        self._is_in_body = False
        """The head of a request was whole, and its body is not."""
        self._has_got_on = False
        """A head, a body or a piece of one came to its end with what was read last."""
        self._pending = 0
        """Bytes that were read since."""
        self._head_timer: Timer | None = None
        self._is_idle = True
        """Nothing has come since the last answer."""
        self._idle_since = 0.0
        self._is_offer = False
        """The head that was read last offers another protocol: see `_stay`."""
        self._is_direct = False
        """The request that is being read is handed over directly."""
        self._direct: DirectResponder | None = None
        """The last answer that is, or was, written directly."""
        self._admitted: Admitted | None = None
        """The request of which the body is still to come."""
        self._again: Kept | None = None
        """The same, of a request that is known."""
        self._body = bytearray()  # as pieces, one that comes byte by byte would take fifty times its size
        self._body_size = 0
        self._rest_size = 0
        """What came of the body since its request was answered."""
        self._body_timer: Timer | None = None
        self._linger_timer: Timer | None = None
        self._is_last = False
        """The last answer was given: whatever comes is dropped."""
        self._stall_timer: Timer | None = None
        self._unread = 0
        """What the transport held when the stall began, or was looked at last."""
        self._served: RequestResponseCycle | None = None
        """What the application answers, or answered last, through ASGI."""
        self._is_between = True
        """What comes next is the beginning of a request."""
        self._begun = 0
        """Requests that the parser has found so far."""
        self._heads = HeadMemory[Kept]()
        self._lesson: Admitted | None = None
        """The request that began with what was read last."""
        self._missing = 0
        """Bytes of the body of a familiar request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        # As after an answer: who connects and says nothing is not waited for without end.
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_body_timer()
        self._stop_stall()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._admitted = self._again = None
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        direct, self._direct = self._direct, None
        super().connection_lost(exc)
        served, self._served = self._served, None
        if served is not None and not served.response_complete:
            served.disconnected = True  # uvicorn tells the last request only
            served.message_event.set()
        if direct is not None:
            direct.leave()
        self.cycle = self._lesson = None
        self._heads.forget()  # nobody's key is held by what nobody holds
        self._body = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        was_idle = self._is_idle
        if self._missing:
            rest = self._take_in(data)
            if not rest:
                return
            data = rest
        elif self._is_between and self._is_known(data):
            return
        self._has_got_on = False
        self._is_idle = False
        learns_from = self._begun + 1 if self._is_between and self._heads.learns else 0
        self._feed(data)
        if self._is_last or self.transport.is_closing():
            return
        if self._lesson is not None:
            self._learn(data, self._lesson, is_first=self._begun == learns_from)
            self._lesson = None
        self._bound(len(data), was_idle=was_idle)

    def _bound(self, size: int, *, was_idle: bool) -> None:
        """See to it that whatever has begun comes to an end, now that `size` bytes were read."""
        self._pending = 0 if self._has_got_on else self._pending + size
        if self._pending > MAX_HEAD_BYTES:
            self._refuse(431, f"The head of the request is larger than {MAX_HEAD_BYTES} bytes.")
        elif self._is_in_head and self._head_timer is None:
            self._head_timer = self._call_later(HEAD_TIMEOUT, self._give_up_head)
        elif self._is_in_body and self._body_timer is None:
            self._body_timer = self._call_later(BODY_TIMEOUT, self._give_up_body)
        if not self._is_idle and not self._is_in_head and (not self.cycle or self.cycle.response_complete):
            if was_idle and not self._has_got_on:
                self._is_idle = True  # since before: empty lines begin no request
            else:
                self._rest()  # it was of a body whose request has its answer

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_offer:
                self._stay(data[upgrade.args[0] :])
            else:
                self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            self.send_400_response("")

    def _stay(self, rest: bytes) -> None:
        """Answer a request that offers another protocol in this one (RFC 9110, section 7.8), as Java's client does.

        The parser takes its body for that protocol, so it is parsed anew without the offer.
        """
        parser = self.parser
        line = b"%b %b HTTP/%b" % (parser.get_method(), self.url, parser.get_http_version().encode())
        fields = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        with suppress(AttributeError):  # httptools before 0.6.3
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._feed(b"\r\n".join((line, *fields, b"", rest)))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's sentence, which is always the same)
        self._refuse(400, "This is no HTTP request.")

    # Requests whose heads are known.

    def _learn(self, data: bytes, admitted: Admitted, *, is_first: bool) -> None:
        """Know the head again that `data` began with."""
        if not is_first or self._app is None or self._direct is None or not self._direct.keep_alive:
            return
        kept = self._app.kept(admitted)
        if kept is not None:
            self._heads.keep(data, kept)

    def _is_known(self, data: bytes) -> bool:
        """Take `data` for a request that is known, if it is one and nothing else."""
        found = self._heads.recall(data)
        app = self._app
        if found is None or app is None:
            return False
        kept, start, length = found
        if app.entrance is not kept.entrance:
            self._heads.forget()  # what it bears may open nothing any more
            return False
        missing = start + length - len(data)
        if missing < 0 or not 0 < length <= app.request_bytes or not self._may_take():
            return False
        self._is_idle = False
        self._pending = self._rest_size = 0
        self._direct = direct = DirectResponder(self, keep_alive=True, on_over=app.forget)
        self.cycle = direct
        is_admitted = app.admit_again(kept, direct)
        if missing:
            self._again = kept if is_admitted else None
            self._is_between, self._missing = False, missing
            self._body = bytearray(data[start:] if is_admitted else b"")
            self._body_timer = app.clock.call_later(BODY_TIMEOUT, self._give_up_body)
        elif is_admitted:
            app.take_again(kept, direct, data[start:])
        if not self._is_idle and direct.response_complete:
            self._rest()
        return True

    def _take_in(self, data: bytes) -> bytes:
        """Take `data` for the body of a known request; returns what comes after that."""
        self._is_idle = False
        if self._direct is not None and self._direct.response_complete:
            self._rest_size += min(len(data), self._missing)
            if self._rest_size > MAX_REST_BYTES:
                self._close()
                return b""
        elif self._again is not None:
            self._body += data[: self._missing]
        rest = data[self._missing :]
        self._missing = max(0, self._missing - len(data))
        if not self._missing:
            self._is_between = True
            self._finish_body()
        if not self._is_idle and self._direct is not None and self._direct.response_complete:
            self._rest()
        return rest

    # What the parser finds.

    def on_message_begin(self) -> None:
        self._begun += 1
        self._is_between = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._has_got_on = True
        self._stop_head_timer()
        app, parser = self._app, self.parser
        self._is_offer = parser.should_upgrade() and parser.get_method() != b"CONNECT"
        if self._is_offer:
            return
        if self._is_last or (self._direct is not None and self.transport.is_closing()):
            self._is_direct = True  # nobody could be told what became of it: it is passed over
            return
        self._is_in_body = True
        self._rest_size = 0
        self._is_direct = False
        self._lesson = None
        if app is not None and self._is_usual(parser):
            self._is_direct = True
            self._begin(app, parser)
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        self.scope["extensions"] = {"dev.holdfast.abort": {"abort": self.transport.abort}}
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # nothing would come after the head
            self.cycle.transport = OneAnswer(self.transport, self._close)

    def on_body(self, body: bytes) -> None:
        self._has_got_on = True
        direct = self._direct
        if self.cycle.response_complete:
            self._rest_size += len(body)
            if self._rest_size > MAX_REST_BYTES:
                self._close()
        elif direct is None or not self._is_direct:
            super().on_body(body)
        elif self._admitted is not None and self._admitted.request.method == "POST" and self._app is not None:
            self._body += body
            self._body_size += len(body)
            if self._body_size > self._app.request_bytes:
                self._refuse_body(direct, too_large(self._app.request_bytes))

    def on_message_complete(self) -> None:
        self._has_got_on = True
        self._is_between = True
        if self._is_offer:
            return
        self._is_in_body = False
        if self._direct is None or not self._is_direct:
            self._stop_body_timer()
            super().on_message_complete()
        else:
            self._finish_body()

    def _finish_body(self) -> None:
        """The request that is handed over directly is whole."""
        self._stop_body_timer()
        admitted, again = self._admitted, self._again
        self._admitted = self._again = None
        gathered, self._body = self._body, bytearray()
        app, direct = self._app, self._direct
        if app is None or direct is None or direct.is_gone:
            return
        body = bytes(gathered)
        if again is not None:
            app.take_again(again, direct, body)
        elif admitted is not None:
            admitted.request.body = body
            app.take(admitted, direct)

    # What uvicorn and the transport say.

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_paused = True
        if self._direct is not None and self._stall_timer is None:
            self._watch_stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_paused = False
        self._stop_stall()
        if self.transport.is_closing():
            self._watch_stall()
        elif self._direct is not None and not self._direct.response_complete:
            self._direct.flush()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._is_last or self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._rest()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if not self._is_idle:
            return  # armed anew with the next answer
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self._close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Something came. The timer goes on: to make one for every answer costs more than to look at it once."""
        self._is_idle = False

    def _rest(self) -> None:
        self._is_idle = True
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # Requests that are handed over directly.

    @property
    def default_headers(self) -> Headers:
        """What every answer says; see `Wire`."""
        return self.server_state.default_headers

    def answered(self, answer: DirectResponder) -> None:
        """See `Wire`."""
        if answer.keep_alive and not self.pipeline and not self.flow.read_paused and not self.transport.is_closing():
            self.server_state.total_requests += 1
            if self.timeout_keep_alive_task is None:
                self._rest()
            else:
                self._is_idle, self._idle_since = True, self.loop.time()
            return
        if not answer.keep_alive:
            self._close()
        self.on_response_complete()

    def _is_usual(self, parser: httptools.HttpRequestParser) -> bool:
        """Whether nothing about the request, or what came before it on this connection, wants more than callbacks."""
        return (
            self.url.startswith(_PATHS)
            and parser.get_method() in _METHODS
            and not self.expect_100_continue
            and parser.get_http_version() == "1.1"
            and self._may_take()
        )

    def _may_take(self) -> bool:
        """Whether what came before on this connection is over, and its client reads."""
        return (
            (not self.cycle or self.cycle.response_complete)
            and not self.pipeline
            and not self.is_paused
            and not self.transport.is_closing()
        )

    def _begin(self, app: App, parser: httptools.HttpRequestParser) -> None:
        url = httptools.parse_url(self.url)
        head = Head(parser.get_method().decode("ascii"), url.path, url.query or b"", self.headers)
        keep_alive = parser.should_keep_alive()
        self._direct = direct = DirectResponder(self, keep_alive=keep_alive, on_over=app.forget)
        self.cycle = direct
        self._body = bytearray()
        self._body_size = 0
        self._admitted = self._lesson = app.admit(head, direct)

    def _give_up_body(self) -> None:
        self._body_timer = None
        if (self._admitted is not None or self._again is not None) and self._direct is not None:
            self._refuse_body(self._direct, too_slow())
        elif self.cycle.response_complete:
            self._close()
        else:  # the application reads it, and has a deadline of its own
            self._body_timer = self._call_later(BODY_TIMEOUT, self._give_up_body)

    def _refuse_body(self, direct: DirectResponder, refusal: Refusal) -> None:
        self._stop_body_timer()
        self._admitted = self._again = None
        self._body = bytearray()
        refuse(direct, refusal)

    def _close(self) -> None:
        """End the connection behind its last answer."""
        if self._is_in_head or self._is_in_body or self._missing:
            self._linger()
        else:
            self._finish()

    def _linger(self) -> None:
        """Say that nothing follows, and drop what still comes until the client has closed (RFC 9112, section 9.6).

        Closed while it sends, the connection would be reset, and what it was told lost.
        """
        if self._is_last:
            return
        self._is_last = True
        self._stop_head_timer()
        self._stop_body_timer()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._linger_timer = self._call_later(LINGER_TIMEOUT, self._finish)

    def _finish(self) -> None:
        """Close, which waits until what was written is read: not without end for who reads nothing."""
        if self._stall_timer is None and self.transport.get_write_buffer_size():
            self._watch_stall()
        self.transport.close()

    def _watch_stall(self) -> None:
        if self._app is not None:
            self._unread = self.transport.get_write_buffer_size()
            self._stall_timer = self._app.clock.call_later(STALL_TIMEOUT, self._look_at_stall)

    def _look_at_stall(self) -> None:
        """Nobody can wait for who takes nothing: not the stream's owner, and not the connection."""
        if self.transport.get_write_buffer_size() < self._unread:
            self._watch_stall()
            return
        self._stall_timer = None
        if self._direct is not None:
            self._direct.leave()
        self.transport.abort()

    def _stop_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    # Requests that are none.

    def _refuse(self, status: int, message: str) -> None:
        """Answer, where no other answer is under way, and close."""
        self._stop_head_timer()
        if self._is_last or self.transport.is_closing():
            return
        if not self.cycle or self.cycle.response_complete:
            error = jsonrpc.error_object(jsonrpc.INVALID_REQUEST, message)
            body = jsonrpc.error(jsonrpc.id_bytes(None), error)
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, _PHRASES[status], len(body), body)
            )
            self._linger()
        else:
            self.transport.close()

    def _give_up_head(self) -> None:
        if self.flow.read_paused:  # for an answer before it: the rest may have come
            self._head_timer = self._call_later(HEAD_TIMEOUT, self._give_up_head)
        else:
            self._refuse(408, f"The head of the request did not arrive within {HEAD_TIMEOUT:g} s.")

    def _call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        app = self._app
        return self.loop.call_later(delay, callback) if app is None else app.clock.call_later(delay, callback)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
