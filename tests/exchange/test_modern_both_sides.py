"""Clients of 2026-07-28 at a server of the same revision: what either says reaches the other as it is."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, Final, cast

import pytest
from msgspec import Raw
from pydantic import SecretStr

from holdfast import call
from holdfast.config import ClientSettings, ToolRules, key_digest
from holdfast.downstream.parked import WRAPPED_TTL
from holdfast.session.key import origin_of
from holdfast.testing import server_modern
from holdfast.testing.clock import ManualClock
from holdfast.testing.server_core import RpcFailure
from holdfast.testing.server_modern import MODERN_TOOLS, InputRequired
from holdfast.testing.server_tools import TOOLS, Tool, ToolCall, text_result
from modern_client import KEY, YES, ModernClient, reply_in, text_in
from requirements import requirement
from rig import Rig, Transport, rig
from rows import Figure, row
from several import Behind, several

WAYS: Final[tuple[Transport, ...]] = ("sse", "json", "stdio")
MODERN: Final[dict[str, Any]] = {"era": "modern"}
NAMES: Final[dict[str, Any]] = {
    "user_name": {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {}}},
    "the roots": {"method": "roots/list"},
}
STATES: Final[list[str]] = []
"""What the server gave, oldest first."""


def adding(monkeypatch: pytest.MonkeyPatch, name: str, run: Any) -> None:
    """Let the server have another tool."""
    monkeypatch.setitem(MODERN_TOOLS, name, Tool(run, {"name": name, "inputSchema": {"type": "object"}}))


def brought_by(its: ToolCall) -> dict[str, Any]:
    """What the request brings back."""
    params = cast("server_modern.Request", its.session).params
    return {name: params[name] for name in ("inputResponses", "requestState") if name in params}


def state_of(its: ToolCall) -> str:
    """A state of the server's own making, for this request."""
    STATES.append(cast("server_modern.Request", its.session).seal({"number": len(STATES)}))
    return STATES[-1]


async def names(its: ToolCall) -> dict[str, Any]:
    """Put two questions under names of its own, with a state."""
    brought = brought_by(its)
    if "inputResponses" not in brought:
        raise InputRequired(NAMES, state_of(its))
    return text_result(json.dumps(brought))


async def stateless(its: ToolCall) -> dict[str, Any]:
    """Put a question, and need no state to understand the answer."""
    brought = brought_by(its)
    if not brought:
        return {"resultType": "input_required", "inputRequests": {"q": NAMES["user_name"]}}
    return text_result(json.dumps(brought))


async def said(its: ToolCall) -> dict[str, Any]:
    """Return the envelope."""
    return text_result(json.dumps(its.meta))


async def until_nothing_runs(running: Rig) -> None:
    await running.until_idle()
    assert len(running.app.modern.parked) == 0


@requirement("both-modern:questions")
async def test_questions_come_with_the_servers_own_names_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    adding(monkeypatch, "names", names)
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("names")
        result = await client.result(body)
        assert result["resultType"] == "input_required"
        assert result["inputRequests"] == NAMES
        await until_nothing_runs(running)
        answers: dict[str, Any] = {"user_name": YES, "the roots": {"roots": []}}
        brought = reply_in(await client.result(client.again(body, result, **answers)))
        assert brought == {"inputResponses": answers, "requestState": STATES[-1]}


@requirement("both-modern:questions")
@pytest.mark.parametrize("transport", WAYS)
@pytest.mark.parametrize("chat", ["c", None])
async def test_a_call_ends_with_its_question_and_another_brings_the_answer(
    transport: Transport, chat: str | None
) -> None:
    async with rig(transport, options=MODERN) as running:
        client = ModernClient(running, chat=chat)
        for tool, answer in (
            ("ask", YES),
            ("sample", {"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m"}),
            ("roots", {"roots": [{"uri": "file:///a"}]}),
        ):
            body = client.tool(tool, message="sure?", prompt="hi")
            result, (key,) = await client.asked(body)
            assert key == "q1"
            await until_nothing_runs(running)
            assert reply_in(await client.result(client.again(body, result, **{key: answer}))) == answer
            again, left = await client.asked(client.again(body, result))
            assert left == [key], "what lacks is asked again"
            assert again["requestState"] != result["requestState"]


