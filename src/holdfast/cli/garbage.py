"""When Python looks for garbage, and the C library gives memory back: not while loading, and seldom while serving."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

YOUNG_OBJECTS: Final = 5000
"""Before garbage is looked for: with Python's 700, what 32 calls under way hold sets it off at every 26th call."""
OLDER: Final = (3, 2)
"""How often what has outlived one look is looked at again, and then everything: with Python's 10 and 10, what ended
sessions leave behind waits for half a million objects. Python looks at everything only once a quarter of it is new."""

LARGE_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes: what messages up to this took is kept for the next; twice as much may lie unused."""


@contextmanager
def ignored() -> Generator[None]:
    """Look for none until `settle` or the end of the block: what is loaded stays, and looking costs a sixth of it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """What is there lives as long as the process, and is not walked again; look for garbage in what comes."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *OLDER)
    gc.enable()
    # glibc learns from a large block that is freed (M_MMAP_THRESHOLD in mallopt(3)); before, it fetches the pages of
    # each message of 100 KB anew from the kernel.
    bytes(LARGE_MESSAGE)
