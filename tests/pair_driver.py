"""What a client tries at a scripted server, feature by feature, whatever its wire is."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from bare_client import Response
from holdfast.gateway import Gateway
from holdfast.servers.names import qualified
from holdfast.testing.server import ScriptedServer
from holdfast.testing.server_tools import NOTE_URI
from holdfast.wire.revisions import MODERN
from modern_client import YES
from pairs import Feature, Outcome, ServerKind
from rig import Client, next_message, text_of

SAID: Final[dict[str, Any]] = {"role": "assistant", "content": {"type": "text", "text": "ho"}, "model": "m"}
USES: Final[dict[str, Any]] = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "u1", "name": "weather", "input": {}}],
    "model": "m",
    "stopReason": "toolUse",
}
ROOTS: Final[dict[str, Any]] = {"roots": [{"uri": "file:///a"}]}

_names = count(1)


def unique(what: str) -> str:
    """A name that nothing else in the run has."""
    return f"{what}{next(_names)}"


def capabilities(revision: str) -> dict[str, Any]:
    """All that a client of the revision can be asked."""
    declared: dict[str, Any] = {"sampling": {}, "roots": {}}
    if revision >= "2025-06-18":
        declared["elicitation"] = {}
    if revision >= "2025-11-25":
        declared |= {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}}
    return declared


async def begun(response: Response) -> None:
    """Return when the server reports its first step; what is less are status lines of the gateway."""
    while (await next_message(response))["params"].get("progress", 0) < 1:
        pass


@dataclass(frozen=True)
class Place:
    """Where a client finds its server, and what it calls what is there."""

    gateway: Gateway
    port: int
    server: ServerKind
    upstream: ScriptedServer | None
    """The server, where it is in this process."""
    is_merged: bool

    def client(self, **headers: str) -> Client:
        """A client that sends these headers with every request."""
        client = Client(self.port)
        client.headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        return client

    def path(self, start: str) -> str:
        """The endpoint."""
        return f"/{start}" if self.is_merged else f"/{start}/{self.server.name}"

    def name(self, own: str) -> str:
        """What a tool or prompt is called there."""
        return f"{self.server.name}__{own}" if self.is_merged else own

    def uri(self, own: str, listed: list[str]) -> str:
        """What a resource is called there."""
        marked = qualified(self.server.name, own)
        return marked if marked in listed else own

    async def until_pushing(self) -> None:
        """Return once the server can tell every session what belongs to no call."""
        if self.upstream is not None and not self.server.is_modern:
            await self.upstream.pushing()

    @property
    def parked(self) -> int:
        """How many calls wait in the gateway for their clients."""
        return len(self.gateway.app.modern.parked)


@dataclass
class Talk:
    """One request, and all that came of it until its answer."""

    answer: Any = None
    heard: list[Any] = field(default_factory=list[Any])
    """Notifications that came before the answer."""
    questions: list[Any] = field(default_factory=list[Any])
    is_parked: bool = False
    """The call waited in the gateway while the client was away."""

    @property
    def text(self) -> str:
        return text_of(self.answer)

    def told(self, method: str) -> list[Any]:
        """The params of the notifications of this method."""
        return [message["params"] for message in self.heard if message["method"] == method]

    def outcome(self, method: str, answer: Any) -> Outcome:
        """How the server's one question fared, to which `answer` is the answer."""
        if self.questions:
            (question,) = self.questions
            assert question["method"] == method
            assert json.loads(self.text) == answer
            return Outcome.PARKED if self.is_parked else Outcome.YES
        if "has no such thing" in self.text:
            return Outcome.NONE
        no = ("it declared", '"cancel"', "-32601", '"roots":[]')
        assert any(word in self.text for word in no), self.text
        return Outcome.DECLINED


