"""A question of the server ends the request, and the call goes on when its client comes back with the answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import pytest

from holdfast.config import ClientSettings, Limits, Trust, key_digest
from holdfast.downstream import parked
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_tools import TOOLS, Tool, ToolCall, text_result
from modern_client import YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import TRANSPORTS, Rig, Transport, next_message, rig
from rows import row

NO: Final = {"action": "decline"}
TRUSTING: Final = (ClientSettings(name="local", trust=Trust(user="x-user", chat="x-chat")),)


def adding(monkeypatch: pytest.MonkeyPatch, name: str, run: Any) -> None:
    """Let the server have another tool."""
    monkeypatch.setitem(TOOLS, name, Tool(run, {"name": name, "inputSchema": {"type": "object"}}))


async def ask_twice(call: ToolCall) -> dict[str, Any]:
    """Put two questions at once, and tell both answers."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    wanted: list[dict[str, Any]] = [{"message": text, "requestedSchema": schema} for text in ("a", "b")]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(call.ask("elicitation/create", each)) for each in wanted]
    return text_result("".join(each.result()["content"][0]["text"] for each in asked))


def is_over(call: parked.ModernCall) -> bool:
    return call.is_over


async def until_nothing_waits(running: Rig) -> None:
    await running.until(lambda: len(running.app.modern.parked) == 0)
    await running.until_idle()


@requirement("modern:parked:the-call-goes-on")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("chat", ["c", None])
async def test_a_question_ends_the_request_and_its_answer_goes_on_with_the_call(
    transport: Transport, chat: str | None
) -> None:
    async with rig(transport) as running:
        client = ModernClient(running, chat=chat)
        for tool, method, answer in (
            ("ask", "elicitation/create", YES),
            ("ask", "elicitation/create", NO),
            ("sample", "sampling/createMessage", {"role": "assistant", "content": {"type": "text", "text": "x"}}),
            ("roots", "roots/list", {"roots": [{"uri": "file:///a"}]}),
        ):
            body = client.tool(tool, message="sure?", prompt="hi")
            result, (key,) = await client.asked(body)
            assert result["inputRequests"][key]["method"] == method
            if tool == "ask":
                assert result["inputRequests"][key]["params"]["message"] == "sure?"
            assert reply_in(await client.result(client.again(body, result, **{key: answer}))) == answer
        await until_nothing_waits(running)


@requirement("modern:parked:the-call-goes-on")
async def test_pages_to_visit_are_questions_without_an_id_of_the_session() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        body = client.tool("ask", message="sign in", mode="url")
        result, (key,) = await client.asked(body)
        params = result["inputRequests"][key]["params"]
        assert params["mode"] == "url"
        assert "elicitationId" not in params
        accepted = {"action": "accept"}
        assert reply_in(await client.result(client.again(body, result, **{key: accepted}))) == accepted


@requirement("modern:parked:several-questions")
async def test_questions_that_come_together_are_put_together_and_those_without_an_answer_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adding(monkeypatch, "twice", ask_twice)
    async with rig() as running:
        client = ModernClient(running, chat="c")
        body = client.tool("twice")
        result, keys = await client.asked(body)
        assert len(keys) == 2
        again, left = await client.asked(client.again(body, result, **{keys[0]: YES, "stray": NO}))
        assert left == keys[1:]
        assert again["requestState"] != result["requestState"]
        none, left = await client.asked(client.again(body, again))
        assert left == keys[1:]
        text = text_in(await client.result(client.again(body, none, **{left[0]: NO})))
        assert '"accept"' in text
        assert '"decline"' in text
        await until_nothing_waits(running)


@requirement("modern:parked:abilities")
async def test_who_cannot_answer_is_not_asked() -> None:
    async with rig() as running:
        unable: list[dict[str, Any]] = [{}, {"sampling": {}}, {"elicitation": {"url": {}}}]
        for capabilities in unable:
            client = ModernClient(running, chat="c", capabilities=capabilities)
            assert reply_in(await client.result(client.tool("ask", message="?"))) == {"action": "cancel"}
        client = ModernClient(running, chat="c", capabilities={"elicitation": {}})
        _, (key,) = await client.asked(client.tool("ask", message="?"))
        assert key
        assert reply_in(await client.result(client.tool("roots"))) == {"roots": []}
        running.app.modern.parked.close()


