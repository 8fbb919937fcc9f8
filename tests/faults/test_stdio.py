"""Stdio servers that flood, and crash again and again (threats, rows 34 and 35)."""

from __future__ import annotations

from rows import row
from stdio_rig import descriptors, on_both_loops, python, reaped, running


@row(35)
@on_both_loops
async def test_stderr_and_junk_do_not_hold_up_an_answer() -> None:
    script = """
import sys
block = b"e" * 1023 + b"\\n"
sys.stderr.buffer.write(block * 100 * 1024)
sys.stdout.buffer.write(b"junk \\xff\\n" * 1000)
sys.stderr.buffer.write(b"the end\\n")
sys.stderr.flush()
print('{"id":1}', flush=True)
input()
"""
    async with running(*python(script)) as (link, inbox):
        assert await inbox.messages.get() == b'{"id":1}'
        assert link.skipped.junk == 1000
        assert len(link.stderr_tail) < 65536
        assert inbox.losses == []


@row(34)
@on_both_loops
async def test_two_hundred_crashes_leave_no_zombie_and_no_descriptor() -> None:
    async def crash() -> int:
        async with running(*python("import os; os._exit(1)")) as (link, inbox):
            await inbox.is_lost.wait()
            assert link.pid is not None
            return link.pid

    await crash()  # what the loop opens once for all children
    before = descriptors()
    pids = [await crash() for _ in range(200)]
    await reaped(*pids)
    assert descriptors() <= before
