"""Nobody gets what is another's: threats-and-faults, rows 1, 2, 3, 9 and 10.

The suite would be worth nothing if it could not fail, so a dozen gateways that leak, each in one
way that has been seen in the wild, are put before it, and each must be found out.
"""

# pyright: reportPrivateUsage=false
# A gateway that leaks is made by replacing what is private to a sound one.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from crossings import colliding_ids
from holdfast.call import Ask, Call, Caller, Running
from holdfast.catalog.catalog import Catalog
from holdfast.downstream import handshake
from holdfast.downstream.clients import ClientSession, ClientSessions
from holdfast.identity.asker import Asker
from holdfast.servers.server import Server
from holdfast.session.key import Principal, SessionKey
from holdfast.session.session import Session
from holdfast.session.watch import Watcher
from holdfast.upstream.handshake import HandshakeUpstream
from holdfast.wire import jsonrpc
from isolation import IDS, run_world
from pool_rig import pool_rig
from requirements import requirement
from rows import row

Patch = pytest.MonkeyPatch

SEEN = (
    "result of chats",
    "result of serial",
    "result of varied",
    "result of users",
    "result of shared",
    "result of an array",
    "canary in a list",
    "notifications/progress on a session's POST",
    "notifications/progress on a POST",
    "notifications/message on a session's POST",
    "notifications/message pushed",
    "elicitation/create on a session's POST",
    "question answered",
    "cancelled",
    "impostor got 404",
)
"""What a run must have seen for its silence to mean anything."""


async def leaks_of_a_world() -> list[str]:
    """What a small world finds out."""
    report = await run_world(3000, users=20, seed=5)
    return report.leaks


async def leaks_of_colliding_ids() -> list[str]:
    return (await colliding_ids(50, 1)).leaks


async def leaks_of_keys() -> list[str]:
    """Keys that differ in one field share a session, where they do."""
    key = SessionKey("srv", "r1", "credential-1", "chat", Principal("host", "alice"), "chat:c1")
    others = {
        "revision": replace(key, revision="r2"),
        "credential": replace(key, credential="credential-2"),
        "scope": replace(key, scope="user"),
        "client": replace(key, principal=Principal("other", "alice")),
        "user": replace(key, principal=Principal("host", "bob")),
        "chat": replace(key, scope_id="chat:c2"),
    }
    leaks: list[str] = []
    for name, other in others.items():
        async with pool_rig() as rig:
            await rig.answered(key)
            await rig.answered(other)
            if len(rig.fake.sessions) != 2:
                leaks.append(f"two keys that differ in {name} shared a session")
    return leaks


@row(1, 3, 9)
@requirement("isolation:nobody-gets-anothers")
async def test_nobody_gets_anything_of_anybody_else() -> None:
    report = await run_world(6000, users=40, seed=7)
    assert report.leaks == []
    assert report.errors == []
    assert [what for what in SEEN if report.seen[what] == 0] == []


@row(2)
@requirement("isolation:colliding-ids")
async def test_equal_ids_of_many_clients_are_answered_each_to_its_own() -> None:
    """All in flight at once in one upstream session, and answered in reverse."""
    report = await colliding_ids(500, 2)
    assert report.leaks == []
    assert report.errors == []
    assert report.seen["result of shared"] == 500 * 2 * len(IDS)


@row(1)
async def test_keys_that_differ_in_any_field_share_nothing() -> None:
    assert await leaks_of_keys() == []


# Gateways that leak.


def key_without_principal(patch: Patch) -> None:
    rekey(patch, lambda key: replace(key, principal=Principal("anybody")))


def key_without_user(patch: Patch) -> None:
    rekey(patch, lambda key: replace(key, principal=key.principal and Principal(key.principal.client)))


def key_without_chat(patch: Patch) -> None:
    rekey(patch, lambda key: key if key.is_private else replace(key, scope_id=""))


def rekey(patch: Patch, change: Callable[[SessionKey], SessionKey]) -> None:
    genuine = Server.key_for

    def key_for(self: Server, asker: Asker) -> SessionKey:
        key = genuine(self, asker)
        return key if key.is_shared else change(key)

    patch.setattr(Server, "key_for", key_for)


def key_without_credential(patch: Patch) -> None:
    def fields(key: SessionKey) -> tuple[Any, ...]:
        return (key.server, key.revision, key.scope, key.principal, key.scope_id)

    def equal(one: SessionKey, other: SessionKey) -> bool:
        return fields(one) == fields(other)

    def hashed(key: SessionKey) -> int:
        return hash(fields(key))

    patch.setattr(SessionKey, "__eq__", equal)
    patch.setattr(SessionKey, "__hash__", hashed)