@requirement("modern:parked:abilities")
async def test_a_private_session_declares_what_its_one_client_can_be_asked() -> None:
    async with rig() as running:  # with the session that was opened at start, and declared everything
        unable = ModernClient(running, capabilities={"sampling": {}})
        assert "declared none" in text_in(await unable.result(unable.tool("roots")))
        assert "declared no elicitation" in text_in(await unable.result(unable.tool("ask", message="?")))
        able = ModernClient(running, capabilities={"elicitation": {}})
        body = able.tool("ask", message="?")
        result, (key,) = await able.asked(body)
        assert reply_in(await able.result(able.again(body, result, **{key: YES}))) == YES
        await running.until(lambda: len(running.upstream.sessions) == 1)  # that one


@requirement("modern:parked:progress")
async def test_of_the_progress_between_two_requests_the_newest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(call: ToolCall) -> dict[str, Any]:
        async def go_on() -> None:
            await call.core.wait_at_gate("asked")
            call.progress(2, 4)
            call.progress(3, 4)

        call.progress(1, 4)
        call.core.scope.start(go_on(), "progress")
        return await call.ask("elicitation/create", {"message": "?", "requestedSchema": {}})

    adding(monkeypatch, "busy", busy)
    async with rig() as running:
        client = ModernClient(running, chat="c")
        body = client.tool("busy", {"progressToken": "p"})
        *updates, asked = await client.events(body)
        assert [u["params"]["progress"] for u in updates] == [1]
        running.upstream.open_gate("asked")
        (call,) = running.app.modern.parked.waiting
        await running.until(lambda: call.latest is not None and bytes(call.latest["progress"]) == b"3")
        result = asked["result"]
        (key,) = result["inputRequests"]
        *updates, answer = await client.events(client.again(body, result, **{key: YES}))
        assert [u["params"]["progress"] for u in updates] == [3]
        assert {u["params"]["progressToken"] for u in updates} == {"p"}
        assert reply_in(answer["result"]) == YES


@row(4)
@requirement("modern:parked:sealed")
async def test_a_state_is_good_once_and_for_the_very_request_of_its_owner() -> None:
    async with rig(clients=TRUSTING) as running:
        owner = ModernClient(running, x_user="a", x_chat="c")
        body = owner.tool("ask", message="sure?")
        result, (key,) = await owner.asked(body)
        others = {
            "another user": ModernClient(running, x_user="b", x_chat="c"),
            "another chat": ModernClient(running, x_user="a", x_chat="d"),
            "no user": ModernClient(running, x_chat="c"),
            "no chat": ModernClient(running, x_user="a"),
        }
        refusals: set[str] = set()
        for who, other in others.items():
            status, code, error = await other.refused(other.again(body, result, **{key: YES}))
            assert (status, code) == (400, -32602), who
            refusals.add(error["message"])
        good = owner.again(body, result, **{key: YES})
        changes: list[dict[str, Any]] = [
            {"arguments": {"message": "sure!"}},
            {"arguments": {"message": "sure?", "more": 1}},
            {"name": "count", "arguments": {}},
            {"requestState": result["requestState"][:-2] + "!!"},
            {"requestState": result["requestState"] + "\n"},
            {"requestState": result["requestState"] + "="},
            {"requestState": ""},
        ]
        for change in changes:
            changed = {**good, "params": {**good["params"], **change}}
            status, code, error = await owner.refused(changed)
            assert (status, code) == (400, -32602), change
            refusals.add(error["message"])
        read = owner.message("resources/read", uri="memo://note", requestState=result["requestState"])
        assert (await owner.refused(read))[:2] == (400, -32602)
        assert len(refusals) == 1, "nobody learns why"
        assert reply_in(await owner.result(good)) == YES
        assert (await owner.refused(good))[:2] == (400, -32602)
        assert len(running.upstream.calls("ask")) == 1
        await until_nothing_waits(running)


@requirement("modern:parked:sealed")
async def test_nonsense_among_the_answers_does_not_use_the_state_up() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        body = client.tool("ask", message="?")
        result, (key,) = await client.asked(body)
        assert (await client.refused(client.again(body, result, **{key: "yes"})))[:2] == (400, -32602)
        assert reply_in(await client.result(client.again(body, result, **{key: YES}))) == YES