class Driver(ABC):
    """One client at one server, and what it tries; each feature is a method that is called as it is."""

    def __init__(self, place: Place, revision: str) -> None:
        self.place = place
        self.revision = revision

    async def tries(self, feature: Feature) -> Outcome:
        """How the feature fares."""
        method: Callable[[], Awaitable[Outcome]] = getattr(self, feature.name.lower())
        return await method()

    @abstractmethod
    async def talk(
        self, method: str, params: dict[str, Any], meta: dict[str, Any] | None = None, answer: Any = None
    ) -> Talk:
        """Make a request; whatever is asked meanwhile gets `answer`."""

    async def call(self, tool: str, meta: dict[str, Any] | None = None, answer: Any = None, **arguments: Any) -> Talk:
        """Call a tool."""
        return await self.talk("tools/call", {"name": self.place.name(tool), "arguments": arguments}, meta, answer)

    async def result(self, method: str, **params: Any) -> Any:
        """The result of a request."""
        answer = (await self.talk(method, params)).answer
        assert "result" in answer, answer
        return answer["result"]

    # What all do in the same way.

    async def tools(self) -> Outcome:
        assert self.place.name("echo") in await self.tool_names()
        echoed = json.loads((await self.call("echo", a=[1, "é"])).text)
        assert echoed["arguments"] == {"a": [1, "é"]}
        return Outcome.YES

    async def memory(self) -> Outcome:
        self.name_chat(unique("memory"))
        await self.call("remember", key="k", value="kept")
        assert (await self.call("recall", key="k")).text == "kept"
        return Outcome.YES

    async def resources(self) -> Outcome:
        read = await self.result("resources/read", uri=await self.note())
        assert read["contents"][0]["text"]
        templates = (await self.result("resources/templates/list"))["resourceTemplates"]
        assert any(each["uriTemplate"].endswith("memo://item/{id}") for each in templates)
        return Outcome.YES

    async def prompts(self) -> Outcome:
        name = self.place.name("greet")
        assert name in [prompt["name"] for prompt in (await self.result("prompts/list"))["prompts"]]
        got = await self.result("prompts/get", name=name, arguments={"name": "Ada"})
        assert got["messages"][0]["content"]["text"] == "Greet Ada."
        return Outcome.YES

    async def completion(self) -> Outcome:
        ref = {"type": "ref/prompt", "name": self.place.name("greet")}
        got = await self.result("completion/complete", ref=ref, argument={"name": "name", "value": "Al"})
        assert got["completion"]["values"] == ["Alan", "Alonzo"]
        return Outcome.YES

    async def pagination(self) -> Outcome:
        pages = await self.pages()
        assert len(pages) > 2 or self.place.is_merged, "there, the lists of all servers are one"
        names = [tool["name"] for page in pages for tool in page]
        assert len(names) == len(set(names))
        assert {self.place.name(tool) for tool in ("remember", "emit", "sample")} <= set(names)
        refused = (await self.talk("tools/list", {"cursor": "nonsense"})).answer
        assert refused["error"]["code"] == -32602
        return Outcome.YES

    async def progress(self) -> Outcome:
        talk = await self.call("progress", {"progressToken": "t"}, steps=3)
        told = talk.told("notifications/progress")
        assert [each["progress"] for each in told if each["progress"] >= 1] == [1, 2, 3], "below are status lines"
        assert {each["progressToken"] for each in told} == {"t"}
        return Outcome.YES

    async def log(self) -> Outcome:
        for level, wanted, is_heard in (
            ("critical", "error", True),
            ("warning", "error", False),
            ("debug", "debug", True),  # the last: a shared session may keep it for clients that cannot set it
        ):
            assert await self.hears(level, wanted) is is_heard, (level, wanted)
        return Outcome.YES

    async def hears(self, level: str, wanted: str) -> bool:
        """Whether a message of `level` comes where the client wants those from `wanted` on."""
        what = unique("message")
        talk = await self.call("log", await self.wanting(wanted), level=level, message=what)
        return what in [each["data"] for each in talk.told("notifications/message")]

    async def elicitation_form(self) -> Outcome:
        return (await self.call("ask", None, YES, message="sure?")).outcome("elicitation/create", YES)

    async def elicitation_url(self) -> Outcome:
        accepted = {"action": "accept"}
        talk = await self.call("ask", None, accepted, message="look", mode="url")
        for question in talk.questions:
            assert question["params"]["mode"] == "url"
            assert question["params"]["url"].startswith("https://")
            assert ("elicitationId" in question["params"]) is (self.revision != MODERN)
        return talk.outcome("elicitation/create", accepted)

    async def elicitation_complete(self) -> Outcome:
        """Nobody here can hear of it."""
        self.name_chat(unique("complete"))
        await self.call("ask", None, {"action": "accept"}, message="look", mode="url")
        talk = await self.call("visited")
        assert talk.told("notifications/elicitation/complete") == []
        return Outcome.NONE

    async def url_needed(self) -> Outcome:
        self.name_chat(unique("url"))
        talk = await self.call("sign_in", None, {"action": "accept"})
        if "error" in talk.answer:
            assert talk.answer["error"]["code"] == -32042, talk.answer
            (page,) = talk.answer["error"]["data"]["elicitations"]
            assert page["url"].startswith("https://")
            talk = await self.call("sign_in")
            assert talk.text == "signed in"
            return Outcome.YES if self.revision >= "2025-11-25" else Outcome.TOLD
        if talk.text == "signed in":
            (question,) = talk.questions
            assert question["params"]["url"].startswith("https://")
            assert not talk.is_parked, talk
            return Outcome.YES
        return talk.outcome("", {})

    async def sampling(self) -> Outcome:
        talk = await self.call("sample", None, SAID, prompt="hi")
        return talk.outcome("sampling/createMessage", SAID)

    async def sampling_tools(self) -> Outcome:
        talk = await self.call("sample", None, USES, prompt="hi", tools=True)
        for question in talk.questions:
            assert question["params"]["tools"][0]["name"] == "weather"
            assert question["params"]["toolChoice"] == {"mode": "auto"}
        return talk.outcome("sampling/createMessage", USES)

    async def roots(self) -> Outcome:
        return (await self.call("roots", None, ROOTS)).outcome("roots/list", ROOTS)

    # What they do each in their way.

    @abstractmethod
    def name_chat(self, chat: str) -> None:
        """Name the chat of the requests that follow, if nothing else says what belongs together."""

    @abstractmethod
    async def wanting(self, level: str) -> dict[str, Any]:
        """Want log messages from `level` on; what the request must say for it."""

    @abstractmethod
    async def cancel(self) -> Outcome: ...

    @abstractmethod
    async def subscribe(self) -> Outcome: ...

    @abstractmethod
    async def list_changed(self) -> Outcome: ...

    # Parts.

    async def pages(self) -> list[list[Any]]:
        """The list of tools, page by page."""
        pages: list[list[Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await self.result("tools/list", **cursor)
            pages.append(page["tools"])
            if "nextCursor" not in page:
                return pages
            cursor = {"cursor": page["nextCursor"]}

    async def tool_names(self) -> set[str]:
        """The names of all tools."""
        return {tool["name"] for page in await self.pages() for tool in page}

    async def note(self) -> str:
        """The URI of the resource that changes."""
        listed = [each["uri"] for each in (await self.result("resources/list"))["resources"]]
        return self.place.uri(NOTE_URI, listed)

    async def check_note(self, uri: str, text: str) -> None:
        read = await self.result("resources/read", uri=uri)
        assert read["contents"][0]["text"] == text

    async def change_tools(self) -> bool:
        """Change the server's list; whether it has the tool `extra` now."""
        return (await self.call("change_tools")).text == "added"

    async def check_extra(self, is_there: bool) -> None:
        assert (self.place.name("extra") in await self.tool_names()) is is_there

    async def check_that_it_was_cancelled(self, which: str) -> Outcome:
        talk = await self.call("ended", which=which)
        assert talk.text == "cancelled", talk
        return Outcome.YES

    def endless(self) -> tuple[str, dict[str, Any]]:
        """A call that reports progress once and then waits for ever: its canary, and its params."""
        canary = unique("canary")
        arguments = {"steps": 2, "gate": canary, "canary": canary}
        return canary, {"name": self.place.name("progress"), "arguments": arguments, "_meta": {"progressToken": canary}}
