"""What Holdfast owes: each requirement with an id, one sentence and where it comes from.

A test names the requirement that it holds with `@requirement(id)`. tests/test_requirements.py
sees to it that no test names an unknown id and that no requirement goes without a test.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest


class Requirement(NamedTuple):
    """One thing that must hold, and who says so."""

    sentence: str
    source: str


REQUIREMENTS: Final[dict[str, Requirement]] = {
    # wire
    "wire:client:what-goes-on-reads-the-same-everywhere": Requirement(
        "What is sent on of a client's request means the same to every JSON parser.",
        "threats-and-faults 24",
    ),
    "wire:client:depth-is-bounded": Requirement(
        "A client's message nested deeper than 128 levels is refused.",
        "threats-and-faults 24",
    ),
    "wire:client:integers-fit-64-bits": Requirement(
        "A client's integer beyond 64 bits is refused, since parsers round it differently.",
        "threats-and-faults 24",
    ),
    "wire:client:malformed-is-answered": Requirement(
        "Bytes that are no JSON-RPC are refused with -32700 or -32600, never with a crash.",
        "threats-and-faults 23",
    ),
    "wire:ids:types-are-kept": Requirement(
        'The request ids 1, "1" and 1.0 are three ids, and each is answered as it was sent.',
        "threats-and-faults 2",
    ),
    "wire:server:results-pass-untouched": Requirement(
        "A server's result goes on byte for byte, apart from line ends outside its strings.",
        "architecture 3, step 2",
    ),
    "wire:sse:whatwg-framing-only": Requirement(
        "Event streams are cut at CR, LF and CRLF and nowhere else, however the bytes arrive.",
        "threats-and-faults 27",
    ),
    "wire:sse:events-are-bounded": Requirement(
        "An event beyond the size limit ends the stream instead of filling the memory.",
        "threats-and-faults 26",
    ),
    "wire:sse:feeding-takes-linear-time": Requirement(
        "Reading a stream costs the same per byte, however small its chunks and however long its lines.",
        "threats-and-faults 26",
    ),
    "wire:headers:session-ids-are-visible-ascii": Requirement(
        "A session id is visible ASCII, 0x21 to 0x7E.",
        "MCP 2025-11-25, Transports, Session Management",
    ),
    "wire:headers:curl-gets-json": Requirement(
        "A client that names no type, or any type, is answered with plain JSON.",
        "architecture 3, step 5",
    ),
    "wire:revisions:unknown-gets-latest": Requirement(
        "An `initialize` for a revision that we do not speak is answered with our latest.",
        "MCP 2025-11-25, Lifecycle, Version Negotiation",
    ),
    # tasks
    "tasks:a-failure-ends-one-child": Requirement(
        "A background task that fails is logged and ends alone.",
        "architecture 6, concurrency",
    ),
    # settings
    "config:reachable-needs-a-key": Requirement(
        "A gateway that other machines can reach does not start without keys.",
        "architecture 5, principals",
    ),
    "config:secrets-stay-secret": Requirement(
        "No credential appears in the text form of settings or in what is said about wrong ones.",
        "threats-and-faults 21",
    ),
    "config:credentials-are-part-of-the-key": Requirement(
        "Two credentials towards a server have two fingerprints, and so never share a session.",
        "architecture 5, key",
    ),
    # conformance
    "conformance:handshake:nothing-is-lost": Requirement(
        "Every conformance check that a server passes directly, it passes through the gateway.",
        "official MCP conformance suite, 2025-11-25",
    ),
}


def requirement(requirement_id: str) -> pytest.MarkDecorator:
    """Mark a test as one that holds the requirement of this id."""
    if requirement_id not in REQUIREMENTS:
        raise KeyError(f"{requirement_id!r} is not in tests/requirements.py")
    return pytest.mark.requirement(requirement_id)
