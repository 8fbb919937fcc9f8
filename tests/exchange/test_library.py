"""`SessionPool`: kept sessions inside an application."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, Final

import pytest
from mcp_types import (
    CreateMessageRequest,
    CreateMessageResult,
    ElicitRequest,
    ElicitResult,
    ListRootsRequest,
    ListRootsResult,
    PromptReference,
    ReadResourceResult,
    Root,
    TextContent,
)
from pydantic import FileUrl

import holdfast
from holdfast import SessionPool
from holdfast.call import Status, StatusWord
from holdfast.config import GatewaySettings, ServerSettings
from holdfast.errors import CallFailed, Code, ConfigError
from holdfast.library.call import Question, Response
from holdfast.library.errors import InvalidAnswer, ServerError, UnknownServer
from holdfast.library.lease import PooledSession, SessionState, read_result
from holdfast.testing.server import ScriptedServer
from library_rig import NAME, library, text
from requirements import requirement

ERAS = ("handshake", "modern")
NOTE_URI = "note://shared"
SESSION: Final = "mcp-session-id"


# Whose session it is.


@requirement("library:keeps")
async def test_a_session_is_kept_from_lease_to_lease_for_its_principal_and_chat_alone() -> None:
    async with library() as (pool, upstream):
        async with pool.lease(NAME, principal="ann", chat="c") as session:
            await session.call_tool("remember", {"key": "colour", "value": "blue"})
        for principal, chat, kept in (("ann", "c", True), ("ann", "d", False), ("ben", "c", False)):
            async with pool.lease(NAME, principal=principal, chat=chat) as session:
                assert ("blue" in text(await session.call_tool("recall", {"key": "colour"}))) is kept
        assert upstream.initializes == 3


@requirement("library:keeps")
async def test_a_lease_that_was_given_back_opens_nothing() -> None:
    async with library(start="lazy") as (pool, upstream):
        session = await pool.acquire(NAME, principal="ann", warm=False)
        session.release()
        with pytest.raises(RuntimeError, match="released"):
            await session.warm()
        with pytest.raises(RuntimeError, match="released"):
            await session.call_tool("count")
        assert upstream.initializes == 0


@requirement("library:keeps")
async def test_a_lease_that_names_no_chat_has_a_session_of_its_own_that_ends_with_it() -> None:
    async with library() as (pool, upstream):
        async with pool.lease(NAME, principal="ann") as one, pool.lease(NAME, principal="ann") as other:
            await one.call_tool("remember", {"key": "colour", "value": "blue"})
            assert "nothing" in text(await other.call_tool("recall", {"key": "colour"}))
            used = {entry.session for entry in upstream.calls()}
            assert len(used & set(upstream.sessions)) == 2
        await upstream.until(lambda: not used & set(upstream.sessions))


@requirement("library:keeps")
async def test_leases_of_one_session_may_be_given_back_in_any_order_and_by_any_task() -> None:
    async with library() as (pool, _):
        first = await pool.acquire(NAME, principal="ann")
        sharing = [await pool.acquire(NAME, principal="ann", chat="c") for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for session in (sharing[1], first, sharing[0]):
                group.create_task(_release(pool, session))
        assert text(await sharing[2].call_tool("count")) == "1"
        pool.release(sharing[2])
        pool.release(sharing[2])
        with pytest.raises(RuntimeError, match="released"):
            await sharing[2].call_tool("count")


async def _release(pool: SessionPool, session: PooledSession) -> None:
    pool.release(session)


@requirement("library:credentials")
async def test_credentials_and_headers_that_differ_share_nothing_and_reach_the_server() -> None:
    async with library(headers={"Authorization": "Bearer static"}, start="lazy") as (pool, upstream):
        for credential in ("one", "two", None):
            async with pool.lease(NAME, principal="ann", chat="c", credential=credential) as session:
                assert text(await session.call_tool("count")) == "1"
                assert len(await session.list_tools()) > 5
        async with pool.lease(NAME, principal="ann", chat="c", headers={"X-Tenant": "t"}) as session:
            assert text(await session.call_tool("count")) == "1"
        async with pool.lease(NAME, principal="ann", chat="c", credential="one") as session:
            assert text(await session.call_tool("count")) == "2"
        sessions: dict[str, set[str]] = {}
        for headers in upstream.received_headers:
            if "mcp-session-id" in headers:
                sessions.setdefault(headers["mcp-session-id"], set()).add(headers["authorization"])
        assert all(len(borne) == 1 for borne in sessions.values())
        assert {next(iter(borne)) for borne in sessions.values()} == {"Bearer one", "Bearer two", "Bearer static"}
        assert {h["x-tenant"] for h in upstream.received_headers if "x-tenant" in h} == {"t"}


@requirement("library:credentials")
async def test_what_a_credential_lists_is_kept_for_nobody_else() -> None:
    async with (
        library(start="lazy") as (pool, upstream),
        pool.lease(NAME, principal="ann", chat="c", credential="one") as ann,
        pool.lease(NAME, principal="bob", chat="c", warm=False) as bob,
    ):
        assert await ann.list_tools()
        assert await bob.list_tools()
        upstream.core.forget_session(next(iter(upstream.sessions)))
        assert text(await ann.call_tool("count")) == "1", "in a session that was opened again"
        assert await bob.list_tools()
        credentials = {h[SESSION]: h.get("authorization") for h in upstream.received_headers if SESSION in h}
        asked = [credentials[entry.session] for entry in upstream.ledger if entry.method == "tools/list"]
        assert asked == ["Bearer one", None], "ann's own, and the one that is kept for all"


@requirement("library:credentials")
@pytest.mark.parametrize("value", ["plain", "Zoë", "€ and \t"])
async def test_a_header_that_is_no_ascii_goes_out_as_utf_8(value: str) -> None:
    async with library(start="lazy") as (pool, upstream):
        async with pool.lease(NAME, principal="ann", headers={"X-Name": value}) as session:
            await session.call_tool("count")
        borne = {h["x-name"].encode("latin-1").decode() for h in upstream.received_headers if "x-name" in h}
        assert borne == {value.strip()}


@requirement("library:credentials")
async def test_no_credential_is_shown() -> None:
    async with (
        library(start="lazy") as (pool, _),
        pool.lease(NAME, principal="ann", credential="canary-1", headers={"X-Key": "canary-2"}) as session,
    ):
        await session.call_tool("count")
        shown = f"{pool.stats()!r} {session!r} {vars(session)!r} {pool!r}"
        assert "canary" not in shown


@requirement("library:credentials")
async def test_what_cannot_be_is_refused_before_anything_is_opened() -> None:
    settings = GatewaySettings(
        servers=(
            ServerSettings(name="process", command=("true",), start="lazy"),
            ServerSettings(name="shared", url="http://127.0.0.1:9/mcp", scope="shared", start="lazy"),
            ServerSettings(name="remote", url="http://127.0.0.1:9/mcp", start="lazy"),
        )
    )
    pool = SessionPool.open(settings)
    with pytest.raises(RuntimeError, match="not open"):
        await pool.acquire("process", principal="ann")
    async with pool:
        with pytest.raises(UnknownServer, match="there is no server 'nope'; the settings have process, shared, remote"):
            await pool.acquire("nope", principal="ann")
        refused: list[tuple[str, dict[str, Any], str]] = [
            ("process", {"principal": "ann", "credential": "x"}, "is a process"),
            ("shared", {"principal": "ann", "headers": {"X-A": "b"}}, "is shared"),
            ("shared", {"principal": ""}, "principal is empty"),
            ("remote", {"principal": "ann", "credential": "a\r\nx: b"}, "authorization holds a control character"),
            ("remote", {"principal": "ann", "headers": {"X-A": "b\0"}}, "X-A holds a control character"),
            ("remote", {"principal": "ann", "headers": {"X-A": "\ud800"}}, "X-A is no text"),
            ("remote", {"principal": "ann", "headers": {"Content-Length": "0"}}, "Content-Length.*by Holdfast itself"),
            ("remote", {"principal": "ann", "headers": {"Mcp-Session-Id": "0"}}, "Mcp-Session-Id.*by Holdfast itself"),
            ("remote", {"principal": "ann", "headers": {"X A": "b"}}, "is no name of a header"),
            ("shared", {"principal": "a" * 1025}, "longer than 1024"),
            ("shared", {"principal": "ann", "chat": "c" * 1025}, "longer than 1024"),
        ]
        for server, wanted, words in refused:
            with pytest.raises(ValueError, match=words):
                await pool.acquire(server, **wanted)
        with pytest.raises(ValueError, match="say whose sessions"):
            pool.invalidate()
        others: tuple[dict[str, Any], ...] = (
            {"principal": 5},
            {"principal": "ann", "chat": 5},
            {"principal": "ann", "credential": 5},
            {"principal": "ann", "headers": {"X-A": 5}},
        )
        for wanted in others:
            with pytest.raises(TypeError, match="must be a string, not int"):
                await pool.acquire("remote", **wanted)
        assert pool.stats().leases == 0


@requirement("library:keeps")
async def test_a_pool_is_open_once_and_in_one_event_loop() -> None:
    async with library() as (pool, _):
        with pytest.raises(RuntimeError, match="open already"):
            await pool.__aenter__()
        async with pool.lease(NAME, principal="ann", chat="c") as session:

            async def call() -> None:
                await session.call_tool("count")

            async def acquire() -> None:
                await pool.acquire(NAME, principal="ann", chat="c")

            for what in (call, acquire):
                with pytest.raises(RuntimeError, match="another event loop"):
                    await asyncio.to_thread(asyncio.run, what())
            assert text(await session.call_tool("count")) == "1"


@requirement("library:settings")
async def test_settings_are_a_file_what_a_file_says_or_settings(tmp_path: Path) -> None:
    async with ScriptedServer() as upstream:
        says = {"servers": {NAME: {"url": upstream.url}}}
        path = tmp_path / "holdfast.yaml"
        path.write_text(json.dumps(says))
        host = {"mcpServers": {NAME: {"type": "http", "url": upstream.url}}}
        for config in (says, path, str(path), host):
            async with SessionPool.open(config) as pool, pool.lease(NAME, principal="ann") as session:
                assert text(await session.call_tool("count")) == "1"


@requirement("library:settings")
def test_every_mistake_in_the_settings_is_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        SessionPool.open({"servers": {"a": {"url": "nope"}, "b": {"urll": "http://127.0.0.1/"}}})
    first, *mistakes = str(caught.value).splitlines()
    assert first == "the settings cannot be used:"
    assert len(mistakes) >= 2
    assert all("servers." in line for line in mistakes)
    with pytest.raises(ConfigError, match=r"servers\.a\.scopee: unknown key"):
        SessionPool.open({"servers": {"a": {"url": "http://127.0.0.1/mcp", "scopee": "user"}}})


def test_the_package_has_the_names_that_it_offers_and_no_others() -> None:
    assert {name for name in holdfast.__all__ if getattr(holdfast, name)} == set(holdfast.__all__)
    assert dir(holdfast) == sorted(holdfast.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Pool'"):
        _ = holdfast.Pool


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Status(StatusWord.READY, "25 tools in 230 ms"), "ready: 25 tools in 230 ms"),
        (Status(StatusWord.READY, "ready in 230 ms"), "ready in 230 ms"),
        (Status(StatusWord.CONNECTING, "Connecting to notes."), "Connecting to notes."),
    ],
)
def test_a_status_that_is_printed_is_a_line_for_people(status: Status, line: str) -> None:
    assert str(status) == f"{status}" == line


async def test_what_is_printed_of_pools_and_sessions_says_how_they_stand() -> None:
    async with library() as (pool, _):
        session = await pool.acquire(NAME, principal="ann", chat="c")
        assert (repr(pool), repr(session)) == (f"<SessionPool {NAME}: 1 leased>", f"<PooledSession {NAME}: warm>")
        session.release()
        assert repr(session) == f"<PooledSession {NAME}: released>"
    assert repr(pool) == "<SessionPool: not open>"


# What a call yields.


@requirement("library:callbacks")
@pytest.mark.parametrize("era", ERAS)
async def test_progress_and_logs_are_heard_in_the_task_that_waits_in_order_and_before_the_result(era: str) -> None:
    async with library(options={"era": era}) as (pool, _):
        heard: list[Any] = []
        own = asyncio.current_task()

        def progress(value: float, total: float | None, message: str | None) -> None:
            heard.append((value, total, message, asyncio.current_task() is own))

        async def slowly(value: float, total: float | None, message: str | None) -> None:
            await asyncio.sleep(0)
            progress(value, total, message)

        async with pool.lease(NAME, principal="ann", chat="c") as session:
            for hear in (progress, slowly):
                heard.clear()
                result = await session.call_tool("progress", {"steps": 2}, on_progress=hear)
                assert text(result) == "done"
                assert heard == [(1, 2, "step 1 of 2", True), (2, 2, "step 2 of 2", True)]
            logs: list[Any] = []
            await session.call_tool("log", {"message": "hi", "level": "warning"}, on_log=logs.append)
            assert [(message.level, message.data) for message in logs] == [("warning", "hi")]


@requirement("library:callbacks")
async def test_a_callback_that_raises_ends_the_call_and_cancels_it_at_the_server() -> None:
    async with library() as (pool, upstream), pool.lease(NAME, principal="ann", chat="c") as session:

        def fails(*_: object) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await session.call_tool("progress", {"steps": 2, "gate": "never"}, on_progress=fails)
        await upstream.until(lambda: upstream.calls("progress")[0].outcome == "cancelled")
        assert text(await session.call_tool("count")) == "1"


@requirement("library:callbacks")
async def test_who_cancels_a_call_or_sets_it_a_limit_cancels_it_at_the_server() -> None:
    async with library() as (pool, upstream), pool.lease(NAME, principal="ann", chat="c") as session:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(session.call_tool("slow", {"gate": "one"}))
            await upstream.entered("one")
            task.cancel()
        await upstream.until(lambda: upstream.calls("slow")[0].outcome == "cancelled")
        with pytest.raises(CallFailed) as caught:
            await session.call_tool("slow", {"gate": "two"}, timeout=0.05)
        assert caught.value.code is Code.TIMEOUT
        assert text(await session.call_tool("count")) == "1"


@requirement("library:callbacks")
async def test_a_timeout_of_a_callbacks_own_is_not_the_servers() -> None:
    def late(progress: float, total: float | None, message: str | None) -> None:
        raise TimeoutError("the application's")

    async with library() as (pool, _), pool.lease(NAME, principal="ann", chat="c") as session:
        with pytest.raises(TimeoutError, match="the application's"):
            await session.call_tool("progress", {"steps": 3}, timeout=30, on_progress=late)


@requirement("library:asks")
@pytest.mark.parametrize("era", ERAS)
async def test_questions_come_typed_and_are_answered_typed(era: str) -> None:
    asked: list[Question] = []

    async def answer(question: Question) -> Response | None:
        asked.append(question)
        match question:
            case ElicitRequest():
                return ElicitResult(action="accept", content={"answer": "blue"})
            case CreateMessageRequest():
                return CreateMessageResult(role="assistant", content=TextContent(type="text", text="hm"), model="m")
            case ListRootsRequest():
                return ListRootsResult(roots=[Root(uri=FileUrl("file:///tmp/x"))])

    async with library(options={"era": era}) as (pool, _), pool.lease(NAME, principal="ann", chat="c") as session:
        said = text(await session.call_tool("ask", {"message": "Which?"}, on_ask=answer))
        assert json.loads(said) == {"action": "accept", "content": {"answer": "blue"}}
        assert "hm" in text(await session.call_tool("sample", {"prompt": "Say"}, on_ask=answer))
        assert "file:///tmp/x" in text(await session.call_tool("roots", on_ask=answer))
        kinds = [type(question) for question in asked]
        assert kinds == [ElicitRequest, CreateMessageRequest, ListRootsRequest]


@requirement("library:asks")
async def test_where_nobody_answers_the_server_is_told_so() -> None:
    async def nobody(_: Question) -> Response | None:
        return None

    async def fails(_: Question) -> Response | None:
        raise ZeroDivisionError

    async with library() as (pool, _), pool.lease(NAME, principal="ann", chat="c") as session:
        cancelled = {"action": "cancel"}
        assert json.loads(text(await session.call_tool("ask", {"message": "?"}))) == cancelled
        assert json.loads(text(await session.call_tool("ask", {"message": "?"}, on_ask=nobody))) == cancelled
        said = await session.call_tool("ask", {"message": "?"}, on_ask=fails, asks=("sampling", "roots"))
        assert json.loads(text(said)) == cancelled, "it was not even asked"


@requirement("library:asks")
async def test_an_answer_that_fails_is_logged_and_harms_no_other_call(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: Question) -> Response | None:
        raise ZeroDivisionError

    async with ScriptedServer() as upstream:
        settings = GatewaySettings(servers=(ServerSettings(name=NAME, url=upstream.url),))
        async with SessionPool.open(settings) as pool, pool.lease(NAME, principal="ann") as session:
            with caplog.at_level(logging.ERROR, "holdfast.library"):
                said = await session.call_tool("ask", {"message": "?"}, on_ask=fails)
            assert json.loads(text(said)) == {"action": "cancel"}
            assert "on_ask failed" in caplog.text


@requirement("library:results")
async def test_results_are_typed_and_a_servers_errors_are_its_own() -> None:
    async with library(options={"page_size": 4}) as (pool, _), pool.lease(NAME, principal="ann", chat="c") as session:
        tools = await session.list_tools()
        assert len({tool.name for tool in tools}) == len(tools) > 4
        assert [prompt.name for prompt in await session.list_prompts()]
        assert [str(each.uri) for each in await session.list_resources()]
        assert isinstance(await session.list_resource_templates(), list)
        uri = str((await session.list_resources())[0].uri)
        assert (await session.read_resource(uri)).contents
        prompt = (await session.list_prompts())[0].name
        arguments = {argument.name: "Ann" for argument in (await session.list_prompts())[0].arguments or []}
        assert (await session.get_prompt(prompt, arguments)).messages
        done = await session.complete(PromptReference(type="ref/prompt", name=prompt), next(iter(arguments)), "")
        assert done.completion.values
        with pytest.raises(ServerError) as caught:
            await session.read_resource("note://nowhere")
        assert caught.value.code in {-32002, -32602}
        with pytest.raises(ValueError, match="cannot be sent as JSON"):
            await session.call_tool("count", {"n": 2**70})
        failed = await session.call_tool("fail")
        assert failed.is_error


@requirement("library:results")
async def test_an_answer_that_is_no_mcp_is_told_from_one_that_is() -> None:
    async with library() as (pool, _), pool.lease(NAME, principal="ann", chat="c") as session:
        with pytest.raises(InvalidAnswer, match="no ReadResourceResult") as caught:
            read_result(ReadResourceResult, await session.request("ping"))
        assert caught.value.raw == b"{}"


@requirement("library:results")
async def test_lists_are_parsed_once_until_the_server_changes_them() -> None:
    async with library() as (pool, upstream), pool.lease(NAME, principal="ann", chat="c") as session:
        await upstream.pushing()
        before = await session.list_tools()
        again = await session.list_tools()
        assert before is not again
        assert all(one is other for one, other in zip(before, again, strict=True))
        await session.call_tool("change_tools")
        after = await session.list_tools()
        assert {tool.name for tool in before} ^ {tool.name for tool in after} == {"extra"}


# What becomes of it.


def _state(session: PooledSession) -> SessionState:
    """The state now: type checkers take it for what it was."""
    return session.state


@requirement("library:state")
async def test_a_session_says_how_it_stands_and_what_is_waited_for() -> None:
    async with library(restarts=True) as (pool, upstream):
        heard: list[Status] = []
        session = await pool.acquire(NAME, principal="ann", chat="c", on_status=heard.append, warm=False)
        assert _state(session) == "cold"
        await session.call_tool("remember", {"key": "a", "value": "b"})
        assert _state(session) == "warm"
        await upstream.stop()
        await upstream.start()
        with pytest.raises(CallFailed) as caught:
            await session.call_tool("recall", {"key": "a"})
        assert caught.value.code is Code.SESSION_LOST
        assert "nothing" in text(await session.call_tool("recall", {"key": "a"}))
        assert _state(session) == "restored"
        session.release()


@requirement("library:state")
async def test_a_loss_that_nobody_was_told_of_is_still_to_be_told_after_warming() -> None:
    async with library(max_sessions=1, start="lazy") as (pool, _):
        async with pool.lease(NAME, principal="ann", chat="c") as session:
            await session.call_tool("remember", {"key": "a", "value": "b"})
            async with pool.lease(NAME, principal="ben", chat="c"):
                assert session.state == "lost", "there is room for one"
        heard: list[Status] = []
        async with pool.lease(NAME, principal="ann", chat="c", on_status=heard.append) as session:
            assert heard[-1].word is StatusWord.RESTORED
            assert _state(session) == "lost"
            with pytest.raises(CallFailed) as caught:
                await session.call_tool("recall", {"key": "a"})
            assert caught.value.code is Code.SESSION_LOST
            assert _state(session) == "warm"


@requirement("library:state")
async def test_the_words_for_a_cold_start_are_sentences() -> None:
    async with library(start="lazy", options={"open_delay": 0.01}) as (pool, _):
        heard: list[Status] = []
        async with pool.lease(NAME, principal="ann", chat="c", on_status=heard.append) as session:
            assert [status.word for status in heard] == [StatusWord.CONNECTING, StatusWord.READY]
            assert heard[0].sentence == f"Connecting to {NAME}."
            assert heard[1].sentence.startswith("ready in ")
            await session.list_tools()
        heard.clear()
        async with pool.lease(NAME, principal="ann", chat="d", on_status=heard.append):
            assert heard[-1].sentence.split(" in ")[0].endswith(" tools")


@requirement("library:state")
async def test_a_cold_start_is_told_before_anything_is_sent() -> None:
    async with library(start="lazy") as (pool, upstream):
        told: list[tuple[str, int]] = []

        def tell(status: Status) -> None:
            told.append((status.word, len(upstream.received_headers)))

        async with pool.lease(NAME, principal="ann", chat="c", on_status=tell):
            assert told[0] == ("connecting", 0)
        async with pool.lease(NAME, principal="ben", chat="c", on_status=tell, warm=False) as session:
            told.clear()
            sent = len(upstream.received_headers)
            await session.call_tool("count")
            assert told[0] == ("connecting", sent)


@requirement("library:state")
async def test_a_server_that_is_not_there_is_a_failure_that_says_so_and_leaves_no_lease() -> None:
    settings = GatewaySettings(servers=(ServerSettings(name=NAME, url="http://127.0.0.1:9/mcp", start="lazy"),))
    async with asyncio.timeout(30), SessionPool.open(settings) as pool:
        heard: list[Status] = []
        with pytest.raises(CallFailed) as caught:
            await pool.acquire(NAME, principal="ann", on_status=heard.append)
        assert caught.value.code is Code.UPSTREAM_UNAVAILABLE
        assert heard[-1].word is StatusWord.FAILED
        assert pool.stats().leases == 0


@requirement("library:changes")
async def test_subscriptions_and_list_changes_are_heard_between_calls() -> None:
    async with library() as (pool, upstream):
        heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

        def changed(method: str, params: Any) -> None:
            heard.put_nowait((method, params))

        async with pool.lease(NAME, principal="ann", chat="c", on_change=changed) as session:
            await upstream.pushing()
            uri = str((await session.list_resources())[0].uri)
            await session.subscribe(uri)
            async with pool.lease(NAME, principal="ann", chat="c") as other:
                await other.call_tool("change_resource", {"uri": uri})
            method, params = await heard.get()
            assert (method, params["uri"]) == ("notifications/resources/updated", uri)
            await session.unsubscribe(uri)


@requirement("library:changes")
async def test_a_listener_that_fails_takes_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(60), ScriptedServer() as upstream:
        settings = GatewaySettings(servers=(ServerSettings(name=NAME, url=upstream.url),))
        async with SessionPool.open(settings) as pool:
            heard: asyncio.Queue[str] = asyncio.Queue()

            def fail(method: str, params: Any) -> None:
                raise RuntimeError(method)

            first = await pool.acquire(NAME, principal="ann", chat="c", on_change=fail)
            last = await pool.acquire(NAME, principal="ann", chat="c", on_change=lambda m, _: heard.put_nowait(m))
            await upstream.pushing()
            uri = str((await first.list_resources())[0].uri)
            await first.subscribe(uri)
            await last.subscribe(uri)
            await first.call_tool("count")
            await first.call_tool("change_resource", {"uri": uri})
            assert await heard.get() == "notifications/resources/updated"
            assert text(await last.call_tool("count")) == "2"
    assert {record.message for record in caplog.records} >= {
        "the application's on_change failed at notifications/resources/updated"
    }


@requirement("library:invalidate")
async def test_invalidating_a_principal_ends_its_sessions_and_calls_and_nobody_elses() -> None:
    async with library() as (pool, upstream):
        ann = await pool.acquire(NAME, principal="ann", chat="c")
        ben = await pool.acquire(NAME, principal="ben", chat="c")
        await ann.call_tool("remember", {"key": "a", "value": "b"})
        await ben.call_tool("remember", {"key": "a", "value": "b"})
        async with asyncio.TaskGroup() as group:
            call = group.create_task(_outcome(ann.call_tool("slow", {"gate": "never"})))
            await upstream.entered("never")
            pool.invalidate(principal="ann")
        assert call.result() is Code.OUTCOME_UNKNOWN
        assert "nothing" in text(await ann.call_tool("recall", {"key": "a"})), "and nobody is told of a loss"
        assert text(await ben.call_tool("recall", {"key": "a"})) == "b"
        pool.invalidate(server=NAME)
        assert "nothing" in text(await ben.call_tool("recall", {"key": "a"}))
        ann.release()
        ben.release()


async def _outcome(work: Any) -> Code | None:
    try:
        await work
    except CallFailed as failure:
        return failure.code
    return None


@requirement("library:stats")
async def test_stats_show_servers_sessions_and_leases() -> None:
    async with library() as (pool, _), pool.lease(NAME, principal="ann", chat="c"):
        stats = pool.stats()
        assert [server.name for server in stats.servers] == [NAME]
        assert [(session.user, session.scope) for session in stats.sessions if session.user] == [("ann", "chat")]
        assert stats.leases == 1
