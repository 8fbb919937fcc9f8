"""Impostors with somebody else's session, state or chat, and an owner who is amid everything that one can be amid."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bare_client import Response
from holdfast.config import ClientSettings, Trust, key_digest
from holdfast.testing.server_core import Session
from holdfast.testing.server_tools import NOTE_URI
from modern_client import YES, ModernClient, mirrored, reply_in
from rig import Client, Rig, next_message, read_all, rig, text_of

KEYS: Final = ("old", "new")
TRUST: Final = Trust(user="x-user")
OTHER: Final = ClientSettings(name="other", key_digests=(key_digest("k2"),), trust=TRUST)
BOTH_KEYS: Final = ClientSettings(name="host", key_digests=tuple(map(key_digest, KEYS)), trust=TRUST)
NEW_KEY: Final = ClientSettings(name="host", key_digests=(key_digest("new"),), trust=TRUST)
BEARER: Final = "Bearer new"
ANN: Final = {"authorization": BEARER, "x_user": "ann"}
STREAM: Final = "text/event-stream"
TALK: Final = "talk-A"
OVER: Final = "talk-B"
"""A chat in which somebody listened, and does not any more."""


# The owner, and what it has under way.


class Speaker:
    """Somebody of 2026-07-28 with a call that waits for an answer, and a stream of changes that is read."""

    def __init__(self, running: Rig) -> None:
        self._running = running
        self.client = ModernClient(running, chat=TALK, authorization=BEARER, x_user="ann")
        self.call: dict[str, Any]
        self.result: Any
        """What the call was answered with: a question, and the state to come back with."""
        self.key: str
        self.used_state: str
        """Of another call, with which the owner came back already."""
        self.listening: dict[str, Any]
        """The request that listens."""
        self.changes: Response
        self.session: Session
        """That of the server."""

    async def begin(self, stack: AsyncExitStack) -> None:
        """Be amid it all."""
        self.call = self.client.tool("ask", message="sure?")
        before, (key,) = await self.client.asked(self.call)
        assert reply_in(await self.client.result(self.client.again(self.call, before, **{key: YES}))) == YES
        self.used_state = before["requestState"]
        self.result, (self.key,) = await self.client.asked(self.call)
        name = self._running.upstream.calls("ask")[-1].session
        self.session = self._running.upstream.sessions[name]
        over = ModernClient(self._running, chat=OVER, authorization=BEARER, x_user="ann")
        async with over.post(listen_to_note(over)) as stream:
            await next_message(stream)
        await self._running.until(lambda: len(self._running.app.modern.listeners) == 0)
        await self.listen(stack)

    async def listen(self, stack: AsyncExitStack) -> None:
        """Hear of changes."""
        self.listening = listen_to_note(self.client)
        self.changes = await stack.enter_async_context(self.client.post(self.listening))
        assert (await next_message(self.changes))["method"] == "notifications/subscriptions/acknowledged"

    async def goes_on(self) -> None:
        """Hear of a change, and come back with the answer."""
        tell_of_note(self.session, "owner")
        assert (await next_message(self.changes))["params"]["whose"] == "owner"
        answer = {"action": "accept", "content": {"by": "owner"}}
        body = self.client.again(self.call, self.result, **{self.key: answer})
        assert reply_in(await self.client.result(body)) == answer


@dataclass
class Owner:
    """Somebody with a running call, an open question and a stream that is read, in each era."""

    running: Rig
    client: Client
    call: dict[str, Any]
    call_stream: Response
    question: Any
    asking: Response
    pushed: Response
    event_id: str
    """Of an event on the push stream."""
    ended_id: str
    """A session that the owner has ended, with an event of its stream."""
    ended_event_id: str
    speaker: Speaker
    calls: list[tuple[str, str | None]]
    """Those that the server has heard of, with their sessions."""

    @property
    def session_id(self) -> str:
        return self.client.headers["mcp-session-id"]

    async def check_that_nothing_happened(self) -> None:
        """The calls, the questions and the streams go on and end well, and the server heard of nobody else."""
        running, client = self.running, self.client
        assert "notifications/cancelled" not in [e.method for e in running.upstream.ledger]
        assert calls_at(running) == self.calls
        running.push(client, 2)
        assert (await next_message(self.pushed))["params"]["number"] == 2
        assert [len(running.upstream.sessions[session].asks) for session, _ in self.calls] == [1] * len(self.calls)
        await client.reply(self.question, action="accept", content={"by": "owner"})
        assert '"by":"owner"' in text_of(await next_message(self.asking)).replace(" ", "")
        running.upstream.open_gate("g")
        done = await next_message(self.call_stream)
        assert (done["id"], text_of(done)) == (self.call["id"], "done")
        assert await client.tool_text("count") == "1"
        await self.speaker.goes_on()


@asynccontextmanager
async def owner_at_work() -> AsyncGenerator[Owner]:
    """A gateway, and an owner who is amid everything that one can be amid."""
    async with rig(clients=(BOTH_KEYS, OTHER)) as running:
        async with AsyncExitStack() as stack:
            ended = running.client(**ANN)
            await ended.open()
            async with ended.stream() as stream:
                running.push(ended, 1)
                ended_event_id = await last_event_id(stream)
            ended_id = ended.headers["mcp-session-id"]
            assert await ended.delete() == 204

            client = running.client(**ANN)
            await client.open(elicitation={})
            pushed = await stack.enter_async_context(client.stream())
            running.push(client, 1)
            event_id = await last_event_id(pushed)
            asking = await stack.enter_async_context(client.request("POST", client.tool("ask", message="sure?")))
            question = await next_message(asking)
            call = client.tool("slow", gate="g")
            call_stream = await stack.enter_async_context(client.request("POST", call, accept=STREAM))
            await running.upstream.entered("g")
            speaker = Speaker(running)
            await speaker.begin(stack)
            yield Owner(
                running,
                client,
                call,
                call_stream,
                question,
                asking,
                pushed,
                event_id,
                ended_id,
                ended_event_id,
                speaker,
                calls_at(running),
            )
        running.app.modern.parked.close()
        await running.until(lambda: len(running.app.modern.listeners) == 0)


def calls_at(running: Rig) -> list[tuple[str, str | None]]:
    return [(entry.session, entry.tool) for entry in running.upstream.calls()]


def listen_to_note(client: ModernClient) -> dict[str, Any]:
    return client.message("subscriptions/listen", notifications={"resourceSubscriptions": [NOTE_URI]})


def tell_of_note(session: Session, whose: str) -> None:
    """Let the server announce a change to one of its sessions."""
    session.notify("notifications/resources/updated", {"uri": NOTE_URI, "whose": whose})


async def last_event_id(stream: Response) -> str:
    """The id of the first event that says something."""
    while (event := await stream.event()) is not None:
        if event.data:
            assert event.id
            return event.id
    raise AssertionError("the stream ended")


# What is tried, and by whom.


@dataclass(frozen=True)
class Attempt:
    """An HTTP request, all but who sends it."""

    method: str
    body: dict[str, Any] | None
    headers: dict[str, str | None]


@dataclass(frozen=True)
class Verb:
    """A way to use what is somebody else's."""

    attempt: Callable[[Owner, str], Attempt]
    """Made with what points to it."""
    pointer: Callable[[Owner], str]
    ended: Callable[[Owner], str]
    """A pointer to what was the sender's own, and is over."""
    status: int
    """That of the answer for a pointer to nothing."""


