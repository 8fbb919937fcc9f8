"""A client's keys, and the headers that nobody may set."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.clock import LoopClock
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, describe, key_digest
from holdfast.config.servers import OWN_HEADERS
from holdfast.identity.caller import Clients
from holdfast.tasks import TaskScope
from holdfast.upstream.http1 import HttpClient
from holdfast.upstream.streamable_http import StreamableHttpLink
from requirements import requirement


def client(name: str, *keys: str) -> ClientSettings:
    return ClientSettings(name=name, key_digests=tuple(map(key_digest, keys)))


def principal(clients: Clients, key: str) -> Any:
    identity = clients.identify({"authorization": f"Bearer {key}"})
    return None if identity is None else identity.principal


@requirement("config:any-key-of-a-client-is-that-client")
def test_each_key_of_a_client_is_the_same_principal() -> None:
    clients = Clients([client("a", "old", "new"), client("b", "other")])
    assert principal(clients, "old") == principal(clients, "new") is not None
    assert principal(clients, "other") not in {None, principal(clients, "old")}
    assert principal(clients, "none") is None


@requirement("config:any-key-of-a-client-is-that-client")
def test_a_key_taken_out_of_the_list_admits_nobody() -> None:
    before, after = Clients([client("a", "old", "new")]), Clients([client("a", "new")])
    assert principal(after, "old") is None
    assert principal(after, "new") == principal(before, "old")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"clients": [client("a", "k"), client("b", "l", "k")]}, "two clients have the same key"),
        ({"clients": [client("a"), client("b")]}, "two clients have no key"),
        ({"clients": [client("a", "k"), client("a", "l")]}, "two clients are named a"),
        ({"servers": [{"name": "s", "command": ["x"]}] * 2}, "two servers are named s"),
        ({"servers": [{"name": "a__b", "command": ["x"]}]}, "a__b: a server's name has no __"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate({"servers": [{"name": "s", "command": ["x"]}], **settings})
    assert describe(caught.value).startswith(expected)


def test_a_client_with_a_key_and_one_without_are_told_apart() -> None:
    servers = (ServerSettings(name="s", command=("x",)),)
    assert GatewaySettings(servers=servers, clients=(client("a", "k"), client("b"))).clients


KNOWN = sorted(
    OWN_HEADERS | {"authorization", "cookie", "user-agent", "x-api-key", "origin", "accept-language", "referer", "date"}
)


@pytest.mark.parametrize("name", KNOWN)
async def test_a_header_is_refused_where_the_link_would_refuse_it(name: str) -> None:
    async with asyncio.timeout(5), TaskScope() as scope:
        clock = LoopClock()
        http = HttpClient("http://127.0.0.1:1/", scope, clock)
        try:
            StreamableHttpLink(http, "/", {name.title(): "x"}, clock, wants_push=False, jitter=lambda: 0.0)
        except ValueError:
            is_refused = True
        else:
            is_refused = False
        http.close()
    assert is_refused is (name in OWN_HEADERS)
