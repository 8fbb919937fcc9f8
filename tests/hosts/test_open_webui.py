"""Open WebUI, the real one, in front of Holdfast as docs/openwebui.md sets it up."""

from __future__ import annotations

import asyncio
import logging
import re
import statistics
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import pytest

from bare_client import BareClient
from holdfast.testing.server import ScriptedServer, ServerOptions
from hosts.fake_model import FakeModel
from hosts.open_webui import FILTER, PATIENCE, Person, beside, connection, open_webui, person_at
from hosts.relay import Relay
from interop.programs import holdfast
from processes import Process, free_port
from requirements import requirement

KEY: Final = "key-for-tests"
SIGNING: Final = "what Open WebUI signs its users' names with"
YES: Final = {"action": "accept", "content": {"answer": "yes"}}

logger = logging.getLogger(__name__)


@pytest.fixture(scope="module", params=["plain", "signed"])
def instance(
    request: pytest.FixtureRequest, model: FakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Instance]:
    """Open WebUI as the guide starts it: with its users' headers, or with their signed names."""
    signed = {"FORWARD_USER_INFO_HEADER_JWT_SECRET": SIGNING} if request.param == "signed" else {}
    folder = tmp_path_factory.mktemp("open-webui")
    with open_webui(folder, model.url, ENABLE_FORWARD_USER_INFO_HEADERS="true", **signed) as (url, process):
        yield Instance(url, process, model, is_signed=bool(signed))


class Instance:
    """A running Open WebUI, for several tests."""

    def __init__(self, url: str, process: Process, model: FakeModel, *, is_signed: bool) -> None:
        self.url = url
        self.process = process
        self.model = model
        self.is_signed = is_signed

    @asynccontextmanager
    async def house(
        self, via: Literal["", "relay", "old"] = "", *options: str, server: ServerOptions | None = None
    ) -> AsyncGenerator[House]:
        """A server, Holdfast in front of it, and Open WebUI connected to that, with Ada and Ben at their pages."""
        trust = ["--trust", "openwebui", *(("--jwt-secret", "${JWT_SECRET}") if self.is_signed else ())]
        secrets = {"OPEN_WEBUI_KEY": KEY, "JWT_SECRET": SIGNING}
        port = free_port()
        async with (
            ScriptedServer(server) as upstream,
            beside(
                holdfast(
                    *(upstream.url, "--name", "browser", "--key", "${OPEN_WEBUI_KEY}", *trust, *options),
                    port=port,
                    environment=secrets,
                )
            ) as (url, _),
            Relay(port, is_old=via == "old") as relay,
            person_at(self.url, "Ada", answer=YES) as ada,
            person_at(self.url, "Ben", answer=YES, admin=ada) as ben,
        ):
            house = House(ada, ben, upstream, relay, port)
            await house.connect(relay.url if via else url)
            yield house


class House:
    """All who take part."""

    def __init__(self, ada: Person, ben: Person, server: ScriptedServer, relay: Relay, port: int) -> None:
        self.ada = ada
        """The admin."""
        self.ben = ben
        self.server = server
        self.relay = relay
        self.port = port
        """Holdfast's."""

    async def connect(self, url: str, key: str = KEY) -> None:
        """Save the connection as the admin's dialog does, and let the model be known."""
        await self.ada.ask("POST", "/api/v1/configs/tool_servers", {"TOOL_SERVER_CONNECTIONS": [connection(url, key)]})
        assert (await self.ada.ask("GET", "/api/models"))["data"]

    async def use_up_what_is_open(self) -> None:
        """Let a chat have the session that was opened to learn the tools, so that the next chat has none."""
        assert (await self.ada.say("count {}")).text == "1"

    async def install_filter(self, **valves: Any) -> None:
        """Install the filter function, for every chat, or set its valves anew."""
        installed = {each["id"]: each for each in await self.ada.ask("GET", "/api/v1/functions/")}
        if "holdfast" not in installed:
            function = {
                "id": "holdfast",
                "name": "Holdfast",
                "content": FILTER.read_text(),
                "meta": {"description": ""},
            }
            await self.ada.ask("POST", "/api/v1/functions/create", function)
            await self.ada.ask("POST", "/api/v1/functions/id/holdfast/toggle")
            await self.ada.ask("POST", "/api/v1/functions/id/holdfast/toggle/global")
        await self.ada.ask("POST", "/api/v1/functions/id/holdfast/valves/update", valves)

    async def remove_filter(self) -> None:
        """Leave no filter to the next test."""
        await self.ada.ask("DELETE", "/api/v1/functions/id/holdfast/delete")