def of_session(make: Callable[[Owner], tuple[str, dict[str, Any] | None]]) -> Verb:
    """A request that names a session of the handshake era."""

    def attempt(owner: Owner, pointer: str) -> Attempt:
        method, body = make(owner)
        return Attempt(method, body, {"mcp_session_id": pointer, **({"accept": STREAM} if method == "GET" else {})})

    return Verb(attempt, lambda owner: owner.session_id, lambda owner: owner.ended_id, 404)


def resume(owner: Owner, pointer: str) -> Attempt:
    event_id = owner.ended_event_id if pointer == owner.ended_id else owner.event_id
    return Attempt("GET", None, {"mcp_session_id": pointer, "last_event_id": event_id, "accept": STREAM})


def listen(owner: Owner, pointer: str) -> Attempt:
    """Listen in a chat, as the very request by which its owner does."""
    params = owner.speaker.listening["params"]
    body = {**owner.speaker.listening, "params": {**params, "_meta": params["_meta"] | {"dev.holdfast/chat": pointer}}}
    return Attempt("POST", body, mirrored(body))


def come_back(owner: Owner, pointer: str) -> Attempt:
    """Answer the question of somebody's call, with the very request of that call."""
    speaker = owner.speaker
    answer = {"action": "accept", "content": {"by": "impostor"}}
    body = speaker.client.again(speaker.call, {"requestState": pointer}, **{speaker.key: answer})
    return Attempt("POST", {**body, "id": 7}, mirrored(body))


