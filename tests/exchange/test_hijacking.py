"""Who has somebody else's session id has nothing: row 4."""

from __future__ import annotations

import pytest

from hijacking import ANN, IMPOSTORS, VERBS, Impostor, hijack, owner_at_work, tried
from requirements import requirement
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
