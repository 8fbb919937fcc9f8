"""One POST, read and checked: what every dialect starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Raw, Struct, field

from holdfast.call import Call, Json
from holdfast.downstream.http import Request, Responder
from holdfast.downstream.refusal import Refusal, bad_message
from holdfast.identity.asker import Asker, next_nonce
from holdfast.identity.caller import Identity
from holdfast.servers.service import Service
from holdfast.wire import jsonrpc
from holdfast.wire.familiar import LESSONS
from holdfast.wire.headers import JSON, Accepts, media_type, parse_accept
from holdfast.wire.jsonrpc import BadMessage, ClientMessage, ClientReply, ClientRequest
from holdfast.wire.revisions import ENVELOPE_KEYS, HANDSHAKE_REVISIONS, MODERN, SERVED

MAX_MESSAGES: Final = 1000
"""Of one array: they are all taken up before anything else runs."""
CHAT_KEY: Final = "dev.holdfast/chat"
"""The `_meta` key by which a client names the chat of one request; it is ours and goes no further."""


MAX_NAME: Final = 1024
"""Characters of a user's or chat's name."""


class Target(Struct, frozen=True):
    """What a request is for, and by whom."""

    service: Service
    identity: Identity
    chat: str | None
    """The chat that the URL names."""
    passed: tuple[tuple[str, str], ...] = ()
    """The headers that may go on."""
    is_whole: bool = False
    """The URL names no server: it is `/mcp`, or `/sse`."""
    is_legacy: bool = False
    """The URL is one of the HTTP+SSE transport of 2024-11-05."""
    nonce: int = field(default_factory=next_nonce)
    request: str = ""
    """The id of the HTTP request."""

    def again(self, request_id: str) -> Target:
        """The target of a request with the same head."""
        service, identity, chat, passed = self.service, self.identity, self.chat, self.passed
        return Target(service, identity, chat, passed, self.is_whole, self.is_legacy, next_nonce(), request_id)

    def asker(self, params: dict[str, Json], client: str | None = None, *, is_modern: bool = False) -> Asker:
        """Who asks with these params; `client` is the id of the client's own session, if it has one."""
        chat = named_chat(params)
        return Asker(self.identity, self.nonce, chat, self.chat, client, self.passed, is_modern=is_modern)


def named_chat(params: dict[str, Json]) -> str | None:
    """The chat that the `_meta` key of a request names."""
    meta = params.get("_meta")
    named = meta.get(CHAT_KEY) if isinstance(meta, dict) else None
    return named if isinstance(named, str) and named else None


class Post(Struct, frozen=True):
    """A POST, whole."""

    target: Target
    responder: Responder
    accepts: Accepts
    messages: list[ClientMessage]
    is_array: bool
    is_modern: bool = False
    """It is of revision 2026-07-28, or means to be."""
    terms: Terms | None = None
    """Those of its head, where that came before."""

    @property
    def requests(self) -> list[ClientRequest]:
        """The messages that want an answer."""
        return [m for m in self.messages if isinstance(m, ClientRequest)]


class Terms(Struct):
    """What the head of a POST says of its body and of the answer, and what is known of the requests that it led."""

    accepts: Accepts
    version: str | None
    """The `MCP-Protocol-Version` header."""
    precedent: object = None
    """The last request with this head from which something follows for the next, as `holdfast.downstream.precedent`
    has it; None where there is none."""
    lessons: int = LESSONS
    """Precedents that are still made in vain before none is any more."""


def read_terms(headers: Mapping[str, str]) -> Terms:
    """Check the head of a POST. Raises `Refusal`."""
    content = media_type(headers.get("content-type"))
    if content not in {"", JSON}:
        raise Refusal(415, f"The body must be {JSON}, not {content}: send the header Content-Type: {JSON}.")
    accepts = parse_accept(headers.get("accept"))
    if not accepts.json and not accepts.stream:
        raise Refusal(406, "The answer is application/json or text/event-stream: accept one of them.")
    return Terms(accepts, headers.get("mcp-protocol-version"))


