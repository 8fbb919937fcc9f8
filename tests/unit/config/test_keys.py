"""A client's keys, and the headers that nobody may set."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.clock import LoopClock
from holdfast.config import ClientSettings, GatewaySettings, ServerSettings, describe, key_digest
from holdfast.config.headers import OWN_HEADERS
from holdfast.identity.caller import Clients
from holdfast.identity.tokens import TokensInUse
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock
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
    clients = Clients([client("a", "old", "new"), client("b", "other")], TokensInUse(ManualClock(), 300))
    assert principal(clients, "old") == principal(clients, "new") is not None
    assert principal(clients, "other") not in {None, principal(clients, "old")}
    assert principal(clients, "none") is None


@requirement("config:any-key-of-a-client-is-that-client")
def test_a_key_taken_out_of_the_list_admits_nobody() -> None:
    in_use = TokensInUse(ManualClock(), 300)
    before, after = Clients([client("a", "old", "new")], in_use), Clients([client("a", "new")], in_use)
    assert principal(after, "old") is None
    assert principal(after, "new") == principal(before, "old")


CLASHES: list[tuple[dict[str, Any], str]] = [
    ({"clients": [client("a", "k"), client("b", "l", "k")]}, "two clients have the same key"),
    ({"clients": [client("a"), client("b")]}, "two clients have no key"),
    ({"clients": [client("a", "k"), client("a", "l")]}, "two clients are named a"),
    ({"servers": [{"name": "s", "command": ["x"]}] * 2}, "two servers are named s"),
    ({"servers": [{"name": "a__b", "command": ["x"]}]}, "a__b: a server's name has no __"),
    ({"servers": [{"name": "a-b", "command": ["x"]}], "separator": "-"}, "a-b: a server's name has no -"),
    (
        {"servers": [{"name": n, "command": ["x"]} for n in ("a.b", "a_b")]},
        "a_b: its tools begin with a_b__ at /mcp",
    ),
    ({"servers": [{"name": "a", "command": ["x"], "prefix": "b_"}]}, "a.prefix: ends like the beginning of __"),
    ({"clients": [{"name": "a", "servers": {"t": {}}}]}, "a may see t, which is no server"),
]


@pytest.mark.parametrize(("settings", "expected"), CLASHES)
def test_what_cannot_be_told_apart_is_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate({"servers": [{"name": "s", "command": ["x"]}], **settings})
    assert describe(caught.value).startswith(expected)


@requirement("config:names-are-told-apart")
@given(
    names=st.lists(st.from_regex(r"[ab][ab._-]{0,4}", fullmatch=True), min_size=1, max_size=3, unique=True),
    tools=st.lists(st.text("ab_-", min_size=1, max_size=4), min_size=1, max_size=3, unique=True),
    aliases=st.lists(st.text("ab_-", min_size=1, max_size=6), max_size=3),
    separator=st.sampled_from(["__", "_", "-", "_-", "-_-", "a"]),
)
def test_no_two_tools_of_accepted_servers_are_called_the_same(
    names: list[str], tools: list[str], aliases: list[str], separator: str
) -> None:
    renamed = {name: dict(zip(tools, aliases[number:], strict=False)) for number, name in enumerate(names)}
    try:
        settings = GatewaySettings.model_validate(
            {
                "servers": [{"name": n, "command": ["x"], "tools": {"aliases": renamed[n]}} for n in names],
                "separator": separator,
            }
        )
    except ValidationError:
        return
    public = [
        server.tools.aliases.get(tool, server.public_prefix + settings.separator + tool)
        for server in settings.servers
        for tool in tools
    ]
    assert len(set(public)) == len(public)
    for server in settings.servers:
        whole = f"{server.public_prefix}{separator}{tools[0]}"
        assert whole.partition(separator)[::2] == (server.public_prefix, tools[0])


def test_a_client_with_a_key_and_one_without_are_told_apart() -> None:
    servers = (ServerSettings(name="s", command=("x",)),)
    assert GatewaySettings(servers=servers, clients=(client("a", "k"), client("b"))).clients


KNOWN = sorted(
    OWN_HEADERS | {"authorization", "cookie", "user-agent", "x-api-key", "origin", "accept-language", "referer", "date"}
)


@pytest.mark.parametrize("name", KNOWN)
async def test_a_header_is_refused_where_the_link_would_refuse_it(name: str) -> None:
    async with asyncio.timeout(60), TaskScope() as scope:
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
