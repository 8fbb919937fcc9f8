"""A world of people who all name their chats and requests alike, and servers that tell all they know.

Every call plants a canary that names its user, its chat and itself: in arguments, results, progress,
logs, questions and lists. Whatever a person receives, and whatever a server receives as the answer
to a question or as a cancellation, is searched for canaries of somebody else. Everything between is
real: ASGI application, identity, dialects, keys, pool, catalogue, conversation; only the bytes to
the servers do not leave the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal

from holdfast.config import ClientSettings, GatewaySettings, Limits, ServerSettings, Trust, key_digest
from holdfast.tasks import TaskScope
from told import Job, Tag, ToldGateway, tags_in

IDS: Final[tuple[int | str | float, ...]] = (0, 1, "1", 1.0)
CHATS: Final = ("c0", "c1", "c2")
ACTIONS: Final = ("progress", "progress-astray", "log", "log-streamless", "ask", "ask-streamless")
SERVERS: Final = (
    ServerSettings(name="chats", url="http://127.0.0.1:1/", scope="chat"),
    ServerSettings(name="serial", url="http://127.0.0.1:1/", scope="chat", serial=True),
    ServerSettings(name="varied", url="http://127.0.0.1:1/", scope="chat", lists="session"),
    ServerSettings(name="users", url="http://127.0.0.1:1/", scope="user"),
    ServerSettings(name="shared", url="http://127.0.0.1:1/", scope="shared"),
)
ROOM: Final = {"max_sessions": 100_000, "max_concurrency": 10_000, "max_queue": 10_000}


def token_of(call: Any) -> Any:
    """The progress token of a call."""
    return call["params"]["_meta"]["progressToken"]


@dataclass
class Report:
    """What was seen, and everything that should not have been."""

    leaks: list[str] = field(default_factory=list[str])
    errors: list[str] = field(default_factory=list[str])
    seen: Counter[str] = field(default_factory=Counter[str])

    def leak(self, what: str) -> None:
        self.leaks.append(what)


# The people.

Event = Callable[[Any], None]


def _ignore(_: Any) -> None: ...


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    messages: list[Any] = field(default_factory=list[Any])


class Session:
    """A person's own MCP session with a server."""

    def __init__(self, server: str, person: Person, session_id: str, chat: str) -> None:
        self.server = server
        self.person = person
        self.id = session_id
        self.chat = chat
        self.free_ids = list(IDS)
        self.calls: dict[str, Tag] = {}
        self.is_over = False

    @property
    def headers(self) -> dict[str, str]:
        return {**self.person.headers, "mcp-session-id": self.id}


class Person:
    """Somebody who calls: a user that a trusted client names, or a client of its own."""

    def __init__(self, name: str, headers: dict[str, str], *, names_chats: bool) -> None:
        self.name = name
        self.headers = headers
        self.names_chats = names_chats
        self.sessions: list[Session] = []


