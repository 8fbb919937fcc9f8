"""Who is not let in is told to the operator, without what was sent."""

from __future__ import annotations

from typing import Final

import pytest
from pydantic import SecretStr

from holdfast import events
from holdfast.config import ClientSettings, Trust, key_digest
from holdfast.events import Denial
from holdfast.observe.log import EventLog
from requirements import requirement
from rig import rig

HOST: Final = ClientSettings(
    name="host",
    key_digests=(key_digest("sesame"),),
    trust=Trust(user="x-user", jwt="x-jwt", jwt_secret=SecretStr("s" * 32)),
)
PING: Final = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
SENT: Final = "open-barley-0123456789"


@requirement("observe:log:who-is-not-let-in")
@pytest.mark.parametrize(
    ("path", "headers", "kind", "status"),
    [
        ("/mcp", {}, Denial.NO_KEY, 401),
        ("/mcp", {"authorization": f"Bearer {SENT}"}, Denial.UNKNOWN_KEY, 401),
        ("/mcp", {"authorization": f"Basic {SENT}"}, Denial.UNKNOWN_KEY, 401),
        ("/mcp", {"authorization": "Bearer sesame", "x-user": SENT}, Denial.UNSIGNED_USER, 403),
        ("/mcp", {"authorization": "Bearer sesame", "x-jwt": SENT}, Denial.BAD_TOKEN, 403),
        ("/mcp", {"authorization": "Bearer sesame", "origin": f"https://{SENT}"}, Denial.FOREIGN_ORIGIN, 403),
        ("/mcp", {"authorization": "Bearer sesame", "host": SENT}, Denial.FOREIGN_HOST, 421),
        ("/api/servers", {}, Denial.NO_KEY, 401),
        ("/metrics", {"authorization": f"Bearer {SENT}"}, Denial.UNKNOWN_KEY, 401),
    ],
)
async def test_who_is_not_let_in_is_told_once_with_the_reason_and_without_what_was_sent(
    path: str, headers: dict[str, str], kind: Denial, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[events.Event] = []
    gateway = {"operator_key_digest": key_digest("operator")}
    async with rig(clients=(HOST,), emit=heard.append, gateway=gateway) as running:
        for _ in range(3):
            async with running.client().request("POST", PING, path, **{"x-request-id": "r1", **headers}) as response:
                assert response.status == status
    (denied,) = [event for event in heard if isinstance(event, events.RequestDenied)]
    route = path.split("/")[1]
    assert (denied.route, denied.kind, denied.status) == (route, kind, status)
    assert (denied.address, denied.request) == ("127.0.0.1", "r1")
    caplog.set_level("INFO", "holdfast")
    EventLog().take(denied)
    (line,) = caplog.messages
    assert line.startswith(f"a request from 127.0.0.1 was refused ({status}): ")
    assert line.endswith(" (request r1)")
    assert SENT not in repr(denied) + line
