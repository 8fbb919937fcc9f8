"""What must match before a session is reused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.session.key import Principal, SessionKey, private
from requirements import requirement

KEY = SessionKey("browser", "revision", "credential", "chat", Principal("webui", "alice"), "chat:c1")
OTHER: dict[str, Any] = {
    "server": "search",
    "revision": "another",
    "credential": "another",
    "scope": "user",
    "principal": Principal("webui", "bob"),
    "scope_id": "chat:c2",
    "passed": (("x-tenant", "two"),),
}


@requirement("session:key:compared-whole")
@pytest.mark.parametrize("name", OTHER)
def test_a_key_that_differs_in_one_field_is_another_key_with_another_digest(name: str) -> None:
    other = replace(KEY, **{name: OTHER[name]})
    assert other != KEY
    assert other.digest != KEY.digest
    assert len({KEY, other}) == 2


def test_every_field_but_how_it_ends_is_compared() -> None:
    assert {f.name for f in fields(SessionKey) if f.compare} == set(OTHER)
    assert replace(KEY, ends_with_client=True) == KEY


def test_a_client_of_the_same_name_with_and_without_a_user_is_two_principals() -> None:
    assert Principal("webui") != Principal("webui", "")
    assert Principal("webui", "a") != Principal("webuia")


@given(st.text(), st.text(), st.text(), st.text())
def test_fields_do_not_run_into_each_other_in_a_digest(a: str, b: str, c: str, d: str) -> None:
    one = replace(KEY, principal=Principal(a, b), scope_id=c)
    two = replace(KEY, principal=Principal(a, d), scope_id=b)
    assert (one == two) == (one.digest == two.digest)


def test_a_private_key_is_like_no_other() -> None:
    principal = Principal("webui", "alice")
    keys = [private(replace(KEY, ends_with_client=True), principal, "chat", number) for number in range(100)]
    assert len(set(keys)) == 100
    assert all(key.is_private and not key.ends_with_client and key.principal == principal for key in keys)


def test_a_key_tells_logs_neither_user_nor_chat_nor_credential() -> None:
    assert repr(KEY) == "SessionKey(server='browser', scope='chat')"
    assert len(KEY.digest) == 12
    assert int(KEY.digest, 16) >= 0
