"""The example of a web application with kept sessions, run as it stands."""

from __future__ import annotations

import asyncio

import httpx2
from examples.library_starlette import make_app

from holdfast.testing.server import ScriptedServer
from requirements import requirement


@requirement("library:web-application")
async def test_a_web_application_keeps_the_session_of_each_chat_from_request_to_request() -> None:
    async with asyncio.timeout(60), ScriptedServer() as upstream:
        app = make_app({"servers": {"notes": {"url": upstream.url}}})
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://app") as client,
        ):

            async def post(path: str, user: str = "ann", chat: str = "c") -> httpx2.Response:
                return await client.post(path, json={}, headers={"x-user": user, "x-chat": chat})

            async def count(user: str, chat: str) -> str:
                response = await post("/notes/count", user, chat)
                text: str = response.json()["content"][0]["text"]
                return text

            assert [await count("ann", "c"), await count("ann", "c")] == ["1", "2"]
            assert [await count("ann", "d"), await count("ben", "c")] == ["1", "1"]
            assert [await count("ann", "c")] == ["3"]
            statuses = [(await post(path)).status_code for path in ("/nope/count", "/notes/nope")]
            assert statuses == [404, 400]
            assert (await post("/notes/count", user="")).status_code == 401
            await upstream.stop()
            assert (await post("/notes/count")).status_code == 502
        assert upstream.initializes == 3