@requirement("modern:parked:expires")
@pytest.mark.parametrize("transport", ["sse", "json"])
async def test_who_does_not_come_back_is_answered_for_and_the_call_is_cancelled(transport: Transport) -> None:
    clock = ManualClock()
    async with rig(transport, clock=clock, ask_timeout=50.0, call_timeout=10.0) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("ask", message="?")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.asked(body))
            await running.until(lambda: len(running.app.modern.parked) == 1)
            await running.passing(parked.GATHERING)
        result, (key,) = asking.result()
        await running.passing(49.0)
        assert len(running.app.modern.parked) == 1, "the call's own time stands still"
        await running.passing(2.0)
        await until_nothing_waits(running)
        assert (await client.refused(client.again(body, result, **{key: YES})))[:2] == (400, -32602)
        assert text_in(await client.result(client.tool("count"))) == "1"


@requirement("modern:parked:cancelled")
async def test_closing_a_later_request_of_the_call_cancels_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_and_wait(call: ToolCall) -> dict[str, Any]:
        await call.ask("elicitation/create", {"message": "?", "requestedSchema": {}})
        call.progress(1, 2)
        await call.core.wait_at_gate("shut")
        return text_result("done")

    adding(monkeypatch, "ask_and_wait", ask_and_wait)
    async with rig() as running:
        client = ModernClient(running, chat="c")
        body = client.tool("ask_and_wait", {"progressToken": 1})
        result, (key,) = await client.asked(body)
        async with client.post(client.again(body, result, **{key: YES})) as response:
            assert (await next_message(response))["params"]["progress"] == 1
        (entry,) = running.upstream.calls("ask_and_wait")
        await running.upstream.until(lambda: entry.outcome == "cancelled")
        await until_nothing_waits(running)


@requirement("modern:parked:cancelled")
@pytest.mark.parametrize("is_later", [False, True], ids=["the first leg", "a later one"])
async def test_who_leaves_while_questions_are_gathered_cancels_the_call(
    is_later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_again(call: ToolCall) -> dict[str, Any]:
        for gate in ("first", "second"):
            await call.core.wait_at_gate(gate)
            await call.ask("elicitation/create", {"message": "?", "requestedSchema": {}})
        return text_result("done")

    adding(monkeypatch, "ask_again", ask_again)
    clock = ManualClock()
    async with rig(clock=clock) as running:
        client = ModernClient(running, chat="c")
        parked_calls = running.app.modern.parked
        body = client.tool("ask_again")
        if is_later:
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(client.asked(body))
                running.upstream.open_gate("first")
                await running.until(lambda: len(parked_calls) == 1)
                await running.passing(parked.GATHERING)
            result, (key,) = asking.result()
            body = client.again(body, result, **{key: YES})
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(client.result(body))
            await running.until(lambda: len(parked_calls) == 0)
            running.upstream.open_gate("second" if is_later else "first")
            await running.until(lambda: len(parked_calls) == 1)
            leaving.cancel()
        await until_nothing_waits(running)
        (entry,) = running.upstream.calls("ask_again")
        await running.upstream.until(lambda: entry.outcome == "cancelled")


@requirement("modern:parked:walked-away")
async def test_a_question_that_nobody_came_back_for_does_not_silence_the_next_call_of_its_chat() -> None:
    """Over stdio, where a question does not say whose call it belongs to."""
    async with rig("stdio") as running:
        client = ModernClient(running, chat="c")
        for _ in range(2):
            await client.asked(client.tool("ask", message="left"))
        body = client.tool("ask", message="sure?")
        result, (key,) = await client.asked(body)
        assert result["inputRequests"][key]["params"]["message"] == "sure?"
        assert reply_in(await client.result(client.again(body, result, **{key: YES}))) == YES
        assert len(running.app.modern.parked) == 2
        running.app.modern.parked.close()


@requirement("modern:parked:walked-away")
async def test_a_question_that_may_be_of_either_of_two_calls_at_work_is_declined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def outside(call: ToolCall) -> dict[str, Any]:
        await call.core.wait_at_gate("asking")
        assert call.session.push is not None
        answer = await call.session.ask(
            call.session.push, "elicitation/create", {"message": "?", "requestedSchema": {}}
        )
        return text_result(bytes(answer.result or b"").decode())

    async def busy(call: ToolCall) -> dict[str, Any]:
        await call.core.wait_at_gate("busy")
        return text_result("done")

    adding(monkeypatch, "outside", outside)
    adding(monkeypatch, "busy", busy)
    async with rig() as running:
        client = ModernClient(running, chat="c")
        assert text_in(await client.result(client.tool("count"))) == "1"
        await running.upstream.pushing()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.result(client.tool("outside")))
            working = group.create_task(client.result(client.tool("busy")))
            await running.upstream.until(lambda: len(running.upstream.calls("busy")) == 1)
            await running.upstream.until(lambda: len(running.upstream.calls("outside")) == 1)
            running.upstream.open_gate("asking")
            assert reply_in(await asking) == {"action": "cancel"}
            running.upstream.open_gate("busy")
        assert text_in(working.result()) == "done"


