"""What the official conformance suite asks for and a gateway cannot give, and why; docs/eras.md says the same.

Everything else must pass, and what is listed here must not: a line that has become wrong fails a test.
"""

from __future__ import annotations

from typing import Final, NamedTuple

HANDSHAKE: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
BOTH: Final = "both"
CHAT: Final = "both, in a chat"
PEERS: Final = (
    (HANDSHAKE, HANDSHAKE),
    (MODERN, MODERN),
    (MODERN, HANDSHAKE),
    (HANDSHAKE, MODERN),
    (HANDSHAKE, BOTH),
    (MODERN, BOTH),
    (MODERN, CHAT),
)
"""What is examined: the revision that the suite speaks, and those of the server."""
SCENARIOS: Final = {HANDSHAKE: 33, MODERN: 40}
"""How many of the suite's scenarios for servers the reference server passes with nothing in between."""


class Exemption(NamedTuple):
    """A scenario, or a single check of one that passes, that is lost on the way."""

    suite: str
    """The revision that the suite speaks."""
    peer: str
    """The server's revisions; or `client`, where the suite is the server and the gateway its client."""
    name: str
    reason: str
    is_check: bool = False
    """Whether it is a check of a scenario that is kept."""
    is_warning: bool = False
    """Whether what is missed is a SHOULD, so that the suite itself only warns."""


EXEMPT: Final = (
    Exemption(
        MODERN,
        HANDSHAKE,
        "server-stateless",
        "a warning: the server tells of a changed list in the session that changed it alone,"
        " and that of a call without a name has ended by then",
        is_warning=True,
    ),
    Exemption(
        MODERN,
        HANDSHAKE,
        "input-required-result-basic-elicitation",
        "it looks for the question by a name (`user_name`) that only a server of 2026-07-28 can give it",
    ),
    Exemption(
        MODERN,
        HANDSHAKE,
        "input-required-result-ignore-extra-params",
        "a warning: it answers by that name before it was asked",
        is_warning=True,
    ),
    Exemption(
        MODERN,
        HANDSHAKE,
        "input-required-result-multiple-input-requests",
        "it wants three questions in one result, and the server asks one after the other",
    ),
    Exemption(
        MODERN,
        CHAT,
        "server-stateless",
        "it wants a call refused that declares less than the session of its chat did, which other requests share",
    ),
    Exemption(
        MODERN,
        CHAT,
        "input-required-result-basic-elicitation",
        "as before a server of 2025-11-25",
    ),
    Exemption(
        MODERN,
        CHAT,
        "input-required-result-ignore-extra-params",
        "a warning, as before a server of 2025-11-25",
        is_warning=True,
    ),
    Exemption(
        MODERN,
        CHAT,
        "input-required-result-multiple-input-requests",
        "as before a server of 2025-11-25",
    ),
    Exemption(
        HANDSHAKE,
        MODERN,
        "server-sse-disconnect-resume",
        "a check alone: it resumes a stream that its server closed, and those of 2026-07-28 cannot be resumed",
        is_check=True,
    ),
    *(
        Exemption(
            MODERN,
            "client",
            f"sep-2575-client-declares-{ability}-capability",
            "a check alone, not made: a server that offers nothing is called by nobody who could be asked",
            is_check=True,
        )
        for ability in ("roots", "sampling", "elicitation")
    ),
)


def lost(suite: str, peer: str) -> set[str]:
    """The scenarios and the checks that cannot be kept; those that the suite warns of end with `[warn]`."""
    return {
        f"{each.name} [warn]" if each.is_warning else each.name
        for each in EXEMPT
        if (each.suite, each.peer) == (suite, peer)
    }


def kept(suite: str, peer: str) -> str:
    """How many scenarios are kept, in words."""
    whole = [each for each in EXEMPT if (each.suite, each.peer, each.is_check) == (suite, peer, False)]
    warned = sum(each.is_warning for each in whole)
    words = f"{SCENARIOS[suite] - len(whole)} of {SCENARIOS[suite]}"
    return f"{words}, and {warned} with a warning" if warned else words
