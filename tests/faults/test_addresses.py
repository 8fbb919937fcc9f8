"""Hosts and origins that are not the gateway's, in every spelling that might pass for one that is."""

from __future__ import annotations

from typing import Final

from faults.raw_http import PING, post, raw_connection
from faults.rig import gateway_to
from holdfast.testing.server import ScriptedServer
from requirements import requirement
from rows import Figure, row

OWN: Final = ("localhost", "127.0.0.1", "[::1]")
NAMES: Final[tuple[str, ...]] = (
    *("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "evil-localhost", "localhost-evil", "local"),
    *("127.0.0.1.evil.example", "localhost.", "localhost..", "127.0.0.1.", ".localhost", "xn--localhost", "host"),
    *("127.1", "127.0.1", "127.0.0.2", "127.0.0.01", "127.000.000.001", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001"),
    *("0", "0.0.0.0", "2130706433", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::1%25lo]", "[::1", "::1]"),
    *("10.0.0.1", "169.254.169.254", "192.168.0.1", "[fe80::1]", "[::1].evil.example", "::1", "gateway", "router.lan"),
    *("localhost@evil.example", "evil.example@localhost", "localhost:80@evil.example", "evil.example#localhost"),
    *("evil.example\\localhost", "localhost\\evil.example", "evil.example/localhost", "localhost/evil", "localhost?x"),
    *(
        "localhost evil.example",
        "evil.example localhost",
        "localhost\tevil",
        "local\thost",
        "loc\u017fhost",
        "locälhost",
    ),
    *("http://localhost", "//localhost", "localhost:80:80", "localhost:-1", "localhost:8o", "localhost:0x50", "*"),
    *(
        "localhost,evil.example",
        "*.localhost",
        "metadata.google.internal",
        "\uff4cocalhost",
        "localhost#",
        "localhost?",
    ),
    *("", ":80", ":", ".", "null", "undefined", "localhost%00", "localhost%2eevil", "%6cocalhost", "localhost;evil"),
)
HOSTS: Final = tuple(dict.fromkeys(name for each in NAMES for name in (each, f"{each}:8790")))
"""With and without a port."""
ORIGINS: Final = tuple(
    dict.fromkeys(
        (
            *(f"{scheme}://{name}" for scheme in ("http", "https") for name in NAMES),
            *(
                "null",
                "file://",
                "data:",
                "about:blank",
                "chrome-extension://localhost.evil",
                "http:localhost",
                "localhost",
            ),
            *(
                "http://",
                "://localhost",
                "http:///localhost",
                "http://[",
                "http://]",
                "http://[::1]x",
                "http://[x]",
                "ws:",
            ),
            *("http://localhost, http://evil.example", "http://evil.example http://localhost"),
        )
    )
)


@row(18)
@requirement("faults:hostile:addresses")
async def test_every_spelling_of_a_foreign_host_or_origin_is_refused(figure: Figure) -> None:
    assert len(HOSTS) + len(ORIGINS) >= 200
    good = 0
    async with ScriptedServer() as server, gateway_to(server.url) as rig, raw_connection(rig.port) as connection:
        for field, vectors, status in (("host", HOSTS, 421), ("origin", ORIGINS, 403)):
            for vector in vectors:
                connection.write(post(PING, [(field, vector)]))
                assert (await connection.answer()).status == status, (field, vector)
        for name in OWN:
            for host in (name, name.upper(), f"{name}:1", f"{name}:8790"):
                for origin in (f"http://{host}", f"https://{host}"):
                    connection.write(post(PING, [("host", host), ("origin", origin)]))
                    assert (await connection.answer()).messages() == [{"jsonrpc": "2.0", "id": 1, "result": {}}]
                    good += 1
        assert server.ledger == []
    figure(f"{len(HOSTS)} hosts and {len(ORIGINS)} origins refused, {good} good ones passed")
