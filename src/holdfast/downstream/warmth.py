"""`POST /api/warm`: a client has the sessions of a chat opened before anybody waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from holdfast.call import Json, Status
from holdfast.clock import Clock
from holdfast.downstream.http import Request, Responder
from holdfast.downstream.post import check_name
from holdfast.downstream.refusal import Refusal, bad_message
from holdfast.downstream.replay import STREAM_HEADERS
from holdfast.errors import CallFailed
from holdfast.identity.asker import Asker, next_nonce
from holdfast.identity.caller import Identity
from holdfast.servers.directory import Directory
from holdfast.servers.server import Server, ServerConversation
from holdfast.servers.warming import Warming
from holdfast.wire import jsonrpc, sse
from holdfast.wire.headers import parse_accept
from holdfast.wire.jsonrpc import BadMessage

_JSON: Final = ((b"content-type", b"application/json"),)
_FORM: Final = 'The body is {"server": NAME, "chat": CHAT}; without a server, all are meant.'


class Warmth:
    """Answers a request with what each session waits for, and ends once all are open or have failed."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    def post(self, request: Request, responder: Responder, identity: Identity) -> None:
        """Open the sessions that the body names. Raises `Refusal`."""
        if request.method != "POST":
            raise Refusal(405, f"{request.method} is not served here: POST it.", headers=((b"allow", b"POST"),))
        accepts = parse_accept(request.headers.get("accept"))
        if not accepts.json and not accepts.stream:
            raise Refusal(406, "The answer is application/json or text/event-stream: accept one of them.")
        names, chat = self._read(request.body, identity)
        nonce = next_nonce()
        conversations = [self._converse(server, request.headers, identity, chat, nonce) for server in names]
        _Report(conversations, responder, self._clock, is_stream=accepts.stream).start()

    def _read(self, body: bytes, identity: Identity) -> tuple[list[Server], str | None]:
        try:
            fields = jsonrpc.decode_checked(body or b"{}")
        except BadMessage as error:
            raise bad_message(error) from None
        if not isinstance(fields, dict) or fields.keys() - {"server", "chat"}:
            raise Refusal(400, _FORM)
        name, chat = fields.get("server"), fields.get("chat")
        if not isinstance(name, str | None) or not isinstance(chat, str | None):
            raise Refusal(400, _FORM)
        check_name(chat or "", "chat")
        visible = self._directory.visible(identity)
        if name is not None and name not in visible:
            raise Refusal(404, f"There is no server {name!r}; there are {', '.join(visible) or 'none'}.")
        return [self._directory[each] for each in ([name] if name is not None else visible)], chat or None

    def _converse(
        self, server: Server, headers: Mapping[str, str], identity: Identity, chat: str | None, nonce: int
    ) -> ServerConversation:
        passed = tuple((name, headers[name]) for name in sorted(server.passes) if name in headers)
        conversation = server.converse(Asker(identity, nonce, named=chat, passed=passed))
        if conversation.is_private:
            what = "user" if identity.lacks_user else "chat"
            raise Refusal(400, f"Whose session is it? Name the {what}, as calls will. {_FORM}")
        return conversation


class _Report:
    """How the sessions stand, told as it changes or in one piece."""

    def __init__(
        self, conversations: Sequence[ServerConversation], responder: Responder, clock: Clock, *, is_stream: bool
    ) -> None:
        self._conversations = conversations
        self._responder = responder
        self._clock = clock
        self._is_stream = is_stream
        self._missing = len(conversations)
        self._last: dict[str, Json] = {}

    def start(self) -> None:
        if self._is_stream:
            self._responder.open(STREAM_HEADERS)
        for conversation in self._conversations:
            tell = partial(self._tell, conversation.server.name)
            Warming(conversation, self._clock, tell, self._ended).start()
        if not self._conversations:
            self._finish()

    def _tell(self, server: str, status: Status) -> None:
        line: dict[str, Json] = {"server": server, "status": status.word.value, "message": status.sentence}
        self._last[server] = line
        if self._is_stream and not self._responder.is_slow:
            self._responder.write(sse.format_event(jsonrpc.encode(line)))

    def _ended(self, failure: CallFailed | None) -> None:
        del failure  # its status says it
        self._missing -= 1
        if self._missing == 0:
            self._finish()

    def _finish(self) -> None:
        if self._is_stream:
            self._responder.end()
        else:
            self._responder.answer(200, _JSON, (jsonrpc.encode({"servers": list(self._last.values())}),))