@requirement("hosts:openwebui:kept")
@pytest.mark.parametrize("via", ["relay", "old"])
async def test_each_chat_of_each_person_keeps_its_state_and_follow_ups_open_nothing(
    instance: Instance, via: Literal["relay", "old"]
) -> None:
    async with instance.house(via) as house:
        said: list[str] = []
        first = await house.ada.say("count {}")
        second = await house.ada.say("count {}")
        third = await house.ben.say("count {}")
        assert house.server.initializes == 3, "the first chat has the session that was opened to learn the tools"
        for person, chat in ((house.ada, first), (house.ada, second), (house.ben, third)) * 3:
            said.append((await person.say("count {}", chat.chat)).text)
        assert (first.text, second.text, third.text) == ("1", "1", "1")
        assert said == ["2", "2", "2", "3", "3", "3", "4", "4", "4"]
        assert house.server.initializes == 3, "a follow-up opened a session"
        methods = [each.method or each.verb for each in house.relay.passed]
        assert methods.count("server/discover") == 12
        assert methods.count("initialize") == (12 if via == "old" else 0)
        assert methods.count("DELETE") == (12 if via == "old" else 0)


@requirement("hosts:openwebui:asks")
@pytest.mark.parametrize("via", ["", "old"])
async def test_a_servers_question_is_answered_by_the_person_whose_chat_it_is(
    instance: Instance, via: Literal["", "old"]
) -> None:
    async with instance.house(via) as house:
        ada, ben = await house.ada.say('ask {"message": "Sure?"}'), await house.ben.say("count {}")
        assert '"answer": "yes"' in ada.text
        assert ben.text == "1"
        kinds = [
            [each["data"]["type"] for each in person.events if "data" in each] for person in (house.ada, house.ben)
        ]
        assert ["request:elicitation" in each for each in kinds] == [True, False]


@requirement("hosts:openwebui:stop")
@pytest.mark.parametrize("via", ["", "old"])
async def test_stop_cancels_the_call_at_the_server_and_the_chat_goes_on(
    instance: Instance, via: Literal["", "old"]
) -> None:
    async with instance.house(via) as house:
        assert (await house.ada.say("count {}")).text == "1"
        chat = (await house.ada.say("count {}")).chat
        await house.ada.begin('progress {"steps": 2, "gate": "never"}', chat)
        async with asyncio.timeout(PATIENCE):
            await house.server.entered("never")
            await house.ada.ask("POST", f"/api/tasks/chat/{chat}/stop")
            await house.server.until(lambda: [each.outcome for each in house.server.calls("progress")] == ["cancelled"])
        assert (await house.ada.say("count {}", chat)).text == "2"


@requirement("hosts:openwebui:restart")
async def test_after_a_restart_of_the_server_the_loss_is_told_once_and_the_chat_goes_on(instance: Instance) -> None:
    async with instance.house() as house:
        chats = [await house.ada.say("count {}"), await house.ben.say("count {}")]
        await house.server.stop()
        await house.server.start()
        for person, chat in zip((house.ada, house.ben), chats, strict=True):
            told = await person.say("count {}", chat.chat)
            assert "session" in told.text, "the model is told what was lost"
            assert "lost" in told.text
            assert (await person.say("count {}", chat.chat)).text == "1"
            assert (await person.say("count {}", chat.chat)).text == "2"


@requirement("hosts:openwebui:filter")
async def test_the_filter_opens_a_chats_session_before_the_model_is_asked_and_says_so(instance: Instance) -> None:
    async with instance.house(server=ServerOptions(open_delay=0.3)) as house:
        await house.use_up_what_is_open()
        await house.install_filter()
        begun = time.monotonic()
        first = await house.ada.say("count {}")
        assert first.text == "1"
        assert len(first.statuses) == 2
        assert first.statuses[0] == "Connecting to browser…"
        assert re.fullmatch(r"browser ready: \d+ tools in \d+ ms", first.statuses[1])
        assert first.statuses == house.ada.statuses(first.message)
        asked = next(each for each in instance.model.asked if each.at > begun)
        assert asked.at - begun > 0.3, "the model was asked before the session was open"
        opened = house.server.initializes
        follow_up = await house.ada.say("count {}", first.chat)
        assert (follow_up.text, follow_up.statuses) == ("2", []), "a session that is open is not worth a word"
        assert (await house.ben.say("count {}")).statuses[0] == "Connecting to browser…"
        assert house.server.initializes == opened + 1
        await house.remove_filter()