VERBS: Final[dict[str, Verb]] = {
    "post": of_session(lambda owner: ("POST", {**owner.client.tool("count"), "id": 7})),
    "get": of_session(lambda owner: ("GET", None)),
    "resume": Verb(resume, lambda owner: owner.session_id, lambda owner: owner.ended_id, 404),
    "delete": of_session(lambda owner: ("DELETE", None)),
    "cancel": of_session(lambda owner: ("POST", note("notifications/cancelled", requestId=owner.call["id"]))),
    "reply": of_session(lambda owner: ("POST", reply_to(owner.question))),
    # A chat is named, not guarded: whoever names another's gets one of their own.
    "listen": Verb(listen, lambda _: TALK, lambda _: OVER, 200),
    "state": Verb(
        come_back,
        lambda owner: owner.speaker.result["requestState"],
        lambda owner: owner.speaker.used_state,
        400,
    ),
}


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def reply_to(question: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"by": "impostor"}}}


@dataclass(frozen=True)
class Impostor:
    """Who sends it: these headers, and a pointer made of the owner's."""

    headers: dict[str, str]
    has_key: bool = True
    pointer: Callable[[Verb, Owner], str] = lambda verb, owner: verb.pointer(owner)


IMPOSTORS: Final[dict[str, Impostor]] = {
    "another-user": Impostor({"authorization": "Bearer new", "x_user": "bob"}),
    "another-client": Impostor({"authorization": "Bearer k2", "x_user": "ann"}),
    "no-key": Impostor({"x_user": "ann"}, has_key=False),
    "wrong-key": Impostor({"authorization": "Bearer wrong", "x_user": "ann"}, has_key=False),
    "revoked-key": Impostor({"authorization": "Bearer old", "x_user": "ann"}, has_key=False),
    "mutated-id": Impostor(ANN, pointer=lambda verb, owner: verb.pointer(owner).swapcase()),
    "ended-id": Impostor(ANN, pointer=lambda verb, owner: verb.ended(owner)),
}


async def revoke_the_old_key(owner: Owner, stack: AsyncExitStack) -> None:
    """The settings with the key give way to those without; who listens begins anew, as with all new settings."""
    running = owner.running
    running.gateway.reload(running.gateway.settings.model_copy(update={"clients": (NEW_KEY, OTHER)}))
    assert [message.get("method") for message in await read_all(owner.speaker.changes)] == [None]
    await owner.speaker.listen(stack)


Answered = tuple[int, dict[str, str], Any]


@asynccontextmanager
async def trying(running: Rig, attempt: Attempt, impostor: Impostor) -> AsyncGenerator[tuple[Answered, Response]]:
    """The whole answer to an attempt, apart from its date; of a stream of changes, how it begins."""
    client = running.client(**impostor.headers, x_request_id="attempt")
    async with client.request(attempt.method, attempt.body, "/mcp", **attempt.headers) as answer:
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        if headers.get("content-type") != STREAM:
            body: Any = await answer.body()
        else:
            body = await next_message(answer) if is_listening(attempt) else None
        yield (answer.status, headers, body), answer


async def tried(running: Rig, attempt: Attempt, impostor: Impostor) -> Answered:
    """What `trying` gives, and nothing after it."""
    async with trying(running, attempt, impostor) as (answered, _):
        return answered


def is_listening(attempt: Attempt) -> bool:
    return attempt.body is not None and attempt.body.get("method") == "subscriptions/listen"


async def hijack(verb: str, who: str) -> None:
    """Try `verb` as the impostor `who` on an owner at work. Raises `AssertionError` where anything comes of it."""
    way, impostor = VERBS[verb], IMPOSTORS[who]
    async with owner_at_work() as owner, AsyncExitStack() as stack:
        running = owner.running
        if who == "revoked-key":
            await revoke_the_old_key(owner, stack)
        attempt = way.attempt(owner, impostor.pointer(way, owner))
        async with trying(running, attempt, impostor) as (got, answer):
            unknown = way.attempt(owner, "A" * len(way.pointer(owner)))
            assert got == await tried(running, unknown, impostor), got
            assert got[0] == (way.status if impostor.has_key else 401), got
            await owner.check_that_nothing_happened()
            if got[0] == 200:
                await hears_of_nothing_but_its_own(owner, answer)


async def hears_of_nothing_but_its_own(owner: Owner, stream: Response) -> None:
    """The owner was told of a change just now; the first that an impostor hears of is one of another session."""
    for session in owner.running.upstream.sessions.values():
        if session is not owner.speaker.session:
            tell_of_note(session, "other")
    assert (await next_message(stream))["params"]["whose"] == "other"
