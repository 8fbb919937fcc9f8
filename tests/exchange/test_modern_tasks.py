"""The tasks extension of 2026-07-28 between clients and servers of that revision, and where only one side has it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from holdfast.config import ClientSettings, Trust, key_digest
from holdfast.testing.clock import ManualClock
from modern_client import YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import Rig, next_message, read_all, rig, text_of

EXTENSION: Final = "io.modelcontextprotocol/tasks"
KNOWS: Final[dict[str, Any]] = {"elicitation": {"form": {}}, "extensions": {EXTENSION: {}}}
TWO: Final = tuple(
    ClientSettings(name=name, key_digests=(key_digest(name),), trust=Trust(user="x-user", chat="x-chat"))
    for name in "ab"
)
ABOUT: Final = ("tasks/get", "tasks/update", "tasks/cancel")
MODERN: Final = {"era": "modern"}
UNKNOWN: Final = -32602
MISSING: Final = -32021


def tried(running: Rig, method: str) -> int:
    """How often the server was asked for `method`."""
    return [entry.method for entry in running.upstream.ledger].count(method)


async def until_tried(running: Rig, method: str, times: int) -> None:
    await running.upstream.until(lambda: tried(running, method) >= times)


async def begun(client: ModernClient, **arguments: Any) -> str:
    """The id of a new task."""
    result = await client.result(client.tool("errand", **arguments))
    assert result["resultType"] == "task", result
    task_id: str = result["taskId"]
    return task_id


async def looked(client: ModernClient, task_id: str, status: str) -> Any:
    """The task, once it has that status."""
    while True:
        task = await client.result(client.message("tasks/get", taskId=task_id))
        assert task["resultType"] == "complete"
        if task["status"] == status:
            return task


@requirement("tasks:modern:pass")
@pytest.mark.parametrize("chat", ["c", None])
async def test_a_task_passes_with_its_questions_and_its_result(chat: str | None) -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat=chat, capabilities=KNOWS)
        found = await client.result(client.message("server/discover"))
        assert EXTENSION in found["capabilities"]["extensions"]
        result = await client.result(client.tool("errand", question="sure?"))
        assert {"resultType", "taskId", "status", "createdAt", "ttlMs", "pollIntervalMs"} <= result.keys()
        asking = await looked(client, result["taskId"], "input_required")
        ((name, question),) = asking["inputRequests"].items()
        assert question["method"] == "elicitation/create"
        update = client.message("tasks/update", taskId=result["taskId"], inputResponses={name: YES})
        assert (await client.result(update))["resultType"] == "complete"
        done = await looked(client, result["taskId"], "completed")
        assert reply_in(done["result"]) == YES
        assert "ttlMs" in done


@requirement("tasks:modern:pass")
async def test_a_task_is_cancelled_by_its_client() -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, capabilities=KNOWS)
        task = await begun(client, gate="g")
        await client.result(client.message("tasks/cancel", taskId=task))
        assert "result" not in await looked(client, task, "cancelled")


@requirement("tasks:modern:declared")
async def test_who_does_not_declare_the_extension_gets_no_task_and_may_ask_of_none() -> None:
    async with rig(options=MODERN) as running:
        client, other = ModernClient(running, capabilities=KNOWS), ModernClient(running)
        task = await begun(client, gate="g")
        for method in ABOUT:
            status, code, error = await other.refused(other.message(method, taskId=task, inputResponses={}))
            assert (status, code) == (400, MISSING)
            assert error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        listen = other.message("subscriptions/listen", notifications={"taskIds": [task]})
        assert (await other.refused(listen))[:2] == (400, MISSING)


@requirement("tasks:modern:declared")
async def test_a_server_of_the_handshake_era_has_none_of_the_extensions_methods() -> None:
    async with rig() as running:
        client = ModernClient(running, capabilities=KNOWS)
        found = await client.result(client.message("server/discover"))
        assert EXTENSION not in found["capabilities"]["extensions"]
        for method in ABOUT:
            status, code, _ = await client.refused(client.message(method, taskId="t1", inputResponses={}))
            assert (status, code) == (404, -32601)
        assert text_in(await client.result(client.tool("errand"))) == "done for nobody"


@requirement("tasks:owners")
@pytest.mark.parametrize("scope", ["chat", "user", "shared"])
async def test_a_task_is_unknown_to_everybody_but_the_conversation_that_began_it(scope: str) -> None:
    async with rig(clients=TWO, scope=scope, options=MODERN) as running:

        def person(key: str, user: str | None, chat: str | None) -> ModernClient:
            headers = {"authorization": f"Bearer {key}"} | ({} if user is None else {"x-user": user})
            return ModernClient(running, chat=chat, capabilities=KNOWS, **headers)

        owner = person("a", "ann", "c")
        task = await begun(owner, gate="g")
        others = [("a", "ann", "d"), ("a", "bob", "c"), ("b", "ann", "c"), ("a", "ann", None), ("a", None, "c")]
        told: set[str] = set()
        for other in [person(*each) for each in others]:
            for method in ABOUT:
                for task_id in (task, "m99"):
                    _, code, error = await other.refused(other.message(method, taskId=task_id, inputResponses={}))
                    assert code == UNKNOWN
                    told.add(str(error))
        assert len(told) == 1
        assert [tried(running, method) for method in ABOUT] == [0, 0, 0]
        running.upstream.open_gate("g")
        assert text_in((await looked(owner, task, "completed"))["result"]) == "done for nobody"


@requirement("tasks:owners")
async def test_a_client_that_names_its_users_and_leaves_one_unnamed_gets_no_task() -> None:
    async with rig(clients=TWO, options=MODERN) as running:
        client = ModernClient(running, capabilities=KNOWS, authorization="Bearer a")
        assert text_in(await client.result(client.tool("errand"))) == "done for nobody"


# Callers that know nothing of the extension: the task is waited for.


@requirement("tasks:modern:awaited")
async def test_a_modern_servers_tool_that_must_be_a_task_is_a_call_like_any_for_who_knows_none() -> None:
    async with rig(options=MODERN) as running:
        for client in (await running.connected(), running.client()):
            assert text_of(await client.ask(client.tool("errand", whom="you"))) == "done for you"
        modern = ModernClient(running)
        assert text_in(await modern.result(modern.tool("errand", whom="you"))) == "done for you"
        hello = await running.client().open()
        assert EXTENSION not in hello["capabilities"]["extensions"]


@requirement("tasks:modern:awaited")
async def test_a_modern_servers_task_that_is_waited_for_asks_its_calls_client() -> None:
    async with rig(options=MODERN) as running:
        client = await running.connected(capabilities={"elicitation": {}})
        async with client.request("POST", client.tool("errand", question="sure?")) as stream:
            question = await next_message(stream)
            assert (question["method"], question["params"]["message"]) == ("elicitation/create", "sure?")
            await client.reply(question, **YES)
            assert '"accept"' in text_of((await read_all(stream))[-1])
        modern = ModernClient(running, chat="c", capabilities={"elicitation": {}})
        body = modern.tool("errand", question="sure?")
        result, (key,) = await modern.asked(body)
        assert reply_in(await modern.result(modern.again(body, result, **{key: YES}))) == YES


@requirement("tasks:modern:awaited")
async def test_a_client_that_cancels_cancels_a_modern_servers_task_that_was_waited_for() -> None:
    async with rig(options=MODERN) as running:
        client = await running.connected()
        async with client.request("POST", body := client.tool("errand", gate="g"), accept="text/event-stream"):
            await running.upstream.until(lambda: tried(running, "tasks/get") > 0)
            await client.notify("notifications/cancelled", requestId=body["id"])
            await running.upstream.until(lambda: tried(running, "tasks/cancel") == 1)


@requirement("tasks:modern:awaited")
async def test_a_modern_servers_task_at_work_is_waited_for_beyond_the_time_of_silence() -> None:
    clock = ManualClock()
    async with rig(clock=clock, options=MODERN, call_timeout=60) as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(client.ask(client.tool("errand", gate="g")))
            await running.upstream.entered("g")
            for looks in range(1, 11):
                await running.passing(15)
                await until_tried(running, "tasks/get", looks)
            running.upstream.open_gate("g")
            await running.upstream.until(lambda: all(task.is_over for task in running.upstream.core.tasks.values()))
            await running.passing(15)
        assert text_of(answer.result()) == "done for nobody"