@requirement("modern:parked:bounded")
async def test_parked_calls_are_bounded_and_who_comes_then_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "MAX_PARKED", 3)
    monkeypatch.setattr(parked, "MAX_PARKED_PER_USER", 2)
    async with rig(clients=TRUSTING, gateway={"limits": Limits()}) as running:
        greedy, other = ModernClient(running, x_user="a", x_chat="c"), ModernClient(running, x_user="b", x_chat="c")
        cancelled = {"action": "cancel"}
        waiting: list[tuple[dict[str, Any], tuple[Any, list[str]]]] = []
        for _ in range(2):
            body = greedy.tool("ask", message="?")
            waiting.append((body, await greedy.asked(body)))
        assert reply_in(await greedy.result(greedy.tool("ask", message="?"))) == cancelled
        body = other.tool("ask", message="?")
        result, (key,) = await other.asked(body)
        assert reply_in(await other.result(other.tool("ask", message="?"))) == cancelled
        assert reply_in(await other.result(other.again(body, result, **{key: YES}))) == YES
        for body, (result, (key,)) in waiting:
            assert reply_in(await greedy.result(greedy.again(body, result, **{key: YES}))) == YES
        await until_nothing_waits(running)


@requirement("modern:parked:kept")
async def test_an_answer_that_comes_while_nobody_is_there_waits_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def impatient(call: ToolCall) -> dict[str, Any]:
        async def ask() -> None:
            await call.ask("elicitation/create", {"message": "?", "requestedSchema": {}})

        asked = call.core.scope.start(ask(), "ask")
        await call.core.wait_at_gate(call.text("gate"))
        asked.cancel()
        return text_result("x" * int(call.number("size")))

    adding(monkeypatch, "impatient", impatient)
    async with rig() as running:
        client = ModernClient(running, chat="c")
        for size in (10, parked.MAX_KEPT + 1):
            body = client.tool("impatient", size=size, gate=str(size))
            result, (key,) = await client.asked(body)
            running.upstream.open_gate(str(size))
            (call,) = running.app.modern.parked.waiting
            await running.until(partial(is_over, call))
            answer = (await client.events(client.again(body, result, **{key: YES})))[-1]
            if size == 10:
                assert text_in(answer["result"]) == "x" * 10
            else:
                assert answer["error"]["code"] == -31005
                assert answer["error"]["data"]["holdfast"]["delivery"] == "delivered"


@requirement("modern:parked:lost-session")
async def test_a_session_that_dies_ends_the_calls_that_wait_in_it() -> None:
    async with rig(restarts=True) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("ask", message="?")
        result, (key,) = await client.asked(body)
        (call,) = running.app.modern.parked.waiting
        await running.upstream.stop()
        await running.upstream.start()
        await running.until(lambda: call.is_over)
        error = (await client.events(client.again(body, result, **{key: YES})))[-1]["error"]
        assert error["code"] == -31002


@row(13)
@requirement("modern:parked:revoked")
async def test_a_client_whose_key_is_taken_away_loses_the_calls_that_wait_for_it() -> None:
    old, other = key_digest("old"), key_digest("other")
    clients = (ClientSettings(name="a", key_digests=(old,)), ClientSettings(name="b", key_digests=(other,)))
    async with rig(clients=clients) as running:
        gone = ModernClient(running, chat="c", authorization="Bearer old")
        stays = ModernClient(running, chat="c", authorization="Bearer other")
        body, kept = gone.tool("ask", message="?"), stays.tool("ask", message="?")
        result, (key,) = await gone.asked(body)
        kept_result, (kept_key,) = await stays.asked(kept)
        settings = running.gateway.settings.model_copy(update={"clients": clients[1:]})
        running.gateway.reload(settings)
        assert len(running.app.modern.parked) == 1
        async with gone.post(gone.again(body, result, **{key: YES})) as response:
            assert response.status == 401
        first, *_ = running.upstream.calls("ask")
        await running.upstream.until(lambda: first.outcome == "cancelled")
        assert reply_in(await stays.result(stays.again(kept, kept_result, **{kept_key: YES}))) == YES
