"""Tools that run as tasks: for clients that know of tasks, and for those that wait."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from holdfast.config import ClientSettings, Trust, key_digest
from holdfast.testing.clock import ManualClock
from modern_client import YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import REVISIONS, TRANSPORTS, Client, Rig, Transport, next_message, read_all, rig, text_of

ABLE: Final[dict[str, Any]] = {"elicitation": {}}
RELATED: Final = "io.modelcontextprotocol/related-task"
TWO: Final = tuple(
    ClientSettings(name=name, key_digests=(key_digest(name),), trust=Trust(user="x-user", chat="x-chat"))
    for name in "ab"
)
ABOUT: Final = ("tasks/get", "tasks/result", "tasks/cancel")


def errand(client: Client, **arguments: Any) -> dict[str, Any]:
    """Begin the tool as a task."""
    return client.call("tools/call", name="errand", arguments=arguments, task={"ttl": 60_000})


async def begun(client: Client, **arguments: Any) -> str:
    """The id of a new task."""
    task = (await client.ask(errand(client, **arguments)))["result"]["task"]
    assert task["status"] == "working"
    task_id: str = task["taskId"]
    return task_id


async def about(client: Client, method: str, task_id: str) -> Any:
    """The answer to a request about a task."""
    return await client.ask(client.call(method, taskId=task_id))


def tried(running: Rig, method: str) -> int:
    """How often the server was asked for `method`."""
    return [entry.method for entry in running.upstream.ledger].count(method)


async def until_tried(running: Rig, method: str, times: int) -> None:
    await running.upstream.until(lambda: tried(running, method) == times)


# Callers that know no tasks: the tool is run as one, and waited for.


@requirement("tasks:awaited:every-caller")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_tool_that_must_be_a_task_is_a_call_like_any_for_who_knows_no_tasks(transport: Transport) -> None:
    async with rig(transport) as running:
        for client in [await running.connected(revision) for revision in REVISIONS] + [running.client()]:
            answer = await client.ask(client.tool("errand", whom="you"))
            assert text_of(answer) == "done for you"
            assert RELATED not in answer["result"].get("_meta", {})
        for chat in ("c", None):
            modern = ModernClient(running, chat=chat)
            assert text_in(await modern.result(modern.tool("errand", whom="you"))) == "done for you"


@requirement("tasks:awaited:every-caller")
async def test_a_tool_that_was_never_listed_is_found_to_need_a_task_by_calling_it() -> None:
    async with rig(start="lazy", is_learnt=False) as running:
        client = running.client()
        for _ in range(2):
            assert text_of(await client.ask(client.tool("errand"))) == "done for nobody"
        refused = [entry for entry in running.upstream.ledger if entry.tool == "errand" and entry.outcome == "refused"]
        assert len(refused) == 1


@requirement("tasks:awaited:every-caller")
async def test_a_tool_that_does_not_exist_is_refused_in_the_servers_own_words() -> None:
    async with rig() as running:
        client = await running.connected()
        answer = await client.ask(client.tool("nonsense"))
        assert answer["error"] == {"code": -32602, "message": "Unknown tool: nonsense"}


@requirement("tasks:awaited:relayed")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_progress_log_and_questions_of_a_task_that_is_waited_for_are_its_calls_own(transport: Transport) -> None:
    async with rig(transport) as running:
        client = await running.connected(capabilities=ABLE)
        call = client.call(
            "tools/call",
            name="errand",
            arguments={"steps": 2, "log": "on my way", "question": "sure?"},
            _meta={"progressToken": "p"},
        )
        async with client.request("POST", call) as stream:
            told: list[Any] = []
            while "id" not in (message := await next_message(stream)):
                told.append(message)
            assert message["method"] == "elicitation/create"
            await client.reply(message, action="accept", content={"answer": "yes"})
            *more, answer = await read_all(stream)
            assert '"accept"' in text_of(answer)
        progress = [each["params"] for each in told + more if each["method"] == "notifications/progress"]
        assert [(each["progress"], each["progressToken"]) for each in progress] == [(1, "p"), (2, "p")]
        logs = [each["params"]["data"] for each in told + more if each["method"] == "notifications/message"]
        assert logs == ["on my way"]
        assert RELATED not in str([message, *told, *more, answer["result"].get("_meta")])


@requirement("tasks:awaited:relayed")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_question_of_a_task_that_is_waited_for_ends_the_request_of_a_modern_client(
    transport: Transport,
) -> None:
    async with rig(transport) as running:
        for chat in ("c", None):
            client = ModernClient(running, chat=chat)
            body = client.tool("errand", question="sure?")
            result, (key,) = await client.asked(body)
            assert RELATED not in str(result)
            final = await client.result(client.again(body, result, **{key: YES}))
            assert reply_in(final)["action"] == "accept"
            assert RELATED not in final["_meta"]


@requirement("tasks:awaited:relayed")
async def test_the_reply_to_a_tasks_question_says_which_task_it_belongs_to() -> None:
    async with rig() as running:
        client = await running.connected(capabilities=ABLE)
        async with client.request("POST", client.tool("errand", question="?")) as stream:
            question = await next_message(stream)
            await client.reply(question, action="decline")
            (answer,) = await read_all(stream)
        assert RELATED in text_of(answer)  # the tool gives back what it was answered


@requirement("tasks:awaited:cancel")
@pytest.mark.parametrize("chat", ["c", None])
async def test_a_client_that_leaves_cancels_the_task_that_was_waited_for(chat: str | None) -> None:
    async with rig() as running:
        client = ModernClient(running, chat=chat)
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(client.result(client.tool("errand", gate="g")))
            await running.upstream.entered("g")
            await until_tried(running, "tasks/result", 1)
            leaving.cancel()
        await until_tried(running, "tasks/cancel", 1)
        await running.upstream.until(
            lambda: [task.status for task in running.upstream.core.tasks.values()] == ["cancelled"]
        )


@requirement("tasks:awaited:cancel")
async def test_a_client_that_cancels_cancels_the_task_that_was_waited_for() -> None:
    async with rig() as running:
        client = await running.connected()
        async with client.request("POST", body := client.tool("errand", gate="g"), accept="text/event-stream"):
            await until_tried(running, "tasks/result", 1)
            await client.notify("notifications/cancelled", requestId=body["id"])
            await running.upstream.until(
                lambda: [task.status for task in running.upstream.core.tasks.values()] == ["cancelled"]
            )


@requirement("tasks:awaited:time")
async def test_a_task_that_shows_that_it_works_is_waited_for_beyond_the_time_of_silence() -> None:
    clock = ManualClock()
    async with rig(clock=clock, call_timeout=60) as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(client.ask(client.tool("errand", gate="g")))
            await until_tried(running, "tasks/result", 1)
            for looks in range(1, 11):
                await running.passing(15)
                await until_tried(running, "tasks/get", looks)
            running.upstream.open_gate("g")
        assert text_of(answer.result()) == "done for nobody"


@requirement("tasks:awaited:lost")
async def test_a_task_whose_session_is_lost_is_not_begun_again() -> None:
    async with rig("stdio") as running:
        client = await running.connected()
        call = client.tool("errand", steps=1, gate="g")
        call["params"]["_meta"] = {"progressToken": 1}
        async with client.request("POST", call) as stream:
            assert (await next_message(stream))["params"]["progress"] == 1
            await client.ask(client.tool("crash", before_answer=True))
            assert (await read_all(stream))[-1]["error"]["code"] == -31002


@requirement("tasks:lists")
async def test_who_cannot_begin_a_task_is_not_told_that_a_tool_must_be_one() -> None:
    async with rig() as running:
        client = await running.connected()
        tools = (await client.ask(client.call("tools/list")))["result"]["tools"]
        assert next(t for t in tools if t["name"] == "errand")["execution"] == {"taskSupport": "required"}
        modern = ModernClient(running)
        tools = (await modern.result(modern.message("tools/list")))["tools"]
        assert "execution" not in next(t for t in tools if t["name"] == "errand")


# Clients that know of tasks.


@requirement("tasks:handshake:pass")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_begins_a_task_looks_at_it_and_fetches_its_result(transport: Transport) -> None:
    async with rig(transport) as running:
        client = running.client()
        hello = await client.open()
        assert hello["capabilities"]["tasks"] == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
        task = await begun(client, whom="me")
        answer = await about(client, "tasks/result", task)
        assert text_of(answer) == "done for me"
        assert answer["result"]["_meta"][RELATED] == {"taskId": task}
        assert (await about(client, "tasks/get", task))["result"]["status"] == "completed"
        listed = (await client.ask(client.call("tasks/list")))["result"]["tasks"]
        assert [each["taskId"] for each in listed] == [task]
        assert (await about(client, "tasks/cancel", task))["error"]["code"] == -32602


@requirement("tasks:handshake:pass")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_task_is_cancelled_by_its_client(transport: Transport) -> None:
    async with rig(transport) as running:
        client = await running.connected()
        task = await begun(client, gate="never")
        assert (await about(client, "tasks/cancel", task))["result"]["status"] == "cancelled"
        assert (await about(client, "tasks/get", task))["result"]["status"] == "cancelled"


@requirement("tasks:handshake:pass")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_task_asks_on_the_stream_of_who_waits_for_its_result(transport: Transport) -> None:
    async with rig(transport) as running:
        client = await running.connected(capabilities=ABLE)
        task = await begun(client, question="sure?")
        async with client.request("POST", client.call("tasks/result", taskId=task)) as stream:
            while "id" not in (question := await next_message(stream)):
                assert question["method"] == "notifications/tasks/status"
            assert question["params"]["_meta"][RELATED] == {"taskId": task}
            await client.reply(question, action="accept", content={"answer": "yes"})
            assert '"accept"' in text_of((await read_all(stream))[-1])


@requirement("tasks:handshake:pass")
@pytest.mark.parametrize("transport", ["sse", "stdio"])
async def test_progress_and_status_of_a_task_reach_its_client_after_the_call_that_began_it(
    transport: Transport,
) -> None:
    async with rig(transport) as running:
        client = await running.connected()
        async with client.stream() as pushed:
            call = errand(client, steps=2)
            call["params"]["_meta"] = {"progressToken": "mine"}
            task = (await client.ask(call))["result"]["task"]["taskId"]
            told = [await next_message(pushed) for _ in range(3)]
        progress = [each["params"] for each in told if each["method"] == "notifications/progress"]
        assert [(each["progress"], each["progressToken"]) for each in progress] == [(1, "mine"), (2, "mine")]
        status = [each["params"] for each in told if each["method"] == "notifications/tasks/status"]
        assert [(each["taskId"], each["status"]) for each in status] == [(task, "completed")]


@requirement("tasks:owners")
@pytest.mark.parametrize("scope", ["chat", "user", "shared"])
async def test_a_task_is_unknown_to_everybody_but_the_conversation_that_began_it(scope: str) -> None:
    async with rig(clients=TWO, scope=scope) as running:

        def person(key: str, user: str, chat: str) -> Client:
            return running.client(authorization=f"Bearer {key}", x_user=user, x_chat=chat)

        owner = person("a", "ann", "c")
        await owner.open()
        task = await begun(owner, gate="g")
        others = [person("a", "ann", "d"), person("a", "bob", "c"), person("b", "ann", "c"), person("b", "bob", "d")]
        others += [running.client(authorization="Bearer a")]
        for other in others:
            await other.open()
        told: set[str] = set()
        for other in others:
            for method in ABOUT:
                error = (await about(other, method, task))["error"]
                told.add(str(error))
                assert error["code"] == -32602
                assert (await about(other, method, "t99"))["error"] == error
            assert (await other.ask(other.call("tasks/list")))["result"]["tasks"] == []
        assert len(told) == 1
        assert [tried(running, method) for method in ABOUT] == [0, 0, 0]
        mine = await begun(others[0], whom="others")
        assert [t["taskId"] for t in (await others[0].ask(others[0].call("tasks/list")))["result"]["tasks"]] == [mine]
        assert [t["taskId"] for t in (await owner.ask(owner.call("tasks/list")))["result"]["tasks"]] == [task]
        running.upstream.open_gate("g")
        assert text_of(await about(owner, "tasks/result", task)) == "done for nobody"


@requirement("tasks:owners")
async def test_the_same_conversation_comes_back_for_its_task_with_another_session_of_its_own() -> None:
    async with rig(clients=TWO) as running:
        first, second = (running.client(authorization="Bearer a", x_user="ann", x_chat="c") for _ in range(2))
        await first.open()
        task = await begun(first)
        await first.delete()
        await second.open()
        assert text_of(await about(second, "tasks/result", task)) == "done for nobody"
        curl = running.client(authorization="Bearer a", x_user="ann", x_chat="c")
        assert (await about(curl, "tasks/get", task))["result"]["status"] == "completed"


@requirement("tasks:owners")
@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_what_belongs_to_a_task_reaches_nobody_but_its_caller(scope: str) -> None:
    async with rig(clients=TWO, scope=scope) as running:
        owner, other = (
            running.client(authorization="Bearer a", x_user="ann", x_chat=chat) for chat in ("mine", "another")
        )
        await owner.open(**ABLE)
        await other.open(**ABLE)
        task = await begun(owner, gate="g")
        meta = {"_meta": {RELATED: {"taskId": task}}}
        log = {"level": "info", "data": "secret", **meta}
        async with owner.stream() as mine, other.stream() as theirs:
            for where in ("call", "push"):
                for method, params in (
                    ("notifications/message", log),
                    ("notifications/tasks/status", {"taskId": task, "status": "working"}),
                    ("holdfast.test/event", meta),
                ):
                    emit = other.tool("emit", method=method, params=params, where=where)
                    async with other.request("POST", emit) as response:
                        body = str(await response.json()) if "json" in response.headers["content-type"] else ""
                        body = body or str(await read_all(response))
                    assert task not in body
                    assert (await next_message(mine))["method"] == method
            await other.ask(other.tool("change_tools"))
            assert (await next_message(theirs))["method"] == "notifications/tools/list_changed"
        running.upstream.open_gate("g")


@requirement("tasks:owners")
async def test_a_caller_who_cannot_come_back_gets_the_result_and_no_task() -> None:
    async with rig() as running:
        client = running.client()
        assert text_of(await client.ask(errand(client, whom="curl"))) == "done for curl"
        assert (await client.ask(client.call("tasks/list")))["result"]["tasks"] == []
        assert (await about(client, "tasks/get", "t1"))["error"]["code"] == -32602


@requirement("tasks:lost")
async def test_who_comes_back_for_a_task_whose_session_is_lost_is_told() -> None:
    async with rig() as running:
        client = await running.connected()
        task = await begun(client)
        running.upstream.core.forget_all()
        answers = [await about(client, "tasks/get", task) for _ in range(2)]
        assert [answer["error"]["code"] for answer in answers] == [-31006, -32602]
