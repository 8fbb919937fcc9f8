"""A client's own session: minted, used, resumed, idle, deleted; and whose it is."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.config import ClientSettings, Limits, Trust, key_digest
from holdfast.session.pool import Pool
from holdfast.testing.clock import ManualClock
from holdfast.wire.headers import is_session_id
from requirements import requirement
from rig import Transport, rig, text_of

TWO_CLIENTS = (
    ClientSettings(name="one", key_digests=(key_digest("k1"),), trust=Trust(user="x-user", chat="x-chat")),
    ClientSettings(name="two", key_digests=(key_digest("k2"),)),
)


@requirement("exchange:sessions:ids-are-ours")
async def test_initialize_mints_an_id_that_no_server_knows() -> None:
    async with rig() as running:
        first, second = await running.connected(), await running.connected()
        ids = {first.headers["mcp-session-id"], second.headers["mcp-session-id"]}
        assert len(ids) == 2
        assert all(is_session_id(name) and len(name) >= 22 for name in ids)
        assert not ids & running.upstream.sessions.keys()


@requirement("exchange:sessions:ids-are-ours")
async def test_the_id_also_comes_with_an_initialize_that_is_answered_by_a_stream() -> None:
    async with rig() as running:
        client = running.client(accept="text/event-stream")
        await client.open()
        assert await client.tool_text("count") == "1"
        assert await client.tool_text("count") == "2"


@requirement("exchange:sessions:ids-are-ours")
async def test_the_id_also_comes_where_the_server_is_slow_to_open() -> None:
    clock = ManualClock()
    options = {"open_delay": 8.0}
    async with rig(clock=clock, server_clock=clock, options=options, start="lazy", is_learnt=False) as running:
        client = running.client()
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(client.open())
            await running.upstream.until(lambda: running.upstream.core.opening == 1)
            await running.passing(8)
            await opening
        assert "mcp-session-id" in client.headers


@requirement("exchange:sessions:not-found-is-not-found")
async def test_foreign_ended_and_made_up_ids_get_the_same_404() -> None:
    async with rig(clients=TWO_CLIENTS) as running:
        owner = running.client(authorization="Bearer k1", x_user="ann")
        await owner.open()
        ended = running.client(authorization="Bearer k1", x_user="ann")
        await ended.open()
        ended_id = ended.headers["mcp-session-id"]
        assert await ended.delete() == 204
        session_id = owner.headers["mcp-session-id"]
        impostors = [
            ({"authorization": "Bearer k1", "x-user": "bob"}, session_id),
            ({"authorization": "Bearer k1"}, session_id),
            ({"authorization": "Bearer k2"}, session_id),
            ({"authorization": "Bearer k2", "x-user": "ann"}, session_id),
            ({"authorization": "Bearer k1", "x-user": "ann"}, ended_id),
            ({"authorization": "Bearer k1", "x-user": "ann"}, session_id.swapcase()),
            ({"authorization": "Bearer k1", "x-user": "ann"}, "made-up"),
        ]
        answers: set[tuple[int, bytes]] = set()
        for headers, name in impostors:
            client = running.client(**headers, mcp_session_id=name)
            for method, body in (("POST", client.tool("count")), ("GET", None), ("DELETE", None)):
                async with client.request(method, body, accept=None if body else "text/event-stream") as response:
                    answers.add((response.status, await response.body()))
        assert len(answers) == 1
        assert answers.pop()[0] == 404
        assert running.upstream.calls() == []
        assert await owner.tool_text("count") == "1"


@requirement("exchange:sessions:survives-upstream-loss")
@pytest.mark.parametrize("unknown", [400, 404])
async def test_a_client_session_outlives_the_server_forgetting_its_own(unknown: int) -> None:
    async with rig(options={"unknown_session": unknown}) as running:
        client = await running.connected()
        assert await client.tool_text("count") == "1"
        running.upstream.core.forget_all()
        codes: list[int] = []
        for _ in range(2):
            answer = await client.ask(client.tool("count"))
            codes.append(answer["error"]["code"] if "error" in answer else int(text_of(answer)))
        assert codes == [-31006, 1]  # told once that its memory is gone, then served
        assert await client.delete() == 204


@requirement("exchange:sessions:survives-upstream-loss")
async def test_a_client_session_outlives_a_restart_of_the_server() -> None:
    async with rig(restarts=True) as running:
        client = await running.connected()
        assert text_of(await client.ask(client.tool("echo")))
        await running.upstream.stop()
        await running.upstream.start()
        for _ in range(2):
            async with client.request("POST", client.call("tools/list")) as response:
                assert response.status == 200
            async with client.request("POST", client.tool("echo")) as response:
                assert response.status == 200


@requirement("exchange:sessions:delete")
async def test_delete_is_answered_at_once_and_ends_what_only_the_session_named() -> None:
    async with rig() as running:
        client = await running.connected()
        await client.tool_text("count")
        (upstream,) = running.upstream.sessions
        gone = dict(client.headers)
        assert await client.delete() == 204
        await running.upstream.until(lambda: running.upstream.sessions == {})
        assert running.upstream.deletes == 1
        assert ("DELETE", upstream) in [(m, h.get("mcp-session-id")) for m, h in running.upstream.received]
        assert await running.client(**gone).status("DELETE") == 404
        assert await running.client(**gone).post(client.tool("count")) == 404


@requirement("upstream:close:delivers")
@pytest.mark.parametrize("transport", ["sse", "json", "legacy"])
async def test_what_runs_when_its_session_ends_is_cancelled_at_the_server_too(transport: Transport) -> None:
    """To end the session there would not do: servers work on."""
    async with rig(transport) as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            group.create_task(client.ask(client.tool("slow", gate="g")))
            await running.upstream.entered("g")
            assert await client.delete() == 204
        upstream = running.upstream
        await upstream.until(lambda: any(e.method == "notifications/cancelled" for e in upstream.ledger))


@requirement("exchange:sessions:delete")
async def test_delete_ends_running_calls_and_streams() -> None:
    async with rig() as running:
        client = await running.connected()
        async with client.stream() as pushed, asyncio.TaskGroup() as group:
            call = client.tool("slow", gate="g")
            answer = group.create_task(client.ask(call))
            await running.upstream.entered("g")
            assert await client.delete() == 204
            ended = await answer
            assert ended["id"] == call["id"]
            assert ended["error"]["code"] == -31002
            while (event := await pushed.event()) is not None:
                assert event.data == b""
        await running.upstream.until(lambda: running.upstream.calls("slow")[0].outcome == "cancelled")


@requirement("exchange:sessions:idle")
async def test_a_client_session_ends_when_it_was_idle_for_long_enough() -> None:
    clock = ManualClock()
    async with rig(clock=clock, gateway={"client_idle_timeout": 100.0}) as running:
        idle, listening = await running.connected(), await running.connected()
        await idle.tool_text("count")
        async with listening.stream():
            for _ in range(3):
                await running.passing(25)
                await idle.tool_text("count")
            await running.passing(90)
            assert await idle.tool_text("count") == "5"
            await running.passing(130)
            assert await idle.post(idle.tool("count")) == 404
            assert len(running.app.sessions) == 1
            await running.upstream.until(lambda: running.upstream.deletes == 1)
        await running.passing(1)
        await running.until_unread(listening)
        await running.passing(130)
        assert len(running.app.sessions) == 0


@requirement("exchange:sessions:idle")
async def test_a_running_call_keeps_its_client_session() -> None:
    clock = ManualClock()
    async with rig(clock=clock, gateway={"client_idle_timeout": 100.0}, call_timeout=10_000.0) as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(client.ask(client.tool("slow", gate="g")))
            await running.upstream.entered("g")
            await running.passing(1000)
            running.upstream.open_gate("g")
            assert text_of(await answer) == "done"
        assert await client.tool_text("count") == "1"


@requirement("exchange:sessions:idle")
async def test_a_call_whose_client_left_keeps_its_client_session() -> None:
    clock = ManualClock()
    async with rig(clock=clock, gateway={"client_idle_timeout": 100.0}, call_timeout=10_000.0) as running:
        client = await running.connected()
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(client.ask(client.tool("slow", gate="g")))
            await running.upstream.entered("g")
            await running.passing(1)
            leaving.cancel()
        await running.until(lambda: running.session_of(client).requests == 0)
        await running.passing(1000)
        assert running.upstream.calls("slow")[0].outcome == "running"
        running.upstream.open_gate("g")
        await running.until(lambda: running.session_of(client).calls == {})
        assert await client.tool_text("count") == "1"


@requirement("exchange:sessions:bounded")
async def test_a_user_who_opens_too_many_sessions_loses_its_own_idle_ones() -> None:
    async with rig(clients=(ClientSettings(name="host", trust=Trust(user="x-user")),)) as running:
        bystander = running.client(x_user="bob")
        await bystander.open()
        busy, *others = [running.client(x_user="ann") for _ in range(Limits().sessions_per_user)]
        await busy.open()
        async with busy.stream():
            for client in others:
                await client.open()
            late = running.client(x_user="ann")
            await late.open()
            assert len(running.app.sessions) == Limits().sessions_per_user + 1
            assert await others[0].post(others[0].call("ping")) == 404
            for client in (busy, others[1], late, bystander):
                assert await client.post(client.call("ping")) == 200


@requirement("exchange:sessions:bounded")
async def test_sessions_beyond_the_limit_are_refused_for_a_while() -> None:
    async with rig(gateway={"limits": Limits(sessions=2)}) as running:
        first, _ = await running.connected(), await running.connected()
        late = running.client()
        hello = late.call("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
        async with late.request("POST", hello) as response:
            assert response.status == 503
            assert response.headers["retry-after"] == "30"
        assert await first.delete() == 204
        await late.open()


@requirement("exchange:sessions:bounded")
async def test_a_client_session_of_very_many_chats_forgets_those_that_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.downstream.client.MAX_CONVERSATIONS", 10)
    async with rig(max_sessions=2) as running:
        client = await running.connected()
        for number in range(40):
            call = client.tool("count")
            call["params"]["_meta"] = {"dev.holdfast/chat": str(number)}
            assert text_of(await client.ask(call)) == "1"
            assert len(running.session_of(client).conversations) <= 11
            assert len(vars(running.session_of(client))["_subscriptions"]) <= 11


@requirement("exchange:sessions:bounded")
async def test_a_client_session_whose_passed_headers_always_differ_forgets_what_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.downstream.client.MAX_CONVERSATIONS", 10)
    async with rig(max_sessions=2, pass_headers=("x-trace",), is_learnt=False) as running:
        client = await running.connected()
        for number in range(40):
            answer = await client.ask(client.tool("count"), **{"x-trace": str(number)})
            assert text_of(answer) == "1"
            assert len(running.session_of(client).conversations) <= 11
        assert text_of(await client.ask(client.tool("count"), **{"x-trace": "39"})) == "2"


@requirement("exchange:sessions:bounded")
async def test_a_conversation_whose_call_waits_is_not_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.downstream.client.MAX_CONVERSATIONS", 2)
    async with rig(max_sessions=2, pass_headers=("x-trace",), is_learnt=False) as running:
        client = await running.connected()
        held = [client.tool("slow", gate=f"g{number}") for number in range(2)]
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(client.ask(body, **{"x-trace": f"h{number}"})) for number, body in enumerate(held)
            ]
            for number in range(2):
                await running.upstream.entered(f"g{number}")
            late = [
                group.create_task(client.ask(client.tool("count"), **{"x-trace": f"l{number}"})) for number in range(3)
            ]
            await running.until(lambda: running.server.pool.waiting == 3)
            for number in range(2):
                running.upstream.open_gate(f"g{number}")
        assert all("result" in call.result() for call in calls)
        assert [text_of(call.result()) for call in late] == ["1", "1", "1"]


@requirement("exchange:sessions:ids-are-ours")
async def test_an_initialize_that_the_end_of_the_gateway_overtakes_is_refused() -> None:
    clock = ManualClock()
    options = {"open_delay": 3.0}
    async with rig(clock=clock, server_clock=clock, options=options, start="lazy", is_learnt=False) as running:
        client = running.client()
        hello = client.call("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={})
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(client.ask(hello))
            await running.upstream.until(lambda: running.upstream.core.opening == 1)
            closings = [group.create_task(server.pool.aclose()) for server in running.gateway.servers]
            assert (await answer)["error"]["code"] == -31001
            while not all(closing.done() for closing in closings):  # the id that the server gives away is waited for
                await clock.advance_settled(1)
        assert len(running.app.sessions) == 0


@requirement("exchange:sessions:answered-whatever-fails")
async def test_a_request_that_fails_within_the_gateway_is_answered_and_its_id_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    def fail(*_: object) -> None:
        raise RuntimeError

    async with rig() as running:
        client = await running.connected()
        call = client.tool("count")
        with monkeypatch.context() as patch:
            patch.setattr(Pool, "start", fail)
            patch.setattr("holdfast.downstream.requests.logger.exception", said.append)
            assert (await client.ask(call))["error"]["code"] == -32603
        assert "result" in await client.ask(call)
        assert running.session_of(client).calls == {}
    assert said == ["a request failed"]
