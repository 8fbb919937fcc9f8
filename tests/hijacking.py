"""Impostors with somebody else's session id, and an owner who is amid everything that one can be amid."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bare_client import Response
from holdfast.config import ClientSettings, Trust, key_digest
from rig import Client, Rig, next_message, rig, text_of

KEYS: Final = ("old", "new")
TRUST: Final = Trust(user="x-user")
OTHER: Final = ClientSettings(name="other", key_digests=(key_digest("k2"),), trust=TRUST)
BOTH_KEYS: Final = ClientSettings(name="host", key_digests=tuple(map(key_digest, KEYS)), trust=TRUST)
NEW_KEY: Final = ClientSettings(name="host", key_digests=(key_digest("new"),), trust=TRUST)
ANN: Final = {"authorization": "Bearer new", "x_user": "ann"}
STREAM: Final = "text/event-stream"


# The owner, and what it has under way.


@dataclass
class Owner:
    """Somebody with a running call, an open question and a stream that is read."""

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

    @property
    def session_id(self) -> str:
        return self.client.headers["mcp-session-id"]

    async def check_that_nothing_happened(self) -> None:
        """The call, the question and the stream go on and end well, and the server heard of nobody else."""
        running, client = self.running, self.client
        methods = [e.method for e in running.upstream.ledger]
        assert "notifications/cancelled" not in methods
        assert {e.tool for e in running.upstream.calls()} == {"ask", "slow"}
        assert len(running.upstream.calls()) == 2
        running.push(client, 2)
        assert (await next_message(self.pushed))["params"]["number"] == 2
        (session,) = running.upstream.sessions.values()
        assert len(session.asks) == 1
        await client.reply(self.question, action="accept", content={"by": "owner"})
        assert '"by":"owner"' in text_of(await next_message(self.asking)).replace(" ", "")
        running.upstream.open_gate("g")
        done = await next_message(self.call_stream)
        assert (done["id"], text_of(done)) == (self.call["id"], "done")
        assert await client.tool_text("count") == "1"


@asynccontextmanager
async def owner_at_work() -> AsyncGenerator[Owner]:
    """A gateway, and an owner who is amid everything that one can be amid."""
    async with rig(clients=(BOTH_KEYS, OTHER)) as running, AsyncExitStack() as stack:
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
        yield Owner(running, client, call, call_stream, question, asking, pushed, event_id, ended_id, ended_event_id)


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
    """An HTTP request, all but who sends it and for which session."""

    method: str
    body: Any = None
    last_event_id: str | None = None


VERBS: Final[dict[str, Callable[[Owner], Attempt]]] = {
    "post": lambda owner: Attempt("POST", owner.client.tool("count")),
    "get": lambda owner: Attempt("GET"),
    "resume": lambda owner: Attempt("GET", None, owner.event_id),
    "delete": lambda owner: Attempt("DELETE"),
    "cancel": lambda owner: Attempt("POST", note("notifications/cancelled", requestId=owner.call["id"])),
    "reply": lambda owner: Attempt("POST", reply_to(owner.question)),
}


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def reply_to(question: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"by": "impostor"}}}


@dataclass(frozen=True)
class Impostor:
    """Who sends it: these headers, and this session id made of the owner's."""

    headers: dict[str, str]
    status: int = 404
    session_id: Callable[[Owner], str] = lambda owner: owner.session_id


IMPOSTORS: Final[dict[str, Impostor]] = {
    "another-user": Impostor({"authorization": "Bearer new", "x_user": "bob"}),
    "another-client": Impostor({"authorization": "Bearer k2", "x_user": "ann"}),
    "no-key": Impostor({"x_user": "ann"}, 401),
    "wrong-key": Impostor({"authorization": "Bearer wrong", "x_user": "ann"}, 401),
    "revoked-key": Impostor({"authorization": "Bearer old", "x_user": "ann"}, 401),
    "mutated-id": Impostor(ANN, session_id=lambda owner: owner.session_id.swapcase()),
    "ended-id": Impostor(ANN, session_id=lambda owner: owner.ended_id),
}


def revoke_the_old_key(running: Rig) -> None:
    """The settings with the key give way to those without, and nothing else changes."""
    running.gateway.reload(running.gateway.settings.model_copy(update={"clients": (NEW_KEY, OTHER)}))


Answered = tuple[int, dict[str, str], bytes]


async def tried(running: Rig, attempt: Attempt, impostor: Impostor, session_id: str) -> Answered:
    """The whole answer to an attempt, apart from its date."""
    client = running.client(**impostor.headers, mcp_session_id=session_id, x_request_id="attempt")
    accept = STREAM if attempt.method == "GET" else None
    named = {} if accept is None else {"accept": accept}
    async with client.request(
        attempt.method, attempt.body, "/mcp", last_event_id=attempt.last_event_id, **named
    ) as answer:
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        body = b"" if headers.get("content-type") == STREAM else await answer.body()
        return answer.status, headers, body


async def hijack(verb: str, who: str) -> None:
    """Try `verb` as the impostor `who` on an owner at work. Raises `AssertionError` where anything comes of it."""
    impostor = IMPOSTORS[who]
    async with owner_at_work() as owner:
        if who == "revoked-key":
            revoke_the_old_key(owner.running)
        attempt = VERBS[verb](owner)
        if who == "ended-id" and verb == "resume":
            attempt = Attempt("GET", None, owner.ended_event_id)
        got = await tried(owner.running, attempt, impostor, impostor.session_id(owner))
        assert got == await tried(owner.running, attempt, impostor, "A" * len(owner.session_id)), got
        assert got[0] == impostor.status, got
        await owner.check_that_nothing_happened()