@requirement("hosts:openwebui:filter")
async def test_a_session_that_takes_long_is_waited_for_no_longer_than_the_valve_says(instance: Instance) -> None:
    async with instance.house(server=ServerOptions(open_delay=3.0)) as house:
        await house.use_up_what_is_open()
        await house.install_filter(wait=0.1)
        begun = time.monotonic()
        answer = await house.ada.say("Hello")
        asked = next(each for each in instance.model.asked if each.at > begun)
        assert answer.text == "There is nothing to call."
        assert asked.at - begun < 2.5
        ready = await house.ada.heard(lambda event: "ready" in str(event.get("data", {}).get("data", {})))
        assert ready["message_id"] == answer.message
        await house.remove_filter()


@requirement("hosts:openwebui:filter")
async def test_without_holdfast_a_message_goes_on_and_the_next_ones_do_not_even_try(instance: Instance) -> None:
    async with instance.house() as house:
        await house.install_filter()
        await house.connect(f"http://127.0.0.1:{free_port()}/mcp")
        for _ in range(2):
            answer = await house.ada.say("Hello")
            assert answer.text == "There is nothing to call."
            assert all("holdfast" not in line.lower() or "Failed to connect" in line for line in answer.statuses)
        assert instance.process.output.count("it is left alone for 30 s") >= 1
        await house.remove_filter()


@requirement("hosts:openwebui:filter")
async def test_a_server_that_cannot_be_reached_is_named_above_the_answer(instance: Instance) -> None:
    async with instance.house() as house:
        await house.install_filter()
        await house.server.stop()
        answer = await house.ada.say("Hello")
        assert answer.text == "There is nothing to call."
        assert answer.statuses[-1].startswith("browser failed: ")
        await house.remove_filter()


@requirement("hosts:openwebui:signed")
async def test_a_user_who_is_not_signed_reaches_nothing_where_users_are_signed(instance: Instance) -> None:
    async with instance.house() as house:
        chat = (await house.ada.say("count {}")).chat
        impostor = BareClient(house.port)
        impostor.headers |= {"authorization": f"Bearer {KEY}", "x-openwebui-chat-id": chat}
        async with impostor.request(
            "POST", impostor.tool("count"), "/mcp", x_openwebui_user_id=house.ada.id
        ) as response:
            answer = await response.body()
        if instance.is_signed:
            assert response.status == 403
            assert b"x-openwebui-user-id alone" in answer
        else:  # the host is believed: this is Ada's own session
            assert b'"text":"2"' in answer.replace(b" ", b"")


@requirement("hosts:openwebui:swift")
async def test_what_a_warm_message_and_a_cold_start_wait_for(instance: Instance) -> None:
    async with instance.house("relay", server=ServerOptions(open_delay=0.3)) as house:
        chat = (await house.ada.say("count {}")).chat
        sums: list[float] = []
        for _ in range(10):
            before = len(house.relay.passed)
            await house.ada.say("count {}", chat)
            sums.append(sum(each.seconds for each in house.relay.passed[before:]) * 1000)
        logger.info("a warm message: 3 requests, %.2f ms median, server and relay included", statistics.median(sums))
        assert statistics.median(sums) < 60
        lines: list[float] = []
        client = BareClient(house.port)
        client.headers |= {"authorization": f"Bearer {KEY}", "accept": "text/event-stream"}
        named = "x_openwebui_user_id"
        for number in range(5 if not instance.is_signed else 0):
            begun = time.monotonic()
            async with client.request(
                "POST", {}, "/api/warm", **{named: "eve", "x_openwebui_chat_id": str(number)}
            ) as response:
                event = await response.event()
                lines.append((time.monotonic() - begun) * 1000)
                assert event is not None
                assert b"connecting" in event.data
        if lines:
            logger.info("the first line of a cold start: %.2f ms median", statistics.median(lines))
            assert statistics.median(lines) < 100
