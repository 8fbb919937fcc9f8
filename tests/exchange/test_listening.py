"""`subscriptions/listen`: one stream that tells of changes for as long as its client reads it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from bare_client import Response
from holdfast.config import ClientSettings, GatewaySettings, Limits, Trust
from holdfast.downstream.direct import DirectResponder
from holdfast.testing.server_tools import NOTE_URI
from modern_client import KEY, ModernClient, text_in
from requirements import requirement
from rig import TRANSPORTS, Rig, Transport, next_message, read_all, rig
from several import several

LISTS: Final = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
TRUSTING: Final = (ClientSettings(name="local", trust=Trust(user="x-user", chat="x-chat")),)


@asynccontextmanager
async def listening(client: ModernClient, **wanted: Any) -> AsyncGenerator[tuple[Response, Any, Any]]:
    """A stream with what was honoured, and the id of its request."""
    body = client.message("subscriptions/listen", notifications=wanted)
    async with client.post(body) as response:
        assert response.status == 200
        first = await next_message(response)
        assert first["method"] == ACKNOWLEDGED
        assert subscription_of(first) == body["id"]
        yield response, first["params"]["notifications"], body["id"]


def subscription_of(message: Any) -> Any:
    return message["params"]["_meta"][KEY + "subscriptionId"]


async def until_unheard(running: Rig) -> None:
    """Return once the gateway has seen that nobody listens."""
    await running.until(lambda: len(running.app.modern.listeners) == 0)


@requirement("modern:listen:lists")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_changes_of_lists_are_told_to_who_asked_for_them(transport: Transport) -> None:
    async with rig(transport) as running:
        client = ModernClient(running, chat="c")
        await client.result(client.tool("count"))
        async with (
            listening(client, **LISTS) as (all_of_them, honoured, number),
            listening(client, promptsListChanged=True) as (others, narrow, other_number),
        ):
            assert honoured == LISTS
            assert narrow == {"promptsListChanged": True}
            await client.result(client.tool("change_tools"))
            told = await next_message(all_of_them)
            assert told["method"] == "notifications/tools/list_changed"
            assert subscription_of(told) == number
            emitted = client.tool("emit", method="notifications/prompts/list_changed", where="call")
            await client.result(emitted)
            for stream, whose in ((all_of_them, number), (others, other_number)):
                told = await next_message(stream)
                assert told["method"] == "notifications/prompts/list_changed"
                assert subscription_of(told) == whose
        await until_unheard(running)


@requirement("modern:listen:lists")
async def test_who_names_no_chat_hears_of_lists_and_of_no_resource() -> None:
    async with rig() as running:
        client, other = ModernClient(running), ModernClient(running, chat="c")
        async with listening(client, toolsListChanged=True, resourceSubscriptions=[NOTE_URI]) as (stream, honoured, _):
            assert honoured == {"toolsListChanged": True}
            await other.result(other.tool("change_resource"))
            await other.result(other.tool("change_tools"))
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"
        await until_unheard(running)


@requirement("modern:listen:resources")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_resource_is_subscribed_to_once_and_until_nobody_listens(transport: Transport) -> None:
    async with rig(transport) as running:
        client = ModernClient(running, chat="c")

        def subscriptions() -> set[str]:
            return {uri for session in running.server.pool.sessions for uri in session.subscriptions}

        async with listening(client, resourceSubscriptions=[NOTE_URI, NOTE_URI]) as (stream, honoured, number):
            assert honoured == {"resourceSubscriptions": [NOTE_URI]}
            async with listening(client, resourceSubscriptions=[NOTE_URI]) as (second, _, _):
                await client.result(client.tool("change_resource", text="x"))
                for each in (stream, second):
                    told = await next_message(each)
                    assert told["method"] == "notifications/resources/updated"
                    assert told["params"]["uri"] == NOTE_URI
            await running.until(lambda: len(running.app.modern.listeners) == 1)
            assert subscriptions() == {NOTE_URI}
            await client.result(client.tool("change_resource", text="y"))
            assert subscription_of(await next_message(stream)) == number
        await until_unheard(running)
        await running.until_idle()
        assert subscriptions() == set()
        if transport != "stdio":
            (session,) = running.upstream.sessions.values()
            await running.upstream.until(lambda: not session.subscriptions)
            asked = [entry.method for entry in running.upstream.ledger if "subscribe" in entry.method]
            assert asked == ["resources/subscribe", "resources/unsubscribe"]


@requirement("modern:listen:resources")
async def test_other_chats_do_not_hear_of_a_resource() -> None:
    async with rig() as running:
        client, other = ModernClient(running, chat="a"), ModernClient(running, chat="b")
        async with (
            listening(client, resourceSubscriptions=[NOTE_URI], promptsListChanged=True) as (stream, _, _),
            listening(other, promptsListChanged=True) as (deaf, _, _),
        ):
            await client.result(client.tool("change_resource"))
            assert (await next_message(stream))["method"] == "notifications/resources/updated"
            emit = client.tool("emit", method="notifications/prompts/list_changed", where="call")
            await client.result(emit)
            assert (await next_message(deaf))["method"] == "notifications/prompts/list_changed"
        await until_unheard(running)


@requirement("modern:listen:resources")
async def test_after_a_loss_the_resource_is_subscribed_to_again() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        async with listening(client, resourceSubscriptions=[NOTE_URI]) as (stream, _, _):
            await client.result(client.tool("forget_session"))
            await running.until_idle()
            while True:  # the first of these may be told that the session before is gone
                answer = (await client.events(client.tool("change_resource")))[-1]
                if "result" in answer:
                    break
            assert (await next_message(stream))["method"] == "notifications/resources/updated"
        await until_unheard(running)


@requirement("modern:listen:ends-in-order")
async def test_the_stream_ends_in_order_when_the_gateway_drains_or_has_new_settings() -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        settings: GatewaySettings = running.gateway.settings
        for end in (running.gateway.app.send_away, lambda: running.gateway.reload(settings)):
            async with listening(client, **LISTS) as (stream, _, number):
                end()
                (last,) = await read_all(stream)
                assert last["id"] == number
                assert last["result"] == {"resultType": "complete", "_meta": {KEY + "subscriptionId": number}}
            assert len(running.app.modern.listeners) == 0


@requirement("modern:listen:refused")
async def test_who_takes_no_stream_or_listens_too_often_is_refused() -> None:
    limits = Limits(sessions=3, sessions_per_user=1)
    async with rig(clients=TRUSTING, gateway={"limits": limits}) as running:
        client = ModernClient(running, x_user="a", x_chat="c")
        body = client.message("subscriptions/listen", notifications=LISTS)
        async with client.post(body, accept="application/json") as response:
            assert response.status == 406
        async with listening(client, **LISTS):
            assert (await client.refused(body))[0] == 429
            others = [ModernClient(running, x_user=user, x_chat="c") for user in "bc"]
            async with listening(others[0], **LISTS), listening(others[1], **LISTS):
                assert (await ModernClient(running, x_user="d").refused(body))[0] == 503
        await until_unheard(running)


@requirement("modern:listen:refused")
async def test_a_server_that_cannot_be_reached_is_said_to_be_so() -> None:
    async with rig(is_learnt=False, start="lazy", restarts=True, open_timeout=2.0) as running:
        await running.upstream.stop()
        client = ModernClient(running, chat="c")
        answer = (await client.events(client.message("subscriptions/listen", notifications=LISTS)))[-1]
        assert answer["error"]["code"] == -31001
        await running.upstream.start()
        await until_unheard(running)


@requirement("modern:listen:merged")
async def test_changes_of_all_servers_come_on_one_stream_with_the_names_that_clients_know() -> None:
    async with several("memory", "other") as running:
        client = ModernClient(running, chat="c")
        listed = (await client.result(client.message("resources/list")))["resources"]
        uris = [each["uri"] for each in listed if each["uri"].endswith(NOTE_URI)]
        assert len(uris) == 2
        async with listening(client, toolsListChanged=True, resourceSubscriptions=uris) as (stream, honoured, number):
            assert sorted(honoured["resourceSubscriptions"]) == sorted(uris)
            for server in ("memory", "other"):
                assert text_in(await client.result(client.tool(f"{server}__change_resource"))) == "changed"
                told = await next_message(stream)
                assert told["method"] == "notifications/resources/updated"
                assert subscription_of(told) == number
                uris.remove(told["params"]["uri"])
            await client.result(client.tool("other__change_tools"))
            assert (await next_message(stream))["method"] == "notifications/tools/list_changed"
        assert uris == []
        await until_unheard(running)


@requirement("modern:listen:slow-readers")
async def test_a_reader_that_is_behind_is_told_each_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        async with listening(client, **LISTS) as (stream, _, _):
            (listener,) = running.app.modern.listeners
            with monkeypatch.context() as patch:
                patch.setattr(DirectResponder, "is_slow", True)
                for _ in range(1000):
                    listener.push("notifications/tools/list_changed", None)
                    listener.push("notifications/prompts/list_changed", None)
            listener.catch_up()
            told = [(await next_message(stream))["method"] for _ in range(2)]
            assert told == ["notifications/tools/list_changed", "notifications/prompts/list_changed"]
            listener.end()
            assert "result" in (await next_message(stream))
        await until_unheard(running)