class World:
    """The gateway, its servers, and the people; `report` is what came of it."""

    def __init__(self, *, users: int, seed: int = 1, rng: Random | None = None, workers: int = 48) -> None:
        self.rng = rng if rng is not None else Random(seed)
        self.report = Report()
        self.jobs: list[Job] = []
        self.cancelled: set[int] = set()
        """The numbers of calls whose own client gave them up."""
        self.moved = asyncio.Event()
        self.gateway: ToldGateway
        self._workers = workers
        self._next = 0
        self._left = 0
        self._is_done = False
        trusted = {"authorization": "Bearer trusted"}
        self.people = [
            *(Person(f"u{n}", {**trusted, "x-user": f"u{n}"}, names_chats=True) for n in range(users)),
            *(
                # It is not trusted to name anybody, and tries.
                Person(f"p{n}", {"authorization": f"Bearer p{n}", "x-user": "u0"}, names_chats=False)
                for n in range(4)
            ),
        ]
        self.nameless = trusted
        self.settings = GatewaySettings(
            clients=(
                ClientSettings(
                    name="host", key_digests=(key_digest("trusted"),), trust=Trust(user="x-user", chat="x-chat")
                ),
                *(ClientSettings(name=f"p{n}", key_digests=(key_digest(f"p{n}"),)) for n in range(4)),
            ),
            servers=tuple(server.model_copy(update=ROOM) for server in SERVERS),
            limits=Limits(user_rate=None),
        )

    # HTTP, without a socket.

    async def http(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Any = None,
        *,
        on_message: Event = _ignore,
        on_status: Event = _ignore,
    ) -> Answer:
        sent = b"" if body is None else json.dumps(body).encode()
        fields = {
            "host": "localhost",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "content-length": str(len(sent)),
            **headers,
        }
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        }
        answer = Answer()
        whole: list[bytes] = []
        is_read = False

        async def receive() -> dict[str, Any]:
            nonlocal is_read
            if is_read:
                await asyncio.get_running_loop().create_future()
            is_read = True
            return {"type": "http.request", "body": sent, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                on_status(answer.status)
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            elif answer.headers.get("content-type") == "text/event-stream":
                for line in message["body"].split(b"\n"):
                    if line.startswith(b"data:") and line[5:].strip():
                        event = json.loads(line[5:])
                        answer.messages.append(event)
                        on_message(event)
            else:
                whole.append(message["body"])

        await self.gateway.app(scope, receive, send)
        text = b"".join(whole)
        if text:
            decoded = json.loads(text)
            answer.messages += decoded if isinstance(decoded, list) else [decoded]
        return answer

    # What the servers noticed.

    def was_cancelled(self, job: Job) -> None:
        self.report.seen["cancelled"] += 1
        if job.tag.number not in self.cancelled:
            self.report.leak(f"{job.tag} was cancelled by somebody else")

    def was_answered(self, job: Job, tags: list[Tag]) -> None:
        self.report.seen["question answered"] += 1
        if tags != [job.tag]:
            self.report.leak(f"the question of {job.tag} was answered with {tags}")

    def was_answered_for(self, job: Job) -> None:
        self.report.seen["question answered for somebody"] += 1
        self.moved.set()

    # What people may see.

    def check_events(self, own: Tag, events: list[Any], where: str, token: Any) -> None:
        """What comes while a call runs is that very call's."""
        for event in events:
            if event["method"] == "notifications/progress":
                got = event["params"]["progressToken"]
                if (type(got), got) != (type(token), token):
                    self.report.leak(f"{own}: progress for {token!r} came for {got!r}")
            for tag in tags_in(json.dumps(event).encode()):
                self.report.seen[f"{event['method']} on {where}"] += 1
                if tag != own:
                    self.report.leak(f"{own} got {event['method']} of {tag}")

    def check_result(self, server: str, own: Tag, message: Any, request_id: Any, *, is_private: bool) -> None:
        """The answer bears the request's own id, and nothing that its session may not know."""
        got = message.get("id")
        if (type(got), got) != (type(request_id), request_id):
            self.report.leak(f"{own}: request {request_id!r} was answered as {got!r}")
        if "error" in message:
            self.report.seen[f"error {message['error']['code']}"] += 1
            return
        self.report.seen[f"result of {server}"] += 1
        tags = tags_in(json.dumps(message).encode())
        if own not in tags:
            self.report.leak(f"{own} got a result of somebody else: {tags}")
        for tag in tags:
            if not self.may_know(server, own, tag, is_private=is_private):
                self.report.leak(f"{own} got what {server} knows of {tag}")

    def may_know(self, server: str, own: Tag, tag: Tag, *, is_private: bool) -> bool:
        if is_private or server == "shared":
            return tag == own
        return tag.user == own.user and (server == "users" or tag.chat == own.chat)

    # What people do.

    def tag(self, user: str, chat: str) -> Tag:
        self._next += 1
        return Tag(user, chat, self._next)

    def tool_call(self, tag: Tag, request_id: Any, *, do: Sequence[str] | None = None, chat: str = "") -> Any:
        """A call in which the server does what `do` says, or one thing or another."""
        chosen = list(do) if do is not None else self.rng.sample(ACTIONS, self.rng.choice((0, 0, 0, 1, 2)))
        params: dict[str, Any] = {
            "name": "tell",
            "arguments": {"canary": tag.canary, "do": chosen},
            "_meta": {"progressToken": self.rng.choice(IDS)},
        }
        if chat:
            params["_meta"]["dev.holdfast/chat"] = chat
        return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}

    async def call_without_session(self, how: Literal["header", "path", "meta", "nameless", "unnamed"]) -> None:
        person = self.rng.choice(self.people)
        server = self.rng.choice(SERVERS).name
        chat = self.rng.choice(CHATS)
        headers = dict(person.headers)
        user, path, meta = person.name, f"/mcp/{server}", ""
        if how == "header" and not person.names_chats:
            how = "path"
        match how:
            case "header":
                headers["x-chat"] = chat
            case "path":
                path += f"/chats/{chat}"
            case "meta":
                meta = chat
            case "nameless":  # a trusted client that names the chat, and nobody
                headers = {**self.nameless, "x-chat": chat, "x-user": ""}
                user = "nobody"
            case _:
                pass
        tag = self.tag(user, chat)
        request_id = self.rng.choice(IDS)
        body = self.tool_call(tag, request_id, chat=meta)
        answer = await self.http("POST", path, headers, body)
        *events, result = answer.messages
        self.check_events(tag, events, "a POST", token_of(body))
        is_private = how == "nameless" or (how == "unnamed" and server != "users")
        self.check_result(server, tag, result, request_id, is_private=is_private)

    async def call_array(self) -> None:
        person = self.rng.choice(self.people)
        tags = [self.tag(person.name, "array") for _ in range(2)]
        body = [self.tool_call(tag, n, do=()) for n, tag in enumerate(tags)]
        answer = await self.http("POST", "/mcp/chats", person.headers, body)
        for message in answer.messages:
            own = tags[int(message["id"])] if "id" in message else "an array"
            self.report.seen["result of an array"] += "id" in message
            for tag in tags_in(json.dumps(message).encode()):
                if tag not in tags:
                    self.report.leak(f"{own} got what an array knows of {tag}")

    async def list_tools(self) -> None:
        person = self.rng.choice(self.people)
        chat = self.rng.choice(CHATS)
        path = f"/mcp/varied/chats/{chat}"
        await self.http("POST", path, person.headers, self.tool_call(self.tag(person.name, chat), 1, do=()))
        body: Any = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        answer = await self.http("POST", path, person.headers, body)
        tags = tags_in(json.dumps(answer.messages).encode())
        self.report.seen["canary in a list"] += len(tags)
        if not tags or any((tag.user, tag.chat) != (person.name, chat) for tag in tags):
            self.report.leak(f"{person.name} in {chat} got the list of {tags}")

    async def initialize(self, person: Person, server: str) -> Session:
        """A session of `person` with `server`, which can be asked."""
        params: Any = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "x", "version": "1"},
        }
        body: Any = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        answer = await self.http("POST", f"/mcp/{server}", person.headers, body)
        self._next += 1
        session = Session(server, person, answer.headers["mcp-session-id"], f"session{self._next}")
        person.sessions.append(session)
        return session

    async def open_session(self, scope: TaskScope) -> None:
        person = self.rng.choice(self.people)
        server = self.rng.choice(SERVERS).name
        session = await self.initialize(person, server)
        if self.rng.random() < 0.7:
            scope.start(self._read_pushes(session), "read pushes")

    async def _read_pushes(self, session: Session) -> None:
        def pushed(event: Any) -> None:
            for tag in tags_in(json.dumps(event).encode()):
                self.report.seen[f"{event['method']} pushed"] += 1
                own = Tag(session.person.name, session.chat, tag.number)
                # Of a shared session nothing may be pushed: it would be of a call, and nothing says whose.
                if session.server == "shared" or not self.may_know(session.server, own, tag, is_private=False):
                    self.report.leak(f"{session.person.name} was pushed {event['method']} of {tag}")

        await self.http("GET", f"/mcp/{session.server}", session.headers, on_message=pushed)

    def pick_session(self) -> Session | None:
        for _ in range(8):
            sessions = self.rng.choice(self.people).sessions
            if sessions:
                return self.rng.choice(sessions)
        return None

    async def call_in_session(self, session: Session, scope: TaskScope, do: Sequence[str] | None = None) -> None:
        """One call, whose questions are answered; with every id in use, none."""
        if not session.free_ids:
            return
        request_id = session.free_ids.pop(self.rng.randrange(len(session.free_ids)))
        tag = self.tag(session.person.name, session.chat)
        name = json.dumps(request_id)
        session.calls[name] = tag

        def arrived(event: Any) -> None:
            if event.get("method") == "elicitation/create":
                scope.start(self.reply(session, event, tag), "answer a question")

        body = self.tool_call(tag, request_id, do=do)
        answer = await self.http("POST", f"/mcp/{session.server}", session.headers, body, on_message=arrived)
        del session.calls[name]
        session.free_ids.append(request_id)
        events = [m for m in answer.messages if "method" in m]
        results = [m for m in answer.messages if "method" not in m]
        self.check_events(tag, events, "a session's POST", token_of(body))
        if answer.status == 200 and results:
            self.check_result(session.server, tag, results[0], request_id, is_private=False)
        elif tag.number not in self.cancelled and not session.is_over:
            self.report.leak(f"{tag}: request {request_id!r} got {answer.status} and no answer")

    async def reply(self, session: Session, event: Any, tag: Tag) -> None:
        result = {"action": "accept", "content": {"canary": tag.canary}}
        body = {"jsonrpc": "2.0", "id": event["id"], "result": result}
        await self.http("POST", f"/mcp/{session.server}", session.headers, body)

    async def cancel(self, session: Session) -> None:
        """By an id that half the world uses at this moment."""
        request_id = self.rng.choice(IDS)
        tag = session.calls.get(json.dumps(request_id))
        if tag is not None:
            self.cancelled.add(tag.number)
        body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
        await self.http("POST", f"/mcp/{session.server}", session.headers, body)

    async def impersonate(self, session: Session) -> None:
        """Use somebody else's session id, or one's own at another server."""
        server = session.server
        if self.rng.random() < 0.2:
            who, thief = "stranger", session.person
            server = self.rng.choice([other.name for other in SERVERS if other.name != server])
        else:
            who, thief = "impostor", self.rng.choice([p for p in self.people if p is not session.person])
        headers = {**thief.headers, "mcp-session-id": session.id}
        method = self.rng.choice(("POST", "GET", "DELETE"))
        body: Any = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}} if method == "POST" else None
        answered = asyncio.Event()

        def got(status: int) -> None:
            self.report.seen[f"{who} got {status}"] += 1
            if status != 404:
                self.report.leak(f"{thief.name} got {status} for a session of {session.person.name}")
            answered.set()

        async def attempt() -> None:
            await self.http(method, f"/mcp/{server}", headers, body, on_status=got)

        async with TaskScope() as scope:
            scope.start(attempt(), "impersonate")
            await answered.wait()

    async def end_session(self, session: Session) -> None:
        session.is_over = True
        session.person.sessions.remove(session)
        self.cancelled |= {tag.number for tag in session.calls.values()}
        await self.http("DELETE", f"/mcp/{session.server}", session.headers)

    # All of it at once.

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """The gateway runs, and every error that anything logs goes into the report."""
        collector = _Errors(self)
        logging.getLogger().addHandler(collector)
        try:
            async with ToldGateway(self.settings, self) as self.gateway:
                yield
        finally:
            logging.getLogger().removeHandler(collector)

    async def run(self, calls: int) -> Report:
        """Let everybody do something until `calls` things were done; then look at what came of it."""
        self._left = calls
        async with self.running(), TaskScope() as scope:
            scope.start(self.serve(), "serve")
            done = [asyncio.Event() for _ in range(self._workers)]
            for event in done:
                scope.start(self._work(scope, event), "work")
            for event in done:
                await event.wait()
            for person in self.people:
                for session in list(person.sessions):
                    await self.end_session(session)
        return self.report

    async def serve(self) -> None:
        """The servers work at everything at once, in no order."""
        while True:
            for _ in range(1 + len(self.jobs) // 2):
                if self.jobs:
                    at = self.rng.randrange(len(self.jobs))
                    self.jobs[at].step()
                    if self.jobs[at].is_over or self.jobs[at].link.is_over:
                        self.jobs[at] = self.jobs[-1]
                        self.jobs.pop()
            await asyncio.sleep(0)

    async def _work(self, scope: TaskScope, done: asyncio.Event) -> None:
        try:
            while self._left > 0 and not self.report.leaks:
                self._left -= 1
                await self._do_something(scope)
        finally:
            done.set()

    async def _do_something(self, scope: TaskScope) -> None:
        chance = self.rng.random()
        if chance < 0.52:
            how: Any = self.rng.choice(("header", "header", "path", "meta", "unnamed", "nameless"))
            await self.call_without_session(how)
            return
        if chance < 0.54:
            await self.call_array()
            return
        if chance < 0.58:
            await self.list_tools()
            return
        session = self.pick_session()
        if session is None or chance < 0.60:
            await self.open_session(scope)
        elif chance < 0.62:
            await self.impersonate(session)
        elif chance < 0.65:
            await self.cancel(session)
        elif chance < 0.66:
            await self.end_session(session)
        else:
            await self.call_in_session(session, scope)


class _Errors(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.report.errors.append(self.format(record))
        self._world.moved.set()


async def run_world(calls: int, *, users: int = 20, seed: int = 1, rng: Random | None = None) -> Report:
    """A world in which `calls` things are done; `rng` decides which, by `seed` if there is none."""
    return await World(users=users, seed=seed, rng=rng).run(calls)
