"""The largest bodies that are taken, and larger ones: what they cost a gateway in a process of its own."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from interop.programs import holdfast, shipped_server
from processes import Process
from requirements import requirement
from rows import Figure, row

MIB: Final = 1 << 20
REQUEST_LIMIT: Final = 4 * MIB
MESSAGE_LIMIT: Final = 16 * MIB
TIMES: Final = 13
"""Memory at its peak, as a multiple of the largest body. Ten is the aim, which all but numbers keep: a million floats
in 4 MiB take 10 to 12, by how soon the server takes what is written."""


def filled(part: bytes, count: int | None = None) -> bytes:
    """An array of `count` times `part`; of as many as fit in a request."""
    return b"[" + b",".join([part] * (count or (REQUEST_LIMIT - 1000) // (len(part) + 1))) + b"]"


REQUESTS: Final[dict[str, tuple[bytes, int]]] = {
    "a string": (b'"' + b"x" * (REQUEST_LIMIT - 1000) + b'"', 200),
    "small integers": (filled(b"7"), 200),
    "large integers": (filled(b"1234567"), 200),
    "floats": (filled(b"1.5"), 200),
    "as many objects as are taken": (filled(b'{"a":1.5}', 99_000), 200),
    "as many arrays as are taken": (filled(b"[" * 60 + b"]" * 60, 3_300), 200),
    "as many strings as are taken": (filled('"é"'.encode(), 199_000), 200),
    "escaped quotes": (b'"' + rb"\"" * (REQUEST_LIMIT // 2 - 500) + b'"', 200),
    "too many objects": (filled(b'{"a":1}'), 400),
    "too many arrays": (filled(b"[]"), 400),
    "depth": (b"[" * (REQUEST_LIMIT - 1000), 400),
    "too large": (b'"' + b"x" * (2 * REQUEST_LIMIT) + b'"', 413),
}


class Gateway:
    """A gateway's process, as its memory and its answers show it."""

    def __init__(self, url: str, process: Process) -> None:
        self._port = int(url.removesuffix("/mcp").rpartition(":")[2])
        self._proc = Path(f"/proc/{process.pid}")
        self.slowest = 0.0
        """Seconds that the slowest of the small requests took while a large one was under way."""

    def post(self, body: bytes) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request("POST", "/mcp", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def grows_by(self, act: Callable[[], None]) -> int:
        """Bytes by which the memory in use grows at most while `act` runs, and small requests beside it."""
        (self._proc / "clear_refs").write_text("5", encoding="ascii")  # the peak is what is in use now
        before = self._memory("VmRSS")
        is_over = threading.Event()
        beside = threading.Thread(target=self._ping, args=(is_over,))
        beside.start()
        try:
            act()
        finally:
            is_over.set()
            beside.join()
        return self._memory("VmHWM") - before

    def _ping(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            began = time.perf_counter()
            assert self.post(b'{"jsonrpc":"2.0","id":0,"method":"ping"}')[0] == 200
            self.slowest = max(self.slowest, time.perf_counter() - began)

    def _memory(self, name: str) -> int:
        lines = (self._proc / "status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def call(tool: str, arguments: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b","arguments":%b}}' % (
        tool.encode(),
        arguments,
    )


@row(26)
@requirement("faults:hostile:memory")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it")
def test_no_body_costs_more_than_a_bounded_multiple_of_its_size_in_memory(figure: Figure) -> None:
    with shipped_server() as server, holdfast(server, "--scope", "shared") as (url, process):
        gateway = Gateway(url, process)
        gateway.post(call("count", b"{}"))

        def send(content: bytes, status: int) -> None:
            told = gateway.post(call("count", b'{"a":%b}' % content))
            assert told[0] == status, told

        def fetch(size: int, code: int | None) -> None:
            status, answer = gateway.post(call("big", b'{"bytes":%d}' % size))
            assert status == 200
            assert answer.get("error", {}).get("code") == code
            if code is None:
                assert len(answer["result"]["content"][0]["text"]) == size

        growth = {name: gateway.grows_by(partial(send, body, status)) for name, (body, status) in REQUESTS.items()}
        worst = max(growth, key=growth.__getitem__)
        assert growth[worst] <= TIMES * REQUEST_LIMIT, growth
        stall = gateway.slowest
        results = max(
            gateway.grows_by(partial(fetch, 15 * MIB, None)), gateway.grows_by(partial(fetch, 20 * MIB, -31004))
        )
        assert results <= TIMES * MESSAGE_LIMIT
        assert gateway.post(call("count", b"{}"))[0] == 200
    figure(
        f"memory at its peak: {growth[worst] / REQUEST_LIMIT:.1f} times the largest request ({worst}),"
        f" {results / MESSAGE_LIMIT:.1f} times the largest message; a ping beside took up to {stall * 1000:.0f} ms"
    )
