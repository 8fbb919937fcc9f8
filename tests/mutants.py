"""Gateways that leak, each in one way, most of which were seen in the wild: what the isolation suite must find out.

Each replaces one part of the key, or one check, of a sound gateway.
"""

# pyright: reportPrivateUsage=false
# What is replaced is private to a sound gateway.

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from msgspec import Raw, structs

from holdfast.call import Ask, Call, Caller, Running
from holdfast.catalog.catalog import Catalog
from holdfast.config import ClientSettings
from holdfast.downstream import clients, requests
from holdfast.downstream.client import Client
from holdfast.downstream.clients import ClientSession, ClientSessions
from holdfast.downstream.handshake import Handshake
from holdfast.downstream.http import Responder
from holdfast.identity.asker import Asker
from holdfast.identity.caller import Clients
from holdfast.servers.handles import Handle, Handles
from holdfast.servers.server import Server
from holdfast.servers.service import Service
from holdfast.session.key import Principal, SessionKey
from holdfast.session.running import RunningCall
from holdfast.session.session import Session
from holdfast.session.watch import Watcher
from holdfast.upstream.handshake import HandshakeUpstream
from holdfast.upstream.transport import Exchange, Sent
from holdfast.wire import jsonrpc
from holdfast.wire.headers import Accepts

Patch: TypeAlias = pytest.MonkeyPatch
Mutant: TypeAlias = Callable[[Patch], None]


# The key.


def handles_prove_themselves(patch: Patch) -> None:
    def find(self: Handles, name: str, *_: object) -> Handle | None:
        return self._by_name.get(name)

    patch.setattr(Handles, "find", find)


def key_without_principal(patch: Patch) -> None:
    rekey(patch, lambda key: replace(key, principal=Principal("anybody")))


def key_without_user(patch: Patch) -> None:
    rekey(patch, lambda key: replace(key, principal=key.principal and Principal(key.principal.client)))


def key_without_client(patch: Patch) -> None:
    rekey(patch, lambda key: replace(key, principal=key.principal and Principal("any", key.principal.user)))


def key_without_chat(patch: Patch) -> None:
    rekey(patch, lambda key: key if key.is_private else replace(key, scope_id=""))


def nobody_is_somebody(patch: Patch) -> None:
    genuine = Server.key_for

    def key_for(self: Server, asker: Asker) -> SessionKey:
        return genuine(self, structs.replace(asker, identity=replace(asker.identity, lacks_user=False)))

    patch.setattr(Server, "key_for", key_for)


def private_keys_are_one(patch: Patch) -> None:
    rekey(patch, lambda key: replace(key, scope_id="") if key.is_private else key)


def rekey(patch: Patch, change: Callable[[SessionKey], SessionKey]) -> None:
    genuine = Server.key_for

    def key_for(self: Server, asker: Asker) -> SessionKey:
        key = genuine(self, asker)
        return key if key.is_shared else change(key)

    patch.setattr(Server, "key_for", key_for)


def blind_to(field: str) -> Mutant:
    """A key that is compared without one of its fields."""
    compared = [each.name for each in fields(SessionKey) if each.compare and each.name != field]

    def whole(key: SessionKey) -> tuple[Any, ...]:
        return tuple(getattr(key, name) for name in compared)

    def equal(one: SessionKey, other: SessionKey) -> bool:
        return whole(one) == whole(other)

    def hashed(key: SessionKey) -> int:
        return hash(whole(key))

    def mutant(patch: Patch) -> None:
        patch.setattr(SessionKey, "__eq__", equal)
        patch.setattr(SessionKey, "__hash__", hashed)

    mutant.__name__ = f"key_compared_without_{field}"
    return mutant


# Who may use what.


def session_ids_prove_themselves(patch: Patch) -> None:
    def find(self: ClientSessions, session_id: str, principal: Principal, service: Service) -> ClientSession | None:
        session = self._sessions.get(session_id)
        return session if session is not None and session.service is service else None

    patch.setattr(ClientSessions, "find", find)


def session_ids_of_any_server(patch: Patch) -> None:
    def find(self: ClientSessions, session_id: str, principal: Principal, service: Service) -> ClientSession | None:
        session = self._sessions.get(session_id)
        return session if session is not None and session.owner == principal else None

    patch.setattr(ClientSessions, "find", find)


def wrong_keys_are_the_first_client(patch: Patch) -> None:
    genuine = Clients._client

    def client(self: Clients, headers: Any) -> tuple[ClientSettings, bytes | None] | None:
        digest, first = next(iter(self._by_digest.items()))
        return genuine(self, headers) or (first, digest)

    patch.setattr(Clients, "_client", client)


def event_ids_without_proof(patch: Patch) -> None:
    def read_event_id(secret: bytes, value: str) -> tuple[int, int] | None:
        parts = value.split(".")
        is_place = len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit()
        return (int(parts[0]), int(parts[1])) if is_place else None

    patch.setattr(clients, "read_event_id", read_event_id)


def event_ids_proven_by_one_secret(patch: Patch) -> None:
    def token_bytes(size: int) -> bytes:
        return b"s" * size

    patch.setattr(clients, "secrets", SimpleNamespace(token_bytes=token_bytes, token_urlsafe=secrets.token_urlsafe))


