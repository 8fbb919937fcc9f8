"""Who has somebody else's session id has nothing: row 4."""

from __future__ import annotations

import pytest

from hijacking import ANN, BOTH_KEYS, IMPOSTORS, OTHER, VERBS, Impostor, hijack, last_event_id, owner_at_work, tried
from holdfast import events
from requirements import requirement
from rig import next_message, rig
from rows import Figure, row


@row(4)
@requirement("isolation:session-ids-are-pointers")
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
    for verb, attempt in VERBS.items():
        async with owner_at_work() as owner:
            statuses[verb] = (await tried(owner.running, attempt(owner), Impostor(ANN), owner.session_id))[0]
    # The owner's own second GET is one too many.
    assert statuses == {"post": 200, "get": 409, "resume": 200, "delete": 204, "cancel": 202, "reply": 202}


@row(4)
async def test_the_operator_hears_who_named_a_session_of_another() -> None:
    async with owner_at_work() as owner:
        attempt = VERBS["post"](owner)
        for who in ("another-user", "another-client", "mutated-id", "ended-id"):
            await tried(owner.running, attempt, IMPOSTORS[who], IMPOSTORS[who].session_id(owner))
        entries = [entry.event for entry in owner.running.gateway.operations.feed.recent]
    misused = [event for event in entries if isinstance(event, events.SessionIdMisused)]
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
