"""The parts of `holdfast top`: an address, a gateway's answers, and the lines on a terminal."""

from __future__ import annotations

import asyncio
import html
import importlib.util
import re
import shlex
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.core import TyperGroup
from typer.main import get_command

from holdfast.cli.api import ANSWER_TIMEOUT, Address, ApiClient, ApiFailed, Overview, parse_address
from holdfast.cli.main import app
from holdfast.cli.settings import parse_key
from holdfast.cli.top_view import Picture, draw, span
from holdfast.clock import Clock, LoopClock
from holdfast.errors import ConfigError
from holdfast.tasks import TaskScope
from holdfast.testing.clock import ManualClock
from requirements import requirement
from unit.made_up import server, session
from unit.scripted_http import Peer, ScriptedServer, SeenRequest, scripted

ROOT: Final = Path(__file__).resolve().parent.parent.parent


# The address.


@pytest.mark.parametrize(
    ("typed", "origin", "prefix"),
    [
        ("http://127.0.0.1:8790", "http://127.0.0.1:8790", ""),
        ("http://127.0.0.1:8790/", "http://127.0.0.1:8790", ""),
        ("http://[::1]:8790/mcp", "http://[::1]:8790", ""),
        ("http://127.0.0.1:8790/mcp/browser", "http://127.0.0.1:8790", ""),
        ("https://example.org/holdfast/", "https://example.org", "/holdfast"),
        ("https://example.org/holdfast/mcp", "https://example.org", "/holdfast"),
    ],
)
def test_a_gateway_is_named_by_its_address_or_by_an_endpoint_of_it(typed: str, origin: str, prefix: str) -> None:
    assert parse_address(typed) == Address(origin, prefix)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("127.0.0.1:8790", "write http://127.0.0.1:8790"),
        ("ftp://example.org", "http://"),
        ("http://user:secret@example.org", "credentials"),
        ("http://127.0.0.1:99999", "port"),
        ("http://127.0.0.1:8790/?a=b", "address and a path"),
        ("http://127.0.0.1:8790/ü", "%XX"),
        ("no url at all", "%XX"),
    ],
)
def test_what_is_no_address_is_said_in_a_sentence_without_secrets(typed: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        parse_address(typed)
    assert "secret" not in str(caught.value)


# The answers.


def servers_answer(**fields: Any) -> dict[str, Any]:
    return {"version": "0.1.0", "status": "ready", "client_sessions": 2, "servers": [server()], **fields}


class Gateway:
    """Answers each request with the next of `answers`: a status and a body."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        self.answers = list(answers)

    async def answer(self, _: SeenRequest, peer: Peer) -> None:
        status, body = self.answers.pop(0)
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        peer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, len(content)), content)


@asynccontextmanager
async def asking(
    *answers: tuple[int, object], key: str | None = None, prefix: str = "", clock: Clock | None = None
) -> AsyncGenerator[tuple[ApiClient, ScriptedServer]]:
    gateway = Gateway(*answers)
    async with asyncio.timeout(60), TaskScope() as scope, scripted(gateway.answer) as upstream:
        client = ApiClient(Address(upstream.url, prefix), key, scope, clock or LoopClock())
        try:
            yield client, upstream
        finally:
            client.close()


async def test_an_overview_is_two_answers_asked_for_with_the_key() -> None:
    sessions = {"total": 7, "sessions": [session(1, state="active", calls=1)]}
    async with asking((200, servers_answer()), (200, sessions), key="sesame", prefix="/holdfast") as (client, upstream):
        overview = await client.overview(5)
        assert (overview.status, overview.total, overview.client_sessions) == ("ready", 7, 2)
        assert (overview.servers, overview.sessions) == ([server()], [session(1, state="active", calls=1)])
        assert [request.target for request in upstream.requests] == [
            "/holdfast/api/servers",
            "/holdfast/api/sessions?limit=5",
        ]
        assert all(request.headers["authorization"] == "Bearer sesame" for request in upstream.requests)


async def test_fields_of_a_newer_gateway_are_not_understood_and_harm_nothing() -> None:
    view = {**msgspec.to_builtins(server()), "colour": "blue"}
    sessions: dict[str, Any] = {"total": 0, "sessions": [], "more": 1}
    async with asking((200, servers_answer(servers=[view], more=2)), (200, sessions)) as (client, _):
        assert (await client.overview(5)).servers == [server()]


@requirement("operator:top:mistakes-are-one-line")
@pytest.mark.parametrize(
    ("key", "status", "body", "words"),
    [
        (None, 401, {"error": {"message": "x"}}, "give it with --key"),
        ("wrong", 401, {"error": {"message": "x"}}, "not the operator's key"),
        (None, 403, {"error": {"message": "Set operator_key."}}, "Set operator_key."),
        (None, 421, {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "No host."}}, "No host."),
        (None, 404, {"error": {"message": "nothing here"}}, "no Holdfast gateway"),
        (None, 200, b"<html>", "no Holdfast gateway"),
        (None, 200, [1], "no Holdfast gateway"),
        (None, 200, {"servers": "none"}, "no Holdfast gateway"),
        (None, 502, b"Bad gateway", "HTTP 502"),
        (None, 200, b"[" * 100_000, "no Holdfast gateway"),
    ],
)
async def test_whoever_answers_otherwise_is_told_apart(key: str | None, status: int, body: object, words: str) -> None:
    async with asking((status, body), (status, body), key=key) as (client, _):
        with pytest.raises(ApiFailed, match=re.escape(words)):
            await client.overview(5)


@requirement("operator:top:mistakes-are-one-line")
async def test_a_gateway_that_is_not_there_or_says_nothing_is_told() -> None:
    clock = ManualClock()
    async with asking(clock=clock) as (client, upstream):
        asked = asyncio.Event()

        async def silence(_: SeenRequest, peer: Peer) -> None:
            asked.set()
            await peer.gone()

        upstream.answer = silence
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(caught(client))
            await asked.wait()
            clock.advance(ANSWER_TIMEOUT)
            assert "no answer within 5 s" in await looking
        origin = upstream.url
    async with TaskScope() as scope:
        client = ApiClient(Address(origin, ""), None, scope, LoopClock())
        assert re.search("refused; is a gateway running there", await caught(client))
        client.close()


async def caught(client: ApiClient) -> str:
    with pytest.raises(ApiFailed) as failed:
        await client.overview(1)
    return str(failed.value)


# The picture.


def overview(servers: int = 2, sessions: int = 5, total: int | None = None) -> Overview:
    return Overview(
        "0.1.0",
        "ready",
        3,
        [server(f"server-{number}") for number in range(servers)],
        sessions if total is None else total,
        [session(number) for number in range(sessions)],
    )


def shown(picture: Picture | Overview, width: int = 120, height: int | None = None) -> list[str]:
    whole = picture if isinstance(picture, Picture) else Picture(picture, "127.0.0.1:8790", hint="q ends")
    return [line.plain for line in draw(whole, width, height)]


def test_the_picture_has_the_gateway_its_servers_and_its_sessions() -> None:
    view = Overview(
        "0.1.0",
        "ready",
        1,
        [
            server(
                "browser", sessions={"active": 3, "idle": 1200, "opening": 1, "lost": 2}, sent=4, queued=5, waiting=6
            ),
            server("search", state="failed", reason="connection refused", tools=None, protocol="", circuit="open"),
        ],
        1206,
        [session(7, state="active", calls=2, idle=0.0, age=7300, is_dirty=True, user="ada")],
    )
    lines = shown(view, 200)
    assert lines[0].startswith("Holdfast 0.1.0 at 127.0.0.1:8790  ready   2 servers, 1,206 sessions, 1 client")
    assert lines[0].endswith("q ends")
    assert (
        " ".join(lines[2].split())
        == "server state protocol scope tools active idle opening ending most in flight queued waiting circuit"
    )
    assert " ".join(lines[3].split()) == "browser ready 2025-11-25 chat 21 3 1,200 1 2 64 4 5 6 closed"
    assert " ".join(lines[4].split()) == "search failed - chat - 0 0 0 0 64 0 0 0 open"
    assert lines[5] == "  connection refused"
    assert " ".join(lines[7].split()) == "session server state scope client user age idle calls remembers"
    assert " ".join(lines[8].split()) == "s7 browser active chat open-webui ada 2 h - 2 yes"
    assert lines[9] == "and 1,205 more"


@requirement("operator:top:fits-the-terminal")
@given(
    size=st.tuples(st.integers(1, 220), st.integers(1, 60)),
    servers=st.integers(0, 40),
    sessions=st.integers(0, 60),
    hidden=st.integers(0, 10_000),
    name=st.text(min_size=1, max_size=70),
)
def test_whatever_there_is_fits_the_terminal(
    size: tuple[int, int], servers: int, sessions: int, hidden: int, name: str
) -> None:
    width, height = size
    views = [server(name, state="failed", reason=name * 5) if n % 3 else server(f"s{n}") for n in range(servers)]
    crowd = [session(n, user=name, server=name) for n in range(sessions)]
    view = Overview("0.1.0", "ready", 3, views, sessions + hidden, crowd)
    lines = draw(Picture(view, "127.0.0.1:8790", "" if hidden % 2 else "refused", 3.0, "q ends"), width, height)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
    assert not any("\n" in line.plain for line in lines)


@requirement("operator:top:fits-the-terminal")
def test_columns_that_say_nothing_go_first_then_names_are_cut_and_what_stands_out_stays() -> None:
    view = Overview(
        "0.1.0", "ready", 0, [server("a-server-with-a-long-name", queued=7)], 1, [session(1, user="u" * 40)]
    )
    heads: dict[int, tuple[str, str]] = {}
    for width in (200, 100, 60, 30):
        lines = shown(view, width)
        heads[width] = (lines[2], lines[5])
    assert [width for width in heads if "ending" in heads[width][0]] == [200]
    assert all("queued" in head for head, _ in heads.values())
    assert [width for width in heads if "client" in heads[width][1]] == [200, 100, 60]
    assert all(head.startswith("server") and "state" in head for head, _ in heads.values())
    assert shown(view, 100)[3].startswith("a-server-with-a-long-name ")
    assert "…" in shown(view, 30)[3]


@requirement("operator:top:fits-the-terminal")
def test_of_many_servers_those_in_trouble_and_at_work_are_shown_and_sessions_keep_their_place() -> None:
    view = overview(servers=30, sessions=50, total=900)
    view.servers[20] = server("broken", state="failed", reason="gone")
    view.servers[25] = server("busy", sent=3)
    lines = shown(view, height=16)
    assert len(lines) == 16
    assert [line.split()[0] for line in lines[3:6]] == ["broken", "gone", "busy"]
    assert "more" in lines[10]
    assert [line.split()[0] for line in lines[12:15]] == ["session", "s0", "s1"]
    assert lines[15] == "and 898 more"
    view.servers[:] = [server(f"b{n}", state="failed", reason="gone") for n in range(30)]
    assert any(re.fullmatch(r"and \d+ more, \d+ of them in trouble", line) for line in shown(view, height=16))


def test_a_gateway_without_sessions_or_servers_is_no_empty_screen() -> None:
    lines = shown(overview(servers=0, sessions=0), height=20)
    assert "0 servers, 0 sessions" in lines[0]
    assert lines[-1] == "no sessions"


@requirement("operator:top:survives-the-gateway")
def test_while_the_gateway_is_away_its_last_picture_stays_and_says_so() -> None:
    view = overview()
    lines = shown(Picture(view, "127.0.0.1:8790", "connection to 127.0.0.1:8790 refused", 73.0), 120, 30)
    assert lines[1] == "connection to 127.0.0.1:8790 refused; no answer for 1 min, trying again"
    assert lines[2:] == shown(view)[1:]


@requirement("operator:top:names-cannot-steer-the-terminal")
def test_names_from_elsewhere_cannot_steer_the_terminal() -> None:
    evil = "a\x1b[2Jb\r\nc\x9b31m"
    view = Overview(
        evil,
        evil,
        1,
        [server(evil, state="failed", reason=evil, protocol=evil)],
        1,
        [session(1, id=evil, user=evil, client=evil, server=evil, state=evil, scope=evil)],
    )
    for line in draw(Picture(view, evil, evil), 200):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line.plain)
    marked = Overview("0.1.0", "ready", 1, [], 1, [session(1, user="[bold]x")])
    assert "[bold]x" in shown(marked)[-1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (172_799, "47 h"),
        (172_800, "2 d"),
        (8_640_000, "100 d"),
    ],
)
def test_durations_are_read_in_one_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


# The documentation.

OPERATING: Final = (ROOT / "docs" / "operating.md").read_text()


def top_command() -> Any:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return group.commands["top"]


@pytest.mark.parametrize("command", re.findall(r"^holdfast top.*$", OPERATING, re.MULTILINE))
def test_every_command_that_is_shown_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERATOR_KEY", "sesame")
    with top_command().make_context("top", shlex.split(command)[2:]) as context:
        assert parse_address(context.params["url"]).origin.startswith("http")
        assert parse_key(context.params["key"]) in {None, "sesame"}


def test_every_option_is_documented_and_no_other() -> None:
    options = {word for parameter in top_command().params for word in parameter.opts if word.startswith("--")}
    assert set(re.findall(r"^\| `(--[\w-]+)", OPERATING, re.MULTILINE)) == options | {"--help"}


def test_the_answers_that_are_shown_have_the_fields_that_are_sent() -> None:
    health, servers, sessions = (
        msgspec.json.decode(block) for block in re.findall(r"^```json\n(.*?)^```$", OPERATING, re.MULTILINE | re.DOTALL)
    )
    assert health == {"status": "ready"}
    shown = msgspec.convert({**servers, **sessions}, Overview, strict=True)
    assert list(servers["servers"][0]) == list(msgspec.to_builtins(shown.servers[0]))
    assert list(sessions["sessions"][0]) == list(msgspec.to_builtins(shown.sessions[0]))
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", OPERATING, re.MULTILINE))))
    assert {*sessions["sessions"][0], *servers["servers"][0]} - documented <= {
        "name",
        "transport",
        "max_sessions",
        "max_concurrency",
    }


@pytest.mark.parametrize("name", ["top.svg", "start.svg", "doctor.svg"])
def test_the_pictures_of_the_documentation_are_what_is_drawn_today(name: str) -> None:
    spec = importlib.util.spec_from_file_location("images", ROOT / "tools" / "images.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def words(svg: str) -> list[str]:
        return html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", svg, flags=re.DOTALL)).split()

    drawn: str = script.IMAGES[name]()
    kept = (ROOT / "docs" / "images" / name).read_text()
    assert words(kept) == words(drawn), "run tools/images.py"
    assert "http" not in re.sub(r'xmlns="[^"]+"|<!--.*?-->|(?<=>)[^<]+', "", kept), (
        "the picture loads nothing from elsewhere"
    )
