"""Which session serves a request, and what is kept to know that quickly."""

from __future__ import annotations

import gc
import weakref

from holdfast.config import ServerSettings
from holdfast.identity.asker import Asker
from holdfast.identity.caller import Identity
from holdfast.servers.keys import Keys
from holdfast.session.key import Principal
from requirements import requirement


class Secret(str):
    """A text of which it can be seen whether anybody still has it."""

    __slots__ = ("__weakref__",)


def keys_of(**settings: object) -> Keys:
    return Keys(ServerSettings.model_validate({"name": "a", "url": "http://127.0.0.1/mcp", **settings}), lambda: None)


def asking(chat: str, *passed: tuple[str, str]) -> Asker:
    return Asker(Identity(Principal("local"), None, lacks_user=False), 1, named=chat, passed=passed)


def test_the_key_of_a_chat_is_made_once() -> None:
    keys = keys_of()
    assert keys.key_for(asking("c")) is keys.key_for(asking("c"))
    assert keys.key_for(asking("c")) != keys.key_for(asking("d"))


@requirement("keys:secrets-not-kept")
def test_what_a_caller_passes_is_part_of_its_key_and_is_not_kept_beyond_it() -> None:
    keys = keys_of(pass_headers=["x-token"])
    secret = Secret("of ann")
    seen = weakref.ref(secret)
    key = keys.key_for(asking("c", ("x-token", secret)))
    assert key.passed == (("x-token", "of ann"),)
    assert key != keys.key_for(asking("c", ("x-token", "of bob")))
    assert key != keys.key_for(asking("c"))
    del key, secret
    gc.collect()
    assert seen() is None