def read_post(request: Request, responder: Responder, target: Target, terms: Terms | None = None) -> Post:
    """Check and decode a POST; `terms` are those of its head, if that was read before. Raises `Refusal`."""
    is_known = terms is not None
    if terms is None:
        terms = read_terms(request.headers)
    try:
        decoded = jsonrpc.decode_client(request.body)
        request.body = b""  # it may be MiB, and the answer may take long
    except BadMessage as error:
        raise bad_message(error) from None
    version = terms.version
    if isinstance(decoded, list):
        messages = check_messages(decoded, takes_modern=True)
        if any(is_modern(each, version) for each in messages):
            raise Refusal(400, f"Arrays are not part of revision {MODERN}: send one message at a time.")
        has_modern = False
    else:
        messages, has_modern = [decoded], is_modern(decoded, version)
        if type(decoded) is ClientRequest and "_meta" in decoded.params:
            _check_request(decoded)
    if not has_modern and version is not None and version not in HANDSHAKE_REVISIONS:
        raise Refusal(400, f"Unsupported MCP-Protocol-Version; supported are {', '.join(SERVED)}.")
    return Post(
        target, responder, terms.accepts, messages, decoded is messages, has_modern, terms if is_known else None
    )


def check_messages(decoded: ClientMessage | list[ClientMessage], *, takes_modern: bool = False) -> list[ClientMessage]:
    """The messages that came together, if they may. Raises `Refusal`."""
    messages = decoded if isinstance(decoded, list) else [decoded]
    if len(messages) > MAX_MESSAGES:
        raise Refusal(
            413, f"The array has {len(messages)} messages, and {MAX_MESSAGES} may come together: send several."
        )
    for message in messages:
        if isinstance(message, ClientRequest):
            if not takes_modern and is_modern(message):
                raise not_modern_here(message)
            _check_request(message)
    if len(messages) > 1:
        _check_ids(messages)
    return messages


def _check_ids(messages: list[ClientMessage]) -> None:
    seen: set[bytes] = set()
    for message in messages:
        if isinstance(message, ClientRequest):
            message_id = jsonrpc.id_bytes(message.id)
            if message_id in seen:
                raise Refusal(409, "Two requests of the array have the same id.", request_id=message.id)
            seen.add(message_id)


def is_modern(message: ClientMessage, version: str | None = None) -> bool:
    """Whether a message is of revision 2026-07-28: by what it says; the header decides only where that is nothing."""
    if isinstance(message, ClientReply):
        return version == MODERN
    method = message.method
    if (version == MODERN and method != "initialize") or method == "server/discover":
        return True
    meta = message.params.get("_meta")
    return meta is not None and isinstance(meta, dict) and not ENVELOPE_KEYS.isdisjoint(meta)


def not_modern_here(message: ClientMessage) -> Refusal:
    """The way that `message` came is of the handshake era alone."""
    return Refusal(
        400,
        f"Revision {MODERN} is not served in this way: initialize with one of {', '.join(HANDSHAKE_REVISIONS)}.",
        request_id=message.id if isinstance(message, ClientRequest) else None,
    )


def check_name(name: str, what: str) -> None:
    """Names are kept for as long as their sessions. Raises `Refusal` over `MAX_NAME` characters."""
    if len(name) > MAX_NAME:
        raise Refusal(400, f"The name of the {what} is longer than {MAX_NAME} characters.")


def _check_request(message: ClientRequest) -> None:
    meta = message.params.get("_meta")
    if isinstance(meta, dict) and (chat := meta.get(CHAT_KEY)) is not None:
        if not isinstance(chat, str):
            raise Refusal(400, f"The chat in _meta ({CHAT_KEY}) must be a string.", request_id=message.id)
        check_name(chat, "chat")


def read_call(request: ClientRequest, request_id: str) -> tuple[Call, Raw | None]:
    """The call that a request makes, and the client's progress token, if it gave one.

    `request_id` is that of the HTTP request.
    """
    params = request.params
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        return Call(request.method, params, request=request_id), None
    token = meta.get("progressToken")
    has_token = isinstance(token, str | int | float) and not isinstance(token, bool)
    call = Call(request.method, without_chat(params), has_token, request_id)
    return call, Raw(jsonrpc.encode(token)) if has_token else None


def without_chat(params: dict[str, Json]) -> dict[str, Json]:
    """`params` as the server may see them."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or CHAT_KEY not in meta:
        return params
    return {**params, "_meta": {name: value for name, value in meta.items() if name != CHAT_KEY}}
