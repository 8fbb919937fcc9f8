"""Asks a server one thing after another, bounded in time, and leaves nothing behind."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

from holdfast.clock import Clock, LoopClock, timeout
from holdfast.config import ServerSettings
from holdfast.doctor.conversation import Patience
from holdfast.doctor.examination import OnStep, Terms
from holdfast.doctor.findings import Findings
from holdfast.doctor.http_examination import HttpExamination
from holdfast.doctor.named import Wanted
from holdfast.doctor.problem import problem_of
from holdfast.doctor.stdio_examination import StdioExamination
from holdfast.tasks import TaskScope
from holdfast.upstream.watchdog import Watchdog

DEFAULT_TIMEOUT: Final = 120.0
"""Everything together: three openings that hang, and as many answers, fit in."""


async def examine(
    server: ServerSettings,
    wanted: Wanted,
    *,
    total: float = DEFAULT_TIMEOUT,
    on_step: OnStep = lambda _: None,
    clock: Clock | None = None,
) -> Findings:
    """Find out how `server` treats sessions, within `total` seconds and some for the ending of what was opened.

    Never raises for what a server does. Cancelled, it still ends its sessions. Raises `ValueError`
    for a URL or a header that cannot be sent, and `UnknownTool` before anything is called.
    """
    if clock is None:
        clock = LoopClock()
    patience = Patience.within(total)
    begun = clock.now()
    async with AsyncExitStack() as stack:
        watchdog = Watchdog(clock)
        stack.push_async_callback(watchdog.aclose)
        scope = await stack.enter_async_context(TaskScope())
        terms = Terms(wanted, clock, patience, on_step)
        examination = (
            HttpExamination(server, terms, scope)
            if server.url is not None
            else StdioExamination(server, terms, watchdog)
        )
        findings = examination.findings
        try:
            async with timeout(clock, patience.total):
                await examination.run()
        except TimeoutError:
            findings.is_cut = True
        finally:
            on_step("end what was opened")
            try:
                async with timeout(clock, patience.closing):
                    await examination.leave()
            except TimeoutError:
                pass  # what is left is dropped, and counted
            finally:
                examination.drop()
    if findings.opened is None and not findings.is_modern_only:
        findings.problem = problem_of(findings)
    findings.seconds = clock.now() - begun
    return findings
