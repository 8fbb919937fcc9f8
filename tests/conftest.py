"""Settings of the test run that every ring shares."""

from __future__ import annotations

import gc
import os
import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ("rows",)

# Behind a shell's `&` it is ignored, and so it would be by every program that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine is no failure, so no example has a deadline; CI must find today what it found yesterday.
settings.register_profile(
    "holdfast",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("holdfast")


def pytest_collection_finish() -> None:
    """What was imported and collected lives as long as the run: no search for garbage need walk it again."""
    gc.collect()
    gc.freeze()
