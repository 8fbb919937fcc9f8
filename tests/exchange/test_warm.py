"""`POST /api/warm`: sessions that are open before anybody waits for them."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.config import ClientSettings, ToolRules, Trust, key_digest
from requirements import requirement
from rig import NAME, Client, rig
from several import several

TRUSTING = ClientSettings(
    name="host", key_digests=(key_digest("k"),), trust=Trust(user="x-user", chat="x-chat"), servers=None
)


async def warm(client: Client, body: Any, **headers: str) -> list[dict[str, str]]:
    """The statuses of a stream."""
    return await client.events(body, "/api/warm", **headers)


@requirement("warm:opens")
async def test_who_warms_a_chat_hears_how_it_goes_and_its_first_call_waits_for_nothing() -> None:
    async with rig(start="lazy", options={"open_delay": 0.01}, is_learnt=False) as running:
        client = running.client()
        said = await warm(client, {"server": NAME, "chat": "c"})
        assert [(each["server"], each["status"]) for each in said] == [(NAME, "connecting"), (NAME, "ready")]
        assert said[0]["message"] == f"Connecting to {NAME}."
        assert said[1]["message"].endswith(" ms")
        assert running.upstream.initializes == 1
        answer = await client.ask(client.tool("count"), f"/mcp/{NAME}/chats/c")
        assert answer["result"]["content"][0]["text"] == "1"
        assert running.upstream.initializes == 1
        assert [each["status"] for each in await warm(client, {"chat": "c"})] == ["ready"], "all servers; it was open"
        assert running.upstream.initializes == 1


@requirement("warm:opens")
async def test_a_warmed_session_is_its_principals_alone() -> None:
    async with rig(clients=(TRUSTING,), start="lazy", is_learnt=False) as running:
        client = running.client(authorization="Bearer k", x_user="ann", x_chat="c")
        assert [each["status"] for each in await warm(client, {})][-1] == "ready"
        (session,) = [each for each in running.server.pool.views() if each.scope == "chat"]
        assert (session.client, session.user) == ("host", "ann")
        other = running.client(authorization="Bearer k", x_user="ben", x_chat="c")
        await other.ask(other.tool("count"), f"/mcp/{NAME}")
        users = {each.user for each in running.server.pool.views() if each.scope == "chat"}
        assert users == {"ann", "ben"}


@requirement("warm:opens")
async def test_a_client_that_takes_no_stream_gets_the_last_word_of_each() -> None:
    async with rig(start="lazy", is_learnt=False) as running:
        client = running.client(accept="application/json")
        async with client.request("POST", {"chat": "c"}, "/api/warm") as response:
            assert response.status == 200
            (said,) = (await response.json())["servers"]
        assert (said["server"], said["status"]) == (NAME, "ready")


@requirement("warm:opens")
async def test_a_server_that_is_not_there_has_failed_and_says_why() -> None:
    async with rig(url="http://127.0.0.1:9/mcp", start="lazy", is_learnt=False) as running:
        said = await warm(running.client(), {"chat": "c"})
        assert said[-1]["status"] == "failed"
        assert "127.0.0.1" in said[-1]["message"] or "refused" in said[-1]["message"]


@requirement("warm:refused")
@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        ({}, {"authorization": "Bearer k", "x-user": "ann"}, 400, "Name the chat"),
        ({"chat": "c"}, {"authorization": "Bearer k"}, 400, "Name the user"),
        ({"chat": "c"}, {"authorization": "Bearer nope", "x-user": "ann"}, 401, "not known"),
        ({"chat": "c"}, {}, 401, "A key is needed"),
        ({"chat": "c", "server": "nope"}, {"authorization": "Bearer k", "x-user": "ann"}, 404, f"there are {NAME}"),
        ({"chat": 1}, {"authorization": "Bearer k", "x-user": "ann"}, 400, "The body is"),
        ({"chat": "c" * 5000}, {"authorization": "Bearer k", "x-user": "ann"}, 400, "longer than"),
        ({"cat": "c"}, {"authorization": "Bearer k", "x-user": "ann"}, 400, "The body is"),
        ([], {"authorization": "Bearer k", "x-user": "ann"}, 400, "The body is"),
        (
            {"chat": "c"},
            {"authorization": "Bearer k", "x-user": "ann", "accept": "text/html"},
            406,
            "accept one of them",
        ),
    ],
)
async def test_what_cannot_be_warmed_is_refused_and_nothing_is_opened(
    body: Any, headers: dict[str, str], status: int, words: str
) -> None:
    async with rig(clients=(TRUSTING,), start="lazy", is_learnt=False) as running:
        client = running.client()
        async with client.request("POST", body, "/api/warm", **headers) as response:
            assert response.status == status
            assert words in (await response.body()).decode()
        async with client.request("GET", None, "/api/warm", **{"authorization": "Bearer k", "x-user": "a"}) as response:
            assert response.status == 405
        assert running.upstream.initializes == 0


@requirement("warm:opens")
@requirement("warm:refused")
async def test_without_a_server_those_are_meant_that_the_client_may_see() -> None:
    narrow = ClientSettings(name="narrow", key_digests=(key_digest("n"),), servers={"one": ToolRules()})
    wide = ClientSettings(name="wide", key_digests=(key_digest("w"),))
    async with several("one", "two", clients=(narrow, wide)) as running:
        for key, seen in (("n", {"one"}), ("w", {"one", "two"})):
            client = running.client(authorization=f"Bearer {key}")
            said = await warm(client, {"chat": "c"})
            assert {each["server"] for each in said if each["status"] == "ready"} == seen
        hidden = running.client(authorization="Bearer n")
        async with hidden.request("POST", {"server": "two", "chat": "c"}, "/api/warm") as response:
            assert response.status == 404
            assert "there are one." in (await response.body()).decode()
