"""Kept sessions for code that does not await: one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from mcp_types import (
    CallToolResult,
    CompleteResult,
    GetPromptResult,
    Prompt,
    PromptReference,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    ResourceTemplateReference,
    Tool,
)

from holdfast.config import GatewaySettings
from holdfast.library.call import EVERYTHING, AskKind, OnLog, OnProgress, Question, Response
from holdfast.library.lease import PooledSession, SessionState
from holdfast.library.pool import PoolStats, SessionPool, Wanted

T = TypeVar("T")

OnAsk = Callable[[Question], Response | None]
"""Answers a question, in a thread of its own; None where nobody can. The pool does not wait for it to return."""

_NAME: Final = "holdfast"


class BlockingSession:
    """A `PooledSession` whose methods wait; for any thread, several at once too.

    Callbacks run in the thread of the pool and must not wait, but for `on_ask`, which has one of its own.
    """

    def __init__(self, pool: BlockingSessionPool, session: PooledSession) -> None:
        self._pool = pool
        self._session = session

    def __repr__(self) -> str:
        return f"<BlockingSession {self.server}>"

    @property
    def server(self) -> str:
        """As `PooledSession.server`."""
        return self._session.server

    @property
    def state(self) -> SessionState:
        """As `PooledSession.state`."""
        return self._pool.run(_soon(lambda: self._session.state))

    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_log: OnLog | None = None,
        on_ask: OnAsk | None = None,
        asks: Collection[AskKind] = EVERYTHING,
        meta: Mapping[str, Any] | None = None,
    ) -> CallToolResult:
        """As `PooledSession.call_tool`."""

        async def ask(question: Question) -> Response | None:
            return None if on_ask is None else await _in_a_thread(on_ask, question)

        return self._pool.run(
            self._session.call_tool(
                name,
                arguments,
                timeout=timeout,
                on_progress=on_progress,
                on_log=on_log,
                on_ask=None if on_ask is None else ask,
                asks=asks,
                meta=meta,
            )
        )

    def warm(self) -> None:
        """As `PooledSession.warm`."""
        self._pool.run(self._session.warm())

    def list_tools(self, *, timeout: float | None = None) -> list[Tool]:
        """As `PooledSession.list_tools`."""
        return self._pool.run(self._session.list_tools(timeout=timeout))

    def list_prompts(self, *, timeout: float | None = None) -> list[Prompt]:
        """As `PooledSession.list_prompts`."""
        return self._pool.run(self._session.list_prompts(timeout=timeout))

    def list_resources(self, *, timeout: float | None = None) -> list[Resource]:
        """As `PooledSession.list_resources`."""
        return self._pool.run(self._session.list_resources(timeout=timeout))

    def list_resource_templates(self, *, timeout: float | None = None) -> list[ResourceTemplate]:
        """As `PooledSession.list_resource_templates`."""
        return self._pool.run(self._session.list_resource_templates(timeout=timeout))

    def read_resource(self, uri: str, *, timeout: float | None = None) -> ReadResourceResult:
        """As `PooledSession.read_resource`."""
        return self._pool.run(self._session.read_resource(uri, timeout=timeout))

    def get_prompt(
        self, name: str, arguments: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> GetPromptResult:
        """As `PooledSession.get_prompt`."""
        return self._pool.run(self._session.get_prompt(name, arguments, timeout=timeout))

    def complete(
        self,
        ref: PromptReference | ResourceTemplateReference,
        name: str,
        value: str,
        *,
        context: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CompleteResult:
        """As `PooledSession.complete`."""
        return self._pool.run(self._session.complete(ref, name, value, context=context, timeout=timeout))

    def subscribe(self, uri: str) -> None:
        """As `PooledSession.subscribe`."""
        self._pool.run(self._session.subscribe(uri))

    def unsubscribe(self, uri: str) -> None:
        """As `PooledSession.unsubscribe`."""
        self._pool.run(self._session.unsubscribe(uri))

    def request(self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> bytes:
        """As `PooledSession.request`."""
        return self._pool.run(self._session.request(method, params, timeout=timeout))

    def release(self) -> None:
        """As `PooledSession.release`."""
        self._pool.run(_soon(self._session.release))


class BlockingSessionPool:
    """A `SessionPool` for code that does not await; used as a context manager.

    In a script:

        with BlockingSessionPool.open("holdfast.yaml") as pool, pool.lease("notes", principal="alice") as session:
            print(session.call_tool("recall", {"key": "colour"}))

    Its methods wait until it is done, and may be called from any thread; Ctrl-C cancels what is waited for.
    """

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def open(cls, config: GatewaySettings | Mapping[str, Any] | str | os.PathLike[str]) -> Self:
        """As `SessionPool.open`."""
        return cls(SessionPool.open(config))

    def __repr__(self) -> str:
        return f"<BlockingSessionPool of {self._pool!r}>"

    def __enter__(self) -> Self:
        started: Future[None] = Future()

        def serve() -> None:
            try:
                with asyncio.Runner() as runner:
                    self._loop = runner.get_loop()
                    self._loop.call_soon(started.set_result, None)
                    self._loop.run_forever()
            except Exception as error:
                if started.done():
                    raise
                started.set_exception(error)  # an event loop takes descriptors, and there may be none

        thread = threading.Thread(target=serve, name=_NAME, daemon=True)
        thread.start()
        self._thread = thread
        started.result()
        try:
            self.run(_entered(self._pool))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.run(self._pool.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def acquire(self, server: str, **wanted: Unpack[Wanted]) -> BlockingSession:
        """As `SessionPool.acquire`."""
        return BlockingSession(self, self.run(self._pool.acquire(server, **wanted)))

    @contextmanager
    def lease(self, server: str, **wanted: Unpack[Wanted]) -> Generator[BlockingSession]:
        """`acquire`, and `release` at the end of the block."""
        session = self.acquire(server, **wanted)
        try:
            yield session
        finally:
            session.release()

    def invalidate(self, *, server: str | None = None, principal: str | None = None) -> None:
        """As `SessionPool.invalidate`."""
        self.run(_soon(lambda: self._pool.invalidate(server=server, principal=principal)))

    def stats(self) -> PoolStats:
        """As `SessionPool.stats`."""
        return self.run(_soon(self._pool.stats))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the pool's thread and return what it returns."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the pool is not open: use it within `with`")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback in the pool's thread cannot wait for the pool: hand it to another thread")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C among them
            future.cancel()
            raise

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()


async def _entered(pool: SessionPool) -> None:
    await pool.__aenter__()


async def _in_a_thread(on_ask: OnAsk, question: Question) -> Response | None:
    """What `on_ask` returns. Its thread is nobody's: asyncio's own would be waited for, here and at Python's exit."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Response | None] = loop.create_future()

    def settle(response: Response | None, error: Exception | None) -> None:
        if answered.done():
            return
        if error is None:
            answered.set_result(response)
        else:
            answered.set_exception(error)

    def answer() -> None:
        response: Response | None = None
        failure: Exception | None = None
        try:
            response = on_ask(question)
        except Exception as error:  # noqa: BLE001 (raised where it is awaited)
            failure = error
        finally:  # whatever ended it, as `sys.exit` does
            with suppress(RuntimeError):  # the pool has ended
                loop.call_soon_threadsafe(settle, response, failure)

    threading.Thread(target=answer, name=f"{_NAME} on_ask", daemon=True).start()
    return await answered


async def _soon(what: Callable[[], T]) -> T:
    """`what`, in the loop's own thread."""
    return what()
