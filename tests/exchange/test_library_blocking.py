"""`BlockingSessionPool`: kept sessions for code that does not await."""

from __future__ import annotations

import asyncio
import errno
import inspect
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn

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


def ends(work: Callable[[], object]) -> BaseException | None:
    """Run `work`, which may not take for ever; what it raised."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 (returned)
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert raised, "it does not end"
    return raised[0]


@requirement("library:blocking:never-hangs")
def test_a_pool_that_cannot_have_an_event_loop_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptors() -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    pool = BlockingSessionPool.open({"servers": {NAME: {"url": "http://127.0.0.1:1/mcp"}}})
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.events, "new_event_loop", no_descriptors)
        patch.setattr(asyncio, "new_event_loop", no_descriptors)
        error = ends(pool.__enter__)
    assert isinstance(error, OSError)
    assert error.errno == errno.EMFILE
    with pytest.raises(RuntimeError, match="not open"):
        pool.stats()
    with pool:
        assert pool.stats().leases == 0


@requirement("library:blocking:never-hangs")
def test_a_pool_ends_although_somebody_is_still_being_asked() -> None:
    asked, may_return = threading.Event(), threading.Event()

    def never(_: Question) -> Response | None:
        asked.set()
        may_return.wait(300)
        return None

    with server() as url, ThreadPoolExecutor(1) as threads:
        pool = BlockingSessionPool.open({"servers": {NAME: {"url": url}}})
        pool.__enter__()
        session = pool.acquire(NAME, principal="ann", chat="c")
        asking = threads.submit(session.call_tool, "ask", {"message": "Which?"}, on_ask=never)
        assert asked.wait(30)
        error = ends(lambda: pool.__exit__(None, None, None))
        may_return.set()
        assert error is None
        assert asking.exception(30) is not None
