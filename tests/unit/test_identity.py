"""Who is calling, and what it may say of itself."""

from __future__ import annotations

import pytest

from holdfast.config import ClientSettings, Trust, key_digest
from holdfast.identity.caller import Clients
from holdfast.identity.tokens import TokensInUse
from holdfast.session.key import Principal
from holdfast.testing.clock import ManualClock
from requirements import requirement
from rows import row

TRUST = Trust(user="x-user", chat="x-chat")


def keyed(name: str, *keys: str, trust: Trust = TRUST) -> ClientSettings:
    return ClientSettings(name=name, key_digests=tuple(map(key_digest, keys)), trust=trust)


@row(11)
@requirement("exchange:refusals:keys")
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic one", "one", "Bearer one two"]
)
def test_without_a_good_key_nobody_is_anybody(header: str | None) -> None:
    clients = Clients([keyed("a", "one"), keyed("b", "two")], TokensInUse(ManualClock(), 300))
    headers = {} if header is None else {"authorization": header}
    assert clients.identify(headers | {"x-user": "ann"}) is None


def test_several_keys_of_one_client_are_one_principal() -> None:
    clients = Clients([keyed("a", "old", "new"), keyed("b", "two")], TokensInUse(ManualClock(), 300))
    found = [clients.identify({"authorization": f"Bearer {key}", "x-user": "u"}) for key in ("old", "new", "two")]
    assert [identity.principal for identity in found if identity is not None] == [
        Principal("a", "u"),
        Principal("a", "u"),
        Principal("b", "u"),
    ]


@row(11)
@requirement("exchange:refusals:keys")
def test_a_wrong_key_does_not_fall_back_to_the_client_that_needs_none() -> None:
    clients = Clients([keyed("a", "one"), keyed("open")], TokensInUse(ManualClock(), 300))
    assert clients.identify({"authorization": "Bearer wrong"}) is None
    nobody = clients.identify({})
    assert nobody is not None
    assert nobody.principal.client == "open"


@requirement("exchange:chats:users")
@pytest.mark.parametrize(
    ("headers", "user", "chat", "lacks_user"),
    [
        ({"x-user": "u", "x-chat": "c"}, "u", "c", False),
        ({"x-user": "u"}, "u", None, False),
        ({"x-chat": "c"}, None, "c", True),
        ({"x-user": "", "x-chat": ""}, None, None, True),
        ({}, None, None, True),
    ],
)
def test_only_what_is_there_is_named(
    headers: dict[str, str], user: str | None, chat: str | None, *, lacks_user: bool
) -> None:
    identity = Clients([keyed("a")], TokensInUse(ManualClock(), 300)).identify(headers)
    assert identity is not None
    assert (identity.principal, identity.chat, identity.lacks_user) == (Principal("a", user), chat, lacks_user)


@requirement("exchange:chats:ladder")
def test_a_client_that_is_not_trusted_names_nothing() -> None:
    identity = Clients([keyed("a", trust=Trust())], TokensInUse(ManualClock(), 300)).identify(
        {"x-user": "u", "x-chat": "c"}
    )
    assert identity is not None
    assert (identity.principal, identity.chat, identity.lacks_user) == (Principal("a"), None, False)