def second_gets_take_over(patch: Patch) -> None:
    genuine = Handshake.get

    def get(self: Handshake, responder: Responder, accepts: Accepts, client: ClientSession, last: str | None) -> None:
        client.push_stream.send_away()
        genuine(self, responder, accepts, client, last)

    patch.setattr(Handshake, "get", get)


def everybodys_sessions(patch: Patch) -> list[ClientSession]:
    """All client sessions that there will be."""
    everybody: list[ClientSession] = []
    genuine = ClientSession.__init__

    def init(self: ClientSession, *args: Any, **named: Any) -> None:
        genuine(self, *args, **named)
        everybody.append(self)

    patch.setattr(ClientSession, "__init__", init)
    return everybody


def cancellations_by_id_alone(patch: Patch) -> None:
    everybody = everybodys_sessions(patch)
    genuine = requests.cancel

    def cancel(message: jsonrpc.ClientNotification, client: Client) -> None:
        for session in everybody:
            genuine(message, session)

    patch.setattr(requests, "cancel", cancel)


def replies_by_id_alone(patch: Patch) -> None:
    everybody = everybodys_sessions(patch)
    genuine = ClientSession.replied

    def replied(self: ClientSession, reply: jsonrpc.ClientReply) -> None:
        for session in everybody:
            genuine(session, reply)

    patch.setattr(ClientSession, "replied", replied)


# Ids and tokens.


def ids_as_integers(patch: Patch) -> None:
    def id_bytes(request_id: jsonrpc.RequestId) -> bytes:
        return b"%d" % int(request_id)

    patch.setattr(jsonrpc, "id_bytes", id_bytes)


def ids_not_minted_anew(patch: Patch) -> None:
    """As where the ids of clients, who all count from one, go on to the server."""
    numbers = itertools.count()
    genuine = HandshakeUpstream.transmit

    def transmit(self: HandshakeUpstream, call: Call, exchange: Exchange) -> Sent:
        self._next_id = next(numbers) % 4
        return genuine(self, call, exchange)

    patch.setattr(HandshakeUpstream, "transmit", transmit)


def progress_tokens_not_minted_anew(patch: Patch) -> None:
    """As where the tokens of clients go on to the server: whoever used one last gets what bears it."""
    holders: dict[bytes, Exchange] = {}
    genuine = HandshakeUpstream.send

    def send(self: HandshakeUpstream, call: Call, exchange: Exchange) -> Sent:
        meta = call.params.get("_meta")
        if isinstance(meta, dict) and "progressToken" in meta:
            holders[jsonrpc.encode(meta["progressToken"])] = exchange
        return genuine(self, Call(call.method, call.params), exchange)

    def progress(self: HandshakeUpstream, params: Raw | None) -> None:
        update = jsonrpc.decode_fields(params or b"{}")
        exchange = holders.get(bytes(update.get("progressToken", b"")))
        if exchange is not None:
            exchange.progress(update)

    patch.setattr(HandshakeUpstream, "send", send)
    patch.setattr(HandshakeUpstream, "_progress", progress)


# What belongs to a call, and what to none.


def progress_to_the_last_call(patch: Patch) -> None:
    def progress(self: HandshakeUpstream, params: Raw | None) -> None:
        if self._exchanges:
            self._exchanges[max(self._exchanges)].progress(jsonrpc.decode_fields(params or b"{}"))

    patch.setattr(HandshakeUpstream, "_progress", progress)


def asks_of_a_stream_to_the_last_call(patch: Patch) -> None:
    genuine = HandshakeUpstream._ask

    def ask(self: HandshakeUpstream, method: str, envelope: jsonrpc.ServerMessage, request_id: int | None) -> None:
        genuine(self, method, envelope, max(self._exchanges, default=None))

    patch.setattr(HandshakeUpstream, "_ask", ask)


def asks_of_no_stream_to_the_first_call(patch: Patch) -> None:
    def asked(self: Session, ask: Ask) -> None:
        run = next(iter(self.calls), None)
        if run is None:
            self.decline(ask)
        else:
            run.ask(ask)

    patch.setattr(Session, "asked", asked)


def questions_to_the_departed_stay_open(patch: Patch) -> None:
    def close_asks(self: RunningCall) -> None: ...

    patch.setattr(RunningCall, "_close_asks", close_asks)


def pushes_to_everyone(patch: Patch) -> None:
    def pushed(self: Session, method: str, params: Raw | None) -> None:
        for watcher in self.watchers:
            watcher.push(method, params)

    patch.setattr(Session, "pushed", pushed)


def shared_sessions_as_one_persons(patch: Patch) -> None:
    def serve(self: Session, principal: Principal | None) -> None: ...

    patch.setattr(Session, "serve", serve)


def lists_of_one_session_for_all(patch: Patch) -> None:
    genuine = Catalog.start

    def start(self: Catalog, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running:
        self._settings = self._settings.model_copy(update={"lists": "server"})
        return genuine(self, key, call, caller, watcher)

    patch.setattr(Catalog, "start", start)
