"""Nobody gets what is another's: threats-and-faults, rows 1, 2, 3, 9 and 10.

The suite would be worth nothing if it could not fail, so gateways that leak, each in one way, are
put before it, and each must be found out.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from random import Random
from typing import Final, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import crossings
import mutants
from handle_rig import calling
from hijacking import hijack
from holdfast.config import ClientSettings, Trust, key_digest
from holdfast.session.key import Principal, SessionKey
from isolation import IDS, Report, run_world
from mutants import Mutant
from pool_rig import pool_rig
from requirements import requirement
from rig import rig
from rows import Figure, row

Leaks: TypeAlias = Callable[[], Awaitable[list[str]]]

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
    "stranger got 404",
)
"""What a run must have seen for its silence to mean anything."""


async def leaks_of_a_world() -> list[str]:
    """What a small world finds out."""
    return found_in(await run_world(3000, users=20, seed=5))


async def leaks_of_colliding_ids() -> list[str]:
    return found_in(await crossings.colliding_ids(50, 1))


def leaks_of(crossing: str, *counts: int) -> Leaks:
    """What a small crossing finds out."""

    async def leaks() -> list[str]:
        return found_in(await getattr(crossings, crossing)(*counts))

    leaks.__name__ = f"leaks_of_{crossing}"
    return leaks


def found_in(report: Report) -> list[str]:
    """The leaks; a gateway that breaks is no gateway that leaks, and finding it out would prove nothing."""
    assert report.errors == []
    return report.leaks


KEY: Final = SessionKey("srv", "r1", "credential-1", "chat", Principal("host", "alice"), "chat:c1")
OTHERS: Final = {
    "server": replace(KEY, server="other"),
    "revision": replace(KEY, revision="r2"),
    "credential": replace(KEY, credential="credential-2"),
    "scope": replace(KEY, scope="user"),
    "principal": replace(KEY, principal=Principal("host", "bob")),
    "scope_id": replace(KEY, scope_id="chat:c2"),
    "passed": replace(KEY, passed=(("x-token", "t"),)),
}
"""For each field of the key, a key that differs in it alone."""
KEY_FIELDS: Final = [each.name for each in fields(SessionKey) if each.compare]


async def leaks_of_keys() -> list[str]:
    """Keys that differ in one field share a session, where they do."""
    leaks: list[str] = []
    others = [*OTHERS.items(), ("principal", replace(KEY, principal=Principal("other", "alice")))]
    for name, other in others:
        async with pool_rig() as rig:
            await rig.answered(KEY)
            await rig.answered(other)
            if len(rig.fake.sessions) != 2:
                leaks.append(f"two keys that differ in {name} shared a session")
    return leaks


def test_every_field_of_the_key_is_tried() -> None:
    assert sorted(OTHERS) == sorted(KEY_FIELDS)


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
    report = await crossings.colliding_ids(500, 2)
    assert report.leaks == []
    assert report.errors == []
    assert report.seen["result of shared"] == 500 * 2 * len(IDS)


@row(1)
async def test_keys_that_differ_in_any_field_share_nothing() -> None:
    assert await leaks_of_keys() == []


# Gateways that leak.


async def leaks_of_hijacking() -> list[str]:
    try:
        await hijack("post", "wrong-key")
    except AssertionError as error:
        return [str(error)]
    return []


async def leaks_of_handles() -> list[str]:
    """Everybody but its owner tries a handle; a session that runs their calls leaks."""
    trust = Trust(user="x-user")
    clients = tuple(ClientSettings(name=key, key_digests=(key_digest(key),), trust=trust) for key in ("k1", "k2"))
    async with rig(handles=True, clients=clients) as running:
        async with calling(running, "curl", authorization="Bearer k1", x_user="ann") as ann:
            session = await ann.opened()
            await ann.text("count", session=session)
        for key, user in (("k1", "bob"), ("k2", "ann")):
            async with calling(running, "curl", authorization=f"Bearer {key}", x_user=user) as other:
                await other.result("count", session=session)
        return [str(call) for call in running.upstream.calls()[1:]]


CHECKS: Final[dict[Leaks, tuple[Mutant, ...]]] = {
    leaks_of_a_world: (
        mutants.key_without_principal,
        mutants.key_without_user,
        mutants.key_without_client,
        mutants.key_without_chat,
        mutants.session_ids_prove_themselves,
        mutants.session_ids_of_any_server,
        mutants.progress_tokens_not_minted_anew,
        mutants.progress_to_the_last_call,
        mutants.asks_of_no_stream_to_the_first_call,
        mutants.pushes_to_everyone,
        mutants.shared_sessions_as_one_persons,
        mutants.lists_of_one_session_for_all,
    ),
    leaks_of_keys: tuple(map(mutants.blind_to, KEY_FIELDS)),
    leaks_of_colliding_ids: (mutants.ids_as_integers, mutants.ids_not_minted_anew),
    leaks_of("interleaved_calls", 500): (mutants.asks_of_a_stream_to_the_last_call, mutants.replies_by_id_alone),
    leaks_of("departed_callers", 20): (mutants.questions_to_the_departed_stay_open,),
    leaks_of("second_streams", 20): (mutants.second_gets_take_over,),
    leaks_of("event_ids", 200): (mutants.event_ids_without_proof, mutants.event_ids_proven_by_one_secret),
    leaks_of("nameless_callers", 5): (mutants.nobody_is_somebody, mutants.private_keys_are_one),
    leaks_of("lists_of_two", 50): (mutants.lists_of_one_session_for_all,),
    leaks_of("cancellations", 20, 1): (mutants.cancellations_by_id_alone,),
    leaks_of_hijacking: (mutants.wrong_keys_are_the_first_client,),
    leaks_of_handles: (mutants.handles_prove_themselves, mutants.key_without_user),
}
"""For each check, the gateways that it must find out."""
CASES: Final = [(mutant, check) for check, found in CHECKS.items() for mutant in found]


@row(10)
@requirement("isolation:the-suite-sees")
@pytest.mark.parametrize(("mutant", "check"), CASES, ids=[f"{m.__name__}-{c.__name__}" for m, c in CASES])
async def test_a_gateway_that_leaks_is_found_out(
    mutant: Mutant, check: Leaks, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    mutant(monkeypatch)
    assert await check() != []
    figure(f"{len({m for m, _ in CASES})} mutants")


@row(10)
@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
async def test_the_checks_that_find_leaks_find_none_where_there_is_none(check: Leaks) -> None:
    assert await check() == []


def test_every_mutant_is_put_before_a_check() -> None:
    tried = {mutant.__name__ for mutant, _ in CASES}
    helpers = {"rekey", "blind_to", "everybodys_sessions"}
    made = {name for name, made in vars(mutants).items() if inspect.isfunction(made) and made.__module__ == "mutants"}
    assert made - helpers - tried == set()


@row(1, 3, 9)
@requirement("isolation:nobody-gets-anothers")
@given(rng=st.randoms(use_true_random=False), users=st.integers(2, 6), actions=st.integers(1, 80))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_course_of_events_that_hypothesis_finds_leaks(rng: Random, users: int, actions: int) -> None:
    """Who does what, when, and in which order servers answer: every choice is Hypothesis's, so that it can shrink."""
    report = asyncio.run(run_world(actions, users=users, rng=rng))
    assert report.leaks == []
    assert report.errors == []
