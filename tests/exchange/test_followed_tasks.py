"""`subscriptions/listen` with `taskIds`: a client of 2026-07-28 hears how its tasks are without asking."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from msgspec import Raw

from bare_client import Response
from holdfast.config import ClientSettings, Trust
from holdfast.downstream import listening
from holdfast.downstream.direct import DirectResponder
from modern_client import ABLE, KEY, YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import Rig, Transport, next_message, rig

EXTENSION: Final = "io.modelcontextprotocol/tasks"
KNOWS: Final[dict[str, Any]] = {**ABLE, "extensions": {EXTENSION: {}}}
MODERN: Final[dict[str, Any]] = {"era": "modern"}
CHATS: Final = (ClientSettings(name="host", trust=Trust(user="x-user", chat="x-chat")),)
WAYS: Final[tuple[Transport, ...]] = ("sse", "stdio")


@asynccontextmanager
async def following(running: Rig, client: ModernClient, **wanted: Any) -> AsyncGenerator[tuple[Response, Any]]:
    """A stream with what was honoured."""
    body = client.message("subscriptions/listen", notifications=wanted)
    async with client.post(body, accept="text/event-stream") as stream:
        first = await next_message(stream)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        yield stream, first["params"]["notifications"]
    await running.until(lambda: len(running.app.modern.listeners) == 0)


async def begun(client: ModernClient, **arguments: Any) -> str:
    task_id: str = (await client.result(client.tool("errand", **arguments)))["taskId"]
    return task_id


async def told(stream: Response) -> Any:
    """What the next message says of a task."""
    message = await next_message(stream)
    assert message["method"] == "notifications/tasks", message
    return message["params"]


@requirement("tasks:modern:followed")
@pytest.mark.parametrize("transport", WAYS)
@pytest.mark.parametrize("chat", ["c", None])
async def test_who_follows_a_task_hears_of_its_questions_and_its_end(transport: Transport, chat: str | None) -> None:
    async with rig(transport, options=MODERN) as running:
        client = ModernClient(running, chat=chat, capabilities=KNOWS)
        task = await begun(client, question="sure?")
        async with following(running, client, taskIds=[task, "m99"], toolsListChanged=True) as (stream, honoured):
            assert honoured == {"taskIds": [task], "toolsListChanged": True}
            looked = await client.result(client.message("tasks/get", taskId=task))
            ((name, _),) = looked["inputRequests"].items()
            await client.result(client.message("tasks/update", taskId=task, inputResponses={name: YES}))
            while (state := await told(stream))["status"] != "completed":
                assert state["status"] == "working"
            assert (state["taskId"], reply_in(state["result"])) == (task, YES)
            await client.result(client.tool("change_tools"))
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"


@requirement("tasks:modern:followed")
async def test_what_is_told_bears_the_clients_own_subscription() -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        task = await begun(client, gate="g")
        body = client.message("subscriptions/listen", notifications={"taskIds": [task]})
        async with client.post(body) as stream:
            await next_message(stream)
            running.upstream.open_gate("g")
            assert (await told(stream))["_meta"][KEY + "subscriptionId"] == body["id"]
        await running.until(lambda: len(running.app.modern.listeners) == 0)


@requirement("tasks:modern:followed")
async def test_nobody_follows_the_task_of_another() -> None:
    async with rig(clients=CHATS, options=MODERN) as running:

        def person(user: str, chat: str) -> ModernClient:
            return ModernClient(running, capabilities=KNOWS, x_user=user, x_chat=chat)

        owner = person("ann", "one")
        task = await begun(owner, gate="g")
        for other in (person("ann", "two"), person("bob", "one")):
            async with following(running, other, taskIds=[task]) as (_, honoured):
                assert honoured == {}
        assert [entry.args for entry in running.upstream.ledger if "taskIds" in str(entry.args)] == []
        async with following(running, owner, taskIds=[task]) as (stream, honoured):
            assert honoured == {"taskIds": [task]}
            running.upstream.open_gate("g")
            assert text_in((await told(stream))["result"]) == "done for nobody"


@requirement("tasks:modern:followed")
async def test_a_server_that_tells_nothing_of_tasks_is_taken_at_its_word() -> None:
    async with rig(options={**MODERN, "unannounced": ("taskIds",)}) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        task = await begun(client, gate="g")
        async with following(running, client, taskIds=[task], toolsListChanged=True) as (_, honoured):
            assert honoured == {"toolsListChanged": True}
        running.upstream.open_gate("g")


@requirement("tasks:modern:followed")
async def test_a_server_with_a_handshake_has_no_tasks_to_follow() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        async with following(running, client, taskIds=["t1"], toolsListChanged=True) as (_, honoured):
            assert honoured == {"toolsListChanged": True}


@requirement("tasks:modern:followed")
async def test_when_the_server_ends_its_stream_the_client_looks_for_itself() -> None:
    async with rig(options=MODERN, restarts=True) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        task = await begun(client, gate="g")
        async with following(running, client, taskIds=[task]) as (stream, _):
            running.upstream.core.forget_all()
            assert (await next_message(stream))["result"]["resultType"] == "complete"
        running.upstream.open_gate("g")


@requirement("tasks:modern:followed")
async def test_who_leaves_ends_the_stream_at_the_server() -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        task = await begun(client, gate="g")
        before = len(running.upstream.sessions)
        async with following(running, client, taskIds=[task]):
            assert len(running.upstream.sessions) == before + 1
        await running.upstream.until(lambda: len(running.upstream.sessions) == before)
        running.upstream.open_gate("g")


@requirement("tasks:modern:followed")
async def test_a_reader_that_is_behind_is_told_the_newest_of_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        task = await begun(client, question="sure?")
        async with following(running, client, taskIds=[task]) as (stream, _):
            (listener,) = running.app.modern.listeners
            with monkeypatch.context() as patch:
                patch.setattr(DirectResponder, "is_slow", True)
                for status in ("working", "completed"):
                    listener.task_changed(
                        task, Raw(b'{"taskId":"%b","status":"%b"}' % (task.encode(), status.encode()))
                    )
            listener.catch_up()
            assert (await told(stream))["status"] == "completed"
            monkeypatch.setattr(listening, "MAX_OWED", 100)
            monkeypatch.setattr(DirectResponder, "is_slow", True)
            listener.task_changed(task, Raw(b'{"taskId":"%b","result":"%b"}' % (task.encode(), b"x" * 100)))
            assert "result" in (await next_message(stream)), "it looks for itself when it comes back"
        await client.result(client.message("tasks/cancel", taskId=task))


@requirement("tasks:modern:followed")
@pytest.mark.parametrize("wanted", ["m1", [1], ["m1"] * 1001, {"m1": True}])
async def test_what_is_no_list_of_tasks_is_refused(wanted: Any) -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c", capabilities=KNOWS)
        body = client.message("subscriptions/listen", notifications={"taskIds": wanted})
        assert (await client.refused(body))[1] == -32602
