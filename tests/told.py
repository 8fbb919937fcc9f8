"""Servers that remember what they were told, and repeat it to whoever will listen.

Every call bears a canary that names its user, its chat and itself; whatever such a server says
while it works at the call bears it too.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

from holdfast.call import Abilities
from holdfast.config import GatewaySettings, ServerSettings
from holdfast.gateway import Gateway
from holdfast.session.roster import Connect
from holdfast.upstream.handshake import HandshakeUpstream, declared
from holdfast.upstream.transport import Listener, Receiver, Sent, Upstream

CANARY: Final = re.compile(rb"cnry\.(\w+)\.(\w+)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Tag:
    """Whose something is."""

    user: str
    chat: str
    number: int

    @property
    def canary(self) -> str:
        return f"cnry.{self.user}.{self.chat}.{self.number}."


def tags_in(text: bytes) -> list[Tag]:
    return [Tag(m[1].decode(), m[2].decode(), int(m[3])) for m in CANARY.finditer(text)]


class Onlooker(Protocol):
    """What hears of everything that the servers notice."""

    jobs: list[Job]
    """The calls that they work at."""
    moved: asyncio.Event
    """Set when something happened."""

    def was_cancelled(self, job: Job) -> None:
        """A call was cancelled."""

    def was_answered(self, job: Job, tags: list[Tag]) -> None:
        """A person answered the question of a call, with these canaries."""

    def was_answered_for(self, job: Job) -> None:
        """The gateway answered the question of a call, since nobody could be asked."""


class Job:
    """A tool call that a server works at, one action at a time."""

    def __init__(self, link: ToldLink, request_id: int, params: dict[str, Any]) -> None:
        self.link = link
        self.id = request_id
        self.token = params.get("_meta", {}).get("progressToken")
        (self.tag,) = tags_in(params["arguments"]["canary"].encode())
        self.actions = list(params["arguments"]["do"])
        self.is_asking = False
        self.is_over = False

    def step(self) -> None:
        if self.is_over or self.is_asking:
            return
        link, canary = self.link, self.tag.canary
        match self.actions.pop() if self.actions else "answer":
            case "progress" | "progress-astray" as how:
                on = self.id if how == "progress" else link.another_request(self.id)
                params = {"progressToken": self.token, "progress": 1, "message": canary}
                link.send({"method": "notifications/progress", "params": params}, on)
            case "log" | "log-streamless" as how:
                params = {"level": "error", "data": canary}
                link.send({"method": "notifications/message", "params": params}, self.id if how == "log" else None)
            case "ask" | "ask-streamless" as how:
                self.is_asking = True
                link.ask(self, self.id if how == "ask" else None)
            case _:
                self.end()
                text = canary + " ".join(link.memory[-8:])
                link.send({"id": self.id, "result": {"content": [{"type": "text", "text": text}]}}, self.id)

    def end(self) -> None:
        self.is_over = True
        self.link.jobs.pop(self.id, None)


class _Forgotten:
    def cancel(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class ToldLink:
    """One session of a server that remembers what it was told and repeats it."""

    is_stateless = False

    def __init__(self, world: Onlooker, settings: ServerSettings) -> None:
        self.world = world
        self.settings = settings
        self.receiver: Receiver
        self.memory: list[str] = []
        self.jobs: dict[int, Job] = {}
        self.asked: dict[str, Job] = {}
        self.is_over = False

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def send(self, message: Mapping[str, Any], request_id: int | None) -> None:
        if not self.is_over:
            self.receiver.received(json.dumps({"jsonrpc": "2.0", **message}).encode(), request_id)

    def another_request(self, request_id: int) -> int | None:
        """The stream of another call: where supergateway sends progress."""
        return next((other for other in self.jobs if other != request_id), None)

    def ask(self, job: Job, request_id: int | None) -> None:
        ask_id = f"q{len(self.asked)}"
        self.asked[ask_id] = job
        params: dict[str, Any] = {"message": job.tag.canary, "requestedSchema": {"type": "object", "properties": {}}}
        self.send({"id": ask_id, "method": "elicitation/create", "params": params}, request_id)

    def request(self, request_id: int, message: bytes) -> Sent:
        decoded = json.loads(message)
        if decoded["method"] == "tools/call":
            job = Job(self, request_id, decoded["params"])
            self.jobs[request_id] = job
            if self.settings.scope != "shared":
                self.memory.append(job.tag.canary)
            self.world.jobs.append(job)
            self.world.moved.set()
            return _Forgotten()
        result: dict[str, Any] = {}
        match decoded["method"]:
            case "initialize":
                capabilities: dict[str, Any] = {"tools": {}, "logging": {}}
                result = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "t"}}
            case "tools/list":
                names = self.memory[-4:] if self.settings.lists == "session" else []
                result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
            case _:
                pass
        asyncio.get_running_loop().call_soon(self.send, {"id": request_id, "result": result}, request_id)
        return _Forgotten()

    def answered_elsewhere(self, request_id: int) -> None: ...

    def post(self, message: bytes) -> None:
        decoded = json.loads(message)
        if decoded.get("method") == "notifications/cancelled":
            job = self.jobs.get(decoded["params"]["requestId"])
            if job is not None:
                job.end()
                self.world.was_cancelled(job)
        elif "method" not in decoded:
            job = self.asked[decoded["id"]]
            job.is_asking = False
            if decoded.get("result", {}).get("action") == "accept":
                self.world.was_answered(job, tags_in(message))
            else:
                self.world.was_answered_for(job)

    def established(self, protocol_version: str) -> None: ...

    async def close(self) -> None:
        self.is_over = True

    def terminate(self) -> None:
        self.is_over = True


class ToldGateway(Gateway):
    """A gateway whose servers are in this process."""

    def __init__(self, settings: GatewaySettings, world: Onlooker) -> None:
        super().__init__(settings, rng=Random(1))
        self._world = world

    def _connect(self, settings: ServerSettings) -> tuple[Connect, Callable[[], None]]:
        def connect(
            listener: Listener,
            *,
            declares: Abilities,
            passed: tuple[tuple[str, str], ...] = (),
            prefers_modern: bool = False,
        ) -> Upstream:
            del passed, prefers_modern
            return HandshakeUpstream(ToldLink(self._world, settings), listener, declared(declares))

        return connect, lambda: None