@requirement("both-modern:questions")
async def test_a_server_may_ask_without_a_state_and_need_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    adding(monkeypatch, "stateless", stateless)
    async with rig(options=MODERN) as running:
        client = ModernClient(running)
        body = client.tool("stateless")
        result = await client.result(body)
        assert "requestState" not in result
        body["params"]["inputResponses"] = {"q": YES}
        assert reply_in(await client.result(body)) == {"inputResponses": {"q": YES}}
        body = client.tool("poll", times=1)
        result = await client.result(body)
        assert "inputRequests" not in result
        del (again := client.again(body, result))["params"]["inputResponses"]
        assert text_in(await client.result(again)) == "done after 1"


@requirement("both-modern:sealed")
@pytest.mark.parametrize("way", ["made up", "changed", "chat", "principal", "arguments", "method"])
async def test_a_state_that_is_not_of_this_request_is_unknown(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adding(monkeypatch, "names", names)
    keys = {name: key_digest(name) for name in ("a", "b")}
    clients = tuple(ClientSettings(name=name, key_digests=(digest,)) for name, digest in keys.items())
    async with rig(options=MODERN, clients=clients) as running:
        client = ModernClient(running, chat="c", authorization="Bearer a")
        body = client.tool("names", n=1)
        result = await client.result(body)
        again = client.again(body, result, user_name=YES)
        sender, state = client, result["requestState"]
        assert STATES[-1] not in state
        match way:
            case "made up":
                again["params"]["requestState"] = STATES[-1]
            case "changed":
                again["params"]["requestState"] = state[:-5] + ("A" if state[-5] != "A" else "B") + state[-4:]
            case "chat":
                again["params"]["_meta"] |= {"dev.holdfast/chat": "d"}
            case "principal":
                sender = ModernClient(running, chat="c", authorization="Bearer b")
            case "arguments":
                again["params"]["arguments"] = {"n": 2}
            case _:
                again |= {"method": "prompts/get"}
        before = len(running.upstream.ledger)
        status, code, error = await sender.refused(again)
        assert (status, code) == (400, -32602)
        assert error["message"].startswith("This requestState is unknown")
        assert len(running.upstream.ledger) == before, "the server hears nothing of it"
        honest = client.again(body, result, user_name=YES)
        honest["params"]["_meta"] = client.meta
        assert "inputResponses" in reply_in(await client.result(honest))


@requirement("both-modern:sealed")
async def test_states_of_parked_calls_and_of_servers_are_not_taken_for_each_other() -> None:
    async with rig() as old, rig(options=MODERN) as new:
        parks, wraps = ModernClient(old, chat="c"), ModernClient(new, chat="c")
        body = parks.tool("ask", message="?")
        parked, wrapped = await parks.result(body), await wraps.result(body)
        assert (await parks.refused(parks.again(body, wrapped, q1=YES)))[:2] == (400, -32602)
        assert (await wraps.refused(wraps.again(body, parked, **{"1": YES})))[:2] == (400, -32602)
        assert reply_in(await parks.result(parks.again(body, parked, **{"1": YES}))) == YES


@requirement("both-modern:sealed")
async def test_whether_a_state_may_come_twice_is_the_servers_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []

    async def once(its: ToolCall) -> dict[str, Any]:
        brought = brought_by(its)
        if not brought:
            raise InputRequired(NAMES, state_of(its))
        used.append(brought["requestState"])
        if len(used) > 2:
            raise RpcFailure(-32602, "Used.", {"by": "the server"})
        return text_result("done")

    adding(monkeypatch, "once", once)
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("once")
        result = await client.result(body)
        for _ in range(2):  # the first answer may have been lost on its way
            assert text_in(await client.result(client.again(body, result, user_name=YES))) == "done"
        error = (await client.events(client.again(body, result, user_name=YES)))[-1]["error"]
        assert error == {"code": -32602, "message": "Used.", "data": {"by": "the server"}}
        assert used == [STATES[-1]] * 3


@requirement("both-modern:sealed")
async def test_a_state_is_too_old_after_a_day() -> None:
    clock = ManualClock()
    async with rig(options=MODERN, clock=clock) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("ask", message="?")
        result, (key,) = await client.asked(body)
        await running.passing(WRAPPED_TTL - 1)
        assert reply_in(await client.result(client.again(body, result, **{key: YES}))) == YES
        await running.passing(2)
        assert (await client.refused(client.again(body, result, **{key: YES})))[:2] == (400, -32602)


@requirement("both-modern:sealed")
@pytest.mark.parametrize("path", ["/mcp", "/mcp/new"])
async def test_a_state_is_not_brought_to_another_server_of_the_same_name(path: str) -> None:
    async with several(Behind("old"), Behind("new", options=MODERN), Behind("next", options=MODERN)) as running:
        client = ModernClient(running, chat="c", path=path)
        body = client.tool("new__ask" if path == "/mcp" else "ask", message="?")
        result, (key,) = await client.asked(body)
        again = client.again(body, result, **{key: YES})

        def serve(**changes: Any) -> None:
            before = running.gateway.settings
            servers = tuple(
                server.model_copy(update=changes) if server.name == "new" else server
                for server in before.servers
                if server.name != "next"
            )
            running.gateway.reload(before.model_copy(update={"servers": servers}))

        serve(call_timeout=99.0)
        assert reply_in(await client.result(again)) == YES, "it is the same server"
        asked = len(running.upstreams["next"].calls("ask"))
        serve(url=running.upstreams["next"].url)
        answer = (await client.events(client.again(body, result, **{key: YES})))[-1]
        assert answer["error"]["code"] == -32602
        assert "requestState is unknown" in answer["error"]["message"]
        assert len(running.upstreams["next"].calls("ask")) == asked
        (anew, (other,)) = await client.asked(body)
        assert reply_in(await client.result(client.again(body, anew, **{other: YES}))) == YES


@requirement("both-modern:sealed")
async def test_a_state_is_not_brought_with_another_credential() -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("ask", message="?")
        result, (key,) = await client.asked(body)
        other = running.server.settings.model_copy(update={"headers": {"x-key": SecretStr("of another account")}})
        running.gateway.reload(running.gateway.settings.model_copy(update={"servers": (other,)}))
        answer = (await client.events(client.again(body, result, **{key: YES})))[-1]
        assert answer["error"]["code"] == -32602
        assert len(running.upstream.calls("ask")) == 1


@requirement("both-modern:sealed")
async def test_a_server_that_became_one_of_the_other_era_does_not_begin_anew_with_a_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rig() as running:
        client = ModernClient(running, chat="c")
        body = client.tool("echo", n=1)
        states = running.app.modern.parked
        seen: list[bytes] = []
        take = states.take

        def noted(state: str, terms: bytes) -> Any:
            seen.append(terms)
            return take(state, terms)

        monkeypatch.setattr(states, "take", noted)
        assert (await client.refused(client.again(body, {"requestState": "x"})))[1] == -32602
        settings = running.server.settings
        origin = origin_of(settings.name, settings.revision, settings.fingerprint)
        asked = call.InputRequired(Raw(b'{"requestState":"of before"}'), origin)
        wrapped = json.loads(bytes(states.wrapped(asked, seen[0]).raw))
        answer = (await client.events(client.again(body, wrapped)))[-1]
        assert answer["error"]["code"] == -32602
        assert running.upstream.calls("echo") == []


@requirement("both-modern:questions")
@pytest.mark.parametrize("transport", WAYS[:2])
async def test_a_client_that_leaves_cancels_its_call_at_the_server(transport: Transport) -> None:
    async with rig(transport, options=MODERN) as running:
        client = ModernClient(running, chat="c")
        async with client.post(client.tool("progress", {"progressToken": 1}, steps=1)) as response:
            await response.body()
        async with client.post(client.tool("slow", gate="g"), accept="text/event-stream"):
            await running.upstream.entered("g")
        (entry,) = running.upstream.calls("slow")
        await running.upstream.until(lambda: entry.outcome == "cancelled")
        await until_nothing_runs(running)


@row(3)
@requirement("both-modern:a-thousand")
async def test_a_thousand_interleaved_questions_land_in_their_own_calls(figure: Figure) -> None:
    rng = random.Random(28)
    users = 20
    trusting = (ClientSettings.model_validate({"name": "local", "trust": {"user": "x-user", "chat": "x-chat"}}),)
    async with rig(options=MODERN, clients=trusting) as running, asyncio.timeout(120):
        clients = [ModernClient(running, x_user=f"u{number}", x_chat="c") for number in range(users)]
        gate = asyncio.Semaphore(50)

        async def begin(number: int) -> tuple[ModernClient, dict[str, Any], Any]:
            client = clients[number % users]
            async with gate:
                body = client.tool("ask", message=f"{number}?")
                return client, body, await client.result(body)

        async with asyncio.TaskGroup() as group:
            begun = [group.create_task(begin(number)) for number in range(1000)]
        waiting = [task.result() for task in begun]
        await until_nothing_runs(running)
        order = list(range(1000))
        rng.shuffle(order)
        answered = set(order[:800])
        is_mixed: list[bool] = []
        is_refused: list[bool] = []

        async def finish(number: int) -> None:
            client, body, result = waiting[number]
            ((key, question),) = result["inputRequests"].items()
            assert question["params"]["message"] == f"{number}?"
            answer = {"action": "accept", "content": {"answer": str(number)}}
            async with gate:
                is_mixed.append(reply_in(await client.result(client.again(body, result, **{key: answer}))) != answer)

        async def steal(number: int) -> None:
            _, body, result = waiting[number]
            thief = clients[(number + 1) % users]
            async with gate:
                is_refused.append((await thief.refused(thief.again(body, result)))[:2] == (400, -32602))

        async with asyncio.TaskGroup() as group:
            for number in order:
                group.create_task(finish(number) if number in answered else steal(number))
        mixed, refused = sum(is_mixed), sum(is_refused)
        assert (len(is_mixed), mixed, refused) == (800, 0, 200)
        await until_nothing_runs(running)
        figure(f"1,000 wrapped questions: {mixed} answers mixed up, {refused} foreign states refused")


@requirement("both-modern:envelope")
async def test_the_server_is_told_what_this_client_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    adding(monkeypatch, "said", said)
    declared: dict[str, Any] = {
        "elicitation": {"form": {}},
        "experimental": {"dev.x": {"a": 1}},
        "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html"]}},
    }
    async with rig(options=MODERN) as running:
        for chat in ("c", None):
            client = ModernClient(running, chat=chat, capabilities=declared)
            meta = reply_in(await client.result(client.tool("said", {"traceparent": "00-1", "progressToken": "p"})))
            assert meta[KEY + "clientCapabilities"] == declared
            assert meta["traceparent"] == "00-1"
            assert meta["progressToken"] != "p"
            assert KEY + "logLevel" not in meta
            assert "dev.holdfast/chat" not in meta
        meta = reply_in(await client.result(client.tool("said", {KEY + "logLevel": "debug"})))
        assert meta[KEY + "logLevel"] == "debug"


