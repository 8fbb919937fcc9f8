"""The clients of each kind: what they have in common is in pair_driver.py."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, Final

from bare_client import Response
from holdfast.tasks import TaskScope
from holdfast.wire.revisions import MODERN
from modern_client import KEY, ModernClient
from old_client import OldClient, streaming
from pair_driver import Driver, Place, Talk, begun, capabilities, unique
from pairs import ClientKind, Outcome
from pipe_rig import PipeClient, pipe_client
from rig import next_message, read_all

LISTENING: Final = "notifications/subscriptions/acknowledged"
LIMIT: Final = 30.0
"""Seconds for a client to begin, and for whatever it tries: generous, for slow machines."""


class SessionDriver(Driver):
    """A client with a session, whatever its wire: it is pushed what concerns it."""

    def __init__(self, place: Place, revision: str) -> None:
        super().__init__(place, revision)
        self.heard: list[Any] = []
        """What came, and was not looked for yet."""
        self._ids = count(1)

    @abstractmethod
    async def send(self, message: Any) -> None:
        """Send one message."""

    @abstractmethod
    async def receive(self) -> Any:
        """The next message, whatever stream it comes on."""

    async def open(self) -> None:
        """Begin the session."""
        async with asyncio.timeout(LIMIT):
            hello = await self.result(
                "initialize",
                protocolVersion=self.revision,
                capabilities=capabilities(self.revision),
                clientInfo={"name": "pair", "version": "1"},
            )
        assert hello["protocolVersion"] == self.revision
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def request(self, method: str, params: dict[str, Any]) -> int:
        """Send a request; its id."""
        number = next(self._ids)
        await self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    async def until(self, method: str, **said: Any) -> Any:
        """The params of the next notification of this method that says so; what else comes is heard."""
        while not (
            found := [
                m for m in self.heard if m.get("method") == method and m.get("params", {}).items() >= said.items()
            ]
        ):
            self.heard.append(await self.receive())
        self.heard.remove(found[0])
        return found[0].get("params")

    async def talk(
        self, method: str, params: dict[str, Any], meta: dict[str, Any] | None = None, answer: Any = None
    ) -> Talk:
        talk = Talk()
        number = await self.request(method, {**params, "_meta": meta} if meta else params)
        while talk.answer is None:
            message = await self.receive()
            if "method" not in message:
                assert message["id"] == number
                talk.answer = message
            elif "id" in message:
                talk.questions.append(message)
                await self.send({"jsonrpc": "2.0", "id": message["id"], "result": answer})
            else:
                talk.heard.append(message)
                self.heard.append(message)
        return talk

    def name_chat(self, chat: str) -> None:
        """Its session is its chat."""

    async def wanting(self, level: str) -> dict[str, Any]:
        await self.result("logging/setLevel", level=level)
        return {}

    async def cancel(self) -> Outcome:
        canary, params = self.endless()
        number = await self.request("tools/call", params)
        await self.until("notifications/progress", progressToken=canary, progress=1)
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
        await self.send(note)
        return await self.check_that_it_was_cancelled(canary)

    async def subscribe(self) -> Outcome:
        uri, text = await self.note(), unique("text")
        await self.result("resources/subscribe", uri=uri)
        await self.place.until_pushing()
        await self.call("change_resource", text=text)
        assert await self.until("notifications/resources/updated") == {"uri": uri}
        await self.check_note(uri, text)
        await self.result("resources/unsubscribe", uri=uri)
        return Outcome.YES

    async def list_changed(self) -> Outcome:
        await self.call("count")
        await self.place.until_pushing()
        is_there = await self.change_tools()
        await self.until("notifications/tools/list_changed")
        await self.check_extra(is_there)
        return Outcome.YES

    async def elicitation_complete(self) -> Outcome:
        """It is told to who was asked, and not to who shares the chat, on whose call the server says it.

        A server of 2026-07-28 has no word for it, and then its answer says it.
        """
        complete = "notifications/elicitation/complete"
        chat = {"dev.holdfast/chat": unique("complete")}
        accepted = {"action": "accept"}
        asked = await self.call("ask", dict(chat), accepted, message="look", mode="url")
        async with AsyncExitStack() as stack:
            other = await stack.enter_async_context(streamable(self.place, "2025-11-25"))
            said = await other.call("visited", dict(chat))
            if not asked.questions or (said.text != "said" and not self.place.server.is_modern):
                assert complete not in [m.get("method") for m in (*self.heard, *other.heard)]
                return Outcome.NONE
            await self.until(complete, elicitationId=asked.questions[0]["params"]["elicitationId"])
            await self.place.until_pushing()
            await self.change_tools()
            await other.until("notifications/tools/list_changed")  # by then it would have come
            assert complete not in [m.get("method") for m in other.heard]
        return Outcome.YES


class OldDriver(SessionDriver):
    """Over HTTP+SSE: one stream, and POSTs that are answered on it."""

    def __init__(self, place: Place, revision: str, wire: OldClient) -> None:
        super().__init__(place, revision)
        self._wire = wire

    async def send(self, message: Any) -> None:
        assert await self._wire.post(message) == 202

    async def receive(self) -> Any:
        return await self._wire.message()


class PipeDriver(SessionDriver):
    """Lines to and from the process that it started."""

    def __init__(self, place: Place, revision: str, wire: PipeClient) -> None:
        super().__init__(place, revision)
        self._wire = wire

    async def send(self, message: Any) -> None:
        self._wire.send(message)

    async def receive(self) -> Any:
        return await self._wire.next()


class HttpDriver(SessionDriver):
    """Over Streamable HTTP: every POST has a stream of its own, and there is one for what belongs to none."""

    def __init__(self, place: Place, revision: str, scope: TaskScope) -> None:
        super().__init__(place, revision)
        self.http = place.client()
        self._path = place.path("mcp")
        self._scope = scope
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._is_listening = asyncio.Event()

    async def open(self) -> None:
        await super().open()
        self._scope.start(self._listen(), "the GET stream")
        await self._is_listening.wait()

    async def close(self) -> None:
        """End the session."""
        async with self.http.request("DELETE", None, self._path) as response:
            assert response.status == 204

    async def send(self, message: Any) -> None:
        if "id" in message and "method" in message:
            self._scope.start(self._post(message), "a POST")
        else:
            assert await self.http.post(message, self._path) == 202

    async def receive(self) -> Any:
        return await self._received.get()

    async def _post(self, message: Any) -> None:
        async with self.http.request("POST", message, self._path) as response:
            if response.status != 200:
                error = {"code": response.status, "message": (await response.body()).decode()}
                self._received.put_nowait({"id": message["id"], "error": error})
                return
            if message["method"] == "initialize":
                self.http.headers["mcp-session-id"] = response.headers["mcp-session-id"]
                if self.revision >= "2025-06-18":
                    self.http.headers["mcp-protocol-version"] = self.revision
            await self._take(response)

    async def _listen(self) -> None:
        async with self.http.request("GET", None, self._path, accept="text/event-stream") as response:
            assert response.status == 200
            self._is_listening.set()
            await self._take(response)

    async def _take(self, response: Response) -> None:
        if response.headers["content-type"] == "application/json":
            self._received.put_nowait(await response.json())
            return
        while (event := await response.event()) is not None:
            if event.data:
                self._received.put_nowait(json.loads(event.data))


class CurlDriver(Driver):
    """POSTs that bear no session: the client can be told while it waits, and that is all."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, "")
        self._http = place.client()
        self._path = place.path("mcp")
        if place.is_merged:
            self.name_chat(unique("curl"))

    async def talk(
        self, method: str, params: dict[str, Any], meta: dict[str, Any] | None = None, answer: Any = None
    ) -> Talk:
        talk = Talk()
        body = self._http.call(method, **params, **({"_meta": meta} if meta else {}))
        async with self._http.request("POST", body, self._path) as response:
            assert response.status == 200, await response.body()
            is_json = response.headers["content-type"] == "application/json"
            *talk.heard, talk.answer = [await response.json()] if is_json else await read_all(response)
        assert all("id" not in message for message in talk.heard), "it cannot be asked"
        return talk

    def name_chat(self, chat: str) -> None:
        self._http.headers["x-chat"] = chat

    async def wanting(self, level: str) -> dict[str, Any]:
        raise NotImplementedError

    async def log(self) -> Outcome:
        for level, is_heard in (("info", True), ("debug", False)):
            what = unique("message")
            talk = await self.call("log", level=level, message=what)
            assert (what in [each["data"] for each in talk.told("notifications/message")]) is is_heard
        return Outcome.YES

    async def cancel(self) -> Outcome:
        self.name_chat(unique("cancel"))
        canary, params = self.endless()
        async with self._http.request("POST", self._http.call("tools/call", **params), self._path) as response:
            await begun(response)
        return await self.check_that_it_was_cancelled(canary)

    async def subscribe(self) -> Outcome:
        """Where a session would outlast the request it is refused; else it ends with the request."""
        answer = (await self.talk("resources/subscribe", {"uri": await self.note()})).answer
        assert "error" in answer or not self.place.is_merged
        talk = await self.call("change_resource", text=unique("text"))
        assert talk.told("notifications/resources/updated") == []
        return Outcome.NONE

    async def list_changed(self) -> Outcome:
        assert (await self.call("change_tools")).told("notifications/tools/list_changed") == []
        return Outcome.NONE


