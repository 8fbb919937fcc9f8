"""The load of the soak: clients of every kind, each kind at its own pace."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from itertools import count
from typing import Any, Final

from soak.peer import Peer, Surprised, Tally

CHATS: Final = 40
"""Chats that change what a server remembers: when their sessions end, each leaves a marker, for a day."""
STDIO_CHATS: Final = 8

Act = Callable[[], Coroutine[Any, Any, None]]


class Load:
    """Clients of one gateway, with the servers alpha (scope chat), beta (scope user) and gamma (stdio)."""

    def __init__(self, port: int, key: str, *, seed: int = 7) -> None:
        self.tally = Tally()
        self._port = port
        self._headers = {"authorization": f"Bearer {key}"}
        self._rng = random.Random(seed)
        self._names = count(1)

    async def run(self, seconds: float) -> None:
        """Keep every kind of client at work for so long, then let those under way come to their end."""
        paces: dict[Act, float] = {
            self.message: 0.2,
            self.merged_message: 0.8,
            self.lasting_client: 1.0,
            self.curl: 0.3,
            self.curl_array: 2.0,
            self.cancelling: 1.0,
            self.leaving: 0.7,
            self.leaving_a_question: 2.0,
            self.forgotten: 2.0,
            self.stdio_message: 2.5,
        }
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for act, period in paces.items():
                group.create_task(self._repeat(act, period, until))

    async def _repeat(self, act: Act, period: float, until: float) -> None:
        async with asyncio.TaskGroup() as group:
            async for _ in ticks(period, until, self._rng.random()):
                group.create_task(self._guarded(act))

    async def _guarded(self, act: Act) -> None:
        try:
            await act()
        except Surprised:
            pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.tally.surprises[f"{act.__name__}: {type(error).__name__}"] += 1

    # What each kind of client does once.

    async def message(self) -> None:
        """One message of a chat host that connects anew each time; half of the chats are new."""
        is_new = self._rng.random() < 0.5
        chat = f"new{next(self._names)}" if is_new else f"chat{self._rng.randrange(CHATS)}"
        peer = self._peer("/mcp/alpha", user="ada", chat=chat)
        await peer.probe()
        await peer.open()
        async with peer.listening():
            await peer.send(peer.http.call("tools/list"))
            await self._echo(peer)
            if not is_new:
                await peer.call("count")
        await peer.delete()

    async def merged_message(self) -> None:
        """The same with all servers at one URL."""
        peer = self._peer("/mcp", user="ben", chat=f"chat{self._rng.randrange(CHATS)}")
        await peer.open()
        async with peer.listening():
            await peer.send(peer.http.call("tools/list"))
            await self._echo(peer, "alpha__")
            await self._echo(peer, "beta__")
        await peer.delete()

    async def lasting_client(self) -> None:
        """A client that keeps its session and its stream for some seconds; half of them leave without a word."""
        peer = self._peer("/mcp/alpha", user="cleo")
        await peer.open(elicitation={})
        async with peer.listening():
            await peer.send(peer.http.call("resources/subscribe", uri="memo://note"))
            await peer.send(peer.http.call("logging/setLevel", level="info"))
            async for _ in ticks(1.5, asyncio.get_running_loop().time() + 6, 0):
                await self._echo(peer)
                await peer.call("progress", progress=True, steps=3)
                await peer.call("log", level="info", message="seen")
                await peer.call("ask", message="Go on?")
                await peer.call("big", bytes=100_000)
        if self._rng.random() < 0.5:
            await peer.delete()

    async def curl(self) -> None:
        """A list, and a call that names no chat."""
        peer = self._peer(self._rng.choice(["/mcp/alpha", "/mcp/beta"]), user="dora")
        await peer.send(peer.http.call("tools/list"))
        await self._echo(peer)

    async def curl_array(self) -> None:
        """Two calls at once in one private session."""
        peer = self._peer("/mcp/alpha", user="dora")
        await peer.send([peer.http.tool("count"), peer.http.tool("count")])

    async def cancelling(self) -> None:
        """A call that is taken back."""
        peer = self._peer("/mcp/beta", user="emil")
        await peer.open()
        call = peer.http.tool("slow", seconds=20)
        cancel = {"requestId": call["id"], "reason": "enough"}
        async with asyncio.TaskGroup() as group:
            group.create_task(peer.leave_within(call, 5))
            async for _ in ticks(0.5, asyncio.get_running_loop().time() + 0.6, 1):
                await peer.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})
        await peer.delete()

    async def leaving(self) -> None:
        """A client that is gone before its answer, with or without a session."""
        peer = self._peer("/mcp/alpha", user="fay")
        if self._rng.random() < 0.5:
            await peer.open()
        await peer.leave_within(peer.http.tool("slow", seconds=3, steps=6), 0.7)

    async def leaving_a_question(self) -> None:
        """A client that is asked, and leaves instead of answering."""
        peer = self._peer("/mcp/alpha", user="gil")
        peer.will_answer = False
        await peer.open(elicitation={})
        await peer.call("ask", message="Are you there?")

    async def forgotten(self) -> None:
        """A server that drops a session between two calls of a chat."""
        peer = self._peer("/mcp/beta", user=f"user{self._rng.randrange(CHATS)}")
        await peer.call("count", chat="any")
        await peer.call("forget_session", chat="any")
        await peer.call("count", chat="any")
        await self._echo(peer, chat="any")

    async def stdio_message(self) -> None:
        """A message to a server that is a process; at times it crashes."""
        peer = self._peer("/mcp/gamma", user="hal", chat=f"chat{self._rng.randrange(STDIO_CHATS)}")
        await peer.open()
        await self._echo(peer)
        await peer.call("crash" if self._rng.random() < 0.1 else "count")
        await peer.delete()

    def _peer(self, path: str, **named: str) -> Peer:
        return Peer(
            self.tally, self._port, path, **self._headers, **{f"x_{name}": value for name, value in named.items()}
        )

    async def _echo(self, peer: Peer, prefix: str = "", chat: str | None = None) -> None:
        """Call a tool that says what it was given, and see that it was."""
        canary = f"canary-{next(self._names)}"
        result = await peer.call(f"{prefix}echo", chat=chat, canary=canary)
        if result is not None and canary not in str(result):
            self.tally.surprises["an answer was another call's"] += 1


async def ticks(period: float, until: float, phase: float) -> AsyncGenerator[None]:
    """Once per `period` seconds of the loop's clock until `until`; what was missed is left out."""
    loop = asyncio.get_running_loop()
    at = loop.time() + phase * period
    while at < until:
        await asyncio.sleep(max(0.0, at - loop.time()))
        yield
        at = max(at + period, loop.time())
