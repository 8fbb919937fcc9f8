"""What makes a gateway read its settings file again, and what it makes of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from holdfast import events
from holdfast.cli import reload
from holdfast.cli.reload import POLL_INTERVAL, SettingsFollower
from holdfast.config import GatewaySettings, key_digest
from holdfast.config.file import Loaded, load
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock, settle
from requirements import requirement

ONE: Final = "servers:\n  one: {url: 'http://127.0.0.1:3000/mcp'}\n"
TWO: Final = f"{ONE}  two: {{url: 'http://127.0.0.1:3001/mcp'}}\n"
WRONG: Final = f"{ONE}  two: {{url: nowhere}}\n  three: {{scope: all, command: [x]}}\n"


def write(path: Path, text: str) -> None:
    path.write_text(text)


def rename(path: Path, new: Path) -> None:
    path.replace(new)


def copy_times(path: Path, to: Path) -> None:
    status = path.stat()
    os.utime(to, ns=(status.st_atime_ns, status.st_mtime_ns))


class Follow:
    """A follower of a file, with a gateway that only notes what it is told."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self.clock = clock
        self.taken: list[GatewaySettings] = []
        self.refused: list[str] = []
        self.fails = False
        self.follower = SettingsFollower(path, load(path), self._take, self._heard, clock)

    def _take(self, settings: GatewaySettings, notes: Sequence[str]) -> None:
        assert list(notes) == []
        if self.fails:
            raise RuntimeError("nobody can take this")
        self.taken.append(settings)

    def _heard(self, event: events.Event) -> None:
        assert isinstance(event, events.SettingsRefused)
        self.refused.append(event.reason)

    @property
    def servers(self) -> list[list[str]]:
        """The names of the servers that each reload brought."""
        return [[server.name for server in settings.servers] for settings in self.taken]

    async def looks(self, times: int) -> None:
        """Return once the files have been looked at so often, and what followed from it is over."""
        for _ in range(times):
            await self.clock.waited_on(1)
            self.clock.advance(POLL_INTERVAL)
        await self.clock.waited_on(1)

    async def asks(self) -> None:
        """Ask, as SIGHUP does; return once what followed from it is over."""
        await self.clock.waited_on(1)
        self.follower.ask()
        await settle()  # it stops waiting, and goes to read
        await self.clock.waited_on(1)


@asynccontextmanager
async def following(path: Path) -> AsyncGenerator[Follow]:
    clock = ManualClock()
    follow = Follow(path, clock)
    async with asyncio.timeout(60):
        async with TaskScope() as scope:
            scope.start(follow.follower.run(), "follow")
            yield follow
        assert clock.pending == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "holdfast.yaml"
    write(path, ONE)
    return path


@requirement("reload:follow:on-change")
async def test_a_file_that_stays_the_same_is_left_alone(path: Path) -> None:
    async with following(path) as follow:
        await follow.looks(5)
        assert (follow.taken, follow.refused) == ([], [])


@requirement("reload:follow:on-change")
async def test_a_file_that_was_saved_is_read_again_once(path: Path) -> None:
    async with following(path) as follow:
        write(path, TWO)
        await follow.looks(2)
        assert follow.servers == [["one", "two"]]
        await follow.looks(3)
        assert len(follow.taken) == 1


@requirement("reload:follow:on-change")
async def test_a_file_that_is_being_written_is_left_alone_until_it_settles(path: Path) -> None:
    async with following(path) as follow:
        for length in (30, 40, 50, 60):
            write(path, TWO[:length])
            await follow.looks(1)
        assert (follow.taken, follow.refused) == ([], [])
        write(path, TWO)
        await follow.looks(2)
        assert follow.servers == [["one", "two"]]
        assert follow.refused == []


@requirement("reload:follow:mistakes-change-nothing")
async def test_mistakes_are_told_once_each_and_change_nothing(path: Path) -> None:
    async with following(path) as follow:
        write(path, WRONG)
        await follow.looks(5)
        assert follow.taken == []
        (lines,) = follow.refused
        assert [line.split(": ")[:2] for line in lines.splitlines()] == [
            [f"{path}:3", "servers.two.url"],
            [f"{path}:4", "servers.three.scope"],
        ]


@requirement("reload:follow:mistakes-change-nothing")
async def test_mended_mistakes_are_taken_up_and_so_is_a_return_to_what_was_before(path: Path) -> None:
    async with following(path) as follow:
        for text in (WRONG, TWO, "[", ONE):
            write(path, text)
            await follow.looks(2)
        assert follow.servers == [["one", "two"], ["one"]]
        assert len(follow.refused) == 2


@requirement("reload:follow:on-sighup")
async def test_who_asks_is_answered_at_once_whether_anything_changed_or_not(path: Path) -> None:
    async with following(path) as follow:
        await follow.asks()
        await follow.asks()
        assert follow.servers == [["one"], ["one"]]
        write(path, TWO)
        await follow.asks()
        assert follow.servers[2:] == [["one", "two"]]
        await follow.looks(3)  # this edition is known already
        assert len(follow.taken) == 3


@requirement("reload:follow:on-sighup")
async def test_who_asks_again_is_told_the_mistakes_again(path: Path) -> None:
    async with following(path) as follow:
        write(path, WRONG)
        await follow.asks()
        await follow.looks(3)
        await follow.asks()
        assert len(follow.refused) == 2


