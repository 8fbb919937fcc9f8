"""`BlockingSessionPool`: kept sessions for code that does not await."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from mcp_types import ElicitResult, ResourceTemplateReference

from holdfast import (
    BlockingSession,
    BlockingSessionPool,
    PooledSession,
    Question,
    Response,
    SessionPool,
    UnknownServer,
)
from holdfast.testing.server import ScriptedServer
from library_rig import NAME, text
from requirements import requirement


@contextmanager
def server() -> Generator[str]:
    """A scripted server in a thread of its own."""
    started = threading.Event()
    stop: list[Callable[[], object]] = []
    urls: list[str] = []

    async def serve() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        async with ScriptedServer() as upstream:
            urls.append(upstream.url)
            stop.append(lambda: loop.call_soon_threadsafe(ended.set))
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield urls[0]
    finally:
        stop[0]()
        thread.join(30)
        assert not thread.is_alive()


@requirement("library:blocking")
def test_a_session_that_blocks_does_all_that_one_which_is_awaited_does() -> None:
    for awaited, blocking in ((PooledSession, BlockingSession), (SessionPool, BlockingSessionPool)):
        wanted = {name for name in vars(awaited) if not name.startswith("_")} - {"is_released", "transport", "release"}
        assert wanted <= set(vars(blocking))
        for name in wanted - {"state", "server", "open", "lease"}:
            theirs, ours = (inspect.signature(getattr(each, name)).parameters for each in (awaited, blocking))
            assert list(theirs) == list(ours) or "wanted" in ours, name


@requirement("library:blocking")
def test_code_that_does_not_await_keeps_its_sessions() -> None:
    before = threading.active_count()
    with server() as url, BlockingSessionPool.open({"servers": {NAME: {"url": url}}}) as pool:
        with pool.lease(NAME, principal="ann", chat="c") as session:
            assert session.state == "warm"
            session.call_tool("remember", {"key": "a", "value": "b"})
            assert len(session.list_tools()) > 5
            assert session.read_resource(str(session.list_resources()[0].uri)).contents
            assert session.list_prompts()
            assert session.request("ping") == b"{}"
            uri = session.list_resource_templates()[0].uri_template
            completed = session.complete(ResourceTemplateReference(type="ref/resource", uri=uri), "id", "1")
            assert "17" in completed.completion.values
            session.subscribe(str(session.list_resources()[0].uri))
            session.unsubscribe(str(session.list_resources()[0].uri))
            session.warm()
            assert (session.server, repr(session)) == (NAME, f"<BlockingSession {NAME}>")
        with pool.lease(NAME, principal="ann", chat="c") as session:
            assert text(session.call_tool("recall", {"key": "a"})) == "b"
            assert pool.stats().leases == 1
        pool.invalidate(principal="ann")
        with pool.lease(NAME, principal="ann", chat="c") as session:
            assert "nothing" in text(session.call_tool("recall", {"key": "a"}))
        with pytest.raises(UnknownServer):
            pool.acquire("nope", principal="ann")
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="not open"):
        pool.stats()


@requirement("library:blocking")
def test_a_question_may_be_answered_by_code_that_waits_while_other_threads_go_on() -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def answer(_: Question) -> Response | None:
        asked.set()
        assert may_answer.wait(30)
        return ElicitResult(action="accept", content={"answer": "blue"})

    with (
        server() as url,
        BlockingSessionPool.open({"servers": {NAME: {"url": url}}}) as pool,
        pool.lease(NAME, principal="ann", chat="c") as session,
        ThreadPoolExecutor(1) as threads,
    ):
        asking = threads.submit(session.call_tool, "ask", {"message": "Which?"}, on_ask=answer)
        assert asked.wait(30)
        assert text(session.call_tool("count")) == "1"
        may_answer.set()
        assert "blue" in text(asking.result(30))


@requirement("library:blocking")
def test_a_callback_that_would_wait_for_its_own_thread_is_told_so() -> None:
    with (
        server() as url,
        BlockingSessionPool.open({"servers": {NAME: {"url": url}}}) as pool,
        pool.lease(NAME, principal="ann", chat="c") as session,
    ):

        def wait(progress: float, total: float | None, message: str | None) -> None:
            session.list_tools()

        with pytest.raises(RuntimeError, match="cannot wait"):
            session.call_tool("progress", {"steps": 1}, on_progress=wait, timeout=30)
        assert text(session.call_tool("count")) == "1"
