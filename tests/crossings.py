"""Ways in which somebody could come by what is another's, each tried many times in the world of isolation.py.

Each returns the report of what was seen and of what should not have been, so that the isolation
suite can be tried on gateways that leak.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from msgspec import Raw

from holdfast.downstream.clients import ClientSession
from holdfast.downstream.replay import event_id
from holdfast.tasks import TaskScope
from holdfast.testing.clock import settle
from isolation import IDS, Person, Report, Session, World, token_of
from told import Tag, tags_in

LIMIT = 280.0
"""Seconds that one crossing may take on the slowest of machines."""


async def until(world: World, holds: Callable[[], bool]) -> None:
    """Return once `holds`, which something sets `world.moved` for; what leaked may keep it from ever holding."""
    while not (holds() or world.report.leaks or world.report.errors):
        world.moved.clear()
        await world.moved.wait()


def start(world: World, scope: TaskScope, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Begin `work`, whose end `until` will notice."""
    task = scope.start(work, "crossing")
    task.add_done_callback(lambda _: world.moved.set())
    return task


def named(world: World) -> list[Person]:
    """The users whom the trusted client names."""
    return [person for person in world.people if person.names_chats]


# Equal ids (row 2).


async def colliding_ids(clients: int, rounds: int) -> Report:
    """`clients` sessions each send requests of every id in `IDS`; all are answered last in, first out."""
    world = World(users=clients)
    async with asyncio.timeout(4 * LIMIT), world.running(), TaskScope() as scope:
        sessions = [await world.initialize(person, "shared") for person in named(world)]
        for _ in range(rounds):
            start_calls(world, scope, [(session, request_id) for session in sessions for request_id in IDS])
            await until(world, lambda: len(world.jobs) == clients * len(IDS))
            while world.jobs:
                world.jobs.pop().step()
            await until(world, lambda: len(scope) == 0)
    return world.report


def start_calls(world: World, scope: TaskScope, calls: list[tuple[Session, Any]]) -> None:
    for session, request_id in calls:
        start(world, scope, _call_plainly(world, session, request_id))


async def _call_plainly(world: World, session: Session, request_id: Any) -> None:
    tag = session.calls[repr(request_id)] = world.tag(session.person.name, session.chat)
    body = world.tool_call(tag, request_id, do=())
    answer = await world.http("POST", f"/mcp/{session.server}", session.headers, body)
    if tag.number in world.cancelled:
        return
    if answer.status != 200:
        world.report.leak(f"{tag}: request {request_id!r} got {answer.status}")
        return
    world.check_result(session.server, tag, answer.messages[-1], request_id, is_private=False)


# What belongs to a call (row 3).


async def interleaved_calls(calls: int) -> Report:
    """Every call reports progress, logs and asks, in any order, among a hundred others of its session and server."""
    world = World(users=30)
    left = iter(range(calls))

    async def work(session: Session, done: asyncio.Event) -> None:
        try:
            for number in left:
                progress = "progress" if number % 2 else "progress-astray"
                do = world.rng.sample((progress, "log", "ask"), 3)
                await world.call_in_session(session, scope, do)
        finally:
            done.set()

    async with asyncio.timeout(LIMIT), world.running(), TaskScope() as scope:
        scope.start(world.serve(), "serve")
        sessions = [
            await world.initialize(person, server) for person in world.people for server in ("chats", "users", "shared")
        ]
        workers = [(session, asyncio.Event()) for session in sessions]
        for session, done in workers:
            scope.start(work(session, done), "work")
        for _, done in workers:
            await done.wait()
    return world.report


