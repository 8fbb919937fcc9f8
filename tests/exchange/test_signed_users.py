"""A host that signs who its user is, at the gateway's door."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

import jwt
import pytest
from pydantic import SecretStr

from holdfast.config import ClientSettings, Trust, key_digest
from modern_client import ModernClient
from requirements import requirement
from rig import NAME, Client, read_head, rig
from rows import row

SECRET: Final = "a secret of forty bytes, give or take one"
HOST: Final = ClientSettings(
    name="host",
    key_digests=(key_digest("k"),),
    trust=Trust(user="x-openwebui-user-id", chat="x-openwebui-chat-id", jwt_secret=SecretStr(SECRET)),
)
FAR: Final = 9_000_000_000


def signed(user: str, expires: float = FAR, secret: str = SECRET) -> str:
    return jwt.encode({"sub": user, "iss": "open-webui", "exp": expires}, secret, algorithm="HS256")


def bearing(running: Any, token: str | None, **headers: str) -> Client:
    named = {} if token is None else {"x_openwebui_user_jwt": token}
    client: Client = running.client(authorization="Bearer k", x_openwebui_chat_id="c", **named, **headers)
    return client


@requirement("identity:signed:proven")
@pytest.mark.parametrize("is_modern", [False, True])
async def test_users_whom_tokens_prove_have_chats_of_their_own(*, is_modern: bool) -> None:
    async with rig(clients=(HOST,)) as running:
        counts: list[str] = []
        for user in ("ann", "ben", "ann"):
            if is_modern:
                modern = ModernClient(
                    running, authorization="Bearer k", x_openwebui_user_jwt=signed(user), x_openwebui_chat_id="c"
                )
                counts.append((await modern.result(modern.tool("count")))["content"][0]["text"])
            else:
                client = bearing(running, signed(user))
                await client.open()
                counts.append(await client.tool_text("count"))
                await client.delete()
        assert counts == ["1", "1", "2"]
        assert {each.user for each in running.server.pool.views() if each.scope == "chat"} == {"ann", "ben"}


@row(11)
@requirement("identity:signed:forged")
@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (
            {"x_openwebui_user_jwt": signed("ann", secret="of another host, and as long as the first")},
            "not signed with",
        ),
        ({"x_openwebui_user_jwt": jwt.encode({"sub": "ann"}, "", algorithm="none")}, "no user's token"),
        ({"x_openwebui_user_jwt": signed("ann", expires=1)}, "has expired"),
        ({"x_openwebui_user_id": "ann"}, "x-openwebui-user-id alone"),
    ],
)
async def test_who_cannot_prove_a_user_is_refused_everywhere(headers: dict[str, str], words: str) -> None:
    async with rig(clients=(HOST,)) as running:
        before = len(running.upstream.ledger)
        client = running.client(authorization="Bearer k", x_openwebui_chat_id="c", **headers)
        for method, body, path in (
            ("POST", client.tool("count"), "/mcp"),
            ("POST", client.tool("count"), f"/mcp/{NAME}/chats/c"),
            ("POST", {"chat": "c"}, "/api/warm"),
            ("GET", None, "/mcp"),
            ("DELETE", None, "/mcp"),
            ("GET", None, "/sse"),
        ):
            async with client.request(method, body, path) as response:
                assert response.status == 403, (method, path)
                assert words in (await response.json())["error"]["message"]
        assert len(running.upstream.ledger) == before


@row(11)
@requirement("identity:signed:forged")
async def test_a_token_that_comes_twice_is_refused() -> None:
    async with rig(clients=(HOST,)) as running:
        request = (
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\ncontent-length: 0\r\n"
            f"x-openwebui-user-jwt: {signed('ann')}\r\nX-OpenWebUI-User-Jwt: {signed('ben')}\r\n\r\n"
        )
        async with running.client().raw(request.encode()) as response:
            assert response.status == 400


@requirement("identity:signed:proven")
async def test_a_host_that_names_nobody_is_answered_and_keeps_nothing() -> None:
    async with rig(clients=(HOST,)) as running:
        client = bearing(running, None)
        assert "result" in await client.ask(client.call("tools/list"))
        assert [await client.tool_text("count") for _ in range(2)] == ["1", "1"]


@requirement("identity:signed:expiry")
async def test_a_long_message_goes_on_with_the_token_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    today = time.time()
    async with rig(clients=(HOST,)) as running:
        in_use = running.app.tokens
        monkeypatch.setattr(in_use, "wall", lambda: today)
        client = bearing(running, signed("ann", today + 300))
        await client.open()
        assert await client.tool_text("count") == "1"
        today += 1000
        assert await client.tool_text("count") == "2"
        late = bearing(running, signed("ann", today - 500))
        assert await late.post(late.tool("count")) == 403
        await client.delete()


@requirement("identity:signed:expiry")
async def test_an_expired_token_is_found_out_on_a_connection_that_bore_it_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    today = time.time()
    async with rig(clients=(HOST,)) as running, asyncio.timeout(30):
        monkeypatch.setattr(running.app.tokens, "wall", lambda: today)
        body = json.dumps(bearing(running, None).call("tools/list"))
        head = (
            f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\ncontent-length: {len(body)}\r\n"
            f"accept: application/json\r\nx-openwebui-user-jwt: {signed('ann', today + 300)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        statuses: list[int] = []
        for step in (0, 0, 0, 4000, 0):
            today += step
            writer.write((head + body).encode())
            response = await read_head(reader)
            await response.body()
            statuses.append(response.status)
        writer.close()
        assert statuses == [200, 200, 200, 403, 403]