class ModernDriver(Driver):
    """Requests of 2026-07-28: it names its chat, and comes back where it is asked."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, MODERN)
        self._client = ModernClient(
            place, chat=unique("modern"), capabilities=capabilities(MODERN), path=place.path("mcp")
        )

    async def talk(
        self, method: str, params: dict[str, Any], meta: dict[str, Any] | None = None, answer: Any = None
    ) -> Talk:
        talk = Talk()
        body: dict[str, Any] = self._client.message(method, meta, **params)
        while True:
            talk.heard += await self._leg(body, talk)
            result = talk.answer.get("result", {})
            if result.get("resultType") != "input_required":
                return talk
            requests: dict[str, Any] = result.get("inputRequests", {})
            talk.questions += requests.values()
            talk.is_parked |= self.parked > 0
            self._client.http.next_id += 1
            body = {**body, "id": self._client.http.next_id}
            body["params"] = body["params"] | {"inputResponses": dict.fromkeys(requests, answer)}
            if "requestState" in result:
                body["params"]["requestState"] = result["requestState"]

    @property
    def parked(self) -> int:
        """The calls that wait for clients like this one."""
        return self.place.parked

    async def _leg(self, body: dict[str, Any], talk: Talk) -> list[Any]:
        async with self._client.post(body) as response:
            is_json = response.headers["content-type"] == "application/json"
            *heard, talk.answer = [await response.json()] if is_json else await read_all(response)
        assert talk.answer["id"] == body["id"]
        return heard

    def name_chat(self, chat: str) -> None:
        self._client.meta["dev.holdfast/chat"] = chat

    async def wanting(self, level: str) -> dict[str, Any]:
        return {KEY + "logLevel": level}

    async def cancel(self) -> Outcome:
        canary, params = self.endless()
        async with self._client.post(self._client.message("tools/call", params.pop("_meta"), **params)) as response:
            await begun(response)
        return await self.check_that_it_was_cancelled(canary)

    @asynccontextmanager
    async def listening(self, **wanted: Any) -> AsyncGenerator[Callable[[], Awaitable[Any]]]:
        """What gives the next change, once all that is wanted was granted."""
        await self.call("count")  # or the chat has no session yet
        body = self._client.message("subscriptions/listen", notifications=wanted)
        async with self._stream(body) as following:
            granted = await following()
            assert granted["method"] == LISTENING
            assert granted["params"]["notifications"] == wanted
            await self.place.until_pushing()
            yield following

    @asynccontextmanager
    async def _stream(self, body: dict[str, Any]) -> AsyncGenerator[Callable[[], Awaitable[Any]]]:
        """What gives the next message of the answer, until the client leaves."""
        async with self._client.post(body) as response:
            yield partial(next_message, response)

    async def subscribe(self) -> Outcome:
        uri, text = await self.note(), unique("text")
        async with self.listening(resourceSubscriptions=[uri]) as following:
            await self.call("change_resource", text=text)
            told = await following()
            assert (told["method"], told["params"]["uri"]) == ("notifications/resources/updated", uri)
        await self.check_note(uri, text)
        return Outcome.YES

    async def list_changed(self) -> Outcome:
        async with self.listening(toolsListChanged=True) as following:
            is_there = await self.change_tools()
            assert (await following())["method"] == "notifications/tools/list_changed"
        await self.check_extra(is_there)
        return Outcome.YES


class ModernPipeDriver(ModernDriver):
    """The same over a pipe, on which all answers come."""

    def __init__(self, place: Place, pipes: PipeClient) -> None:
        super().__init__(place)
        self._pipes = pipes
        self._changes: list[Any] = []
        """Told to who listens, and not looked for yet."""

    @property
    def parked(self) -> int:
        return len(self._pipes.stdio.modern.parked)

    async def _leg(self, body: dict[str, Any], talk: Talk) -> list[Any]:
        self._pipes.send(body)
        heard: list[Any] = []
        while (message := await self._pipes.next()).get("id") != body["id"]:
            assert "id" not in message, "nothing is asked in this way"
            is_change = KEY + "subscriptionId" in message["params"].get("_meta", {})
            (self._changes if is_change else heard).append(message)
        talk.answer = message
        return heard

    async def cancel(self) -> Outcome:
        canary, params = self.endless()
        body = self._client.message("tools/call", params.pop("_meta"), **params)
        self._pipes.send(body)
        assert (await self._pipes.next())["params"]["progressToken"] == canary
        self._pipes.notify("notifications/cancelled", requestId=body["id"])
        return await self.check_that_it_was_cancelled(canary)

    @asynccontextmanager
    async def _stream(self, body: dict[str, Any]) -> AsyncGenerator[Callable[[], Awaitable[Any]]]:
        async def following() -> Any:
            message = self._changes.pop(0) if self._changes else await self._pipes.next()
            assert message["params"]["_meta"][KEY + "subscriptionId"] == body["id"]
            return message

        self._pipes.send(body)
        yield following
        self._pipes.notify("notifications/cancelled", requestId=body["id"])
        self._changes.clear()


@asynccontextmanager
async def streamable(place: Place, revision: str) -> AsyncGenerator[HttpDriver]:
    """A client over Streamable HTTP, with its session."""
    async with TaskScope() as scope:
        driver = HttpDriver(place, revision, scope)
        await driver.open()
        try:
            yield driver
        finally:
            await driver.close()


@asynccontextmanager
async def driver_of(kind: ClientKind, place: Place) -> AsyncGenerator[Driver]:
    """A client of that kind that has begun."""
    async with AsyncExitStack() as stack:
        match kind.transport:
            case "HTTP+SSE":
                wire = await stack.enter_async_context(streaming(place, place.path("sse")))
                old = OldDriver(place, kind.revision, wire)
                await old.open()
                yield old
            case "stdio":
                service = place.gateway.servers.merged if place.is_merged else place.gateway.servers[place.server.name]
                pipes = await stack.enter_async_context(pipe_client(place.gateway, service=service))
                if kind.revision == MODERN:
                    yield ModernPipeDriver(place, pipes)
                    return
                piped = PipeDriver(place, kind.revision, pipes)
                await piped.open()
                yield piped
            case _ if not kind.revision:
                yield CurlDriver(place)
            case _ if kind.revision == MODERN:
                yield ModernDriver(place)
            case _:
                yield await stack.enter_async_context(streamable(place, kind.revision))
