"""Protocol revisions: which one is agreed on, and what it allows."""

from __future__ import annotations

import pytest

from holdfast.wire.revisions import HANDSHAKE_REVISIONS, LATEST, allows_batches, allows_priming, negotiate
from requirements import requirement


@pytest.mark.parametrize("revision", HANDSHAKE_REVISIONS)
def test_a_revision_that_we_speak_is_agreed_to(revision: str) -> None:
    assert negotiate(revision) == revision


@requirement("wire:revisions:unknown-gets-latest")
@pytest.mark.parametrize(
    "requested", ["2026-07-28", "2099-01-01", "2024-11-5", "", "latest", None, 20250618, ["2025-06-18"], {}]
)
def test_any_other_is_answered_with_our_latest(requested: object) -> None:
    assert negotiate(requested) == LATEST == "2025-11-25"


def test_revisions_stand_oldest_first() -> None:
    assert list(HANDSHAKE_REVISIONS) == sorted(HANDSHAKE_REVISIONS)


def test_arrays_came_with_the_first_revisions_and_went_in_2025_06_18() -> None:
    assert [revision for revision in HANDSHAKE_REVISIONS if allows_batches(revision)] == ["2024-11-05", "2025-03-26"]


def test_only_the_newest_clients_can_take_an_event_without_data() -> None:
    assert [revision for revision in HANDSHAKE_REVISIONS if allows_priming(revision)] == ["2025-11-25"]
