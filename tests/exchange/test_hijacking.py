"""Who has somebody else's session id, chat or `requestState` has nothing: row 4."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from hijacking import ANN, BOTH_KEYS, IMPOSTORS, OTHER, VERBS, Impostor, hijack, last_event_id, owner_at_work, tried
from holdfast import events
from requirements import requirement
from rig import next_message, rig
from rows import Figure, row

Misuse: TypeAlias = events.SessionIdMisused | events.RequestStateMisused


@row(4)
@requirement("isolation:session-ids-are-pointers")
@requirement("isolation:states-and-chats-of-others")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("who", IMPOSTORS)
async def test_an_impostor_is_answered_as_for_an_unknown_id_and_the_owner_goes_on(
    verb: str, who: str, figure: Figure
) -> None:
    await hijack(verb, who)
    figure(f"{len(VERBS)} verbs x {len(IMPOSTORS)} impostors")


async def test_what_the_impostors_try_works_for_the_owner() -> None:
    """Or their failing would prove nothing."""
    statuses: dict[str, int] = {}
    for name, verb in VERBS.items():
        async with owner_at_work() as owner:
            statuses[name] = (await tried(owner.running, verb.attempt(owner, verb.pointer(owner)), Impostor(ANN)))[0]
    # The owner's own second GET is one too many.
    expected = {"post": 200, "get": 409, "resume": 200, "delete": 204, "cancel": 202, "reply": 202}
    assert statuses == expected | {"listen": 200, "state": 200}


@row(4)
@pytest.mark.parametrize(("verb", "kind"), [("post", events.SessionIdMisused), ("state", events.RequestStateMisused)])
async def test_the_operator_hears_who_named_what_is_anothers(verb: str, kind: type[Misuse]) -> None:
    async with owner_at_work() as owner:
        for who in ("another-user", "another-client", "mutated-id", "ended-id"):
            impostor = IMPOSTORS[who]
            attempt = VERBS[verb].attempt(owner, impostor.pointer(VERBS[verb], owner))
            assert (await tried(owner.running, attempt, impostor))[0] == VERBS[verb].status
        entries = [entry.event for entry in owner.running.gateway.operations.feed.recent]
    misused = [event for event in entries if isinstance(event, events.SessionIdMisused | events.RequestStateMisused)]
    assert {type(event) for event in misused} == {kind}
    assert [(event.client, event.owner) for event in misused] == [("host", "host"), ("other", "host")]
    assert all(event.request for event in misused)


@row(7)
async def test_nothing_is_sent_again_to_callers_whom_a_trusted_client_leaves_unnamed() -> None:
    async with rig(clients=(BOTH_KEYS, OTHER)) as running:
        client = running.client(authorization="Bearer new")
        await client.open()
        async with client.stream() as stream:
            running.push(client, 1)
            event_id = await last_event_id(stream)
        await running.until_unread(client)
        running.push(client, 2)
        async with client.stream(last_event_id=event_id) as stream:
            running.push(client, 3)
            assert (await next_message(stream))["params"] == {"number": 3}