def ids_as_integers(patch: Patch) -> None:
    def id_bytes(request_id: jsonrpc.RequestId) -> bytes:
        return b"%d" % int(request_id)

    patch.setattr(jsonrpc, "id_bytes", id_bytes)


def progress_to_the_last_call(patch: Patch) -> None:
    def progress(self: HandshakeUpstream, params: Raw | None) -> None:
        if self._exchanges:
            self._exchanges[max(self._exchanges)].progress(jsonrpc.decode_fields(params or b"{}"))

    patch.setattr(HandshakeUpstream, "_progress", progress)


def asks_to_the_last_call(patch: Patch) -> None:
    def asked(self: Session, ask: Ask) -> None:
        run = next(iter(self.calls), None)
        if run is None:
            self.decline(ask)
        else:
            run.ask(ask)

    patch.setattr(Session, "asked", asked)


def session_ids_prove_themselves(patch: Patch) -> None:
    def find(self: ClientSessions, session_id: str, principal: Principal, server: Server) -> ClientSession | None:
        return self._sessions.get(session_id)

    patch.setattr(ClientSessions, "find", find)


def lists_of_one_session_for_all(patch: Patch) -> None:
    genuine = Catalog.start

    def start(self: Catalog, key: SessionKey, call: Call, caller: Caller, watcher: Watcher | None = None) -> Running:
        self._settings = self._settings.model_copy(update={"lists": "server"})
        return genuine(self, key, call, caller, watcher)

    patch.setattr(Catalog, "start", start)


def nobody_is_somebody(patch: Patch) -> None:
    genuine = Server.key_for

    def key_for(self: Server, asker: Asker) -> SessionKey:
        return genuine(self, replace(asker, identity=replace(asker.identity, lacks_user=False)))

    patch.setattr(Server, "key_for", key_for)


def pushes_to_everyone(patch: Patch) -> None:
    def pushed(self: Session, method: str, params: Raw | None) -> None:
        for watcher in self.watchers:
            watcher.push(method, params)

    patch.setattr(Session, "pushed", pushed)


def cancellations_by_id_alone(patch: Patch) -> None:
    everybody: list[ClientSession] = []
    genuine = ClientSession.__init__

    def init(self: ClientSession, *args: Any, **named: Any) -> None:
        genuine(self, *args, **named)
        everybody.append(self)

    patch.setattr(ClientSession, "__init__", init)
    real = handshake._cancel

    def cancel(message: jsonrpc.ClientNotification, client: ClientSession) -> None:
        for session in everybody:
            real(message, session)

    patch.setattr(handshake, "_cancel", cancel)


Leaks = Callable[[], Any]
MUTANTS: list[tuple[Callable[[Patch], None], Leaks]] = [
    (key_without_principal, leaks_of_a_world),
    (key_without_user, leaks_of_a_world),
    (key_without_chat, leaks_of_a_world),
    (key_without_credential, leaks_of_keys),
    (ids_as_integers, leaks_of_colliding_ids),
    (progress_to_the_last_call, leaks_of_a_world),
    (asks_to_the_last_call, leaks_of_a_world),
    (session_ids_prove_themselves, leaks_of_a_world),
    (lists_of_one_session_for_all, leaks_of_a_world),
    (nobody_is_somebody, leaks_of_a_world),
    (pushes_to_everyone, leaks_of_a_world),
    (cancellations_by_id_alone, leaks_of_a_world),
]


@row(10)
@requirement("isolation:the-suite-sees")
@pytest.mark.parametrize(("leak", "check"), MUTANTS, ids=[leak.__name__ for leak, _ in MUTANTS])
async def test_a_gateway_that_leaks_is_found_out(
    leak: Callable[[Patch], None], check: Leaks, monkeypatch: Patch
) -> None:
    leak(monkeypatch)
    assert await check() != []


@row(10)
async def test_the_checks_that_find_leaks_find_none_where_there_is_none() -> None:
    assert [await check() for check in (leaks_of_a_world, leaks_of_colliding_ids)] == [[], []]


@row(1, 3, 9)
@requirement("isolation:nobody-gets-anothers")
@given(rng=st.randoms(use_true_random=False), users=st.integers(2, 6), actions=st.integers(1, 80))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_course_of_events_that_hypothesis_finds_leaks(rng: Random, users: int, actions: int) -> None:
    """Who does what, when, and in which order servers answer: every choice is Hypothesis's, so that it can shrink."""
    report = asyncio.run(run_world(actions, users=users, rng=rng))
    assert report.leaks == []
    assert report.errors == []