@requirement("both-modern:envelope")
@pytest.mark.parametrize("transport", WAYS[:2])
async def test_a_missing_capability_is_told_as_the_server_says_it(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def needs_roots(its: ToolCall) -> dict[str, Any]:
        return await its.ask("roots/list")

    adding(monkeypatch, "needs_roots", needs_roots)
    async with rig(transport, options=MODERN) as running:
        client = ModernClient(running, chat="c", capabilities={"elicitation": {}})
        status, code, error = await client.refused(client.tool("needs_roots"))
        assert (status, code) == (400, -32021)
        assert error["data"] == {"requiredCapabilities": {"roots": {}}}


@requirement("both-modern:envelope")
async def test_logs_come_at_the_level_of_each_request() -> None:
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("log", {KEY + "logLevel": "warning"}, level="warning", message="hot")
        *told, _ = await client.events(body)
        assert [each["params"]["data"] for each in told] == ["hot"]
        body = client.tool("log", {KEY + "logLevel": "error"}, level="warning", message="hot")
        assert text_in((await client.events(body))[-1]["result"]) == "below the level"


@requirement("both-modern:results")
async def test_results_pass_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async def odd(_call: ToolCall) -> dict[str, Any]:
        return {"content": [], "structuredContent": None, "dev.x/more": [1], "_meta": {"dev.x": 1}}

    adding(monkeypatch, "odd", odd)
    async with rig(options=MODERN) as running:
        client = ModernClient(running, chat="c")
        result = await client.result(client.tool("odd"))
        info = result["_meta"][KEY + "serverInfo"]
        assert info["name"] == "holdfast-test-server"
        assert result == {
            "content": [],
            "structuredContent": None,
            "dev.x/more": [1],
            "resultType": "complete",
            "_meta": {"dev.x": 1, KEY + "serverInfo": info},
        }
        assert (await client.result(client.tool("measure")))["structuredContent"] == [1, 2, 3]
        listed = (await client.result(client.message("tools/list")))["tools"]
        (measure,) = [tool for tool in listed if tool["name"] == "measure"]
        assert measure["outputSchema"] == {"type": "array", "items": {"type": "integer"}}


@requirement("both-modern:hints")
async def test_a_time_to_live_of_any_size_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(server_modern.HINTS, "ttlMs", Raw(b"1" + 400 * b"0"))
    async with rig(options={"era": "modern"}) as running:
        client = ModernClient(running)
        assert (await client.result(client.message("tools/list")))["ttlMs"] > 0


@requirement("both-modern:hints")
async def test_hints_are_kept_as_far_as_they_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(server_modern.HINTS, "ttlMs", 60_000)
    monkeypatch.setitem(server_modern.HINTS, "cacheScope", "public")
    clock = ManualClock()

    async def hints_of(client: ModernClient, method: str, **params: Any) -> tuple[int, str]:
        result = await client.result(client.message(method, **params))
        return result["ttlMs"], result["cacheScope"]

    quiet = {"era": "modern", "unannounced": ("toolsListChanged",)}
    async with rig(options=quiet, clock=clock) as running:
        client = ModernClient(running, chat="c")
        await client.result(client.tool("echo"))
        await running.passing(20)
        assert await hints_of(client, "tools/list") == (40_000, "public"), "of what was fetched 20 seconds ago"
        assert await hints_of(client, "resources/read", uri="memo://note") == (60_000, "public")
        assert await hints_of(client, "server/discover") == (0, "private"), "of what was said when a session opened"
    async with rig(options=MODERN, clock=ManualClock()) as running:
        client = ModernClient(running, chat="c")
        await client.result(client.tool("echo"))
        await running.passing(20)
        assert await hints_of(client, "tools/list") == (60_000, "public"), "a change would have been announced"


@requirement("both-modern:hints")
async def test_what_is_not_the_same_for_every_client_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(server_modern.HINTS, "cacheScope", "public")
    one, two = key_digest("one"), key_digest("two")
    rules = (None, {"new": ToolRules(allow=("echo",))}, {"old": ToolRules()})
    for servers, expected in zip(rules, ("public", "private", "private"), strict=True):
        clients = (
            ClientSettings(name="a", key_digests=(one,)),
            ClientSettings(name="b", key_digests=(two,), servers=servers),
        )
        async with several(Behind("new", options=MODERN), "old", clients=clients) as running:
            client = ModernClient(running, chat="c", path="/mcp/new", authorization="Bearer one")
            for body in (client.message("tools/list"), client.message("resources/read", uri="memo://note")):
                assert (await client.result(body))["cacheScope"] == expected


@requirement("both-modern:hints")
async def test_a_handshake_server_cannot_speak_in_the_name_of_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pretend(_call: ToolCall) -> dict[str, Any]:
        return {"content": [], "resultType": "input_required", "inputRequests": {}, "requestState": "x"}

    monkeypatch.setitem(TOOLS, "pretend", Tool(pretend, {"name": "pretend", "inputSchema": {"type": "object"}}))
    async with rig() as running:
        client = ModernClient(running, chat="c")
        assert (await client.result(client.tool("pretend")))["resultType"] == "complete"


@requirement("both-modern:merged")
async def test_all_servers_together_ask_and_answer_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    adding(monkeypatch, "names", names)
    async with several(Behind("old"), Behind("new", options=MODERN)) as running:
        client = ModernClient(running, chat="c")
        body = client.tool("new__names")
        result = await client.result(body)
        assert result["inputRequests"] == NAMES
        brought = reply_in(await client.result(client.again(body, result, user_name=YES)))
        assert brought == {"inputResponses": {"user_name": YES}, "requestState": STATES[-1]}
        elsewhere = client.tool("old__echo")
        assert (await client.refused(client.again(elsewhere, result, user_name=YES)))[:2] == (400, -32602)
        parked = client.tool("old__ask", message="?")
        asked, (key,) = await client.asked(parked)
        assert reply_in(await client.result(client.again(parked, asked, **{key: YES}))) == YES
        listed = await client.result(client.message("tools/list"))
        assert (listed["ttlMs"], listed["cacheScope"]) == (0, "private")
        (measure,) = [tool for tool in listed["tools"] if tool["name"] == "new__measure"]
        assert measure["outputSchema"]["type"] == "array"
