"""Reloads one after another while clients call: threats-and-faults, row 49."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from holdfast import events
from holdfast.config import ClientSettings, Trust
from reload_rig import House, PathClient, changed, client_of, house
from requirements import requirement
from rows import Figure, row

RELOADS: Final = 100
RATE: Final = 200
CALLS: Final = RATE * 10
FAILURES: Final = (AssertionError, OSError, LookupError, ValueError, EOFError)
"""Whatever can become of a request that is not answered as it should be."""


def host(*keys: str) -> ClientSettings:
    return client_of("host", *keys, trust=Trust(chat="x-chat"))


class Load:
    """Three callers, in a session each: a client's own, one of all servers together, and a chat's."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.keys = ["key-0"]
        self.failed: list[str] = []
        self.counted: list[list[int]] = []
        self._borne: Counter[str] = Counter()
        """How many calls under way bear each key."""
        self._callers: list[tuple[PathClient, str]] = []

    async def begin(self) -> None:
        """Let each caller count for the first time."""
        chat = self.home.client("/mcp/a", self.keys[0])
        chat.headers["x-chat"] = "c1"
        client = await self.home.connected("/mcp/a", self.keys[0])
        whole = await self.home.connected("/mcp", self.keys[0])
        self._callers = [(client, "count"), (whole, "a__count"), (chat, "count")]
        self.counted = [[int(await caller.count(tool))] for caller, tool in self._callers]

    async def call(self, number: int) -> None:
        """One call, with the newest key."""
        caller, tool = self._callers[number % 3]
        key = self.keys[-1]
        self._borne[key] += 1
        try:
            self.counted[number % 3].append(int(await caller.with_key(key, number).count(tool)))
        except FAILURES as error:
            self.failed.append(repr(error))
        finally:
            self._borne[key] -= 1

    def reload(self, number: int) -> None:
        """Other timeouts, another server, without it again, a new key and none that nobody bears; and so on."""
        home = self.home
        match number % 4:
            case 0:
                home.change("a", call_timeout=100.0 + number, max_concurrency=64 + number)
            case 1:
                c = changed(home.server("a").settings, name="c", url=home.upstreams["c"].url)
                home.reload(servers=(*home.gateway.settings.servers, c))
            case 2:
                home.reload(servers=home.gateway.settings.servers[:-1])
            case _:
                used = [key for key in self.keys[:-1] if self._borne[key]]
                self.keys = [*used, self.keys[-1], f"key-{number}"]
                home.reload(clients=(host(*self.keys),))

    async def run(self) -> float:
        """Make all calls, with the reloads between them; the seconds that it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        calls: list[asyncio.Task[None]] = []
        for number in range(CALLS):
            await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))  # the pace is the load, and no proof
            calls.append(self.home.start(self.call(number)))
            if number % (CALLS // RELOADS) == 0:
                self.reload(number // (CALLS // RELOADS))
        await asyncio.wait(calls)
        return loop.time() - began


@row(49)
@requirement("reload:under-load")
async def test_a_hundred_reloads_fail_none_of_two_hundred_calls_a_second(figure: Figure) -> None:
    async with house("a", "b", others=["c"], seconds=120, clients=(host("key-0"),)) as home:
        load = Load(home)
        await load.begin()
        initializes = home.upstreams["a"].initializes
        seconds = await load.run()
        assert load.failed == []
        assert [sorted(numbers) for numbers in load.counted] == [[*range(1, len(each) + 1)] for each in load.counted]
        assert home.upstreams["a"].initializes == initializes
        assert len(home.told(events.SettingsReloaded)) == RELOADS
        figure(f"{RELOADS} reloads, {CALLS:,} calls at {CALLS / seconds:.0f} per second: {len(load.failed)} failed")