@requirement("reload:follow:on-sighup")
async def test_two_signals_at_once_are_one(path: Path) -> None:
    async with following(path) as follow:
        await follow.clock.waited_on(1)
        follow.follower.ask()
        await follow.asks()
        assert len(follow.taken) == 1


@requirement("reload:follow:on-change")
async def test_a_file_that_is_replaced_by_rename_is_noticed_though_size_and_time_agree(path: Path) -> None:
    """As editors save it, and as `cp --preserve` and configuration tools do."""
    other = path.with_suffix(".new")
    write(other, ONE.replace("one", "two"))
    copy_times(path, other)
    async with following(path) as follow:
        rename(other, path)
        await follow.looks(2)
        assert follow.servers == [["two"]]


@requirement("reload:follow:mistakes-change-nothing")
async def test_a_file_that_is_gone_for_a_moment_is_no_mistake_and_one_that_stays_away_is(path: Path) -> None:
    async with following(path) as follow:
        rename(path, path.with_suffix(".old"))
        await follow.looks(1)
        write(path, TWO)
        await follow.looks(2)
        assert (follow.servers, follow.refused) == ([["one", "two"]], [])
        rename(path, path.with_suffix(".old"))
        await follow.looks(4)
        assert follow.refused == [f"{path}: cannot be read: no such file or directory"]
        write(path, ONE)
        await follow.looks(2)
        assert follow.servers == [["one", "two"], ["one"]]


@requirement("reload:follow:on-change")
async def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path) -> None:
    """Kubernetes swaps the link `..data`, through which the links to the files lead."""
    for name, text in (("..1", ONE), ("..2", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "holdfast.yaml").write_text(text)
    data, path = tmp_path / "..data", tmp_path / "holdfast.yaml"
    data.symlink_to("..1")
    path.symlink_to("..data/holdfast.yaml")
    async with following(path) as follow:
        swapped = tmp_path / "..tmp"
        swapped.symlink_to("..2")
        rename(swapped, data)
        await follow.looks(2)
        assert follow.servers == [["one", "two"]]


# Secrets in files of their own.

WITH_KEY: Final = f"clients: {{host: {{key: {{file: key}}}}}}\n{ONE}"


def keys(settings: GatewaySettings) -> tuple[bytes, ...]:
    return settings.clients[0].key_digests


@requirement("reload:follow:secrets")
async def test_a_secret_that_changes_is_read_again(path: Path) -> None:
    secret = path.with_name("key")
    write(secret, "a")
    write(path, WITH_KEY)
    async with following(path) as follow:
        write(secret, "b\n")
        await follow.looks(2)
        assert [keys(settings) for settings in follow.taken] == [(key_digest("b"),)]


@requirement("reload:follow:secrets")
async def test_a_secret_that_comes_with_an_edition_is_followed_and_one_that_went_is_not(path: Path) -> None:
    secret = path.with_name("key")
    write(secret, "a")
    async with following(path) as follow:
        write(path, WITH_KEY)
        await follow.looks(2)
        write(secret, "b")
        await follow.looks(2)
        assert [keys(settings) for settings in follow.taken] == [(key_digest("a"),), (key_digest("b"),)]
        write(path, ONE)
        await follow.looks(2)
        write(secret, "c")
        await follow.looks(3)
        assert len(follow.taken) == 3


@requirement("reload:follow:secrets")
async def test_a_secret_that_is_missing_mends_the_settings_when_it_comes(path: Path) -> None:
    async with following(path) as follow:
        write(path, WITH_KEY)
        await follow.looks(4)
        assert len(follow.refused) == 1
        assert "cannot read 'key'" in follow.refused[0]
        path.with_name("key").write_text("a")
        await follow.looks(2)
        assert [keys(settings) for settings in follow.taken] == [(key_digest("a"),)]


def after_reading(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Let something happen right after the file was read for the first time."""
    remaining = [do]

    def load_then(path: Path) -> Loaded:
        loaded = load(path)
        if remaining:
            remaining.pop()()
        return loaded

    monkeypatch.setattr(reload, "load", load_then)


@requirement("reload:follow:on-change")
async def test_a_change_right_after_the_file_was_read_is_not_missed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(path) as follow:
        after_reading(monkeypatch, lambda: path.write_text(TWO))
        await follow.asks()
        await follow.looks(2)
        assert follow.servers == [["one"], ["one", "two"]]


@requirement("reload:follow:secrets")
async def test_a_secret_that_changes_right_after_it_was_first_read_is_not_missed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = path.with_name("key")
    write(secret, "a")
    async with following(path) as follow:
        write(path, WITH_KEY)
        after_reading(monkeypatch, lambda: secret.write_text("b"))
        await follow.looks(4)
        assert keys(follow.taken[-1]) == (key_digest("b"),)


@requirement("reload:follow:mistakes-change-nothing")
async def test_a_failure_of_ours_is_logged_and_the_file_is_still_followed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as follow:
        follow.fails = True
        await follow.asks()
        assert "the settings could not be taken up" in caplog.text
        follow.fails = False
        write(path, TWO)
        await follow.looks(2)
        assert follow.servers == [["one", "two"]]