async def departed_callers(calls: int) -> Report:
    """Half of those who are asked end their session instead of answering; the rest answer, and late."""
    world = World(users=calls)
    asked: list[tuple[Session, Any, Tag]] = []

    async def call(session: Session) -> None:
        tag = world.tag(session.person.name, session.chat)

        def arrived(event: Any) -> None:
            if event.get("method") == "elicitation/create":
                asked.append((session, event, tag))
                world.moved.set()

        body = world.tool_call(tag, 1, do=("ask",))
        answer = await world.http("POST", f"/mcp/{session.server}", session.headers, body, on_message=arrived)
        events = [message for message in answer.messages if "method" in message]
        world.check_events(tag, events, "a session's POST", token_of(body))
        if not session.is_over:
            world.check_result(session.server, tag, answer.messages[-1], 1, is_private=False)

    async with asyncio.timeout(LIMIT), world.running(), TaskScope() as scope:
        serving = scope.start(world.serve(), "serve")
        for number, person in enumerate(named(world)):
            session = await world.initialize(person, ("users", "shared")[number // 2 % 2])
            start(world, scope, call(session))
        await until(world, lambda: len(asked) == calls)
        leaving, staying = asked[::2], asked[1::2]
        for session, _, tag in leaving:
            world.cancelled.add(tag.number)
            await world.end_session(session)
        await until(world, lambda: len(scope) == 1 + len(staying))
        answered = world.report.seen["question answered for somebody"]
        if answered != len(leaving):
            world.report.leak(f"of {len(leaving)} questions to people who left, {answered} were answered for them")
        for session, event, tag in staying:
            await world.reply(session, event, tag)
        await until(world, lambda: world.report.seen["question answered"] == len(staying))
        await until(world, lambda: len(scope) == 1)
        serving.cancel()
    return world.report


# Streams and event ids (rows 5 and 6).


class Get:
    """A GET in this process: what came of it so far, until its client leaves."""

    def __init__(self, world: World, scope: TaskScope, session: Session, headers: dict[str, str]) -> None:
        self.status = 0
        self.received = b""
        self.answered = asyncio.Event()
        self.task = scope.start(self._run(world, session, headers), "get")

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events that came."""
        lines = self.received.split(b"\n")
        return [int(line.rpartition(b":")[2].strip(b" }")) for line in lines if line.startswith(b"data: {")]

    @property
    def ids(self) -> list[str]:
        """The ids of all events that came."""
        return [line[3:].strip().decode() for line in self.received.split(b"\n") if line.startswith(b"id:")]

    async def leave(self) -> None:
        """Close the connection."""
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _run(self, world: World, session: Session, headers: dict[str, str]) -> None:
        async def receive() -> Any:
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.answered.set()
            else:
                self.received += message["body"]

        fields = {"host": "localhost", "accept": "text/event-stream", **headers}
        raw = [(name.encode(), value.encode()) for name, value in fields.items()]
        scope = {"type": "http", "method": "GET", "path": f"/mcp/{session.server}", "headers": raw}
        await world.gateway.app(scope, receive, send)


async def get(world: World, scope: TaskScope, session: Session, last_event_id: str = "", **headers: str) -> Get:
    """A GET that has been answered, and got what there was to be replayed."""
    whole = session.headers | headers | ({"last-event-id": last_event_id} if last_event_id else {})
    getting = Get(world, scope, session, whole)
    await getting.answered.wait()
    return getting


def push(world: World, session: Session, *numbers: int) -> None:
    """Give the session's stream numbered events."""
    inside = inside_of(world, session)
    for number in numbers:
        inside.push("test/event", Raw(b'{"number":%d}' % number))


def inside_of(world: World, session: Session) -> ClientSession:
    """What the gateway knows of a session."""
    return next(inside for inside in world.gateway.app.sessions if inside.id == session.id)


def forged_id(rng: Random, genuine: list[str]) -> str:
    """An event id that nobody was given: random, or a genuine one with something changed."""
    while (forged := _changed(rng, *rng.sample(genuine, 2))) in genuine:
        pass
    return forged


def _changed(rng: Random, genuine: str, other: str) -> str:
    stream, number, proof = genuine.split(".")
    digit = rng.randrange(len(proof))
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randint(1, 40)).hex()
        case 1:
            return event_id(rng.randbytes(32), rng.randrange(4), rng.randrange(9))
        case 2:
            return f"{stream}.{rng.randrange(9)}.{proof}"
        case 3:
            return f"{stream}.{number}.{other.rpartition('.')[2]}"
        case 4:
            return f"{stream}.{number}.{proof[:digit]}{rng.choice('0123456789abcdef')}{proof[digit + 1 :]}"
        case _:
            return f"{stream}.{number}." + rng.choice(("", proof[:-1], proof.upper() + "0", "0" * len(proof)))


async def second_streams(attempts: int) -> Report:
    """GETs beside one that is read, by its owner with no or a false event id, by others with the true one."""
    world = World(users=2)
    report, rng = world.report, world.rng
    async with asyncio.timeout(LIMIT), world.running(), TaskScope() as scope:
        (owner, other) = named(world)
        session, foreign = await world.initialize(owner, "users"), await world.initialize(other, "users")
        first, theirs = await get(world, scope, session), await get(world, scope, foreign)
        pushed = [0, 1, 2]
        push(world, session, *pushed)
        push(world, foreign, *pushed)
        await settle()
        for number in range(attempts):
            if number % 10 == 0:
                pushed.append(len(pushed))
                push(world, session, pushed[-1])
            if number % 4 == 3:
                second = await get(world, scope, session, rng.choice(first.ids), **other.headers)
            else:
                ids = ("", rng.choice(theirs.ids), forged_id(rng, first.ids))
                second = await get(world, scope, session, ids[number % 4])
            report.seen[f"GET got {second.status}"] += 1
            if second.status != (404 if number % 4 == 3 else 409):
                report.leak(f"attempt {number} got {second.status}")
            await second.leave()
        if first.numbers != pushed:
            report.leak(f"of {pushed} the stream got {first.numbers}")
        # Its own valid event id takes the stream over, with all that came after.
        taking = await get(world, scope, session, first.ids[-3])
        push(world, session, len(pushed))
        await settle()
        if not first.task.done():
            report.leak("two responses read one stream")
        if taking.numbers != [*pushed[-2:], len(pushed)] or first.numbers != pushed:
            report.leak(f"the new stream got {taking.numbers}, the old one {first.numbers}")
        report.seen["taken over"] += 1
    return report


async def event_ids(attempts: int) -> Report:
    """Event ids of other sessions, of sessions that ended, and made-up ones, by everybody."""
    world = World(users=2)
    report, rng = world.report, world.rng
    async with asyncio.timeout(LIMIT), world.running(), TaskScope() as scope:
        owners = [named(world)[0], named(world)[0], named(world)[1], *world.people[-2:], named(world)[0]]
        sessions = [await world.initialize(person, "users") for person in owners]
        ids: list[list[str]] = []
        for session in sessions:
            push(world, session, *range(5))
            reading = await get(world, scope, session)
            ids.append(reading.ids[-5:])
            await reading.leave()
        await world.end_session(sessions.pop())
        for number in range(attempts):
            at = rng.randrange(len(sessions))
            foreign = [one for there, some in enumerate(ids) if there != at for one in some]
            value = rng.choice(foreign) if number % 2 else forged_id(rng, [*foreign, *ids[at]])
            reading = await get(world, scope, sessions[at], value)
            report.seen["foreign" if number % 2 else "made up"] += 1
            if reading.status != 200 or reading.numbers:
                report.leak(f"{value!r} was answered with {reading.status} and replayed {reading.numbers}")
            await reading.leave()
        for session, own in zip(sessions, ids, strict=False):
            reading = await get(world, scope, session, own[1])
            report.seen["replayed by a genuine id"] += len(reading.numbers)
            await reading.leave()
    return report


# Nobody in particular (row 7).


async def nameless_callers(callers: int) -> Report:
    """Callers whom a trusted client leaves unnamed, all in the same chat at once, with sessions and without."""
    world = World(users=1)
    report = world.report
    async with asyncio.timeout(LIMIT), world.running(), TaskScope() as scope:
        for server in ("chats", "users"):
            for has_session in (False, True):
                for _ in range(callers):
                    nobody = Person("nobody", {**world.nameless, "x-chat": "c0"}, names_chats=False)
                    session_id = (await world.initialize(nobody, server)).id if has_session else ""
                    headers = nobody.headers | ({"mcp-session-id": session_id} if session_id else {})
                    body = world.tool_call(world.tag("nobody", "c0"), 1, do=())
                    start(world, scope, _call_as_nobody(world, server, headers, body))
                await until(world, lambda: len(world.jobs) == callers)
                links = {job.link for job in world.jobs}
                how = "with a session" if has_session else "without"
                report.seen[f"sessions of {server} {how}"] = len(links)
                while world.jobs:
                    world.jobs.pop().step()
                await until(world, lambda: len(scope) == 0)
                # Nobody could ever find them again: they end with their calls.
                await settle(100)
                report.seen["ended"] += sum(link.is_over for link in links)
                if not all(link.is_over for link in links):
                    report.leak(f"a session of nobody at {server} outlived its call")
    return report


async def _call_as_nobody(world: World, server: str, headers: dict[str, str], body: Any) -> None:
    (own,) = tags_in(body["params"]["arguments"]["canary"].encode())
    answer = await world.http("POST", f"/mcp/{server}", headers, body)
    world.check_result(server, own, answer.messages[-1], 1, is_private=True)


# Lists (row 8).


async def lists_of_two(lists: int) -> Report:
    """Two users, each with tools of its own, list them at once, over and over, in all ways there are."""
    world = World(users=2)
    report = world.report
    left = iter(range(lists))

    async def work(person: Person, path: str, headers: dict[str, str], own: Tag) -> None:
        for number in left:
            body: Any = {"jsonrpc": "2.0", "id": number, "method": "tools/list", "params": {}}
            answer = await world.http("POST", path, headers, body)
            if tags_in(repr(answer.messages).encode()) != [own]:
                report.leak(f"{person.name} got the list {answer.messages}")
            report.seen[f"list of {person.name}"] += 1

    async with asyncio.timeout(LIMIT), world.running(), TaskScope() as scope:
        ways: list[tuple[Person, str, dict[str, str], Tag]] = []
        for person in named(world):
            session = await world.initialize(person, "varied")
            for chat, path, headers in (
                ("own", "/mcp/varied", session.headers),
                ("c0", "/mcp/varied/chats/c0", person.headers),
                ("c1", "/mcp/varied", {**person.headers, "x-chat": "c1"}),
            ):
                own = world.tag(person.name, chat)
                start(world, scope, _tell(world, path, headers, own))
                await until(world, lambda: len(world.jobs) == 1)
                world.jobs.pop().step()
                await until(world, lambda: len(scope) == 0)
                ways.append((person, path, headers, own))
        for way in ways * 4:
            start(world, scope, work(*way))
        await until(world, lambda: len(scope) == 0)
    return report


async def _tell(world: World, path: str, headers: dict[str, str], own: Tag) -> None:
    await world.http("POST", path, headers, world.tool_call(own, 1, do=()))


# Cancellations (row 9).


async def cancellations(clients: int, rounds: int) -> Report:
    """In one upstream session everybody has two of four ids in flight, and cancels one of them and the other two."""
    world = World(users=clients)
    report, rng = world.report, world.rng
    async with asyncio.timeout(LIMIT), world.running(), TaskScope() as scope:
        sessions = [await world.initialize(person, "shared") for person in named(world)]
        for _ in range(rounds):
            flying = {session: rng.sample(IDS, 2) for session in sessions}
            start_calls(world, scope, [(session, one) for session, ids in flying.items() for one in ids])
            await until(world, lambda: len(world.jobs) == 2 * clients)
            for session, (own, _) in flying.items():
                world.cancelled.add(session.calls[repr(own)].number)
            for session, (own, kept) in flying.items():
                for request_id in (own, *(one for one in IDS if repr(one) not in (repr(own), repr(kept))), own):
                    params = {"requestId": request_id}
                    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
                    await world.http("POST", "/mcp/shared", session.headers, body)
                    report.seen["cancellation sent"] += 1
            while world.jobs:
                world.jobs.pop().step()
            await until(world, lambda: len(scope) == 0)
    return report
